"""Finds the agents, end users and files that somebody may see."""

from typing import Any, BinaryIO, TypeVar, cast
from uuid import UUID

from django.db.models import QuerySet

from accounts.models import User
from accounts.policy import Actor, Reach, reach_of
from common.errors import DomainError, NotFound
from projects.models import Project
from projects.selectors import has_name
from resources.models import KINDS, File, ProjectResource

R = TypeVar("R", bound=ProjectResource)

# What people call the kinds.
KINDS_BY_NAME = {f"{kind.noun}s": kind for kind in KINDS}


def within(reach: Reach, kind: type[R]) -> QuerySet[R]:
    """Return the resources of a kind that are within reach, each with its project."""
    rows = kind._default_manager.select_related("project").filter(owner=reach.owner)
    return rows if reach.project_id is None else rows.filter(project=reach.project_id)


def resources_of(
    actor: Actor, kind: type[R], *, project: str | None = None, owner: User | None = None
) -> QuerySet[R]:
    """Return the resources of a kind in the account's projects.

    project: a canonical name, whatever the case of its letters; an unknown one has no resources.
    owner: the account, the actor's own by default. Raises as `policy.reach_of`.
    """
    rows = within(reach_of(actor, owner), kind)
    return rows if project is None else rows.filter(has_name(project, of="project__"))


def resource_for(actor: Actor, kind: type[R], uuid: UUID) -> R:
    """Return a resource of the actor's account; raise NotFound for any other.

    Raises as `policy.reach_of` besides.
    """
    row = within(reach_of(actor), kind).filter(uuid=uuid).first()
    if row is None:
        raise NotFound(missing(kind, uuid))
    return row


def missing(kind: type[ProjectResource], uuid: UUID) -> str:
    """Return the sentence for an id that the key does not reach."""
    return f"There is no {kind.noun} '{uuid}'."


def counts_of(project: Project) -> dict[str, int]:
    """Return how many agents, users and files are in a project."""
    return {
        name: kind._default_manager.filter(project=project).count()
        for name, kind in KINDS_BY_NAME.items()
    }


def open_content(file: File) -> BinaryIO:
    """Return the bytes of a file, to be read and closed.

    Raises ContentMissing where the storage has lost them, or the file was deleted meanwhile.
    """
    try:
        opened: Any = file.content.storage.open(str(file.content.name), "rb")
    except FileNotFoundError as error:
        raise ContentMissing(
            f"The content of file '{file.uuid}' is missing from the server's storage; its "
            "administrator can look into it with the command checkfiles."
        ) from error
    return cast("BinaryIO", opened)


def is_stored(file: File) -> bool:
    """Tell whether the file is still there."""
    return File.objects.filter(pk=file.pk).exists()


class ContentMissing(DomainError):
    """A file's row is there, its bytes are not."""

    code = "content-missing"

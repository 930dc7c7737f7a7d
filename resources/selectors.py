"""Finds the agents, end users and files that somebody may see."""

from typing import Any, BinaryIO, TypeVar, cast
from uuid import UUID

import structlog
from django.db.models import QuerySet, Subquery

from accounts.models import User
from accounts.policy import Actor, Reach, reach_of
from common.errors import DomainError, NotFound
from projects.models import Project
from projects.selectors import grouped_in, has_name
from resources.models import KINDS, File, ProjectResource

R = TypeVar("R", bound=ProjectResource)

log = structlog.get_logger(__name__)

# What people call the kinds.
KINDS_BY_NAME = {f"{kind.noun}s": kind for kind in KINDS}


def within(reach: Reach, kind: type[R]) -> QuerySet[R]:
    """Return the resources of a kind that are within reach, each with its project."""
    return reach.within(kind._default_manager.select_related("project"), project="project")


def resources_of(
    actor: Actor, kind: type[R], *, project: str | None = None, owner: User | None = None
) -> QuerySet[R]:
    """Return the resources of a kind in the account's projects.

    project: a canonical name, whatever the case of its letters; an unknown one has no resources.
    owner: the account, the actor's own by default. Raises as `policy.reach_of`.
    """
    reach = reach_of(actor, owner)
    rows = within(reach, kind)
    if project is None:
        return rows
    # Looked up first: through the join, PostgreSQL would read all of the account's rows.
    named = Project.objects.filter(has_name(project), owner=reach.owner).order_by()
    return rows.filter(project=Subquery(named.values("pk")))


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
    counts = grouped_in([project])
    return {name: counts[kind] for name, kind in KINDS_BY_NAME.items()}


def open_content(file: File) -> BinaryIO:
    """Return the bytes of a file, to be read and closed.

    Raises NotFound where the file was deleted since it was read, ContentMissing where the storage
    has lost its bytes.
    """
    try:
        opened: Any = file.content.storage.open(str(file.content.name), "rb")
    except FileNotFoundError as error:
        if not File.objects.filter(pk=file.pk).exists():
            raise NotFound(missing(File, file.uuid)) from error
        log.error("content_missing", file=str(file.uuid))
        raise ContentMissing(
            f"The content of file '{file.uuid}' is missing from the server's storage; its "
            "administrator can look into it with the command checkfiles."
        ) from error
    return cast("BinaryIO", opened)


class ContentMissing(DomainError):
    """A file's row is there, its bytes are not."""

    code = "content-missing"

"""Makes, changes, moves and deletes agents, end users and files."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import structlog
from django.core.files.base import ContentFile
from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts.models import User
from accounts.policy import Actor, Level, Reach, reach_of, require_admin
from common.canonical_names import (
    IdTaken,
    NameTaken,
    check_canonical_name,
    save_named,
)
from common.database import retry_conflicts, violated, was_refused
from common.errors import (
    DomainError,
    FieldError,
    NotFound,
    ProjectNotEmpty,
    ProjectNotFound,
    Unavailable,
)
from common.json import check_document
from common.models import uuid7
from projects.default_project import default_project_of
from projects.models import Project
from projects.selectors import named_project
from projects.services import OnResources
from resources.models import KINDS, Agent, File, ProjectResource
from resources.selectors import KINDS_BY_NAME, counts_of, missing, within
from resources.storage import deleting

R = TypeVar("R", bound=ProjectResource)

log = structlog.get_logger(__name__)


# --- Create ---------------------------------------------------------------------------------------
@retry_conflicts
@transaction.atomic
def create_resource(
    kind: type[R],
    *,
    actor: Actor,
    values: Mapping[str, Any],
    uuid: UUID | None = None,
    owner: User | None = None,
) -> R:
    """Create an agent or end user in the project that `values` names, else in the default one.

    owner: the account it is for, the actor's own by default.
    Raises as `reach_of` and `named_project`, Invalid, and NameTaken or IdTaken (Conflict).
    """
    row = _new(kind, _writing(actor, kind, owner), values, uuid)
    if not isinstance(row, Agent):
        _save(row, force_insert=True)
        return row
    agent = row

    def save(name: str) -> None:
        agent.canonical_name = name
        _save(agent, force_insert=True)

    given = values.get("canonical_name")
    save_named(given, display_name=agent.name, what="agent", save=save)
    return row


def create_file(
    *, actor: Actor, values: Mapping[str, Any], content: bytes, owner: User | None = None
) -> File:
    """Store a file; raise as `create_resource`, and Unavailable where the storage refuses.

    content: at least one byte.
    """
    row = _new(File, _writing(actor, File, owner), values, None)
    row.size = len(content)
    row.sha256 = hashlib.sha256(content).hexdigest()
    try:
        row.content.save("", ContentFile(content), save=False)
    except OSError as error:
        log.error("file_not_stored", error=error.strerror)
        raise Unavailable("The server's storage did not take the file; try again later.") from error
    try:
        _save(row, force_insert=True)
    except DomainError:
        _delete_content(row.content.name)
        raise
    except DatabaseError as error:
        # After a lost connection the row may be there all the same.
        if was_refused(error):
            _delete_content(row.content.name)
        raise
    return row


def _new(kind: type[R], reach: Reach, values: Mapping[str, Any], uuid: UUID | None) -> R:
    row = kind(
        uuid=uuid or uuid7(),
        owner=reach.owner,
        project=named_project(reach, values.get("project")),
    )
    _fill(row, _with_defaults(kind, values))
    return row


# --- Replace, change, move ------------------------------------------------------------------------
@retry_conflicts
@transaction.atomic
def replace_resource(kind: type[R], *, actor: Actor, uuid: UUID, values: Mapping[str, Any]) -> R:
    """Replace all of a resource but its id, and its project and canonical name where not given.

    Raises as `resource_for` and `create_resource`.
    """
    reach = _writing(actor, kind)
    row = _locked(kind, reach, uuid)
    _apply(row, reach, _with_defaults(kind, values))
    return row


def hold_resource(kind: type[ProjectResource], *, actor: Actor, uuid: UUID) -> None:
    """Let nobody else change a resource until the transaction ends; raise as `resource_for`."""
    _locked(kind, _writing(actor, kind), uuid)


def create_or_replace_resource(
    kind: type[R], *, actor: Actor, uuid: UUID, values: Mapping[str, Any]
) -> tuple[R, bool]:
    """Replace the resource, or create one of this id; return it and whether it was created.

    Raises as `create_resource`.
    """
    with suppress(_Missing):
        return replace_resource(kind, actor=actor, uuid=uuid, values=values), False
    try:
        return create_resource(kind, actor=actor, values=values, uuid=uuid), True
    except (IdTaken, NameTaken) as error:
        # Somebody else of the same account was quicker, or the key does not reach it.
        try:
            return replace_resource(kind, actor=actor, uuid=uuid, values=values), False
        except _Missing:
            raise error from None


@retry_conflicts
@transaction.atomic
def update_resource(
    kind: type[R],
    *,
    actor: Actor,
    uuid: UUID,
    changes: Mapping[str, Any],
    owner: User | None = None,
    merge: bool = True,
) -> R:
    """Change some of a resource.

    `project` moves it to another project of its owner.
    merge: whether metadata is merged at its top level, or replaced as all else.
    Raises as `replace_resource`.
    """
    reach = _writing(actor, kind, owner)
    row = _locked(kind, reach, uuid)
    if merge and "metadata" in changes:
        stored: Any = row
        changes = {**changes, "metadata": {**stored.metadata, **changes["metadata"]}}
    _apply(row, reach, changes)
    return row


@retry_conflicts
@transaction.atomic
def move_resources(
    kind: type[ProjectResource],
    *,
    actor: Actor,
    owner: User,
    source: str,
    target: str,
    uuids: Collection[UUID] | None = None,
) -> int:
    """Move the resources of a kind between two projects of an account; return how many moved.

    source, target: canonical names.
    uuids: only these, all of which must be there; None for all.
    Raises as `reach_of` and `named_project`, and NotFound for an id that is not there.
    """
    reach = _writing(actor, kind, owner)
    left, entered = named_project(reach, source), named_project(reach, target)
    rows = within(reach, kind).filter(project=left)
    if uuids is not None:
        rows = rows.filter(uuid__in=uuids)
        found = set(rows.values_list("uuid", flat=True))
        for uuid in uuids:
            if uuid not in found:
                raise NotFound(f"Project '{left.handle}' has no {kind.noun} '{uuid}'.")
    return 0 if left == entered else _move(rows, entered)


@retry_conflicts
@transaction.atomic
def move_contents(
    *,
    actor: Actor,
    owner: User,
    source: str,
    target: str,
    kinds: Iterable[str] = tuple(KINDS_BY_NAME),
    uuids: Collection[UUID] | None = None,
    dry_run: bool = False,
) -> dict[str, int]:
    """Move what a project groups, all of it or nothing; return how many moved of each kind.

    kinds: ``agents``, ``users``, ``files``.
    dry_run: only find out, and leave everything where it is.
    Raises as `move_resources`.
    """
    moved = {
        name: move_resources(
            KINDS_BY_NAME[name],
            actor=actor,
            owner=owner,
            source=source,
            target=target,
            uuids=uuids,
        )
        for name in kinds
    }
    if dry_run:
        transaction.set_rollback(True)
    return moved


def _move(rows: QuerySet[Any], project: Project) -> int:
    try:
        with transaction.atomic():
            moved: int = rows.order_by().update(project=project, updated_at=timezone.now())
    except IntegrityError as error:
        if violated(error).endswith("_of_the_projects_owner"):
            raise _project_gone(project) from error
        raise
    return moved


# --- Delete ---------------------------------------------------------------------------------------
@retry_conflicts
@transaction.atomic
def delete_resource(
    kind: type[ProjectResource], *, actor: Actor, uuid: UUID, owner: User | None = None
) -> None:
    """Delete a resource, a file with its bytes; raise as `resource_for`."""
    _locked(kind, _writing(actor, kind, owner), uuid).delete()


def forget_content(instance: File, **signal: Any) -> None:
    """Delete a deleted row's bytes, once its deletion can no longer be undone."""
    transaction.on_commit(partial(_delete_unless_kept, instance.content.name), robust=True)


def _delete_unless_kept(name: str | None) -> None:
    with deleting() as may_delete:
        if may_delete:
            _delete_content(name)


def _delete_content(name: str | None) -> None:
    if name:
        File._meta.get_field("content").storage.delete(name)


def delete_orphans(*, actor: Actor, names: Collection[str]) -> int:
    """Delete bytes in the storage unless a file refers to them; return how many went.

    None while a backup is made, which may need them.
    Raises Forbidden for anybody but administrators.
    """
    require_admin(actor)
    with deleting() as may_delete:
        if not may_delete:
            return 0
        referred = set(File.objects.filter(content__in=names).values_list("content", flat=True))
        orphans = set(names) - referred
        for name in orphans:
            _delete_content(name)
    return len(orphans)


def settle_resources(project: Project, on_resources: OnResources) -> None:
    """Move or delete what a project groups before it is deleted itself.

    Raises ProjectNotEmpty where neither is wanted and there is something.
    """
    match on_resources:
        case OnResources.MOVE:
            default = default_project_of(project.owner)
            for kind in KINDS:
                _move(kind._default_manager.filter(project=project), default)
        case OnResources.DELETE:
            for kind in KINDS:
                kind._default_manager.filter(project=project).delete()
        case OnResources.RESTRICT:
            counts = counts_of(project)
            if any(counts.values()):
                held = ", ".join(
                    numbered(name, number) for name, number in counts.items() if number
                )
                raise ProjectNotEmpty(
                    f"Project '{project}' still holds {held}. Send on_resources=move to move them "
                    "to the default project, or on_resources=delete to delete them, too.",
                    details=counts,
                )


def numbered(plural: str, number: int) -> str:
    """Return a number of agents, users or files as people read it."""
    return f"{number} {plural if number != 1 else plural.removesuffix('s')}"


# --- Shared ---------------------------------------------------------------------------------------
class _Missing(NotFound):
    """There is no resource of this id within reach."""


def _writing(actor: Actor, kind: type[ProjectResource], owner: User | None = None) -> Reach:
    reach = reach_of(actor, owner)
    reach.require(Level.EDITOR, f"Changing {kind.noun}s")
    return reach


def _locked(kind: type[R], reach: Reach, uuid: UUID) -> R:
    # Without the project: a row that moved while this waited for it no longer fits the join, and
    # PostgreSQL would leave it out.
    rows = within(reach, kind).select_related(None).select_for_update(no_key=True)
    row = rows.filter(uuid=uuid).first()
    if row is None:
        raise _Missing(missing(kind, uuid))
    return row


def _with_defaults(kind: type[ProjectResource], values: Mapping[str, Any]) -> dict[str, Any]:
    absent = [name for name in kind.settable if name not in values]
    return {**{name: kind.default_of(name) for name in absent}, **values}


def _fill(row: ProjectResource, values: Mapping[str, Any]) -> None:
    for name in row.settable:
        if name in values:
            setattr(row, name, values[name])
        if name in values and name in row.documents:
            check_document(values[name], f"body.{name}")


def _apply(row: ProjectResource, reach: Reach, values: Mapping[str, Any]) -> None:
    """Write values into a locked row."""
    names = [name for name in row.settable if name in values]
    _fill(row, values)
    if "project" in values:
        row.project = named_project(reach, values["project"])
        names.append("project")
    else:
        # Now: once the row is let go, its project may become somebody else's.
        row.project = Project.objects.get(pk=row.project_id)
    if isinstance(row, Agent) and "canonical_name" in values:
        if values["canonical_name"] != row.canonical_name:
            row.canonical_name = check_canonical_name(values["canonical_name"])
        names.append("canonical_name")
    _save(row, update_fields=[*names, "updated_at"])


def _save(row: ProjectResource, **options: Any) -> None:
    try:
        with transaction.atomic():
            row.save(**options)
    except IntegrityError as error:
        kind = row._meta.model_name
        constraint = violated(error)
        if constraint == f"{kind}_uuid_per_owner":
            raise IdTaken(row.noun, row.uuid) from error
        if isinstance(row, Agent) and constraint == "agent_name_per_owner":
            raise NameTaken("agent", row.canonical_name) from error
        if constraint == f"{kind}_of_the_projects_owner":
            raise _project_gone(row.project) from error
        raise


def _project_gone(project: Project) -> ProjectNotFound:
    """Return the refusal for a project that was deleted or given away since it was looked up."""
    message = f"The project '{project.handle}' does not exist any more."
    return ProjectNotFound(message, errors=[FieldError("body.project", message)])

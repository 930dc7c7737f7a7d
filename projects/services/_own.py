"""Makes, changes and deletes projects of one's own, as the Projects API knows them."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction

from accounts import audit
from accounts.audit import Verb
from accounts.models import User
from accounts.policy import Actor, Level, reach_of
from common.canonical_names import (
    IdTaken,
    NameTaken,
    check_canonical_name,
    save_named,
)
from common.database import retry_conflicts, violated
from common.errors import DefaultProjectProtected, FieldError, NotFound
from common.json import check_document
from common.models import uuid7
from llm_services.selectors import builtin_instance
from projects.default_project import ensure_default_project
from projects.models import DEFAULT_HANDLE, Project
from projects.selectors import own_project
from projects.services._locking import locked
from projects.services._managing import OnResources, remove

_DEFAULTS: Mapping[str, Any] = {"metadata": {}}


@retry_conflicts
@transaction.atomic
def create_own_project(
    *, actor: Actor, values: Mapping[str, Any], uuid: UUID | None = None
) -> Project:
    """Create a project on the built-in instance; raise as `reach_of`, Invalid or Conflict.

    values: `name`, and possibly `canonical_name` and `metadata`.
    """
    reach = reach_of(actor)
    reach.require_all("Creating a project")
    reach.require(Level.OWNER, "Creating a project")
    ensure_default_project(reach.owner)
    project = Project(owner=reach.owner, uuid=uuid or uuid7(), instance=builtin_instance())
    _fill(project, {**_DEFAULTS, **values})

    def save(name: str) -> None:
        project.handle = name
        _save(project, force_insert=True)

    given = values.get("canonical_name")
    save_named(given, display_name=project.name, what="project", save=save)
    audit.note(actor, Verb.CREATE, project, instance=str(project.instance))
    return project


def replace_own_project(*, actor: Actor, uuid: UUID, values: Mapping[str, Any]) -> Project:
    """Replace name and metadata of a project; raise as `own_project`, Invalid or Conflict.

    What `/v1` says of it stays: embeddings, instance, metadata schema, shares. The canonical name
    stays too, unless `values` has another one.
    """
    return _change(actor, uuid, {**_DEFAULTS, **values})


def update_own_project(
    *,
    actor: Actor,
    uuid: UUID,
    changes: Mapping[str, Any],
    owner: User | None = None,
    merge: bool = True,
) -> Project:
    """Change some of a project.

    owner: the account it belongs to, the actor's own by default.
    merge: whether metadata is merged at its top level, or replaced as all else.
    Raises as `own_project`, Invalid or Conflict.
    """
    return _change(actor, uuid, changes, owner=owner, merge=merge)


def create_or_replace_own_project(
    *, actor: Actor, uuid: UUID, values: Mapping[str, Any]
) -> tuple[Project, bool]:
    """Replace the project, or create one of this id; return it and whether it was created.

    Raises as `replace_own_project` and `create_own_project`.
    """
    try:
        return replace_own_project(actor=actor, uuid=uuid, values=values), False
    except NotFound:
        pass
    try:
        return create_own_project(actor=actor, values=values, uuid=uuid), True
    except (IdTaken, NameTaken) as error:
        # Somebody with a key of the same account was quicker.
        try:
            return replace_own_project(actor=actor, uuid=uuid, values=values), False
        except NotFound:
            raise error from None


def hold_own_project(*, actor: Actor, uuid: UUID) -> None:
    """Let nobody else change a project until the transaction ends; raise as `own_project`."""
    _held(actor, uuid, stops_uploads=True)


@retry_conflicts
@transaction.atomic
def delete_own_project(*, actor: Actor, uuid: UUID, on_resources: OnResources) -> None:
    """Delete a project with its embeddings, grants and keys; raise as `delete_project`."""
    remove(actor, _held(actor, uuid, stops_uploads=True), on_resources)


@retry_conflicts
@transaction.atomic
def _change(
    actor: Actor,
    uuid: UUID,
    values: Mapping[str, Any],
    *,
    owner: User | None = None,
    merge: bool = False,
) -> Project:
    project = _held(actor, uuid, owner=owner)
    if "canonical_name" in values:
        _rename(project, values["canonical_name"])
    _fill(project, values, merge=merge)
    _save(project, update_fields=["handle", "name", "metadata", "updated_at"])
    audit.note(actor, Verb.UPDATE, project, fields=sorted(values))
    return project


def _held(
    actor: Actor, uuid: UUID, *, owner: User | None = None, stops_uploads: bool = False
) -> Project:
    found = own_project(actor, uuid, Level.OWNER, owner=owner)
    project = locked(found, stops_uploads=stops_uploads)
    if project is None:
        raise NotFound(f"Project '{uuid}' does not exist.")
    return project


def _rename(project: Project, name: str) -> None:
    if name == project.handle:
        return
    if project.is_default:
        message = f"The default project keeps its canonical name '{DEFAULT_HANDLE}'."
        raise DefaultProjectProtected(message, errors=[FieldError("body.canonical_name", message)])
    ensure_default_project(project.owner)
    project.handle = check_canonical_name(name)


def _fill(project: Project, values: Mapping[str, Any], *, merge: bool = False) -> None:
    if "name" in values:
        project.name = values["name"]
    if "metadata" in values:
        project.metadata = {**(project.metadata if merge else {}), **values["metadata"]}
        check_document(project.metadata, "body.metadata")


def _save(project: Project, **options: Any) -> None:
    try:
        with transaction.atomic():
            project.save(**options)
    except IntegrityError as error:
        match violated(error):
            case "project_handle_per_owner":
                raise NameTaken("project", project.handle) from error
            case "project_uuid_per_owner":
                raise IdTaken("project", project.uuid) from error
        raise

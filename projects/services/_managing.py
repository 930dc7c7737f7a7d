"""Makes, changes, transfers and deletes projects, as `/v1` knows them."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from django.db import IntegrityError, transaction
from django.db.models import TextChoices

from accounts import audit
from accounts.audit import Verb
from accounts.models import User
from accounts.policy import Actor, Level, reach_of, require_account
from accounts.selectors import user_named
from common.database import retry_conflicts, violated
from common.errors import (
    Conflict,
    DefaultProjectProtected,
    FieldError,
    Invalid,
    NotFound,
    Unprocessable,
)
from common.handles import check_handle
from llm_services.models import Instance
from llm_services.selectors import usable_instance, usable_instance_by_id
from projects.default_project import ensure_default_project
from projects.metadata import InvalidSchema, check_schema
from projects.models import Project, ProjectShare
from projects.selectors import project_for
from projects.services._locking import held, locked
from projects.services._sharing import fill_public, replace_shares

# What higher apps do inside the transaction that holds the project's row lock.
before_instance_change: list[Callable[[Project, Instance], object]] = []


class OnResources(TextChoices):
    """What becomes of a project's agents, users and files when it is deleted."""

    RESTRICT = "restrict", "Refuse to delete the project while it holds any"
    MOVE = "move", "Move them to the owner's default project"
    DELETE = "delete", "Delete them, too"


before_deletion: list[Callable[[Project, OnResources], object]] = []


@transaction.atomic
def create_project(*, actor: Actor, owner: str, handle: str, values: Mapping[str, Any]) -> Project:
    """Create a project; raise Forbidden, Invalid, Unprocessable, or Conflict for a taken handle.

    values: the fields of the API. The instance is required and must be the owner's, shared with
    the owner, or the built-in one.
    """
    user = user_named(owner)
    require_account(actor, Level.OWNER, user)
    check_handle(handle, field="project_handle")
    ensure_default_project(user)
    instance = _named_instance(user, values)
    if instance is None:
        message = (
            "Name the project's LLM service instance: give instance_owner and instance_handle."
        )
        raise Invalid(message, errors=[FieldError("body.instance_handle", message)])
    project = Project(owner=user, handle=handle, name=handle, instance=instance)
    _fill(project, values)
    try:
        with transaction.atomic():
            project.save(force_insert=True)
    except IntegrityError as error:
        raise Conflict(f"Project '{project}' already exists.") from error
    audit.note(actor, Verb.CREATE, project, instance=str(instance))
    if project.public_read:
        audit.note(actor, Verb.PUBLISH, project)
    replace_shares(actor, project, values)
    return project_for(actor, Level.READER, owner=owner, handle=handle)


@transaction.atomic
def replace_project(
    *, actor: Actor, owner: str, handle: str, values: Mapping[str, Any]
) -> tuple[Project, bool]:
    """Create a project or replace its settings; return it and whether it was created.

    Embeddings stay; grants stay unless `shared_with` is given, which is then the whole list.
    """
    user = user_named(owner)
    if Project.objects.filter(owner=user, handle=handle).exists():
        # As for changing it: a key for this project alone may replace it, but create none.
        found = project_for(actor, Level.OWNER, owner=owner, handle=handle)
        project = locked(found, stops_uploads=True)
    else:
        require_account(actor, Level.OWNER, user)
        project = None
    if project is None or project.handle != handle:
        created = create_project(actor=actor, owner=owner, handle=handle, values=values)
        return created, True
    defaults: dict[str, Any] = {"description": "", "metadataScheme": None}
    if values.get("shared_with") is None:
        defaults["public_read"] = False
    instance = _named_instance(user, values, project=project)
    if instance is None:
        message = "A project always has an instance: give instance_owner and instance_handle."
        raise Invalid(message, errors=[FieldError("body.instance_handle", message)])
    _apply(actor, project, {**defaults, **values}, instance)
    return project_for(actor, Level.READER, owner=owner, handle=handle), False


@transaction.atomic
def update_project(*, actor: Actor, owner: str, handle: str, changes: Mapping[str, Any]) -> Project:
    """Change some settings; raise as `policy.fetch`, Invalid, Unprocessable or Conflict."""
    found = project_for(actor, Level.OWNER, owner=owner, handle=handle)
    rules = {"metadataScheme", "instance_owner", "instance_handle", "instance_id"}
    project = held(found, stops_uploads=not rules.isdisjoint(changes))
    if "shared_with" in changes and changes["shared_with"] is None:
        changes = {**changes, "shared_with": []}
    _apply(actor, project, changes, _named_instance(project.owner, changes, project=project))
    return project_for(actor, Level.READER, owner=owner, handle=handle)


def hold_project(*, actor: Actor, owner: str, handle: str) -> None:
    """Let nobody else change a project until the transaction ends; raise as `update_project`."""
    # For the strongest of its changes: one that found out later would wait in another order.
    held(project_for(actor, Level.OWNER, owner=owner, handle=handle), stops_uploads=True)


@retry_conflicts
@transaction.atomic
def delete_project(
    *,
    actor: Actor,
    owner: str,
    handle: str,
    on_resources: OnResources = OnResources.RESTRICT,
) -> None:
    """Delete a project with its embeddings, grants and keys.

    on_resources: what becomes of the agents, users and files in it.
    Raises as `policy.fetch`, DefaultProjectProtected for the default project, ProjectNotEmpty, and
    Forbidden for a key that is for this project only and would move them to another one.
    """
    found = project_for(actor, Level.OWNER, owner=owner, handle=handle)
    remove(actor, held(found, stops_uploads=True), on_resources)


def remove(actor: Actor, project: Project, on_resources: OnResources) -> None:
    """Delete a project that `held` returned for a change that stops uploads.

    Raises as `delete_project`.
    """
    if on_resources is OnResources.MOVE:
        reach_of(actor, project.owner).require_all("Moving resources to another project")
    if project.is_default:
        raise DefaultProjectProtected("The default project cannot be deleted.")
    for ask in before_deletion:
        ask(project, on_resources)
    audit.note(actor, Verb.DELETE, project, on_resources=on_resources)
    project.delete()


@retry_conflicts
@transaction.atomic
def transfer_project(*, actor: Actor, owner: str, handle: str, new_owner: str) -> Project:
    """Give a project to another account; return it under its new owner.

    Its agents, users and files go with it. Every grant stays except one to the new owner; the old
    owner has no access left. The instance stays too, even if the new owner could not choose it.
    Raises Invalid for the owner themselves, NotFound for an unknown account, Conflict where the
    new owner has a project of that handle, and for the default project.
    """
    found = project_for(actor, Level.OWNER, owner=owner, handle=handle)
    if new_owner == owner:
        message = f"'{owner}' owns the project already."
        raise Invalid(message, errors=[FieldError("body.new_owner_handle", message)])
    # Both: deleting either account deletes the projects that it has at that moment.
    accounts = User.objects.select_for_update(no_key=True).order_by("pk")
    receiver = {
        account.handle: account for account in accounts.filter(handle__in=[owner, new_owner])
    }.get(new_owner)
    if receiver is None or receiver.is_system:
        raise NotFound(f"User '{new_owner[:40]}' does not exist.")
    project = held(found, stops_uploads=True)
    if project.is_default:
        raise DefaultProjectProtected("The default project cannot be transferred.")
    project.owner = receiver
    try:
        with transaction.atomic():
            project.save(update_fields=["owner", "updated_at"])
    except IntegrityError as error:
        if violated(error) == "project_handle_per_owner":
            raise Conflict(f"'{new_owner}' already has a project '{handle}'.") from error
        if violated(error) == "project_uuid_per_owner":
            raise Conflict(
                f"Project '{project.handle}' cannot go to '{new_owner}': its id is in use there. "
                "Make a new project for them."
            ) from error
        # Whose agents and files have which names is nobody else's business.
        raise Conflict(
            f"Project '{project.handle}' cannot go to '{new_owner}' with what is in it: an agent's "
            "canonical name or an id would occur twice. Move its agents, users and files to "
            "another project first."
        ) from error
    ProjectShare.objects.filter(subject=project, user=receiver).delete()
    # A key that its maker restricted to this project served the old owner.
    project.api_keys.all().delete()
    audit.note(actor, Verb.TRANSFER, project, old_owner=owner, new_owner=new_owner)
    return project


def change_instance(project: Project, instance: Instance) -> Project:
    """Base a project on another instance, whatever dimensions it has; return it as it is now.

    For who exchanges its embeddings in the same transaction, which keeps uploads waiting, and
    compares them with the instance that is returned: it is held as it is. Raises as `held`, and
    Conflict.
    """
    found = held(project, stops_uploads=True)
    found.instance = _held(instance)
    found.save(update_fields=["instance", "updated_at"])
    audit.note(None, Verb.UPDATE, found, fields=["instance"], instance=str(found.instance))
    return found


# --- Filling --------------------------------------------------------------------------------------
def _named_instance(
    user: User, values: Mapping[str, Any], *, project: Project | None = None
) -> Instance | None:
    """Return the instance that a request names, or None where it names none.

    The instance a project has already may always be named again: after a transfer the new owner
    need not have a share on it.
    """
    handle: str | None = values.get("instance_handle")
    number: int | None = values.get("instance_id")
    for name in ("instance_handle", "instance_id", "instance_owner"):
        if name in values and values[name] is None and project is not None:
            message = f"{name} cannot be null: a project always has an instance."
            raise Invalid(message, errors=[FieldError(f"body.{name}", message)])
    current = project.instance if project is not None else None
    if handle is None and number is None:
        if values.get("instance_owner") is not None:
            message = "instance_owner needs instance_handle beside it."
            raise Invalid(message, errors=[FieldError("body.instance_handle", message)])
        return None
    if handle is None:
        if current is not None and current.pk == number:
            return current
        return usable_instance_by_id(user, cast("int", number))
    owner = values.get("instance_owner") or user.handle
    if current is not None and (current.owner.handle, current.handle) == (owner, handle):
        instance = current
    else:
        instance = usable_instance(user, owner=owner, handle=handle)
    if number is not None and instance.pk != number:
        message = f"instance_id {number} is not '{owner}/{handle}'; give one of the two."
        raise Invalid(message, errors=[FieldError("body.instance_id", message)])
    return instance


def _apply(
    actor: Actor, project: Project, values: Mapping[str, Any], instance: Instance | None
) -> None:
    was_public = project.public_read
    if instance is not None and instance.pk != project.instance_id:
        instance = _held(instance)
        if instance.dimensions != project.instance.dimensions:
            for ask in before_instance_change:
                ask(project, instance)
        project.instance = instance
    _fill(project, values)
    project.save()
    fields = sorted(set(values) - {"shared_with", "public_read"})
    if fields:
        audit.note(actor, Verb.UPDATE, project, fields=fields, instance=str(project.instance))
    if project.public_read != was_public:
        verb = Verb.PUBLISH if project.public_read else Verb.UNPUBLISH
        audit.note(actor, verb, project)
    replace_shares(actor, project, values)


def _held(instance: Instance) -> Instance:
    """Return the instance as it is now, kept from changing until the transaction ends."""
    rows = Instance.objects.select_for_update(of=("self",), no_key=True).select_related("owner")
    held = rows.filter(pk=instance.pk).first()
    if held is None:
        raise Conflict(f"LLM service '{instance}' was deleted at this moment.")
    return held


def _fill(project: Project, values: Mapping[str, Any]) -> None:
    """Set what `values` names; None stands for a field's default."""
    if "description" in values:
        project.description = values["description"] or ""
    if "metadataScheme" in values:
        project.metadata_schema = _checked_schema(values["metadataScheme"])
    if "public_read" in values:
        project.public_read = bool(values["public_read"])
    if values.get("shared_with") is not None:
        fill_public(project, values)


def _checked_schema(schema: Any) -> str:
    if schema is None or schema == "":
        return ""
    try:
        return check_schema(schema)
    except InvalidSchema as error:
        raise Unprocessable(
            f"metadataScheme: {error}", errors=[FieldError("body.metadataScheme", str(error))]
        ) from error

"""Makes, changes, shares and deletes API standards, definitions and instances."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast
from urllib.parse import SplitResult, urlsplit

from django.db import IntegrityError, transaction
from django.db.models import ProtectedError, RestrictedError

from accounts import audit
from accounts.audit import Verb
from accounts.models import Role, Share, User
from accounts.policy import Actor, Level, require_account, require_admin
from accounts.selectors import user_named
from common.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from common.handles import RESERVED_SERVICES, check_handle
from llm_services import crypto
from llm_services.models import (
    BUILTIN_HANDLE,
    MAXIMUM_DIMENSIONS,
    ApiStandard,
    Definition,
    DefinitionShare,
    Instance,
    InstanceShare,
    KeyMethod,
)
from llm_services.selectors import definition_for, instance_for, standard_named

# What higher apps say, inside the transaction that holds the instance's row lock, before its
# dimensions change: they raise Conflict.
before_dimensions_change: list[Callable[[Instance], object]] = []

_DEFINED = ("endpoint", "description", "api_standard", "model", "dimensions", "context_limit")
_REQUIRED = ("endpoint", "api_standard", "model", "dimensions")
_DEFAULTS: dict[str, Any] = {"description": "", "context_limit": None, "is_public": False}
_KEYLESS = {KeyMethod.NONE, KeyMethod.AUTH_BEARER}
_BUILTIN_ENDPOINT = re.compile(rf"{BUILTIN_HANDLE}:[A-Za-z0-9._-]{{1,100}}")
# The names under which clients send a provider's key.
KEY_FIELDS = ("api_key_encrypted", "api_key")

S = TypeVar("S", Definition, Instance)


# --- API standards --------------------------------------------------------------------------------
@transaction.atomic
def create_standard(*, actor: Actor, handle: str, values: Mapping[str, Any]) -> ApiStandard:
    """Create an API standard; raise Forbidden, Invalid, or Conflict where the handle is taken."""
    require_admin(actor)
    check_handle(handle, field="api_standard_handle")
    standard = ApiStandard(handle=handle)
    _fill_standard(standard, {"description": "", "key_field": "", **values})
    _insert(standard, f"API standard '{handle}' already exists.")
    audit.note(actor, Verb.CREATE, standard)
    return standard


@transaction.atomic
def replace_standard(
    *, actor: Actor, handle: str, values: Mapping[str, Any]
) -> tuple[ApiStandard, bool]:
    """Create or replace an API standard; return it and whether it was created."""
    require_admin(actor)
    standard = ApiStandard.objects.select_for_update().filter(handle=handle).first()
    if standard is None:
        return create_standard(actor=actor, handle=handle, values=values), True
    _fill_standard(standard, {"description": "", "key_field": "", **values})
    standard.save()
    audit.note(actor, Verb.UPDATE, standard, fields=sorted(values))
    return standard, False


@transaction.atomic
def update_standard(*, actor: Actor, handle: str, changes: Mapping[str, Any]) -> ApiStandard:
    """Change some fields of an API standard; raise NotFound."""
    require_admin(actor)
    standard = ApiStandard.objects.select_for_update().filter(handle=handle).first()
    if standard is None:
        raise NotFound(f"API standard '{handle[:40]}' does not exist.")
    _fill_standard(standard, changes)
    standard.save()
    audit.note(actor, Verb.UPDATE, standard, fields=sorted(changes))
    return standard


def hold_standard(*, actor: Actor, handle: str) -> None:
    """Let nobody else change an API standard until the transaction ends; raise NotFound."""
    require_admin(actor)
    if ApiStandard.objects.select_for_update().filter(handle=handle).first() is None:
        raise NotFound(f"API standard '{handle[:40]}' does not exist.")


@transaction.atomic
def delete_standard(*, actor: Actor, handle: str) -> None:
    """Delete an API standard; raise Conflict while a definition or instance refers to it."""
    require_admin(actor)
    standard = standard_named(handle)
    audit.note(actor, Verb.DELETE, standard)
    try:
        with transaction.atomic():
            standard.delete()
    except ProtectedError as error:
        definitions = sum(isinstance(each, Definition) for each in error.protected_objects)
        instances = len(error.protected_objects) - definitions
        raise Conflict(
            f"API standard '{handle}' cannot be deleted: in use by {definitions} definitions and "
            f"{instances} instances."
        ) from error


def _fill_standard(standard: ApiStandard, values: Mapping[str, Any]) -> None:
    for name in ("description", "key_method", "key_field"):
        if name in values:
            setattr(standard, name, values[name] or "")
    if not standard.key_field and standard.key_method not in _KEYLESS:
        message = (
            f"key_field names where the key goes; with key_method '{standard.key_method}' it is "
            "required."
        )
        raise Invalid(message, errors=[FieldError("body.key_field", message)])


# --- Definitions ----------------------------------------------------------------------------------
@transaction.atomic
def create_definition(
    *, actor: Actor, owner: str, handle: str, values: Mapping[str, Any]
) -> Definition:
    """Create a definition; raise Forbidden, Invalid, or Conflict where the handle is taken."""
    user = user_named(owner)
    require_account(actor, Level.OWNER, user)
    check_handle(handle, field="definition_handle", reserved=RESERVED_SERVICES)
    definition = Definition(owner=user, handle=handle)
    _fill(definition, {**_DEFAULTS, **values}, required=True)
    _insert(definition, f"LLM service definition '{definition}' already exists.")
    audit.note(actor, Verb.CREATE, definition)
    return definition_for(actor, Level.OWNER, owner=owner, handle=handle)


@transaction.atomic
def replace_definition(
    *, actor: Actor, owner: str, handle: str, values: Mapping[str, Any]
) -> tuple[Definition, bool]:
    """Create or replace a definition; return it and whether it was created."""
    require_account(actor, Level.OWNER, user_named(owner))
    definition = _locked(Definition, owner, handle)
    if definition is None:
        created = create_definition(actor=actor, owner=owner, handle=handle, values=values)
        return created, True
    _fill(definition, {**_DEFAULTS, **values}, required=True)
    definition.save()
    audit.note(actor, Verb.UPDATE, definition, fields=_fields(values))
    return definition_for(actor, Level.OWNER, owner=owner, handle=handle), False


@transaction.atomic
def update_definition(
    *, actor: Actor, owner: str, handle: str, changes: Mapping[str, Any]
) -> Definition:
    """Change some fields of a definition. Instances made from it keep the values they copied."""
    definition_for(actor, Level.OWNER, owner=owner, handle=handle)
    definition = _locked(Definition, owner, handle)
    if definition is not None:
        _fill(definition, changes)
        definition.save()
        audit.note(actor, Verb.UPDATE, definition, fields=_fields(changes))
    return definition_for(actor, Level.OWNER, owner=owner, handle=handle)


def hold_definition(*, actor: Actor, owner: str, handle: str) -> None:
    """Let nobody else change a definition until the transaction ends; raise as `policy.fetch`."""
    definition_for(actor, Level.OWNER, owner=owner, handle=handle)
    _locked(Definition, owner, handle)


@transaction.atomic
def delete_definition(*, actor: Actor, owner: str, handle: str) -> None:
    """Delete a definition; its instances stay and forget where they came from."""
    definition = definition_for(actor, Level.OWNER, owner=owner, handle=handle)
    audit.note(actor, Verb.DELETE, definition)
    definition.delete()


# --- Instances ------------------------------------------------------------------------------------
@transaction.atomic
def create_instance(
    *,
    actor: Actor,
    owner: str,
    handle: str,
    values: Mapping[str, Any],
    from_definition: bool = False,
) -> Instance:
    """Create an instance, standalone or from a definition whose values it copies.

    values: the fields of the API; `definition_owner` and `definition_handle` name the template,
    fields given beside it override it; the provider's key comes in plain text and is sealed.
    from_definition: whether a definition must be named.
    Raises Invalid, NotFound or Forbidden for the definition, Conflict where the handle is taken.
    """
    user = user_named(owner)
    require_account(actor, Level.OWNER, user)
    check_handle(handle, field="instance_handle", reserved=RESERVED_SERVICES)
    definition = _definition_named(actor, values)
    if from_definition and definition is None:
        message = "Name the definition: give definition_owner and definition_handle."
        raise Invalid(message, errors=[FieldError("body.definition_handle", message)])
    instance = Instance(owner=user, handle=handle, definition=definition)
    _fill(instance, {**_DEFAULTS, **_copied(definition), **values}, required=True)
    _insert(instance, f"LLM service '{instance}' already exists.")
    audit.note(actor, Verb.CREATE, instance)
    _store_key(actor, instance, _given_key(values))
    return instance_for(actor, Level.OWNER, owner=owner, handle=handle)


@transaction.atomic
def replace_instance(
    *, actor: Actor, owner: str, handle: str, values: Mapping[str, Any]
) -> tuple[Instance, bool]:
    """Create or replace an instance; return it and whether it was created.

    A provider's key that is stored stays unless the request names one (null or "" erases it) or
    moves the endpoint to another server.
    """
    require_account(actor, Level.OWNER, user_named(owner))
    instance = _locked(Instance, owner, handle)
    if instance is None:
        return create_instance(actor=actor, owner=owner, handle=handle, values=values), True
    definition = _definition_named(actor, values)
    before = urlsplit(instance.endpoint)
    _refuse_builtin(instance)
    instance.definition = definition
    _fill(instance, {**_DEFAULTS, **_copied(definition), **values}, required=True)
    instance.save()
    audit.note(actor, Verb.UPDATE, instance, fields=_fields(values))
    _store_key(actor, instance, _given_key(values), before=before)
    return instance_for(actor, Level.OWNER, owner=owner, handle=handle), False


@transaction.atomic
def update_instance(
    *, actor: Actor, owner: str, handle: str, changes: Mapping[str, Any]
) -> Instance:
    """Change some fields of an instance; raise as `policy.fetch`, Invalid, or Conflict."""
    instance_for(actor, Level.OWNER, owner=owner, handle=handle)
    instance = _locked(Instance, owner, handle)
    if instance is not None:
        _refuse_builtin(instance)
        before = urlsplit(instance.endpoint)
        definition = _definition_named(actor, changes)
        if definition is not None:
            instance.definition = definition
        _fill(instance, {**_copied(definition), **changes})
        instance.save()
        if fields := _fields(changes):
            audit.note(actor, Verb.UPDATE, instance, fields=fields)
        _store_key(actor, instance, _given_key(changes), before=before)
    return instance_for(actor, Level.OWNER, owner=owner, handle=handle)


def hold_instance(*, actor: Actor, owner: str, handle: str) -> None:
    """Let nobody else change an instance until the transaction ends; raise as `policy.fetch`."""
    instance_for(actor, Level.OWNER, owner=owner, handle=handle)
    _locked(Instance, owner, handle)


@transaction.atomic
def delete_instance(*, actor: Actor, owner: str, handle: str) -> None:
    """Delete an instance and the grants on it; raise Conflict while projects use it."""
    instance = instance_for(actor, Level.OWNER, owner=owner, handle=handle)
    _refuse_builtin(instance)
    audit.note(actor, Verb.DELETE, instance)
    try:
        with transaction.atomic():
            instance.delete()
    except RestrictedError as error:
        projects = len(error.restricted_objects)
        raise Conflict(
            f"LLM service '{instance}' cannot be deleted: in use by {projects} projects."
        ) from error


def api_key_of(instance: Instance) -> str:
    """Return the provider's key in plain text, "" without one; for outgoing calls only.

    Raises crypto.CannotOpen.
    """
    if not instance.has_api_key:
        return ""
    return crypto.open_sealed(bytes(instance.sealed_key), instance_id=instance.pk)


# --- Shares ---------------------------------------------------------------------------------------
@transaction.atomic
def share_instance(*, actor: Actor, owner: str, handle: str, user: str, role: Role) -> Instance:
    """Let an account use the instance, replacing any role it had; return the instance."""
    instance = instance_for(actor, Level.OWNER, owner=owner, handle=handle)
    _refuse_builtin(instance)
    _grant(actor, InstanceShare, instance, user, role)
    return instance


@transaction.atomic
def unshare_instance(*, actor: Actor, owner: str, handle: str, user: str) -> Instance:
    """Take a grant back; raise NotFound where there was none. Projects keep their instance."""
    instance = instance_for(actor, Level.OWNER, owner=owner, handle=handle)
    _revoke(actor, InstanceShare, instance, user)
    return instance


@transaction.atomic
def share_definition(*, actor: Actor, owner: str, handle: str, user: str) -> Definition:
    """Let an account read the definition; return the definition."""
    definition = definition_for(actor, Level.OWNER, owner=owner, handle=handle)
    _grant(actor, DefinitionShare, definition, user, Role.READER)
    return definition


@transaction.atomic
def unshare_definition(*, actor: Actor, owner: str, handle: str, user: str) -> Definition:
    """Take a grant back; raise NotFound where there was none."""
    definition = definition_for(actor, Level.OWNER, owner=owner, handle=handle)
    _revoke(actor, DefinitionShare, definition, user)
    return definition


def grantee(owner: User, handle: str) -> User:
    """Return the account to share with; raise Invalid where it is unknown, or the owner."""
    user = User.objects.filter(handle=handle).first()
    problem = ""
    if user is None or user.is_system:
        problem = f"User '{handle[:40]}' does not exist, so nothing can be shared with them."
    elif user.pk == owner.pk:
        problem = f"'{handle}' is the owner and has every right already."
    if problem or user is None:
        raise Invalid(problem, errors=[FieldError("body.share_with_handle", problem)])
    return user


def _grant(
    actor: Actor, shares: type[Share], subject: Definition | Instance, handle: str, role: Role
) -> None:
    cast("Any", shares)._default_manager.update_or_create(
        subject=subject, user=grantee(subject.owner, handle), defaults={"role": role}
    )
    audit.note(actor, Verb.SHARE, subject, user=handle, role=role)


def _revoke(actor: Actor, shares: type[Share], subject: Definition | Instance, handle: str) -> None:
    rows = cast("Any", shares)._default_manager.filter(subject=subject, user__handle=handle)
    deleted, _ = rows.delete()
    if not deleted:
        raise NotFound(f"'{subject}' is not shared with '{handle[:40]}'.")
    audit.note(actor, Verb.UNSHARE, subject, user=handle)


# --- Filling --------------------------------------------------------------------------------------
def _locked(model: type[S], owner: str, handle: str) -> S | None:
    rows = model._default_manager.select_for_update(of=("self",)).select_related("owner")
    return rows.filter(owner__handle=owner, handle=handle).first()


def _insert(row: ApiStandard | Definition | Instance, taken: str) -> None:
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError as error:
        raise Conflict(taken) from error


def _definition_named(actor: Actor, values: Mapping[str, Any]) -> Definition | None:
    owner, handle = values.get("definition_owner"), values.get("definition_handle")
    if not owner and not handle:
        return None
    if not owner or not handle:
        message = "Give definition_owner and definition_handle together, or neither."
        raise Invalid(message, errors=[FieldError("body.definition_handle", message)])
    return definition_for(actor, Level.READER, owner=owner, handle=handle)


def _copied(definition: Definition | None) -> dict[str, Any]:
    if definition is None:
        return {}
    return {name: getattr(definition, name) for name in _DEFINED}


def _fill(
    service: Definition | Instance, values: Mapping[str, Any], *, required: bool = False
) -> None:
    """Set the fields that `values` names; None stands for a field's default."""
    missing = [name for name in _REQUIRED if values.get(name) in (None, "")]
    missing = [name for name in missing if required or name in values]
    if missing:
        messages = [FieldError(f"body.{name}", f"{name} is required.") for name in missing]
        hint = " or name a definition" if isinstance(service, Instance) and required else ""
        raise Invalid(f"Give {', '.join(missing)}{hint}.", errors=messages)
    if "api_standard" in values:
        service.api_standard = _checked_standard(values["api_standard"])
    if "endpoint" in values or "api_standard" in values:
        endpoint = values.get("endpoint", service.endpoint)
        service.endpoint = _checked_endpoint(endpoint, service.api_standard)
    if "dimensions" in values:
        _change_dimensions(service, values["dimensions"])
    for name in ("description", "model", "context_limit", "is_public"):
        if name in values and hasattr(service, name):
            setattr(service, name, _DEFAULTS.get(name) if values[name] is None else values[name])


def _change_dimensions(service: Definition | Instance, dimensions: int) -> None:
    if not 1 <= dimensions <= MAXIMUM_DIMENSIONS:
        message = f"dimensions must be a number from 1 to {MAXIMUM_DIMENSIONS}."
        raise Invalid(message, errors=[FieldError("body.dimensions", message)])
    changed = service.pk is not None and service.dimensions != dimensions
    service.dimensions = dimensions
    if changed and isinstance(service, Instance):
        for ask in before_dimensions_change:
            ask(service)


def _checked_standard(standard: ApiStandard | str) -> ApiStandard:
    if isinstance(standard, ApiStandard):
        return standard
    found = ApiStandard.objects.filter(handle=standard).first()
    if found is None:
        message = f"API standard '{standard[:40]}' does not exist; GET /v1/api-standards lists all."
        raise Invalid(message, errors=[FieldError("body.api_standard", message)])
    return found


def _checked_endpoint(endpoint: str, standard: ApiStandard) -> str:
    """Return the endpoint if it is a web address; whether it may be called is asked at the call.

    That of a model in this process is no address but its name.
    """
    problem = ""
    if standard.handle == BUILTIN_HANDLE and _BUILTIN_ENDPOINT.fullmatch(endpoint):
        return endpoint
    try:
        parts = urlsplit(endpoint)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
            problem = (
                "endpoint must be a web address such as https://api.example.org/v1/embeddings."
            )
        elif "@" in parts.netloc:
            problem = "endpoint may not hold a user name or password; send the key as api_key."
        elif any(character.isspace() or not character.isprintable() for character in endpoint):
            problem = "endpoint may not hold white space or control characters."
    except ValueError:
        problem = "endpoint is not a web address: its host or port is malformed."
    if problem:
        raise Invalid(problem, errors=[FieldError("body.endpoint", problem)])
    return endpoint


def _given_key(values: Mapping[str, Any]) -> str | None:
    """Return the provider's key in the request: None if absent, "" to erase it."""
    for name in KEY_FIELDS:
        if name in values:
            return values[name] or ""
    return None


def _fields(values: Mapping[str, Any]) -> list[str]:
    """Return what the audit log says of a change; provider keys have entries of their own."""
    return sorted(set(values) - set(KEY_FIELDS))


def _store_key(
    actor: Actor, instance: Instance, key: str | None, *, before: SplitResult | None = None
) -> None:
    if key is None:
        after = urlsplit(instance.endpoint)
        if before is None or _server(before) == _server(after) or not instance.has_api_key:
            return
        # A key that was given for one server must not be sent to another.
        key = ""
    had_key = instance.has_api_key
    instance.sealed_key = crypto.seal(key, instance_id=instance.pk) if key else b""
    instance.save(update_fields=["sealed_key", "updated_at"])
    if key or had_key:
        audit.note(actor, Verb.SET_SECRET if key else Verb.ERASE_SECRET, instance)


def _server(endpoint: SplitResult) -> tuple[str, str | None, int | None]:
    default = {"http": 80, "https": 443}.get(endpoint.scheme)
    return endpoint.scheme, endpoint.hostname, endpoint.port or default


def _refuse_builtin(instance: Instance) -> None:
    if instance.is_builtin:
        raise Forbidden(f"'{instance}' belongs to the program: it cannot be changed or shared.")

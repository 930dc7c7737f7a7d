"""Finds API standards, definitions and instances that somebody may see."""

from typing import Any

from django.db.models import Q, QuerySet

from accounts.models import User
from accounts.policy import (
    Actor,
    Level,
    account_level,
    fetch,
    level_of,
    require_account,
    scope,
    with_level,
)
from accounts.selectors import user_named
from common.errors import FieldError, Invalid, NotFound
from common.handles import SYSTEM
from llm_services.models import (
    BUILTIN_HANDLE,
    ApiStandard,
    Definition,
    DefinitionShare,
    Instance,
    InstanceShare,
)


def all_standards() -> QuerySet[ApiStandard]:
    """Return every API standard in the order of handles."""
    return ApiStandard.objects.order_by("handle")


def standard_named(handle: str) -> ApiStandard:
    """Return the API standard; raise NotFound."""
    standard = ApiStandard.objects.filter(handle=handle).first()
    if standard is None:
        raise NotFound(f"API standard '{handle[:40]}' does not exist.")
    return standard


def _definitions() -> QuerySet[Definition]:
    return Definition.objects.select_related("owner", "api_standard")


def _instances() -> QuerySet[Instance]:
    return Instance.objects.select_related(
        "owner", "api_standard", "definition", "definition__owner"
    )


def definition_for(actor: Actor, needed: Level, *, owner: str, handle: str) -> Definition:
    """Return the definition if the actor has the level on it; raise as `policy.fetch`."""
    what = f"LLM service definition '{owner[:40]}/{handle[:40]}'"
    return fetch(actor, needed, _definitions(), what, owner__handle=owner, handle=handle)


def definitions_of(actor: Actor, owner: str) -> QuerySet[Definition]:
    """Return the definitions an owner can build on: own, shared with them, and the program's.

    Everybody with a key may list those of `_system`; raises NotFound for an unknown owner and
    Forbidden for others' lists.
    """
    user = user_named(owner)
    if user.is_system:
        return with_level(actor, _definitions().filter(owner=user)).order_by("handle")
    require_account(actor, Level.READER, user)
    mine = Q(owner=user) | Q(owner__handle=SYSTEM) | Q(pk__in=_shared(DefinitionShare, user))
    return with_level(actor, _definitions().filter(mine)).order_by("owner__handle", "handle")


def instance_for(actor: Actor, needed: Level, *, owner: str, handle: str) -> Instance:
    """Return the instance if the actor has the level on it; raise as `policy.fetch`."""
    what = f"LLM service '{owner[:40]}/{handle[:40]}'"
    return fetch(actor, needed, _instances(), what, owner__handle=owner, handle=handle)


def instances_of(actor: Actor, owner: str) -> QuerySet[Instance]:
    """Return the instances an owner can use: own and shared with them.

    The built-in instance is listed under `_system`, for everybody with a key. An administrator
    sees the list as the owner does. Raises NotFound for an unknown owner; for an actor without
    rights on the account the list holds only what the actor may read.
    """
    user = user_named(owner)
    if user.is_system:
        return scope(actor, Level.READER, _instances().filter(owner=user)).order_by("handle")
    rows = with_level(actor, _instances())
    if account_level(actor, user) >= Level.READER:
        rows = rows.filter(Q(owner=user) | Q(pk__in=_shared(InstanceShare, user)))
    else:
        rows = scope(actor, Level.READER, _instances().filter(owner=user))
        if not rows.exists():
            require_account(actor, Level.READER, user)
    return rows.order_by("owner__handle", "handle")


def instances_reached_by(user: User) -> list[dict[str, str]]:
    """Return handle, owner and role of the instances an account owns or is shared with."""
    rows = with_level(Actor(user=user), Instance.objects.select_related("owner"))
    rows = rows.filter(Q(owner=user) | Q(pk__in=_shared(InstanceShare, user)))
    return [
        {
            "instance_handle": row.handle,
            "owner": row.owner.handle,
            "role": level_of(row).word,
        }
        for row in rows.order_by("owner__handle", "handle")
    ]


def _shared(shares: type[DefinitionShare] | type[InstanceShare], user: User) -> Any:
    return shares.objects.filter(user=user).values("subject")


def builtin_instance() -> Instance:
    """Return the instance that everybody may use; it exists by migration."""
    return Instance.objects.get(owner__handle=SYSTEM, handle=BUILTIN_HANDLE)


def usable_instance(user: User, *, owner: str, handle: str) -> Instance:
    """Return the instance if `user` may base projects on it: own, shared, or built in.

    Raises Invalid otherwise, in the same words whether it is missing or merely out of reach.
    """
    return _usable(user, f"'{owner[:40]}/{handle[:40]}'", owner__handle=owner, handle=handle)


def usable_instance_by_id(user: User, instance_id: int) -> Instance:
    """Return the instance as `usable_instance` does, found by its id."""
    return _usable(user, f"with instance_id {instance_id}", pk=instance_id)


def _usable(user: User, name: str, **lookup: Any) -> Instance:
    reachable = Q(owner=user) | Q(pk__in=_shared(InstanceShare, user))
    reachable |= Instance.readable_with_any_key()
    instance = Instance.objects.select_related("owner").filter(reachable, **lookup).first()
    if instance is None:
        message = (
            f"There is no LLM service instance {name} that '{user.handle}' owns or that is shared "
            "with them."
        )
        raise Invalid(message, errors=[FieldError("body.instance_handle", message)])
    return instance

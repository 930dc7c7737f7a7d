"""Finds accounts and keys."""

from collections.abc import Callable

from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts import audit, keys
from accounts.models import ApiKey, AuditEntry, User
from accounts.policy import Actor, Level, require_account, require_admin
from common.errors import NotFound
from common.versions import VersionOf

# What higher apps add to an account's description: a name, and the entries an account reaches.
reached_by: dict[str, Callable[[User], list[dict[str, str]]]] = {}


def user_named(handle: str) -> User:
    """Return the account with exactly this handle; raise NotFound."""
    user = User.objects.filter(handle=handle).first()
    if user is None:
        raise NotFound(f"User '{handle[:40]}' does not exist.")
    return user


def account_for(actor: Actor, needed: Level, handle: str) -> User:
    """Return the account if the actor has the level on it.

    Raises NotFound, Unauthenticated or Forbidden: whoever has a key may learn that a handle
    exists, so as to check it before sharing, and nothing more.
    """
    user = user_named(handle)
    require_account(actor, needed, user)
    return user


def reached(actor: Actor, user: User) -> dict[str, list[dict[str, str]]]:
    """Return what the account owns or is shared with, by kind.

    Nothing for a capped key: it must not learn of what it does not reach.
    """
    if actor.is_capped:
        return {}
    return {name: reach(user) for name, reach in reached_by.items()}


def all_users(actor: Actor) -> QuerySet[User]:
    """Return every account in the order of handles; raise Forbidden for non-administrators."""
    require_admin(actor)
    return User.objects.order_by("handle")


def audit_log(actor: Actor, wanted: audit.Wanted) -> QuerySet[AuditEntry]:
    """Return the audit log of the server, the newest first; raise as `require_admin`."""
    require_admin(actor)
    return audit.entries(wanted)


def usable_key(key: str) -> ApiKey | None:
    """Return the stored key, with its account, if it is known and still good: one query.

    `version` and `user_version` are those of its row and the account's (see `common.versions`).
    """
    parts = keys.parts_of(key)
    if parts is None:
        return None
    stored = usable_key_named(parts.public_id)
    if stored is None or not keys.same_digest(bytes(stored.digest), parts.digest):
        return None
    return stored


def usable_key_named(public_id: str) -> ApiKey | None:
    """Return a key that was recognised before, with its account, if it is still good: one query."""
    return (
        ApiKey.objects.select_related("user")
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now()))
        .filter(public_id=public_id, revoked_at__isnull=True, user__is_active=True)
        .annotate(version=VersionOf("public_id"), user_version=VersionOf("user__handle"))
        .first()
    )


def keys_of(user: User) -> QuerySet[ApiKey]:
    """Return the account's keys with their projects, the newest first."""
    rows = ApiKey.objects.select_related("project", "project__owner").filter(user=user)
    return rows.order_by("-created_at", "public_id")


def key_named(public_id: str) -> ApiKey:
    """Return the key of this public id, whatever its state; a whole key is found too.

    Raises NotFound, in words that never hold a key.
    """
    parts = keys.parts_of(public_id)
    wanted = parts.public_id if parts else public_id
    key = ApiKey.objects.select_related("user").filter(public_id=wanted).first()
    if key is None:
        shown = "like this" if len(wanted) > 32 else f"'{wanted}'"
        raise NotFound(f"There is no key {shown}.")
    return key

"""Finds accounts and keys."""

from collections.abc import Callable

from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts import keys
from accounts.models import ApiKey, User
from accounts.policy import Actor, Level, require_account, require_admin
from common.errors import NotFound

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


def all_users(actor: Actor) -> QuerySet[User]:
    """Return every account in the order of handles; raise Forbidden for non-administrators."""
    require_admin(actor)
    return User.objects.order_by("handle")


def usable_key(key: str) -> ApiKey | None:
    """Return the stored key, with its account, if it is known and still good: one query."""
    parts = keys.parts_of(key)
    if parts is None:
        return None
    stored = (
        ApiKey.objects.select_related("user")
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now()))
        .filter(public_id=parts.public_id, revoked_at__isnull=True, user__is_active=True)
        .first()
    )
    if stored is None or not keys.same_digest(bytes(stored.digest), parts.digest):
        return None
    return stored

"""Makes, changes and deletes accounts and keys."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from django.db.models import Q, RestrictedError
from django.utils import timezone

from accounts import audit, keys
from accounts.audit import Verb
from accounts.models import ApiKey, Role, Session, User
from accounts.policy import BOOTSTRAP_ADMIN, Actor, Level, require_account, require_admin
from accounts.selectors import account_for
from common.database import retry_conflicts
from common.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from common.handles import RESERVED_ACCOUNTS, SYSTEM, check_handle

FIRST_ADMINISTRATOR = "administrator"
# `last_used_at` is a hint for people, not worth a write for each request.
KEY_USE_RESOLUTION = timedelta(minutes=1)

# What higher apps do, inside the transaction that holds the account's row lock, so that nothing is
# added to what the account owns while it goes.
before_account_deletion: list[Callable[[User], object]] = []


@dataclass(frozen=True)
class NewAccount:
    """An account and the key made with it, which is shown this once."""

    user: User
    api_key: str


@dataclass(frozen=True)
class FirstAdministrator:
    """How to sign in for the first time.

    api_key: None where the environment configures the admin key.
    """

    handle: str
    password: str
    api_key: str | None


@transaction.atomic
def create_user(
    *,
    actor: Actor,
    handle: str,
    name: str = "",
    email: str | None = None,
    password: str | None = None,
    is_superuser: bool = False,
) -> NewAccount:
    """Create an account with its default project and its first key.

    Raises Invalid for a bad or reserved handle or email, Conflict where either is taken, Forbidden
    for anybody but administrators.
    """
    require_admin(actor)
    check_handle(handle, field="user_handle", reserved=RESERVED_ACCOUNTS, what="user handle")
    email = _checked_email(email)
    _refuse_taken(handle=handle, email=email)
    user = User(
        handle=handle, name=name, email=email, is_superuser=is_superuser, is_staff=is_superuser
    )
    user.set_password(password)
    try:
        # A savepoint: somebody else may take the handle between the look above and this.
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError:
        _refuse_taken(handle=handle, email=email)
        raise
    audit.note(actor, Verb.CREATE, user, is_superuser=is_superuser)
    return NewAccount(user, create_key(user=user, name="first key"))


@transaction.atomic
def replace_user(
    *, actor: Actor, handle: str, name: str = "", email: str | None = None
) -> NewAccount | User:
    """Create the account, or replace what it says about itself; an existing key stays as it is.

    Return a NewAccount where one was created.
    """
    require_admin(actor)
    user = User.objects.select_for_update().filter(handle=handle).first()
    if user is None:
        return create_user(actor=actor, handle=handle, name=name, email=email)
    return _describe(actor, user, {"name": name, "email": email})


@transaction.atomic
def update_user(*, actor: Actor, handle: str, changes: dict[str, Any]) -> User:
    """Change some of `name` and `email`; None clears. Raises as `account_for`, and Conflict."""
    account_for(actor, Level.OWNER, handle)
    user = User.objects.select_for_update().get(handle=handle)
    return _describe(actor, user, changes)


def hold_user(*, actor: Actor, handle: str) -> None:
    """Let nobody else change an account until the transaction ends; raise as `update_user`."""
    account_for(actor, Level.OWNER, handle)
    _locked(handle)


def _describe(actor: Actor, user: User, changes: dict[str, Any]) -> User:
    _refuse_system(user)
    if "name" in changes:
        user.name = changes["name"] or ""
    if "email" in changes:
        user.email = _checked_email(changes["email"])
        _refuse_taken(email=user.email, but=user)
    try:
        with transaction.atomic():
            user.save(update_fields=["name", "email", "updated_at"])
    except IntegrityError:
        _refuse_taken(email=user.email, but=user)
        raise
    audit.note(actor, Verb.UPDATE, user, fields=sorted(changes))
    return user


@transaction.atomic
def set_access(*, actor: Actor, handle: str, changes: Mapping[str, bool]) -> User:
    """Change some of `is_active`, `is_staff` and `is_superuser`.

    Raises Forbidden for anybody but administrators, NotFound, and Conflict where no active
    administrator would be left.
    """
    require_admin(actor)
    # Two administrators who take each other's rights away wait for each other here.
    administrators = User.objects.select_for_update().filter(is_superuser=True, is_active=True)
    left = {each.pk for each in administrators.order_by("pk")}
    user = _locked(handle)
    _refuse_system(user)
    for name in ("is_active", "is_staff", "is_superuser"):
        setattr(user, name, changes.get(name, getattr(user, name)))
    if not (user.is_active and user.is_superuser) and left == {user.pk}:
        raise Conflict(f"'{handle}' is the last active administrator; appoint another one first.")
    user.save(update_fields=["is_active", "is_staff", "is_superuser", "updated_at"])
    audit.note(actor, Verb.SET_ACCESS, user, **changes)
    return user


@transaction.atomic
def set_password(*, actor: Actor, handle: str, password: str | None) -> User:
    """Set what the account signs in with, None for nothing; its sessions end, all of them."""
    account_for(actor, Level.OWNER, handle)
    user = _locked(handle)
    _refuse_system(user)
    user.set_password(password)
    user.save(update_fields=["password", "updated_at"])
    Session.objects.filter(user=user).delete()
    audit.note(actor, Verb.SET_PASSWORD, user, has_password=password is not None)
    return user


@retry_conflicts
@transaction.atomic
def delete_user(*, actor: Actor, handle: str) -> None:
    """Delete an account with everything it owns and every grant to or by it.

    Raises Forbidden for `_system`, Conflict while somebody else's project uses an instance of it.
    """
    account_for(actor, Level.OWNER, handle)
    user = _locked(handle)
    _refuse_system(user)
    audit.note(actor, Verb.DELETE, user)
    for prepare in before_account_deletion:
        prepare(user)
    try:
        with transaction.atomic():
            user.delete()
    except RestrictedError as error:
        names = sorted(str(each) for each in error.restricted_objects)
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        raise Conflict(
            f"User '{handle}' owns an LLM service instance in use by {len(names)} projects of "
            f"others: {shown}. They must change their instance first."
        ) from error


@transaction.atomic
def create_key(
    *,
    user: User,
    name: str = "",
    role_cap: Role | None = None,
    project_id: int | None = None,
    expires_at: datetime | None = None,
) -> str:
    """Make a key for an account and return it; only its hash is stored.

    role_cap: never more than this role, whatever the account may do.
    project_id: only this project.
    """
    if user.is_system:
        raise Forbidden(f"'{SYSTEM}' cannot have keys.")
    key, parts = keys.generate_key()
    made = ApiKey.objects.create(
        user=user,
        name=name,
        public_id=parts.public_id,
        digest=parts.digest,
        role_cap=role_cap or "",
        project_id=project_id,
        expires_at=expires_at,
    )
    audit.note(None, Verb.CREATE, made, **_limits_of(made))
    return key


def create_own_key(
    *,
    actor: Actor,
    name: str,
    role_cap: Role | None = None,
    project_id: int | None = None,
    expires_at: datetime | None = None,
) -> str:
    """Make a key for the actor's own account as `create_key` does.

    Raises Forbidden for a key that carries less than its account, and Invalid for a moment that has
    passed or is later than the end of the key that asks: nobody gets more than they have.
    """
    user = _own_account(actor)
    if expires_at is not None and expires_at <= timezone.now():
        raise _wrong_expiry("This moment has passed already.")
    limit = None if actor.key is None else actor.key.expires_at
    if limit is not None and (expires_at is None or expires_at > limit):
        raise _wrong_expiry(
            f"You are signed in with a key that ends on {limit:%Y-%m-%d at %H:%M} UTC: a key made "
            "with it must end by then."
        )
    return create_key(
        user=user, name=name, role_cap=role_cap, project_id=project_id, expires_at=expires_at
    )


def revoke_own_key(*, actor: Actor, public_id: str) -> None:
    """Revoke a key of the actor's own account at once; raise Forbidden and NotFound."""
    if not revoke_keys(ApiKey.objects.filter(user=_own_account(actor), public_id=public_id)):
        raise NotFound("You have no key of this name that still works.")


def _own_account(actor: Actor) -> User:
    if actor.user is None:
        raise Forbidden("The configured admin key belongs to no account.")
    require_account(actor, Level.OWNER, actor.user)
    return actor.user


def _wrong_expiry(message: str) -> Invalid:
    return Invalid(message, errors=[FieldError("body.expires_at", message)])


def _limits_of(key: ApiKey) -> dict[str, object]:
    return {
        "role": key.role_cap or None,
        "project": None if key.project is None else str(key.project),
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
    }


@transaction.atomic
def import_key(*, user: User, key: str, name: str = "") -> None:
    """Keep a key that another server handed out (64 hexadecimal digits) working here.

    Raises Invalid for a key of another shape, Conflict for one that is stored already, Forbidden
    for `_system`.
    """
    if user.is_system:
        raise Forbidden(f"'{SYSTEM}' cannot have keys.")
    parts = keys.parts_of(key)
    if parts is None:
        raise Invalid("A key is 64 hexadecimal digits, or one that Armarium made.")
    if ApiKey.objects.filter(public_id=parts.public_id).exists():
        raise Conflict("This key is stored already.")
    made = ApiKey.objects.create(
        user=user, name=name, public_id=parts.public_id, digest=parts.digest
    )
    audit.note(None, Verb.IMPORT, made)


@transaction.atomic
def revoke_keys(rows: Any) -> int:
    """Revoke the keys of a queryset at once and for good; return how many still worked."""
    working = _held(rows.filter(revoked_at__isnull=True))
    ApiKey.objects.filter(pk__in=[key.pk for key in working]).update(revoked_at=timezone.now())
    for key in working:
        audit.note(None, Verb.REVOKE, key)
    return len(working)


def _held(rows: Any) -> list[ApiKey]:
    """Return the keys of a queryset with their accounts, kept as they are."""
    held = ApiKey.objects.select_related("user").select_for_update(of=("self",))
    return list(held.filter(pk__in=rows.order_by().values("pk")).order_by("pk"))


@transaction.atomic
def rename_key(*, key: ApiKey, name: str) -> None:
    """Call a key something else; nothing else about it can change."""
    key.name = name
    key.save(update_fields=["name"])
    audit.note(None, Verb.UPDATE, key, fields=["name"])


@transaction.atomic
def delete_keys(rows: Any) -> int:
    """Delete the keys of a queryset, and with them the memory of them; return how many."""
    for key in _held(rows):
        audit.note(None, Verb.DELETE, key)
    deleted, _ = rows.delete()
    return int(deleted)


def note_key_use(key: ApiKey) -> None:
    """Remember that a key was used, at most once a minute."""
    now = timezone.now()
    if is_due(key):
        due = Q(last_used_at__isnull=True) | Q(last_used_at__lt=now - KEY_USE_RESOLUTION)
        ApiKey.objects.filter(due, pk=key.pk).update(last_used_at=now)


def is_due(key: ApiKey) -> bool:
    """Say whether a key's use was last remembered longer than a minute ago, or never."""
    last = key.last_used_at
    return last is None or last < timezone.now() - KEY_USE_RESOLUTION


@transaction.atomic
def ensure_first_administrator() -> FirstAdministrator | None:
    """Create the first administrator, unless one exists; return how to sign in, this once."""
    if User.objects.filter(is_superuser=True).exists():
        return None
    password = secrets.token_urlsafe(15)
    account = create_user(
        actor=BOOTSTRAP_ADMIN,
        handle=FIRST_ADMINISTRATOR,
        name="Administrator",
        password=password,
        is_superuser=True,
    )
    if settings.ADMIN_KEY:
        revoke_keys(account.user.api_keys)
    return FirstAdministrator(
        handle=account.user.handle,
        password=password,
        api_key=None if settings.ADMIN_KEY else account.api_key,
    )


def _locked(handle: str) -> User:
    user = User.objects.select_for_update().filter(handle=handle).first()
    if user is None:
        raise NotFound(f"User '{handle[:40]}' does not exist.")
    return user


def _checked_email(email: str | None) -> str | None:
    if not email:
        return None
    try:
        validate_email(email)
    except ValidationError as error:
        message = f"'{email[:60]}' is not an email address."
        raise Invalid(message, errors=[FieldError("body.email", message)]) from error
    return email


def _refuse_taken(
    *, handle: str | None = None, email: str | None = None, but: User | None = None
) -> None:
    if handle is not None:
        other = User.objects.filter(handle__iexact=handle).first()
        if other is not None:
            raise Conflict(f"User '{other.handle}' already exists.")
    if email is not None:
        others = User.objects.filter(email=email)
        if (others if but is None else others.exclude(pk=but.pk)).exists():
            raise Conflict("Another user already has this email address.")


def _refuse_system(user: User) -> None:
    if user.is_system:
        raise Forbidden(f"'{SYSTEM}' cannot be changed or deleted.")

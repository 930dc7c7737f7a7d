"""Signing in to pages: with handle and password, or with an API key; and what sessions there are.

A password opens a session of Django's, which the administration site knows as well. A key opens one
that only pages ask about: it reaches as far as the key does, and ends when the key is revoked.
"""

import hashlib
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

from django.contrib.auth import authenticate, login, logout, update_session_auth_hash
from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.signals import user_logged_in, user_login_failed
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils import timezone

from accounts import services
from accounts.authentication import Credentials, actor_for
from accounts.models import ApiKey, Session, User
from accounts.policy import ANONYMOUS, Actor, Level, require_account
from accounts.selectors import usable_key_named
from common.errors import FieldError, Invalid, NotFound, Unauthenticated

# `last_used_at` is a hint for people, not worth a write for each page.
USE_RESOLUTION = timedelta(minutes=1)

_KEY = "api_key"
# What the session says of itself: it is written as a whole whenever something in it changes.
_ABOUT = "about"
# What failures with keys are counted under; no handle may hold such characters.
_ANY_KEY = "(API key)"


def sign_in_with_password(request: HttpRequest, *, handle: str, password: str) -> None:
    """Open a session for an account; raise Invalid, in the same words whatever is wrong.

    Failures are counted; after too many the answer is a page that says so, whatever this does.
    """
    user = authenticate(request, username=handle, password=password)
    if user is None:
        message = "This handle and this password do not belong together. Check both."
        raise Invalid(message, errors=[FieldError("body.password", message)])
    request.session.pop(_KEY, None)
    login(request, user)


def sign_in_with_key(request: HttpRequest, *, key: str) -> None:
    """Open a session that reaches as far as the key; raise Invalid for one that does not work.

    A key that works is let in whatever failed before: nobody can lock others out.
    """
    try:
        actor = actor_for(key)
    except Unauthenticated as error:
        user_login_failed.send(__name__, credentials={"username": _ANY_KEY}, request=request)
        raise _refused("This API key is unknown, expired or revoked.") from error
    if actor.key is None:
        raise _refused(
            "The configured admin key belongs to no account, so it cannot sign in here. Use the "
            "key or the password of an administrator."
        )
    # Also ends whatever session there was, and with it the address of that.
    logout(request)
    request.session[_KEY] = actor.key.public_id
    _describe(request, actor.key.user, actor.key)


def sign_out(request: HttpRequest) -> None:
    """End the session, for good."""
    logout(request)


def actor_of(request: HttpRequest) -> Actor:
    """Return who looks at a page: at most one query besides the session's own."""
    public_id = request.session.get(_KEY)
    if public_id is None:
        return Actor(user=request.user) if request.user.is_authenticated else ANONYMOUS
    key = usable_key_named(public_id)
    if key is None:
        logout(request)
        return ANONYMOUS
    return Actor(user=key.user, key=key)


class SessionCredentials(Credentials):
    """Stands for somebody who signed in, where searches take credentials.

    The digest holds what the actor's rights follow from besides rows that a search looks at again.
    """

    def __init__(self, actor: Actor) -> None:
        super().__init__(None)
        self._actor = actor
        if not actor.is_anonymous:
            key = b"" if actor.key is None else bytes(actor.key.digest)
            account = f"session {actor.user and actor.user.pk} {actor.is_admin} "
            self.digest = hashlib.sha256(account.encode() + key).digest()

    def resolve(self) -> Actor:
        """Return who asks."""
        return self._actor


def _refused(message: str) -> Invalid:
    return _wrong("key", message)


# --- Passwords ------------------------------------------------------------------------------------
def change_password(request: HttpRequest, actor: Actor, *, current: str, new: str) -> None:
    """Set the password of whoever is signed in, and end all their other sessions.

    current: the password of now; whatever where there is none yet. Wrong ones are counted like
    failures to sign in. Raises Invalid, and Forbidden for a key that carries less than its account.
    """
    user = cast("User", actor.user)
    require_account(actor, Level.OWNER, user)
    if user.has_usable_password():
        known = authenticate(request, username=user.handle, password=current)
        if known is None:
            raise _wrong("current", "This is not your password of now.")
    try:
        validate_password(new, user)
    except ValidationError as error:
        raise _wrong("new", " ".join(error.messages)) from error
    changed = services.set_password(actor=actor, handle=user.handle, password=new)
    # Under another address, so that nobody who knows the former one comes along.
    if _KEY in request.session:
        request.session.cycle_key()
    else:
        update_session_auth_hash(request, changed)


# --- Which sessions there are ---------------------------------------------------------------------
def sessions_of(actor: Actor) -> QuerySet[Session]:
    """Return the sessions of the actor's account, the one that was used last first.

    Raises Forbidden for a key that carries less than its account.
    """
    user = cast("User", actor.user)
    require_account(actor, Level.OWNER, user)
    rows = Session.objects.filter(user=user, expire_date__gt=timezone.now())
    return rows.select_related("key").order_by("-last_used_at", "public_id")


def end_session(actor: Actor, public_id: UUID) -> None:
    """End one session of the actor's account; raise as `sessions_of`, and NotFound."""
    ended, _ = sessions_of(actor).filter(public_id=public_id).delete()
    if not ended:
        raise NotFound("This session has ended already.")


def end_other_sessions(request: HttpRequest, actor: Actor) -> int:
    """End all sessions of the actor's account but this one; return how many."""
    others = sessions_of(actor).exclude(session_key=request.session.session_key)
    ended, _ = others.delete()
    return ended


class SessionStore(DatabaseStore):
    """Sessions in the database, each with what its account is told of it."""

    @classmethod
    def get_model_class(cls) -> type[Session]:
        """Return the rows that hold sessions."""
        return Session

    def create_model_instance(self, data: dict[str, Any]) -> Session:
        """Return the row of a session, which takes the place of what was stored before."""
        row = cast("Session", super().create_model_instance(data))
        about = data.get(_ABOUT)
        if about is not None:
            row.public_id = UUID(about["id"])
            row.user_id, row.key_id = about["user"], about["key"]
            row.agent = about["agent"]
            row.started_at = datetime.fromisoformat(about["started_at"])
        return row

    def _get_session_from_db(self) -> Session | None:
        row: Session | None = super()._get_session_from_db()  # type: ignore[misc]
        now = timezone.now()
        if row is not None and row.last_used_at < now - USE_RESOLUTION:
            Session.objects.filter(pk=row.pk).update(last_used_at=now)
        return row


@receiver(user_logged_in)
def _describe_by_password(request: HttpRequest, user: User, **signal: Any) -> None:
    _describe(request, user, None)


def _describe(request: HttpRequest, user: User, key: ApiKey | None) -> None:
    agent = request.META.get("HTTP_USER_AGENT", "").replace("\x00", "")
    request.session[_ABOUT] = {
        "id": str(uuid4()),
        "user": user.pk,
        "key": None if key is None else key.pk,
        "agent": agent[:200],
        "started_at": timezone.now().isoformat(),
    }


def _wrong(field: str, message: str) -> Invalid:
    return Invalid(message, errors=[FieldError(f"body.{field}", message)])

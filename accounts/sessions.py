"""Signing in to pages: with handle and password, or with an API key.

A password opens a session of Django's, which the administration site knows as well. A key opens one
that only pages ask about: it reaches as far as the key does, and ends when the key is revoked.
"""

import hashlib

from django.contrib.auth import authenticate, login, logout
from django.contrib.auth.signals import user_login_failed
from django.http import HttpRequest

from accounts.authentication import Credentials, actor_for
from accounts.policy import ANONYMOUS, Actor
from accounts.selectors import usable_key_named
from common.errors import FieldError, Invalid, Unauthenticated

_KEY = "api_key"
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
    return Invalid(message, errors=[FieldError("body.key", message)])

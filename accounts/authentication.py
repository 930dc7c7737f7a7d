"""From the Authorization header to an actor."""

import hashlib
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import structlog
from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from accounts import keys, selectors, services
from accounts.models import ApiKey, User
from accounts.policy import ANONYMOUS, BOOTSTRAP_ADMIN, Actor
from common.errors import Unauthenticated

if TYPE_CHECKING:
    # REST framework's views load this module for its settings.
    from rest_framework.views import APIView

log = structlog.get_logger(__name__)


class KeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer <key>`, and nothing else, is a credential."""

    def authenticate(self, request: Request) -> tuple[User | None, Any] | None:
        """Return the account and the actor, or None without a header; raise Unauthenticated."""
        key = self.key_of(request)
        if key is None:
            return None
        actor = actor_for(key)
        note_actor(request, actor)
        return actor.user, actor

    def key_of(self, request: Request) -> str | None:
        """Return the key that was sent, None without a header; raise Unauthenticated."""
        return key_in(self.header_of(request))

    def header_of(self, request: Request) -> str | None:
        """Return the header that holds the key, or None without one."""
        header: str | None = request.META.get("HTTP_AUTHORIZATION")
        return header

    def authenticate_header(self, request: Request) -> str:
        """Return the challenge of a 401."""
        return 'Bearer realm="armarium"'


def key_in(header: str | None) -> str | None:
    """Return the key that an Authorization header holds, None without one.

    Raises Unauthenticated for a header that holds anything else.
    """
    if header is None:
        return None
    scheme, _, key = header.partition(" ")
    if scheme.lower() != "bearer" or not key or not key.isascii() or not key.isprintable():
        raise Unauthenticated("Send the key as 'Authorization: Bearer <key>'.")
    return key


class AuthKeyAuthentication(KeyAuthentication):
    """`X-Auth-Key: <key>`, with or without `Bearer` before it."""

    def header_of(self, request: Request) -> str | None:
        """Return the header as `Authorization` would have it."""
        header: str | None = request.META.get("HTTP_X_AUTH_KEY")
        return header if header is None or " " in header else f"Bearer {header}"


class Credentials:
    """The key that somebody sent, or none, before anybody looked whether it is good.

    digest: stands for it in memory.
    """

    def __init__(self, key: str | None) -> None:
        self._key = key
        self.digest = b"" if key is None else hashlib.sha256(key.encode()).digest()

    @property
    def is_anonymous(self) -> bool:
        """Whether no key was sent."""
        return self._key is None

    def resolve(self) -> Actor:
        """Return who asks, now; raise Unauthenticated."""
        return ANONYMOUS if self._key is None else actor_for(self._key)


class UncheckedKeyAuthentication(KeyAuthentication):
    """Leaves it to the view to look whether the key is good (`credentials_of`)."""

    def authenticate(self, request: Request) -> tuple[None, Credentials]:
        """Return the credentials; raise Unauthenticated for what can be none."""
        return None, Credentials(self.key_of(request))


def credentials_of(request: Request) -> Credentials:
    """Return what was sent to a view with UncheckedKeyAuthentication."""
    return cast("Credentials", request.auth)


def note_actor(request: Request, actor: Actor) -> None:
    """Let the log, and the key's own record, know who asked."""
    request._request.user = actor.user  # type: ignore[assignment]
    request._request.api_actor = actor  # type: ignore[attr-defined]


# How a key is sent to the Projects API; where both headers are, the first counts.
OWN_AUTHENTICATION = [KeyAuthentication, AuthKeyAuthentication]


def actor_for(key: str) -> Actor:
    """Return who a key stands for; raise Unauthenticated when it is none or no longer one."""
    if keys.same_secret(key, settings.ADMIN_KEY):
        return BOOTSTRAP_ADMIN
    stored = selectors.usable_key(key)
    if stored is None:
        raise Unauthenticated("This API key is unknown, expired or revoked.")
    return Actor(user=stored.user, key=stored)


def actor_of(request: Request) -> Actor:
    """Return who asks; raise Unauthenticated where that is only looked for now."""
    if isinstance(request.auth, Credentials):
        actor = request.auth.resolve()
        note_actor(request, actor)
        return actor
    return request.auth if isinstance(request.auth, Actor) else ANONYMOUS


class NoteKeyUse:
    """Middleware that remembers when a key was last used, once its answer is on the way."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        actor = getattr(request, "api_actor", None)
        if isinstance(actor, Actor) and actor.key is not None and services.is_due(actor.key):
            # What Django calls when the server has sent the response and closes it.
            response._resource_closers.append(partial(_note, actor.key))  # type: ignore[attr-defined]
        return response


def _note(key: ApiKey) -> None:
    try:
        services.note_key_use(key)
    except DatabaseError:
        log.warning("key_use_not_noted", key=key.public_id)


class KeyRequired(BasePermission):
    """Lets in whoever has a valid key; what they may do is the policy's question.

    anonymous_methods: what may be asked without a key; OpenAPI is told by it.
    """

    anonymous_methods: Collection[str] = ()

    def has_permission(self, request: Request, view: "APIView") -> bool:
        """Raise Unauthenticated for anonymous requests."""
        if actor_of(request).is_anonymous:
            raise Unauthenticated("This needs an API key: send 'Authorization: Bearer <key>'.")
        return True


class Public(BasePermission):
    """Lets everybody in; for routes that the policy or nobody restricts."""

    anonymous_methods: Collection[str] = ("GET", "POST", "PUT", "PATCH", "DELETE")

    def has_permission(self, request: Request | HttpRequest, view: "APIView") -> bool:
        """Return True."""
        return True


class PublicReading(KeyRequired):
    """Lets everybody read, as far as the policy allows, and asks for a key to write."""

    anonymous_methods = SAFE_METHODS

    def has_permission(self, request: Request, view: "APIView") -> bool:
        """Raise Unauthenticated for anonymous requests that write."""
        return request.method in self.anonymous_methods or super().has_permission(request, view)


class PublicReadingUncheckedWriting(PublicReading):
    """The same for a view with UncheckedKeyAuthentication, which looks itself whose key it is."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        """Raise Unauthenticated for requests without a key that write."""
        if request.method not in self.anonymous_methods and credentials_of(request).is_anonymous:
            raise Unauthenticated("This needs an API key: send 'Authorization: Bearer <key>'.")
        return True

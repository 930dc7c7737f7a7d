"""From the Authorization header to an actor."""

from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING

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

    def authenticate(self, request: Request) -> tuple[User | None, Actor] | None:
        """Return the account and the actor, or None without a header; raise Unauthenticated."""
        header = self.header_of(request)
        if header is None:
            return None
        scheme, _, key = header.partition(" ")
        if scheme.lower() != "bearer" or not key or not key.isascii() or not key.isprintable():
            raise Unauthenticated("Send the key as 'Authorization: Bearer <key>'.")
        actor = actor_for(key)
        request._request.api_actor = actor  # type: ignore[attr-defined]
        return actor.user, actor

    def header_of(self, request: Request) -> str | None:
        """Return the header that holds the key, or None without one."""
        header: str | None = request.META.get("HTTP_AUTHORIZATION")
        return header

    def authenticate_header(self, request: Request) -> str:
        """Return the challenge of a 401."""
        return 'Bearer realm="armarium"'


class AuthKeyAuthentication(KeyAuthentication):
    """`X-Auth-Key: <key>`, with or without `Bearer` before it."""

    def header_of(self, request: Request) -> str | None:
        """Return the header as `Authorization` would have it."""
        header: str | None = request.META.get("HTTP_X_AUTH_KEY")
        return header if header is None or " " in header else f"Bearer {header}"


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
    """Return who asks."""
    return request.auth if isinstance(request.auth, Actor) else ANONYMOUS


class NoteKeyUse:
    """Middleware that remembers when a key was last used, once its answer is on the way."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        actor = getattr(request, "api_actor", None)
        if isinstance(actor, Actor) and actor.key is not None:
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

"""What only pages need of every request: sessions, who is signed in, messages.

The API knows no session; its requests pass these by.
"""

from collections.abc import Callable
from typing import Any

from axes.middleware import AxesMiddleware
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest

_API = "/v1/"


class _ForPages:
    get_response: Callable[[HttpRequest], Any]

    def __call__(self, request: HttpRequest) -> Any:
        if request.path_info.startswith(_API):
            return self.get_response(request)
        return super().__call__(request)  # type: ignore[misc]


class Sessions(_ForPages, SessionMiddleware):
    """Sessions, for pages."""


class Authentication(_ForPages, AuthenticationMiddleware):
    """Who is signed in, for pages."""


class Messages(_ForPages, MessageMiddleware):
    """Messages to be shown once, for pages."""


class SignInLimit(_ForPages, AxesMiddleware):  # type: ignore[misc]
    """The answer to too many failed attempts to sign in, for pages."""

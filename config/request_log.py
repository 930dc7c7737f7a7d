"""Logs each request once, when it is answered."""

import re
import uuid
from collections.abc import Mapping
from typing import Any

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django_structlog.middlewares import RequestMiddleware

from accounts import audit

# Up to a thousand of a list, or some steps of a threshold; no key is so short.
_VALUE = re.compile(r"([?&][^=&]{0,100})[^&]*")
_PLAIN = re.compile(r"=(\d{1,8}(\.\d{1,8})?|true|false)\Z", re.ASCII)


def _hidden(parameter: re.Match[str]) -> str:
    value = parameter[0][len(parameter[1]) :]
    return parameter[0] if not value or _PLAIN.match(value) else f"{parameter[1]}=…"


class RequestLog(RequestMiddleware):
    """Binds who asks from where to every log line of a request, and logs that it was answered.

    The library does the same, and more that nobody reads here: it also logs that a request begins,
    and looks through every header that may name an address, which takes as long as a search and
    believes what anybody sends.
    """

    def __call__(self, request: HttpRequest) -> Any:
        """Answer the request; the audit log knows it meanwhile."""
        with audit.asked_by(request):
            return super().__call__(request)

    def prepare(self, request: HttpRequest) -> None:
        """Bind a number of the request's own, and the address it comes from."""
        structlog.contextvars.bind_contextvars(
            request_id=str(uuid.uuid4()), ip=address_in(request.META)
        )

    def handle_response(self, request: HttpRequest, response: HttpResponse) -> None:
        """Log the answer with the account that asked."""
        # A view has put it there; the lazy one of a session would be looked up for the log only.
        user = request.__dict__.get("user")
        pk = None if user is None or not hasattr(user, "_meta") else user.pk
        structlog.contextvars.bind_contextvars(user_id=pk)
        super().handle_response(request, response)

    @staticmethod
    def format_request(request: HttpRequest) -> str:
        """Return what was asked: of the query only names and numbers.

        People search by words in it, and some send a key there, where it is none.
        """
        query = request.META.get("QUERY_STRING", "")
        return f"{request.method} {request.path}{_VALUE.sub(_hidden, f'?{query}') if query else ''}"

    @staticmethod
    def bind_user_id(request: Any) -> None:
        """Leave what is bound."""


def address_in(environ: Mapping[str, Any]) -> str | None:
    """Return the address that a request comes from; behind our own proxy, the one it names."""
    address: str | None = environ.get("REMOTE_ADDR")
    if settings.BEHIND_TLS:
        # Our proxy adds the address it sees at the end; what stands before may be made up.
        address = environ.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip() or address
    return address


def client_address(request: HttpRequest) -> str | None:
    """Return the address that failed attempts to sign in are counted by."""
    return address_in(request.META)

"""What holds for every request, whatever it addresses."""

from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from typing import cast

from csp.constants import HEADER
from csp.middleware import CSPMiddleware, PolicyParts
from csp.utils import build_policy
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import Resolver404, resolve

from common import bodies, problems
from common.errors import DomainError, Malformed, NotFound, TooLarge, UnsupportedMedia

Handler = Callable[[HttpRequest], HttpResponseBase]

_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS, PATCH",
    "Access-Control-Allow-Headers": (
        "Accept, Authorization, Content-Type, Content-Disposition, Origin, X-Requested-With"
    ),
}
_LONGEST_LENGTH = 20
# Whoever watches the server asks for these by address.
_WATCHED = {"/healthz", "/readyz"}


class CrossOrigin:
    """Lets browsers of any origin call the API: no cookie means anything to it.

    The contract wants every response marked and every OPTIONS answered, which is more than the
    usual CORS middleware does: those answer only real preflight requests.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.method == "OPTIONS":
            response: HttpResponseBase = HttpResponse(headers=_PREFLIGHT)
        else:
            response = self.get_response(request)
        response.headers["Access-Control-Allow-Origin"] = "*"
        return response


class ContentLength:
    """Tells the length of every body that is known: clients need not look for its end."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if response.status_code == HTTPStatus.NOT_MODIFIED:
            # It would be the length of what is not sent.
            return response
        if not response.streaming and "Content-Length" not in response.headers:
            content = cast("HttpResponse", response).content
            response.headers["Content-Length"] = str(len(content))
        return response


class ContentSecurityPolicy(CSPMiddleware):
    """Sends the site's policies; puts it together once, where no response has one of its own."""

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        """Set the header, and the one that says which devices of visitors pages use: none."""
        response.headers.setdefault("Permissions-Policy", _NO_DEVICES)
        parts = self.get_policy_parts(request=request, response=response)
        if parts != _SITE_WIDE or settings.DEBUG or hasattr(response, "_csp_exempt"):
            return super().process_response(request, response)
        response.headers.setdefault(HEADER, _site_policy())
        return response


_SITE_WIDE = PolicyParts()
_NO_DEVICES = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"


@cache
def _site_policy() -> str:
    return build_policy()


class RequestLimits:
    """Refuses, before anything is read or looked up, what no view could answer."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        refusal = _refusal(request)
        if refusal is not None and _tells(request, refusal):
            request.refusal = refusal  # type: ignore[attr-defined]
        elif refusal is not None:
            return problems.response(refusal, request.path_info)
        return self.get_response(request)


def _refusal(request: HttpRequest) -> DomainError | None:
    if "\x00" in request.path_info:
        return NotFound("There is nothing at this address.")
    if request.path_info not in _WATCHED and not _is_served(request):
        return Malformed(
            "The request's Host is not one this server serves; its administrator can add it to "
            "ARMARIUM_ALLOWED_HOSTS."
        )
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not (length.isascii() and length.isdigit()):
        return Malformed("Content-Length is not a number.")
    limit = settings.MAX_BODY_BYTES
    # Python refuses to convert thousands of digits.
    if len(length) <= _LONGEST_LENGTH:
        if int(length) <= limit:
            return None
        if _takes_bulk(request):
            limit = settings.MAX_BULK_BYTES
            if int(length) <= limit:
                return None
    return bodies.too_large(limit)


def _takes_bulk(request: HttpRequest) -> bool:
    """Tell whether the view at this address takes such a large body."""
    if request.method != "POST":
        return False
    try:
        media_type = bodies.media_type_of(request)
    except UnsupportedMedia:
        return False
    return media_type in getattr(_view_class(request), "bulk_media_types", ())


def _tells(request: HttpRequest, refusal: DomainError) -> bool:
    """Tell whether the view reads the request's `refusal`, and says so in words of its own."""
    return isinstance(refusal, TooLarge) and getattr(_view_class(request), "tells_too_large", False)


def _view_class(request: HttpRequest) -> type | None:
    """Return the class of what answers at this address: a view of the API, or a page."""
    try:
        view = resolve(request.path_info).func
    except Resolver404:
        return None
    return getattr(view, "cls", None) or getattr(view, "view_class", None)


def _is_served(request: HttpRequest) -> bool:
    try:
        request.get_host()
    except DisallowedHost:
        return False
    return True

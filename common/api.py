"""The base of all API views: declared query parameters, and bodies read once and within limits."""

from collections.abc import Collection
from functools import lru_cache
from typing import Any, BinaryIO, ClassVar, TypeVar
from urllib.parse import unquote_to_bytes

from django.conf import settings
from django.http import QueryDict
from rest_framework import serializers
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.views import APIView

from common import bodies, json
from common.query import Query


class Resource(APIView):
    """A thing with an address. Subclasses check the shape, make one domain call, and render.

    queries: the query parameters of each method that takes any, by its lower-case name.
    bulk_media_types: those in which POST takes a body as large as MAX_BULK_BYTES.
    takes_conditions: whether a change may depend on the version of what is there.
    """

    bulk_media_types: ClassVar[Collection[str]] = ()
    queries: ClassVar[dict[str, type[Query]]] = {}
    takes_conditions: ClassVar[bool] = False
    query: dict[str, Any]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Look for the method, authenticate and check permission, read the query string."""
        method = (request.method or "").lower().replace("head", "get")
        if method not in self.http_method_names or not hasattr(self, method):
            raise MethodNotAllowed(request.method or "")
        super().initial(request, *args, **kwargs)
        if not self.takes_conditions and request.method not in SAFE_METHODS:
            refuse_conditions(request)
        query_string = request.META.get("QUERY_STRING", "")
        self.query = dict(read_query(self.query_of(method), query_string))

    def query_of(self, method: str) -> type[Query]:
        """Return the query parameters that the request's method takes."""
        return self.queries.get(method, Query)


S = TypeVar("S", bound=serializers.BaseSerializer[Any])


def given(serializer: type[S], request: Request, *, partial: bool = False) -> dict[str, Any]:
    """Return the request's body as the serializer validates it.

    Fields that the serializer does not declare are ignored.
    Raises Invalid, Malformed, NotJson, UnsupportedMedia, TooLarge or LengthRequired, or REST
    framework's ValidationError for a body of the wrong shape.
    """
    bound = serializer(data=read_object(request), partial=partial)
    bound.is_valid(raise_exception=True)
    return dict(bound.validated_data)


def read_object(request: Request) -> dict[str, Any]:
    """Return the request's body, which must be a JSON object."""
    value = json.parse(read_body(request))
    if not isinstance(value, dict):
        raise json.invalid("body", "The request body must be a JSON object.")
    return value


def read_body(request: Request, *, others: Collection[str] = ()) -> bytes:
    """Return the bytes of a JSON body, unpacked, never more than the limit.

    others: the media types to name beside JSON where it is another one.
    Raises UnsupportedMedia for another media type, charset or content encoding, TooLarge,
    LengthRequired without a length or chunks, and Malformed for one that is damaged or ends early.
    """
    bodies.check_json(request._request, others=others)
    kept: bytes | None = getattr(request._request, "kept_body", None)
    return (
        kept if kept is not None else bodies.read(request._request, limit=settings.MAX_BODY_BYTES)
    )


def keep_body(request: Request) -> None:
    """Read a JSON body, if there is one, and keep it for those who read it from now on.

    For who must not wait for a slow client later, or may need it again. Raises as `read_body`.
    """
    if request.META.get("CONTENT_LENGTH") or "HTTP_TRANSFER_ENCODING" in request.META:
        request._request.kept_body = read_body(request)  # type: ignore[attr-defined]


def media_type_of(request: Request) -> str:
    """Return the media type of the body; raise UnsupportedMedia for another charset than UTF-8."""
    return bodies.media_type_of(request._request)


def spool_body(request: Request) -> BinaryIO:
    """Return the unpacked body of a bulk upload in an unnamed file, never more than its limit.

    The caller closes it. Raises as `read_body`, and Unavailable where the disk takes no more.
    """
    return bodies.spool(request._request, limit=settings.MAX_BULK_BYTES)


def refuse_conditions(request: Request) -> None:
    """Refuse what would be ignored, where a change depends on it."""
    for name in ("If-Match", "If-None-Match"):
        if name in request.headers:
            message = f"What is changed here has no version of its own; leave {name} out."
            raise json.invalid(f"header.{name}", message)


# The same few come again and again, and reading one takes longer than many a search.
@lru_cache(maxsize=1_000)
def read_query(query: type[Query], query_string: str) -> dict[str, Any]:
    """Return the values of a query string; raise Invalid."""
    _check_query_string(query_string)
    # As Django does, whose requests hold the query string in Latin-1.
    return query.read(QueryDict(query_string.encode("latin-1"), encoding="utf-8"))


def _check_query_string(query: str) -> None:
    """Refuse bytes that are no text; Django would search for a replacement character instead."""
    try:
        unquote_to_bytes(query.encode("latin-1")).decode("utf-8")
    except UnicodeError:
        raise json.invalid("query", "The query string is not UTF-8.") from None

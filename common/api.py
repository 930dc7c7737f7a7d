"""The base of all API views: declared query parameters, and bodies read once and within limits."""

from email.message import Message
from typing import Any, ClassVar, TypeVar
from urllib.parse import unquote_to_bytes

from django.conf import settings
from rest_framework import serializers
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.request import Request
from rest_framework.views import APIView

from common import json
from common.errors import LengthRequired, Malformed, UnsupportedMedia
from common.middleware import too_large
from common.query import Query

_PIECE = 1024 * 1024


class Resource(APIView):
    """A thing with an address. Subclasses check the shape, make one domain call, and render.

    queries: the query parameters of each method that takes any, by its lower-case name.
    """

    queries: ClassVar[dict[str, type[Query]]] = {}
    query: dict[str, Any]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Look for the method, authenticate and check permission, read the query string."""
        method = (request.method or "").lower().replace("head", "get")
        if method not in self.http_method_names or not hasattr(self, method):
            raise MethodNotAllowed(request.method or "")
        super().initial(request, *args, **kwargs)
        _check_query_string(request.META.get("QUERY_STRING", ""))
        self.query = self.queries.get(method, Query).read(request.query_params)


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


def read_body(request: Request) -> bytes:
    """Return the bytes of a JSON body, never more than the limit.

    Raises UnsupportedMedia for another media type, charset or content encoding, TooLarge,
    LengthRequired without a length or chunks, and Malformed for one that ends early.
    """
    _check_media_type(request)
    environ = request.META
    transfer = environ.get("HTTP_TRANSFER_ENCODING", "").strip().lower()
    if transfer not in {"", "chunked"}:
        raise UnsupportedMedia("Send the body with no other Transfer-Encoding than chunked.")
    chunked = transfer == "chunked"
    if chunked and environ.get("CONTENT_LENGTH"):
        raise Malformed("Content-Length and Transfer-Encoding contradict each other.")
    if chunked:
        # Django takes a body without a length for an empty one, so read beneath it.
        return _read(environ["wsgi.input"], settings.MAX_BODY_BYTES)
    if not environ.get("CONTENT_LENGTH"):
        raise LengthRequired("Send a body with its Content-Length, or in chunks.")
    length = int(environ["CONTENT_LENGTH"])
    content = _read(request._request, settings.MAX_BODY_BYTES)
    if len(content) != length:
        raise Malformed("The request body ended before its Content-Length.")
    return content


def _check_query_string(query: str) -> None:
    """Refuse bytes that are no text; Django would search for a replacement character instead."""
    try:
        unquote_to_bytes(query.encode("latin-1")).decode("utf-8")
    except UnicodeError:
        raise json.invalid("query", "The query string is not UTF-8.") from None


def _read(stream: Any, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := stream.read(_PIECE):
        size += len(piece)
        if size > limit:
            raise too_large()
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check_media_type(request: Request) -> None:
    encoding = request.META.get("HTTP_CONTENT_ENCODING", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise UnsupportedMedia("Send the body without a Content-Encoding.")
    header = Message()
    header["Content-Type"] = request.META.get("CONTENT_TYPE") or "application/json"
    media_type, charset = header.get_content_type(), header.get_content_charset("utf-8")
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMedia(
            "Send the body as JSON, with the header Content-Type: application/json."
        )
    if charset not in {"utf-8", "utf8", "us-ascii"}:
        raise UnsupportedMedia("Send the body in UTF-8.")

"""Versions of single things: `ETag`, answers to who knows one, changes that rest on one.

The tag is a digest of what GET answers, so it is the same for the same content and another one
after any change that the asker can see, whoever made it and by whatever way.
"""

import hashlib
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, ClassVar

from django.db import transaction
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import parse_etags
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response

from common import json
from common.api import Resource, keep_body, refuse_conditions
from common.database import retry_conflicts
from common.errors import DomainError, NotFound

ANY = "*"
IF_MATCH, IF_NONE_MATCH = "If-Match", "If-None-Match"
# Whoever keeps an answer asks, each time, whether it is still true and still theirs to see.
_CACHING = "private, no-cache"
_WEAK = "W/"

Handler = Callable[..., HttpResponseBase]


class PreconditionFailed(DomainError):
    """What is there is another version than the request rests on."""

    status = 412
    code = "precondition-failed"


def entity_tag(content: bytes) -> str:
    """Return the strong tag of a body."""
    return f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'


class Tagged(Resource):
    """A single thing, whose answers carry the tag of its version.

    A change with `If-Match` is made only to one of the versions it names, and with
    `If-None-Match: *` only where nothing is; else it is refused with 412 and changes nothing.
    GET with the tag in `If-None-Match` is answered with 304 while it is the present one.

    showing: the methods that answer with what GET answers then.
    """

    showing: ClassVar[Collection[str]] = {"GET", "HEAD", "PUT", "PATCH", "POST"}
    takes_conditions = True

    get: Callable[..., HttpResponseBase]
    hold: Callable[..., None]
    """Lets nobody else change what is at the address until the transaction ends.

    Takes the request and the parts of the address. Raises what the changes raise for who may not
    make them, and NotFound where there is nothing.
    """

    _known: Sequence[str] = ()

    def present(self, request: Request, **address: Any) -> HttpResponseBase:
        """Return the answer that shows it now."""
        return self.get(request, **address)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Have the request's conditions checked before its method does anything."""
        super().initial(request, *args, **kwargs)
        if request.method in SAFE_METHODS:
            self._known = _tags(request, IF_NONE_MATCH)
            return
        if request.method == "POST" and "POST" not in self.showing:
            refuse_conditions(request)
        method = (request.method or "").lower()
        # A view serves one request, and its method is looked up after this.
        if IF_MATCH in request.headers:
            wanted = _tags(request, IF_MATCH)
            setattr(self, method, partial(self._if_match, getattr(self, method), wanted))
        elif IF_NONE_MATCH in request.headers:
            if _tags(request, IF_NONE_MATCH) != [ANY]:
                message = "If-None-Match is '*' where something is changed; see If-Match."
                raise json.invalid("header.If-None-Match", message)
            setattr(self, method, partial(self._if_new, getattr(self, method)))

    def _if_match(
        self, change: Handler, wanted: list[str], request: Request, **address: Any
    ) -> HttpResponseBase:
        keep_body(request)

        @retry_conflicts
        @transaction.atomic
        def run() -> HttpResponseBase:
            try:
                self.hold(request, **address)
                present = self.present(request, **address)
                _let_go(present)
                tag = _tag_of(present)
            except NotFound:
                if request.method != "PUT":
                    raise
                raise PreconditionFailed("There is nothing at this address to replace.") from None
            if wanted != [ANY] and tag not in wanted:
                raise PreconditionFailed(
                    "It has changed since the version that If-Match names; get it again."
                )
            return change(request, **address)

        return run()

    def _if_new(self, change: Handler, request: Request, **address: Any) -> HttpResponseBase:
        keep_body(request)

        @retry_conflicts
        @transaction.atomic
        def run() -> HttpResponseBase:
            response = change(request, **address)
            if response.status_code != 201:
                raise PreconditionFailed("There is something at this address already.")
            return response

        return run()

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Set the tag; answer 304 to who has this version."""
        final = super().finalize_response(request, response, *args, **kwargs)
        if final.status_code not in {200, 201} or request.method not in self.showing:
            return final
        tag = _tag_of(final)
        headers = {"ETag": tag, "Cache-Control": _CACHING}
        if _is_known(tag, self._known):
            _let_go(final)
            return HttpResponse(status=304, headers=headers)
        for name, value in headers.items():
            final.headers[name] = value
        return final


def _let_go(response: HttpResponseBase) -> None:
    """Close what an answer would have been read from; its `close` would end the request."""
    for close in response._resource_closers:  # type: ignore[attr-defined]
        close()


def _tag_of(response: HttpResponseBase) -> str:
    """Return the tag of an answer; one whose body is not at hand brings its own."""
    if not isinstance(response, Response):
        return response.headers["ETag"]
    return entity_tag(json.render(response.data))


def _tags(request: Request, name: str) -> list[str]:
    """Return the tags that a header names, none without it; raise Invalid for what holds none."""
    header = request.headers.get(name)
    if header is None:
        return []
    tags = parse_etags(header)
    if not tags:
        message = f'{name} names versions as the header ETag does, with quotation marks, or is "*".'
        raise json.invalid(f"header.{name}", message)
    return tags


def _is_known(tag: str, known: Sequence[str]) -> bool:
    return known == [ANY] or tag in {each.removeprefix(_WEAK) for each in known}

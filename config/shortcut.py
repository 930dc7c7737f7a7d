"""Answers the searches that come again and again without walking Django's whole chain.

A search through the graph takes half a millisecond, and so do middlewares, the resolver and REST
framework's view (docs/performance.md). Of a search that is in every respect like one that the chain
has answered before (same host, a key whose permission is remembered, a plain JSON body), the
chain's answer is known but for the results. Then this module does what is left of it, by the same
functions: read the query string and the body, search where the permission is checked in the same
statement, render, log.

It never refuses. Whatever is unusual, stale or wrong goes through the chain from the start, which
says what is wrong in its own words; so there is one rule for each thing, and one place for it.
"""

import io
import uuid
from typing import Any

from django.conf import settings
from django.db import Error

from accounts.authentication import Credentials, key_in
from accounts.services import is_due
from common import json
from common.api import read_query
from common.bodies import JSON
from common.errors import DomainError
from config.logs import direct_logger
from config.request_log import address_in
from embeddings import selectors
from embeddings.api.serializers import SimilarQuery, ranking, wanted
from embeddings.api.shaping_serializers import may_be_shaped
from projects import access

Environ = dict[str, Any]
Answer = tuple[list[tuple[str, str]], bytes]

_PREFIX = "/v1/similars/"
_LARGEST_BODY = 1024**2
_MOST_HOSTS = 64

_log = direct_logger(
    "django_structlog.middlewares.request",
    level=settings.LOG_LEVEL,
    as_json=settings.LOG_AS_JSON,
)


class Shortcut:
    """Knows what the chain's answers to searches look like, once it has seen one."""

    def __init__(self) -> None:
        self._headers: list[tuple[str, str]] | None = None
        self._hosts: set[tuple[str, str]] = set()

    def learn(self, environ: Environ, response: Any) -> None:
        """Remember how the chain answered a search."""
        if response.status_code != 200 or _place(environ) is None:
            return
        if response.cookies or len(self._hosts) >= _MOST_HOSTS:
            return
        self._hosts.add(_asked_at(environ))
        self._headers = [
            (name, value) for name, value in response.items() if name.lower() != "content-length"
        ]

    def answer(self, environ: Environ) -> Answer | None:
        """Return headers and body of the answer to a search; None to let the chain answer."""
        place = _place(environ)
        if place is None or self._headers is None or _asked_at(environ) not in self._hosts:
            return None
        try:
            credentials = Credentials(key_in(environ.get("HTTP_AUTHORIZATION")))
            known = access.remembered(credentials, owner=place[0], handle=place[1])
            query = read_query(SimilarQuery, environ.get("QUERY_STRING", ""))
            if known is None or query["explain"] or _is_due(known):
                return None
            body = _body(environ)
            if body is None or may_be_shaped(body):
                return None
            found = selectors.similar_if_remembered(known, body=body, wanted=wanted(query))
        except (DomainError, Error):
            return None
        if found is None:
            return None
        content = json.render(ranking(found))
        _note(environ, found)
        return [*self._headers, ("Content-Length", str(len(content)))], content


def _place(environ: Environ) -> tuple[str, str] | None:
    """Return owner and project of a search by vector; None for any other request."""
    path: str = environ["PATH_INFO"]
    if environ["REQUEST_METHOD"] != "POST" or not path.startswith(_PREFIX) or not path.isascii():
        return None
    parts = path[len(_PREFIX) :].split("/")
    return (parts[0], parts[1]) if len(parts) == 2 and all(parts) else None


def _asked_at(environ: Environ) -> tuple[str, str]:
    """Return by which name, and through which proxy, somebody asks: both may be refused."""
    return environ.get("HTTP_HOST", ""), environ.get("HTTP_X_FORWARDED_PROTO", "")


def _is_due(known: access.Access) -> bool:
    """Say whether the key's use is to be written down, which the chain does."""
    return known.actor.key is not None and is_due(known.actor.key)


def _body(environ: Environ) -> bytes | None:
    """Return the body of a plain JSON request; leave it to the chain to read any other."""
    length = environ.get("CONTENT_LENGTH") or ""
    is_plain = (
        environ.get("CONTENT_TYPE") == JSON
        and "HTTP_CONTENT_ENCODING" not in environ
        and "HTTP_TRANSFER_ENCODING" not in environ
    )
    limit = min(_LARGEST_BODY, settings.MAX_BODY_BYTES)
    if not (is_plain and length.isdigit() and length.isascii() and int(length) <= limit):
        return None
    body: bytes = environ["wsgi.input"].read(int(length))
    # The chain reads it again where it has to answer after all.
    environ["wsgi.input"] = io.BytesIO(body)
    return body if len(body) == int(length) else None


def _note(environ: Environ, found: selectors.Found) -> None:
    """Log the answer as `config.request_log` does."""
    query = environ.get("QUERY_STRING", "")
    path = environ["PATH_INFO"] + (f"?{query}" if query else "")
    user = found.actor.user
    _log.info(
        "request_finished",
        code=200,
        request=f"POST {path}",
        request_id=str(uuid.uuid4()),
        ip=address_in(environ),
        user_id=None if user is None else user.pk,
    )

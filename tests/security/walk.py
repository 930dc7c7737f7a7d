"""Every address of the program that can be read, generated from the URL configuration.

A new route or page is found here without being named.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from django.contrib import admin
from django.urls import URLPattern, reverse
from django.urls.converters import IntConverter, UUIDConverter

from console.urls import urlpatterns as console_patterns
from tests.contract.world import (
    ENDED_JOB,
    TEXT_ID_IN_URL,
    WORDS,
    api_views,
    methods_of,
    own_views,
)

_PARAMETER = re.compile(r"\{(\w+)\}")
# What makes a question of those that ask nothing without it.
_QUERIES = {
    "/v1/similars/{owner}/{project}": ["", f"?q={quote(WORDS)}", "?q=x&mode=text"],
    "/v1/embeddings/{owner}/{project}/facets": ["?path=note"],
    "/v1/embeddings/{owner}/{project}/count": ["?filter=%7B%7D"],
}


@dataclass(frozen=True)
class Things:
    """What the addresses lead to.

    ids: of things of the Projects API, by the first part of their address.
    values: by the name of an address's parameter.
    """

    ids: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(
        default_factory=lambda: {
            "owner": "alice",
            "project": "letters",
            "user": "alice",
            "standard": "spare",
            "handle": "model",
            "text_id": TEXT_ID_IN_URL,
            "id": ENDED_JOB,
        }
    )

    def value(self, name: str, template: str) -> str:
        """Return what stands in place of an address's parameter; what exists, if possible."""
        first = template.strip("/").partition("/")[0]
        if name == "id" and first in self.ids:
            return self.ids[first]
        if name == "handle" and "definition" in template:
            return "template"
        return self.values.get(name, "letters")


def api_addresses(things: Things) -> Iterator[str]:
    """Return every address of both APIs that GET is served at."""
    for template, view in {**api_views(), **own_views()}.items():
        if "GET" in methods_of(view):
            path = _filled(things, template)
            for query in _QUERIES.get(template, [""]):
                yield path + query
    yield from ("/openapi.json", "/docs", "/healthz", "/readyz")


def _filled(things: Things, template: str) -> str:
    return _PARAMETER.sub(lambda match: things.value(match[1], template), template)


def console_addresses(things: Things) -> Iterator[str]:
    """Return every address of the console."""
    for pattern in console_patterns:
        if not isinstance(pattern, URLPattern):
            continue
        address = "/" + re.sub(r"[\^$]|\\Z", "", str(pattern.pattern))
        address = re.sub(r"\(\?P<(\w+)>.*", r"{\1}", address)
        address = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", address)
        converters = pattern.pattern.converters

        def fill(
            match: re.Match[str], converters: object = converters, address: str = address
        ) -> str:
            converter = converters.get(match[1]) if isinstance(converters, dict) else None
            if isinstance(converter, IntConverter):
                return "1"
            if isinstance(converter, UUIDConverter):
                return ENDED_JOB
            if match[1] == "handle" and address.startswith("/p/"):
                return "letters"
            return things.values.get(match[1], "letters")

        yield _PARAMETER.sub(fill, address)


def admin_addresses() -> Iterator[str]:
    """Return every address of the administration site: of each model, and of one of its rows."""
    yield reverse("admin:index")
    for model, shown in admin.site._registry.items():
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        yield reverse(f"{name}_changelist")
        yield reverse(f"{name}_add")
        rows = model._default_manager.all()
        row = rows.order_by("pk").first()
        if row is not None:
            for page in ("change", "history", "delete"):
                yield reverse(f"{name}_{page}", args=[quote(str(row.pk), safe="")])
        if shown.search_fields:
            yield reverse(f"{name}_changelist") + "?q=letters"


def text_of(response: Any) -> str:
    """Return what an answer holds, whether it was streamed or not."""
    pieces = response.streaming_content if response.streaming else [response.content]
    return b"".join(pieces).decode("utf-8", "replace")

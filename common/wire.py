"""What REST framework's settings name: JSON in, JSON out, nothing to negotiate."""

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer

from common import json


class JsonRenderer(BaseRenderer):
    """Renders with orjson; numpy arrays of floats go out without becoming Python objects."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the bytes of the body."""
        return b"" if data is None else json.render(data)


class JsonParser(BaseParser):
    """Names the media type for OpenAPI; `common.api.read_body` does the reading."""

    media_type = "application/json"


class AlwaysJson(BaseContentNegotiation):
    """There is one representation, so an Accept header cannot go wrong."""

    def select_parser(self, request: HttpRequest, parsers: Any) -> BaseParser:
        """Return the only parser."""
        return JsonParser()

    def select_renderer(
        self, request: HttpRequest, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return the view's first renderer: JSON, except for the pages about the API."""
        renderer = next(iter(renderers))
        return renderer, renderer.media_type

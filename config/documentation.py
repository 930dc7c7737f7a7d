"""The API's own description: the OpenAPI document, and the page that makes it readable."""

from functools import cache
from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiYamlRenderer
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from accounts.authentication import Public
from common import json
from common.api import Resource


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document: made once a process, for it takes a third of a second."""
    generator = SchemaGenerator()  # type: ignore[no-untyped-call]
    described: dict[str, Any] = generator.get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return described


@cache
def _as_json() -> bytes:
    return json.render(document())


@cache
def _as_yaml() -> bytes:
    return bytes(OpenApiYamlRenderer().render(document()))  # type: ignore[no-untyped-call]


@extend_schema(exclude=True)
class Document(Resource):
    """The OpenAPI document, in JSON or YAML."""

    permission_classes = [Public]
    authentication_classes = []
    as_yaml = False

    def get(self, request: Request) -> HttpResponse:
        """Return the document."""
        if self.as_yaml:
            return HttpResponse(_as_yaml(), content_type="application/yaml")
        return HttpResponse(_as_json(), content_type="application/json")


@extend_schema(exclude=True)
class Docs(Resource):
    """The page that shows the document."""

    permission_classes = [Public]
    authentication_classes = []

    def get(self, request: Request) -> HttpResponse:
        """Return the page."""
        return render(request._request, "docs.html")

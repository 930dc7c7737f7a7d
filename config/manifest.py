"""`GET /v1`: what this server is and where to look next."""

from typing import Any

from django.conf import settings
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import Public
from common.api import Resource
from common.schema import operation

_ENDPOINTS = [
    ("/v1/limits", "GET", "The largest of everything"),
    ("/v1/users", "GET, POST", "Accounts, for administrators"),
    ("/v1/users/{user}", "GET, PUT, PATCH, DELETE", "One account"),
    ("/v1/api-standards", "GET, POST", "Protocols that LLM services speak"),
    ("/v1/api-standards/{standard}", "GET, PUT, PATCH, DELETE", "One protocol"),
    ("/v1/llm-service-definitions/{owner}", "GET, POST", "Templates of LLM services"),
    ("/v1/llm-service-definitions/{owner}/{handle}", "GET, PUT, PATCH, DELETE", "One template"),
    ("/v1/llm-services/{owner}", "GET, POST", "LLM service instances"),
    ("/v1/llm-services/{owner}/{handle}", "GET, PUT, PATCH, DELETE", "One instance"),
    ("/v1/llm-services/{owner}/{handle}/share", "POST", "Share an instance"),
    ("/v1/projects/{owner}", "GET, POST", "Projects of an owner"),
    ("/v1/projects/{owner}/{project}", "GET, PUT, PATCH, DELETE", "One project"),
    ("/v1/projects/{owner}/{project}/share", "POST", "Share a project"),
    ("/v1/projects/{owner}/{project}/shared-with", "GET", "Who a project is shared with"),
    ("/v1/projects/{owner}/{project}/transfer-ownership", "POST", "Give a project away"),
    ("/v1/embeddings/{owner}/{project}", "GET, POST, DELETE", "Embeddings of a project"),
    ("/v1/embeddings/{owner}/{project}/{text_id}", "GET, PUT, DELETE", "One embedding"),
    ("/v1/similars/{owner}/{project}", "GET, POST", "Search by words or by vector"),
    ("/v1/similars/{owner}/{project}/{text_id}", "GET", "Search by stored text"),
    ("/v1/similars/{owner}/{project}/batch", "GET, POST", "Search many times"),
    ("/v1/similars", "POST", "Search several projects"),
    ("/v1/projects/{owner}/{project}/audit-log", "GET", "Who changed what about a project"),
    ("/v1/admin/audit-log", "GET", "Who changed what on this server"),
    ("/v1/admin/sanity-check", "GET", "Check all stored data"),
]


class EndpointOut(serializers.Serializer[Any]):
    """One address."""

    path = serializers.CharField()
    methods = serializers.CharField()
    description = serializers.CharField()


class ManifestOut(serializers.Serializer[Any]):
    """What this server is."""

    name = serializers.CharField()
    versions = serializers.ListField(child=serializers.CharField())
    description = serializers.CharField()
    documentation = serializers.CharField()
    serviceVersion = serializers.CharField()  # noqa: N815 – the contract's name
    authentication = serializers.CharField()
    endpoints = EndpointOut(many=True)


class Manifest(Resource):
    """The entrance of the API."""

    permission_classes = [Public]
    authentication_classes = []

    @operation(
        "About this server",
        name="get_manifest",
        tag="Server",
        answers={200: ManifestOut},
        public=True,
    )
    def get(self, request: Request) -> Response:
        """Return what this server is and its addresses."""
        return Response(
            {
                "name": "Armarium",
                "versions": ["v1"],
                "description": "A self-hosted home for embeddings, shared and searched by project.",
                "documentation": "/docs",
                "serviceVersion": settings.VERSION,
                "authentication": "Authorization: Bearer <key>",
                "endpoints": [
                    {"path": path, "methods": methods, "description": description}
                    for path, methods, description in _ENDPOINTS
                ],
            }
        )

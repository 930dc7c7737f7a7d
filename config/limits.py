"""`GET /v1/limits`: the largest of everything, from the constants that the program enforces."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from django.conf import settings
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import guessing
from accounts.authentication import PublicReading
from common import handles, json, listing, query
from common.api import Resource
from common.schema import operation
from embeddings import batches, columns, filters, imports
from embeddings.api import listing as embeddings_listing
from embeddings.api import serializers as searching
from embeddings.api import shaping_serializers as shaping
from embeddings.files import MAXIMUM_ROWS
from llm_services.models import MAXIMUM_DIMENSIONS
from projects import metadata as schemas
from resources.models import MAXIMUM_ABOUT_LENGTH


class Limit(NamedTuple):
    """One of them: its stable name, the largest value, what that counts, and of what."""

    name: str
    value: int
    unit: str
    description: str


def limits() -> Iterator[Limit]:
    """Return all of them, as this server is configured."""
    yield Limit("body_bytes", settings.MAX_BODY_BYTES, "bytes", "A request body.")
    yield Limit("bulk_body_bytes", settings.MAX_BULK_BYTES, "bytes", "An upload in a bulk format.")
    yield Limit("json_depth", json.MAX_DEPTH, "levels", "Nesting of a body, and of metadata.")
    yield Limit("metadata_values", json.MAX_VALUES, "values", "The metadata of one embedding.")
    yield Limit("document_bytes", json.MAX_DOCUMENT_BYTES, "bytes", "A metadata document.")
    yield Limit("handle_length", handles.MAXIMUM_LENGTH, "characters", "A handle.")
    yield Limit("page_entries", query.MAXIMUM_LIMIT, "entries", "A page of a list under /v1.")
    yield Limit("own_page_entries", listing.MAXIMUM_LIMIT, "entries", "A page of the Projects API.")
    yield Limit(
        "bulk_page_entries",
        embeddings_listing.MAXIMUM_BULK_LIMIT,
        "embeddings",
        "A page of embeddings in a bulk format.",
    )
    yield Limit("batch_items", batches.MAXIMUM_ITEMS, "embeddings", "An upload in JSON.")
    yield Limit("bulk_rows", MAXIMUM_ROWS, "embeddings", "An upload in a bulk format.")
    yield Limit(
        "texts_per_request",
        settings.TEXTS_PER_REQUEST,
        "texts",
        "Texts that a request waits for while they are embedded; more become a job.",
    )
    yield Limit(
        "atomic_import_rows",
        imports.MAXIMUM_ATOMIC_ROWS,
        "embeddings",
        "A file that is loaded whole or not at all.",
    )
    yield Limit("text_id_length", columns.MAXIMUM_TEXT_ID_LENGTH, "characters", "A text_id.")
    yield Limit("dimensions", MAXIMUM_DIMENSIONS, "numbers", "A vector.")
    yield Limit("search_words", batches.MAXIMUM_WORDS, "characters", "The words of a search.")
    yield Limit("search_results", query.MAXIMUM_LIMIT, "texts", "What a search returns.")
    yield Limit("batch_searches", shaping.MAXIMUM_QUERIES, "searches", "A batch of searches.")
    yield Limit("searched_projects", shaping.MAXIMUM_PROJECTS, "projects", "A search over several.")
    yield Limit(
        "filter_conditions", filters.MAXIMUM_CONDITIONS, "conditions", "The conditions of a filter."
    )
    yield Limit("filter_depth", filters.MAXIMUM_NESTING, "levels", "Nesting of a filter.")
    yield Limit("filter_values", filters.MAXIMUM_OPERANDS, "values", "The values of one condition.")
    yield Limit(
        "filter_length", searching.MAXIMUM_FILTER_LENGTH, "characters", "A filter in the query."
    )
    yield Limit("schema_bytes", schemas.MAX_SCHEMA_BYTES, "bytes", "A metadata schema.")
    yield Limit("schema_depth", schemas.MAX_SCHEMA_DEPTH, "levels", "Nesting of a schema.")
    yield Limit(
        "schema_nodes", schemas.MAX_SCHEMA_NODES, "nodes", "A schema, its references expanded."
    )
    yield Limit("about_length", MAXIMUM_ABOUT_LENGTH, "characters", "`about` of an agent or user.")
    yield Limit(
        "failed_keys", guessing.LIMIT, "requests", "Requests with a wrong key before a 429."
    )
    for name, what in (
        ("statement_timeout", "One statement of the database."),
        ("lock_timeout", "Waiting for somebody else's change."),
        ("idle_in_transaction_session_timeout", "A transaction in which nothing happens."),
    ):
        yield Limit(name, settings.DATABASE_TIMEOUTS_MS[name], "milliseconds", what)


def as_markdown() -> str:
    """Return the table of docs/limits.md."""
    rows = [
        f"| `{each.name}` | {each.value} | {each.unit} | {each.description} |" for each in limits()
    ]
    return "\n".join(["| Name | Largest | Unit | Of what |", "|---|---|---|---|", *rows, ""])


class LimitOut(serializers.Serializer[Any]):
    """The largest of something."""

    name = serializers.CharField(help_text="Stays the same from release to release.")
    value = serializers.IntegerField()
    unit = serializers.CharField()
    description = serializers.CharField()


class LimitsOut(serializers.Serializer[Any]):
    """The largest of everything."""

    limits = LimitOut(many=True)


class Limits(Resource):
    """What requests must keep to."""

    permission_classes = [PublicReading]

    @operation(
        "Get the limits",
        name="get_limits",
        tag="Server",
        answers={200: LimitsOut},
        public=True,
        description="What is larger is refused before any work is done on it.",
    )
    def get(self, request: Request) -> Response:
        """Return the largest of everything, as this server is configured."""
        return Response({"limits": [each._asdict() for each in limits()]})

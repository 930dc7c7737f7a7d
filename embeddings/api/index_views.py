"""A project's index, and how well searches through it find."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import KeyRequired, PublicReading, actor_of
from common.api import Resource, given
from common.schema import answer_example, body_example, operation
from embeddings import indexes, selectors
from embeddings.api.index_serializers import (
    IndexIn,
    IndexOut,
    RecallOut,
    RecallQuery,
    comparison_shown,
    index_shown,
    recall_wanted,
)
from embeddings.api.views import SEARCH, SimilarToText

TAG = "Search index"

_INDEX: dict[str, Any] = {
    "state": "indexed",
    "rows": {"total": 100_250, "indexed": 100_000, "growing": 250},
    "threshold_rows": 10_416,
    "settings": {
        "m": 16,
        "ef_construction": 64,
        "ef_search": None,
        "target_recall": 0.98,
        "search_language": None,
    },
    "ef_search": 60,
    "measured_recall": 0.985,
    "progress": None,
    "table_bytes": 214_000_000,
    "index_bytes": 117_000_000,
    "built_at": "2026-03-01T12:00:00Z",
    "last_error": None,
}


class Index(Resource):
    """The index of a project: its state and its settings."""

    permission_classes = [PublicReading]

    @operation(
        "Get a project's index",
        name="get_index",
        tag=TAG,
        answers={200: IndexOut},
        errors=[404],
        description=(
            "A project is searched exactly until it holds about four million numbers (embeddings "
            "times dimensions); then an HNSW graph is built in the background, while reading and "
            "writing go on."
        ),
        examples=[answer_example("An indexed project", _INDEX)],
    )
    def get(self, request: Request, owner: str, project: str) -> Response:
        """Return how the project is searched, and how far the building of its index is."""
        report = indexes.index_for(actor_of(request), owner=owner, handle=project)
        return Response(index_shown(report))

    @operation(
        "Change the settings of a project's index",
        name="update_index",
        tag=TAG,
        request=IndexIn,
        answers={200: IndexOut},
        errors=[404],
        description=(
            "The owner's to do. Other values of `m` and `ef_construction` have the graph built "
            "anew in the background; `ef_search` counts from the next search on. `null` for "
            "`ef_search` has the fewest candidates measured that reach `target_recall`."
        ),
        examples=[body_example("More candidates", {"ef_search": 200})],
    )
    def patch(self, request: Request, owner: str, project: str) -> Response:
        """Change how the index is built and searched."""
        report = indexes.change_settings(
            actor=actor_of(request),
            owner=owner,
            handle=project,
            changes=given(IndexIn, request, partial=True),
        )
        return Response(index_shown(report))


class Rebuild(Resource):
    """Building a project's index anew."""

    permission_classes = [KeyRequired]

    @operation(
        "Rebuild a project's index",
        name="rebuild_index",
        tag=TAG,
        answers={202: IndexOut},
        errors=[404, 409],
    )
    def post(self, request: Request, owner: str, project: str) -> Response:
        """Have the graph built anew in the background; searches use the old one meanwhile."""
        report = indexes.request_rebuild(actor=actor_of(request), owner=owner, handle=project)
        return Response(index_shown(report), status=202)


class Recall(SimilarToText):
    """Measuring recall; the address is also that of the text with the id `recall`."""

    queries = {**SimilarToText.queries, "post": RecallQuery}

    # Described by the address that it is one of.
    @extend_schema(exclude=True)
    def get(self, request: Request, owner: str, project: str, text_id: str = "recall") -> Response:
        """Return the texts most similar to the one with the id `recall`."""
        return super().get(request, owner, project, text_id)

    @operation(
        "Measure recall",
        name="measure_recall",
        tag=SEARCH,
        answers={200: RecallOut},
        errors=[404],
        query=RecallQuery,
        description=(
            "Searches with stored vectors chosen at random, through the index and exactly, and "
            "compares. Reads only. The samples are in the graph themselves, so new queries find "
            "a little less."
        ),
    )
    def post(self, request: Request, owner: str, project: str) -> Response:
        """Tell which share of the nearest texts searches of this project find."""
        found, comparison = selectors.recall_of(
            actor_of(request),
            owner=owner,
            handle=project,
            k=self.query["k"],
            queries=self.query["queries"],
            wanted=recall_wanted(self.query),
        )
        return Response(comparison_shown(found, comparison))

"""Counting, facets, deleting and changing by filter.

Their addresses are those of texts with the ids `count`, `facets`, `delete` and `update`, too. A
text is read without query parameters, and nothing is ever posted to one, so the two never meet.
"""

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import actor_of
from common.api import given
from common.query import Query
from common.schema import answer_example, body_example, operation
from embeddings import changes, filters, selectors
from embeddings.api.filter_serializers import (
    CountOut,
    CountQuery,
    DeletionIn,
    DeletionOut,
    FacetsOut,
    FacetsQuery,
    UpdateIn,
    UpdateOut,
    count_shown,
    deletion_shown,
    facets_shown,
    path_in,
    update_shown,
)
from embeddings.api.serializers import filter_in
from embeddings.api.views import TAG, OneEmbedding

_hidden = extend_schema(exclude=True)
_FILTER = {"author": "Ann", "year": {"gte": 1790, "lt": 1800}}


class _Asking(OneEmbedding):
    """Answers a question where there are query parameters, else reads the text of that id."""

    # Answers to questions are no versions of the text.
    showing = {"PUT"}

    @property
    def is_asked(self) -> bool:
        """Whether there are query parameters."""
        return bool(self.request.META.get("QUERY_STRING"))

    def query_of(self, method: str) -> type[Query]:
        """Return what may be asked; of a text, nothing."""
        return super().query_of(method) if self.is_asked else Query


@extend_schema_view(put=_hidden, delete=_hidden)
class Count(_Asking):
    """How many embeddings a filter keeps."""

    queries = {"get": CountQuery}

    @operation(
        "Count embeddings",
        name="count_embeddings",
        tag=TAG,
        answers={200: CountOut},
        errors=[404],
        query=CountQuery,
        examples=[
            answer_example(
                "A count", {"user_handle": "alice", "project_handle": "letters", "count": 12}
            )
        ],
    )
    def get(self, request: Request, owner: str, project: str, text_id: str = "count") -> Response:
        """Tell how many of the project's embeddings a filter keeps."""
        if not self.is_asked:
            return super().get(request, owner, project, text_id)
        condition = filters.parse_text(self.query["filter"], "query.filter")
        found, count = selectors.count_of(
            actor_of(request), owner=owner, handle=project, condition=condition
        )
        return Response(count_shown(found, count))


@extend_schema_view(put=_hidden, delete=_hidden)
class Facets(_Asking):
    """Which values the metadata has."""

    queries = {"get": FacetsQuery}

    @operation(
        "Count the values of metadata",
        name="list_facets",
        tag=TAG,
        answers={200: FacetsOut},
        errors=[404],
        query=FacetsQuery,
        description="The most frequent first. Of a list, each element counts, once an embedding.",
        examples=[
            answer_example(
                "Two authors",
                {
                    "user_handle": "alice",
                    "project_handle": "letters",
                    "path": "author",
                    "facets": [{"value": "Ann", "count": 12}, {"value": "Bob", "count": 3}],
                    "distinct_values": 2,
                    "without_value": 1,
                    "total_count": 16,
                },
            )
        ],
    )
    def get(self, request: Request, owner: str, project: str, text_id: str = "facets") -> Response:
        """Tell which values are at a path of the metadata, and how frequent they are."""
        if not self.is_asked:
            return super().get(request, owner, project, text_id)
        found, facets = selectors.facets_of(
            actor_of(request),
            owner=owner,
            handle=project,
            path=path_in(self.query),
            condition=filter_in(self.query),
            limit=self.query["limit"],
        )
        return Response(facets_shown(found, self.query["path"], facets))


@extend_schema_view(get=_hidden, put=_hidden, delete=_hidden)
class Deletion(OneEmbedding):
    """Deleting what a filter keeps."""

    showing = {"GET", "HEAD", "PUT"}

    @operation(
        "Delete embeddings by filter",
        name="delete_matching_embeddings",
        tag=TAG,
        request=DeletionIn,
        answers={200: DeletionOut},
        errors=[404],
        description="All that match, or none. With `dry_run`, only counts them.",
        examples=[body_example("A decade of one author", {"filter": _FILTER, "dry_run": True})],
    )
    def post(self, request: Request, owner: str, project: str, text_id: str) -> Response:
        """Delete the project's embeddings that a filter keeps."""
        values = given(DeletionIn, request)
        changed = changes.delete_matching(
            actor=actor_of(request),
            owner=owner,
            handle=project,
            condition=filters.parse(values["filter"], "body.filter"),
            dry_run=values["dry_run"],
        )
        return Response(deletion_shown(changed))


@extend_schema_view(get=_hidden, put=_hidden, delete=_hidden)
class Update(OneEmbedding):
    """Changing the metadata of what a filter keeps."""

    showing = {"GET", "HEAD", "PUT"}

    @operation(
        "Update metadata by filter",
        name="update_matching_embeddings",
        tag=TAG,
        request=UpdateIn,
        answers={200: UpdateOut},
        errors=[404],
        description=(
            "Merges a patch into the metadata of all that match, or of none where one of them "
            "would break the project's metadata schema. Text and vector stay."
        ),
        examples=[
            body_example(
                "Another spelling", {"filter": {"author": "Anne"}, "metadata": {"author": "Ann"}}
            )
        ],
    )
    def post(self, request: Request, owner: str, project: str, text_id: str) -> Response:
        """Change the metadata of the project's embeddings that a filter keeps."""
        values = given(UpdateIn, request)
        changed = changes.update_matching(
            actor=actor_of(request),
            owner=owner,
            handle=project,
            condition=filters.parse(values["filter"], "body.filter"),
            patch=values["metadata"],
            dry_run=values["dry_run"],
        )
        return Response(update_shown(changed))

"""Many searches in one request, and searches over several projects."""

from functools import partial

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import Public, actor_of, credentials_of, note_actor
from common.api import Resource, read_body
from common.bodies import once
from common.schema import answer_example, body_example, operation
from embeddings import searches
from embeddings.api.shaping_serializers import (
    AcrossIn,
    AcrossOut,
    BatchIn,
    BatchOut,
    across_in,
    across_shown,
    batch_in,
    shaped,
)
from embeddings.api.views import SEARCH, SimilarToText


class Batch(SimilarToText):
    """Many searches in one request; the address is also that of the text with the id `batch`."""

    # Described by the address that it is one of.
    @extend_schema(exclude=True)
    def get(self, request: Request, owner: str, project: str, text_id: str = "batch") -> Response:
        """Return the texts most similar to the one with the id `batch`."""
        return super().get(request, owner, project, text_id)

    @operation(
        "Search many times",
        name="search_in_batch",
        tag=SEARCH,
        request=BatchIn,
        answers={200: BatchOut},
        errors=[404, 409, 502, 504],
        description=(
            "Up to 100 searches, each with what a single one takes in body and query string; all "
            "of it is in the body here. Answered in their order, or, where one is malformed, not "
            "at all."
        ),
        examples=[
            body_example(
                "Two searches",
                {
                    "queries": [
                        {"vector": [0.02, -0.11, 0.31], "count": 1},
                        {"vector": [0.4, 0.02, -0.1], "count": 1, "filter": {"author": "Ann"}},
                    ]
                },
            ),
            answer_example(
                "Two answers",
                {
                    "user_handle": "alice",
                    "project_handle": "letters",
                    "answers": [
                        {"results": [{"id": "letter-7:p.1", "similarity": 0.93}]},
                        {"results": [{"id": "letter-2:p.4", "similarity": 0.81}]},
                    ],
                },
            ),
        ],
    )
    def post(self, request: Request, owner: str, project: str) -> Response:
        """Answer several searches of a project."""
        body = once(partial(read_body, request))
        known, answers = searches.batch(
            credentials_of(request),
            owner=owner,
            handle=project,
            questions=lambda dimensions: batch_in(body(), dimensions),
        )
        note_actor(request, known.actor)
        return Response(
            {
                "user_handle": known.project.owner.handle,
                "project_handle": known.project.handle,
                "answers": [shaped(each) for each in answers],
            }
        )


class Across(Resource):
    """Searching several projects together."""

    # The policy decides who may read: the projects may be public.
    permission_classes = [Public]

    @operation(
        "Search several projects",
        name="search_projects",
        tag=SEARCH,
        request=AcrossIn,
        answers={200: AcrossOut},
        errors=[404, 409, 502, 504],
        description=(
            "Up to 50 projects that are readable with the key, or public. The same model must have "
            "made their vectors (409 naming the others), so that similarities can be compared."
        ),
        examples=[
            body_example(
                "Two projects",
                {
                    "projects": ["alice/letters", "alice/diaries"],
                    "vector": [0.02, -0.11, 0.31],
                    "fields": ["text"],
                },
            ),
            answer_example(
                "Two results",
                {
                    "results": [
                        {
                            "project": "alice/diaries",
                            "id": "1791-03-02",
                            "similarity": 0.93,
                            "text": "Walked to the river …",
                        },
                        {
                            "project": "alice/letters",
                            "id": "letter-7:p.1",
                            "similarity": 0.81,
                            "text": "My dear friend, …",
                        },
                    ]
                },
            ),
        ],
    )
    def post(self, request: Request) -> Response:
        """Return the texts of several projects that are most similar to a vector."""
        names, question = across_in(read_body(request))
        found = searches.across(actor_of(request), names=names, question=question)
        return Response(across_shown(found))

"""Embeddings, similarity search, and the administrators' checks."""

from functools import partial
from typing import Any

from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import (
    Public,
    PublicReading,
    UncheckedKeyAuthentication,
    actor_of,
    credentials_of,
    note_actor,
)
from common.api import Resource, media_type_of, read_body, spool_body
from common.schema import Message, answer_example, body_example, operation, without_field
from embeddings import searches, selectors, services
from embeddings.api.listing import ListingQuery, answer, place_of, preferred
from embeddings.api.serializers import (
    DeletedOut,
    EmbeddingOut,
    EmbeddingsOut,
    ReplacedEmbeddingIn,
    SanityOut,
    SimilarOut,
    SimilarQuery,
    UploadIn,
    UploadOut,
    ranking,
    shown,
    uploaded,
    wanted,
)
from embeddings.api.shaping_serializers import (
    SearchIn,
    ShapedQuery,
    question_in,
    shape_in,
    shaped,
)
from embeddings.selectors import Found
from embeddings.shaping import Shaped
from embeddings.uploads import MEDIA_TYPES, upload_file

TAG = "Embeddings"
SEARCH = "Similarity search"
ADMIN = "Administration"

_ITEM: dict[str, Any] = {
    "text_id": "letter-1:p.3",
    "instance_handle": "my-model",
    "vector": [0.021, -0.12, 0.33],
    "vector_dim": 3,
    "text": "My dear friend, …",
    "metadata": {"author": "Ann", "year": 1791},
}
_UPLOAD = body_example("One embedding", {"embeddings": [_ITEM]})
_HITS = answer_example(
    "Two results",
    {
        "user_handle": "alice",
        "project_handle": "letters",
        "results": [
            {"id": "letter-7:p.1", "similarity": 0.93},
            {"id": "letter-2:p.4", "similarity": 0.81},
        ],
    },
)


class Embeddings(Resource):
    """The embeddings of a project."""

    queries = {"get": ListingQuery}
    bulk_media_types = MEDIA_TYPES

    # The policy decides who may read: the project may be public.
    permission_classes = [PublicReading]

    @operation(
        "List embeddings",
        name="list_embeddings",
        tag=TAG,
        answers={200: EmbeddingsOut},
        media={(200, each): OpenApiTypes.BINARY for each in MEDIA_TYPES},
        errors=[404, 409],
        query=ListingQuery,
        description=(
            "In the order of their ids, with vectors. The header `Accept` chooses the format: "
            "JSON, JSON lines, an Arrow stream or Parquet. Where more follow, JSON has "
            "`next_cursor`, and each format a header `Link` with the address of the next page."
        ),
    )
    def get(self, request: Request, owner: str, project: str) -> HttpResponseBase:
        """Return a page of the project's embeddings with their vectors."""
        media_type = preferred(request)
        place = place_of(self.query, media_type)
        found = selectors.embeddings_of(actor_of(request), owner=owner, handle=project, **place)
        return answer(request, found, media_type)

    @operation(
        "Upload embeddings",
        name="upload_embeddings",
        tag=TAG,
        request={"application/json": UploadIn, **dict.fromkeys(MEDIA_TYPES, OpenApiTypes.BINARY)},
        answers={201: UploadOut},
        errors=[404, 409],
        description=(
            "Up to 5000 embeddings in JSON, up to 500 000 as JSON lines, an Arrow stream or "
            "Parquet, stored whole or not at all. A vector in JSON is a list of numbers, or the "
            "base64 text of little-endian float32 numbers. An id that is stored already, or that "
            "occurs twice, is a 409: delete it first, or replace it with PUT. The body may have "
            "`Content-Encoding: gzip` or `zstd`."
        ),
        examples=[_UPLOAD],
    )
    def post(self, request: Request, owner: str, project: str) -> Response:
        """Store new embeddings."""
        where: Any = {"actor": actor_of(request), "owner": owner, "handle": project}
        media_type = media_type_of(request)
        if media_type in MEDIA_TYPES:
            body = partial(spool_body, request)
            ids = upload_file(**where, media_type=media_type, body=body)
        else:
            ids = services.upload(**where, body=partial(read_body, request, others=MEDIA_TYPES))
        return Response(uploaded(ids), status=201)

    @operation(
        "Delete all embeddings",
        name="delete_all_embeddings",
        tag=TAG,
        answers={200: DeletedOut},
        errors=[404],
    )
    def delete(self, request: Request, owner: str, project: str) -> Response:
        """Delete every embedding of the project; the project stays."""
        deleted = services.delete_all_embeddings(
            actor=actor_of(request), owner=owner, handle=project
        )
        message = f"{deleted} embedding(s) of project '{owner}/{project}' deleted."
        return Response({"message": message, "deleted_count": deleted})


class OneEmbedding(Resource):
    """One embedding."""

    # The policy decides who may read: the project may be public.
    permission_classes = [PublicReading]

    @operation(
        "Get an embedding", name="get_embedding", tag=TAG, answers={200: EmbeddingOut}, errors=[404]
    )
    def get(self, request: Request, owner: str, project: str, text_id: str) -> Response:
        """Return one embedding; percent-encode its id in the address, slashes included or not."""
        found, row = selectors.embedding_for(
            actor_of(request), owner=owner, handle=project, text_id=text_id
        )
        return Response(shown(row, found))

    @operation(
        "Create or replace an embedding",
        name="replace_embedding",
        tag=TAG,
        request=ReplacedEmbeddingIn,
        answers={200: EmbeddingOut, 201: EmbeddingOut},
        errors=[404, 409],
        examples=[without_field(body_example("An embedding", _ITEM), "text_id")],
    )
    def put(self, request: Request, owner: str, project: str, text_id: str) -> Response:
        """Store one embedding under this id, replacing what is there."""
        created, found, row = services.put_embedding(
            actor=actor_of(request),
            owner=owner,
            handle=project,
            text_id=text_id,
            body=partial(read_body, request),
        )
        return Response(shown(row, found), status=201 if created else 200)

    @operation(
        "Delete an embedding",
        name="delete_embedding",
        tag=TAG,
        answers={200: Message},
        errors=[404],
    )
    def delete(self, request: Request, owner: str, project: str, text_id: str) -> Response:
        """Delete one embedding."""
        services.delete_embedding(
            actor=actor_of(request), owner=owner, handle=project, text_id=text_id
        )
        return Response({"message": f"Embedding '{text_id}' deleted."})


class Similar(Resource):
    """Searching: the selector looks whether the key is good, in one statement with the search."""

    authentication_classes = [UncheckedKeyAuthentication]
    permission_classes = [Public]

    def answer(self, request: Request, found: Found, results: Shaped | None = None) -> Response:
        """Return the ranking, and how it was found where that was asked for.

        results: of a search that asked for more than the nearest.
        """
        note_actor(request, found.actor)
        explanation = selectors.explanation_of(found) if self.query["explain"] else None
        answer = ranking(found, explanation)
        return Response(answer if results is None else {**answer, **shaped(results)})


class SimilarToVector(Similar):
    """Search by a vector of one's own."""

    queries = {"post": SimilarQuery}

    @operation(
        "Search by vector",
        name="search_by_vector",
        tag=SEARCH,
        request=SearchIn,
        answers={200: SimilarOut},
        errors=[404],
        query=SimilarQuery,
        description="Reads only: nothing is stored. Public projects can be searched without a key.",
        examples=[body_example("A vector", {"vector": [0.02, -0.11, 0.31]}), _HITS],
    )
    def post(self, request: Request, owner: str, project: str) -> Response:
        """Return the project's texts most similar to a vector."""
        where: Any = {"credentials": credentials_of(request), "owner": owner, "handle": project}
        body = selectors.once(partial(read_body, request))
        found = searches.shaped(
            **where,
            question=lambda dimensions: question_in(
                body(), dimensions, self.query, request.query_params
            ),
        )
        if found is not None:
            return self.answer(request, *found)
        return self.answer(
            request, selectors.similar_to_vector(**where, body=body, wanted=wanted(self.query))
        )


class SimilarToText(Similar):
    """Search by a text that the project holds."""

    queries = {"get": ShapedQuery}

    @operation(
        "Search by stored text",
        name="search_by_text",
        tag=SEARCH,
        answers={200: SimilarOut},
        errors=[404],
        query=ShapedQuery,
        description="Public projects can be searched without a key.",
        examples=[_HITS],
    )
    def get(self, request: Request, owner: str, project: str, text_id: str) -> Response:
        """Return the project's other texts most similar to this one."""
        where: Any = {"credentials": credentials_of(request), "owner": owner, "handle": project}
        what: Any = {"text_id": text_id, "wanted": wanted(self.query)}
        shape = shape_in(self.query)
        if shape is not None:
            return self.answer(request, *searches.shaped_like(**where, **what, shape=shape))
        return self.answer(request, selectors.similar_to(**where, **what))


class SanityCheck(Resource):
    """Looking for stored data that would be refused today."""

    @operation(
        "Check all stored data", name="check_stored_data", tag=ADMIN, answers={200: SanityOut}
    )
    def get(self, request: Request) -> Response:
        """Compare every embedding with its instance and metadata schema; for administrators."""
        report = selectors.sanity_report(actor_of(request))
        return Response(
            {
                "status": report.status,
                "total_projects": report.total_projects,
                "issues_count": len(report.issues),
                "warnings_count": len(report.warnings),
                "issues": report.issues,
                "warnings": report.warnings,
            }
        )


class Reset(Resource):
    """Deleting everything."""

    @operation(
        "Delete everything",
        name="delete_everything",
        tag=ADMIN,
        answers={204: None},
        description=(
            "Deletes all accounts with all they own; API standards, `_system` and its definitions "
            "stay. Refused unless the server runs with `ARMARIUM_ALLOW_RESET=true`."
        ),
    )
    def get(self, request: Request) -> Response:
        """Empty the server; for administrators of servers that allow it."""
        services.delete_everything(actor=actor_of(request))
        return Response(status=204)

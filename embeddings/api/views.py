"""Embeddings, similarity search, and the administrators' checks."""

from collections.abc import Callable
from functools import partial
from typing import Any

from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import (
    Public,
    PublicReading,
    PublicReadingUncheckedWriting,
    UncheckedKeyAuthentication,
    actor_of,
    credentials_of,
    note_actor,
)
from common.api import Resource, media_type_of, read_body, spool_body
from common.bodies import once
from common.entity_tags import Tagged
from common.schema import Message, answer_example, body_example, operation, without_field
from embeddings import embedding_jobs, searches, selectors, services
from embeddings.api.hybrid_serializers import ModeQuery, asked_in, fused_shown
from embeddings.api.job_serializers import JobOut
from embeddings.api.job_views import accepted, prefers_async
from embeddings.api.listing import ListingQuery, answer, place_of, preferred
from embeddings.api.serializers import (
    DEFAULT_THRESHOLD_FOR_WORDS,
    DeletedOut,
    EmbeddingOut,
    EmbeddingsOut,
    ReplacedEmbeddingIn,
    SanityOut,
    SimilarOut,
    UploadIn,
    UploadOut,
    ranking,
    shown,
    uploaded,
    wanted,
)
from embeddings.api.shaping_serializers import (
    ShapedQuery,
    ShapedSearchIn,
    ShapedWordsQuery,
    carrying,
    fused_shape_in,
    only_carrying,
    question_in,
    shape_in,
    shaped,
)
from embeddings.batches import check_words
from embeddings.hybrid import Asked, Mode
from embeddings.models import EmbeddingJob
from embeddings.selectors import Found, Wanted
from embeddings.services import Stored
from embeddings.shaping import Question, Shape, Shaped
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
_TEXTS = body_example(
    "Two texts to embed",
    {
        "embeddings": [
            {"text_id": "letter-1:p.3", "text": "My dear friend, …"},
            {"text_id": "letter-1:p.4", "text": "The garden is …", "metadata": {"author": "Ann"}},
        ]
    },
)
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


_FUSED = answer_example(
    "Two results in hybrid mode",
    {
        "user_handle": "alice",
        "project_handle": "letters",
        "results": [
            {
                "id": "letter-7:p.1",
                "similarity": 0.41,
                "score": 0.0164,
                "ranks": {"vector": 1, "text": 1},
                "highlight": "The <mark>garden</mark> &amp; the <mark>rose</mark>s …",
            },
            {
                "id": "letter-2:p.4",
                "similarity": 0.38,
                "score": 0.0113,
                "ranks": {"vector": 2, "text": None},
                "highlight": None,
            },
        ],
    },
)


class Embeddings(Resource):
    """The embeddings of a project."""

    queries = {"get": ListingQuery}
    bulk_media_types = MEDIA_TYPES

    # The policy decides who may read: the project may be public.
    authentication_classes = [UncheckedKeyAuthentication]
    permission_classes = [PublicReadingUncheckedWriting]

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
        answers={201: UploadOut, 202: JobOut},
        errors=[404, 409, 502, 504],
        description=(
            "Up to 5000 embeddings in JSON, up to 500 000 as JSON lines, an Arrow stream or "
            "Parquet, stored whole or not at all. A vector in JSON is a list of numbers, or the "
            "base64 text of little-endian float32 numbers. An id that is stored already, or that "
            "occurs twice, is a 409: delete it first, or replace it with PUT. The body may have "
            "`Content-Encoding: gzip` or `zstd`.\n\n"
            "A text without a vector is embedded by the project's LLM service. More texts than a "
            "request can wait for, those of a bulk format, and those sent with the header `Prefer: "
            "respond-async`, become a job: 202, with its address in the header `Location`."
        ),
        examples=[_UPLOAD, _TEXTS],
    )
    def post(self, request: Request, owner: str, project: str) -> Response:
        """Store new embeddings."""
        media_type = media_type_of(request)
        done: Stored | EmbeddingJob
        if media_type in MEDIA_TYPES:
            done = upload_file(
                credentials_of(request),
                owner=owner,
                handle=project,
                media_type=media_type,
                body=partial(spool_body, request),
                note=partial(note_actor, request),
            )
        else:
            done = embedding_jobs.upload(
                credentials_of(request),
                owner=owner,
                handle=project,
                body=partial(read_body, request, others=MEDIA_TYPES),
                in_background=prefers_async(request),
                note=partial(note_actor, request),
            )
        if isinstance(done, EmbeddingJob):
            return accepted(done, background=prefers_async(request))
        return Response(uploaded(done), status=201)

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


class OneEmbedding(Tagged):
    """One embedding."""

    # The policy decides who may read: the project may be public.
    permission_classes = [PublicReading]

    def hold(self, request: Request, owner: str, project: str, text_id: str) -> None:
        """Let nobody else change the embedding."""
        services.hold_embedding(
            actor=actor_of(request), owner=owner, handle=project, text_id=text_id
        )

    def present(self, request: Request, **address: str) -> Response:
        """Return the embedding, also where another view answers GET at its address."""
        return OneEmbedding.get(self, request, **address)

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
        errors=[404, 409, 502, 504],
        examples=[without_field(body_example("An embedding", _ITEM), "text_id")],
    )
    def put(self, request: Request, owner: str, project: str, text_id: str) -> Response:
        """Store one embedding under this id, replacing what is there; a text alone is embedded."""
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


class SimilarToQuery(Similar):
    """Search by a vector, or by words, of one's own."""

    queries = {"get": ShapedWordsQuery, "post": ModeQuery}

    @operation(
        "Search by words",
        name="search_by_words",
        tag=SEARCH,
        answers={200: SimilarOut},
        errors=[404, 409, 502, 504],
        query=ShapedWordsQuery,
        description=(
            "The words are embedded with the project's LLM service, once, unless `mode` is `text`. "
            "Public projects can be searched by words without a key where that service is built in."
        ),
        examples=[_HITS, _FUSED],
    )
    def get(self, request: Request, owner: str, project: str) -> Response:
        """Return the project's texts most similar to some words."""
        where: Any = {"credentials": credentials_of(request), "owner": owner, "handle": project}
        words = check_words(self.query["q"], "query.q")
        shape = shape_in(self.query)
        if (asked := asked_in(self.query)).mode is not Mode.VECTOR:
            only_carrying(shape, "query")
            return self.fused(request, where, words, asked, lambda: shape)
        if shape is not None:
            question = Question(_for_words(self.query), shape, text=words, location="query")
            known, [results] = searches.batch(**where, questions=lambda dimensions: [question])
            found = Found(known.actor, known.project, results.ranking)
            return self.answer(request, found, results)
        return self.answer(
            request,
            selectors.similar_to_words(**where, words=words, wanted=_for_words(self.query)),
        )

    @operation(
        "Search by vector or words",
        name="search_by_vector",
        tag=SEARCH,
        request=ShapedSearchIn,
        answers={200: SimilarOut},
        errors=[404, 409, 502, 504],
        query=ModeQuery,
        description=(
            "Send either `vector` or `text`; with `mode=text` a `text`, and with `mode=hybrid` a "
            "`text` and, where it is not to be embedded here, its `vector`. Nothing is stored in "
            "the project. Public projects can be searched without a key; by text where their LLM "
            "service is built in."
        ),
        examples=[
            body_example("A vector", {"vector": [0.02, -0.11, 0.31]}),
            body_example("Words", {"text": "who painted the Mona Lisa"}),
            _HITS,
            _FUSED,
        ],
    )
    def post(self, request: Request, owner: str, project: str) -> Response:
        """Return the project's texts most similar to a vector or to some words."""
        where: Any = {"credentials": credentials_of(request), "owner": owner, "handle": project}
        body = once(partial(read_body, request))
        if (asked := asked_in(self.query)).mode is not Mode.VECTOR:
            return self.fused(request, where, body, asked, lambda: fused_shape_in(body()))
        found = searches.shaped(
            **where,
            question=lambda dimensions: question_in(
                body(), dimensions, self.query, request.query_params
            ),
        )
        if found is not None:
            return self.answer(request, *found)
        return self.answer(
            request,
            selectors.similar_to_query(
                **where, body=body, wanted=wanted(self.query), for_words=_for_words(self.query)
            ),
        )

    def fused(
        self,
        request: Request,
        where: dict[str, Any],
        words: str | Callable[[], bytes],
        asked: Asked,
        shape: Callable[[], Shape | None],
    ) -> Response:
        """Return the texts that hold words, alone or beside those with similar vectors."""
        found, results = searches.fused(
            **where, words=words, asked=asked, wanted=wanted(self.query), shape=shape
        )
        note_actor(request, found.actor)
        explanation = None
        if self.query["explain"] and found.vectors is not None:
            explanation = selectors.explanation_of(found.vectors)
        answer = fused_shown(found, explanation)
        if results is not None:
            answer["results"] = carrying(answer["results"], results)
        return Response(answer)


def _for_words(query: dict[str, Any]) -> Wanted:
    return wanted(query, threshold=DEFAULT_THRESHOLD_FOR_WORDS)


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

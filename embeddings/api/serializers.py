"""Shapes of embeddings and searches.

The shapes of embeddings describe only: vectors are read by `embeddings.batches` and written from
numpy, number by number through neither.
"""

from typing import Any

import orjson
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from common.errors import FieldError, Invalid
from common.fields import QueryDecimal, QueryFlag, QueryNumber, Text
from common.query import DEFAULT_LIMIT, MAXIMUM_LIMIT, MAXIMUM_OFFSET, Query
from embeddings import filters
from embeddings.batches import MAXIMUM_ITEMS, MAXIMUM_WORDS
from embeddings.selectors import Exclusion, Explanation, Found, Plan, Row, Wanted
from embeddings.services import Stored
from projects.models import Project

DEFAULT_THRESHOLD = 0.5
# A question is seldom as similar to the text that answers it as two texts are.
DEFAULT_THRESHOLD_FOR_WORDS = 0.0
MAXIMUM_PATH_DEPTH = 32
MAXIMUM_FILTER_LENGTH = 20_000


class FilterText(Text):
    """A filter in a query string; what it says is read by `embeddings.filters`."""

    def __init__(self, *, needed: bool = False, **options: Any) -> None:
        super().__init__(
            required=needed,
            max_length=MAXIMUM_FILTER_LENGTH,
            help_text="Only texts whose metadata fulfils this JSON object of paths and values, "
            'such as `{"author": "Ann", "year": {"gte": 1790}}`.',
            **options,
        )


class SimilarQuery(Query):
    """Which part of the ranking a search returns."""

    count = QueryNumber(
        required=False,
        min_value=1,
        max_value=MAXIMUM_LIMIT,
        help_text=f"How many results to return at most (default {DEFAULT_LIMIT}). "
        "With `limit` too, the smaller counts.",
    )
    limit = QueryNumber(
        required=False,
        min_value=1,
        max_value=MAXIMUM_LIMIT,
        help_text="Another name for `count`.",
    )
    offset = QueryNumber(
        default=0, min_value=0, max_value=MAXIMUM_OFFSET, help_text="How many results to skip."
    )
    threshold = QueryDecimal(
        required=False,
        min_value=0,
        max_value=1,
        help_text=f"The least similarity of a result (default {DEFAULT_THRESHOLD}, which hides "
        f"weak ones; {DEFAULT_THRESHOLD_FOR_WORDS:g} in searches by words).",
    )
    metadata_path = Text(
        required=False,
        max_length=1000,
        help_text="With `metadata_value`: leave out texts whose metadata has that value at this "
        "path, such as `author` or `source.title`.",
    )
    metadata_value = Text(required=False, allow_blank=True, max_length=10_000)
    filter = FilterText()
    exact = QueryFlag(
        default=False,
        help_text="Whether to compare with every embedding, also where the project has an index.",
    )
    explain = QueryFlag(default=False, help_text="Whether to tell how the search was answered.")


class WordsQuery(SimilarQuery):
    """What a search by words looks for, and which part of the ranking it returns."""

    q = Text(
        max_length=MAXIMUM_WORDS,
        help_text="The words to search for, such as a question: embedded with the project's LLM "
        "service.",
    )


def wanted(
    query: dict[str, Any], *, threshold: float = DEFAULT_THRESHOLD, location: str = "query"
) -> Wanted:
    """Return what a search should return; raise Invalid for half an exclusion.

    threshold: where the query has none.
    location: where in the request these values are.
    """
    sizes = [query[name] for name in ("count", "limit") if name in query]
    return Wanted(
        limit=min(sizes, default=DEFAULT_LIMIT),
        offset=query["offset"],
        threshold=query.get("threshold", threshold),
        exclusion=_exclusion(query.get("metadata_path"), query.get("metadata_value"), location),
        filter=filter_in(query),
        exact=query["exact"],
    )


def filter_in(query: dict[str, Any]) -> filters.Condition | None:
    """Return the filter of a query string, None without one; raise Invalid."""
    given = query.get("filter")
    return None if given is None else filters.parse_text(given, "query.filter")


def _exclusion(path: str | None, value: str | None, location: str) -> Exclusion | None:
    if path is None and value is None:
        return None
    if path is None or value is None:
        given, missing = ("metadata_path", "metadata_value")[:: 1 if value is None else -1]
        raise _refused(f"{location}.{missing}", f"{given} needs {missing} beside it.")
    keys = tuple(path.split("."))
    if "" in keys or len(keys) > MAXIMUM_PATH_DEPTH:
        raise _refused(
            f"{location}.metadata_path",
            f"metadata_path must be 1 to {MAXIMUM_PATH_DEPTH} keys with dots between them.",
        )
    return Exclusion(keys, value)


def _refused(location: str, message: str) -> Invalid:
    return Invalid(message, errors=[FieldError(location, message)])


@extend_schema_field(
    {
        "oneOf": [
            {"type": "array", "items": {"type": "number", "format": "double"}, "minItems": 1},
            {"type": "string", "format": "byte", "minLength": 1},
        ],
        "description": "Numbers, or the base64 text of little-endian float32 numbers.",
    }
)
class VectorField(serializers.Field[Any, Any, Any, Any]):
    """A vector in either spelling."""


class EmbeddingIn(serializers.Serializer[Any]):
    """One embedding to store."""

    text_id = serializers.CharField(max_length=300)
    instance_handle = serializers.CharField(
        required=False,
        help_text="The project's own LLM service instance: `handle` or `owner/handle`. Needed with "
        "a vector.",
    )
    instance_owner = serializers.CharField(required=False)
    vector = VectorField(
        required=False, help_text="Left out, it is made of the text by the project's LLM service."
    )
    vector_dim = serializers.IntegerField(
        required=False,
        min_value=1,
        help_text="The instance's dimensions, and the vector's length. Needed with a vector.",
    )
    text = serializers.CharField(required=False, allow_null=True, allow_blank=True)
    metadata = serializers.DictField(
        required=False, allow_null=True, help_text="Checked against the project's metadata schema."
    )


class ReplacedEmbeddingIn(EmbeddingIn):
    """One embedding whose id the URL gives."""

    text_id = serializers.CharField(max_length=300, required=False)


class UploadIn(serializers.Serializer[Any]):
    """A batch of embeddings: stored whole or not at all."""

    embeddings = EmbeddingIn(many=True)


class UploadOut(serializers.Serializer[Any]):
    """What was stored."""

    message = serializers.CharField()
    uploaded = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text=f"The ids, in the order of the request; left out of more than {MAXIMUM_ITEMS}.",
    )
    ids = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="The same."
    )
    count = serializers.IntegerField()
    warnings = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="Only where the vectors seem to be of another model than those stored before.",
    )


class EmbeddingOut(serializers.Serializer[Any]):
    """A stored embedding."""

    text_id = serializers.CharField()
    user_handle = serializers.CharField(help_text="The project's owner.")
    project_handle = serializers.CharField()
    project_id = serializers.IntegerField()
    instance_handle = serializers.CharField()
    text = serializers.CharField()
    vector = serializers.ListField(child=serializers.FloatField())
    vector_dim = serializers.IntegerField()
    metadata = serializers.DictField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class EmbeddingsOut(serializers.Serializer[Any]):
    """A page of embeddings, in the order of their ids."""

    embeddings = EmbeddingOut(many=True)
    total_count = serializers.IntegerField(
        required=False, help_text="Left out after a cursor, where nobody counts."
    )
    limit = serializers.IntegerField()
    offset = serializers.IntegerField(required=False, help_text="Left out after a cursor.")
    has_more = serializers.BooleanField()
    next_cursor = serializers.CharField(
        required=False, help_text="Send it as `cursor` for the next page; there where more follow."
    )


class DeletedOut(serializers.Serializer[Any]):
    """How many embeddings are gone."""

    message = serializers.CharField()
    deleted_count = serializers.IntegerField()


class SearchIn(serializers.Serializer[Any]):
    """What to search for: a vector, or a text."""

    text = serializers.CharField(
        required=False,
        max_length=MAXIMUM_WORDS,
        help_text="Words, such as a question: embedded with the project's LLM service.",
    )
    vector = serializers.ListField(
        child=serializers.FloatField(),
        required=False,
        allow_empty=False,
        help_text="As many numbers as the project's LLM service has dimensions; or the base64 text "
        "of as many little-endian 32-bit floats.",
    )
    filter = serializers.DictField(
        required=False,
        allow_null=True,
        help_text="What the metadata must fulfil, such as "
        '`{"author": "Ann", "year": {"gte": 1790}}`.',
    )


class RanksOut(serializers.Serializer[Any]):
    """The places of a result in both rankings, from 1; null where it is in none."""

    vector = serializers.IntegerField(allow_null=True)
    text = serializers.IntegerField(allow_null=True)


class PassageOut(serializers.Serializer[Any]):
    """A text, and of it what was asked for in `fields`."""

    id = serializers.CharField(help_text="The text_id.")
    text = serializers.CharField(required=False)
    metadata = serializers.DictField(required=False)
    vector = serializers.ListField(child=serializers.FloatField(), required=False)


class ContextOut(serializers.Serializer[Any]):
    """The texts around a result, in their order."""

    before = PassageOut(many=True)
    after = PassageOut(many=True)


class HitOut(PassageOut):
    """One result."""

    similarity = serializers.FloatField(
        allow_null=True, help_text="Cosine similarity; null in searches by words alone."
    )
    score = serializers.FloatField(
        required=False,
        help_text="In `text` and `hybrid` mode: what the results are ranked by, the sum of `weight "
        "/ (rrf_k + rank)` over the rankings.",
    )
    ranks = RanksOut(required=False, help_text="In `text` and `hybrid` mode.")
    highlight = serializers.CharField(
        required=False,
        allow_null=True,
        help_text="In `text` and `hybrid` mode: the part of the text with most of the words, as "
        "HTML: they are in `<mark>`, everything else is escaped. null where it holds none.",
    )
    group = serializers.JSONField(
        required=False, help_text="With `group_by`: the value that it is grouped by."
    )
    context = ContextOut(  # type: ignore[assignment]
        required=False, help_text="With `context`."
    )


class ExplanationOut(serializers.Serializer[Any]):
    """How a search was answered."""

    plan = serializers.ChoiceField(
        choices=[each.value for each in Plan],
        help_text="`exact`: every embedding was compared. `bitmap`: every one that the filter's "
        "index found. `hnsw`: the candidates of the graph, and the growing part.",
    )
    complete = serializers.BooleanField(
        help_text="Whether every matching embedding was compared, so that no better one is missing."
    )
    fell_back = serializers.BooleanField(
        help_text="Whether the graph had too few matches, so that all were compared after all."
    )
    ef_search = serializers.IntegerField(
        allow_null=True, help_text="How many candidates the graph kept in sight."
    )
    compared = serializers.IntegerField(
        help_text="How many embeddings were ranked by their exact similarity, at most."
    )
    indexed = serializers.IntegerField(help_text="How many are in the graph.")
    growing = serializers.IntegerField(
        help_text="How many are beside it, where every search compares them."
    )


class SimilarOut(serializers.Serializer[Any]):
    """The results of a search, the most similar first."""

    user_handle = serializers.CharField(help_text="The project's owner.")
    project_handle = serializers.CharField()
    results = HitOut(many=True)
    complete = serializers.BooleanField(
        required=False,
        help_text="With `group_by`: whether no group and no text of one can be missing, as far as "
        "there are any.",
    )
    explain = ExplanationOut(required=False)


class SanityOut(serializers.Serializer[Any]):
    """The result of the sanity check."""

    status = serializers.ChoiceField(choices=["PASSED", "WARNING", "FAILED"])
    total_projects = serializers.IntegerField()
    issues_count = serializers.IntegerField()
    warnings_count = serializers.IntegerField()
    issues = serializers.ListField(child=serializers.CharField())
    warnings = serializers.ListField(child=serializers.CharField())


def shown(row: Row, project: Project) -> dict[str, Any]:
    """Return an embedding as EmbeddingOut describes it; its metadata is passed on unread."""
    return {
        "text_id": row.text_id,
        "user_handle": project.owner.handle,
        "project_handle": project.handle,
        "project_id": project.pk,
        "instance_handle": project.instance.handle,
        "text": row.text,
        "vector": row.vector,
        "vector_dim": len(row.vector),
        "metadata": orjson.Fragment(row.metadata),
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def uploaded(stored: Stored) -> dict[str, Any]:
    """Return the answer to an upload as UploadOut describes it."""
    ids = stored.text_ids
    answer: dict[str, Any] = {
        "message": f"{len(ids)} embedding(s) uploaded successfully",
        "count": len(ids),
    }
    if len(ids) <= MAXIMUM_ITEMS:
        answer |= {"uploaded": ids, "ids": ids}
    if stored.warnings:
        answer["warnings"] = stored.warnings
    return answer


def ranking(found: Found, explanation: Explanation | None = None) -> dict[str, Any]:
    """Return search results as SimilarOut describes them."""
    answer: dict[str, Any] = {
        "user_handle": found.project.owner.handle,
        "project_handle": found.project.handle,
        "results": [{"id": hit.text_id, "similarity": hit.similarity} for hit in found.hits],
    }
    if explanation is not None:
        answer["explain"] = explained(found, explanation)
    return answer


def explained(found: Found, explanation: Explanation) -> dict[str, Any]:
    """Return how a search was answered as ExplanationOut describes it."""
    return {
        "plan": found.ranking.plan,
        "complete": explanation.complete,
        "fell_back": found.ranking.fell_back,
        "ef_search": found.ranking.ef_search,
        "compared": explanation.compared,
        "indexed": explanation.sealed,
        "growing": explanation.growing,
    }

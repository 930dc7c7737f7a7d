"""Shapes of re-embeddings."""

from typing import Any

from rest_framework import serializers

from common.fields import QueryDecimal, QueryNumber, Text
from common.query import Query
from embeddings.batches import MAXIMUM_WORDS
from embeddings.models import ReembeddingState
from embeddings.reembedding import Comparison, Estimate, Report


class ReembeddingIn(serializers.Serializer[Any]):
    """With which instance to embed the project's texts."""

    instance_owner = Text(required=False, allow_null=True, help_text="Default: the owner.")
    instance_handle = Text()


class AsideOut(serializers.Serializer[Any]):
    """A model, and the instance that has it."""

    instance_owner = serializers.CharField()
    instance_handle = serializers.CharField()
    model = serializers.CharField()
    dimensions = serializers.IntegerField()


class ReembeddingProgressOut(serializers.Serializer[Any]):
    """How many of the project's embeddings have a vector aside."""

    total = serializers.IntegerField(help_text="The project's embeddings.")
    embedded = serializers.IntegerField(help_text="Those whose text has a vector aside.")
    remaining = serializers.IntegerField(help_text="Those whose text has none yet.")
    without_text = serializers.IntegerField(
        help_text="Those of the remaining ones that have no text; the switch is refused until they "
        "have one, or are deleted."
    )


class ReembeddingOut(serializers.Serializer[Any]):
    """A re-embedding: which vectors are aside, and how far it is."""

    user_handle = serializers.CharField(help_text="The project's owner.")
    project_handle = serializers.CharField()
    state = serializers.ChoiceField(choices=ReembeddingState.values)
    aside = AsideOut(
        help_text="Of the vectors aside: the new model before the switch, the former one after it."
    )
    progress = ReembeddingProgressOut()
    tokens = serializers.IntegerField(
        allow_null=True, help_text="Those that the provider counted; null where it does not."
    )
    last_error = serializers.CharField(allow_null=True, help_text="Why it did not go on.")
    created_at = serializers.DateTimeField()
    switched_at = serializers.DateTimeField(allow_null=True)
    rollback_until = serializers.DateTimeField(
        allow_null=True, help_text="Until when the former vectors are kept."
    )


def reembedding_shown(report: Report) -> dict[str, Any]:
    """Return a re-embedding as ReembeddingOut describes it."""
    row = report.reembedding
    return {
        "user_handle": report.project.owner.handle,
        "project_handle": report.project.handle,
        "state": row.state,
        "aside": {
            "instance_owner": row.instance.owner.handle,
            "instance_handle": row.instance.handle,
            "model": row.model.model,
            "dimensions": row.model.dimensions,
        },
        "progress": {
            "total": report.rows,
            "embedded": max(0, report.rows - report.lacking),
            "remaining": report.lacking,
            "without_text": report.blank,
        },
        "tokens": row.tokens,
        "last_error": row.last_error or None,
        "created_at": row.created_at,
        "switched_at": row.switched_at,
        "rollback_until": report.rollback_until,
    }


class EstimateQuery(Query):
    """What is known of the provider's price."""

    price_per_million_tokens = QueryDecimal(
        required=False, min_value=0, max_value=1_000_000, help_text="In whatever currency."
    )


class EstimateOut(serializers.Serializer[Any]):
    """What embedding a project's texts takes, before texts that were embedded already."""

    user_handle = serializers.CharField(help_text="The project's owner.")
    project_handle = serializers.CharField()
    embeddings = serializers.IntegerField()
    without_text = serializers.IntegerField(help_text="Those that cannot be embedded.")
    texts = serializers.IntegerField(help_text="Different texts: equal ones are embedded once.")
    characters = serializers.IntegerField(help_text="In these texts.")
    tokens = serializers.IntegerField(help_text="About; each model counts in its own way.")
    price = serializers.FloatField(
        allow_null=True, help_text="Of these tokens; null without price_per_million_tokens."
    )


def estimate_shown(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as EstimateOut describes it."""
    texts = estimate.texts
    return {
        "user_handle": estimate.project.owner.handle,
        "project_handle": estimate.project.handle,
        "embeddings": texts.rows,
        "without_text": texts.blank,
        "texts": texts.distinct,
        "characters": texts.characters,
        "tokens": estimate.tokens,
        "price": estimate.price,
    }


class ComparisonQuery(Query):
    """What to compare."""

    k = QueryNumber(
        default=10, min_value=1, max_value=100, help_text="How many of the nearest are looked for."
    )
    queries = QueryNumber(
        default=20,
        min_value=1,
        max_value=200,
        help_text="How many stored texts to search with. Fewer are compared where they would take "
        "longer than some seconds.",
    )


class QuestionsIn(serializers.Serializer[Any]):
    """With which questions to compare."""

    questions = serializers.ListField(
        child=Text(max_length=MAXIMUM_WORDS),
        min_length=1,
        max_length=100,
        help_text="What people ask the project, such as a list that you keep. Each model embeds "
        "them. Fewer are compared where they would take longer than some seconds.",
    )
    k = serializers.IntegerField(
        default=10, min_value=1, max_value=100, help_text="How many of the nearest are looked for."
    )


class AlikeOut(serializers.Serializer[Any]):
    """What both models find near one text, or for a question."""

    text_id = serializers.CharField(allow_null=True, help_text="null for a question.")
    question = serializers.CharField(allow_null=True, help_text="null for a stored text.")
    overlap = serializers.FloatField(help_text="The share that both find.")
    only_in_use = serializers.ListField(child=serializers.CharField())
    only_aside = serializers.ListField(child=serializers.CharField())


class ReembeddingComparisonOut(serializers.Serializer[Any]):
    """How far the vectors in use and those aside find the same."""

    user_handle = serializers.CharField(help_text="The project's owner.")
    project_handle = serializers.CharField()
    k = serializers.IntegerField()
    queries = serializers.IntegerField(help_text="How many texts were compared.")
    overlap = serializers.FloatField(
        allow_null=True, help_text="The mean share of the k nearest that both find."
    )
    same_first = serializers.FloatField(
        allow_null=True, help_text="The share of the texts whose nearest one is the same."
    )
    least_alike = AlikeOut(many=True, help_text="The texts that they disagree about most.")


def comparison_shown(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as ReembeddingComparisonOut describes it."""
    return {
        "user_handle": comparison.project.owner.handle,
        "project_handle": comparison.project.handle,
        "k": comparison.k,
        "queries": comparison.queries,
        "overlap": comparison.overlap,
        "same_first": comparison.same_first,
        "least_alike": [
            {
                "text_id": each.text_id,
                "question": each.question,
                "overlap": each.overlap,
                "only_in_use": each.only_in_use,
                "only_aside": each.only_aside,
            }
            for each in comparison.least_alike
        ],
    }

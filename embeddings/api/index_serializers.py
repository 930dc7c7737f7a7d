"""Shapes of indexes and of recall."""

import statistics
from collections.abc import Sequence
from typing import Any

from rest_framework import serializers

from common.fields import Choice, QueryNumber, WholeNumber
from common.query import Query
from embeddings.api.serializers import FilterText, filter_in
from embeddings.indexes import Report
from embeddings.languages import LANGUAGES
from embeddings.models import IndexState
from embeddings.selectors import Comparison, Plan, Wanted
from projects.models import Project


class JsonNumber(serializers.FloatField):
    """A JSON number; not a string, not a boolean."""

    default_error_messages = {"invalid": "This must be a number."}

    def to_internal_value(self, data: Any) -> float:
        """Return the number."""
        if isinstance(data, bool) or not isinstance(data, int | float):
            self.fail("invalid")
        return float(data)


class SettingsOut(serializers.Serializer[Any]):
    """How the graph is built and searched."""

    m = serializers.IntegerField(help_text="Links of each text in the graph.")
    ef_construction = serializers.IntegerField(help_text="Candidates while building.")
    ef_search = serializers.IntegerField(
        allow_null=True, help_text="Candidates of a search; null: measured by the target recall."
    )
    target_recall = serializers.FloatField(help_text="The recall@10 that searches should reach.")
    search_language = serializers.ChoiceField(
        choices=LANGUAGES,
        allow_null=True,
        help_text="What the texts are written in, for searching by words; null: words as they are, "
        "without an index on them.",
    )


class IndexIn(serializers.Serializer[Any]):
    """The settings to change; others stay as they are."""

    m = WholeNumber(min_value=2, max_value=100, required=False)
    ef_construction = WholeNumber(
        min_value=4, max_value=1000, required=False, help_text="At least twice m."
    )
    ef_search = WholeNumber(min_value=10, max_value=1000, required=False, allow_null=True)
    target_recall = JsonNumber(min_value=0.5, max_value=0.999, required=False)
    search_language = Choice(
        choices=LANGUAGES,
        required=False,
        allow_null=True,
        help_text="What the texts are written in, for searching by words (`mode=text`, `hybrid`): "
        "`simple` takes words as they are, `historical` does not tell u and v, i and j, w and vv "
        "apart and finds similar spellings; the others stem words. null: as `simple`, but without "
        "an index on the words.",
    )


class RowsOut(serializers.Serializer[Any]):
    """How many embeddings there are."""

    total = serializers.IntegerField()
    indexed = serializers.IntegerField(help_text="In the graph.")
    growing = serializers.IntegerField(
        help_text="Beside it, where every search compares them; moved into the graph by and by."
    )


class ProgressOut(serializers.Serializer[Any]):
    """How far the building of an index is."""

    phase = serializers.CharField()
    done = serializers.IntegerField()
    total = serializers.IntegerField(help_text="0 where it is not known.")


class IndexOut(serializers.Serializer[Any]):
    """The state and the settings of a project's index."""

    state = serializers.ChoiceField(choices=IndexState.values)
    rows = RowsOut()
    threshold_rows = serializers.IntegerField(
        help_text="From how many embeddings on this project has an index."
    )
    settings = SettingsOut()
    ef_search = serializers.IntegerField(
        allow_null=True, help_text="The candidates of a search now; null for exact search."
    )
    measured_recall = serializers.FloatField(
        allow_null=True, help_text="The recall@10 found when ef_search was measured."
    )
    progress = ProgressOut(allow_null=True)
    table_bytes = serializers.IntegerField(help_text="What the indexed embeddings take on disk.")
    index_bytes = serializers.IntegerField(help_text="What the graph takes on disk.")
    built_at = serializers.DateTimeField(allow_null=True)
    last_error = serializers.CharField(
        allow_null=True, help_text="Why the last attempt to build it failed."
    )


def index_shown(report: Report) -> dict[str, Any]:
    """Return an index as IndexOut describes it."""
    index, progress = report.index, report.progress
    shown = None
    if progress is not None:
        shown = {"phase": progress.phase, "done": progress.done, "total": progress.total}
    elif index.phase:
        shown = {"phase": index.phase, "done": 0, "total": 0}
    return {
        "state": index.state,
        "rows": {
            "total": report.sealed + report.growing,
            "indexed": report.sealed,
            "growing": report.growing,
        },
        "threshold_rows": report.threshold,
        "settings": {
            "m": index.m,
            "ef_construction": index.ef_construction,
            "ef_search": index.ef_search,
            "target_recall": index.target_recall,
            "search_language": index.search_language,
        },
        "ef_search": report.ef_search,
        "measured_recall": index.measured_recall,
        "progress": shown,
        "table_bytes": report.table_bytes,
        "index_bytes": report.graph_bytes,
        "built_at": index.built_at,
        "last_error": index.last_error or None,
    }


class RecallQuery(Query):
    """What to compare."""

    k = QueryNumber(
        default=10, min_value=1, max_value=100, help_text="How many of the nearest are looked for."
    )
    queries = QueryNumber(
        default=50,
        min_value=1,
        max_value=200,
        help_text="How many stored vectors to search with; more tell more precisely. Fewer are "
        "compared where they would take longer than some seconds.",
    )
    ef_search = QueryNumber(
        required=False,
        min_value=10,
        max_value=1000,
        help_text="Candidates to try out, instead of the project's setting.",
    )
    filter = FilterText()


def recall_wanted(query: dict[str, Any]) -> Wanted:
    """Return what the compared searches have in common; raise Invalid for the filter."""
    return Wanted(
        limit=query["k"],
        offset=0,
        threshold=-1.0,
        filter=filter_in(query),
        ef_search=query.get("ef_search"),
    )


class LatencyOut(serializers.Serializer[Any]):
    """How long searches took in the database, in milliseconds."""

    p50 = serializers.FloatField()
    p95 = serializers.FloatField()


class RecallOut(serializers.Serializer[Any]):
    """How searches through the index compare with exact ones."""

    user_handle = serializers.CharField(help_text="The project's owner.")
    project_handle = serializers.CharField()
    k = serializers.IntegerField()
    queries = serializers.IntegerField(help_text="How many searches were compared.")
    recall = serializers.FloatField(
        allow_null=True,
        help_text="The mean share of the k nearest that were found; null without any to find.",
    )
    confidence_interval = serializers.ListField(
        child=serializers.FloatField(allow_null=True),
        help_text="Between which values the recall lies with 95 % confidence.",
    )
    plans = serializers.DictField(
        child=serializers.IntegerField(), help_text="How many searches took which plan."
    )
    index_ms = LatencyOut(allow_null=True, help_text="Latency through the index.")
    exact_ms = LatencyOut(allow_null=True, help_text="Latency of exact searches.")


def comparison_shown(project: Project, comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as RecallOut describes it."""
    return {
        "user_handle": project.owner.handle,
        "project_handle": project.handle,
        "k": comparison.k,
        "queries": comparison.queries,
        "recall": comparison.recall,
        "confidence_interval": [comparison.low, comparison.high],
        "plans": {str(Plan(plan)): count for plan, count in comparison.plans.items()},
        "index_ms": _latency(comparison.index_ms),
        "exact_ms": _latency(comparison.exact_ms),
    }


def _latency(milliseconds: Sequence[float]) -> dict[str, float] | None:
    if not milliseconds:
        return None
    ordered = sorted(milliseconds)
    return {
        "p50": round(statistics.median(ordered), 3),
        "p95": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 3),
    }

"""Shapes of what a filter does besides searching: counting, facets, deleting and changing."""

from typing import Any

import orjson
from rest_framework import serializers

from common.fields import Flag, JsonObject, QueryNumber, Text
from common.query import DEFAULT_LIMIT, MAXIMUM_LIMIT, Query
from embeddings.api.serializers import FilterText
from embeddings.changes import Changed
from embeddings.filters import Path, parse_path
from embeddings.selectors import Facets
from projects.models import Project

_FILTER = "What the metadata must fulfil; see `filter` of the list."


class CountQuery(Query):
    """What to count."""

    filter = FilterText(needed=True)


class CountOut(serializers.Serializer[Any]):
    """How many embeddings a filter keeps."""

    user_handle = serializers.CharField(help_text="The project's owner.")
    project_handle = serializers.CharField()
    count = serializers.IntegerField()


def count_shown(project: Project, count: int) -> dict[str, Any]:
    """Return a count as CountOut describes it."""
    return {**_name(project), "count": count}


class FacetsQuery(Query):
    """Which values to count."""

    path = Text(
        max_length=1000,
        help_text="Where in the metadata, such as `author` or `source.year`.",
    )
    filter = FilterText()
    limit = QueryNumber(
        default=DEFAULT_LIMIT,
        min_value=1,
        max_value=MAXIMUM_LIMIT,
        help_text="How many values to return at most: the most frequent.",
    )


def path_in(query: dict[str, Any]) -> Path:
    """Return the path of a query string; raise Invalid."""
    return parse_path(query["path"], "query.path")


class FacetOut(serializers.Serializer[Any]):
    """One value and how often it occurs."""

    value = serializers.JSONField(help_text="A string, a number, true or false.")
    count = serializers.IntegerField(help_text="In how many embeddings.")


class FacetsOut(serializers.Serializer[Any]):
    """The values at a path of the metadata, the most frequent first."""

    user_handle = serializers.CharField(help_text="The project's owner.")
    project_handle = serializers.CharField()
    path = serializers.CharField()
    facets = FacetOut(many=True)
    distinct_values = serializers.IntegerField(help_text="How many values there are in all.")
    without_value = serializers.IntegerField(
        help_text="How many embeddings have no value there: the key is missing, null, an empty "
        "list or an object."
    )
    total_count = serializers.IntegerField(help_text="How many embeddings the filter keeps.")


def facets_shown(project: Project, path: str, found: Facets) -> dict[str, Any]:
    """Return facets as FacetsOut describes them."""
    return {
        **_name(project),
        "path": path,
        "facets": [
            {"value": orjson.Fragment(value), "count": count} for value, count in found.values
        ],
        "distinct_values": found.distinct,
        "without_value": found.without,
        "total_count": found.total,
    }


def _name(project: Project) -> dict[str, str]:
    return {"user_handle": project.owner.handle, "project_handle": project.handle}


class DeletionIn(serializers.Serializer[Any]):
    """What to delete."""

    filter = JsonObject(help_text=_FILTER)
    dry_run = Flag(default=False, help_text="Whether to count what would be deleted, and no more.")


class DeletionOut(serializers.Serializer[Any]):
    """What was deleted."""

    message = serializers.CharField()
    matched_count = serializers.IntegerField(help_text="How many embeddings the filter keeps.")
    deleted_count = serializers.IntegerField(help_text="0 with `dry_run`.")


def deletion_shown(changed: Changed) -> dict[str, Any]:
    """Return what was deleted as DeletionOut describes it."""
    what = f"{changed.changed} of {changed.matched} matching embedding(s)"
    return {
        "message": f"{what} of project '{changed.project}' deleted.",
        "matched_count": changed.matched,
        "deleted_count": changed.changed,
    }


class UpdateIn(serializers.Serializer[Any]):
    """What to change."""

    filter = JsonObject(help_text=_FILTER)
    metadata = JsonObject(
        help_text="Merged into the metadata of each (RFC 7396): null removes a key, objects are "
        "merged, all else is replaced."
    )
    dry_run = Flag(default=False, help_text="Whether to check and count, and change nothing.")


class UpdateOut(serializers.Serializer[Any]):
    """What was changed."""

    message = serializers.CharField()
    matched_count = serializers.IntegerField(help_text="How many embeddings the filter keeps.")
    updated_count = serializers.IntegerField(
        help_text="How many of them were not as wanted already; 0 with `dry_run`."
    )


def update_shown(changed: Changed) -> dict[str, Any]:
    """Return what was changed as UpdateOut describes it."""
    what = f"{changed.changed} of {changed.matched} matching embedding(s)"
    return {
        "message": f"{what} of project '{changed.project}' updated.",
        "matched_count": changed.matched,
        "updated_count": changed.changed,
    }

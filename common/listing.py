"""Lists of the Projects API: which part, in which order, and which rows."""

from collections.abc import Mapping
from typing import Any, TypeVar

from django.db.models import Model, Q, QuerySet
from django.http import QueryDict

from common import metadata_filter
from common.fields import Choice, QueryNumber
from common.query import MAXIMUM_OFFSET, Paging

DEFAULT_LIMIT = 100
MAXIMUM_LIMIT = 999

M = TypeVar("M", bound=Model)


class Listing(Paging):
    """What every list takes. Equal times are ordered by id."""

    limit = QueryNumber(
        default=DEFAULT_LIMIT,
        min_value=1,
        max_value=MAXIMUM_LIMIT,
        help_text="How many entries to return at most.",
    )
    sort_by = Choice(
        choices=["created_at", "updated_at"],
        default="created_at",
        help_text="The time to sort by.",
    )
    direction = Choice(choices=["asc", "desc"], default="desc", help_text="Oldest or newest first.")


class FilteredListing(Listing):
    """A list that can be narrowed by metadata; `read` adds the `condition` on the rows."""

    @classmethod
    def read(cls, given: QueryDict) -> dict[str, Any]:
        """Return the values with their defaults; raise Invalid naming what is wrong."""
        filters = [each for each in given.lists() if _is_filter(str(each[0]))]
        others = given.copy()
        for name, _ in filters:
            del others[name]
        query = super().read(others)
        query["condition"] = metadata_filter.condition(
            (str(name), [str(value) for value in values]) for name, values in filters
        )
        return query


def listed(rows: QuerySet[M], query: Mapping[str, Any]) -> list[M]:
    """Return the part of the rows that a `Listing` asks for: one query."""
    rows = rows.filter(query.get("condition", Q()))
    sign = "-" if query["direction"] == "desc" else ""
    ordered = rows.order_by(f"{sign}{query['sort_by']}", f"{sign}uuid")
    if query["offset"] > MAXIMUM_OFFSET - MAXIMUM_LIMIT:
        # The sum would not fit into what PostgreSQL counts with.
        return []
    return list(ordered[query["offset"] : query["offset"] + query["limit"]])


def _is_filter(name: str) -> bool:
    return name == metadata_filter.PARAMETER or name.startswith(metadata_filter.PREFIX)

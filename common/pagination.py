"""The one envelope of every list."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.db.models import Model, QuerySet

T = TypeVar("T")
M = TypeVar("M", bound=Model)


@dataclass(frozen=True)
class Page(Generic[T]):
    """A part of a list, with what a client needs to ask for the next one."""

    items: Sequence[T]
    total_count: int
    limit: int
    offset: int

    @property
    def has_more(self) -> bool:
        """Whether entries follow after this page."""
        return self.offset + len(self.items) < self.total_count

    def envelope(self, key: str, items: Any) -> dict[str, Any]:
        """Return the answer's body: the rendered items under their key, and the counts."""
        return {
            key: items,
            "total_count": self.total_count,
            "limit": self.limit,
            "offset": self.offset,
            "has_more": self.has_more,
        }


def page_of(rows: QuerySet[M], *, limit: int, offset: int) -> Page[M]:
    """Return one page of the rows, which must be in a total order: two queries."""
    total = rows.count()
    items = list(rows[offset : offset + limit]) if offset < total else []
    return Page(items, total, limit, offset)

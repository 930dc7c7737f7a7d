"""The one envelope of every list, and cursors: where to go on, whatever came or went meanwhile."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.db.models import Model, QuerySet

from common.errors import FieldError, Invalid

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


# What a cursor begins with; another kind of cursor would get another letter.
_KIND = b"a"


def cursor_after(key: str) -> str:
    """Return an opaque, URL-safe cursor for the rest of a list after a key."""
    return base64.urlsafe_b64encode(_KIND + key.encode()).rstrip(b"=").decode()


def key_of(cursor: str) -> str:
    """Return the key of a cursor that `cursor_after` made; raise Invalid for any other text."""
    try:
        packed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        key = packed.removeprefix(_KIND).decode()
    except (binascii.Error, ValueError):
        key = ""
    # Compared with what we make, which also refuses the many spellings of the same bytes.
    if not key or "\x00" in key or cursor != cursor_after(key):
        message = "cursor is none that a list returned as next_cursor; start without one."
        raise Invalid(message, errors=[FieldError("query.cursor", message)])
    return key

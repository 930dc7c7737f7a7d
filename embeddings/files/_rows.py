"""Rows on their way from a file into the store."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import orjson

from common.errors import DomainError, Invalid
from embeddings import batches
from embeddings.batches import Batch, Expected, Item
from embeddings.columns import Matrix


class Unreadable(Invalid):
    """The file is missing, of another format, or damaged from some place on."""


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be stored.

    row: its number in the file, the first is 1.
    text_id: "" where it could not be read.
    """

    row: int
    text_id: str
    reason: str


@dataclass(frozen=True)
class Rows:
    """Some consecutive rows of a file.

    batch: those whose shape is right; numbers: where each of them stood in the file.
    fraction: how much of the file has been read, where that can be told.
    """

    batch: Batch
    numbers: list[int]
    rejected: list[Rejected]
    fraction: float | None


class Row(Protocol):
    """What a writer takes."""

    @property
    def text_id(self) -> str: ...
    @property
    def vector(self) -> Matrix: ...
    @property
    def text(self) -> str: ...
    @property
    def metadata(self) -> bytes: ...


class DatedRow(Row, Protocol):
    """The same with its times."""

    @property
    def created_at(self) -> datetime: ...
    @property
    def updated_at(self) -> datetime: ...


class Writer(Protocol):
    """Writes rows; `close` completes the file and leaves the stream open."""

    def write(self, rows: Iterable[Row]) -> None: ...
    def close(self) -> None: ...


class Collector:
    """Gathers rows until they make a batch."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._clear()

    def __len__(self) -> int:
        return len(self._items) + len(self._rejected)

    def add(self, number: int, given: dict[str, Any]) -> None:
        """Add a row, given as the values of its fields."""
        try:
            item = batches.check_row(given, self._expected)
        except Invalid as error:
            text_id = given.get("text_id")
            self.reject(number, text_id if isinstance(text_id, str) else "", error)
        else:
            self._items.append(item)
            self._numbers.append(number)

    def reject(self, number: int, text_id: str, error: DomainError) -> None:
        """Add a row that cannot be stored."""
        self._rejected.append(Rejected(number, text_id, _reason(error)))

    def take(self, fraction: float | None) -> Rows:
        """Return what has been gathered, and start anew."""
        items, numbers = self._items, self._numbers
        batch = _batch(items, self._expected.dimensions)
        problems = batches.problems_of(batch)
        for row, problem in problems.items():
            self._rejected.append(Rejected(numbers[row], items[row].text_id, problem))
        kept = [row for row in range(len(items)) if row not in problems]
        rejected = sorted(self._rejected, key=lambda each: each.row)
        batch = batch.part(kept)
        self._clear()
        return Rows(batch, [numbers[row] for row in kept], rejected, fraction)

    def _clear(self) -> None:
        self._items: list[Item] = []
        self._numbers: list[int] = []
        self._rejected: list[Rejected] = []


def _batch(items: list[Item], dimensions: int) -> Batch:
    vectors = np.zeros((len(items), dimensions), dtype=np.float32)
    for row, item in enumerate(items):
        if item.vector is not None:
            vectors[row] = item.vector
    return Batch(
        vectors,
        [each.text_id for each in items],
        [each.text for each in items],
        [each.metadata for each in items],
        [orjson.dumps(each.metadata) if each.metadata else b"{}" for each in items],
        [row for row, each in enumerate(items) if each.vector is None],
    )


def _reason(error: DomainError) -> str:
    """Return the sentence for one row: the field is named, the row is not."""
    if not error.errors:
        return error.detail
    first = error.errors[0]
    field = first.location.removeprefix("row").removeprefix(".")
    named = not field or first.message.startswith(field.partition(".")[0])
    return first.message if named else f"{field}: {first.message}"

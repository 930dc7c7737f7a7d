"""What the store takes and returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from embeddings.filters import Condition, Path

Matrix = npt.NDArray[np.float32]

GROWING_SEGMENT = 0


@dataclass(frozen=True)
class Row:
    """One stored embedding.

    vector: float32 of shape (dimensions,).
    metadata: UTF-8 JSON text of an object.
    """

    text_id: str
    instance_id: int
    vector: Matrix
    text: str
    metadata: bytes
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Hit:
    """One result of a search; similarity is the cosine, from -1 to 1."""

    text_id: str
    similarity: float


@dataclass(frozen=True)
class Exclusion:
    """Leaves out rows whose metadata has this text at this path, split at its dots.

    Numbers and booleans compare by their JSON text; white space around either side is ignored.
    """

    path: tuple[str, ...]
    value: str


@dataclass(frozen=True)
class Wanted:
    """Which part of the ranking a search returns.

    filter: what metadata must fulfil, None for nothing.
    left_out: what metadata must not fulfil; expected of few rows, where a filter keeps few.
    without: the ids of rows to leave out.
    exact: compare with every row, whatever index there is.
    ef_search: candidates that the graph keeps in sight, instead of the project's own setting.
    """

    limit: int
    offset: int
    threshold: float
    exclusion: Exclusion | None = None
    filter: Condition | None = None
    left_out: Condition | None = None
    without: tuple[str, ...] = ()
    exact: bool = False
    ef_search: int | None = None

    @property
    def last(self) -> int:
        """Return the rank of the last result."""
        return self.limit + self.offset


@dataclass(frozen=True)
class Order:
    """How a list of embeddings is sorted: by a value in the metadata, then by text id.

    path: None for text ids alone. Embeddings without a plain value there come last either way.
    """

    path: Path | None = None
    descending: bool = False


class Plan(StrEnum):
    """How the sealed part of a project was searched; the growing part is always searched exactly.

    EXACT: every row was compared. HNSW: the graph's candidates were. BITMAP: the filter's matches
    were, found by its own index.
    """

    EXACT = "exact"
    HNSW = "hnsw"
    BITMAP = "bitmap"


@dataclass(frozen=True)
class Ranking:
    """The results of a search, the best first, and how they were found.

    ef_search: how many candidates the graph kept in sight; None without a graph.
    candidates: how many of the sealed rows were ranked by their exact similarity; None for all.
    complete: whether those were all that match.
    fell_back: whether the graph had too few matches, so that every row was compared after all.
    segment: the sealed segment that was searched, None for none.
    """

    hits: list[Hit]
    plan: Plan
    segment: int | None = None
    ef_search: int | None = None
    candidates: int | None = None
    complete: bool = True
    fell_back: bool = False


class TextIdExists(Exception):
    """Some of the ids are stored already.

    text_ids: those of them that were found, some at least.
    """

    def __init__(self, text_ids: Sequence[str]) -> None:
        super().__init__("These text ids are stored already.")
        self.text_ids = tuple(text_ids)

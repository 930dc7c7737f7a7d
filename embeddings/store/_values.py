"""What the store takes and returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
from psycopg import sql

Matrix = npt.NDArray[np.float32]

GROWING_SEGMENT = 0
GROWING = sql.Identifier("embeddings_embedding_growing")


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
    """Which part of the ranking a search returns."""

    limit: int
    offset: int
    threshold: float
    exclusion: Exclusion | None = None


class TextIdExists(Exception):
    """Some of the ids are stored already.

    text_ids: those of them that were found, some at least.
    """

    def __init__(self, text_ids: Sequence[str]) -> None:
        super().__init__("These text ids are stored already.")
        self.text_ids = tuple(text_ids)

"""What a map that was made holds, and which of its texts lie where."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson
import zstandard

from embeddings.models import Projection
from embeddings.projections._axes import Matrix

Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Map:
    """A map that was made.

    text_ids: in their order. points: where each lies, float32 of shape (n, 2).
    """

    projection: Projection
    text_ids: Sequence[str]
    points: Matrix

    def place_of(self, text_id: str) -> int | None:
        """Return which of the texts it is, None where it is not in the map."""
        try:
            return self.text_ids.index(text_id)
        except ValueError:
            return None


def map_of(projection: Projection) -> Map:
    """Return what was made: one query where its points were not read yet."""
    text_ids = orjson.loads(zstandard.decompress(projection.text_ids))
    points = np.frombuffer(projection.points, dtype="<f4").reshape(-1, 2)
    return Map(projection, text_ids, points)


def inside(points: Matrix, corners: Sequence[tuple[float, float]]) -> Places:
    """Return which points are inside a polygon, by the even-odd rule, in order.

    The browser does the same arithmetic, so that it marks those that are listed.
    """
    x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
    odd = np.zeros(len(points), dtype=bool)
    before_x, before_y = corners[-1]
    for corner_x, corner_y in corners:
        if corner_y != before_y:
            crosses = (corner_y > y) != (before_y > y)
            edge = (before_x - corner_x) * (y - corner_y) / (before_y - corner_y) + corner_x
            odd ^= crosses & (x < edge)
        before_x, before_y = corner_x, corner_y
    return np.flatnonzero(odd)


def around(points: Matrix, place: int, count: int) -> Places:
    """Return the points nearest to one on the map, itself first."""
    distances = np.square(points - points[place], dtype=np.float64).sum(axis=1)
    distances[place] = -1
    return np.argsort(distances, kind="stable")[:count]

"""Principal axes of many vectors, in bounded memory."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

# The axes are found from so many numbers (64 MB); what comes after them is only laid along them.
FITTED_NUMBERS = 16 * 1024**2
# More directions than wanted are followed, so that the wanted ones are found in few rounds.
_SPARE = 8
_ROUNDS = 8


@dataclass(frozen=True)
class Axes:
    """The directions in which vectors differ most.

    mean: float32 of shape (dimensions,). directions: of shape (dimensions, k), at right angles.
    explained: which share of the variance each shows, from 0 to 1.
    """

    mean: Matrix
    directions: Matrix
    explained: tuple[float, ...]

    def lay(self, vectors: Matrix) -> Matrix:
        """Return where vectors of length 1 lie: float32 of shape (n, k)."""
        return np.asarray((vectors - self.mean) @ self.directions, dtype=np.float32)


def principal_axes(vectors: Matrix, count: int) -> Axes:
    """Return the principal axes of vectors, by randomized subspace iteration (Halko et al., 2011).

    vectors: float32 of shape (n, dimensions), n ≥ 1. Where there are fewer directions than
    wanted, the others are zero. The same vectors always have the same axes, with the same signs.
    """
    dimensions = vectors.shape[1]
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = vectors - mean
    total = float(np.square(centred, dtype=np.float32).sum(dtype=np.float64))
    width = min(count + _SPARE, *vectors.shape)
    directions = np.random.default_rng(0).standard_normal((dimensions, width), dtype=np.float32)
    for _ in range(_ROUNDS):
        directions, _ = np.linalg.qr(centred.T @ (centred @ directions))
    # Turned so that each is the next best one.
    _, strengths, turn = np.linalg.svd(centred @ directions, full_matrices=False)
    kept = min(count, width)
    found = np.zeros((dimensions, count), dtype=np.float32)
    found[:, :kept] = directions @ turn[:kept].T
    largest = np.abs(found).argmax(axis=0)
    signs = np.where(found[largest, np.arange(count)] < 0, np.float32(-1), np.float32(1))
    shares = np.zeros(count)
    if total > 0:
        shares[:kept] = np.square(strengths[:kept], dtype=np.float64) / total
    return Axes(mean, found * signs, tuple(float(min(1.0, share)) for share in shares))


def of_length_one(vectors: Matrix) -> Matrix:
    """Return the directions of vectors; none of them is zero."""
    # Divided by the largest number first: squares of very large or small ones have no float32.
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    scaled = vectors / np.where(largest > 0, largest, 1)
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit: Matrix = (scaled / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return unit


def laid_out(
    parts: Iterable[tuple[list[str], Matrix]], count: int
) -> Iterator[tuple[list[str], Matrix, Axes]]:
    """Lay vectors along their principal axes, reading them once.

    parts: ids and vectors, in random order: the axes are those of the first ones, as many as
    FITTED_NUMBERS allows, which are held until then.
    Returns ids, where they lie, and the axes, for some at a time.
    """
    first: list[tuple[list[str], Matrix]] = []
    held = 0
    axes: Axes | None = None
    for text_ids, vectors in parts:
        unit = of_length_one(vectors)
        if axes is not None:
            yield text_ids, axes.lay(unit), axes
            continue
        first.append((text_ids, unit))
        held += unit.size
        if held >= FITTED_NUMBERS:
            axes = _fitted(first, count)
            yield from ((ids, axes.lay(each), axes) for ids, each in first)
            first.clear()
    if axes is None and held:
        axes = _fitted(first, count)
        yield from ((ids, axes.lay(each), axes) for ids, each in first)


def _fitted(parts: Sequence[tuple[list[str], Matrix]], count: int) -> Axes:
    return principal_axes(np.concatenate([each for _, each in parts]), count)

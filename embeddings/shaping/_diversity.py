"""Maximal marginal relevance: results that are like the query and unlike one another.

Carbonell and Goldstein, The use of MMR, diversity-based reranking for reordering documents and
producing summaries, SIGIR 1998.
"""

import numpy as np
from numpy.typing import NDArray

from embeddings.columns import Matrix

_DIGITS = 6


def diverse(
    similarities: NDArray[np.float64], vectors: Matrix, *, diversity: float, count: int
) -> list[int]:
    """Return the rows to take, in order: each has the greatest marginal relevance of those left.

    That is (1 - diversity) * similarity to the query - diversity * the greatest similarity to a row
    taken before; the paper's lambda is 1 - diversity. A longer list begins with the shorter ones.
    similarities: to the query, of shape (n,). vectors: of shape (n, dimensions).
    """
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    relevance = (1 - diversity) * similarities
    nearest_taken = np.zeros(len(similarities))
    left = np.ones(len(similarities), dtype=bool)
    taken: list[int] = []
    while len(taken) < min(count, len(similarities)):
        marginal = np.where(left, relevance - diversity * nearest_taken, -np.inf)
        # Of equals, but for what 32 bits tell of them, the first: the one that is more similar.
        best = int(np.argmax(np.round(marginal, _DIGITS)))
        to_best = units @ units[best]
        nearest_taken = np.maximum(nearest_taken, to_best) if taken else to_best
        left[best] = False
        taken.append(best)
    return taken

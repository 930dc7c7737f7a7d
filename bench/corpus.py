"""Real texts with real vectors, held-out queries, and who is really nearest."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

Matrix = np.ndarray[Any, np.dtype[np.float32]]
TOP = 10

_ROOT = Path(__file__).resolve().parent.parent
DATA = _ROOT / ".." / "shared" / "data"
_DEMO = _ROOT / "embeddings" / "demo" / "wikipedia_vital.parquet"
_DEMO_QUERIES = 400


class NoData(Exception):
    """The data that a benchmark needs is not there."""


@dataclass(frozen=True)
class Corpus:
    """Documents and held-out queries.

    metadata: JSON text of an object, for each document.
    truth: for each query the ids of the nearest documents, the best first.
    """

    name: str
    ids: Sequence[str]
    texts: Sequence[str]
    metadata: Sequence[str]
    vectors: Matrix
    queries: Matrix
    truth: Sequence[Sequence[str]]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dimensions(self) -> int:
        """Return the length of the vectors."""
        return int(self.vectors.shape[1])

    def slice(self, first: int, end: int) -> "Corpus":
        """Return some of the documents; the truth is that of the whole."""
        return replace(
            self,
            ids=self.ids[first:end],
            texts=self.texts[first:end],
            metadata=self.metadata[first:end],
            vectors=self.vectors[first:end],
        )

    def lifted(self, dimensions: int) -> "Corpus":
        """Return the same corpus in more dimensions, with every cosine kept.

        The vectors are multiplied by a fixed matrix whose rows are orthonormal.
        """
        gaussian = np.random.default_rng(1536).standard_normal((dimensions, self.dimensions))
        rotation = np.linalg.qr(gaussian)[0].T.astype(np.float32)
        return replace(
            self,
            name=f"{self.name} lifted",
            vectors=self.vectors @ rotation,
            queries=self.queries @ rotation,
        )


def wordnet(folder: Path, rows: int) -> Corpus:
    """Return the first rows of the WordNet glosses; they are in random order."""
    documents = folder / "wordnet_glosses.parquet"
    if not documents.exists():
        raise NoData(
            f"{documents} is not there. Give the folder with --data, or use the demo that comes"
            " with the program: --corpus demo."
        )
    table = pq.read_table(documents)
    whole = len(table) <= rows
    corpus = _corpus("wordnet", table.slice(0, rows), _vectors(table.slice(0, rows)))
    corpus = replace(
        corpus, queries=_vectors(pq.read_table(folder / "wordnet_glosses_queries.parquet"))
    )
    if whole:
        given: Any = pq.read_table(folder / "wordnet_glosses_groundtruth.parquet")["text_id"]
        return replace(corpus, truth=[ids[:TOP] for ids in given.to_pylist()])
    return with_truth(corpus)


def demo(rows: int) -> Corpus:
    """Return the demo's Wikipedia summaries; its last ones are held out as queries."""
    table = pq.read_table(_DEMO)
    documents = table.slice(0, min(rows, len(table) - _DEMO_QUERIES))
    corpus = _corpus("demo", documents, _vectors(documents))
    held_out = table.slice(len(table) - _DEMO_QUERIES)
    return with_truth(replace(corpus, queries=_vectors(held_out)))


def with_truth(corpus: Corpus) -> Corpus:
    """Return the corpus with its truth computed."""
    found = nearest(corpus.vectors, corpus.queries)
    return replace(corpus, truth=[[corpus.ids[row] for row in rows] for rows in found])


def similarities(vectors: Matrix, queries: Matrix) -> Matrix:
    """Return the cosine of every query (rows) with every vector (columns)."""
    return _normed(queries) @ _normed(vectors).T


def nearest(vectors: Matrix, queries: Matrix, count: int = TOP) -> np.ndarray[Any, Any]:
    """Return the rows of the nearest vectors of each query, the best first, by comparing all."""
    count = min(count, len(vectors))
    found = []
    for first in range(0, len(queries), 100):
        cosines = similarities(vectors, queries[first : first + 100])
        best = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(cosines, best, axis=1), axis=1, kind="stable")
        found.append(np.take_along_axis(best, order, axis=1))
    return np.concatenate(found)


def recall(found: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> float:
    """Return which share of what should be found was found, over all queries."""
    hits = sum(len(set(one) & set(other)) for one, other in zip(found, truth, strict=True))
    return hits / sum(len(other) for other in truth)


def _corpus(name: str, table: Any, vectors: Matrix) -> Corpus:
    return Corpus(
        name=name,
        ids=table["text_id"].to_pylist(),
        texts=table["text"].to_pylist(),
        metadata=table["metadata"].to_pylist(),
        vectors=vectors,
        queries=vectors[:0],
        truth=[],
    )


def _vectors(table: Any) -> Matrix:
    dimensions = table.schema.field("vector").type.list_size
    flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors: Matrix = flat.astype(np.float32).reshape(-1, dimensions)
    return vectors


def _normed(vectors: Matrix) -> Matrix:
    normed: Matrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normed

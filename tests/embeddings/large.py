"""Projects that are large enough for an index, where that is some hundred texts; real vectors."""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow.parquet as pq
import pytest
from django.db import DatabaseError, connection, connections

from embeddings import demo, indexes, store
from projects.models import Project
from tests.factories import Answer, Caller, make_instance, make_project
from tests.jobs import run_jobs

ROWS, DIMENSIONS = 8_000, 512
# What a graph finds is ranked by vectors of 32 bits, in another order of additions than numpy's.
CLOSE = 2e-6

Matrix = npt.NDArray[np.float32]
Ranking = list[tuple[str, float]]


@cache
def _file() -> tuple[list[dict[str, Any]], list[str], Matrix]:
    table: Any = pq.read_table(demo.DATA)
    flat = table.column("vector").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    metadata = [json.loads(each) for each in table.column("metadata").to_pylist()]
    matrix = flat.astype(np.float32).reshape(ROWS, DIMENSIONS)
    return metadata, table.column("text").to_pylist(), matrix


@cache
def vectors(dimensions: int = DIMENSIONS) -> Matrix:
    """Return the vectors of the demo, cut or tiled to a length: float32 of (8000, dimensions)."""
    matrix = _file()[2]
    if dimensions <= DIMENSIONS:
        return np.ascontiguousarray(matrix[:, :dimensions])
    # Some hundred rows are enough of the long ones.
    return np.tile(matrix[:600], (1, -(-dimensions // DIMENSIONS)))[:, :dimensions]


def name(row: int) -> str:
    """Return the text id of a row of the demo."""
    return f"t{row:04}"


def brute_force(
    query: npt.NDArray[Any], rows: Iterable[int], matrix: Matrix | None = None
) -> Ranking:
    """Return all (id, similarity), the best first and ties by id, as numpy computes them."""
    chosen = list(rows)
    rest = (vectors(len(query)) if matrix is None else matrix)[chosen].astype(np.float64)
    wanted = query.astype(np.float64)
    similarities = rest @ wanted / (np.linalg.norm(rest, axis=1) * np.linalg.norm(wanted))
    found = [(name(row), float(each)) for row, each in zip(chosen, similarities, strict=True)]
    return sorted(found, key=lambda each: (-each[1], each[0]))


def assert_ranked(found: Ranking, expected: Ranking) -> None:
    """Compare with the first of a whole ranking; neighbours closer than 2e-6 may change places."""
    assert len({text_id for text_id, _ in found}) == len(found)
    known = dict(expected)
    for (text_id, similarity), (other, wanted) in zip(found, expected, strict=False):
        assert abs(similarity - wanted) <= CLOSE, (text_id, similarity, other, wanted)
        assert text_id == other or abs(known[text_id] - similarity) <= CLOSE


def recall(found: Ranking, expected: Ranking) -> float:
    """Return which share of the first of the ranking was found; ties count."""
    if not expected:
        return 1.0
    least = expected[-1][1] - CLOSE
    return sum(similarity >= least for _, similarity in found) / len(expected)


@dataclass
class Shelf:
    """One project for texts of the demo, as its owner sees it."""

    owner: Caller
    handle: str = "shelf"
    dimensions: int = 64
    metadata: Callable[[int], dict[str, Any]] = field(default=lambda row: {"row": row})

    def make(self, **fields: Any) -> "Shelf":
        """Make the instance and the project."""
        instance = f"dim{self.dimensions}"
        make_instance(self.owner.handle, instance, dimensions=self.dimensions)
        make_project(self.owner.handle, self.handle, instance=instance, **fields)
        return self

    @property
    def name(self) -> str:
        """Return owner and handle."""
        return f"{self.owner.handle}/{self.handle}"

    @property
    def embeddings(self) -> str:
        """Return the address of the embeddings."""
        return f"/v1/embeddings/{self.name}"

    @property
    def similars(self) -> str:
        """Return the address of searches."""
        return f"/v1/similars/{self.name}"

    @property
    def row(self) -> Project:
        """Return the project."""
        return Project.objects.get(owner__handle=self.owner.handle, handle=self.handle)

    def item(self, row: int, vector: Matrix | None = None, **changes: Any) -> dict[str, Any]:
        """Return one embedding as an upload holds it; its vector in base64."""
        numbers = vectors(self.dimensions)[row] if vector is None else vector
        return {
            "text_id": name(row),
            "instance_handle": f"dim{self.dimensions}",
            "vector": base64.b64encode(numbers.astype("<f4").tobytes()).decode(),
            "vector_dim": len(numbers),
            "text": _file()[1][row],
            "metadata": self.metadata(row),
            **changes,
        }

    def post(self, rows: Iterable[int], **changes: Any) -> Answer:
        """Upload rows of the demo."""
        items = [self.item(row, **changes) for row in rows]
        return self.owner.post(self.embeddings, raw=orjson.dumps({"embeddings": items}))

    def upload(self, rows: Iterable[int], **changes: Any) -> None:
        """Upload rows of the demo, which are new."""
        chosen = list(rows)
        for start in range(0, len(chosen), 1000):
            answer = self.post(chosen[start : start + 1000], **changes)
            assert answer.status == 201, answer.body

    def put(self, row: int, vector: Matrix | None = None, **changes: Any) -> Answer:
        """Put one."""
        path = f"{self.embeddings}/{name(row)}"
        return self.owner.put(path, self.item(row, vector, **changes))

    def get(self, row: int) -> Answer:
        """Get one."""
        return self.owner.get(f"{self.embeddings}/{name(row)}")

    def delete(self, row: int) -> Answer:
        """Delete one."""
        return self.owner.delete(f"{self.embeddings}/{name(row)}")

    def search(self, query: npt.NDArray[Any], body: Any = None, **options: Any) -> Answer:
        """Search by a vector, explained."""
        asked = {"threshold": 0, "explain": "true", **options}
        sent = {"vector": query.astype(float).tolist(), **(body or {})}
        answer = self.owner.post(f"{self.similars}?{urlencode(asked)}", sent)
        assert answer.status == 200, answer.body
        return answer

    def like(self, text_id: str, **options: Any) -> Answer:
        """Search by a stored text, explained."""
        asked = urlencode({"threshold": 0, "explain": "true", **options})
        answer = self.owner.get(f"{self.similars}/{quote(text_id, safe='')}?{asked}")
        assert answer.status == 200, answer.body
        return answer

    def index(self) -> dict[str, Any]:
        """Return what the API says of the index."""
        answer = self.owner.get(f"/v1/projects/{self.name}/index")
        assert answer.status == 200, answer.body
        return dict(answer.body)

    def tended(self) -> dict[str, Any]:
        """Do what the minute's sweep and its jobs do; return what the API says of the index."""
        indexes.sweep()
        run_jobs()
        return self.index()

    def everything(self) -> dict[str, dict[str, Any]]:
        """Return all that is listed, by id; check that each is listed once and all are counted."""
        rows: dict[str, dict[str, Any]] = {}
        while True:
            page = self.owner.get(f"{self.embeddings}?limit=200&offset={len(rows)}")
            found = {each["text_id"]: each for each in page["embeddings"]}
            assert len(found) == len(page["embeddings"])
            assert not found.keys() & rows.keys()
            rows |= found
            if not found:
                break
        project = self.owner.get(f"/v1/projects/{self.name}").body
        assert page["total_count"] == project["number_of_embeddings"] == len(rows)
        assert list(rows) == sorted(rows)
        return rows


def hits(answer: Answer) -> Ranking:
    """Return the results of a search."""
    return [(each["id"], each["similarity"]) for each in answer["results"]]


def plan(answer: Answer) -> str:
    """Return how a search was answered."""
    return str(answer["explain"]["plan"])


def assert_first(answer: Answer, row: int) -> None:
    """Check that a search with the vector of a text found that text first."""
    text_id, similarity = hits(answer)[0]
    assert text_id == name(row)
    assert similarity == pytest.approx(1, abs=1e-6)


# --- What the database holds ----------------------------------------------------------------------
def facts(statement: str, *parameters: Any) -> list[Any]:
    """Return the rows of a query; those of one column as values."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows = cursor.fetchall()
    return [row[0] if len(row) == 1 else tuple(row) for row in rows]


def execute(statement: str, *parameters: Any) -> int:
    """Execute a statement; return how many rows it changed."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)


def segments() -> dict[str, int]:
    """Return the tables of all sealed segments, attached or not, and how many rows each has."""
    names = facts(
        "SELECT relname::text FROM pg_class WHERE relkind = 'r'"
        r" AND relname ~ '^embeddings_embedding_\d+$' ORDER BY relname"
    )
    return {each: facts(f"SELECT count(*) FROM {each}")[0] for each in names}


def invalid_indexes() -> list[str]:
    """Return the indexes that PostgreSQL does not use, and those that were not put in place."""
    return facts(
        "SELECT relname::text FROM pg_class JOIN pg_index ON indexrelid = oid"
        r" WHERE relname LIKE 'embeddings\_%%' AND (NOT indisvalid OR relname LIKE '%%\_new')"
    )


def drop_segments() -> None:
    """Drop all; emptying the tables after a test with `transaction=True` leaves them."""
    for each in segments():
        execute(f"DROP TABLE IF EXISTS {each}")


@contextmanager
def elsewhere(statement: str) -> Iterator[None]:
    """Keep a transaction open, on another connection, that has executed a statement."""
    other = connections.create_connection("default")
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute(statement)
        yield
    finally:
        # The server may have ended it.
        with suppress(DatabaseError):
            other.rollback()
        other.close()


def after_step(
    monkeypatch: pytest.MonkeyPatch, step: str, change: Callable[[], object], *, once: bool = True
) -> list[int]:
    """Have something happen after a step (`copy`, `index`) of the next build; return the calls."""
    real: Callable[..., Any] = getattr(store, step)
    calls: list[int] = []

    def stand_in(*arguments: Any, **keywords: Any) -> Any:
        result = real(*arguments, **keywords)
        calls.append(len(calls))
        if len(calls) == 1 or not once:
            change()
        return result

    monkeypatch.setattr(store, step, stand_in)
    return calls


def sample(count: int, of: int, seed: int = 0) -> Sequence[int]:
    """Return some rows."""
    return [int(each) for each in np.random.default_rng(seed).choice(of, count, replace=False)]

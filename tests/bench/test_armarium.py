"""What the bench sends to a server, and what it takes for an index that is ready."""

import base64
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from bench import corpus
from bench.armarium import ARROW, GROWING, INDEXED_FROM, Armarium
from bench.processes import ServerFailed


@pytest.fixture
def server() -> Armarium:
    """Return what talks to a server, without a server."""
    return Armarium.__new__(Armarium)


@pytest.fixture
def small() -> corpus.Corpus:
    return corpus.demo(5)


@pytest.mark.parametrize("format", ["json", "base64"])
def test_json_holds_every_row_as_it_is(server: Armarium, small: corpus.Corpus, format: str) -> None:
    [first, second] = server.encoded(small, format, size=3)

    items = orjson.loads(first.data)["embeddings"] + orjson.loads(second.data)["embeddings"]
    assert [item["text_id"] for item in items] == list(small.ids)
    assert [item["metadata"] for item in items] == [orjson.loads(text) for text in small.metadata]
    vectors = [
        np.frombuffer(base64.b64decode(item["vector"]), "<f4")
        if format == "base64"
        else item["vector"]
        for item in items
    ]
    np.testing.assert_array_equal(np.array(vectors, dtype=np.float32), small.vectors)


def test_arrow_holds_every_row_as_it_is(server: Armarium, small: corpus.Corpus) -> None:
    [body] = server.encoded(small, "arrow")

    assert body.content_type == ARROW
    table = pa.ipc.open_stream(body.data).read_all()
    assert table.column_names == ["text_id", "vector", "text", "metadata"]
    assert table.schema.field("vector").type == pa.list_(pa.float32(), small.dimensions)
    assert table["text_id"].to_pylist() == list(small.ids)
    assert table["metadata"].to_pylist() == list(small.metadata)
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist()), small.vectors)


def shown(state: str, total: int, growing: int = 0, error: str | None = None) -> dict[str, Any]:
    """Return an index as the server shows it."""
    rows = {"total": total, "indexed": total - growing, "growing": growing}
    return {"state": state, "rows": rows, "last_error": error}


def answering(
    server: Armarium, monkeypatch: pytest.MonkeyPatch, states: list[dict[str, Any] | None]
) -> list[dict[str, Any] | None]:
    """Let the server show these states of an index of four dimensions, one after the other."""
    monkeypatch.setattr(server, "index", lambda place: states.pop(0), raising=False)
    page = {"embeddings": [{"vector": [0.0] * 4}]}
    monkeypatch.setattr(server, "own", lambda *wish: page, raising=False)
    return states


LARGE = INDEXED_FROM // 4 + 1


def test_a_large_project_is_waited_for(server: Armarium, monkeypatch: pytest.MonkeyPatch) -> None:
    left = answering(
        server,
        monkeypatch,
        [
            shown("exact", LARGE, LARGE),
            shown("building", LARGE, LARGE),
            shown("indexed", LARGE, GROWING + 1),
            shown("indexed", LARGE, GROWING),
            shown("indexed", LARGE, 0),
        ],
    )

    server.settle("place")

    assert len(left) == 1


@pytest.mark.parametrize("state", [shown("exact", LARGE // 2), shown("exact", 0), None])
def test_a_small_project_and_a_server_without_indexes_are_not(
    server: Armarium, monkeypatch: pytest.MonkeyPatch, state: dict[str, Any] | None
) -> None:
    left = answering(server, monkeypatch, [state, state])

    server.settle("place")

    assert len(left) == 1


def test_a_build_that_failed_is_told(server: Armarium, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(server, monkeypatch, [shown("building", LARGE, error="out of memory")])

    with pytest.raises(ServerFailed, match="out of memory"):
        server.settle("place")

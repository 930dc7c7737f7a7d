"""The list of embeddings as JSON lines, an Arrow stream and Parquet."""

import io
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embeddings.models import Embedding
from tests.answers import assert_refused
from tests.embeddings.bulk import ARROW, NDJSON, PARQUET, PROJECT, in_arrow
from tests.factories import Answer, Cast, item, make_instance, make_project, vectors

FORMATS = [NDJSON, "application/jsonl", "application/x-jsonlines", ARROW, PARQUET]
METADATA: list[dict[str, Any]] = [
    {"author": "Ann", "nested": {"list": [1, 2.5, None, True]}},
    {"huge": 1e300, "long": 2**63 - 1, "tiny": 5e-324, "about": 1e22},
    {},
    {"ü": "日本🦊\n\u2028"},
]


def ask(cast: Cast, media_type: str, query: str = "", path: str = PROJECT) -> Answer:
    return cast.rita.get(f"{path}{query}", headers={"Accept": media_type})


def table_of(answer: Answer) -> pa.Table:
    content = io.BytesIO(answer.content)
    if answer.headers["Content-Type"] == PARQUET:
        return pq.read_table(content)
    return pa.ipc.open_stream(content).read_all()


@pytest.fixture
def filled(cast: Cast) -> Cast:
    items = [
        item(f"t{row}/ü", vector, text=f"text {row} 🦊", metadata=metadata)
        for row, (vector, metadata) in enumerate(zip(vectors(4, 3).tolist(), METADATA, strict=True))
    ]
    assert cast.alice.post(PROJECT, {"embeddings": items}).status == 201
    return cast


@pytest.mark.parametrize("media_type", FORMATS[:3])
def test_lines_hold_what_json_holds(filled: Cast, media_type: str) -> None:
    answer = ask(filled, media_type)
    assert (answer.status, answer.headers["Content-Type"]) == (200, media_type)
    assert "Content-Disposition" not in answer.headers
    assert answer.content.endswith(b"}\n")
    listed = filled.rita.get(PROJECT)["embeddings"]
    lines = [orjson.loads(line) for line in answer.content.splitlines()]
    assert lines == listed
    assert answer.headers["Content-Length"] == str(len(answer.content))


@pytest.mark.parametrize("media_type", [ARROW, PARQUET])
def test_tables_hold_what_json_holds(filled: Cast, media_type: str) -> None:
    answer = ask(filled, media_type)
    assert (answer.status, answer.headers["Content-Type"]) == (200, media_type)
    table = table_of(answer)
    time = pa.timestamp("us", "UTC")
    assert {field.name: field.type for field in table.schema} == {
        "text_id": pa.string(),
        "vector": pa.list_(pa.float32(), 3),
        "text": pa.string(),
        "metadata": pa.string(),
        "created_at": time,
        "updated_at": time,
    }
    assert table.schema.metadata[b"armarium.project"] == b"alice/letters"
    listed = filled.rita.get(PROJECT)["embeddings"]
    rows = table.to_pylist()
    for row, expected in zip(rows, listed, strict=True):
        assert row["text_id"] == expected["text_id"]
        assert row["text"] == expected["text"]
        assert orjson.loads(row["metadata"]) == expected["metadata"]
        assert row["vector"] == np.array(expected["vector"], np.float32).tolist()
    stored = {each.text_id: each for each in Embedding.objects.all()}
    assert [row["created_at"] for row in rows] == [
        stored[row["text_id"]].created_at for row in rows
    ]


@pytest.mark.parametrize("media_type", FORMATS)
def test_what_was_exported_can_be_posted_back(filled: Cast, media_type: str) -> None:
    before = filled.rita.get(PROJECT)["embeddings"]
    exported = ask(filled, media_type).content
    assert filled.alice.delete(PROJECT).status == 200
    answer = filled.erin.post(PROJECT, raw=exported, content_type=media_type)
    assert (answer.status, answer["count"]) == (201, 4)
    after = filled.rita.get(PROJECT)["embeddings"]
    times = {"created_at": None, "updated_at": None}
    assert [{**row, **times} for row in after] == [{**row, **times} for row in before]
    # And sent again, it is all there already.
    assert_refused(filled.erin.post(PROJECT, raw=exported, content_type=media_type), 409)


@pytest.mark.parametrize("media_type", FORMATS)
def test_an_empty_list_is_a_file_of_no_rows(cast: Cast, media_type: str) -> None:
    for query in ("", "?offset=5"):
        answer = ask(cast, media_type, query)
        assert answer.status == 200
        if media_type in {ARROW, PARQUET}:
            assert table_of(answer).num_rows == 0
        else:
            assert answer.content == b""


def test_up_to_10_000_come_at_once_but_200_in_json(cast: Cast) -> None:
    rows = [
        {"text_id": f"t{row:05}", "vector": vector}
        for row, vector in enumerate(vectors(10_001, 3).tolist())
    ]
    assert cast.erin.post(PROJECT, raw=in_arrow(rows), content_type=ARROW).status == 201
    for media_type in (NDJSON, ARROW, PARQUET):
        answer = ask(cast, media_type, "?limit=10000")
        if media_type == NDJSON:
            found = [orjson.loads(line)["text_id"] for line in answer.content.splitlines()]
        else:
            found = table_of(answer)["text_id"].to_pylist()
        assert found == [row["text_id"] for row in rows[:-1]]
        cursor = answer.headers["Link"].partition("cursor=")[2].partition(">")[0]
        rest = cast.rita.get(f"{PROJECT}?cursor={cursor}")
        assert [row["text_id"] for row in rest["embeddings"]] == ["t10000"]
        assert "Link" not in rest.headers
        assert len(ask(cast, media_type, "?limit=9999&offset=9990").content) > 0
        # The default stays.
        default = ask(cast, media_type)
        assert "limit=10&" in default.headers["Link"]
        assert_refused(ask(cast, media_type, "?limit=10001"), 400, location="query.limit")
    for query in ("?limit=201", "?limit=10000", "?limit=10001"):
        assert_refused(cast.rita.get(PROJECT + query), 400, location="query.limit")


def test_long_vectors_come_fewer_at_once(cast: Cast) -> None:
    make_instance("alice", "long", dimensions=16_000)
    make_project("alice", "long", instance="long", readers=["rita"])
    path = "/v1/embeddings/alice/long"
    rows = [{"text_id": f"t{n}", "vector": v} for n, v in enumerate(vectors(3, 16_000).tolist())]
    assert cast.alice.post(path, raw=in_arrow(rows), content_type=ARROW).status == 201
    answer = ask(cast, ARROW, "?limit=1049", path)
    assert_refused(answer, 400, location="query.limit")
    assert "1048 at most" in answer["detail"]
    found = table_of(ask(cast, ARROW, "?limit=1048", path))
    assert np.array_equal(np.array(found["vector"].to_pylist(), np.float32), vectors(3, 16_000))


ACCEPTS = {
    "": "application/json",
    "*/*": "application/json",
    "application/*": "application/json",
    "nonsense": "application/json",
    "text/html,application/xhtml+xml,*/*;q=0.8": "application/json",
    "text/csv": "application/json",
    "application/json": "application/json",
    f"{NDJSON}, application/json": NDJSON,
    f"application/json, {NDJSON}": "application/json",
    f"{NDJSON}, */*": NDJSON,
    f"{NDJSON};q=0.5, application/json;q=0.9": "application/json",
    f"{NDJSON};q=0.9, application/json;q=0.5": NDJSON,
    f"{ARROW};q=0.8, {PARQUET}": PARQUET,
    f"{PARQUET};q=0": "application/json",
    f"{NDJSON};q=x": NDJSON,
    f"{NDJSON};q=nan": NDJSON,
    f"{NDJSON};a*=hex''b": "application/json",
    f"{NDJSON};a*=utf-8''%ff": "application/json",
}


@pytest.mark.parametrize("accept", ACCEPTS, ids=ascii)
def test_the_accept_header_chooses(filled: Cast, accept: str) -> None:
    answer = filled.rita.get(PROJECT, headers={"Accept": accept})
    assert (answer.status, answer.headers["Content-Type"]) == (200, ACCEPTS[accept])


def test_refusals_stay_json_and_other_routes_too(filled: Cast) -> None:
    for media_type in FORMATS:
        for path in ("/v1/embeddings/alice/nothing", f"{PROJECT}?limit=x", f"{PROJECT}?x=1"):
            answer = filled.alice.get(path, headers={"Accept": media_type})
            assert_refused(answer, 404 if "nothing" in path else 400)
        assert_refused(filled.sam.get(PROJECT, headers={"Accept": media_type}), 403)
        one = filled.rita.get(f"{PROJECT}/t0%2F%C3%BC", headers={"Accept": media_type})
        assert (one.status, one.headers["Content-Type"]) == (200, "application/json")
    head = filled.rita.ask("HEAD", PROJECT, headers={"Accept": ARROW})
    assert (head.status, head.headers["Content-Type"], head.content) == (200, ARROW, b"")


def test_a_public_project_is_exported_without_a_key(filled: Cast) -> None:
    assert filled.alice.patch("/v1/projects/alice/letters", {"public_read": True}).status == 200
    answer = filled.nobody.get(PROJECT, headers={"Accept": PARQUET})
    assert table_of(answer).num_rows == 4

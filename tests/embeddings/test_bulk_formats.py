"""Uploads in other formats than JSON numbers: the same embeddings, and all of them or none."""

import errno
import gzip
import os
import random
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil
import pyarrow as pa
import pytest
import zstandard
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings

from embeddings.files import _decoder
from tests.answers import assert_refused, nothing_changes
from tests.common.raw import ask_raw
from tests.embeddings.bulk import (
    ARROW,
    FILES,
    FORMATS,
    NDJSON,
    PARQUET,
    PROJECT,
    as_base64,
    in_arrow,
    in_base64,
    in_json,
    in_lines,
    in_parquet,
    parquet_of,
    send,
    stream_of,
    table,
)
from tests.factories import Cast, make_instance, make_project, vectors

every_format = pytest.mark.parametrize("name", FORMATS)
every_file = pytest.mark.parametrize("name", FILES)
ROWS: list[dict[str, Any]] = [
    {"text_id": "a", "vector": [0.5, -1.25, 3e-5], "text": "ü[日🦊\n", "metadata": {"n": 1}},
    {"text_id": "b/ü", "vector": [1.0, 2.0, 3.0], "text": "", "metadata": {"x": {"y": [1, None]}}},
    {"text_id": "c", "vector": [-7.0, 0.0, 1e10], "text": "[", "metadata": {}},
]


def many(count: int, dimensions: int = 3) -> list[dict[str, Any]]:
    rows = vectors(count, dimensions).tolist()
    return [{"text_id": f"t{row:06}", "vector": vector} for row, vector in enumerate(rows)]


def stored(cast: Cast, *fields: str) -> list[dict[str, Any]]:
    listed = cast.rita.get(f"{PROJECT}?limit=200")["embeddings"]
    return [{name: row[name] for name in fields} for row in listed]


# --- What is accepted -----------------------------------------------------------------------------
@every_format
def test_every_format_stores_the_same(cast: Cast, name: str) -> None:
    answer = send(cast.erin, name, ROWS)
    ids = [row["text_id"] for row in ROWS]
    message = "3 embedding(s) uploaded successfully"
    assert (answer.status, answer.body) == (
        201,
        {"message": message, "uploaded": ids, "ids": ids, "count": 3},
    )
    found = stored(cast, "text_id", "vector", "text", "metadata")
    expected = [
        {**row, "vector": [float(np.float32(number)) for number in row["vector"]]} for row in ROWS
    ]
    assert [
        {**row, "vector": [float(np.float32(number)) for number in row["vector"]]} for row in found
    ] == expected


@every_format
def test_text_and_metadata_may_be_left_out(cast: Cast, name: str) -> None:
    rows = [{"text_id": "a", "vector": [1.0, 2.0, 3.0]}]
    assert send(cast.erin, name, rows).status == 201
    assert stored(cast, "text", "metadata") == [{"text": "", "metadata": {}}]


@pytest.mark.parametrize(
    "kind", [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.int64()], ids=str
)
@pytest.mark.parametrize("shape", ["list", "large", "fixed"])
@pytest.mark.parametrize("name", ["arrow", "parquet"])
def test_vectors_may_be_lists_of_any_numbers(
    cast: Cast, name: str, kind: pa.DataType, shape: str
) -> None:
    shapes = {
        "list": pa.list_(kind),
        "large": pa.large_list(kind),
        "fixed": pa.list_(kind, 3),
    }
    columns = {"text_id": ["a", "b"], "vector": pa.array([[1, 2, 3], [3, 2, 1]], shapes[shape])}
    written = stream_of if name == "arrow" else parquet_of
    body = written(pa.table(columns))
    assert cast.erin.post(PROJECT, raw=body, content_type=FILES[name]).status == 201
    assert stored(cast, "vector") == [{"vector": [1, 2, 3]}, {"vector": [3, 2, 1]}]


METADATA: dict[str, Any] = {
    "texts": pa.array(['{"a": 1}', None, "{}"]),
    "large texts": pa.array(['{"a": 1}', None, "{}"], pa.large_string()),
    "dictionary": pa.array(['{"a": 1}', None, "{}"]).dictionary_encode(),
    "structs": pa.array([{"a": 1}, None, {"a": None}]),
    "maps": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
}


@pytest.mark.parametrize("kind", METADATA)
@pytest.mark.parametrize("name", ["arrow", "parquet"])
def test_metadata_may_be_texts_structs_or_maps(cast: Cast, name: str, kind: str) -> None:
    given = pa.table(
        {
            "vector": [[1.0, 2.0, 3.0]] * 3,
            "metadata": METADATA[kind],
            "text_id": pa.array(["a", "b", "c"]).dictionary_encode(),
            "text": pa.nulls(3),
            "instance_handle": ["model", "alice/model", None],
            "vector_dim": pa.array([3, None, 3], pa.int16()),
            "other": [1, 2, 3],
        }
    )
    body = stream_of(given) if name == "arrow" else parquet_of(given)
    assert cast.erin.post(PROJECT, raw=body, content_type=FILES[name]).status == 201
    third = {"a": None} if kind == "structs" else {}
    assert [row["metadata"] for row in stored(cast, "metadata")] == [{"a": 1}, {}, third]


def test_lines_may_be_empty_and_mixed(cast: Cast) -> None:
    lines = [
        b'\xef\xbb\xbf{"text_id": "a", "vector": [1, 2, 3], "user_handle": "bob", "x": [[1]]}',
        b"",
        b'  {"vector": "' + as_base64([1, 2, 3]).encode() + b'", "text_id": "b"}  \r',
        b'{"text_id": "c", "vector": [1, 2, 3], "instance_handle": "alice/model"}',
    ]
    body = b"\n".join(lines)
    assert cast.erin.post(PROJECT, raw=body, content_type=NDJSON).status == 201
    assert stored(cast, "text_id", "vector") == [
        {"text_id": each, "vector": [1, 2, 3]} for each in "abc"
    ]


@every_file
@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_files_may_be_packed(cast: Cast, name: str, packing: str) -> None:
    content_type, written = FORMATS[name]
    pack = gzip.compress if packing == "gzip" else zstandard.compress
    answer = cast.erin.post(
        PROJECT,
        raw=pack(written(ROWS)),
        content_type=content_type,
        headers={"Content-Encoding": packing},
    )
    assert answer.status == 201


@pytest.mark.parametrize("packing", ["lz4", "zstd"])
def test_buffers_of_arrow_may_be_packed(cast: Cast, packing: str) -> None:
    body = stream_of(table(many(500)), rows=100, compression=packing)
    assert cast.erin.post(PROJECT, raw=body, content_type=ARROW)["count"] == 500


@every_file
def test_more_rows_than_a_batch_of_json_are_stored_in_one_request(cast: Cast, name: str) -> None:
    rows = many(5_003)
    answer = send(cast.erin, name, rows)
    # Their ids are known to whoever sent them.
    assert (answer.status, answer.body) == (
        201,
        {"message": "5003 embedding(s) uploaded successfully", "count": 5003},
    )
    listed = cast.rita.get(f"{PROJECT}?limit=1&offset=5002")
    assert listed["total_count"] == 5003
    assert listed["embeddings"][0]["vector"] == pytest.approx(rows[-1]["vector"])


@pytest.mark.parametrize("dimensions", [1, 2, 5, 384, 1024])
@every_format
def test_vectors_of_any_length_arrive(cast: Cast, name: str, dimensions: int) -> None:
    make_instance("alice", "sized", dimensions=dimensions)
    make_project("alice", "sized", instance="sized")
    path = "/v1/embeddings/alice/sized"
    rows = [{**row, "instance_handle": "sized"} for row in many(3, dimensions)]
    assert send(cast.alice, name, rows, path).status == 201
    found = np.array([row["vector"] for row in cast.alice.get(path)["embeddings"]], np.float32)
    assert np.array_equal(found, vectors(3, dimensions))


def test_put_takes_base64_too(cast: Cast) -> None:
    body = {"instance_handle": "model", "vector_dim": 3, "vector": as_base64([1, 2, 3])}
    assert cast.erin.put(f"{PROJECT}/a", body)["vector"] == [1, 2, 3]


# --- All or nothing -------------------------------------------------------------------------------
BAD_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "zero": ({"vector": [0.0, 0.0, 0.0]}, "no direction"),
    "NaN": ({"vector": [1.0, float("nan"), 0.0]}, ""),
    "short": ({"vector": [1.0, 2.0]}, "actual vector has 2 elements"),
    "long": ({"vector": [1.0, 2.0, 3.0, 4.0]}, "actual vector has 4 elements"),
    "no vector": ({"vector": None}, "vector is required"),
    "no id": ({"text_id": None}, "text_id is required"),
    "an empty id": ({"text_id": ""}, "1 to 300 characters"),
    "a long id": ({"text_id": "x" * 301}, "1 to 300 characters"),
    "U+0000 in the id": ({"text_id": "a\0"}, "U+0000"),
    "U+0000 in the text": ({"text": "a\0"}, "U+0000"),
    "another instance": ({"instance_handle": "other"}, "must name the project's own"),
    "another owner": ({"instance_owner": "bob"}, "must name the project's own"),
    "another length": ({"vector_dim": 4}, "expects 3 dimensions"),
}


def with_last(count: int, **changes: Any) -> list[dict[str, Any]]:
    """Return rows of which the last is odd; all have the same fields, as tables need."""
    rows = many(count)
    whole = {"text": "", "instance_handle": "model", "instance_owner": "alice", "vector_dim": 3}
    rows = [{**row, **whole} for row in rows]
    rows[-1] |= changes
    return rows


@every_file
@pytest.mark.parametrize("case", BAD_ROWS)
def test_one_bad_row_in_the_last_part_leaves_nothing(cast: Cast, name: str, case: str) -> None:
    changes, says = BAD_ROWS[case]
    assert send(cast.erin, name, [{"text_id": "kept", "vector": [1.0, 0.0, 0.0]}]).status == 201
    with nothing_changes():
        answer = send(cast.erin, name, with_last(4_101, **changes))
        assert_refused(answer, 400)
        assert answer["errors"][0]["location"].startswith("body.rows[4100]")
        if name != "lines" or case != "NaN":
            assert says in answer["detail"]


@every_file
def test_metadata_against_the_schema_is_told_as_for_json(cast: Cast, name: str) -> None:
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    assert cast.alice.patch("/v1/projects/alice/letters", {"metadataScheme": schema}).status == 200
    rows = [{**row, "metadata": {"n": 1}} for row in many(2_050)]
    with nothing_changes():
        for bad, field in (({"n": "x"}, ".n"), ({}, ".n")):
            answer = send(cast.erin, name, [*rows[:-1], {**rows[-1], "metadata": bad}])
            assert_refused(answer, 400)
            assert answer["detail"].startswith(
                "metadata validation failed for text_id 't002049': metadata validation failed:\n"
            )
            assert answer["errors"][0]["location"] == f"body.rows[2049].metadata{field}"
        assert_refused(send(cast.erin, name, many(3)), 400)
    assert send(cast.erin, name, rows).status == 201


@every_file
def test_ids_that_are_stored_are_409(cast: Cast, name: str) -> None:
    rows = many(4_500)
    assert send(cast.erin, name, rows[4_200:4_202]).status == 201
    with nothing_changes():
        answer = send(cast.erin, name, rows)
        assert_refused(answer, 409)
        assert answer["detail"].startswith("text_id 't004200' already exists (and 1 more);")
        assert [each["location"] for each in answer["errors"]] == [
            "body.rows[4200].text_id",
            "body.rows[4201].text_id",
        ]


@every_file
@pytest.mark.parametrize("distance", [1, 4_000])
def test_ids_that_occur_twice_are_409(cast: Cast, name: str, distance: int) -> None:
    rows = many(4_500)
    rows[4_499] = {**rows[4_499], "text_id": rows[4_499 - distance]["text_id"]}
    with nothing_changes():
        answer = send(cast.erin, name, rows)
        assert_refused(answer, 409)
        twice = rows[4_499]["text_id"]
        assert answer["detail"] == f"text_id '{twice}' occurs more than once in the request."
        assert answer["errors"][0]["location"] == "body.rows[4499].text_id"


METADATA_TEXTS = ["[]", "5", '"a"', "{", '{"a": 1} {}', '{"a": 1, "a": 2}', '{"a": 1e400}', ""]


@pytest.mark.parametrize("text", METADATA_TEXTS)
@pytest.mark.parametrize("name", ["arrow", "parquet"])
def test_metadata_texts_that_are_no_objects_are_400(cast: Cast, name: str, text: str) -> None:
    given = pa.table(
        {
            "text_id": ["a", "b"],
            "vector": [[1.0, 2.0, 3.0]] * 2,
            "metadata": ["{}", text],
        }
    )
    body = stream_of(given) if name == "arrow" else parquet_of(given)
    with nothing_changes():
        answer = cast.erin.post(PROJECT, raw=body, content_type=FILES[name])
        assert_refused(answer, 400)
        assert answer["errors"][0]["location"] == "body.rows[1]"
        assert "metadata" in answer["detail"]


LINES: dict[str, bytes] = {
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"5",
    "two values": b'{"text_id": "b", "vector": [1, 2, 3]} {}',
    "two objects": b'{"text_id": "b", "vector": [1, 2, 3]},{"text_id": "c", "vector": [1, 2, 3]}',
    "a key twice": b'{"text_id": "b", "vector": [1, 2, 3], "vector": [1, 2, 3]}',
    "nested": b'{"text_id": "b", "vector": [1, [2], 3]}',
    "nested and flat": b'{"text_id": "b", "vector": [[1, 2], [], 3]}',
    "hidden by an escape": b'{"text_id": "b", "vector": [[1, 2], [], 3], "text": "\\u005b\\u005b"}',
    "texts": b'{"text_id": "b", "vector": ["1", "2", "3"]}',
    "no base64": b'{"text_id": "b", "vector": "AACAP*"}',
    "half a number": b'{"text_id": "b", "vector": "AACAPwA="}',
    "NaN": b'{"text_id": "b", "vector": [NaN, 1, 2]}',
    "NaN in base64": b'{"text_id": "b", "vector": "AADAfwAAgD8AAIA/"}',
    "not UTF-8": b'{"text_id": "\xff", "vector": [1, 2, 3]}',
    "deep": b'{"text_id": "b", "vector": [1, 2, 3], "metadata": '
    + b'{"a":' * 70
    + b"1"
    + b"}" * 71,
    "2^63": b'{"text_id": "b", "vector": [1, 2, 3], "metadata": {"a": 9223372036854775808}}',
    "metadata in a list": b'{"text_id": "b", "vector": [1, 2, 3], "metadata": []}',
    "the body of JSON": orjson.dumps({"embeddings": [{"text_id": "b", "vector": [1, 2, 3]}]}),
}


@pytest.mark.parametrize("case", LINES)
def test_a_bad_line_is_named(cast: Cast, case: str) -> None:
    good = in_lines(many(2))
    with nothing_changes():
        body = good + b"\n" + LINES[case] + b"\n" + in_lines([ROWS[0]])
        answer = cast.erin.post(PROJECT, raw=body, content_type=NDJSON)
        assert_refused(answer, 400)
        assert answer["errors"][0]["location"] == "body.rows[3]"


# --- Bad files ------------------------------------------------------------------------------------
TABLES: dict[str, tuple[pa.Table, str]] = {
    "no vector": (pa.table({"text_id": ["a"]}), "needs one column vector"),
    "no id": (pa.table({"vector": [[1.0, 2.0, 3.0]]}), "needs one column text_id"),
    "an id of numbers": (
        pa.table({"text_id": [1], "vector": [[1.0, 2.0, 3.0]]}),
        "column text_id must hold text, not int64",
    ),
    "ids of nothing": (pa.table({"text_id": pa.nulls(1), "vector": [[1.0, 2.0, 3.0]]}), "required"),
    "a vector of text": (
        pa.table({"text_id": ["a"], "vector": ["1,2,3"]}),
        "column vector must hold lists of numbers",
    ),
    "a vector of texts": (
        pa.table({"text_id": ["a"], "vector": [["1", "2", "3"]]}),
        "column vector must hold lists of numbers",
    ),
    "a vector of lists": (
        pa.table({"text_id": ["a"], "vector": [[[1.0], [2.0], [3.0]]]}),
        "column vector must hold lists of numbers",
    ),
    "a null number": (
        pa.table({"text_id": ["a"], "vector": [[1.0, None, 3.0]]}),
        "not finite",
    ),
    "a text of numbers": (
        pa.table({"text_id": ["a"], "vector": [[1.0, 2.0, 3.0]], "text": [5]}),
        "column text must hold text",
    ),
    "metadata of numbers": (
        pa.table({"text_id": ["a"], "vector": [[1.0, 2.0, 3.0]], "metadata": [5]}),
        "column metadata must hold",
    ),
    "a length in words": (
        pa.table({"text_id": ["a"], "vector": [[1.0, 2.0, 3.0]], "vector_dim": ["3"]}),
        "column vector_dim must hold whole numbers",
    ),
    "no rows": (table(ROWS).slice(0, 0), "no embeddings"),
}


@pytest.mark.parametrize("case", TABLES)
@pytest.mark.parametrize("name", ["arrow", "parquet"])
def test_a_table_of_other_columns_is_400(cast: Cast, name: str, case: str) -> None:
    given, says = TABLES[case]
    body = stream_of(given) if name == "arrow" else parquet_of(given)
    with nothing_changes():
        answer = cast.erin.post(PROJECT, raw=body, content_type=FILES[name])
        assert_refused(answer, 400, says=says)


def test_a_column_that_occurs_twice_is_400(cast: Cast) -> None:
    columns = [pa.array(["a"]), pa.array([[1.0, 2.0, 3.0]]), pa.array(["x"]), pa.array(["y"])]
    given = pa.Table.from_arrays(columns, names=["text_id", "vector", "text", "text"])
    with nothing_changes():
        answer = cast.erin.post(PROJECT, raw=stream_of(given), content_type=ARROW)
        assert_refused(answer, 400, says="several columns text")


@every_file
def test_what_is_no_such_file_is_400(cast: Cast, name: str) -> None:
    with nothing_changes():
        for other in ("json", "lines", "arrow", "parquet"):
            if other == name or (other, name) == ("json", "lines"):
                continue
            _, written = FORMATS[other]
            answer = cast.erin.post(PROJECT, raw=written(ROWS), content_type=FILES[name])
            assert_refused(answer, 400)
        for body in (b"\n\n", b"\0" * 100, b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff" * 4):
            answer = cast.erin.post(PROJECT, raw=body, content_type=FILES[name])
            assert_refused(answer, 400)
    assert send(cast.erin, name, ROWS).status == 201


@pytest.mark.parametrize("name", ["arrow", "parquet"])
def test_a_file_that_is_cut_off_or_damaged_is_never_a_failure_of_ours(
    cast: Cast, name: str
) -> None:
    written = {"arrow": in_arrow, "parquet": in_parquet}[name]
    body = written([{**row, "metadata": {"n": n}} for n, row in enumerate(many(50))])
    source = random.Random(1)
    bodies = [body[: source.randrange(1, len(body))] for _ in range(25)]
    for _ in range(60):
        broken = bytearray(body)
        for _ in range(source.choice([1, 1, 2, 8, 64])):
            broken[source.randrange(len(broken))] = source.randrange(256)
        bodies.append(bytes(broken))
    for each in bodies:
        answer = cast.erin.post(PROJECT, raw=each, content_type=FILES[name])
        # Some of what is changed are numbers and texts, which cannot be wrong.
        if answer.status == 201:
            assert cast.alice.delete(PROJECT).status == 200
        else:
            assert_refused(answer, 413 if answer.status == 413 else 400)
    assert send(cast.erin, name, ROWS).status == 201


@hypothesis_settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(media_type=st.sampled_from(sorted(FILES.values())), body=st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(cast: Cast, media_type: str, body: bytes) -> None:
    with nothing_changes():
        answer = cast.erin.post(PROJECT, raw=body, content_type=media_type)
        # The test client sends no length with an empty body.
        assert answer.status in ({400} if body else {411})


# --- Bombs ----------------------------------------------------------------------------------------
def test_a_dictionary_that_unpacks_to_much_is_413(cast: Cast, settings: Settings) -> None:
    settings.MAX_BULK_BYTES = 32 * 1024**2
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 4_000), pa.array(["x" * 1_000_000]))
    ids = [f"t{n}" for n in range(4_000)]
    given = pa.table({"text_id": ids, "vector": [[1.0, 2.0, 3.0]] * 4_000, "text": long})
    for content_type, body in ((ARROW, stream_of(given)), (PARQUET, parquet_of(given))):
        assert len(body) < 2 * 1024**2
        with nothing_changes():
            answer = cast.erin.post(PROJECT, raw=body, content_type=content_type)
            assert_refused(answer, 413, says="unpacks to more than 32 MiB")


def test_a_packed_buffer_that_unpacks_to_much_is_refused(cast: Cast, settings: Settings) -> None:
    settings.MAX_BULK_BYTES = 4 * 1024**2
    ids = [f"t{n}" for n in range(1_000)]
    given = pa.table(
        {"text_id": ids, "vector": [[1.0, 2.0, 3.0]] * 1_000, "text": ["x" * 10_000] * 1_000}
    )
    for content_type, body in (
        (ARROW, stream_of(given, compression="zstd")),
        (PARQUET, parquet_of(given, compression="zstd")),
    ):
        assert len(body) < 1024**2
        with nothing_changes():
            answer = cast.erin.post(PROJECT, raw=body, content_type=content_type)
            assert_refused(answer, 413, says="unpacks to more than 4 MiB")


@pytest.mark.parametrize("name", ["arrow", "parquet"])
def test_a_row_that_is_too_large_is_413(cast: Cast, name: str) -> None:
    rows = [{**ROWS[0], "text": "x" * 17 * 1024**2}]
    with nothing_changes():
        answer = send(cast.erin, name, rows)
        assert_refused(answer, 413, says="one of its rows has more than 16 MiB")


@every_file
def test_the_limit_of_bulk_uploads_is_their_own(cast: Cast, settings: Settings, name: str) -> None:
    settings.MAX_BODY_BYTES = 50_000
    settings.MAX_BULK_BYTES = 400_000
    content_type, written = FORMATS[name]
    small, large = written(many(3_000)), written(many(40_000))
    assert 50_000 < len(small) < 400_000 < len(large)
    with nothing_changes():
        chunked: dict[str, Any] = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}
        for sent in ({}, chunked):
            answer = ask_raw(cast.erin, "POST", PROJECT, large, CONTENT_TYPE=content_type, **sent)
            assert_refused(answer, 413)
        # Nowhere else, and nothing else.
        for method, path, media_type in (
            ("POST", PROJECT, "application/json"),
            ("PUT", f"{PROJECT}/a", content_type),
            ("PUT", PROJECT, content_type),
            ("POST", "/v1/similars/alice/letters", content_type),
            ("POST", "/nowhere", content_type),
        ):
            answer = cast.erin.ask(method, path, raw=small, content_type=media_type)
            assert_refused(answer, 413)
    assert cast.erin.post(PROJECT, raw=small, content_type=content_type).status == 201


@every_file
def test_a_request_has_a_largest_number_of_rows(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("embeddings.files._uploads.MAXIMUM_ROWS", 2_100)
    with nothing_changes():
        assert_refused(send(cast.erin, name, many(2_101)), 413, says="2100")
    assert send(cast.erin, name, many(2_100)).status == 201


# --- Who may --------------------------------------------------------------------------------------
@every_file
def test_nothing_is_read_of_whoever_may_not_write(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("common.bodies.spool", fail)
    with nothing_changes():
        for caller, status in ((cast.rita, 403), (cast.sam, 403), (cast.nobody, 401)):
            assert_refused(send(caller, name, ROWS), status)


def test_other_media_types_are_415_and_the_answer_names_ours(cast: Cast) -> None:
    with nothing_changes():
        for media_type in ("text/csv", "application/octet-stream", "application/vnd.apache.arrow"):
            answer = cast.erin.post(PROJECT, raw=b"a", content_type=media_type)
            assert_refused(answer, 415, says="application/vnd.apache.arrow.stream")
        latin = cast.erin.post(PROJECT, raw=b"{}", content_type=f"{NDJSON}; charset=latin-1")
        assert_refused(latin, 415, says="UTF-8")
        # Only where embeddings are uploaded.
        for method, path in (("PUT", f"{PROJECT}/a"), ("POST", "/v1/similars/alice/letters")):
            answer = cast.erin.ask(method, path, raw=in_lines(ROWS), content_type=NDJSON)
            assert_refused(answer, 415)


# --- The process that decodes ---------------------------------------------------------------------
def child() -> psutil.Process:
    """Return the process that decodes for this one."""
    kept = _decoder._keeper.child
    assert kept is not None
    return psutil.Process(kept.process.pid)


def test_the_process_stays_and_is_replaced_when_it_dies(cast: Cast) -> None:
    assert send(cast.erin, "arrow", many(1)).status == 201
    first = child()
    assert send(cast.erin, "parquet", ROWS).status == 201
    assert child() == first
    first.kill()
    # Until it is gone, it looks like one that dies over the next file.
    first.wait(timeout=10)
    assert send(cast.erin, "arrow", [{**ROWS[0], "text_id": "z"}]).status == 201
    assert child() != first


def test_a_process_that_is_killed_at_work_is_a_refusal(cast: Cast) -> None:
    assert send(cast.erin, "arrow", many(1)).status == 201
    stopped = child()
    stopped.send_signal(signal.SIGSTOP)
    killer = threading.Timer(0.5, stopped.kill)
    killer.start()
    with nothing_changes():
        answer = send(cast.erin, "arrow", ROWS)
        assert_refused(answer, 400, says="too much memory or time")
    killer.join()
    assert send(cast.erin, "arrow", ROWS).status == 201


def test_a_process_that_takes_too_long_is_killed(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert send(cast.erin, "arrow", many(1)).status == 201
    stopped = child()
    stopped.send_signal(signal.SIGSTOP)
    with nothing_changes(), monkeypatch.context() as patch:
        patch.setattr(_decoder, "_PATIENCE", 0.05)
        answer = send(cast.erin, "arrow", ROWS)
        assert_refused(answer, 400, says="too much memory or time")
    assert not stopped.is_running()
    assert send(cast.erin, "arrow", ROWS).status == 201


@every_file
def test_a_full_disk_is_503(cast: Cast, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with nothing_changes(), monkeypatch.context() as patch:
        patch.setattr("common.bodies.tempfile.TemporaryFile", fail)
        assert_refused(send(cast.erin, name, ROWS), 503)
        answer = cast.rita.get(PROJECT, headers={"Accept": FILES[name]})
        assert_refused(answer, 503)
    assert send(cast.erin, name, ROWS).status == 201


def test_a_process_is_replaced_after_some_uses(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_decoder, "_USES", 2)
    _decoder.end()
    seen = set()
    for each in "abcd":
        assert send(cast.erin, "arrow", [{**ROWS[0], "text_id": each}]).status == 201
        seen.add(child().pid)
    assert len(seen) == 3


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
def test_the_process_has_no_descriptors_and_no_secrets(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARMARIUM_SECRET_KEY", "hush")
    _decoder.end()
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    try:
        assert send(cast.erin, "arrow", ROWS).status == 201
        opened = {each.name: str(each.readlink()) for each in child_files()}
        assert {name: where.split(":")[0] for name, where in opened.items()}.items() >= {
            ("0", "socket"),
            ("1", "/dev/null"),
            ("2", "/dev/null"),
        }
        assert set(opened) - {"0", "1", "2"} == {
            name
            for name, where in opened.items()
            if where == opened["0"] and name not in {"0", "1", "2"}
        }
        assert b"ARMARIUM" not in Path(f"/proc/{child().pid}/environ").read_bytes()
    finally:
        os.close(reading)
        os.close(writing)
        _decoder.end()


def child_files() -> list[Path]:
    return list(Path(f"/proc/{child().pid}/fd").iterdir())


def test_several_uploads_at_once_take_turns(cast: Cast) -> None:
    # Decoding alone: the tests' connection belongs to this thread.
    results: list[int] = []

    def decode(count: int) -> None:
        with tempfile.TemporaryFile() as sent:
            sent.write(in_arrow(many(count)))
            sent.flush()
            with _decoder.decode(sent, "arrow", maximum=1000) as done:
                results.append(pa.ipc.open_stream(done.read()).read_all().num_rows)

    threads = [threading.Thread(target=decode, args=(count,)) for count in range(1, 9)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(results) == list(range(1, 9))


# --- The two ways to read -------------------------------------------------------------------------
def test_what_is_read_by_columns_is_what_is_read_item_by_item(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from embeddings import batches, columns

    expected = batches.Expected("alice", "model", 3)
    values: list[Any] = [
        {"a": 1.5, "b": "ü", "c": [[{"d": None}]]},
        None,
        {},
        {"": -5},
        {"t": True},
        {"x": {}},
    ]
    more = [{**row, "metadata": each} for row, each in zip(many(6), values, strict=True)]
    for body in (in_json(ROWS + more), in_base64(ROWS + more)):
        fast = batches.parse_batch(body, expected)
        with monkeypatch.context() as patch:
            patch.setattr(columns, "read", lambda *args, **options: None)
            slow = batches.parse_batch(body, expected)
        assert np.array_equal(fast.vectors, slow.vectors)
        assert fast.text_ids == slow.text_ids
        assert fast.texts == slow.texts
        assert fast.metadata == slow.metadata
        assert fast.metadata_json == slow.metadata_json


def test_the_ordinary_ways_are_the_fast_ones(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise AssertionError("item by item")

    monkeypatch.setattr("embeddings.batches._read_items", fail)
    monkeypatch.setattr("embeddings.batches.check_row", fail)
    for number, name in enumerate(FORMATS):
        rows = [{**row, "text_id": f"{number}-{row['text_id']}"} for row in ROWS]
        assert send(cast.erin, name, rows).status == 201
    began = time.monotonic()
    assert send(cast.erin, "arrow", many(5_000)).status == 201
    assert time.monotonic() - began < 10

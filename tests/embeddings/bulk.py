"""Uploads in every format that they may have."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tests.factories import Answer, Caller

PROJECT = "/v1/embeddings/alice/letters"
NDJSON = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
Rows = Sequence[dict[str, Any]]


def as_base64(vector: Any) -> str:
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()


def in_json(rows: Rows) -> bytes:
    """Return the rows as the JSON body, with all that it needs."""
    more = [{"instance_handle": "model", "vector_dim": len(row["vector"]), **row} for row in rows]
    return orjson.dumps({"embeddings": more})


def in_base64(rows: Rows) -> bytes:
    more = [
        {
            "instance_handle": "model",
            "vector_dim": len(row["vector"]),
            **row,
            "vector": as_base64(row["vector"]),
        }
        for row in rows
    ]
    return orjson.dumps({"embeddings": more})


def in_lines(rows: Rows) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def in_base64_lines(rows: Rows) -> bytes:
    return in_lines([{**row, "vector": as_base64(row["vector"])} for row in rows])


def table(rows: Rows, *, vector: pa.DataType | None = None) -> pa.Table:
    """Return the rows as a table, with metadata as JSON texts."""
    flat = [
        {**row, "metadata": orjson.dumps(row["metadata"]).decode()} if "metadata" in row else row
        for row in rows
    ]
    given = pa.Table.from_pylist(flat)
    place = given.schema.get_field_index("vector")
    numbers = given["vector"].cast(vector or pa.list_(pa.float32()))
    return given.set_column(place, "vector", numbers)


def stream_of(given: pa.Table, *, rows: int | None = None, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, given.schema, options=pa.ipc.IpcWriteOptions(**options)) as stream:
        stream.write_table(given, max_chunksize=rows)
    return sink.getvalue()


def parquet_of(given: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(given, sink, **options)
    return sink.getvalue()


def in_arrow(rows: Rows) -> bytes:
    return stream_of(table(rows))


def in_fixed_arrow(rows: Rows) -> bytes:
    return stream_of(table(rows, vector=pa.list_(pa.float32(), len(rows[0]["vector"]))))


def in_parquet(rows: Rows) -> bytes:
    return parquet_of(table(rows))


FORMATS: dict[str, tuple[str, Callable[[Rows], bytes]]] = {
    "json": ("application/json", in_json),
    "base64": ("application/json", in_base64),
    "lines": (NDJSON, in_lines),
    "jsonl": ("application/jsonl; charset=utf-8", in_lines),
    "jsonlines": ("application/x-jsonlines", in_lines),
    "base64 lines": (NDJSON, in_base64_lines),
    "arrow": (ARROW, in_arrow),
    "fixed arrow": (ARROW, in_fixed_arrow),
    "parquet": (PARQUET, in_parquet),
}
FILES = {"lines": NDJSON, "arrow": ARROW, "parquet": PARQUET}


def send(caller: Caller, name: str, rows: Rows, path: str = PROJECT) -> Answer:
    """Upload rows in a format of FORMATS."""
    content_type, written = FORMATS[name]
    return caller.post(path, raw=written(rows), content_type=content_type)

"""Embeddings in the body of one request: JSON lines, an Arrow stream or Parquet."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from common import json
from common.errors import Invalid, TooLarge
from embeddings import batches, columns
from embeddings.batches import Batch, Expected
from embeddings.columns import Matrix
from embeddings.files import _decoder, _jsonl
from embeddings.files._parquet import plain_values, rows_of
from embeddings.files._rows import Collector, Rejected

MAXIMUM_ROWS = 500_000
# Which of the formats below a media type is.
MEDIA_TYPES = {
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/x-jsonlines": "jsonl",
    "application/vnd.apache.arrow.stream": "arrow",
    "application/vnd.apache.parquet": "parquet",
}
_JSON_LINES = "jsonl"


@dataclass(frozen=True)
class Part:
    """Some consecutive embeddings of an upload.

    numbers: which row each of them is in, or which line, counted from 0.
    """

    batch: Batch
    numbers: list[int]


@contextmanager
def opened(sent: BinaryIO, file_format: str) -> Iterator[BinaryIO]:
    """Return what `parts_of` reads, for as long as the block lasts.

    sent: the body, in a file on the disk. What strangers can make is decoded elsewhere.
    Raises as `_decoder.decode`.
    """
    if file_format == _JSON_LINES:
        yield sent
        return
    with _decoder.decode(sent, file_format, maximum=MAXIMUM_ROWS) as decoded:
        yield decoded


def parts_of(stream: BinaryIO, file_format: str, expected: Expected) -> Iterator[Part]:
    """Return the embeddings, some at a time, from the start.

    Raises Invalid naming the first row that cannot be stored, or for none at all, and TooLarge.
    """
    stream.seek(0)
    reading = _lines if file_format == _JSON_LINES else _batches
    count = 0
    for part in reading(stream, expected):
        count += len(part.batch)
        if count > MAXIMUM_ROWS:
            raise TooLarge(
                f"A request holds at most {MAXIMUM_ROWS} embeddings, this one more; send several."
            )
        yield part
    if not count:
        raise json.invalid("body", "It holds no embeddings; send at least one.")


def _lines(stream: BinaryIO, expected: Expected) -> Iterator[Part]:
    lines: list[bytes] = []
    numbers: list[int] = []
    size = 0
    for number, line in _jsonl.lines_of(stream):
        if line is None:
            limit = _jsonl.MAXIMUM_LINE_BYTES // 1024**2
            raise json.invalid(f"body.rows[{number}]", f"The line is longer than {limit} MB.")
        lines.append(line)
        numbers.append(number)
        size += len(line)
        if len(lines) >= _decoder.ROWS or size >= _decoder.BATCH_BYTES:
            yield _lines_part(lines, numbers, expected)
            lines, numbers, size = [], [], 0
    if lines:
        yield _lines_part(lines, numbers, expected)


def _lines_part(lines: list[bytes], numbers: list[int], expected: Expected) -> Part:
    found = columns.read_lines(lines, **_agreeing(expected))
    if found is not None:
        return Part(batches.batch_of(found), numbers)
    collector = Collector(expected)
    for number, line in zip(numbers, lines, strict=True):
        _jsonl.add(collector, number, line)
    return _strict(collector)


def _batches(stream: BinaryIO, expected: Expected) -> Iterator[Part]:
    first = 0
    readable: Any = stream
    for batch in pa.ipc.open_stream(readable):
        if batch.num_rows:
            yield _batch_part(batch, first, expected)
        first += batch.num_rows


def _batch_part(batch: Any, first: int, expected: Expected) -> Part:
    numbers = list(range(first, first + batch.num_rows))
    has_vectors = "vector" in batch.schema.names
    vectors = _matrix(batch["vector"], expected.dimensions) if has_vectors else None
    kind = batch.schema.field("metadata").type if "metadata" in batch.schema.names else None
    nested = kind is not None and (pa.types.is_struct(kind) or pa.types.is_map(kind))
    if vectors is not None and not nested:
        given = {name: plain_values(batch[name]) for name in batch.schema.names if name != "vector"}
        found = columns.read_arrow(given, vectors, **_agreeing(expected))
        if found is not None:
            return Part(batches.batch_of(found), numbers)
    collector = Collector(expected)
    for number, row in zip(numbers, rows_of(batch), strict=True):
        collector.add(number, row)
    return _strict(collector)


def _matrix(column: Any, dimensions: int) -> Matrix | None:
    """Return lists of numbers as one array, or None where they have other lengths or hold nulls."""
    if column.null_count or column.flatten().null_count:
        return None
    offsets = column.offsets.to_numpy()
    if not (np.diff(offsets) == dimensions).all():
        return None
    numbers = column.values.to_numpy()[offsets[0] : offsets[-1]]
    matrix: Matrix = numbers.reshape(len(column), dimensions)
    return matrix


def _agreeing(expected: Expected) -> dict[str, Any]:
    return {
        "dimensions": expected.dimensions,
        "instances": (expected.handle, f"{expected.owner}/{expected.handle}"),
        "owner": expected.owner,
    }


def _strict(collector: Collector) -> Part:
    rows = collector.take(None)
    if rows.rejected:
        raise _refusal(rows.rejected[0])
    return Part(rows.batch, rows.numbers)


def _refusal(rejected: Rejected) -> Invalid:
    location = f"body.rows[{rejected.row}]"
    named = f" (text_id '{rejected.text_id[:100]}')" if rejected.text_id else ""
    return json.invalid(location, f"{rejected.reason}{named}")

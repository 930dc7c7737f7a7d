"""JSON lines: an object a line, also compressed with gzip."""

import gzip
import io
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

import orjson
import simdjson

from common import json
from common.errors import Invalid
from embeddings.batches import Expected, row_of
from embeddings.files._rows import Collector, Row, Rows, Unreadable
from embeddings.files._uses import Use, Uses

# A vector of 64 000 dimensions takes 1.4 MB, so this is room for a very long text.
MAXIMUM_LINE_BYTES = 32 * 1024**2
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"


def read_json_lines(
    source: Path | BinaryIO, expected: Expected, *, batch_size: int, uses: Uses | None = None
) -> Generator[Rows, None, None]:
    """Return the rows of JSON lines; as `files.read`. Empty lines count, but are no rows."""
    with ExitStack() as stack:
        try:
            raw = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
            size = source.stat().st_size if isinstance(source, Path) else 0
            stream = unpacked(raw)
        except OSError as error:
            raise Unreadable(f"Cannot read the file: {error.strerror or error}.") from error
        yield from _rows(
            stream, expected, batch_size, uses, lambda: raw.tell() / size if size else None
        )


def _rows(
    stream: BinaryIO,
    expected: Expected,
    batch_size: int,
    uses: Uses | None,
    fraction: Callable[[], float | None],
) -> Generator[Rows, None, None]:
    collector = Collector(expected)
    number = 0
    damage: Unreadable | None = None
    while True:
        try:
            line = _next_line(stream)
        except (OSError, EOFError, zlib.error) as error:
            damage = Unreadable(
                f"The file cannot be read any further after line {number}: {error}."
            )
            damage.__cause__ = error
            break
        if line == b"":
            break
        number += 1
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK) if line else line
        add(collector, number, line, uses)
        if len(collector) >= batch_size:
            yield collector.take(fraction())
    yield collector.take(fraction())
    if damage is not None:
        raise damage


def add(collector: Collector, number: int, line: bytes | None, uses: Uses | None = None) -> None:
    if line is None:
        limit = MAXIMUM_LINE_BYTES // 1024**2
        collector.reject(number, "", Invalid(f"The line is longer than {limit} MB."))
        return
    line = line.strip()
    if not line:
        return
    try:
        given = row_of(line)
        if uses is not None:
            given = uses.row(given)
    except Invalid as error:
        name = "text_id" if uses is None else uses.name_of(Use.ID)
        collector.reject(number, _text_of(line, name), error)
    else:
        collector.add(number, given)


def lines_of(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Return the lines that are not empty, each with its number from 0; None for one too long."""
    number = -1
    while (line := _next_line(stream)) != b"":
        number += 1
        if line is None:
            yield number, None
            continue
        if number == 0:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        line = line.strip()
        if line:
            yield number, line


def _next_line(stream: BinaryIO) -> bytes | None:
    """Return the next line, b"" at the end, or None for one that is too long, which is skipped."""
    line = stream.readline(MAXIMUM_LINE_BYTES + 1)
    if len(line) <= MAXIMUM_LINE_BYTES:
        return line
    while line and not line.endswith(b"\n"):
        line = stream.readline(MAXIMUM_LINE_BYTES)
    return None


def unpacked(raw: BinaryIO) -> BinaryIO:
    """Return a stream of lines, also of compressed ones; raise Unreadable for Parquet."""
    if not isinstance(raw, io.BufferedReader):
        raw = io.BufferedReader(cast("io.RawIOBase", raw))
    start = raw.peek(4)[:4]
    if start == _PARQUET:
        raise Unreadable("This is a Parquet file; say so with --format parquet.")
    if start[:2] == _GZIP:
        return cast("BinaryIO", io.BufferedReader(gzip.GzipFile(fileobj=raw)))
    return raw


def _text_of(line: bytes, name: str | None) -> str:
    try:
        found = simdjson.Parser().parse(line)
        text_id = found[name] if name and isinstance(found, simdjson.Object) else ""
    except (ValueError, RuntimeError, KeyError):
        return ""
    return text_id if isinstance(text_id, str) else ""


class JsonLinesWriter:
    """Writes an object a line. Numbers are the shortest that give the same float32 again."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, rows: Iterable[Row]) -> None:
        """Write rows."""
        lines = [
            json.render(
                {
                    "text_id": row.text_id,
                    "vector_dim": len(row.vector),
                    "text": row.text,
                    # Read once: PostgreSQL writes 1e300 as a 1 with 300 zeros.
                    "metadata": orjson.loads(row.metadata),
                    "vector": row.vector,
                }
            )
            for row in rows
        ]
        self._stream.write(b"".join(line + b"\n" for line in lines))

    def close(self) -> None:
        """Do nothing: the last line is complete."""

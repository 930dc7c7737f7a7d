"""Reads tables, CSV and Parquet, in a process of its own whose memory and time are limited.

    python -I _table_child.py FORMAT FILE ROWS BYTES COLUMNS

writes an Arrow IPC stream to standard output. COLUMNS is a JSON object: the names of the columns
that are wanted, and what for: "text", "vector" or "value". They come in this order as columns 0, 1
…, all of them texts, null for nothing: those of CSV as they are, values of Parquet as JSON. A
vector that is a list of numbers comes as a large list of float32 in a column `vector` instead. A
column `problem` says what is wrong with a row. Each batch has ROWS rows at most, and tells the
fraction of the file that has been read.

    python -I _table_child.py FORMAT FILE ROWS BYTES

writes a JSON object: the names of all columns, and the values of the first ROWS rows.

On failure it ends with exit code 1 and one line on standard error that begins with "reason:".
"""

import base64
import codecs
import csv
import datetime
import decimal
import gzip
import io
import json
import math
import os
import resource
import sys
import uuid
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO

# An isolated interpreter looks for modules in the standard library and among packages only.
sys.path.append(os.path.dirname(__file__))  # noqa: PTH120

import _child  # type: ignore[import-not-found]
import pyarrow as pa
import pyarrow.parquet as pq
from _child import Refused

MAXIMUM_COLUMNS = 200
_LONGEST_CELL = 32 * 1024**2
_BATCH_BYTES = 16 * 1024**2
# What a person may be shown of a value.
_LONGEST_SHOWN = 400_000
_SECONDS = 600
_BYTES_A_SECOND = 256 * 1024
_GZIP = b"\x1f\x8b"
_DELIMITERS = ",;\t|"
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


# --- CSV ------------------------------------------------------------------------------------------
class Csv:
    """A table of texts: a header, and a record for each row."""

    def __init__(self, path: str) -> None:
        self._size = os.stat(path).st_size  # noqa: PTH116
        self._file: BinaryIO = open(path, "rb")  # noqa: PTH123, SIM115
        text = _text_of(self._file)
        csv.field_size_limit(_LONGEST_CELL)
        # A quotation mark that is never closed would take in the rest of the file.
        self._records = csv.reader(text, delimiter=_delimiter_of(text), strict=True)
        header = self._next()
        if header is None:
            raise Refused("it is empty: the first row must hold the names of the columns")
        self.names = _named(header)
        _check_names(self.names)

    @property
    def fraction(self) -> float:
        """How much of the file has been read."""
        return min(1.0, self._file.tell() / self._size)

    def rows(self) -> Iterator[tuple[list[str], str | None]]:
        """Return the cells of each row, and what is wrong with it."""
        while (record := self._next()) is not None:
            if not record:
                # An empty line is no row, but has a number.
                yield [], None
            elif len(record) != len(self.names):
                problem = f"The row has {len(record)} cells; there are {len(self.names)} columns."
                yield record, problem
            else:
                yield record, None

    def _next(self) -> list[str] | None:
        try:
            return next(self._records, None)
        except csv.Error as error:
            raise Refused(
                f"after line {self._records.line_num} it is no CSV: {error}; quotation marks "
                "inside of quoted cells are doubled"
            ) from error
        except UnicodeError as error:
            raise Refused(
                f"after line {self._records.line_num} it is not UTF-8; save it as CSV in UTF-8"
            ) from error
        except (EOFError, OSError) as error:
            raise Refused(f"after line {self._records.line_num}: {error}") from error


def _text_of(file: Any) -> TextIO:
    if file.peek(2)[:2] == _GZIP:
        file = io.BufferedReader(gzip.GzipFile(fileobj=file))
    start = file.peek(4)[:4]
    marked = (name for mark, name in _BYTE_ORDER_MARKS.items() if start.startswith(mark))
    return io.TextIOWrapper(file, encoding=next(marked, "utf-8"), newline="")


def _delimiter_of(text: TextIO) -> str:
    """Return what separates the names in the first line; the stream is at its start again."""
    try:
        line = text.readline(_BATCH_BYTES)
        text.seek(0)
    except (UnicodeError, EOFError, OSError) as error:
        raise Refused("it is not UTF-8; save it as CSV in UTF-8") from error
    outside = "".join(line.split('"')[::2])
    return max(_DELIMITERS, key=outside.count)


def _named(header: list[str]) -> list[str]:
    return [name.strip() or f"column {place}" for place, name in enumerate(header, 1)]


def _check_names(names: list[str]) -> None:
    if len(names) > MAXIMUM_COLUMNS:
        raise Refused(f"it has {len(names)} columns; at most {MAXIMUM_COLUMNS} can be read")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Refused(f"it has several columns '{twice[:60]}'")


def csv_batches(path: str, rows: int, columns: dict[str, str]) -> Iterator[tuple[Any, float]]:
    """Return the wanted columns, some rows at a time, and the fraction that has been read."""
    table = Csv(path)
    places = _places(table.names, columns)
    cells: list[list[str]] = []
    problems: list[str | None] = []
    size = 0
    for record, problem in table.rows():
        is_whole = record and problem is None
        cells.append([record[place] if is_whole else "" for place in places])
        # The parent passes over what has no words.
        problems.append(problem if record else "")
        size += sum(map(len, cells[-1]))
        if len(cells) >= rows or size >= _BATCH_BYTES:
            yield _texts(cells, problems, len(places)), table.fraction
            cells, problems, size = [], [], 0
    yield _texts(cells, problems, len(places)), 1.0


def _texts(cells: list[list[str]], problems: list[str | None], width: int) -> pa.RecordBatch:
    columns = [pa.array([row[place] for row in cells], pa.large_string()) for place in range(width)]
    names = [*map(str, range(width)), "problem"]
    return pa.record_batch([*columns, pa.array(problems, pa.string())], names=names)


def _places(names: list[str], columns: dict[str, str]) -> list[int]:
    for name in columns:
        if name not in names:
            found = ", ".join(names[:20])
            raise Refused(f"it has no column '{name[:60]}'; its columns are: {found[:300]}")
    return [names.index(name) for name in columns]


# --- Parquet --------------------------------------------------------------------------------------
def opened(path: str) -> Any:
    """Return a Parquet file whose columns can be named."""
    file = pq.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=1024**2)
    _check_names(file.schema_arrow.names)
    return file


def parquet_batches(path: str, rows: int, columns: dict[str, str]) -> Iterator[tuple[Any, float]]:
    """Return the wanted columns, some rows at a time, and the fraction that has been read."""
    file = opened(path)
    _places(file.schema_arrow.names, columns)
    declared = max(1, file.metadata.num_rows)
    count = 0
    batches = file.iter_batches(batch_size=rows, columns=list(columns), use_threads=False)
    for batch in batches:
        batch.validate(full=True)
        count += batch.num_rows
        yield _converted(batch, columns), min(1.0, count / declared)


def _converted(batch: pa.RecordBatch, columns: dict[str, str]) -> pa.RecordBatch:
    problems: list[str | None] = [None] * batch.num_rows
    arrays: list[Any] = []
    names: list[str] = []
    for place, (name, wanted) in enumerate(columns.items()):
        column = batch[name]
        if wanted == "vector" and _holds_numbers(column.type):
            arrays.append(column.cast(pa.large_list(pa.float32()), safe=False))
            names.append("vector")
        else:
            written = _as_text if wanted == "text" else _as_json
            arrays.append(pa.array(written(column, name, problems), pa.large_string()))
            names.append(str(place))
    return pa.record_batch([*arrays, pa.array(problems, pa.string())], names=[*names, "problem"])


def _holds_numbers(kind: Any) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(of_kind(kind) for of_kind in lists):
        return False
    return bool(pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))


def _as_text(column: Any, name: str, problems: list[str | None]) -> Iterator[str | None]:
    for row, value in enumerate(_plain(column, name, problems)):
        if value is None or isinstance(value, str):
            yield value
        elif isinstance(value, int | uuid.UUID | datetime.date):
            yield str(value)
        else:
            problems[row] = f"The column '{name[:60]}' must hold texts."
            yield None


def _as_json(column: Any, name: str, problems: list[str | None]) -> Iterator[str | None]:
    for row, value in enumerate(_plain(column, name, problems)):
        try:
            missing = value is None or (isinstance(value, float) and math.isnan(value))
            yield None if missing else json.dumps(value, default=_simple, allow_nan=False)
        except (TypeError, ValueError) as error:
            problems[row] = f"The column '{name[:60]}' holds what JSON cannot express: {error}."
            yield None


def _plain(column: Any, name: str, problems: list[str | None]) -> Iterator[Any]:
    for row, scalar in enumerate(column):
        try:
            yield scalar.as_py(maps_as_pydicts="strict")
        except (KeyError, ValueError, OverflowError) as error:
            problems[row] = f"The column '{name[:60]}' cannot be read: {error}."
            yield None


def _simple(value: object) -> object:
    match value:
        case datetime.date() | datetime.time():
            return value.isoformat()
        case decimal.Decimal():
            return float(value)
        case uuid.UUID() | datetime.timedelta():
            return str(value)
        case _:
            raise TypeError(f"a {type(value).__name__}")


# --- The first rows -------------------------------------------------------------------------------
def first_rows(file_format: str, path: str, rows: int) -> dict[str, Any]:
    """Return the names of all columns, and the values of the first rows."""
    if file_format == "csv":
        table = Csv(path)
        shown = []
        try:
            for record, problem in table.rows():
                if record and problem is None:
                    shown.append([_short(cell) for cell in record])
                if len(shown) == rows:
                    break
        except Refused:
            # What comes before the damage can be stored.
            if not shown:
                raise
        return {"columns": table.names, "rows": shown}
    file = opened(path)
    names = file.schema_arrow.names
    batch = next(file.iter_batches(batch_size=rows, use_threads=False), None)
    problems: list[str | None] = [None] * rows
    columns = [] if batch is None else [list(_plain(batch[name], name, problems)) for name in names]
    return {
        "columns": names,
        "rows": [[_short(cell) for cell in row] for row in zip(*columns, strict=True)],
    }


def _short(value: object) -> object:
    """Return a value that JSON can express, and that is not too long."""
    if isinstance(value, str):
        return value[:_LONGEST_SHOWN]
    if isinstance(value, bytes):
        return base64.b64encode(value[:60]).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    try:
        text = json.dumps(value, default=_simple, allow_nan=False)
    except (TypeError, ValueError):
        return None
    return json.loads(text) if len(text) <= _LONGEST_SHOWN else text[:200]


# --- Running --------------------------------------------------------------------------------------
_BATCHES = {"csv": csv_batches, "parquet": parquet_batches}


def run(file_format: str, path: str, rows: int, columns: dict[str, str] | None) -> None:
    """Write what is wanted to standard output."""
    if columns is None:
        sys.stdout.write(json.dumps(first_rows(file_format, path, rows), allow_nan=False))
        return
    output: Any = sys.stdout.buffer
    stream = None
    for batch, fraction in _BATCHES[file_format](path, rows, columns):
        stream = stream or pa.ipc.new_stream(output, batch.schema)
        stream.write_batch(batch, custom_metadata={b"fraction": repr(fraction).encode()})
    if stream is not None:
        stream.close()


def main() -> int:
    """Run; return the exit code."""
    file_format, path, rows, memory, *columns = sys.argv[1:]
    _child.limit(int(memory), 64 * 1024)
    try:
        seconds = _SECONDS + os.stat(path).st_size // _BYTES_A_SECOND  # noqa: PTH116
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        run(file_format, path, int(rows), json.loads(columns[0]) if columns else None)
    except (Refused, MemoryError, pa.ArrowException, OSError, ValueError) as error:
        words = _child.reason(error, {"rows": rows})
    else:
        return 0
    print(f"reason: {words}", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""Tables with columns of any names: CSV and Parquet in a process of their own, and JSON lines."""

import json as stdlib
from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import simdjson

from common.errors import Invalid
from embeddings.batches import Expected, row_of
from embeddings.files import _jsonl
from embeddings.files._parquet import MEMORY_BYTES, decoding, rows_of, running
from embeddings.files._rows import Collector, Rows, Unreadable
from embeddings.files._uses import Column, Use, Uses, described

_CHILD = Path(__file__).parent / "_table_child.py"
# Of which columns are told.
_FIRST_ROWS = 50
_FIRST_BYTES = 16 * 1024**2
_SAID_BYTES = 256 * 1024**2
_MOST_COLUMNS = 200


def read_table(
    path: Path, file_format: str, uses: Uses, expected: Expected, *, batch_size: int
) -> Generator[Rows, None, None]:
    """Return the rows of CSV or Parquet; as `files.read`.

    The rows of CSV are numbered as spreadsheets do it: the names of the columns are the first.
    """
    collector = Collector(expected)
    number = 1 if file_format == "csv" else 0
    wanted = stdlib.dumps({name: _wanted(use) for name, use in uses.columns.items()})
    with decoding(_CHILD, file_format, path, batch_size, MEMORY_BYTES, wanted) as reader:
        for batch, fraction in _batches(reader):
            for values in rows_of(batch):
                number += 1
                if values["problem"] != "":
                    _add(collector, number, uses, values, typed=file_format != "csv")
            yield collector.take(fraction)


def _wanted(use: Use) -> str:
    if use in (Use.ID, Use.TEXT):
        return "text"
    return "vector" if use is Use.VECTOR else "value"


def _batches(reader: Any) -> Iterator[tuple[Any, float | None]]:
    while reader is not None:
        try:
            found = reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            return
        yield found.batch, float(found.custom_metadata[b"fraction"])


def _add(
    collector: Collector, number: int, uses: Uses, values: dict[str, Any], *, typed: bool
) -> None:
    raw = {}
    for place, (name, use) in enumerate(uses.columns.items()):
        value = values.get(str(place))
        if str(place) not in values:
            value = values["vector"]
        elif typed and use not in (Use.ID, Use.TEXT) and value is not None:
            value = orjson.loads(value)
        raw[name] = value
    text_id = raw.get(uses.name_of(Use.ID) or "")
    text_id = text_id if isinstance(text_id, str) else ""
    try:
        if values["problem"] is not None:
            raise Invalid(values["problem"])
        given = uses.row(raw)
    except Invalid as error:
        collector.reject(number, text_id, error)
    else:
        collector.add(number, given)


def columns_of(path: Path, file_format: str) -> list[Column]:
    """Return the columns of a file, as its first rows show them; raise Unreadable."""
    if file_format == "jsonl":
        return _columns_of_lines(path)
    with running(_CHILD, file_format, path, _FIRST_ROWS, MEMORY_BYTES) as output:
        said = output.read(_SAID_BYTES + 1)
        if len(said) > _SAID_BYTES:
            raise Unreadable("Cannot read the file: its rows are too long.")
    found = orjson.loads(said)
    return described(found["columns"], found["rows"], typed=file_format != "csv")


def _columns_of_lines(path: Path) -> list[Column]:
    names: dict[str, None] = {}
    rows: list[dict[str, Any]] = []
    size = 0
    try:
        with path.open("rb") as file:
            for _, line in islice(_jsonl.lines_of(_jsonl.unpacked(file)), _FIRST_ROWS):
                size += len(line or b"")
                row = _plain_row(line)
                if row is not None:
                    rows.append(row)
                    names.update(dict.fromkeys(row))
                if size > _FIRST_BYTES:
                    break
    except OSError as error:
        raise Unreadable(f"Cannot read the file: {error.strerror or error}.") from error
    if not rows:
        raise Unreadable(
            "Cannot read the file: none of its first lines is a JSON object, such as "
            '{"text_id": "l-1", "text": "Dear Bob"}.'
        )
    if len(names) > _MOST_COLUMNS:
        raise Unreadable(
            f"Cannot read the file: its lines have more than {_MOST_COLUMNS} different keys."
        )
    cells = [[row.get(name) for name in names] for row in rows]
    return described(list(names), cells, typed=True)


def _plain_row(line: bytes | None) -> dict[str, Any] | None:
    """Return what a line says, None where it says nothing that could be stored."""
    try:
        row = row_of(line or b"")
    except Invalid:
        return None
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value

"""PostgreSQL's binary format, and the cursor that speaks it."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
import psycopg
from django.db import connection
from django.db.backends.utils import CursorWrapper
from psycopg._queries import PostgresQuery
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format
from psycopg.types import TypeInfo

from embeddings.store._values import Matrix


class _Binary(bytes):
    """A parameter in PostgreSQL's binary format; the cast in the statement names its type."""


class _BinaryDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: _Binary) -> Buffer:
        return obj


class _QueryLogDumper(Dumper):
    """Stands in where Django writes a statement to its query log as text."""

    def dump(self, obj: _Binary) -> Buffer:
        return b"binary"

    def quote(self, obj: _Binary) -> Buffer:
        return b"'binary'"


psycopg.adapters.register_dumper(_Binary, _QueryLogDumper)
psycopg.adapters.register_dumper(_Binary, _BinaryDumper)


def encode_vector(vector: Matrix) -> bytes:
    """Return the binary form of a vector; vector: float32 of shape (dimensions,)."""
    return _Binary(struct.pack(">HH", len(vector), 0) + vector.astype(">f4").tobytes())


def decode_vector(data: bytes) -> Matrix:
    """Return a vector from its binary form, as native float32 of shape (dimensions,)."""
    return np.frombuffer(data, dtype=">f4", offset=4).astype(np.float32)


def encode_vectors(vectors: Matrix, element_oid: int) -> _Binary:
    """Return the binary form of a `vector[]`; vectors: float32 of shape (n, dimensions)."""
    count, dimensions = vectors.shape
    elements = np.empty(
        count,
        dtype=[
            ("length", ">i4"),
            ("dimensions", ">i2"),
            ("unused", ">i2"),
            ("numbers", ">f4", (dimensions,)),
        ],
    )
    elements["length"] = 4 + 4 * dimensions
    elements["dimensions"] = dimensions
    elements["unused"] = 0
    elements["numbers"] = vectors
    return _Binary(_array_header(element_oid, count) + elements.tobytes())


_length = struct.Struct(">i").pack
_TEXT_OID, _UUID_OID = 25, 2950


def encode_texts(values: Sequence[bytes]) -> _Binary:
    """Return the binary form of a `text[]`, each text in UTF-8.

    The driver looks at every text with a regular expression, which takes longer than storing it.
    """
    pieces = [_array_header(_TEXT_OID, len(values))]
    for value in values:
        pieces += (_length(len(value)), value)
    return _Binary(b"".join(pieces))


def encode_uuids(values: Sequence[bytes]) -> _Binary:
    """Return the binary form of a `uuid[]`; values: of 16 bytes each."""
    size = _length(16)
    return _Binary(
        _array_header(_UUID_OID, len(values)) + b"".join([size + value for value in values])
    )


def _array_header(element_oid: int, count: int) -> bytes:
    # One dimension, no nulls, element type, length, lower bound.
    return struct.pack(">iiIii", 1, 0, element_oid, count, 1)


def encode_int4(value: int) -> bytes:
    """Return the binary form of an `integer`."""
    return struct.pack(">i", value)


def encode_int8(value: int) -> bytes:
    """Return the binary form of a `bigint`."""
    return struct.pack(">q", value)


@dataclass(frozen=True)
class CopyRows:
    """What COPY is to store: n rows, column by column.

    same: the binary forms of the columns whose value all rows share, which come first.
    ids: UUIDs of 16 bytes each; text_ids, texts: UTF-8; metadata: UTF-8 JSON.
    vectors: float32 of shape (n, dimensions).
    """

    same: Sequence[bytes | None]
    ids: Sequence[bytes]
    text_ids: Sequence[bytes]
    vectors: Matrix
    texts: Sequence[bytes]
    metadata: Sequence[bytes]


_COPY_BEGIN = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_COPY_END = struct.pack(">h", -1)
# Each document in the binary form of `jsonb` begins with the version of the form.
_JSONB = b"\x01"


def encode_rows(rows: CopyRows) -> bytes:
    """Return rows in the binary format of COPY: columns in the order of CopyRows.

    Joined from pieces: the driver's own writer calls a dumper for each value.
    """
    count, dimensions = rows.vectors.shape
    size = 4 * dimensions
    numbers = memoryview(rows.vectors.astype(">f4").tobytes())
    # The columns that all rows share, and the length of the id.
    begin = struct.pack(">h", len(rows.same) + 5)
    begin += b"".join([_nullable(value) for value in rows.same]) + _length(16)
    vector = _length(4 + size) + struct.pack(">HH", dimensions, 0)
    pieces: list[bytes | memoryview] = [_COPY_BEGIN]
    columns = zip(rows.ids, rows.text_ids, rows.texts, rows.metadata, strict=True)
    for start, (id, text_id, text, metadata) in zip(
        range(0, count * size, size), columns, strict=True
    ):
        pieces += (
            begin,
            id,
            _length(len(text_id)),
            text_id,
            vector,
            numbers[start : start + size],
            _length(len(text)),
            text,
            _length(len(metadata) + 1),
            _JSONB,
            metadata,
        )
    pieces.append(_COPY_END)
    return b"".join(pieces)


def _nullable(value: bytes | None) -> bytes:
    return _length(-1) if value is None else _length(len(value)) + value


class _PreparingCursor(psycopg.Cursor[Any]):
    """Has PostgreSQL keep the plan of every statement it executes."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        """Execute a statement, prepared."""
        return super().execute(query, params, prepare=True, **options)

    def _send_query_prepared(self, name: bytes, pgq: PostgresQuery, **options: Any) -> None:
        # What Django writes into its query log; psycopg sets it for other statements only.
        self._query = pgq
        super()._send_query_prepared(name, pgq, **options)


def open_cursor(*, prepare: bool = False) -> CursorWrapper:
    """Return a cursor with binary parameters and results on Django's connection.

    prepare: for statements whose text comes again and again.
    Django's own cursors bind on the client, as text. This one passes through Django's wrapper, so
    that errors are translated and whatever counts, logs or forbids queries sees them.
    """
    connection.ensure_connection()
    plain: psycopg.Connection[Any] = connection.connection
    # Any: the stubs know Django's own cursors only.
    cursor: Any = _PreparingCursor(plain) if prepare else psycopg.Cursor(plain)
    cursor.format = Format.BINARY
    if connection.queries_logged:
        return connection.make_debug_cursor(cursor)
    return connection.make_cursor(cursor)


# The extension gives the type another number in each database.
_vector_oids: WeakKeyDictionary[psycopg.Connection[Any], int] = WeakKeyDictionary()


def vector_oid() -> int:
    """Return the number of the type `vector` on this connection; asks once a connection."""
    connection.ensure_connection()
    plain: psycopg.Connection[Any] = connection.connection
    if plain not in _vector_oids:
        info = TypeInfo.fetch(plain, "vector")
        if info is None:
            raise LookupError("The extension pgvector is not installed in this database.")
        _vector_oids[plain] = info.oid
    return _vector_oids[plain]

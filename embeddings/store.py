"""Every statement that touches vectors. Knows projects by id, and neither users nor requests.

The table is partitioned by `segment`. Segment 0, the growing part, takes every upload and has no
approximate index: projects in it are searched exactly, through the btree on (project_id, text_id).
Vectors cross the wire in pgvector's binary format: 16-bit dimension count, 16 unused bits, and
big-endian float32 numbers.
"""

import struct
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import psycopg
from django.db import IntegrityError, connection, transaction
from django.db.backends.utils import CursorWrapper
from psycopg import sql
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format
from psycopg.types import TypeInfo

from common.models import uuid7

Matrix = npt.NDArray[np.float32]

GROWING_SEGMENT = 0
_GROWING = sql.Identifier("embeddings_embedding_growing")


@dataclass(frozen=True)
class Row:
    """One stored embedding.

    vector: float32 of shape (dimensions,).
    metadata: UTF-8 JSON text of an object.
    """

    text_id: str
    instance_id: int
    vector: Matrix
    text: str
    metadata: bytes
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Hit:
    """One result of a search; similarity is the cosine, from -1 to 1."""

    text_id: str
    similarity: float


@dataclass(frozen=True)
class Exclusion:
    """Leaves out rows whose metadata has this text at this path, split at its dots.

    Numbers and booleans compare by their JSON text; white space around either side is ignored.
    """

    path: tuple[str, ...]
    value: str


@dataclass(frozen=True)
class Wanted:
    """Which part of the ranking a search returns."""

    limit: int
    offset: int
    threshold: float
    exclusion: Exclusion | None = None


class TextIdExists(Exception):
    """Some of the ids are stored already.

    text_ids: those of them that were found, some at least.
    """

    def __init__(self, text_ids: Sequence[str]) -> None:
        super().__init__("These text ids are stored already.")
        self.text_ids = tuple(text_ids)


# --- Binary format --------------------------------------------------------------------------------
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


def _encode_vectors(vectors: Matrix, element_oid: int) -> _Binary:
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
    # One dimension, no nulls, element type, length, lower bound.
    header = struct.pack(">iiIii", 1, 0, element_oid, count, 1)
    return _Binary(header + elements.tobytes())


# --- Reading --------------------------------------------------------------------------------------
def count(project_id: int) -> int:
    """Return how many embeddings the project has."""
    statement = sql.SQL("SELECT count(*) FROM {growing} WHERE project_id = %(project)s")
    with _cursor() as cursor:
        cursor.execute(statement.format(growing=_GROWING), {"project": project_id})
        return int(cursor.fetchone()[0])


def page(project_id: int, *, limit: int, offset: int) -> list[Row]:
    """Return a part of the project's embeddings in the order of their text ids."""
    return _rows(
        "WHERE project_id = %(project)s ORDER BY text_id LIMIT %(limit)s OFFSET %(offset)s",
        {"project": project_id, "limit": limit, "offset": offset},
    )


def after(project_id: int, text_id: str, *, limit: int) -> list[Row]:
    """Return the next embeddings in the order of text ids; "" starts with the first."""
    return _rows(
        "WHERE project_id = %(project)s AND text_id > %(after)s ORDER BY text_id LIMIT %(limit)s",
        {"project": project_id, "after": text_id, "limit": limit},
    )


def snapshot(project_id: int, *, size: int) -> Generator[list[Row], None, None]:
    """Return all of the project's embeddings by text id, some at a time, as they are now.

    What others write meanwhile is not seen: one cursor is one statement. The transaction stays open
    until the last part is read, or the iterator is closed.
    """
    with transaction.atomic(), ExitStack() as stack:
        with _cursor() as cursor:
            # Whoever reads the export may be slow, and a cursor holds no locks that hurt.
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        plain: psycopg.Connection[Any] = connection.connection
        rows = stack.enter_context(psycopg.ServerCursor(plain, "embeddings_snapshot"))
        rows.execute(
            _selection("WHERE project_id = %(project)s ORDER BY text_id"),
            {"project": project_id},
            binary=True,
        )
        while part := rows.fetchmany(size):
            yield [_row(values) for values in part]


def get(project_id: int, text_ids: Sequence[str]) -> Row | None:
    """Return the embedding with the first of these ids that is stored, or None."""
    rows = _rows(
        "WHERE project_id = %(project)s AND text_id = ANY(%(ids)s)"
        " ORDER BY array_position(%(ids)s::text[], text_id::text) LIMIT 1",
        {"project": project_id, "ids": list(text_ids)},
    )
    return rows[0] if rows else None


def existing(project_id: int, text_ids: Sequence[str]) -> set[str]:
    """Return which of these ids are stored."""
    statement = sql.SQL(
        "SELECT text_id FROM {growing} WHERE project_id = %(project)s AND text_id = ANY(%(ids)s)"
    )
    with _cursor() as cursor:
        cursor.execute(
            statement.format(growing=_GROWING), {"project": project_id, "ids": list(text_ids)}
        )
        return {row[0] for row in cursor.fetchall()}


def _rows(condition: LiteralString, parameters: dict[str, Any]) -> list[Row]:
    with _cursor() as cursor:
        cursor.execute(_selection(condition), parameters)
        return [_row(values) for values in cursor.fetchall()]


def _selection(condition: LiteralString) -> sql.Composed:
    return sql.SQL(
        "SELECT text_id, instance_id, vector_send(vector), text, metadata::text,"
        " created_at, updated_at FROM {growing} {condition}"
    ).format(growing=_GROWING, condition=sql.SQL(condition))


def _row(values: Sequence[Any]) -> Row:
    text_id, instance_id, vector, text, metadata, made, changed = values
    return Row(text_id, instance_id, decode_vector(vector), text, metadata.encode(), made, changed)


# --- Searching ------------------------------------------------------------------------------------
def nearest(project_id: int, vector: Matrix, wanted: Wanted) -> list[Hit]:
    """Return the embeddings nearest to a vector by cosine, the best first, ties by text id.

    vector: float32 of shape (dimensions,).
    """
    statement, parameters = _ranking(
        wanted, query=sql.SQL("%(vector)s::vector"), others=sql.SQL("true")
    )
    parameters |= {"project": project_id, "vector": encode_vector(vector)}
    with _cursor() as cursor:
        cursor.execute(statement, parameters)
        return [Hit(text_id, float(similarity)) for text_id, similarity in cursor.fetchall()]


def nearest_to_stored(project_id: int, text_ids: Sequence[str], wanted: Wanted) -> list[Hit] | None:
    """Return the embeddings nearest to a stored one, without itself; None where there is none.

    text_ids: of these, the first that is stored is meant. One statement.
    """
    ranking, parameters = _ranking(
        wanted,
        query=sql.SQL("query.vector"),
        others=sql.SQL("embedding.text_id <> query.text_id"),
    )
    statement = sql.SQL(
        "WITH query AS MATERIALIZED ("
        " SELECT text_id, vector FROM {growing}"
        " WHERE project_id = %(project)s AND text_id = ANY(%(ids)s)"
        " ORDER BY array_position(%(ids)s::text[], text_id::text) LIMIT 1)"
        " SELECT hits.text_id, hits.similarity"
        " FROM query LEFT JOIN LATERAL ({ranking}) AS hits ON true"
        " ORDER BY hits.similarity DESC, hits.text_id"
    ).format(growing=_GROWING, ranking=ranking)
    parameters |= {"project": project_id, "ids": list(text_ids)}
    with _cursor() as cursor:
        cursor.execute(statement, parameters)
        rows = cursor.fetchall()
    if not rows:
        return None
    return [Hit(text_id, float(similarity)) for text_id, similarity in rows if text_id is not None]


def _ranking(
    wanted: Wanted, *, query: sql.Composable, others: sql.Composable
) -> tuple[sql.Composed, dict[str, Any]]:
    """Return the statement that ranks a project's embeddings, and its parameters but the project.

    query: the vector to compare with.
    others: which rows may be results.
    The threshold cuts the ranking's tail, so it is applied outside of the sorted part: the distance
    is computed once for each row.
    """
    excluded, parameters = _excluding(wanted.exclusion)
    statement = sql.SQL(
        "SELECT text_id, 1 - distance AS similarity FROM ("
        " SELECT embedding.text_id, embedding.vector <=> {query} AS distance"
        " FROM {growing} AS embedding"
        " WHERE embedding.project_id = %(project)s"
        " AND vector_dims(embedding.vector) = vector_dims({query}) AND {others} {excluded}"
        " ORDER BY distance, embedding.text_id LIMIT %(limit)s OFFSET %(offset)s"
        ") AS ranked WHERE 1 - distance >= %(threshold)s ORDER BY distance, text_id"
    ).format(query=query, growing=_GROWING, others=others, excluded=excluded)
    parameters |= {
        "limit": wanted.limit,
        "offset": wanted.offset,
        "threshold": wanted.threshold,
    }
    return statement, parameters


def _excluding(exclusion: Exclusion | None) -> tuple[sql.Composed, dict[str, Any]]:
    """Return the condition that leaves rows out, and its parameters.

    The path is walked with `->`, which looks into objects only: `#>` would take a number in the
    path for an array index. A key that holds the dots itself counts too.
    """
    if exclusion is None:
        return sql.Composed([]), {}
    nested: sql.Composable = sql.SQL("embedding.metadata")
    parameters: dict[str, Any] = {"value": exclusion.value}
    *parents, last = exclusion.path
    for depth, key in enumerate(parents):
        nested += sql.SQL(" -> {}::text").format(sql.Placeholder(f"path_{depth}"))
        parameters[f"path_{depth}"] = key
    parameters |= {"last": last, "whole": ".".join(exclusion.path)}
    value = sql.SQL("({object}) -> %(last)s::text").format(object=nested)
    whole = sql.SQL("embedding.metadata -> %(whole)s::text")
    return sql.SQL("AND NOT ({nested} OR {whole})").format(
        nested=_equals(value), whole=_equals(whole)
    ), parameters


def _equals(value: sql.Composable) -> sql.Composed:
    # `#>> '{}'` is the text of a scalar; objects and arrays are no values to compare with.
    return sql.SQL(
        "coalesce(jsonb_typeof({value}) IN ('string', 'number', 'boolean')"
        " AND btrim(({value}) #>> ARRAY[]::text[], {space})"
        " = btrim(%(value)s::text, {space}), false)"
    ).format(value=value, space=sql.Literal(" \t\n\r\f\v"))


# --- Writing --------------------------------------------------------------------------------------
def insert(
    project_id: int,
    instance_id: int,
    *,
    text_ids: Sequence[str],
    vectors: Matrix,
    texts: Sequence[str],
    metadata: Sequence[bytes],
) -> None:
    """Store new embeddings: all of them, or none and TextIdExists. One statement.

    vectors: float32 of shape (n, dimensions).
    metadata: UTF-8 JSON text of n objects.
    """
    statement, parameters = _insertion(
        project_id, instance_id, text_ids=text_ids, vectors=vectors, texts=texts, metadata=metadata
    )
    try:
        with transaction.atomic(), _cursor() as cursor:
            cursor.execute(statement, parameters)
    except IntegrityError as error:
        if isinstance(error.__cause__, psycopg.errors.UniqueViolation):
            raise TextIdExists(sorted(existing(project_id, text_ids))) from error
        raise


def put(
    project_id: int, instance_id: int, *, text_id: str, vector: Matrix, text: str, metadata: bytes
) -> bool:
    """Store one embedding, replacing the one of that id; return whether it is new."""
    created = put_all(
        project_id,
        instance_id,
        text_ids=[text_id],
        vectors=vector.reshape(1, -1),
        texts=[text],
        metadata=[metadata],
    )
    return bool(created)


def put_all(
    project_id: int,
    instance_id: int,
    *,
    text_ids: Sequence[str],
    vectors: Matrix,
    texts: Sequence[str],
    metadata: Sequence[bytes],
) -> int:
    """Store embeddings, replacing those of the same ids; return how many are new. One statement.

    text_ids: each of them once; the rest as in `insert`.
    """
    insertion, parameters = _insertion(
        project_id, instance_id, text_ids=text_ids, vectors=vectors, texts=texts, metadata=metadata
    )
    statement = insertion + sql.SQL(
        " ON CONFLICT (project_id, text_id, segment) DO UPDATE SET instance_id ="
        " excluded.instance_id, vector = excluded.vector, text = excluded.text,"
        " metadata = excluded.metadata, updated_at = excluded.updated_at"
        # A row that was inserted has never been locked or deleted by a transaction.
        " RETURNING xmax = 0"
    )
    with _cursor() as cursor:
        cursor.execute(statement, parameters)
        return sum(bool(created) for (created,) in cursor.fetchall())


def _insertion(
    project_id: int,
    instance_id: int,
    *,
    text_ids: Sequence[str],
    vectors: Matrix,
    texts: Sequence[str],
    metadata: Sequence[bytes],
) -> tuple[sql.Composed, dict[str, Any]]:
    """Return the statement that inserts, open for a conflict clause, and its parameters."""
    # Everybody writes in the same order, so that crossing batches wait instead of deadlocking.
    order = sorted(range(len(text_ids)), key=text_ids.__getitem__)
    statement = sql.SQL(
        "INSERT INTO {growing} (segment, project_id, instance_id, id, text_id, vector, text,"
        " metadata, created_at, updated_at)"
        " SELECT {segment}, %(project)s, %(instance)s, id, text_id, vector, text,"
        " metadata::jsonb, now(), now()"
        " FROM unnest(%(ids)s::uuid[], %(text_ids)s::text[], %(vectors)s::vector[],"
        " %(texts)s::text[], %(metadata)s::text[])"
        " AS given (id, text_id, vector, text, metadata)"
    ).format(growing=_GROWING, segment=sql.Literal(GROWING_SEGMENT))
    return statement, {
        "project": project_id,
        "instance": instance_id,
        "ids": [uuid7() for _ in order],
        "text_ids": [text_ids[row] for row in order],
        "vectors": _encode_vectors(vectors[order], _vector_oid()),
        "texts": [texts[row] for row in order],
        "metadata": [metadata[row].decode() for row in order],
    }


def remove(project_id: int, text_ids: Sequence[str]) -> bool:
    """Delete the embedding with the first of these ids that is stored; say if there was one."""
    statement = sql.SQL(
        "DELETE FROM {growing} WHERE project_id = %(project)s AND text_id = ("
        " SELECT text_id FROM {growing}"
        " WHERE project_id = %(project)s AND text_id = ANY(%(ids)s)"
        " ORDER BY array_position(%(ids)s::text[], text_id::text) LIMIT 1)"
    ).format(growing=_GROWING)
    with _cursor() as cursor:
        cursor.execute(statement, {"project": project_id, "ids": list(text_ids)})
        return bool(cursor.rowcount)


def remove_all(project_id: int) -> int:
    """Delete every embedding of the project; return how many there were."""
    statement = sql.SQL("DELETE FROM {growing} WHERE project_id = %(project)s")
    with _cursor() as cursor:
        cursor.execute(statement.format(growing=_GROWING), {"project": project_id})
        return int(cursor.rowcount)


# --- Checking -------------------------------------------------------------------------------------
def of_other_dimensions(project_id: int, dimensions: int) -> list[tuple[str, int]]:
    """Return (text id, dimensions) of the project's embeddings that have another number of them."""
    statement = sql.SQL(
        "SELECT text_id, vector_dims(vector) FROM {growing}"
        " WHERE project_id = %(project)s AND vector_dims(vector) <> %(dimensions)s"
        " ORDER BY text_id"
    ).format(growing=_GROWING)
    with _cursor() as cursor:
        cursor.execute(statement, {"project": project_id, "dimensions": dimensions})
        return [(text_id, int(found)) for text_id, found in cursor.fetchall()]


def metadata_after(project_id: int, text_id: str, *, limit: int) -> list[tuple[str, bytes]]:
    """Return (text id, JSON text) of the next embeddings in the order of text ids."""
    statement = sql.SQL(
        "SELECT text_id, metadata::text FROM {growing}"
        " WHERE project_id = %(project)s AND text_id > %(after)s ORDER BY text_id LIMIT %(limit)s"
    ).format(growing=_GROWING)
    with _cursor() as cursor:
        cursor.execute(statement, {"project": project_id, "after": text_id, "limit": limit})
        return [(found, metadata.encode()) for found, metadata in cursor.fetchall()]


# --- The connection -------------------------------------------------------------------------------
def _cursor() -> CursorWrapper:
    """Return a cursor with binary parameters and results on Django's connection.

    Django's own cursors bind on the client, as text. This one passes through Django's wrapper, so
    that errors are translated and whatever counts, logs or forbids queries sees them.
    """
    connection.ensure_connection()
    # Any: the stubs know Django's own cursors only.
    cursor: Any = psycopg.Cursor(connection.connection)
    cursor.format = Format.BINARY
    if connection.queries_logged:
        return connection.make_debug_cursor(cursor)
    return connection.make_cursor(cursor)


# The extension gives the type another number in each database.
_vector_oids: WeakKeyDictionary[psycopg.Connection[Any], int] = WeakKeyDictionary()


def _vector_oid() -> int:
    """Return the number of the type `vector` on this connection; asks once a connection."""
    connection.ensure_connection()
    plain: psycopg.Connection[Any] = connection.connection
    if plain not in _vector_oids:
        info = TypeInfo.fetch(plain, "vector")
        if info is None:
            raise LookupError("The extension pgvector is not installed in this database.")
        _vector_oids[plain] = info.oid
    return _vector_oids[plain]

"""Reads and counts embeddings."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from typing import Any, LiteralString

import psycopg
from django.db import connection, transaction
from psycopg import sql

from embeddings.store._values import (
    GROWING,
    Row,
)
from embeddings.store._wire import (
    decode_vector,
    open_cursor,
)


def count(project_id: int) -> int:
    """Return how many embeddings the project has."""
    statement = sql.SQL("SELECT count(*) FROM {growing} WHERE project_id = %(project)s")
    with open_cursor() as cursor:
        cursor.execute(statement.format(growing=GROWING), {"project": project_id})
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
        with open_cursor() as cursor:
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
    with open_cursor() as cursor:
        cursor.execute(
            statement.format(growing=GROWING), {"project": project_id, "ids": list(text_ids)}
        )
        return {row[0] for row in cursor.fetchall()}


def _rows(condition: LiteralString, parameters: dict[str, Any]) -> list[Row]:
    with open_cursor() as cursor:
        cursor.execute(_selection(condition), parameters)
        return [_row(values) for values in cursor.fetchall()]


def _selection(condition: LiteralString) -> sql.Composed:
    return sql.SQL(
        "SELECT text_id, instance_id, vector_send(vector), text, metadata::text,"
        " created_at, updated_at FROM {growing} {condition}"
    ).format(growing=GROWING, condition=sql.SQL(condition))


def _row(values: Sequence[Any]) -> Row:
    text_id, instance_id, vector, text, metadata, made, changed = values
    return Row(text_id, instance_id, decode_vector(vector), text, metadata.encode(), made, changed)


def of_other_dimensions(project_id: int, dimensions: int) -> list[tuple[str, int]]:
    """Return (text id, dimensions) of the project's embeddings that have another number of them."""
    statement = sql.SQL(
        "SELECT text_id, vector_dims(vector) FROM {growing}"
        " WHERE project_id = %(project)s AND vector_dims(vector) <> %(dimensions)s"
        " ORDER BY text_id"
    ).format(growing=GROWING)
    with open_cursor() as cursor:
        cursor.execute(statement, {"project": project_id, "dimensions": dimensions})
        return [(text_id, int(found)) for text_id, found in cursor.fetchall()]


def metadata_after(project_id: int, text_id: str, *, limit: int) -> list[tuple[str, bytes]]:
    """Return (text id, JSON text) of the next embeddings in the order of text ids."""
    statement = sql.SQL(
        "SELECT text_id, metadata::text FROM {growing}"
        " WHERE project_id = %(project)s AND text_id > %(after)s ORDER BY text_id LIMIT %(limit)s"
    ).format(growing=GROWING)
    with open_cursor() as cursor:
        cursor.execute(statement, {"project": project_id, "after": text_id, "limit": limit})
        return [(found, metadata.encode()) for found, metadata in cursor.fetchall()]

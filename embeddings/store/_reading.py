"""Reads and counts embeddings, wherever they are."""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from typing import Any

import psycopg
from django.db import connection, transaction
from psycopg import sql

from embeddings.filters import Condition
from embeddings.store._conditions import conditions_of
from embeddings.store._parts import (
    VERSION,
    Parts,
    forget,
    look,
    parts_of,
    read,
    rows_of,
    sorted_rows_of,
    trusted,
)
from embeddings.store._values import Order, Row
from embeddings.store._wire import decode_vector, open_cursor

# What is at a path, if it is plain; of long texts the beginning decides.
_PLAIN = (
    "(SELECT CASE jsonb_typeof(found) WHEN 'string' THEN to_jsonb(left(found #>> '{{}}', 200))"
    " WHEN 'number' THEN found WHEN 'boolean' THEN found END"
    " FROM (SELECT metadata #> %(place{0})s::text[]) AS place (found))"
)
_ROW = "project_id, text_id, instance_id, vector, text, metadata, created_at, updated_at"


def count(project_id: int, condition: Condition | None = None) -> int:
    """Return how many embeddings the project has that a filter keeps."""
    conditions = conditions_of(condition)
    columns = "project_id, text_id" if condition is None else "project_id, text_id, metadata"
    [(found,)] = read(
        project_id,
        lambda parts: sql.SQL("SELECT {version}, count(*) FROM {rows} WHERE true{kept}").format(
            version=VERSION, rows=rows_of(parts.segment, columns), kept=trusted(conditions.text)
        ),
        conditions.parameters,
    )
    return int(found)


def page(
    project_id: int, *, limit: int, offset: int, condition: Condition | None = None
) -> list[Row]:
    """Return a part of the project's embeddings that a filter keeps, by their text ids."""
    conditions = conditions_of(condition)
    return _rows(
        project_id,
        f"WHERE true{conditions.text} ORDER BY text_id LIMIT %(limit)s OFFSET %(offset)s",
        {**conditions.parameters, "limit": limit, "offset": offset},
    )


def after(
    project_id: int, text_id: str, *, limit: int, condition: Condition | None = None
) -> list[Row]:
    """Return the next embeddings that a filter keeps by text id; "" starts with the first."""
    conditions = conditions_of(condition)
    return _rows(
        project_id,
        f"WHERE text_id > %(after)s{conditions.text} ORDER BY text_id LIMIT %(limit)s",
        {**conditions.parameters, "after": text_id, "limit": limit},
    )


def sorted_after(
    project_id: int,
    order: Order,
    place: tuple[str, str] | None,
    *,
    limit: int,
    condition: Condition | None = None,
) -> list[tuple[str, Row]]:
    """Return the next embeddings that a filter keeps in some order, each after what sorts it.

    place: what sorts the one before, as it was returned, and its id; None starts with the first.
    Reads the metadata of all that the filter keeps.
    """
    conditions = conditions_of(condition)
    places = () if order.path is None else order.path.places
    parameters: dict[str, Any] = {**conditions.parameters, "limit": limit}
    parameters |= {f"place{number}": list(keys) for number, keys in enumerate(places)}
    parameters |= {} if place is None else {"value": place[0], "after": place[1]}
    values = "".join(f" {_PLAIN.format(number)}," for number in range(len(places)))
    # What compares as the greatest of all JSON values, and as the least.
    key = f"coalesce({values} '{'null' if order.descending else '{}'}'::jsonb)"
    direction, beyond = ("DESC", "<") if order.descending else ("ASC", ">")
    place_text = "" if place is None else f"(key, text_id) {beyond} (%(value)s::jsonb, %(after)s)"
    found = read(
        project_id,
        lambda parts: sql.SQL(
            # Only what is returned is made of the rest of the row.
            "SELECT {version}, key::text AS place, text_id, instance_id, vector_send(vector), text,"
            " metadata::text, created_at, updated_at FROM (SELECT * FROM ("
            "SELECT *, {key} AS key FROM {rows} WHERE true{kept}) AS keyed WHERE {place}"
            " ORDER BY key {direction}, text_id {direction} LIMIT %(limit)s) AS part"
            " ORDER BY key {direction}, text_id {direction}"
        ).format(
            version=VERSION,
            key=trusted(key),
            rows=rows_of(parts.segment, _ROW),
            kept=trusted(conditions.text),
            place=trusted(place_text or "true"),
            direction=trusted(direction),
        ),
        parameters,
    )
    return [(str(value), _row(values)) for value, *values in found]


def snapshot(project_id: int, *, size: int) -> Generator[list[Row], None, None]:
    """Return all of the project's embeddings by text id, some at a time, as they are now.

    What others write meanwhile is not seen: one cursor is one statement. The transaction stays open
    until the last part is read, or the iterator is closed.
    """
    for part in _walk(project_id, lambda parts: _selection(parts, "ORDER BY text_id"), {}, size):
        yield [_row(values) for values in part]


def metadata_matching(
    project_id: int, condition: Condition, *, size: int
) -> Generator[list[tuple[str, bytes]], None, None]:
    """Return (text id, JSON text) of all embeddings that a filter keeps, as `snapshot` does."""
    conditions = conditions_of(condition)

    def statement(parts: Parts) -> sql.Composed:
        return sql.SQL(
            "SELECT {version}, text_id, metadata::text FROM {rows} WHERE true{kept}"
            " ORDER BY text_id"
        ).format(
            version=VERSION,
            rows=rows_of(parts.segment, "project_id, text_id, metadata"),
            kept=trusted(conditions.text),
        )

    for part in _walk(project_id, statement, conditions.parameters, size):
        yield [(text_id, metadata.encode()) for text_id, metadata in part]


def _walk(
    project_id: int,
    statement: Callable[[Parts], sql.Composed],
    parameters: dict[str, Any],
    size: int,
) -> Generator[list[tuple[Any, ...]], None, None]:
    """Return what a statement finds, some at a time; as in `read`, its first column is VERSION."""
    with transaction.atomic(), ExitStack() as stack:
        with open_cursor() as cursor:
            # Whoever reads the export may be slow, and a cursor holds no locks that hurt.
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        while True:
            parts = parts_of(project_id)
            plain: psycopg.Connection[Any] = connection.connection
            rows = stack.enter_context(psycopg.ServerCursor(plain, "embeddings_snapshot"))
            rows.execute(statement(parts), {**parameters, "project": project_id}, binary=True)
            part = rows.fetchmany(size)
            version = part[0][0] if part else look(project_id).version
            if version == parts.version:
                break
            rows.close()
            forget(project_id)
        while part:
            yield [values[1:] for values in part]
            part = rows.fetchmany(size)


def get(project_id: int, text_ids: Sequence[str]) -> Row | None:
    """Return the embedding with the first of these ids that is stored, or None."""
    rows = _rows(
        project_id,
        "WHERE text_id = ANY(%(ids)s)"
        " ORDER BY array_position(%(ids)s::text[], text_id::text) LIMIT 1",
        {"ids": list(text_ids)},
    )
    return rows[0] if rows else None


def existing(project_id: int, text_ids: Sequence[str]) -> set[str]:
    """Return which of these ids are stored."""
    found = read(
        project_id,
        lambda parts: sql.SQL(
            "SELECT {version}, text_id FROM {rows} WHERE text_id = ANY(%(ids)s)"
        ).format(version=VERSION, rows=rows_of(parts.segment, "project_id, text_id")),
        {"ids": list(text_ids)},
    )
    return {text_id for (text_id,) in found}


def _rows(project_id: int, condition: str, parameters: dict[str, Any]) -> list[Row]:
    found = read(project_id, lambda parts: _selection(parts, condition), parameters)
    return [_row(values) for values in found]


def _selection(parts: Parts, condition: str) -> sql.Composed:
    return sql.SQL(
        "SELECT {version}, text_id, instance_id, vector_send(vector), text, metadata::text,"
        " created_at, updated_at FROM {rows} {condition}"
    ).format(
        version=VERSION, rows=sorted_rows_of(parts.segment, _ROW), condition=trusted(condition)
    )


def _row(values: Sequence[Any]) -> Row:
    text_id, instance_id, vector, text, metadata, made, changed = values
    return Row(text_id, instance_id, decode_vector(vector), text, metadata.encode(), made, changed)


def of_other_dimensions(project_id: int, dimensions: int) -> list[tuple[str, int]]:
    """Return (text id, dimensions) of the project's embeddings that have another number of them."""
    found = read(
        project_id,
        lambda parts: sql.SQL(
            "SELECT {version}, text_id, vector_dims(vector) FROM {rows}"
            " WHERE vector_dims(vector) <> %(dimensions)s ORDER BY text_id"
        ).format(version=VERSION, rows=rows_of(parts.segment, "project_id, text_id, vector")),
        {"dimensions": dimensions},
    )
    return [(text_id, int(dims)) for text_id, dims in found]


def metadata_after(project_id: int, text_id: str, *, limit: int) -> list[tuple[str, bytes]]:
    """Return (text id, JSON text) of the next embeddings in the order of text ids."""
    found = read(
        project_id,
        lambda parts: sql.SQL(
            "SELECT {version}, text_id, metadata::text FROM {rows}"
            " WHERE text_id > %(after)s ORDER BY text_id LIMIT %(limit)s"
        ).format(version=VERSION, rows=rows_of(parts.segment, "project_id, text_id, metadata")),
        {"after": text_id, "limit": limit},
    )
    return [(text_id, metadata.encode()) for text_id, metadata in found]


def sample(project_id: int, size: int) -> list[str]:
    """Return the ids of some of the project's embeddings, chosen at random, each equally likely.

    Reads the ids of all.
    """
    found = read(
        project_id,
        lambda parts: sql.SQL(
            "SELECT {version}, text_id FROM {rows} ORDER BY random() LIMIT %(size)s"
        ).format(version=VERSION, rows=rows_of(parts.segment, "project_id, text_id")),
        {"size": size},
    )
    return [text_id for (text_id,) in found]


def metadata_sample(project_id: int, size: int) -> list[bytes]:
    """Return the JSON texts of some of the project's embeddings: of the same ones each time.

    Reads the metadata of all.
    """
    found = read(
        project_id,
        lambda parts: sql.SQL(
            "SELECT {version}, metadata::text FROM {rows}"
            " ORDER BY hashtext(text_id), text_id LIMIT %(size)s"
        ).format(version=VERSION, rows=rows_of(parts.segment, "project_id, text_id, metadata")),
        {"size": size},
    )
    return [metadata.encode() for (metadata,) in found]

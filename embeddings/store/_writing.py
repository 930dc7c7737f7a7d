"""Stores and deletes embeddings: what is new goes into the growing part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db import IntegrityError, connection, transaction
from psycopg import sql

from common.models import new_ids
from embeddings.store._parts import GROWING, STATE, VERSION, forget, read, rows_of, table_of
from embeddings.store._reading import existing
from embeddings.store._segments import give_up, sealed
from embeddings.store._values import GROWING_SEGMENT, Matrix, TextIdExists
from embeddings.store._wire import (
    CopyRows,
    encode_int4,
    encode_int8,
    encode_rows,
    encode_texts,
    encode_uuids,
    encode_vectors,
    open_cursor,
    vector_oid,
)

_SEGMENT_OF = sql.SQL("SELECT segment FROM {state} WHERE project_id = %(project)s").format(
    state=sql.Identifier(STATE)
)
_SEGMENT = sql.SQL("({})").format(_SEGMENT_OF)


def insert(
    project_id: int,
    instance_id: int,
    *,
    text_ids: Sequence[str],
    vectors: Matrix,
    texts: Sequence[str],
    metadata: Sequence[bytes],
    model_id: int | None = None,
) -> None:
    """Store new embeddings in the growing part: all of them, or none and TextIdExists.

    vectors: float32 of shape (n, dimensions).
    metadata: UTF-8 JSON text of n objects.
    model_id: of the model that made the vectors, None where it is not known.
    The caller holds the project's lock for uploads. A COPY, which takes two thirds of the time of
    an INSERT, and one statement, two for a project with a sealed segment.
    """
    rows = _rows(
        project_id,
        instance_id,
        text_ids=text_ids,
        vectors=vectors,
        texts=texts,
        metadata=metadata,
        model_id=model_id,
    )
    try:
        with transaction.atomic(), open_cursor() as cursor:
            with connection.wrap_database_errors, cursor.copy(_COPY) as copy:
                copy.write(encode_rows(rows))
            cursor.execute(_SEGMENT_OF, {"project": project_id})
            found = cursor.fetchone()
            if found and found[0] and _some_sealed(cursor, found[0], project_id, text_ids):
                raise _Sealed
    except _Sealed:
        raise TextIdExists(sorted(existing(project_id, text_ids))) from None
    except IntegrityError as error:
        if isinstance(error.__cause__, psycopg.errors.UniqueViolation):
            raise TextIdExists(sorted(existing(project_id, text_ids))) from error
        raise


# As text, for Django's query log. The times of the rows are the transaction's, by default.
_COPY = (
    sql.SQL(
        "COPY {growing} (segment, project_id, instance_id, model_id, id, text_id, vector, text,"
        " metadata) FROM STDIN (FORMAT BINARY)"
    )
    .format(growing=GROWING)
    .as_string()
)


class _Sealed(Exception):
    """Some of the ids that were inserted are in the sealed segment: undo it."""


def _some_sealed(cursor: Any, segment: int, project_id: int, text_ids: Sequence[str]) -> bool:
    """Say whether the sealed segment holds any of the ids.

    Asked after the insertion, by a statement with a snapshot of its own: whatever was moved there
    meanwhile either stopped the insertion, by its row in the growing part, or is seen now.
    """
    statement = sql.SQL(
        "SELECT 1 FROM {sealed} WHERE project_id = %(project)s AND text_id = ANY(%(ids)s) LIMIT 1"
    ).format(sealed=table_of(segment))
    cursor.execute(statement, {"project": project_id, "ids": list(text_ids)})
    return cursor.fetchone() is not None


def put(
    project_id: int,
    instance_id: int,
    *,
    text_id: str,
    vector: Matrix,
    text: str,
    metadata: bytes,
    model_id: int | None = None,
) -> bool:
    """Store one embedding, replacing the one of that id; return whether it is new."""
    created = put_all(
        project_id,
        instance_id,
        text_ids=[text_id],
        vectors=vector.reshape(1, -1),
        texts=[text],
        metadata=[metadata],
        model_id=model_id,
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
    model_id: int | None = None,
) -> int:
    """Store embeddings, replacing those of the same ids; return how many are new.

    text_ids: each of them once; the rest as in `insert`. What replaces a sealed row goes into the
    growing part, so that nobody waits for the graph.
    """
    insertion, parameters = _insertion(
        project_id,
        instance_id,
        text_ids=text_ids,
        vectors=vectors,
        texts=texts,
        metadata=metadata,
        model_id=model_id,
    )
    statement = sql.SQL(
        "WITH stored AS ({insertion}"
        " ON CONFLICT (project_id, text_id, segment) DO UPDATE SET instance_id ="
        " excluded.instance_id, model_id = excluded.model_id, vector = excluded.vector,"
        " text = excluded.text, metadata = excluded.metadata, updated_at = {later}"
        # A row that was inserted has never been locked or deleted by a transaction.
        " RETURNING xmax = 0 AS created)"
        " SELECT count(*) FILTER (WHERE created), {segment} FROM stored"
    ).format(insertion=insertion, segment=_SEGMENT, later=_LATER)
    with open_cursor() as cursor:
        cursor.execute(statement, parameters)
        created, segment = cursor.fetchone()
        if segment is not None:
            created -= _supersede(cursor, segment, project_id, text_ids)
        return int(created)


# Each version of a row is later than the one before, also when two transactions that replace it
# began in the same microsecond: a segment that is built aside tells versions apart by this.
_LATER = sql.SQL(
    "greatest(excluded.updated_at, {growing}.updated_at + interval '1 microsecond')"
).format(growing=GROWING)


def _supersede(cursor: Any, segment: int, project_id: int, text_ids: Sequence[str]) -> int:
    """Delete sealed rows whose ids have just been put into the growing part; return how many.

    The rows there keep when, and under which key, the text was first stored.
    """
    statement = sql.SQL(
        "WITH superseded AS (DELETE FROM {sealed}"
        " WHERE project_id = %(project)s AND text_id = ANY(%(ids)s)"
        " RETURNING text_id, id, created_at, updated_at)"
        " UPDATE {growing} AS row SET id = superseded.id, created_at = superseded.created_at,"
        " updated_at = greatest(row.updated_at, superseded.updated_at + interval '1 microsecond')"
        " FROM superseded"
        " WHERE row.project_id = %(project)s AND row.text_id = superseded.text_id"
    ).format(sealed=table_of(segment), growing=GROWING)
    cursor.execute(statement, {"project": project_id, "ids": list(text_ids)})
    return int(cursor.rowcount)


def _rows(
    project_id: int,
    instance_id: int,
    *,
    text_ids: Sequence[str],
    vectors: Matrix,
    texts: Sequence[str],
    metadata: Sequence[bytes],
    model_id: int | None,
) -> CopyRows:
    """Return the rows to copy into the growing part."""
    order = _order(text_ids)
    return CopyRows(
        same=(
            encode_int4(GROWING_SEGMENT),
            encode_int8(project_id),
            encode_int8(instance_id),
            None if model_id is None else encode_int8(model_id),
        ),
        ids=new_ids(len(order)),
        text_ids=[text_ids[row].encode() for row in order],
        vectors=vectors[order],
        texts=[texts[row].encode() for row in order],
        metadata=[metadata[row] for row in order],
    )


def _order(text_ids: Sequence[str]) -> list[int]:
    """Return in which order to write: everybody's, so that crossing batches do not deadlock."""
    return sorted(range(len(text_ids)), key=text_ids.__getitem__)


def _insertion(
    project_id: int,
    instance_id: int,
    *,
    text_ids: Sequence[str],
    vectors: Matrix,
    texts: Sequence[str],
    metadata: Sequence[bytes],
    model_id: int | None,
) -> tuple[sql.Composed, dict[str, Any]]:
    """Return the statement that inserts, open for a conflict clause, and its parameters."""
    order = _order(text_ids)
    statement = sql.SQL(
        "INSERT INTO {growing} (segment, project_id, instance_id, model_id, id, text_id, vector,"
        " text, metadata, created_at, updated_at)"
        " SELECT {segment}, %(project)s, %(instance)s, %(model)s::bigint, id, text_id, vector,"
        " text, metadata::jsonb, now(), now()"
        " FROM unnest(%(ids)s::uuid[], %(text_ids)s::text[], %(vectors)s::vector[],"
        " %(texts)s::text[], %(metadata)s::text[])"
        " AS given (id, text_id, vector, text, metadata)"
    ).format(growing=GROWING, segment=sql.Literal(GROWING_SEGMENT))
    return statement, {
        "project": project_id,
        "instance": instance_id,
        "model": model_id,
        "ids": encode_uuids(new_ids(len(order))),
        "text_ids": encode_texts([text_ids[row].encode() for row in order]),
        "vectors": encode_vectors(vectors[order], vector_oid()),
        "texts": encode_texts([texts[row].encode() for row in order]),
        "metadata": encode_texts([metadata[row] for row in order]),
    }


def remove(project_id: int, text_ids: Sequence[str]) -> bool:
    """Delete the embedding with the first of these ids that is stored; say if there was one.

    The caller holds the project's lock for uploads.
    """
    return _catch(project_id, text_ids, sql.SQL("DELETE FROM {table} {one}"))


def hold(project_id: int, text_ids: Sequence[str]) -> bool:
    """Let nobody else change the embedding that `remove` would delete; say if there is one.

    Until the transaction ends. The caller holds the project's lock for uploads.
    """
    return _catch(project_id, text_ids, sql.SQL("SELECT 1 FROM {table} {one} FOR UPDATE"))


def _catch(project_id: int, text_ids: Sequence[str], statement: sql.SQL) -> bool:
    """Run a statement on the first of these embeddings that is stored; say if there was one."""
    one = sql.SQL("WHERE project_id = %(project)s AND text_id = %(id)s")
    # A row that is moved, or put anew, at this moment is in neither part for statements that look
    # at one after the other; then it is seen by one that looks at both.
    while (stored := _first_of(project_id, text_ids)) is not None:
        with open_cursor() as cursor:
            for table in stored.tables:
                cursor.execute(
                    statement.format(table=table, one=one),
                    {"project": project_id, "id": stored.text_id},
                )
                if cursor.rowcount:
                    return True
    return False


@dataclass(frozen=True)
class _Stored:
    text_id: str
    tables: list[sql.Identifier]


def _first_of(project_id: int, text_ids: Sequence[str]) -> _Stored | None:
    found = read(
        project_id,
        lambda parts: sql.SQL(
            "SELECT {version}, {segment}, text_id FROM {rows} WHERE text_id = ANY(%(ids)s)"
            " ORDER BY array_position(%(ids)s::text[], text_id::text) LIMIT 1"
        ).format(
            version=VERSION,
            segment=sql.Literal(parts.segment),
            rows=rows_of(parts.segment, "project_id, text_id"),
        ),
        {"ids": list(text_ids)},
    )
    if not found:
        return None
    [(segment, text_id)] = found
    tables = [GROWING] if segment is None else [GROWING, table_of(segment)]
    return _Stored(text_id, tables)


def remove_all(project_id: int) -> int:
    """Delete every embedding of the project; return how many there were.

    A sealed segment is given up as a whole, whatever it holds. The caller keeps uploads waiting.
    """
    with open_cursor() as cursor:
        cursor.execute(
            sql.SQL("SELECT segment FROM {state} WHERE project_id = %(project)s FOR UPDATE").format(
                state=sql.Identifier(STATE)
            ),
            {"project": project_id},
        )
        state = cursor.fetchone()
        statement = sql.SQL("DELETE FROM {growing} WHERE project_id = %(project)s")
        cursor.execute(statement.format(growing=GROWING), {"project": project_id})
        removed = int(cursor.rowcount)
    if state is not None:
        removed += 0 if state[0] is None else sealed(state[0])
        give_up(project_id)
    forget(project_id)
    return removed

"""Stores and deletes embeddings."""

from collections.abc import Sequence
from typing import Any

import psycopg
from django.db import IntegrityError, transaction
from psycopg import sql

from common.models import uuid7
from embeddings.store._reading import existing
from embeddings.store._values import GROWING, GROWING_SEGMENT, Matrix, TextIdExists
from embeddings.store._wire import encode_vectors, open_cursor, vector_oid


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
        with transaction.atomic(), open_cursor() as cursor:
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
    with open_cursor() as cursor:
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
    ).format(growing=GROWING, segment=sql.Literal(GROWING_SEGMENT))
    return statement, {
        "project": project_id,
        "instance": instance_id,
        "ids": [uuid7() for _ in order],
        "text_ids": [text_ids[row] for row in order],
        "vectors": encode_vectors(vectors[order], vector_oid()),
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
    ).format(growing=GROWING)
    with open_cursor() as cursor:
        cursor.execute(statement, {"project": project_id, "ids": list(text_ids)})
        return bool(cursor.rowcount)


def remove_all(project_id: int) -> int:
    """Delete every embedding of the project; return how many there were."""
    statement = sql.SQL("DELETE FROM {growing} WHERE project_id = %(project)s")
    with open_cursor() as cursor:
        cursor.execute(statement.format(growing=GROWING), {"project": project_id})
        return int(cursor.rowcount)

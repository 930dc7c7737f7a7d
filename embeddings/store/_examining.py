"""Looks whether what is stored is sound: indexes that are used and valid, vectors with a length."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from django.db import connection
from psycopg import sql

from embeddings.store._parts import PARENT, VERSION, look, read, rows_of, trusted
from embeddings.store._searching import statement_through_graph
from embeddings.store._segments import graph_of
from embeddings.store._wire import open_cursor

# What a sample looks at, of each part.
_SAMPLED = 5_000


def uses_graph(project_id: int) -> bool | None:
    """Say whether PostgreSQL's plan for a search walks the project's graph; None without one.

    The plan of the very statement that searches are answered by, not one that looks like it.
    """
    parts = look(project_id)
    if parts.segment is None:
        return None
    # Any vector will do: what is prepared is planned for all of them.
    vector = np.ones(parts.dimensions, dtype=np.float32)
    statement, parameters = statement_through_graph(project_id, parts, vector)
    with open_cursor() as cursor:
        cursor.execute(trusted(f"EXPLAIN (FORMAT JSON) {statement.decode()}"), parameters)
        (plan,) = cursor.fetchone()
    plan = json.loads(plan) if isinstance(plan, str | bytes) else plan
    return graph_of(parts.segment) in set(_indexes_in(plan[0]["Plan"]))


def _indexes_in(node: dict[str, Any]) -> Iterator[str]:
    if "Index Name" in node:
        yield node["Index Name"]
    for each in node.get("Plans", []):
        yield from _indexes_in(each)


def invalid_indexes() -> list[str]:
    """Return the names of indexes of the whole database that PostgreSQL does not use.

    Those that are being built at the moment do not count.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT (indisvalid AND indisready)"
            " AND NOT EXISTS (SELECT 1 FROM pg_stat_progress_create_index build"
            " WHERE build.index_relid = indexrelid OR build.relid = indrelid)"
            " ORDER BY 1"
        )
        return [name for (name,) in cursor.fetchall()]


def without_length(project_id: int, *, limit: int, thorough: bool) -> list[str]:
    """Return ids of embeddings whose vector has no direction: all zeros, or not finite.

    Uploads refuse such vectors; a search ranks them nowhere. thorough: reads all rows rather than
    some thousands.
    """
    chosen = "" if thorough else f" LIMIT {_SAMPLED}"
    found = read(
        project_id,
        lambda parts: sql.SQL(
            "SELECT {version}, text_id FROM (SELECT text_id, vector FROM {rows}{chosen}) AS seen"
            " WHERE NOT (vector_norm(vector) > 0 AND vector_norm(vector) < 'Infinity')"
            " ORDER BY text_id LIMIT %(limit)s"
        ).format(
            version=VERSION,
            rows=rows_of(parts.segment, "project_id, text_id, vector"),
            chosen=trusted(chosen),
        ),
        {"limit": limit},
    )
    return [text_id for (text_id,) in found]


def sizes() -> dict[int, int]:
    """Return what each part takes on disk with its indexes, in bytes, by segment; 0: growing."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT child.relname, pg_total_relation_size(child.oid) FROM pg_inherits"
            " JOIN pg_class child ON child.oid = inhrelid"
            " WHERE inhparent = to_regclass(%s)",
            [PARENT],
        )
        return {
            0 if name.endswith("_growing") else int(name.rpartition("_")[2]): int(size)
            for name, size in cursor.fetchall()
        }


def growing_rows() -> int:
    """Return about how many rows the growing part has, as PostgreSQL's statistics count them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(sum(n_live_tup), 0) FROM pg_stat_user_tables WHERE relname = %s",
            [f"{PARENT}_growing"],
        )
        return int(cursor.fetchone()[0])

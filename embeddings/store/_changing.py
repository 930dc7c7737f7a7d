"""Deletes and changes many embeddings at once, wherever they are.

What is being moved into the sealed segment at the moment is in neither part for statements that
look at one after the other. So the project's state row is locked first: moves hold it, too.
"""

from collections.abc import Sequence
from typing import Any

from psycopg import sql

from embeddings.filters import Condition
from embeddings.store._conditions import conditions_of
from embeddings.store._parts import GROWING, STATE, table_of, trusted
from embeddings.store._values import GROWING_SEGMENT
from embeddings.store._wire import encode_texts, open_cursor


def remove_matching(project_id: int, condition: Condition) -> int:
    """Delete the project's embeddings that a filter keeps; return how many.

    The caller's transaction keeps uploads waiting.
    """
    conditions = conditions_of(condition)
    removed = 0
    with open_cursor() as cursor:
        segment = _hold_still(cursor, project_id)
        for table in [GROWING] if segment is None else [GROWING, table_of(segment)]:
            cursor.execute(
                sql.SQL(
                    "DELETE FROM {table} AS embedding WHERE project_id = %(project)s{kept}"
                ).format(table=table, kept=trusted(conditions.text)),
                {"project": project_id, **conditions.parameters},
            )
            removed += int(cursor.rowcount)
    return removed


def change_metadata(project_id: int, *, text_ids: Sequence[str], metadata: Sequence[bytes]) -> None:
    """Give embeddings other metadata; all else of them stays.

    metadata: UTF-8 JSON text of as many objects.
    The caller's transaction keeps uploads waiting. What was sealed goes into the growing part, so
    that nobody waits for the graph.
    """
    names = {"growing": GROWING, "given": _GIVEN, "columns": _COLUMNS}
    parameters: dict[str, Any] = {
        "project": project_id,
        "ids": encode_texts([each.encode() for each in text_ids]),
        "metadata": encode_texts(metadata),
    }
    with open_cursor() as cursor:
        segment = _hold_still(cursor, project_id)
        cursor.execute(_CHANGE.format(**names), parameters)
        if segment is not None:
            cursor.execute(_MOVE.format(**names, sealed=table_of(segment)), parameters)


def _hold_still(cursor: Any, project_id: int) -> int | None:
    """Keep the project's rows in the parts where they are; return the sealed segment, if any."""
    cursor.execute(
        sql.SQL("SELECT segment FROM {state} WHERE project_id = %(project)s FOR UPDATE").format(
            state=sql.Identifier(STATE)
        ),
        {"project": project_id},
    )
    row = cursor.fetchone()
    return None if row is None else row[0]


_COLUMNS = sql.SQL("instance_id, model_id, id, text_id, vector, text, created_at")
_GIVEN = sql.SQL(
    "unnest(%(ids)s::text[], %(metadata)s::text[]) AS given (text_id, metadata)"
    ' WHERE row.project_id = %(project)s AND row.text_id = given.text_id COLLATE "C"'
)
# Each version of a row is later than the one before, as for those that are put anew.
_CHANGE = sql.SQL(
    "UPDATE {growing} AS row SET metadata = given.metadata::jsonb,"
    " updated_at = greatest(now(), row.updated_at + interval '1 microsecond') FROM {given}"
)
_MOVE = trusted(
    "WITH moved AS (DELETE FROM {sealed} AS row USING {given}"
    " RETURNING row.*, given.metadata AS changed)"
    " INSERT INTO {growing} (segment, project_id, {columns}, metadata, updated_at)"
    f" SELECT {GROWING_SEGMENT}, project_id, {{columns}}, changed::jsonb,"
    " greatest(now(), updated_at + interval '1 microsecond') FROM moved"
)

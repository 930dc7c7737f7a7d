"""Where a project's rows are: in the growing part, and possibly in a sealed segment of its own.

Which segment is remembered by each process, and proven right by every statement that relies on it:
each asks for the version of the project's state row besides, and is repeated when that is another.
A segment that is given up is emptied and dropped much later than any process remembers it.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import psycopg
from django.db import OperationalError, ProgrammingError, connection
from psycopg import sql

from embeddings.languages import DEFAULT
from embeddings.store._time import run
from embeddings.store._wire import open_cursor

PARENT = "embeddings_embedding"
GROWING = sql.Identifier("embeddings_embedding_growing")
STATE = "embeddings_searchindex"
# Emptied segments are dropped after longer than this (indexes.GRACE).
REMEMBER_FOR_S = 300.0

_MOST_REMEMBERED = 10_000
_ATTEMPTS = 20


@dataclass(frozen=True)
class Parts:
    """Where a project's rows are.

    version: of the state row, None where there is none.
    segment: the sealed segment that is searched, None for none.
    dimensions: of the vectors in the segment.
    ef_search: candidates of a search through its graph.
    rows: about how many rows the segment has.
    language: what its texts are written in, None where nobody said.
    """

    version: int | None = None
    segment: int | None = None
    dimensions: int = 0
    ef_search: int = 0
    rows: int = 0
    language: str | None = None


_remembered: dict[int, tuple[float, Parts]] = {}
_lock = threading.Lock()


def trusted(text: str) -> sql.SQL:
    """Return SQL text that was put together from constants and whole numbers."""
    return sql.SQL(text)


def table_of(segment: int) -> sql.Identifier:
    """Return the name of a sealed segment's table."""
    return sql.Identifier(name_of(segment))


def name_of(segment: int) -> str:
    """Return the same as text; migration 0002 spells it too."""
    return f"{PARENT}_{segment}"


def words_index(segment: int, language: str | None) -> str:
    """Return the name of the index on the words of a segment's texts."""
    return f"{name_of(segment)}_words_{language or DEFAULT}"


def parts_of(project_id: int) -> Parts:
    """Return where the project's rows were when this process last looked."""
    known = _remembered.get(project_id)
    if known is not None and time.monotonic() - known[0] < REMEMBER_FOR_S:
        return known[1]
    return look(project_id)


def look(project_id: int) -> Parts:
    """Return where the project's rows are now, and remember it."""
    with open_cursor() as cursor:
        cursor.execute(_LOOK, {"project": project_id})
        row = cursor.fetchone()
    parts = Parts() if row is None else Parts(*row)
    with _lock:
        if len(_remembered) >= _MOST_REMEMBERED:
            _remembered.clear()
        _remembered[project_id] = (time.monotonic(), parts)
    return parts


def forget(project_id: int) -> None:
    """Look again before the next statement about the project."""
    _remembered.pop(project_id, None)


def forget_all() -> None:
    """Look again before the next statement about any project."""
    _remembered.clear()


@contextmanager
def looking_again(project_id: int) -> Iterator[None]:
    """Have the next statement look again where a segment is not there: what was seen is undone."""
    try:
        yield
    except ProgrammingError as error:
        forget(project_id)
        if isinstance(error.__cause__, psycopg.errors.UndefinedTable):
            raise Gone from error
        raise


class Gone(OperationalError):
    """A segment was looked for that is not there."""


_LOOK = f"""
    SELECT state.xmin::text::bigint, state.segment, coalesce(state.built_dimensions, 0)::int,
        coalesce(state.ef_search, state.measured_ef_search, 100)::int,
        coalesce(greatest(pg_class.reltuples, 0), 0)::bigint, state.search_language
    FROM {STATE} AS state
    LEFT JOIN pg_class ON pg_class.oid = to_regclass('{PARENT}_' || state.segment)
    WHERE state.project_id = %(project)s
"""

VERSION = sql.SQL("(SELECT xmin::text::bigint FROM {state} WHERE project_id = %(project)s)").format(
    state=sql.Identifier(STATE)
)


@lru_cache(maxsize=2_000)
def rows_of(segment: int | None, columns: str) -> sql.Composed:
    """Return what stands after FROM to read the project's rows: named `embedding`, with columns.

    columns: separated by commas, project_id and text_id among them.
    """
    selected = sql.SQL(", ").join(sql.Identifier(name.strip()) for name in columns.split(","))
    one = sql.SQL("SELECT {columns} FROM {table} WHERE project_id = %(project)s")
    growing = one.format(columns=selected, table=GROWING)
    if segment is None:
        return sql.SQL("({growing}) AS embedding").format(growing=growing)
    return sql.SQL("({growing} UNION ALL {sealed}) AS embedding").format(
        growing=growing, sealed=one.format(columns=selected, table=table_of(segment))
    )


def sorted_rows_of(segment: int | None, columns: str) -> sql.Composed:
    """Return the same for reading few of the rows in the order of their ids.

    PostgreSQL merges the indexes of both parts only where the parts themselves have no condition.
    """
    if segment is None:
        return rows_of(segment, columns)
    selected = sql.SQL(", ").join(sql.Identifier(name.strip()) for name in columns.split(","))
    one = sql.SQL("SELECT {columns} FROM {table}")
    return sql.SQL(
        "(SELECT * FROM ({growing} UNION ALL {sealed}) AS both_parts"
        " WHERE project_id = %(project)s) AS embedding"
    ).format(
        growing=one.format(columns=selected, table=GROWING),
        sealed=one.format(columns=selected, table=table_of(segment)),
    )


Statement = Callable[[Parts], sql.Composable]


def read(
    project_id: int, statement: Statement, parameters: Mapping[str, Any]
) -> Sequence[tuple[Any, ...]]:
    """Run a statement about the project's rows where they are now, and return what it found.

    statement: for given parts; its first column is VERSION, which is left out of the answer.
    """
    for _ in range(_ATTEMPTS):
        parts = parts_of(project_id)
        try:
            with looking_again(project_id):
                # Making the statement may add to its parameters.
                text = statement(parts)
                rows = run(text, {**parameters, "project": project_id}, prepare=False)
        except Gone:
            if connection.in_atomic_block:
                raise
            continue
        version = rows[0][0] if rows else look(project_id).version
        if version == parts.version:
            return [row[1:] for row in rows]
        forget(project_id)
    raise OperationalError(f"The embeddings of project {project_id} keep moving.")

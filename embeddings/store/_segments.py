"""Makes, fills, indexes, swaps and gives up sealed segments.

A segment is built aside, as a table that nothing reads, and becomes a partition of the embeddings
in the transaction that takes its rows out of where they were: whoever reads sees each row once.
Each step is one transaction, and whoever repeats a step finds out what is done already.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import OperationalError, connection, transaction
from psycopg import sql

from embeddings.languages import HISTORICAL
from embeddings.store._graph import index_type, operand
from embeddings.store._lexemes import folded, lexemes
from embeddings.store._parts import (
    GROWING,
    PARENT,
    STATE,
    forget,
    name_of,
    table_of,
    trusted,
    words_index,
)
from embeddings.store._wire import open_cursor

# All but the segment.
COLUMNS = trusted(
    "project_id, instance_id, model_id, id, text_id, vector, text, metadata, created_at, updated_at"
)
# The first half of the key of PostgreSQL's advisory locks; the second is a project.
_TENDING = 0x41524D
# Server processes that help to build a graph: with the one that asks, half of the processors.
# Where the database is elsewhere, its machine is taken to be like this one.
_HELPERS = max(1, min(7, (os.cpu_count() or 2) // 2 - 1))
# A server process whose client was killed would go on building, for nobody.
_NOTICE_DEATH_WITHIN = "2s"


@dataclass(frozen=True)
class GraphSettings:
    """How an HNSW graph is built: links of a node, and candidates while building."""

    m: int
    ef_construction: int


@dataclass(frozen=True)
class Progress:
    """How far PostgreSQL is with an index.

    phase: in PostgreSQL's words. done, total: rows, or blocks of the table; 0 for unknown.
    """

    phase: str
    done: int
    total: int


# --- Looking --------------------------------------------------------------------------------------
def growing(project_id: int, *, at_most: int) -> int:
    """Return how many rows the project has in the growing part, counting up to a number."""
    statement = sql.SQL(
        "SELECT count(*) FROM (SELECT 1 FROM {growing} WHERE project_id = %(project)s"
        " LIMIT %(limit)s) AS counted"
    ).format(growing=GROWING)
    return int(_one(statement, project=project_id, limit=at_most))


def growing_by_project(*, at_least: int) -> dict[int, int]:
    """Return the projects with that many rows or more in the growing part, and how many each."""
    statement = sql.SQL(
        "SELECT project_id, count(*) FROM {growing} GROUP BY project_id"
        " HAVING count(*) >= %(least)s"
    ).format(growing=GROWING)
    with open_cursor() as cursor:
        cursor.execute(statement, {"least": at_least})
        return {int(project_id): int(rows) for project_id, rows in cursor.fetchall()}


def sealed(segment: int) -> int:
    """Return how many rows a segment has."""
    return int(_one(sql.SQL("SELECT count(*) FROM {table}").format(table=table_of(segment))))


def size_of(segment: int) -> tuple[int, int]:
    """Return the bytes of a segment's table, and of its graph."""
    table, graph = (
        int(_one("SELECT coalesce(pg_table_size(to_regclass(%(name)s)), 0)", name=name))
        for name in (name_of(segment), graph_of(segment))
    )
    return table, graph


def has_graph(segment: int) -> bool:
    """Say whether the segment's graph is there and valid."""
    return _is_valid(graph_of(segment))


def progress_of(segment: int) -> Progress | None:
    """Return how far PostgreSQL is with an index of the segment; None where none is being built."""
    with open_cursor() as cursor:
        cursor.execute(
            "SELECT phase,"
            " CASE WHEN tuples_total > 0 THEN tuples_done ELSE blocks_done END,"
            " CASE WHEN tuples_total > 0 THEN tuples_total ELSE blocks_total END"
            " FROM pg_stat_progress_create_index WHERE relid = to_regclass(%(name)s)",
            {"name": name_of(segment)},
        )
        row = cursor.fetchone()
    return None if row is None else Progress(row[0], int(row[1]), int(row[2]))


def progress_by_segment() -> dict[int, Progress]:
    """Return how far PostgreSQL is with all indexes of segments that are being built."""
    with open_cursor() as cursor:
        cursor.execute(
            "SELECT table_.relname, build.phase,"
            " CASE WHEN tuples_total > 0 THEN tuples_done ELSE blocks_done END,"
            " CASE WHEN tuples_total > 0 THEN tuples_total ELSE blocks_total END"
            " FROM pg_stat_progress_create_index build"
            " JOIN pg_class table_ ON table_.oid = build.relid"
            " WHERE table_.relname ~ %(pattern)s",
            {"pattern": f"^{PARENT}_[0-9]+$"},
        )
        return {
            int(name.rpartition("_")[2]): Progress(phase, int(done), int(total))
            for name, phase, done, total in cursor.fetchall()
        }


def _one(statement: Any, **parameters: Any) -> Any:
    with open_cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchone()[0]


def _is_there(name: str) -> bool:
    return bool(_one("SELECT to_regclass(%(name)s) IS NOT NULL", name=name))


def _is_valid(index: str) -> bool:
    return bool(
        _one(
            "SELECT EXISTS (SELECT 1 FROM pg_index"
            " WHERE indexrelid = to_regclass(%(name)s) AND indisvalid)",
            name=index,
        )
    )


def graph_of(segment: int) -> str:
    """Return the name of a segment's graph."""
    return f"{name_of(segment)}_graph"


# --- Building -------------------------------------------------------------------------------------
@contextmanager
def tending(project_id: int) -> Iterator[bool]:
    """Hold the right to change the project's segments; False where another process has it.

    Goes with the connection, so that it outlives transactions and not its holder. Afterwards the
    connection is closed: its priority, its settings and the memory of building go with it, too.
    """
    key = {"kind": _TENDING, "project": project_id % 2**31}
    held = bool(_one("SELECT pg_try_advisory_lock(%(kind)s::int, %(project)s::int)", **key))
    try:
        if held:
            with open_cursor() as cursor:
                cursor.execute(f"SET client_connection_check_interval = '{_NOTICE_DEATH_WITHIN}'")
        yield held
    finally:
        if held and connection.is_usable():
            with open_cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%(kind)s::int, %(project)s::int)", key)
            if not connection.in_atomic_block:
                connection.close()


def backend_pid() -> int:
    """Return the process id of the server process that serves this connection."""
    return int(_one("SELECT pg_backend_pid()"))


def new_segment() -> int:
    """Return a number that no segment ever had."""
    return int(_one("SELECT nextval('embeddings_segment_number')"))


def copy(project_id: int, segment: int, *, sealed_segment: int | None) -> None:
    """Make a segment's table with a copy of all the project's rows as they are now, if need be.

    sealed_segment: where some of them are besides the growing part.
    """
    if is_there(segment):
        return
    # One statement reads all, so that a row that moves meanwhile is copied once.
    fill = sql.SQL(
        "INSERT INTO {table} (segment, {columns})"
        " SELECT {number}, {columns} FROM {rows} ORDER BY text_id"
    ).format(
        table=table_of(segment),
        columns=COLUMNS,
        number=sql.Literal(segment),
        rows=everything(project_id, sealed_segment),
    )
    with at_leisure() as cursor:
        cursor.execute(creation(project_id, segment))
        cursor.execute(fill)


def is_there(segment: int) -> bool:
    """Say whether the segment has a table."""
    return _is_there(name_of(segment))


def creation(project_id: int, segment: int) -> sql.Composed:
    """Return the statement that makes a segment's table, which nothing reads yet."""
    return sql.SQL(
        "CREATE TABLE {table} (LIKE {parent} INCLUDING DEFAULTS,"
        " CHECK (segment = {number}), CHECK (project_id = {project}))"
        # Rows stay in one piece while a page holds them, as in the growing part.
        " WITH (toast_tuple_target = 8160)"
    ).format(
        table=table_of(segment),
        parent=sql.Identifier(PARENT),
        number=sql.Literal(segment),
        project=sql.Literal(project_id),
    )


def everything(
    project_id: int, sealed_segment: int | None, *, name: str = "everything"
) -> sql.Composed:
    """Return what stands after FROM to read all of a project's rows, with COLUMNS, by a name."""
    sources = [GROWING] if sealed_segment is None else [GROWING, table_of(sealed_segment)]
    rows = sql.SQL(" UNION ALL ").join(
        sql.SQL("SELECT {columns} FROM {source} WHERE project_id = {project}").format(
            columns=COLUMNS, source=source, project=sql.Literal(project_id)
        )
        for source in sources
    )
    return sql.SQL("({rows}) AS {name}").format(rows=rows, name=sql.Identifier(name))


def index(
    segment: int, dimensions: int, settings: GraphSettings, language: str | None = None
) -> None:
    """Build those of a segment's indexes that are not there: the graph last.

    language: what its texts are written in, None where nobody said.
    """
    name = name_of(segment)
    statements = {
        f"{name}_pkey": "ALTER TABLE {table} ADD CONSTRAINT {name}"
        " PRIMARY KEY (id, project_id, segment)",
        f"{name}_text_id": "ALTER TABLE {table} ADD CONSTRAINT {name}"
        " UNIQUE (project_id, text_id, segment)",
        f"{name}_metadata": "CREATE INDEX {name} ON {table} USING gin (metadata jsonb_path_ops)",
        **{
            each: f"CREATE INDEX {{name}} ON {{table}} {on}"
            for each, on in _indexes_on_words(segment, language).items()
        },
        graph_of(segment): f"CREATE INDEX {{name}} ON {{table}} {_hnsw(dimensions, settings)}",
    }
    for each, statement in statements.items():
        if not _is_there(each):
            with at_leisure() as cursor:
                cursor.execute(
                    trusted(statement).format(table=table_of(segment), name=sql.Identifier(each))
                )
    with at_leisure() as cursor:
        cursor.execute(sql.SQL("ANALYZE {table}").format(table=table_of(segment)))


def _hnsw(dimensions: int, settings: GraphSettings) -> str:
    return (
        f"USING hnsw (({operand('vector', dimensions)}) {index_type(dimensions)})"
        f" WITH (m = {int(settings.m)}, ef_construction = {int(settings.ef_construction)})"
    )


@contextmanager
def at_leisure() -> Iterator[Any]:
    """Open a transaction that may take its time and several processors."""
    with transaction.atomic(), open_cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute(f"SET LOCAL max_parallel_maintenance_workers = {_HELPERS}")
        yield cursor


def rebuild_graph(segment: int, dimensions: int, settings: GraphSettings) -> None:
    """Build the graph of a segment in use anew, beside the old one, and put it in its place.

    Blocks neither reading nor writing. Not inside a transaction.
    """
    old, new = graph_of(segment), f"{graph_of(segment)}_new"
    names = {"old": sql.Identifier(old), "new": sql.Identifier(new)}
    with open_cursor() as cursor:
        # It waits for every transaction that is under way, of whatever project: an export may last.
        cursor.execute("SET statement_timeout = 0")
        cursor.execute("SET lock_timeout = 0")
        try:
            # One that was not finished is of no use.
            if not _is_valid(new):
                cursor.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {new}").format(**names))
                cursor.execute(f"SET max_parallel_maintenance_workers = {_HELPERS}")
                cursor.execute(
                    trusted(
                        f"CREATE INDEX CONCURRENTLY {{new}} ON {{table}} "
                        f"{_hnsw(dimensions, settings)}"
                    ).format(table=table_of(segment), **names)
                )
            # Searches use either, whatever its name, and do not queue up behind who waits to drop.
            cursor.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {old}").format(**names))
            cursor.execute(sql.SQL("ALTER INDEX {new} RENAME TO {old}").format(**names))
        finally:
            cursor.execute("RESET max_parallel_maintenance_workers")
            cursor.execute("RESET lock_timeout")
            cursor.execute("RESET statement_timeout")


def has_words(segment: int, language: str | None) -> bool:
    """Say whether the segment has the indexes on the words of a language, and of no other."""
    return _found_on_words(segment) == set(_indexes_on_words(segment, language))


def index_words(segment: int, language: str | None) -> None:
    """Give a segment in use the indexes on the words of a language, and of no other.

    Blocks neither reading nor writing. Not inside a transaction.
    """
    wanted = _indexes_on_words(segment, language)
    found = _found_on_words(segment)
    with open_cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute("SET lock_timeout = 0")
        try:
            for each, on in wanted.items():
                if each not in found:
                    names = {"name": sql.Identifier(each), "table": table_of(segment)}
                    # One that was not finished is of no use.
                    cursor.execute(
                        trusted("DROP INDEX CONCURRENTLY IF EXISTS {name}").format(**names)
                    )
                    cursor.execute(
                        trusted(f"CREATE INDEX CONCURRENTLY {{name}} ON {{table}} {on}").format(
                            **names
                        )
                    )
            for each in found - set(wanted):
                cursor.execute(
                    sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(each))
                )
        finally:
            cursor.execute("RESET lock_timeout")
            cursor.execute("RESET statement_timeout")


def _indexes_on_words(segment: int, language: str | None) -> dict[str, str]:
    """Return the indexes that searches by words use, by name, and what they are on."""
    # Whatever waits to be added to an index is read by every search; this one has time to add it.
    found = {
        words_index(segment, language): f"USING gin (({lexemes('text', language)}))"
        " WITH (fastupdate = off)"
    }
    if language == HISTORICAL:
        found[f"{name_of(segment)}_words_spelling"] = (
            f"USING gin (({folded('text', language)}) gin_trgm_ops) WITH (fastupdate = off)"
        )
    return found


def _found_on_words(segment: int) -> set[str]:
    with open_cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
            " WHERE indrelid = to_regclass(%(table)s) AND indisvalid"
            " AND starts_with(relname, %(prefix)s)",
            {"table": name_of(segment), "prefix": f"{name_of(segment)}_words_"},
        )
        return {str(name) for (name,) in cursor.fetchall()}


def swap(project_id: int, segment: int, *, sealed_segment: int | None) -> None:
    """Let a segment that was built aside take the place of the rows it is a copy of.

    sealed_segment: the one that it replaces.
    Rows that were changed or deleted since they were copied are taken out of the copy; they, and
    new ones, are in the growing part. The caller's transaction keeps uploads waiting, and changes
    the project's state row.
    """
    names = {
        "table": table_of(segment),
        "growing": GROWING,
        "parent": sql.Identifier(PARENT),
        "project": sql.Literal(project_id),
        "number": sql.Literal(segment),
        "everything": everything(project_id, sealed_segment),
    }
    with open_cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        for statement in (
            "DELETE FROM {table} AS copied WHERE NOT EXISTS (SELECT 1 FROM {everything}"
            " WHERE everything.text_id = copied.text_id AND everything.id = copied.id"
            " AND everything.updated_at = copied.updated_at)",
            "DELETE FROM {growing} AS row USING {table} AS copied"
            " WHERE row.project_id = {project} AND copied.text_id = row.text_id",
            "ALTER TABLE {parent} ATTACH PARTITION {table} FOR VALUES IN ({number})",
        ):
            cursor.execute(trusted(statement).format(**names))
        if sealed_segment is not None:
            _retire(cursor, sealed_segment)
    forget(project_id)


def seal(project_id: int, segment: int, *, rows: int) -> int:
    """Move some rows from the growing part into the sealed segment; return how many: one statement.

    Nothing waits for it but who writes these very rows. Returns 0 where the segment is no longer
    the project's.
    """
    statement = sql.SQL(
        "WITH chosen AS MATERIALIZED (SELECT text_id FROM {growing}"
        " WHERE project_id = %(project)s ORDER BY text_id LIMIT %(rows)s FOR UPDATE SKIP LOCKED),"
        " moved AS (DELETE FROM {growing} AS row USING chosen"
        " WHERE row.project_id = %(project)s AND row.text_id = chosen.text_id"
        " RETURNING row.*)"
        " INSERT INTO {table} (segment, {columns}) SELECT {number}, {columns} FROM moved"
    ).format(
        growing=GROWING,
        columns=COLUMNS,
        table=table_of(segment),
        number=sql.Literal(segment),
    )
    with transaction.atomic(), open_cursor() as cursor:
        cursor.execute(
            sql.SQL(
                "SELECT 1 FROM {state} WHERE project_id = %(project)s AND segment = %(segment)s"
                # Whoever gives the segment up waits, and is waited for, here.
                " FOR SHARE"
            ).format(state=sql.Identifier(STATE)),
            {"project": project_id, "segment": segment},
        )
        if cursor.fetchone() is None:
            return 0
        cursor.execute(statement, {"project": project_id, "rows": rows})
        return int(cursor.rowcount)


def dissolve(project_id: int, segment: int) -> None:
    """Move all rows of a sealed segment back into the growing part, and give the segment up.

    The caller's transaction keeps uploads waiting, and changes the project's state row.
    """
    unseal(segment)
    with open_cursor() as cursor:
        _retire(cursor, segment)
    forget(project_id)


def unseal(segment: int) -> None:
    """Copy all rows of a sealed segment into the growing part."""
    with open_cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute(
            sql.SQL(
                "INSERT INTO {growing} (segment, {columns}) SELECT 0, {columns} FROM {table}"
            ).format(growing=GROWING, columns=COLUMNS, table=table_of(segment))
        )


def tidy(*tables: int) -> None:
    """Free what moved rows left behind, and tell the planner what there is: growing part first.

    tables: sealed segments to look after besides. Does nothing inside a transaction.
    """
    if connection.in_atomic_block:
        return
    with open_cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        try:
            for table in (GROWING, *map(table_of, tables)):
                cursor.execute(sql.SQL("VACUUM (ANALYZE, SKIP_LOCKED) {table}").format(table=table))
        finally:
            cursor.execute("RESET statement_timeout")


# --- Giving up ------------------------------------------------------------------------------------
def give_up(project_id: int) -> None:
    """Empty the project's sealed segment in one step, stop one being built: it is exact again."""
    with open_cursor() as cursor:
        cursor.execute(
            sql.SQL(
                "SELECT segment, building_segment FROM {state} WHERE project_id = %(project)s"
                " FOR UPDATE"
            ).format(state=sql.Identifier(STATE)),
            {"project": project_id},
        )
        segment, building = cursor.fetchone() or (None, None)
        if segment is not None:
            _retire(cursor, segment)
        if building is not None:
            _abandon(cursor, building)
        cursor.execute(
            sql.SQL(
                "UPDATE {state} SET state = 'exact', phase = '', segment = NULL,"
                " building_segment = NULL, built_m = NULL, built_ef_construction = NULL,"
                " built_dimensions = NULL, built_at = NULL, measured_ef_search = NULL,"
                " measured_recall = NULL, rebuild_requested = false, updated_at = now()"
                " WHERE project_id = %(project)s"
            ).format(state=sql.Identifier(STATE)),
            {"project": project_id},
        )
    forget(project_id)


def retire(segment: int) -> None:
    """Empty a segment and let its table be dropped later."""
    with transaction.atomic(), open_cursor() as cursor:
        _retire(cursor, segment)


def _retire(cursor: Any, segment: int) -> None:
    cursor.execute("SELECT embeddings_retire_segment(%(segment)s::int)", {"segment": segment})


def _abandon(cursor: Any, segment: int) -> None:
    """Let a segment that nothing reads yet be dropped later; empty it, unless it is being built.

    Then whoever builds it does, once done: that may last.
    """
    cursor.execute(
        "INSERT INTO embeddings_retiredsegment (segment, retired_at) VALUES (%(segment)s, now())"
        " ON CONFLICT DO NOTHING",
        {"segment": segment},
    )
    if not _is_there(name_of(segment)):
        return
    try:
        with transaction.atomic():
            for statement in (
                "LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE NOWAIT",
                "TRUNCATE ONLY {table}",
            ):
                cursor.execute(trusted(statement).format(table=table_of(segment)))
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) != "55P03":
            raise


def drop_retired(*, after_s: float) -> list[int]:
    """Drop the tables of segments that were retired longer ago; return those that are gone.

    One that somebody reads is left for the next time.
    """
    with open_cursor() as cursor:
        cursor.execute(
            "SELECT segment FROM embeddings_retiredsegment"
            " WHERE retired_at < now() - make_interval(secs => %(after)s) ORDER BY segment",
            {"after": after_s},
        )
        retired = [int(segment) for (segment,) in cursor.fetchall()]
    return [segment for segment in retired if _drop(segment)]


def _drop(segment: int) -> bool:
    try:
        with transaction.atomic(), open_cursor() as cursor:
            # Dropping a partition locks the whole table for a moment; everybody who arrives
            # meanwhile waits behind whoever waits for that lock.
            cursor.execute("SET LOCAL lock_timeout = '200ms'")
            cursor.execute(sql.SQL("DROP TABLE IF EXISTS {table}").format(table=table_of(segment)))
            cursor.execute(
                "DELETE FROM embeddings_retiredsegment WHERE segment = %(segment)s",
                {"segment": segment},
            )
    except OperationalError:
        return False
    return True

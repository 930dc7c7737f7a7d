"""Counts which values the metadata of a project's embeddings has."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from embeddings.filters import Condition, Path
from embeddings.store._conditions import conditions_of, jsonpath_of
from embeddings.store._parts import VERSION, Parts, read, rows_of, trusted


@dataclass(frozen=True)
class Facets:
    """Which strings, numbers and booleans are at a path, and in how many embeddings each.

    values: (JSON text, embeddings) of the most frequent, the most frequent first.
    distinct: how many values there are. without: how many embeddings have none. total: how many
    there are.
    """

    values: Sequence[tuple[bytes, int]]
    distinct: int
    without: int
    total: int


def facets(project_id: int, path: Path, condition: Condition | None, *, limit: int) -> Facets:
    """Return the values at a path in the embeddings that a filter keeps; reads all of those.

    Of a list, each element counts, once an embedding.
    """
    conditions = conditions_of(condition)
    places = [jsonpath_of(keys) for keys in path.places]
    is_plain = len(path.places) == 1 and len(path.keys) == 1

    def statement(parts: Parts) -> sql.Composed:
        return _STATEMENT.format(
            version=VERSION,
            held=_HELD_AT_A_KEY if is_plain else _HELD,
            rows=rows_of(parts.segment, "project_id, text_id, metadata"),
            kept=trusted(conditions.text),
        )

    parameters = {"first": places[0], "last": places[-1], "limit": limit, **conditions.parameters}
    if is_plain:
        parameters["key"] = path.keys[0]
    found = read(project_id, statement, parameters)
    total, without, distinct, _, _ = found[0]
    values = [(text.encode(), int(rows)) for _, _, _, text, rows in found if text is not None]
    return Facets(values, int(distinct), int(without), int(total))


# UNION, since a value at both places counts once.
_HELD = sql.SQL(
    "(SELECT array_agg(value) FROM ("
    "SELECT jsonb_path_query(metadata, %(first)s::jsonpath) AS value"
    " UNION SELECT jsonb_path_query(metadata, %(last)s::jsonpath)) AS found"
    " WHERE jsonb_typeof(value) IN ('string', 'number', 'boolean'))"
)
# The same, for most paths and most metadata, in a quarter of the time.
_HELD_AT_A_KEY = sql.SQL(
    "CASE jsonb_typeof(metadata -> %(key)s::text) WHEN 'array' THEN {held}"
    " WHEN 'string' THEN ARRAY[metadata -> %(key)s::text]"
    " WHEN 'number' THEN ARRAY[metadata -> %(key)s::text]"
    " WHEN 'boolean' THEN ARRAY[metadata -> %(key)s::text] END"
).format(held=_HELD)
_STATEMENT = sql.SQL(
    "WITH kept AS MATERIALIZED (SELECT {held} AS held"
    " FROM {rows} WHERE true{kept}),"
    " counted AS MATERIALIZED ("
    "SELECT value, count(*) AS rows FROM kept, unnest(held) AS value GROUP BY value)"
    " SELECT {version}, whole.total, whole.without, (SELECT count(*) FROM counted),"
    " top.value::text, top.rows FROM ("
    "SELECT count(*) AS total, count(*) FILTER (WHERE held IS NULL) AS without FROM kept) AS whole"
    " LEFT JOIN (SELECT value, rows FROM counted ORDER BY rows DESC, value LIMIT %(limit)s) AS top"
    " ON true ORDER BY top.rows DESC, top.value"
)

"""Reads what searches tell of their results besides: columns, values at paths, neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from psycopg import sql

from embeddings.filters import Comparison, Condition, Operator, Path, Scalar
from embeddings.store._conditions import conditions_of, jsonpath_of
from embeddings.store._parts import VERSION, Parts, read, rows_of, trusted
from embeddings.store._values import Matrix
from embeddings.store._wire import decode_vector

_NO_VECTOR: Matrix = np.empty(0, dtype=np.float32)


@dataclass(frozen=True)
class Described:
    """What was asked for of one embedding; the rest is empty.

    metadata: UTF-8 JSON text of an object. vector: float32 of shape (dimensions,).
    values: the strings, numbers and booleans at each of the paths, each once.
    """

    text: str
    metadata: bytes
    vector: Matrix
    values: tuple[tuple[Scalar, ...], ...]


@dataclass(frozen=True)
class Neighbour:
    """An embedding near another in an order: `step` places after it, or before it if negative."""

    of: str
    step: int
    text_id: str


def describe(
    project_id: int,
    text_ids: Sequence[str],
    *,
    text: bool = False,
    metadata: bool = False,
    vector: bool = False,
    paths: Sequence[Path] = (),
) -> dict[str, Described]:
    """Return what is stored under some ids, by id; those that are not stored are left out."""
    if not text_ids:
        return {}
    parameters: dict[str, Any] = {"ids": list(text_ids)}
    columns = [
        "text" if text else "''::text",
        "metadata::text" if metadata else "''::text",
        "vector_send(vector)" if vector else "NULL::bytea",
    ]
    for number, path in enumerate(paths):
        columns.append(f"({_values(number, 'array')})::text")
        parameters |= _places(path, number)

    def statement(parts: Parts) -> sql.Composed:
        return sql.SQL(
            "SELECT {version}, text_id, {columns} FROM {rows} WHERE text_id = ANY(%(ids)s)"
        ).format(
            version=VERSION,
            columns=trusted(", ".join(columns)),
            rows=rows_of(parts.segment, "project_id, text_id, vector, text, metadata"),
        )

    return {
        found[0]: Described(
            found[1],
            found[2].encode(),
            _NO_VECTOR if found[3] is None else decode_vector(found[3]),
            tuple(_scalars(each) for each in found[4:]),
        )
        for found in read(project_id, statement, parameters)
    }


def neighbours(
    project_id: int,
    text_ids: Sequence[str],
    *,
    order: Path,
    before: int,
    after: int,
    within: Path | None = None,
    shared: Sequence[Scalar] = (),
) -> list[Neighbour]:
    """Return the rows around some others in the order of a number in the metadata.

    within: only among rows that have the same value at this path, one of `shared`; by default among
    all of the project. Of a list, its first element counts. Equal numbers are ordered by text id.
    Reads all rows that share those values.
    """
    kept: Condition | None = None
    parameters: dict[str, Any] = {"ids": list(text_ids), "before": -before, "after": after}
    parameters |= _places(order, 0)
    group = "'true'::jsonb"
    if within is not None:
        kept = Comparison(within, Operator.IN, tuple(shared))
        group = _first(1)
        parameters |= _places(within, 1)
    conditions = conditions_of(kept)

    def statement(parts: Parts) -> sql.Composed:
        return _NEIGHBOURS.format(
            version=VERSION,
            shared=trusted(group),
            number=trusted(_first(0)),
            rows=rows_of(parts.segment, "project_id, text_id, metadata"),
            kept=trusted(conditions.text),
        )

    found = read(project_id, statement, {**parameters, **conditions.parameters})
    return [Neighbour(of, int(step), text_id) for of, step, text_id in found]


# The ranks are joined by equality, so that each hit costs the same however long its row is.
_NEIGHBOURS = sql.SQL(
    "WITH placed AS MATERIALIZED ("
    "SELECT text_id, shared,"
    " row_number() OVER (PARTITION BY shared ORDER BY number::numeric, text_id) AS rank"
    " FROM (SELECT text_id, {shared} AS shared, {number} AS number FROM {rows} WHERE true{kept})"
    " AS found WHERE jsonb_typeof(number) = 'number'"
    " AND jsonb_typeof(shared) IN ('string', 'number', 'boolean'))"
    " SELECT {version}, hit.text_id, step.step, near.text_id FROM placed AS hit"
    " CROSS JOIN generate_series(%(before)s::bigint, %(after)s::bigint) AS step(step)"
    " JOIN placed AS near ON near.shared = hit.shared AND near.rank = hit.rank + step.step"
    " WHERE hit.text_id = ANY(%(ids)s) AND step.step <> 0"
    " ORDER BY hit.text_id, step.step"
)


def _values(number: int, kind: str) -> str:
    """Return the SQL of what is at both of a path's places, which may be the same."""
    one = f"jsonb_path_query_{kind}(metadata, %({{place}}_{number})s::jsonpath)"
    joined = " || " if kind == "array" else ", "
    return joined.join(one.format(place=place) for place in ("first", "last"))


def _first(number: int) -> str:
    return f"coalesce({_values(number, 'first')})"


def _places(path: Path, number: int) -> dict[str, str]:
    places = [jsonpath_of(keys) for keys in path.places]
    return {f"first_{number}": places[0], f"last_{number}": places[-1]}


def _scalars(array: str) -> tuple[Scalar, ...]:
    """Return the scalars of a JSON array but null, each once; 1 and true are two."""
    found = {
        (isinstance(each, bool), each): each
        for each in orjson.loads(array)
        if isinstance(each, str | int | float)
    }
    return tuple(found.values())

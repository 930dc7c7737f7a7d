"""Reads what maps of a project are drawn from and coloured by: vectors, and values of metadata."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import orjson
from psycopg import sql

from embeddings.filters import Path
from embeddings.store._conditions import jsonpath_of
from embeddings.store._parts import VERSION, Parts, read, rows_of, trusted
from embeddings.store._values import Matrix


def stable_sample(project_id: int, size: int) -> list[str]:
    """Return the ids of so many of the project's embeddings, or of all, in a random order.

    The order depends on nothing but the ids: the same texts are chosen again, and each part of the
    order is a fair sample, too. Reads the ids of all.
    """
    found = read(
        project_id,
        lambda parts: sql.SQL(
            "SELECT {version}, text_id FROM {rows}"
            " ORDER BY hashtextextended(text_id, 0), text_id LIMIT %(size)s"
        ).format(version=VERSION, rows=rows_of(parts.segment, "project_id, text_id")),
        {"size": size},
    )
    return [text_id for (text_id,) in found]


def vectors_of(
    project_id: int, text_ids: Sequence[str], dimensions: int
) -> tuple[list[str], Matrix]:
    """Return the vectors of some texts: their ids, and float32 of shape (n, dimensions).

    Those that are not stored, or have another number of dimensions, are left out.
    """
    found = read(
        project_id,
        lambda parts: sql.SQL(
            "SELECT {version}, text_id, vector_send(vector) FROM {rows}"
            " WHERE text_id = ANY(%(ids)s) AND vector_dims(vector) = %(dimensions)s"
        ).format(version=VERSION, rows=rows_of(parts.segment, "project_id, text_id, vector")),
        {"ids": list(text_ids), "dimensions": dimensions},
    )
    # Four bytes before the numbers say how many there are.
    numbers = np.frombuffer(b"".join([data for _, data in found]), dtype=np.uint8)
    rows = numbers.reshape(len(found), 4 + 4 * dimensions)[:, 4:]
    vectors = np.ascontiguousarray(rows).view(">f4").astype(np.float32)
    return [text_id for text_id, _ in found], vectors.reshape(len(found), dimensions)


def first_values(
    project_id: int, path: Path, text_ids: Sequence[str] | None = None
) -> dict[str, str]:
    """Return the first string, number or boolean at a path, as JSON text, by text id.

    text_ids: None for all of the project's. Texts without a value are left out.
    """
    places = [jsonpath_of(keys) for keys in path.places]
    parameters = {
        "first": f"{places[0]} ? ({_SCALAR})",
        "last": f"{places[-1]} ? ({_SCALAR})",
        "ids": None if text_ids is None else list(text_ids),
    }
    value = "jsonb_path_query_first(metadata, %(first)s::jsonpath)"
    if len(places) > 1:
        value = f"coalesce({value}, jsonb_path_query_first(metadata, %(last)s::jsonpath))"
    among = "" if text_ids is None else " AND text_id = ANY(%(ids)s)"

    def statement(parts: Parts) -> sql.Composed:
        # One document is read in a tenth of the time that so many rows take.
        return sql.SQL(
            "SELECT {version}, json_object_agg(text_id, value::text)::text"
            " FROM (SELECT text_id, {value} AS value FROM {rows} WHERE true{among}"
            # Or the value would be looked for twice.
            " OFFSET 0) AS found WHERE value IS NOT NULL"
        ).format(
            version=VERSION,
            value=trusted(value),
            rows=rows_of(parts.segment, "project_id, text_id, metadata"),
            among=trusted(among),
        )

    [(found,)] = read(project_id, statement, parameters)
    return {} if found is None else cast("dict[str, str]", orjson.loads(found))


_SCALAR = " || ".join(f'@.type() == "{each}"' for each in ("string", "number", "boolean"))


def fingerprint(project_id: int) -> int:
    """Return a number that is another one after any text was stored, replaced or deleted.

    Reads all of the project's rows.
    """
    [(found,)] = read(
        project_id,
        lambda parts: sql.SQL(
            "SELECT {version}, coalesce(bit_xor("
            "hash_record_extended(ROW(text_id, updated_at), 0)), 0) FROM {rows}"
        ).format(version=VERSION, rows=rows_of(parts.segment, "project_id, text_id, updated_at")),
        {},
    )
    return int(found)

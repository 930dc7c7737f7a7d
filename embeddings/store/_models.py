"""Which models made a project's vectors, and what the vectors look like."""

import numpy as np
from psycopg import sql

from embeddings.store._parts import GROWING, VERSION, Parts, read, rows_of, table_of, trusted
from embeddings.store._values import Matrix
from embeddings.store._wire import decode_vector

# Among so many of the rows in the growing part some are chosen; more are there for minutes only.
_CHOSEN_AMONG = 20_000
# A page of a sealed segment holds about so many rows; whole pages are chosen.
_SPARE = 4


def rows_by_model(project_id: int) -> dict[int | None, int]:
    """Return how many embeddings each model made, None standing for those of which nobody knows.

    Reads all rows.
    """
    found = read(
        project_id,
        lambda parts: sql.SQL(
            "SELECT {version}, model_id, count(*) FROM {rows} GROUP BY model_id"
        ).format(version=VERSION, rows=rows_of(parts.segment, "project_id, text_id, model_id")),
        {},
    )
    return {model_id: int(rows) for model_id, rows in found}


def has_model(project_id: int, model_id: int) -> bool:
    """Say whether a model made any of the project's embeddings."""
    found = read(
        project_id,
        lambda parts: sql.SQL(
            "SELECT {version} FROM {rows} WHERE model_id = %(model)s LIMIT 1"
        ).format(version=VERSION, rows=rows_of(parts.segment, "project_id, text_id, model_id")),
        {"model": model_id},
    )
    return bool(found)


def sample_vectors(project_id: int, dimensions: int, size: int) -> Matrix:
    """Return some of the project's vectors, the oldest first: float32 of shape (n, dimensions).

    About `size` of each part, chosen at random, without reading all of the rows.
    """

    def statement(parts: Parts) -> sql.Composed:
        growing = trusted(
            "SELECT id, vector FROM {growing} WHERE project_id = %(project)s"
            " AND text_id = ANY(ARRAY(SELECT text_id FROM (SELECT text_id FROM {growing}"
            f" WHERE project_id = %(project)s LIMIT {_CHOSEN_AMONG}) AS ids"
            " ORDER BY random() LIMIT %(size)s))"
        ).format(growing=GROWING)
        rows = growing
        if parts.segment is not None:
            share = min(100.0, 100 * _SPARE * size / max(1, parts.rows))
            sealed = sql.SQL(
                "(SELECT id, vector FROM {sealed} TABLESAMPLE SYSTEM ({share}) LIMIT %(size)s)"
            ).format(sealed=table_of(parts.segment), share=sql.Literal(share))
            rows = sql.SQL("{growing} UNION ALL {sealed}").format(growing=growing, sealed=sealed)
        return sql.SQL(
            "SELECT {version}, vector_send(vector) FROM ({rows}) AS chosen"
            " WHERE vector_dims(vector) = %(dimensions)s ORDER BY id"
        ).format(version=VERSION, rows=rows)

    found = read(project_id, statement, {"size": size, "dimensions": dimensions})
    if not found:
        return np.empty((0, dimensions), dtype=np.float32)
    return np.stack([decode_vector(vector) for (vector,) in found])

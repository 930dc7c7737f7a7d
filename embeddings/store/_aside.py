"""Second sets of vectors of a project's texts, and their exchange for those that are searched.

A set has a number, the generation. Its vectors are for texts of a digest: where a text is another
by now, or is gone, its vector is of no use and is left alone. Exchanging a set for the vectors in
use saves those as the next generation, so that it is undone by exchanging once more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from embeddings.store._parts import GROWING, VERSION, forget, read, rows_of, table_of, trusted
from embeddings.store._segments import (
    COLUMNS,
    at_leisure,
    creation,
    everything,
    is_there,
    swap,
    unseal,
)
from embeddings.store._values import Matrix
from embeddings.store._wire import (
    encode_texts,
    encode_vector,
    encode_vectors,
    open_cursor,
    vector_oid,
)

_ASIDE = sql.Identifier("embeddings_vectoraside")
_DIGEST = "sha256(convert_to({row}.text, 'UTF8'))"
# What providers refuse, and no model can make anything of.
_BLANK = r"{row}.text !~ '\S'"
# A scalar subquery is an index look-up for each row; the planner would read the whole set instead.
_LACKING = (
    f"(SELECT text_digest FROM {{aside}} AS aside WHERE aside.project_id = %(project)s"
    f" AND aside.generation = %(generation)s AND aside.text_id = embedding.text_id)"
    f" IS DISTINCT FROM {_DIGEST.format(row='embedding')}"
)
_SAVE = trusted(
    "INSERT INTO {aside} (project_id, generation, instance_id, model_id, text_id, text_digest,"
    " vector) SELECT project_id, {next}, instance_id, model_id, text_id,"
    f" {_DIGEST.format(row='row')}, vector FROM {{rows}}"
    " ON CONFLICT (project_id, generation, text_id) DO UPDATE SET"
    " instance_id = excluded.instance_id, model_id = excluded.model_id,"
    " text_digest = excluded.text_digest, vector = excluded.vector"
)
_MATCHING = (
    "aside.project_id = {project} AND aside.generation = {generation}"
    f" AND aside.text_id = row.text_id AND aside.text_digest = {_DIGEST.format(row='row')}"
)


class Incomplete(Exception):
    """Some texts have no vector in the set: nothing was exchanged."""


@dataclass(frozen=True)
class Texts:
    """How much text a project has.

    rows: embeddings; blank: those of them without text.
    distinct, characters, bytes: the different texts, and their length together, in UTF-8.
    """

    rows: int
    blank: int
    distinct: int
    characters: int
    bytes: int


def texts_of(project_id: int) -> Texts:
    """Return how much text the project has; reads all of it."""
    found = read(
        project_id,
        lambda parts: trusted(
            "SELECT {version}, coalesce(sum(rows), 0)::bigint,"
            " coalesce(sum(rows) FILTER (WHERE blank), 0)::bigint,"
            " count(*) FILTER (WHERE NOT blank),"
            " coalesce(sum(characters) FILTER (WHERE NOT blank), 0)::bigint,"
            " coalesce(sum(bytes) FILTER (WHERE NOT blank), 0)::bigint"
            f" FROM (SELECT count(*) AS rows, bool_and({_BLANK.format(row='embedding')}) AS blank,"
            " max(length(text)) AS characters, max(octet_length(text)) AS bytes"
            f" FROM {{rows}} GROUP BY {_DIGEST.format(row='embedding')}) AS texts"
        ).format(version=VERSION, rows=rows_of(parts.segment, "project_id, text_id, text")),
        {},
    )
    return Texts(*(int(each) for each in found[0]))


def put_aside(
    project_id: int,
    generation: int,
    *,
    instance_id: int,
    model_id: int,
    text_ids: Sequence[str],
    digests: Sequence[bytes],
    vectors: Matrix,
) -> None:
    """Add vectors to a set.

    digests: SHA-256 of each text in UTF-8. vectors: float32 of shape (n, dimensions).
    """
    statement = sql.SQL(
        "INSERT INTO {aside} (project_id, generation, instance_id, model_id, text_id, text_digest,"
        " vector) SELECT %(project)s, %(generation)s, %(instance)s, %(model)s, text_id,"
        " decode(digest, 'hex'), vector"
        " FROM unnest(%(ids)s::text[], %(digests)s::text[], %(vectors)s::vector[])"
        " AS given (text_id, digest, vector)"
        " ON CONFLICT (project_id, generation, text_id) DO UPDATE SET"
        " instance_id = excluded.instance_id, model_id = excluded.model_id,"
        " text_digest = excluded.text_digest, vector = excluded.vector"
    ).format(aside=_ASIDE)
    with open_cursor() as cursor:
        cursor.execute(
            statement,
            {
                "project": project_id,
                "generation": generation,
                "instance": instance_id,
                "model": model_id,
                "ids": encode_texts([each.encode() for each in text_ids]),
                "digests": encode_texts([each.hex().encode() for each in digests]),
                "vectors": encode_vectors(vectors, vector_oid()),
            },
        )


def lacking(
    project_id: int, generation: int, *, after: str = "", limit: int
) -> list[tuple[str, str]]:
    """Return (text id, text) of the next embeddings whose text has no vector in a set."""
    found = read(
        project_id,
        lambda parts: trusted(
            f"SELECT {{version}}, text_id, text FROM {{rows}} WHERE text_id > %(after)s AND"
            f" {_LACKING} ORDER BY text_id LIMIT %(limit)s"
        ).format(
            version=VERSION,
            rows=rows_of(parts.segment, "project_id, text_id, text"),
            aside=_ASIDE,
        ),
        {"generation": generation, "after": after, "limit": limit},
    )
    return [(text_id, text) for text_id, text in found]


def count_lacking(project_id: int, generation: int) -> tuple[int, int]:
    """Return how many texts have no vector in a set, and how many of them are blank."""
    [(every, blank)] = read(
        project_id,
        lambda parts: trusted(
            "SELECT {version}, count(*),"
            f" count(*) FILTER (WHERE {_BLANK.format(row='embedding')})"
            f" FROM {{rows}} WHERE {_LACKING}"
        ).format(
            version=VERSION,
            rows=rows_of(parts.segment, "project_id, text_id, text"),
            aside=_ASIDE,
        ),
        {"generation": generation},
    )
    return int(every), int(blank)


def forget_aside(project_id: int, *, but: int | None = None) -> None:
    """Delete the project's sets, but for one generation."""
    statement = sql.SQL(
        "DELETE FROM {aside} WHERE project_id = %(project)s"
        " AND generation IS DISTINCT FROM %(but)s::int"
    ).format(aside=_ASIDE)
    with open_cursor() as cursor:
        cursor.execute(statement, {"project": project_id, "but": but})


def nearest_aside(
    project_id: int, generation: int, text_id: str, *, limit: int
) -> list[tuple[str, float]]:
    """Return (text id, cosine) of the texts nearest to one by the vectors of a set, without it.

    Of the texts that are stored as they were; compares all of them.
    """
    found = read(
        project_id,
        lambda parts: trusted(
            "SELECT {version}, embedding.text_id, 1 - (aside.vector <=> query.vector) AS similarity"
            " FROM {aside} AS query, {aside} AS aside JOIN {rows} USING (text_id)"
            " WHERE query.project_id = %(project)s AND query.generation = %(generation)s"
            " AND query.text_id = %(id)s AND aside.project_id = %(project)s"
            " AND aside.generation = %(generation)s AND aside.text_id <> %(id)s"
            " ORDER BY similarity DESC, embedding.text_id LIMIT %(limit)s"
        ).format(version=VERSION, aside=_ASIDE, rows=rows_of(parts.segment, "project_id, text_id")),
        {"generation": generation, "id": text_id, "limit": limit},
    )
    return [(each, float(similarity)) for each, similarity in found]


def nearest_aside_to(
    project_id: int, generation: int, vector: Matrix, *, limit: int
) -> list[tuple[str, float]]:
    """Return the same of the texts nearest to a vector: float32 of shape (dimensions of the set,).

    Of the texts that are stored as they were; compares all of them.
    """
    found = read(
        project_id,
        lambda parts: trusted(
            "SELECT {version}, embedding.text_id,"
            " 1 - (aside.vector <=> %(vector)s::vector) AS similarity"
            " FROM {aside} AS aside JOIN {rows} USING (text_id)"
            " WHERE aside.project_id = %(project)s AND aside.generation = %(generation)s"
            " ORDER BY similarity DESC, embedding.text_id LIMIT %(limit)s"
        ).format(version=VERSION, aside=_ASIDE, rows=rows_of(parts.segment, "project_id, text_id")),
        {"generation": generation, "vector": encode_vector(vector), "limit": limit},
    )
    return [(each, float(similarity)) for each, similarity in found]


# --- Exchanging -----------------------------------------------------------------------------------
def copy_exchanged(
    project_id: int, segment: int, generation: int, *, sealed_segment: int | None
) -> None:
    """Make a segment's table of the project's rows with the vectors of a set, if need be.

    The vectors in use are saved as the next generation. Rows that the set lacks are left out.
    """
    if is_there(segment):
        return
    names = _names(project_id, generation, sealed_segment)
    with at_leisure() as cursor:
        cursor.execute(creation(project_id, segment))
        cursor.execute(
            trusted(
                "INSERT INTO {table} (segment, {columns}) SELECT {number}, {exchanged}"
                f" FROM {{rows}} JOIN {{aside}} AS aside ON {_MATCHING} ORDER BY row.text_id"
            ).format(table=table_of(segment), number=sql.Literal(segment), **names)
        )
        # Later than the copy: what changes in between is saved once more when it is swapped in.
        cursor.execute(_SAVE.format(**names))


def swap_exchanged(
    project_id: int, segment: int, generation: int, *, sealed_segment: int | None
) -> None:
    """Let such a segment take the place of the project's rows; raise Incomplete.

    As `swap`: what has changed since it was copied is in the growing part, and is exchanged there.
    """
    if sealed_segment is not None:
        _unseal_uncopied(segment, sealed_segment)
    swap(project_id, segment, sealed_segment=sealed_segment)
    _exchange_growing(project_id, generation)
    forget_aside(project_id, but=generation + 1)


def _unseal_uncopied(segment: int, sealed_segment: int) -> None:
    """Put sealed rows back into the growing part that a copy lacks: they were sealed after it."""
    statement = sql.SQL(
        "INSERT INTO {growing} (segment, {columns}) SELECT 0, {columns} FROM {sealed} AS row"
        " WHERE NOT EXISTS (SELECT 1 FROM {table} AS copied WHERE copied.text_id = row.text_id"
        " AND copied.id = row.id AND copied.updated_at = row.updated_at)"
    ).format(
        growing=GROWING,
        columns=COLUMNS,
        sealed=table_of(sealed_segment),
        table=table_of(segment),
    )
    with open_cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute(statement)


def exchange(project_id: int, generation: int, *, sealed_segment: int | None) -> None:
    """Exchange a set for the vectors in use; all rows are in the growing part then.

    Raises Incomplete. The caller's transaction keeps uploads waiting, and gives up the project's
    sealed segment.
    """
    if sealed_segment is not None:
        unseal(sealed_segment)
    _exchange_growing(project_id, generation)
    forget_aside(project_id, but=generation + 1)
    forget(project_id)


def _exchange_growing(project_id: int, generation: int) -> None:
    """Exchange the vectors of the rows in the growing part, and save those they had."""
    names = _names(project_id, generation, None)
    with open_cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute(_SAVE.format(**names))
        saved = cursor.rowcount
        cursor.execute(
            trusted(
                "UPDATE {growing} AS row SET vector = aside.vector,"
                " instance_id = aside.instance_id, model_id = aside.model_id FROM {aside} AS aside"
                f" WHERE row.project_id = {{project}} AND {_MATCHING}"
            ).format(growing=GROWING, **names)
        )
        if cursor.rowcount != saved:
            raise Incomplete


def _names(project_id: int, generation: int, sealed_segment: int | None) -> dict[str, Any]:
    exchanged = [
        f"aside.{each}" if each in {"vector", "instance_id", "model_id"} else f"row.{each}"
        for each in COLUMNS.as_string().split(", ")
    ]
    return {
        "aside": _ASIDE,
        "columns": COLUMNS,
        "exchanged": trusted(", ".join(exchanged)),
        "generation": sql.Literal(generation),
        "next": sql.Literal(generation + 1),
        "project": sql.Literal(project_id),
        "rows": everything(project_id, sealed_segment, name="row"),
    }

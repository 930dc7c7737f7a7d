"""Ranks embeddings by similarity."""

from collections.abc import Sequence
from typing import Any

from psycopg import sql

from embeddings.store._values import (
    GROWING,
    Exclusion,
    Hit,
    Matrix,
    Wanted,
)
from embeddings.store._wire import encode_vector, open_cursor


def nearest(project_id: int, vector: Matrix, wanted: Wanted) -> list[Hit]:
    """Return the embeddings nearest to a vector by cosine, the best first, ties by text id.

    vector: float32 of shape (dimensions,).
    """
    statement, parameters = _ranking(
        wanted, query=sql.SQL("%(vector)s::vector"), others=sql.SQL("true")
    )
    parameters |= {"project": project_id, "vector": encode_vector(vector)}
    with open_cursor() as cursor:
        cursor.execute(statement, parameters)
        return [Hit(text_id, float(similarity)) for text_id, similarity in cursor.fetchall()]


def nearest_to_stored(project_id: int, text_ids: Sequence[str], wanted: Wanted) -> list[Hit] | None:
    """Return the embeddings nearest to a stored one, without itself; None where there is none.

    text_ids: of these, the first that is stored is meant. One statement.
    """
    ranking, parameters = _ranking(
        wanted,
        query=sql.SQL("query.vector"),
        others=sql.SQL("embedding.text_id <> query.text_id"),
    )
    statement = sql.SQL(
        "WITH query AS MATERIALIZED ("
        " SELECT text_id, vector FROM {growing}"
        " WHERE project_id = %(project)s AND text_id = ANY(%(ids)s)"
        " ORDER BY array_position(%(ids)s::text[], text_id::text) LIMIT 1)"
        " SELECT hits.text_id, hits.similarity"
        " FROM query LEFT JOIN LATERAL ({ranking}) AS hits ON true"
        " ORDER BY hits.similarity DESC, hits.text_id"
    ).format(growing=GROWING, ranking=ranking)
    parameters |= {"project": project_id, "ids": list(text_ids)}
    with open_cursor() as cursor:
        cursor.execute(statement, parameters)
        rows = cursor.fetchall()
    if not rows:
        return None
    return [Hit(text_id, float(similarity)) for text_id, similarity in rows if text_id is not None]


def _ranking(
    wanted: Wanted, *, query: sql.Composable, others: sql.Composable
) -> tuple[sql.Composed, dict[str, Any]]:
    """Return the statement that ranks a project's embeddings, and its parameters but the project.

    query: the vector to compare with.
    others: which rows may be results.
    The threshold cuts the ranking's tail, so it is applied outside of the sorted part: the distance
    is computed once for each row.
    """
    excluded, parameters = _excluding(wanted.exclusion)
    statement = sql.SQL(
        "SELECT text_id, 1 - distance AS similarity FROM ("
        " SELECT embedding.text_id, embedding.vector <=> {query} AS distance"
        " FROM {growing} AS embedding"
        " WHERE embedding.project_id = %(project)s"
        " AND vector_dims(embedding.vector) = vector_dims({query}) AND {others} {excluded}"
        " ORDER BY distance, embedding.text_id LIMIT %(limit)s OFFSET %(offset)s"
        ") AS ranked WHERE 1 - distance >= %(threshold)s ORDER BY distance, text_id"
    ).format(query=query, growing=GROWING, others=others, excluded=excluded)
    parameters |= {
        "limit": wanted.limit,
        "offset": wanted.offset,
        "threshold": wanted.threshold,
    }
    return statement, parameters


def _excluding(exclusion: Exclusion | None) -> tuple[sql.Composed, dict[str, Any]]:
    """Return the condition that leaves rows out, and its parameters.

    The path is walked with `->`, which looks into objects only: `#>` would take a number in the
    path for an array index. A key that holds the dots itself counts too.
    """
    if exclusion is None:
        return sql.Composed([]), {}
    nested: sql.Composable = sql.SQL("embedding.metadata")
    parameters: dict[str, Any] = {"value": exclusion.value}
    *parents, last = exclusion.path
    for depth, key in enumerate(parents):
        nested += sql.SQL(" -> {}::text").format(sql.Placeholder(f"path_{depth}"))
        parameters[f"path_{depth}"] = key
    parameters |= {"last": last, "whole": ".".join(exclusion.path)}
    value = sql.SQL("({object}) -> %(last)s::text").format(object=nested)
    whole = sql.SQL("embedding.metadata -> %(whole)s::text")
    return sql.SQL("AND NOT ({nested} OR {whole})").format(
        nested=_equals(value), whole=_equals(whole)
    ), parameters


def _equals(value: sql.Composable) -> sql.Composed:
    # `#>> '{}'` is the text of a scalar; objects and arrays are no values to compare with.
    return sql.SQL(
        "coalesce(jsonb_typeof({value}) IN ('string', 'number', 'boolean')"
        " AND btrim(({value}) #>> ARRAY[]::text[], {space})"
        " = btrim(%(value)s::text, {space}), false)"
    ).format(value=value, space=sql.Literal(" \t\n\r\f\v"))

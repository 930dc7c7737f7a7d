"""Ranks embeddings by similarity.

The growing part of a project is always compared row by row. For a sealed segment there are three
plans, and this module chooses, since PostgreSQL's planner misjudges filters on graphs:

exact: every row, for projects without a segment, deep pages, and where others find too little;
bitmap: the rows that a filter's own index finds, where they are few;
hnsw: the graph's nearest candidates, then ranked by exact similarity. With a filter, those of the
nearest 128 rows that match, of the nearest 400, or 1000.

The answer is never short while there are matching rows: where too few of the nearest rows match,
all matches are compared. pgvector's iterative scans would go on instead, and return matches that
they come by on the way rather than the nearest, where a filter keeps what is far from the query.
Exactly answered is also what would be cut among equals, so that pages fit together.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.db import OperationalError, connection

from common.versions import RowVersion, Stale, as_parameters, unchanged
from embeddings.store import _graph
from embeddings.store._conditions import Conditions, conditions_of
from embeddings.store._parts import (
    STATE,
    Gone,
    Parts,
    forget,
    looking_again,
    name_of,
    parts_of,
    trusted,
)
from embeddings.store._time import is_bounded, run, within
from embeddings.store._values import (
    Hit,
    Matrix,
    Plan,
    Ranking,
    Wanted,
)
from embeddings.store._wire import encode_vector

# Seconds of a statement that compares every row. Others are quick, and have no bound of their own:
# setting it would take them a tenth of their time.
LONGEST_S = 8.0
# hnsw.ef_search takes no more; pages beyond are ranked exactly.
MOST_CANDIDATES = 1_000
# What a filter finds is compared exactly while that takes no longer than walking the graph: so many
# numbers, 2000 rows of 384. Finding a row costs more than comparing it.
_BITMAP_NUMBERS = 768_000
# How many rows a filter finds is counted once in a while; it only decides between plans.
_COUNT_EVERY_S = 60.0
_MOST_COUNTED = 2_000
_BUCKETS = (16, 32, 64, 128, 256, 512, MOST_CANDIDATES)
# With a filter or an exclusion, so many of the nearest rows are looked at, then as many as can be.
_WALKS = (128, 400)
_ATTEMPTS = 20
# PostgreSQL's largest whole number.
_LARGEST = 2**63 - 1


def nearest(
    project_id: int, vector: Matrix, wanted: Wanted, guards: Sequence[RowVersion] = ()
) -> Ranking:
    """Return the embeddings nearest to a vector by cosine, the best first, ties by text id.

    vector: float32 of shape (dimensions,).
    guards: what must still be as the caller knows it; else Stale is raised. One statement without
    a filter, two with one, and one more where a plan found too little.
    """
    found = _rank(project_id, wanted, guards, {"vector": encode_vector(vector)}, by_vector=True)
    if found is None:
        raise AssertionError("a vector is always there")
    return found


def nearest_to_stored(
    project_id: int, text_ids: Sequence[str], wanted: Wanted, guards: Sequence[RowVersion] = ()
) -> Ranking | None:
    """Return the embeddings nearest to a stored one, without itself; None where there is none.

    text_ids: of these, the first that is stored is meant. The rest as in `nearest`.
    """
    return _rank(project_id, wanted, guards, {"ids": list(text_ids)}, by_vector=False)


def statement_through_graph(
    project_id: int, parts: Parts, vector: Matrix
) -> tuple[bytes, dict[str, Any]]:
    """Return the statement that answers a search through a project's graph, and its parameters.

    For who wants to know PostgreSQL's plan of it.
    """
    wanted = Wanted(limit=10, offset=0, threshold=-1.0)
    shape = _Shape(parts.segment, parts.version is None, True, "", ())
    choice = next(_choices(parts, wanted, conditions_of(None, None)))
    parameters = {
        "project": project_id,
        "limit": wanted.limit,
        "offset": wanted.offset,
        "last": wanted.last,
        "threshold": wanted.threshold,
        "vector": encode_vector(vector),
        "version": str(parts.version),
        "ef_search": str(choice.ef_search),
    }
    return _statement(shape, choice.plan, choice.walked, parts.dimensions), parameters


def _rank(
    project_id: int,
    wanted: Wanted,
    guards: Sequence[RowVersion],
    query: dict[str, Any],
    *,
    by_vector: bool,
) -> Ranking | None:
    conditions = conditions_of(wanted.filter, wanted.exclusion, wanted.left_out, wanted.without)
    parameters = {
        "project": project_id,
        "limit": wanted.limit,
        "offset": wanted.offset,
        "last": min(wanted.last, _LARGEST),
        "threshold": wanted.threshold,
        **query,
        **conditions.parameters,
        **as_parameters(guards),
    }
    tables = tuple(guard.table for guard in guards)
    for _ in range(_ATTEMPTS):
        parts = parts_of(project_id)
        shape = _Shape(parts.segment, parts.version is None, by_vector, conditions.text, tables)
        try:
            with looking_again(project_id):
                choice, found = _search(parts, shape, wanted, parameters, conditions)
        except Gone:
            if connection.in_atomic_block:
                raise
            continue
        if not found.at_home:
            forget(project_id)
            continue
        if not found.guarded:
            raise Stale
        if not (by_vector or found.is_stored):
            return None
        return Ranking(
            found.hits,
            choice.plan,
            segment=parts.segment,
            ef_search=choice.ef_search or None,
            candidates=found.candidates if choice.walked else choice.matches,
            complete=not choice.walked,
            fell_back=choice.fell_back,
        )
    raise OperationalError(f"The embeddings of project {project_id} keep moving.")


def _search(
    parts: Parts,
    shape: "_Shape",
    wanted: Wanted,
    parameters: dict[str, Any],
    conditions: Conditions,
) -> tuple["_Choice", "_Found"]:
    """Run the plan that is chosen, and compare every row where it found too little."""
    for choice in _choices(parts, wanted, conditions):
        statement = _statement(shape, choice.plan, choice.walked, parts.dimensions)
        found = _run(statement, parameters, parts, choice, shape.conditions)
        is_enough = found.candidates >= choice.needed and not found.is_cut
        if not (found.at_home and found.guarded) or is_enough:
            break
    return choice, found


# --- Which plan -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Choice:
    """A plan; of one through the graph, how far and how broadly to walk it, and what has to come.

    matches: how many rows of the segment a filter was found to match; None where all are compared.
    walked: how many of the nearest rows are looked at. needed: how many of them have to match.
    """

    plan: Plan
    matches: int | None = None
    walked: int = 0
    needed: int = 0
    ef_search: int = 0
    fell_back: bool = False


def _choices(parts: Parts, wanted: Wanted, conditions: Conditions) -> Iterator[_Choice]:
    """Return the plans to try, one after the other, until one finds enough: the last one does."""
    if parts.segment is None or wanted.exact:
        yield _Choice(Plan.EXACT)
        return
    needed = _graph.candidates(wanted.last, parts.dimensions)
    # One more, where the query is a stored row and finds itself.
    bucket = next((size for size in _BUCKETS if size > needed), None)
    if bucket is None:
        yield _Choice(Plan.EXACT)
        return
    walks = [bucket]
    if wanted.filter is not None:
        few = max(_BITMAP_NUMBERS // max(parts.dimensions, 256), bucket)
        matches = _matches(parts.segment, conditions, at_most=few + 1)
        if matches <= few:
            # Without an index to find them, the matches are looked for among all rows.
            is_found = conditions.is_indexed
            yield _Choice(Plan.BITMAP, matches) if is_found else _Choice(Plan.EXACT)
            return
    if conditions.text:
        # Whether the nearest rows match is seen by looking at them. Where too few do, the matches
        # lie elsewhere, and a longer walk would find some, but not the nearest.
        walks = [*(walk for walk in _WALKS if walk > needed), MOST_CANDIDATES]
    for walked in walks:
        ef_search = min(max(wanted.ef_search or parts.ef_search, walked), MOST_CANDIDATES)
        yield _Choice(Plan.HNSW, None, walked, needed, ef_search)
    yield _Choice(Plan.EXACT, fell_back=True)


_counted: dict[Any, tuple[float, int]] = {}


def _matches(segment: int, conditions: Conditions, *, at_most: int) -> int:
    """Return how many rows of a segment fulfilled the conditions lately, counting up to a number.

    The same filter comes with many queries.
    """
    asked = (segment, conditions.text, at_most, *sorted(conditions.parameters.items()))
    known = _counted.get(asked)
    if known is None or time.monotonic() - known[0] > _COUNT_EVERY_S:
        if len(_counted) >= _MOST_COUNTED:
            _counted.clear()
        known = time.monotonic(), _count(segment, conditions, at_most=at_most)
        _counted[asked] = known
    return known[1]


def _count(segment: int, conditions: Conditions, *, at_most: int) -> int:
    statement = trusted(
        f"SELECT count(*) FROM (SELECT 1 FROM {name_of(segment)} AS embedding"
        f" WHERE true {conditions.text} LIMIT %(at_most)s) AS counted"
    )
    settings = {"enable_seqscan": "off"} if conditions.is_indexed else {}
    parameters = {**conditions.parameters, "at_most": at_most}
    rows = run(statement, parameters, settings, prepare=True)
    return int(rows[0][0])


# --- Statements -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Shape:
    """What the text of a statement depends on besides its plan.

    stateless: whether the project has no state row.
    by_vector: whether the query is a vector of the caller's or a stored one.
    guarded: the tables of the guards.
    """

    segment: int | None
    stateless: bool
    by_vector: bool
    conditions: str
    guarded: tuple[str, ...]


@lru_cache(maxsize=5_000)
def _statement(shape: _Shape, plan: Plan, walked: int, dimensions: int) -> bytes:
    """Return the statement that answers whether all is as it was, and if so the ranking.

    Columns: whether the rows are where they were thought to be, whether the guards hold, how many
    candidates there were, the distance of the farthest, the id of the stored query, and the hits.
    """
    is_graph = plan is Plan.HNSW
    by_name = is_graph or not shape.by_vector
    query = "(SELECT vector FROM query)" if by_name else "%(vector)s::vector"
    is_other = "" if shape.by_vector else " AND embedding.text_id <> (SELECT text_id FROM query)"
    conditions = is_other + shape.conditions
    named = []
    if by_name:
        given = "SELECT %(vector)s::vector AS vector"
        source = given if shape.by_vector else _stored_query(shape.segment)
        named.append(f"query AS MATERIALIZED ({_prepared(source) if is_graph else source})")
    compared = (
        f"SELECT text_id, vector <=> {query} AS distance FROM {{table}} AS embedding"
        f" WHERE {{condition}} AND vector_dims(vector) = vector_dims({query}) {conditions}"
    )
    growing = compared.format(
        table="embeddings_embedding_growing", condition="project_id = %(project)s"
    )
    if shape.segment is None:
        rows = growing
    elif is_graph:
        dims = dimensions
        named.append(
            f"candidates AS MATERIALIZED (SELECT text_id, vector <=> {query} AS distance FROM ("
            f"SELECT text_id, vector, metadata FROM {name_of(shape.segment)}"
            f" ORDER BY {_graph.operand('vector', dims)} {_graph.operator(dims)}"
            f" {_graph.operand(query, dims)} LIMIT {walked}) AS embedding WHERE true {conditions})"
        )
        rows = (
            "SELECT text_id, distance FROM candidates"
            f" UNION ALL ({growing} ORDER BY 2, 1 LIMIT %(last)s)"
        )
    else:
        # Without the project's id, which all rows of the segment have: no index on it would help.
        sealed = compared.format(table=name_of(shape.segment), condition="true")
        rows = f"{growing} UNION ALL {sealed}"
    counted = "0, NULL::float8"
    if is_graph:
        counted = "(SELECT count(*) FROM candidates), (SELECT max(distance) FROM candidates)"
    stored = "NULL::text" if shape.by_vector else "(SELECT text_id FROM query)"
    text = (
        f"{'WITH ' + ', '.join(named) if named else ''}"
        f" SELECT seen.at_home, seen.guarded, {counted}, {stored}, hits.text_id, hits.similarity"
        f" FROM (SELECT {_at_home(shape.stateless)} AS at_home,"
        f" {unchanged(shape.guarded)} AS guarded) AS seen"
        " LEFT JOIN LATERAL (SELECT text_id, 1 - distance AS similarity FROM ("
        f"SELECT text_id, distance FROM ({rows}) AS compared"
        " ORDER BY distance, text_id LIMIT %(limit)s OFFSET %(offset)s"
        # The threshold cuts the ranking's tail, outside of the sorted part: the distance is
        # computed once for each row.
        ") AS ranked WHERE 1 - distance >= %(threshold)s) AS hits ON seen.at_home AND seen.guarded"
        " ORDER BY hits.similarity DESC, hits.text_id"
        # A prepared statement keeps its plan: plans made under other settings need another text.
        f" -- {plan}"
    )
    return text.encode()


def _prepared(query: str) -> str:
    """Return the query with the graph's settings made before anybody can have it.

    They are read when a scan begins, which needs the query, and last as long as the statement's
    transaction.
    """
    return (
        f"SELECT * FROM ({query}) AS given"
        " WHERE set_config('hnsw.ef_search', %(ef_search)s, true) IS NOT NULL"
        " AND set_config('hnsw.iterative_scan', 'relaxed_order', true) IS NOT NULL"
    )


def _stored_query(segment: int | None) -> str:
    one = (
        "SELECT text_id, vector FROM {table}"
        " WHERE project_id = %(project)s AND text_id = ANY(%(ids)s)"
    )
    rows = one.format(table="embeddings_embedding_growing")
    if segment is not None:
        rows += f" UNION ALL {one.format(table=name_of(segment))}"
    return (
        f"SELECT text_id, vector FROM ({rows}) AS stored"
        " ORDER BY array_position(%(ids)s::text[], text_id::text) LIMIT 1"
    )


def _at_home(stateless: bool) -> str:
    """Return the condition that the project's rows are where they were thought to be."""
    state = f"SELECT 1 FROM {STATE} WHERE project_id = %(project)s"
    if stateless:
        return f"NOT EXISTS ({state})"
    return f"EXISTS ({state} AND xmin = %(version)s::text::xid)"


# --- Running --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Found:
    """What a statement found.

    is_cut: whether no candidate is farther than the last hit: then other rows may be as near, and
    which of them are hits would be left to chance, not to their ids.
    """

    at_home: bool
    guarded: bool
    candidates: int
    is_cut: bool
    is_stored: bool
    hits: list[Hit]


def _run(
    statement: bytes, parameters: dict[str, Any], parts: Parts, choice: _Choice, conditions: str
) -> _Found:
    settings = {}
    if conditions and choice.plan is Plan.BITMAP:
        # The planner knows little of what filters match, and would read all rows.
        settings["enable_seqscan"] = "off"
    parameters = {
        **parameters,
        "version": str(parts.version),
        "ef_search": str(choice.ef_search),
    }
    # Rows of a large project that are compared one by one are many.
    is_long = parts.segment is not None and choice.plan is not Plan.HNSW
    with within(LONGEST_S) if is_long and not is_bounded() else nullcontext():
        rows = run(statement, parameters, settings, prepare=True)
    at_home, guarded, candidates, farthest, stored, _, _ = rows[0]
    hits = [Hit(row[5], float(row[6])) for row in rows if row[5] is not None]
    is_cut = bool(hits) and farthest is not None and 1 - farthest >= hits[-1].similarity
    return _Found(at_home, guarded, int(candidates), is_cut, stored is not None, hits)

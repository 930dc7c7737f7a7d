"""Filters and exclusions: what numpy finds, whatever the plan, and never less than there is."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from django.db import transaction
from pytest_django import DjangoDbBlocker, Settings

from embeddings.store import _searching
from tests.embeddings.large import (
    CLOSE,
    Matrix,
    Shelf,
    assert_ranked,
    brute_force,
    hits,
    name,
    plan,
    recall,
    vectors,
)
from tests.factories import Caller, make_user

ROWS, GROWING, DIMENSIONS = 1400, 40, 64
ALL = range(ROWS + GROWING)
SIZES = (1, 10, 100, 700, 1400)
# A row outside of the project: what it is like is known to be near and far.
QUERY = 4321


def order(query: Matrix) -> list[int]:
    """Return all rows, the nearest first."""
    return [int(text_id[1:]) for text_id, _ in brute_force(query, ALL)]


def metadata(row: int) -> dict[str, Any]:
    """Return metadata that says how near to QUERY a row is, and much else."""
    rank = RANKS[row]
    return {
        "row": row,
        "near": [f"n{size}" for size in SIZES if rank < size],
        "far": [f"f{size}" for size in SIZES if rank >= len(ALL) - size],
        "any": {"of": [f"a{size}" for size in SIZES if (row * 7919) % len(ALL) < size]},
        "parity": "even" if row % 2 == 0 else "odd",
        "flag": row % 3 == 0,
        "nothing": None if row % 5 == 0 else "something",
        "half": row / 2,
        "source": {"year": 1700 + row % 100, "deep": {"er": {"title": f"Title {row % 10}"}}},
        "source.year": f"literal {row % 20}",
        "ünï cødé \"'\\": f"日本 <{row % 4}> \"quoted\" 'single' \\ %s %(x)s {{}}",
        "list": [row % 6, str(row % 7), {"not": "a scalar"}, [row % 8]],
    }


RANKS = {row: rank for rank, row in enumerate(order(vectors(DIMENSIONS)[QUERY]))}


@pytest.fixture(scope="module")
def shelves(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[dict[str, Shelf]]:
    """Fill two projects with the same texts, one of them indexed; once for this module."""
    from django.conf import settings

    before = settings.INDEX_THRESHOLD
    with django_db_blocker.unblock(), transaction.atomic():
        owner = make_user("librarian")
        exact = Shelf(owner, "exact", DIMENSIONS, metadata).make()
        exact.upload(ALL)
        other = Shelf(make_user("other"), "indexed", DIMENSIONS, metadata).make()
        other.upload(range(ROWS))
        try:
            settings.INDEX_THRESHOLD = ROWS * DIMENSIONS
            index = _tended(other)
        finally:
            settings.INDEX_THRESHOLD = before
        assert index["state"] == "indexed"
        other.upload(range(ROWS, ROWS + GROWING))
        assert other.index()["rows"]["growing"] == GROWING
        yield {"exact": exact, "indexed": other}
        transaction.set_rollback(True)


def _tended(shelf: Shelf) -> dict[str, Any]:
    from embeddings import indexes

    # The other project has reached the threshold, too.
    indexes.tend(shelf.row.pk)
    return shelf.index()


@pytest.fixture(params=["exact", "indexed"])
def shelf(shelves: dict[str, Shelf], request: pytest.FixtureRequest, db: None) -> Shelf:
    """Return a project that is searched exactly, and one with an index."""
    return shelves[request.param]


@pytest.fixture
def indexed(shelves: dict[str, Shelf], db: None) -> Shelf:
    """Return the project with an index."""
    return shelves["indexed"]


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have filters that match more than a hundred rows or so walk the graph."""
    monkeypatch.setattr(_searching, "_BITMAP_NUMBERS", 3_000)


def check(
    shelf: Shelf,
    query: Matrix,
    keep: Callable[[int], bool],
    body: Any = None,
    *,
    limit: int = 10,
    offset: int = 0,
    least: float = 0.95,
    **options: Any,
) -> str:
    """Compare a search with numpy's, and its exact twin; return its plan."""
    threshold = float(options.get("threshold", 0))
    ranking = brute_force(query, [row for row in ALL if keep(row)])
    sure = [each for each in ranking if each[1] >= threshold + CLOSE]
    possible = [each for each in ranking if each[1] >= threshold - CLOSE]
    asked = {"limit": limit, "offset": offset, **options}
    answer = shelf.search(query, body, **asked)
    found = hits(answer)
    allowed = {text_id for text_id, _ in possible}
    assert {text_id for text_id, _ in found} <= allowed
    sizes = {max(0, min(limit, len(each) - offset)) for each in (sure, possible)}
    assert min(sizes) <= len(found) <= max(sizes), (answer["explain"], sizes)
    assert [each for _, each in found] == sorted((each for _, each in found), reverse=True)
    expected = ranking[offset : offset + len(found)]
    if answer["explain"]["complete"]:
        assert_window(found, expected, ranking)
    assert recall(found, expected) >= least, answer["explain"]
    exactly = shelf.search(query, body, exact="true", **asked)
    assert (plan(exactly), exactly["explain"]["complete"]) == ("exact", True)
    assert_window(hits(exactly), expected, ranking)
    return plan(answer)


def assert_window(
    found: list[tuple[str, float]],
    expected: list[tuple[str, float]],
    ranking: list[tuple[str, float]],
) -> None:
    assert len(found) == len(expected)
    assert_ranked(found, expected + ranking)


# --- How many match, and where they are -----------------------------------------------------------
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["near", "far", "any.of"])
def test_filters_of_any_selectivity_find_all_they_should(
    shelf: Shelf, kind: str, size: int
) -> None:
    key, value = kind.split(".")[0], f"{kind[0]}{size}"

    def keep(row: int) -> bool:
        found: Any = metadata(row)[key]
        return value in (found["of"] if kind == "any.of" else found)

    body = {"filter": {kind: value}}
    assert sum(map(keep, ALL)) == size
    for row in (QUERY, 5000, 17):
        used = check(shelf, vectors(DIMENSIONS)[row], keep, body)
        assert used == ("exact" if shelf.handle == "exact" else "bitmap")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["near", "far", "any.of"])
def test_many_matches_are_found_by_walking_the_graph(
    indexed: Shelf, walked: None, kind: str, size: int
) -> None:
    key, value = kind.split(".")[0], f"{kind[0]}{size}"

    def keep(row: int) -> bool:
        found: Any = metadata(row)[key]
        return value in (found["of"] if kind == "any.of" else found)

    for row in (QUERY, 5000, 17):
        used = check(indexed, vectors(DIMENSIONS)[row], keep, {"filter": {kind: value}})
        assert used in ({"bitmap"} if size <= 10 else {"hnsw", "exact"})
        if size >= 700 and kind != "far":
            assert used == "hnsw"


@pytest.mark.parametrize(
    ("limit", "offset"), [(1, 0), (200, 0), (200, 100), (10, 690), (200, 1300), (10, 5000)]
)
@pytest.mark.parametrize("size", [100, 700, 1400])
def test_pages_are_full_while_there_are_matches(
    shelf: Shelf, walked: None, size: int, limit: int, offset: int
) -> None:
    for kind, key in (("near", "n"), ("far", "f")):
        value = f"{key}{size}"
        check(
            shelf,
            vectors(DIMENSIONS)[QUERY],
            lambda row, kind=kind, value=value: value in metadata(row)[kind],  # type: ignore[misc]
            {"filter": {kind: value}},
            limit=limit,
            offset=offset,
        )


@pytest.mark.parametrize(("limit", "offset"), [(200, 0), (200, 200), (200, 500), (50, 1400)])
def test_pages_without_a_filter_are_full(shelf: Shelf, limit: int, offset: int) -> None:
    used = check(shelf, vectors(DIMENSIONS)[QUERY], lambda row: True, limit=limit, offset=offset)
    if shelf.handle == "indexed":
        assert used == ("hnsw" if limit + offset <= 700 else "exact")


def test_a_walk_that_ends_early_is_answered_exactly(
    indexed: Shelf, walked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_searching, "_WALKS", (32,))
    monkeypatch.setattr(_searching, "MOST_CANDIDATES", 64)
    body = {"filter": {"far": "f100"}}
    query = vectors(DIMENSIONS)[QUERY]
    answer = indexed.search(query, body)
    assert answer["explain"]["fell_back"] is True
    assert plan(answer) == "exact"
    used = check(indexed, query, lambda row: "f100" in metadata(row)["far"], body)
    assert used == "exact"


def test_a_stored_text_is_compared_with_what_matches(shelf: Shelf, walked: None) -> None:
    for row in (0, 3, 700, ROWS + 1):
        cases: list[tuple[dict[str, Any], Callable[[int], bool]]] = [
            ({"parity": "odd"}, lambda each: each % 2 == 1),
            ({"flag": True, "parity": "even"}, lambda each: each % 6 == 0),
        ]
        for filters, keep in cases:
            answer = shelf.like(name(row), filter=json.dumps(filters))
            kept = [each for each in ALL if each != row and keep(each)]
            expected = brute_force(vectors(DIMENSIONS)[row], kept)[:10]
            assert name(row) not in dict(hits(answer))
            assert recall(hits(answer), expected) >= 0.9
            exactly = shelf.like(name(row), filter=json.dumps(filters), exact="true")
            assert_ranked(hits(exactly), expected)


# --- What matches ---------------------------------------------------------------------------------
UNICODE = "ünï cødé \"'\\"
CASES: list[tuple[dict[str, Any], Callable[[int], bool]]] = [
    ({"row": 77}, lambda row: row == 77),
    ({"row": 77.0}, lambda row: row == 77),
    ({"row": "77"}, lambda row: False),
    ({"half": 38.5}, lambda row: row == 77),
    ({"flag": True}, lambda row: row % 3 == 0),
    ({"flag": False}, lambda row: row % 3 != 0),
    ({"flag": "true"}, lambda row: False),
    ({"flag": 1}, lambda row: False),
    ({"nothing": None}, lambda row: row % 5 == 0),
    ({"nothing": "something"}, lambda row: row % 5 != 0),
    ({"missing": None}, lambda row: True),
    ({"source.year": 1705}, lambda row: row % 100 == 5),
    ({"source.year": "literal 5"}, lambda row: row % 20 == 5),
    ({"source.deep.er.title": "Title 3"}, lambda row: row % 10 == 3),
    ({"source.deep": "Title 3"}, lambda row: False),
    ({"deep.er.title": "Title 3"}, lambda row: False),
    ({"list": 2}, lambda row: row % 6 == 2),
    ({"list": "2"}, lambda row: row % 7 == 2),
    ({"list": 7}, lambda row: False),
    ({"list.0": 2}, lambda row: False),
    ({"any.of": "a10"}, lambda row: (row * 7919) % len(ALL) < 10),
    ({UNICODE: metadata(1)[UNICODE]}, lambda row: row % 4 == 1),
    ({UNICODE: "'; DROP TABLE embeddings_embedding; --"}, lambda row: False),
    ({"parity": "even", "flag": True, "source.year": 1712}, lambda row: row % 300 == 12),
    ({"parity": "even", "row": 3}, lambda row: False),
    ({"parity": " even"}, lambda row: False),
]


@pytest.mark.parametrize("case", range(len(CASES)), ids=[json.dumps(each) for each, _ in CASES])
def test_values_match_as_they_are(shelf: Shelf, case: int) -> None:
    condition, keep = CASES[case]
    for row in (QUERY, 12):
        check(shelf, vectors(DIMENSIONS)[row], keep, {"filter": condition}, limit=200)


# --- With the rest --------------------------------------------------------------------------------
@pytest.mark.parametrize("threshold", [0, 0.3, 0.6, 1])
def test_filter_exclusion_and_threshold_hold_together(
    shelf: Shelf, walked: None, threshold: float
) -> None:
    for row in (QUERY, 30, 6000):
        check(
            shelf,
            vectors(DIMENSIONS)[row],
            lambda each: each % 2 == 0 and each % 100 != 30,
            {"filter": {"parity": "even"}},
            limit=50,
            threshold=threshold,
            metadata_path="source.year",
            metadata_value=" 1730 ",
        )


@pytest.mark.parametrize(
    ("path", "value", "keep"),
    [
        ("parity", "odd", lambda row: row % 2 == 0),
        ("near", "n700", lambda row: True),
        ("row", "30", lambda row: row != 30),
        ("flag", "true", lambda row: row % 3 != 0),
        ("source.year", "literal 3", lambda row: row % 20 != 3),
        ("source.deep.er.title", "Title 1", lambda row: row % 10 != 1),
    ],
)
def test_exclusions_without_a_filter(
    shelf: Shelf, path: str, value: str, keep: Callable[[int], bool]
) -> None:
    for row in (QUERY, 30):
        for limit, offset in ((10, 0), (200, 0), (50, 250)):
            used = check(
                shelf,
                vectors(DIMENSIONS)[row],
                keep,
                limit=limit,
                offset=offset,
                metadata_path=path,
                metadata_value=value,
            )
            if shelf.handle == "indexed":
                assert used == ("hnsw" if limit + offset < 100 else used)


# --- Ties -----------------------------------------------------------------------------------------
@pytest.fixture
def twins(settings: Settings, db: None) -> Shelf:
    """Return an indexed project in which each of thirty vectors is that of twelve texts."""
    owner: Caller = make_user("twin")
    shelf = Shelf(owner, "twins", DIMENSIONS, lambda row: {"one": "value"}).make()
    items = [shelf.item(each, vectors(DIMENSIONS)[each % 30]) for each in range(360)]
    assert owner.post(shelf.embeddings, {"embeddings": items}).status == 201
    settings.INDEX_THRESHOLD = 360 * DIMENSIONS
    assert _tended(shelf)["state"] == "indexed"
    return shelf


@pytest.mark.parametrize("body", [None, {"filter": {"one": "value"}}])
def test_ties_are_ranked_by_their_ids_on_all_pages(twins: Shelf, body: Any, walked: None) -> None:
    matrix = np.tile(vectors(DIMENSIONS)[:30], (12, 1))
    for row in (0, 7, 4000):
        expected = brute_force(vectors(DIMENSIONS)[row], range(360), matrix)
        for limit, offset in ((1, 0), (5, 0), (5, 5), (13, 0), (10, 10), (10, 30), (100, 100)):
            answer = twins.search(vectors(DIMENSIONS)[row], body, limit=limit, offset=offset)
            wanted = expected[offset : offset + limit]
            wanted = [each for each in wanted if each[1] > 0]
            assert [each for each, _ in hits(answer)][: len(wanted)] == [
                each for each, _ in wanted
            ], answer["explain"]


def test_pages_of_many_ties_hold_each_text_once(settings: Settings, db: None) -> None:
    shelf = Shelf(make_user("twin"), "twins", DIMENSIONS, lambda row: {}).make()
    items = [shelf.item(each, vectors(DIMENSIONS)[each % 3]) for each in range(360)]
    assert shelf.owner.post(shelf.embeddings, {"embeddings": items}).status == 201
    settings.INDEX_THRESHOLD = 360 * DIMENSIONS
    assert _tended(shelf)["state"] == "indexed"
    wanted = [name(row) for row in range(0, 360, 3)]
    found: list[str] = []
    while len(found) < len(wanted):
        answer = shelf.search(vectors(DIMENSIONS)[0], offset=len(found))
        found += [text_id for text_id, _ in hits(answer)]
    assert found == wanted

"""Measuring recall: `POST /v1/similars/{owner}/{project}/recall`."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.answers import assert_refused, nothing_changes
from tests.embeddings.large import Shelf
from tests.factories import Answer, Cast, item

pytestmark = pytest.mark.django_db

Fill = Callable[[int], Shelf]


def measure(shelf: Shelf, **query: Any) -> Answer:
    """Ask how well searches of a project find."""
    return shelf.owner.post(f"{shelf.similars}/recall?{urlencode(query)}")


def assert_sound(answer: Answer, **expected: Any) -> None:
    """Check what holds for every measurement, and some fields."""
    assert answer.status == 200, answer.body
    low, high = answer["confidence_interval"]
    assert 0 <= low <= answer["recall"] <= high <= 1
    assert sum(answer["plans"].values()) == answer["queries"]
    for name in ("index_ms", "exact_ms"):
        assert 0 < answer[name]["p50"] <= answer[name]["p95"]
    assert {name: answer[name] for name in expected} == expected


def test_exact_searches_find_everything(shelf: Shelf) -> None:
    shelf.upload(range(60))
    assert_sound(
        measure(shelf),
        user_handle="alice",
        project_handle="shelf",
        k=10,
        queries=50,
        recall=1.0,
        plans={"exact": 50},
    )
    answer = measure(shelf, queries=200, k=1)
    assert_sound(answer, k=1, queries=60, recall=1.0)
    # One after all that was looked for was found, but of a sample.
    assert 0.9 < answer["confidence_interval"][0] < 1


def test_searches_through_the_graph_are_compared_with_exact_ones(indexed: Fill) -> None:
    shelf = indexed(600)
    shelf.upload(range(600, 620))
    with nothing_changes():
        answer = measure(shelf, queries=100)
    assert_sound(answer, k=10, queries=100, plans={"hnsw": 100})
    assert answer["recall"] >= 0.95
    assert answer["confidence_interval"][0] >= 0.9
    wide = measure(shelf, queries=100, ef_search=1000)
    assert_sound(wide, queries=100, plans={"hnsw": 100})
    assert wide["recall"] >= 0.99
    narrow = measure(shelf, queries=100, ef_search=10)
    assert_sound(narrow, queries=100)


def test_a_trial_of_candidates_changes_no_setting(indexed: Fill) -> None:
    shelf = indexed(300)
    before = shelf.index()
    with nothing_changes():
        assert_sound(measure(shelf, ef_search=333, queries=5), queries=5)
    assert shelf.index() == before


def test_a_graph_that_finds_badly_is_told(shelf: Shelf) -> None:
    poor = {"m": 2, "ef_construction": 4, "ef_search": 10}
    assert shelf.owner.patch(f"/v1/projects/{shelf.name}/index", poor).status == 200
    shelf.upload(range(900))
    assert shelf.tended()["state"] == "indexed"
    answer = measure(shelf, queries=100)
    assert_sound(answer, queries=100, plans={"hnsw": 100})
    assert answer["recall"] < 0.99
    assert answer["confidence_interval"][1] < 1


def test_searches_with_a_filter_are_compared(indexed: Fill) -> None:
    shelf = indexed(300)
    answer = measure(shelf, filter=json.dumps({"row": 7}), queries=20)
    # The text itself is no neighbour of itself.
    assert_sound(answer, recall=1.0, plans={"bitmap": 20})
    none = measure(shelf, filter=json.dumps({"row": -1}), queries=20)
    assert none.status == 200
    assert (none["recall"], none["confidence_interval"]) == (None, [None, None])


def test_an_empty_project_has_no_recall(cast: Cast, shelf: Shelf) -> None:
    answer = measure(shelf)
    assert answer.status == 200
    assert (answer["queries"], answer["recall"], answer["plans"]) == (0, None, {})
    assert answer["confidence_interval"] == [None, None]
    assert (answer["index_ms"], answer["exact_ms"]) == (None, None)
    # One text has no neighbour.
    shelf.upload([0])
    answer = measure(shelf)
    assert (answer["queries"], answer["recall"]) == (1, None)


@pytest.mark.parametrize("rows", [3, 300])
def test_k_may_be_larger_than_the_project(shelf: Shelf, rows: int) -> None:
    shelf.upload(range(rows))
    shelf.tended()
    answer = measure(shelf, k=100)
    assert_sound(answer, k=100, queries=min(rows, 50))
    assert answer["recall"] >= 0.95


def test_recall_is_for_readers(cast: Cast, shelf: Shelf) -> None:
    shelf.upload(range(3))
    path = f"{shelf.similars}/recall"
    for caller in (cast.alice, cast.erin, cast.rita, cast.ada):
        assert caller.post(path).status == 200
    for caller in (cast.sam, cast.nobody):
        assert caller.post(path).status in (401, 403, 404)
    for query in ("k=0", "k=101", "queries=0", "queries=201", "ef_search=9", "ef_search=1001"):
        assert_refused(cast.rita.post(f"{path}?{query}"), 400)
    assert_refused(cast.rita.post(f"{path}?filter=nonsense"), 400, location="query.filter")


def test_the_text_with_the_id_recall_is_found(cast: Cast) -> None:
    items = [item("recall", [1, 0, 0]), item("other", [1, 1, 0])]
    assert cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": items}).status == 201
    answer = cast.rita.get("/v1/similars/alice/letters/recall")
    assert [hit["id"] for hit in answer["results"]] == ["other"]

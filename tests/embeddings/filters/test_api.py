"""Listing, counting, facets, deleting and updating by filter, in both parts of a project."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.answers import assert_refused, nothing_changes
from tests.embeddings.large import Shelf, assert_first, hits, name, vectors
from tests.factories import Answer, Caller, Cast, item, make_project

SEALED, GROWING = 300, 40
ALL = range(SEALED + GROWING)
EMBEDDINGS = "/v1/embeddings/alice/letters"

pytestmark = pytest.mark.django_db
Fill = Callable[[int], Shelf]


def metadata(row: int) -> dict[str, Any]:
    return {
        "row": row,
        "parity": "even" if row % 2 == 0 else "odd",
        "tags": [f"t{row % 3}", f"t{row % 5}", row % 2 == 0],
        "source": {"year": 1700 + row % 10},
        **({"rare": True} if row % 50 == 0 else {}),
    }


@pytest.fixture
def filled(shelf: Shelf, indexed: Fill) -> Shelf:
    """Return a project with texts in both of its parts."""
    shelf.metadata = metadata
    indexed(SEALED)
    shelf.upload(range(SEALED, SEALED + GROWING))
    return shelf


def get(shelf: Shelf, kind: str, condition: Any = None, **options: Any) -> Answer:
    asked = {**options, **({} if condition is None else {"filter": json.dumps(condition)})}
    answer = shelf.owner.get(f"{shelf.embeddings}{kind}?{urlencode(asked)}")
    assert answer.status == 200, answer.body
    return answer


def post(shelf: Shelf, kind: str, condition: Any, **fields: Any) -> Answer:
    answer = shelf.owner.post(f"{shelf.embeddings}/{kind}", {"filter": condition, **fields})
    assert answer.status == 200, answer.body
    return answer


def names(rows: Any) -> list[str]:
    return [name(row) for row in rows]


CONDITIONS: list[tuple[Any, Callable[[int], bool]]] = [
    ({"parity": "even"}, lambda row: row % 2 == 0),
    ({"rare": True}, lambda row: row % 50 == 0),
    ({"rare": {"exists": False}}, lambda row: row % 50 != 0),
    ({"row": {"gte": 290, "lt": 310}}, lambda row: 290 <= row < 310),
    ({"row": {"in": [1, 299, 300, 339, 340]}}, lambda row: row in (1, 299, 300, 339)),
    (
        {"tags": {"contains": ["t2", True]}},
        lambda row: (row % 3 == 2 or row % 5 == 2) and not row % 2,
    ),
    (
        {"or": [{"row": 3}, {"source.year": {"between": [1701, 1702]}}]},
        lambda row: row == 3 or row % 10 in (1, 2),
    ),
    ({"not": {"row": {"lt": 330}}}, lambda row: row >= 330),
    ({"parity": "neither"}, lambda row: False),
]


# --- Reading --------------------------------------------------------------------------------------
def test_lists_and_counts_hold_what_matches(filled: Shelf) -> None:
    for condition, keep in CONDITIONS:
        expected = names(filter(keep, ALL))
        first = get(filled, "", condition, limit=7)
        assert first["total_count"] == len(expected)
        assert get(filled, "/count", condition)["count"] == len(expected)
        found, answer = [], first
        while True:
            found += [each["text_id"] for each in answer["embeddings"]]
            if not answer["has_more"]:
                break
            link = answer.headers["Link"].partition(">")[0][1:]
            answer = filled.owner.get(link.replace("http://testserver", ""))
        assert found == expected
        page = get(filled, "", condition, limit=5, offset=3)
        assert [each["text_id"] for each in page["embeddings"]] == expected[3:8]


def test_files_hold_what_matches(filled: Shelf) -> None:
    path = f"{filled.embeddings}?limit=1000&filter={quote(json.dumps({'rare': True}))}"
    answer = filled.owner.get(path, headers={"Accept": "application/x-ndjson"})
    rows = [json.loads(line)["text_id"] for line in answer.content.splitlines()]
    assert rows == names(range(0, len(ALL), 50))


def test_searches_find_the_nearest_that_match(filled: Shelf) -> None:
    for condition, keep in CONDITIONS:
        answer = filled.search(vectors(64)[7], {"filter": condition}, limit=200)
        found = {text_id for text_id, _ in hits(answer)}
        assert found <= set(names(filter(keep, ALL)))
        exactly = filled.search(vectors(64)[7], {"filter": condition}, limit=200, exact="true")
        assert hits(answer) == hits(exactly)


def test_facets_count_each_value_once_a_text(filled: Shelf) -> None:
    everything: tuple[Any, Callable[[int], bool]] = (None, lambda row: True)
    paths: dict[str, Callable[[int], set[Any]]] = {
        "parity": lambda row: {metadata(row)["parity"]},
        "tags": lambda row: set(metadata(row)["tags"]),
        "source.year": lambda row: {metadata(row)["source"]["year"]},
        "rare": lambda row: {True} if row % 50 == 0 else set(),
        "source": lambda row: set(),
        "missing": lambda row: set(),
    }
    for condition, keep in [everything, *CONDITIONS]:
        rows = list(filter(keep, ALL))
        for path, values in paths.items():
            counts = Counter(each for row in rows for each in values(row))
            answer = get(filled, "/facets", condition, path=path, limit=4)
            found = [(each["value"], each["count"]) for each in answer["facets"]]
            assert [count for _, count in found] == sorted(counts.values(), reverse=True)[:4]
            assert all(counts[value] == count for value, count in found)
            assert answer["distinct_values"] == len(counts)
            assert answer["without_value"] == sum(not values(row) for row in rows)
            assert (answer["total_count"], answer["path"]) == (len(rows), path)


def test_facets_tell_types_apart_and_meet_no_lists_in_lists(cast: Cast) -> None:
    held = [1, 1.0, "1", True, None, [], {}, [[1]], [1, "1", 1], {"b": 1}]
    items = [item(str(n), [1, 2, 3], metadata={"a": each}) for n, each in enumerate(held)]
    items.append(item("dots", [1, 2, 3], metadata={"a.b": 1, "a": {"b": 1}}))
    assert cast.alice.post(EMBEDDINGS, {"embeddings": items}).status == 201
    answer = cast.rita.get(f"{EMBEDDINGS}/facets?path=a")
    found = [(each["value"], each["count"]) for each in answer["facets"]]
    assert found == [(1, 3), ("1", 2), (True, 1)]
    assert found[2][0] is True
    assert (answer["without_value"], answer["total_count"]) == (6, 11)
    assert cast.rita.get(f"{EMBEDDINGS}/facets?path=a.b")["facets"] == [{"value": 1, "count": 2}]


# --- Deleting -------------------------------------------------------------------------------------
def test_deleting_takes_what_matches_from_both_parts(filled: Shelf) -> None:
    left = set(ALL)
    for condition, keep in CONDITIONS[1:]:
        gone = set(filter(keep, left))
        with nothing_changes():
            tried = post(filled, "delete", condition, dry_run=True)
        assert (tried["matched_count"], tried["deleted_count"]) == (len(gone), 0)
        answer = post(filled, "delete", condition)
        assert (answer["matched_count"], answer["deleted_count"]) == (len(gone), len(gone))
        left -= gone
        assert filled.everything().keys() == set(names(left))
        if len(left) < 300:
            break
    assert post(filled, "delete", {"row": {"gte": 0}})["deleted_count"] == len(left)
    assert filled.everything() == {}


# --- Updating -------------------------------------------------------------------------------------
def test_updating_merges_into_what_matches_in_both_parts(filled: Shelf) -> None:
    before = filled.everything()
    condition, patch = {"rare": True}, {"rare": None, "source": {"by": "Ann"}, "tags": ["new"]}
    with nothing_changes():
        tried = post(filled, "update", condition, metadata=patch, dry_run=True)
    assert (tried["matched_count"], tried["updated_count"]) == (7, 0)
    answer = post(filled, "update", condition, metadata=patch)
    assert (answer["matched_count"], answer["updated_count"]) == (7, 7)
    after = filled.everything()
    changed = names(range(0, len(ALL), 50))
    assert {key for key in after if after[key] != before[key]} == set(changed)
    for row in range(0, len(ALL), 50):
        old, new = before[name(row)], after[name(row)]
        expected = metadata(row) | {
            "source": {"year": 1700 + row % 10, "by": "Ann"},
            "tags": ["new"],
        }
        del expected["rare"]
        assert new["metadata"] == expected
        assert new["updated_at"] > old["updated_at"]
        for same in ("vector", "text", "created_at"):
            assert new[same] == old[same]
        assert_first(filled.search(vectors(64)[row], {"filter": {"tags": "new"}}), row)
    assert get(filled, "/count", {"rare": True})["count"] == 0
    # What was sealed is beside the graph now, and goes back into it in time.
    assert filled.index()["rows"] == {"total": 340, "indexed": 294, "growing": 46}
    assert post(filled, "update", {"tags": "new"}, metadata={"tags": ["new"]})["updated_count"] == 0
    assert filled.everything() == after


def test_an_update_that_breaks_the_schema_changes_nothing(cast: Cast) -> None:
    schema = {"type": "object", "properties": {"year": {"type": "integer", "maximum": 1800}}}
    make_project("alice", "strict", metadataScheme=schema)
    path = "/v1/embeddings/alice/strict"
    items = [item(str(year), [1, 2, 3], metadata={"year": year}) for year in (1790, 1800)]
    items.append(item("none", [1, 2, 3], metadata={"none": 5}))
    assert cast.alice.post(path, {"embeddings": items}).status == 201
    for patch in ({"year": 1801}, {"year": "1790"}):
        for dry_run in (True, False):
            body = {"filter": {"year": {"exists": True}}, "metadata": patch, "dry_run": dry_run}
            with nothing_changes():
                answer = cast.alice.post(f"{path}/update", body)
            assert_refused(answer, 400, says="metadata validation failed for text_id '1790'")
            assert answer["errors"][0]["location"] == "body.metadata.year"
    changed = cast.alice.post(
        f"{path}/update", {"filter": {"none": 5}, "metadata": {"year": 1799, "none": None}}
    )
    assert changed["updated_count"] == 1
    assert cast.alice.get(f"{path}/none")["metadata"] == {"year": 1799}


def test_types_that_python_takes_for_equal_are_updated(cast: Cast) -> None:
    items = [item("a", [1, 2, 3], metadata={"n": 1, "big": 1e22, "small": 0.1})]
    assert cast.alice.post(EMBEDDINGS, {"embeddings": items}).status == 201
    values: list[Any] = [True, 1, None, {"deep": {"er": None, "x": []}}]
    for value in values:
        body = {"filter": {"small": 0.1}, "metadata": {"n": value}}
        assert cast.alice.post(f"{EMBEDDINGS}/update", body)["updated_count"] == 1
    stored = cast.alice.get(f"{EMBEDDINGS}/a")["metadata"]
    assert stored == {"n": {"deep": {"x": []}}, "big": 1e22, "small": 0.1}


def test_metadata_does_not_grow_without_end(cast: Cast) -> None:
    assert cast.alice.post(EMBEDDINGS, {"embeddings": [item("a", [1, 2, 3], metadata={"n": 1})]})
    for number, status in ((1, 200), (2, 400)):
        body = {"filter": {"n": 1}, "metadata": {str(number): "x" * 700_000}}
        assert cast.alice.post(f"{EMBEDDINGS}/update", body).status == status


# --- Addresses ------------------------------------------------------------------------------------
def test_texts_with_the_names_of_these_addresses_are_texts(cast: Cast) -> None:
    ids = ["count", "facets", "delete", "update"]
    body = {"embeddings": [item(each, [1, 2, 3], metadata={"n": 1}) for each in ids]}
    assert cast.alice.post(EMBEDDINGS, body).status == 201
    assert cast.rita.get(EMBEDDINGS + '/count?filter={"n":1}')["count"] == 4
    assert cast.rita.get(f"{EMBEDDINGS}/facets?path=n")["facets"] == [{"value": 1, "count": 4}]
    for each in ids:
        assert cast.rita.get(f"{EMBEDDINGS}/{each}")["text_id"] == each
        new = {"instance_handle": "model", "vector": [3, 2, 1], "vector_dim": 3}
        assert cast.erin.put(f"{EMBEDDINGS}/{each}", new).status == 200
        assert cast.erin.delete(f"{EMBEDDINGS}/{each}").status == 200
        assert_refused(cast.rita.get(f"{EMBEDDINGS}/{each}"), 404)
    for query in ("", "?limit=5", '?filter={"n":1}'):
        assert cast.rita.get(f"{EMBEDDINGS}/facets{query}").status == (400 if query else 404)


def test_readers_read_and_editors_change(cast: Cast) -> None:
    assert cast.alice.post(EMBEDDINGS, {"embeddings": [item("a", [1, 2, 3], metadata={"n": 1})]})
    condition, body = quote('{"n": 1}'), {"filter": {"n": 1}, "metadata": {"m": 1}}

    def asked(caller: Caller) -> list[int]:
        answers = [
            caller.get(f"{EMBEDDINGS}?filter={condition}"),
            caller.get(f"{EMBEDDINGS}/count?filter={condition}"),
            caller.get(f"{EMBEDDINGS}/facets?path=n"),
            caller.post(f"{EMBEDDINGS}/update", {**body, "dry_run": True}),
            caller.post(f"{EMBEDDINGS}/delete", {**body, "dry_run": True}),
        ]
        return [each.status for each in answers]

    assert asked(cast.alice) == asked(cast.erin) == asked(cast.ada) == [200] * 5
    assert asked(cast.rita) == [200, 200, 200, 403, 403]
    assert asked(cast.sam) == [403] * 5
    assert asked(cast.nobody) == [401] * 5
    assert cast.alice.patch("/v1/projects/alice/letters", {"public_read": True}).status == 200
    assert asked(cast.nobody) == [200, 200, 200, 401, 401]

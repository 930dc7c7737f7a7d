"""The addresses of a project's index, of filters, exact and explained searches, and of recall.

What becomes of the index itself is told by `test_indexes`, what filters match by `test_filters`;
here is what may be asked, by whom, and what is answered.
"""

from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from accounts import services as accounts
from accounts.models import Role
from embeddings import indexes
from embeddings.models import SearchIndex
from tests.factories import Answer, Caller, Cast, item, make_project, stored

LETTERS = "/v1/projects/alice/letters"
INDEX = f"{LETTERS}/index"
REBUILD = f"{INDEX}/rebuild"
SIMILARS = "/v1/similars/alice/letters"
RECALL = f"{SIMILARS}/recall"
EXACT = {
    "state": "exact",
    "rows": {"total": 3, "indexed": 0, "growing": 3},
    "threshold_rows": 1_333_333,
    "settings": {
        "m": 16,
        "ef_construction": 64,
        "ef_search": None,
        "target_recall": 0.98,
        "search_language": None,
    },
    "ef_search": None,
    "measured_recall": None,
    "progress": None,
    "table_bytes": 0,
    "index_bytes": 0,
    "built_at": None,
    "last_error": None,
}


@pytest.fixture
def filled(cast: Cast) -> Cast:
    """Return the cast, with three texts in Alice's project."""
    rows = [
        item("a", [1, 2, 3], metadata={"author": "Ann", "year": 1791}),
        item("b", [1, 2, 4], metadata={"author": "Ann", "source": {"title": "Letters"}}),
        item("recall", [1, 2, 5], metadata={"author": "Bob"}),
    ]
    assert cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": rows}).status == 201
    return cast


@pytest.fixture
def indexed(filled: Cast, settings: Any) -> Cast:
    """Return the same with an index of the project."""
    settings.INDEX_THRESHOLD = 3
    indexes.tend(filled.project.pk)
    return filled


def publish() -> None:
    assert (
        Caller(accounts.create_key(user=stored("alice")))
        .patch(LETTERS, {"public_read": True})
        .status
        == 200
    )


# --- Who may see it, and change it ----------------------------------------------------------------
def test_an_index_is_shown_to_whoever_reads_the_project(filled: Cast) -> None:
    for role in ("owner", "editor", "reader", "admin"):
        answer = filled.with_role(role).get(INDEX)
        assert (answer.status, answer.body) == (200, EXACT), role
    assert filled.sam.get(INDEX).status == 403
    assert filled.nobody.get(INDEX).status == 401
    publish()
    for role in ("stranger", "anonymous"):
        assert filled.with_role(role).get(INDEX).body == EXACT


def test_owners_and_administrators_alone_change_and_rebuild_it(indexed: Cast) -> None:
    publish()
    refused = {"editor": 403, "reader": 403, "stranger": 403, "anonymous": 401}
    for role, status in refused.items():
        assert indexed.with_role(role).patch(INDEX, {"ef_search": 50}).status == status
        assert indexed.with_role(role).post(REBUILD).status == status
    index = SearchIndex.objects.get()
    assert (index.ef_search, index.rebuild_requested) == (None, False)
    for role, ef_search in {"owner": 50, "admin": 60}.items():
        changed = indexed.with_role(role).patch(INDEX, {"ef_search": ef_search})
        assert changed.status == 200
        assert changed["settings"]["ef_search"] == changed["ef_search"] == ef_search
        SearchIndex.objects.update(rebuild_requested=False)
        assert indexed.with_role(role).post(REBUILD).status == 202
        assert SearchIndex.objects.get().rebuild_requested


def test_a_key_changes_an_index_as_far_as_it_is_capped(indexed: Cast) -> None:
    alice, other = stored("alice"), make_project("alice", "other")
    caps: dict[str, tuple[dict[str, Any], int, int]] = {
        "reader": ({"role_cap": Role.READER}, 200, 403),
        "editor": ({"role_cap": Role.EDITOR}, 200, 403),
        "this project": ({"project_id": indexed.project.pk}, 200, 200),
        "another project": ({"project_id": other.pk}, 403, 403),
    }
    for name, (cap, reading, writing) in caps.items():
        caller = Caller(accounts.create_key(user=alice, **cap))
        assert caller.get(INDEX).status == reading, name
        assert caller.patch(INDEX, {"ef_search": 77}).status == writing, name
        assert caller.post(REBUILD).status == (202 if writing == 200 else 403), name
        assert caller.post(RECALL).status == reading, name


# --- Its settings ---------------------------------------------------------------------------------
SETTINGS: list[tuple[dict[str, Any], int]] = [
    ({}, 200),
    ({"unknown": 5}, 200),
    ({"m": 2, "ef_construction": 4}, 200),
    ({"m": 100, "ef_construction": 1000}, 200),
    ({"ef_search": 10}, 200),
    ({"ef_search": 1000}, 200),
    ({"ef_search": None}, 200),
    ({"target_recall": 0.5}, 200),
    ({"target_recall": 0.999}, 200),
    ({"search_language": None}, 200),
    ({"m": 1}, 400),
    ({"m": 101, "ef_construction": 1000}, 400),
    ({"m": None}, 400),
    ({"m": "16"}, 400),
    ({"m": True}, 400),
    ({"m": 16.5}, 400),
    ({"m": [16]}, 400),
    ({"m": 33}, 400),
    ({"ef_construction": 31}, 400),
    ({"ef_construction": 3}, 400),
    ({"ef_construction": 1001}, 400),
    ({"ef_search": 9}, 400),
    ({"ef_search": 5}, 400),
    ({"ef_search": 1001}, 400),
    ({"ef_search": "100"}, 400),
    ({"ef_search": {}}, 400),
    ({"target_recall": 0.4}, 400),
    ({"search_language": ""}, 400),
    ({"search_language": "French"}, 400),
    ({"search_language": ["french"]}, 400),
    ({"target_recall": 1}, 400),
    ({"target_recall": "0.9"}, 400),
    ({"target_recall": True}, 400),
    ({"target_recall": None}, 400),
]


@pytest.mark.parametrize(("changes", "status"), SETTINGS, ids=[str(each) for each in SETTINGS])
def test_settings_are_taken_within_their_bounds(
    filled: Cast, changes: dict[str, Any], status: int
) -> None:
    answer = filled.alice.patch(INDEX, changes)
    assert answer.status == status, answer.body
    known = {name: value for name, value in changes.items() if name != "unknown"}
    if status == 200:
        expected = {**EXACT, "settings": {**EXACT["settings"], **known}}  # type: ignore[dict-item]
        assert answer.body == expected
        assert filled.rita.get(INDEX).body == expected
    else:
        assert answer["errors"]
        assert not SearchIndex.objects.exists()


def test_a_project_whose_texts_have_a_language_is_indexed_sooner(filled: Cast) -> None:
    answer = filled.alice.patch(INDEX, {"search_language": "french"})
    assert (answer.status, answer["threshold_rows"]) == (200, 1_000)
    assert answer["settings"]["search_language"] == "french"


def test_candidates_while_building_are_at_least_twice_the_links(filled: Cast) -> None:
    answer = filled.alice.patch(INDEX, {"m": 40})
    assert answer.status == 400
    assert answer["detail"] == (
        "ef_construction must be at least twice m: 80 or more for m = 40, not 64."
    )
    assert answer["errors"][0]["location"] == "body.ef_construction"
    assert filled.alice.patch(INDEX, {"m": 40, "ef_construction": 80}).status == 200
    assert filled.alice.patch(INDEX, {"ef_construction": 79}).status == 400


def test_a_project_that_is_searched_exactly_has_nothing_to_rebuild(filled: Cast) -> None:
    answer = filled.alice.post(REBUILD)
    assert answer.status == 409
    assert answer["detail"] == (
        "Project 'alice/letters' has no index to rebuild: it is searched exactly until it holds "
        "1333333 embeddings (it has 3)."
    )


def test_an_indexed_project_tells_what_was_built(indexed: Cast) -> None:
    shown = indexed.rita.get(INDEX)
    assert shown["state"] == "indexed"
    assert shown["rows"] == {"total": 3, "indexed": 3, "growing": 0}
    assert shown["threshold_rows"] == 1
    assert shown["measured_recall"] == 1.0
    assert shown["ef_search"] == 20
    assert shown["built_at"] is not None
    assert shown["table_bytes"] > 0
    assert shown["index_bytes"] > 0
    assert shown["last_error"] is None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", INDEX),
        ("PATCH", INDEX),
        ("POST", REBUILD),
        ("POST", RECALL),
        ("GET", f"{SIMILARS}/a"),
        ("POST", SIMILARS),
    ],
)
def test_an_unknown_parameter_is_refused(filled: Cast, method: str, path: str) -> None:
    body = {"vector": [1, 2, 3]} if path == SIMILARS else {}
    answer = filled.alice.ask(method, f"{path}?nothing=1", body)
    assert answer.status == 400
    assert [each["location"] for each in answer["errors"]] == ["query.nothing"]


# --- Filters --------------------------------------------------------------------------------------
def ids(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    return [hit["id"] for hit in answer["results"]]


def query(condition: Any, **more: Any) -> str:
    given = condition if isinstance(condition, str) else orjson.dumps(condition).decode()
    return urlencode({"filter": given, **more})


def test_a_filter_is_sent_in_the_query_string_or_in_the_body(filled: Cast) -> None:
    ann, vector = {"author": "Ann"}, {"vector": [1, 2, 3]}
    assert ids(filled.rita.post(f"{SIMILARS}?{query(ann)}", vector)) == ["a", "b"]
    assert ids(filled.rita.post(SIMILARS, {**vector, "filter": ann})) == ["a", "b"]
    assert ids(filled.rita.post(SIMILARS, {**vector, "filter": None})) == ["a", "b", "recall"]
    assert ids(filled.rita.get(f"{SIMILARS}/a?{query(ann)}")) == ["b"]
    nested = {"author": "Ann", "source.title": "Letters"}
    assert ids(filled.rita.post(SIMILARS, {**vector, "filter": nested})) == ["b"]
    both = filled.rita.post(f"{SIMILARS}?{query(ann)}", {**vector, "filter": ann})
    assert both.status == 400
    assert both["errors"][0]["location"] == "body.filter"
    assert "not in both" in both["detail"]


BAD_FILTERS: list[Any] = [
    {},
    [],
    "text",
    5,
    True,
    [{"author": "Ann"}],
    {"author": ["Ann"]},
    {"author": {"name": "Ann"}},
    {"": "Ann"},
    {"author.": "Ann"},
    {".author": "Ann"},
    {"a..b": "Ann"},
    {".".join("a" * 33): 1},
    {"a" * 1001: 1},
    {"author": "x" * 10_001},
    {"year": 2**63},
    {f"field{number}": 1 for number in range(101)},
]


@pytest.mark.parametrize("condition", BAD_FILTERS, ids=lambda each: str(each)[:30])
def test_a_bad_filter_is_refused_wherever_it_is(filled: Cast, condition: Any) -> None:
    vector = {"vector": [1, 2, 3]}
    for answer, place in [
        (filled.rita.post(SIMILARS, {**vector, "filter": condition}), "body.filter"),
        (filled.rita.post(f"{SIMILARS}?{query(orjson.dumps(condition).decode())}", vector), "q"),
        (filled.rita.get(f"{SIMILARS}/a?{query(orjson.dumps(condition).decode())}"), "q"),
        (filled.rita.post(f"{RECALL}?{query(orjson.dumps(condition).decode())}"), "q"),
    ]:
        assert answer.status == 400, answer.body
        (error,) = answer["errors"]
        expected = "query.filter" if place == "q" else place
        assert error["location"].startswith(expected), error


@pytest.mark.parametrize(
    "text", ["", "author", "{", '{"author": Ann}', '{"a": 1, "a": 2}', '{"a": NaN}', "null"]
)
def test_a_filter_that_is_no_json_object_is_refused(filled: Cast, text: str) -> None:
    for answer in (
        filled.rita.get(f"{SIMILARS}/a?{query(text)}"),
        filled.rita.post(f"{RECALL}?{query(text)}"),
    ):
        assert answer.status == 400, answer.body
        assert {each["location"] for each in answer["errors"]} == {"query.filter"}


def test_a_filter_holds_as_much_as_is_said(filled: Cast) -> None:
    most = {f"field{number}": 1 for number in range(32)}
    vector = {"vector": [1, 2, 3]}
    assert ids(filled.rita.post(SIMILARS, {**vector, "filter": most})) == []
    deep = {".".join("a" * 32): "x" * 10_000}
    assert ids(filled.rita.post(SIMILARS, {**vector, "filter": deep})) == []


# --- Exact, and explained -------------------------------------------------------------------------
def test_a_search_tells_how_it_was_answered_when_asked(filled: Cast) -> None:
    assert "explain" not in filled.rita.get(f"{SIMILARS}/a").body
    assert filled.rita.get(f"{SIMILARS}/a?explain=true")["explain"] == {
        "plan": "exact",
        "complete": True,
        "fell_back": False,
        "ef_search": None,
        "compared": 3,
        "indexed": 0,
        "growing": 3,
    }


def test_an_exact_search_of_an_indexed_project_compares_all(indexed: Cast) -> None:
    vector = {"vector": [1, 2, 3]}
    through = indexed.rita.post(f"{SIMILARS}?explain=true", vector)
    exactly = indexed.rita.post(f"{SIMILARS}?explain=true&exact=true", vector)
    assert through["results"] == exactly["results"]
    explained = exactly["explain"]
    assert (explained["plan"], explained["complete"]) == ("exact", True)
    assert (explained["compared"], explained["indexed"], explained["growing"]) == (3, 3, 0)
    assert explained["ef_search"] is None


@pytest.mark.parametrize("name", ["exact", "explain"])
@pytest.mark.parametrize("value", ["", "maybe", "2", "TRUE!"])
def test_flags_are_true_or_false(filled: Cast, name: str, value: str) -> None:
    answer = filled.rita.get(f"{SIMILARS}/a?{name}={value}")
    assert answer.status == 400
    assert [each["location"] for each in answer["errors"]] == [f"query.{name}"]


# --- Recall ---------------------------------------------------------------------------------------
def test_recall_is_measured_for_whoever_reads_the_project(indexed: Cast) -> None:
    for role in ("owner", "editor", "reader", "admin"):
        answer = indexed.with_role(role).post(f"{RECALL}?k=2&queries=3")
        assert answer.status == 200
        assert (answer["user_handle"], answer["project_handle"]) == ("alice", "letters")
        assert (answer["k"], answer["queries"], answer["recall"]) == (2, 3, 1.0)
        assert sum(answer["plans"].values()) == 3
    assert indexed.sam.post(RECALL).status == 403
    assert indexed.nobody.post(RECALL).status == 401


def test_recall_of_an_empty_project_is_nothing(cast: Cast) -> None:
    answer = cast.rita.post(RECALL)
    assert answer.status == 200
    assert (answer["queries"], answer["recall"], answer["index_ms"]) == (0, None, None)
    assert answer["confidence_interval"] == [None, None]


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("k=0", "k"),
        ("k=101", "k"),
        ("k=ten", "k"),
        ("queries=0", "queries"),
        ("queries=201", "queries"),
        ("ef_search=9", "ef_search"),
        ("ef_search=1001", "ef_search"),
        ("ef_search=", "ef_search"),
        ("k=5&k=6", "k"),
        ("threshold=0.5", "threshold"),
        ("exact=true", "exact"),
    ],
)
def test_a_bad_parameter_of_recall_is_refused(filled: Cast, asked: str, name: str) -> None:
    answer = filled.rita.post(f"{RECALL}?{asked}")
    assert answer.status == 400
    assert [each["location"] for each in answer["errors"]] == [f"query.{name}"]


def test_a_text_may_have_the_id_of_the_address(filled: Cast) -> None:
    assert ids(filled.rita.get(RECALL)) == ["b", "a"]
    refused = filled.rita.get(f"{RECALL}?k=5")
    assert refused.status == 400
    assert filled.rita.get("/v1/embeddings/alice/letters/recall")["text_id"] == "recall"


def test_an_index_is_there_for_projects_only(filled: Cast) -> None:
    for path in ("/v1/projects/alice/nothing/index", "/v1/projects/nobody/letters/index"):
        assert filled.ada.get(path).status == 404
        assert filled.nobody.get(path).status == 401

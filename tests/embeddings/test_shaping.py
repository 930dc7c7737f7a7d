"""What searches may ask for besides the nearest texts, in both parts of a project."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from django.db import connection, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoDbBlocker

from embeddings import searches
from projects.models import Project
from tests.answers import assert_refused, nothing_changes
from tests.embeddings.large import Matrix, Ranking, Shelf, assert_ranked, brute_force, hits, name
from tests.embeddings.large import vectors as demo_vectors
from tests.factories import Answer, Cast, item, make_cast, make_project, make_user

SEALED, GROWING = 300, 40
ALL = range(SEALED + GROWING)
LETTERS = "/v1/similars/alice/letters"

pytestmark = pytest.mark.django_db


def vectors() -> Matrix:
    return demo_vectors(64)


def metadata(row: int) -> dict[str, Any]:
    return {
        "row": row,
        # Most texts are by one author; the others by one of ten.
        "author": "a0" if row % 10 else f"a{row // 10 % 10 + 1}",
        "work": {"title": f"w{row // 20}"},
        "tags": [f"t{row % 3}", f"t{row % 5}"],
        "sequence": row % 20,
        **({"rare": True} if row % 50 == 0 else {}),
    }


@pytest.fixture(scope="module")
def whole_shelf(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Shelf]:
    """Fill a project, with texts in both of its parts, once for the tests of this module."""
    with django_db_blocker.unblock(), transaction.atomic():
        shelf = Shelf(make_user("librarian"), metadata=metadata).make()
        with override_settings(INDEX_THRESHOLD=SEALED * 64):
            shelf.upload(range(SEALED))
            assert shelf.tended()["state"] == "indexed"
        shelf.upload(range(SEALED, SEALED + GROWING))
        yield shelf
        transaction.set_rollback(True)


@pytest.fixture
def filled(whole_shelf: Shelf, db: None) -> Shelf:
    """Return it; the transactions of single tests nest in the one that is rolled back."""
    return whole_shelf


def like(shelf: Shelf, row: int, **options: Any) -> Answer:
    """Search by a stored text."""
    asked = {"threshold": 0, **options}
    answer = shelf.owner.get(f"{shelf.similars}/{name(row)}?{urlencode(asked)}")
    assert answer.status == 200, answer.body
    return answer


def search(shelf: Shelf, **body: Any) -> Answer:
    """Search with all in the body."""
    answer = shelf.owner.post(shelf.similars, {"threshold": 0, **body})
    assert answer.status == 200, answer.body
    return answer


def vector(row: int) -> list[float]:
    return [float(each) for each in vectors()[row]]


def rows_of(answer: Answer) -> list[int]:
    return [int(text_id[1:]) for text_id, _ in hits(answer)]


def ranked(query: Any, keep: Callable[[int], bool] = lambda row: True) -> Ranking:
    """Return all that are not unlike the query, as numpy ranks them."""
    ranking = brute_force(np.asarray(query), filter(keep, ALL), vectors())
    return [each for each in ranking if each[1] >= 0]


# --- The parameters of the query string in the body -----------------------------------------------
def test_the_body_takes_what_the_query_string_takes(filled: Shelf) -> None:
    query = vector(7)
    expected = ranked(query)
    assert_ranked(hits(search(filled, vector=query, count=5, offset=3)), expected[3:8])
    assert len(hits(search(filled, vector=query, count=20, limit=4))) == 4
    answer = search(filled, vector=query, threshold=0.9, exact=True, count=200)
    assert_ranked(hits(answer), [each for each in expected if each[1] >= 0.9])
    left = search(filled, vector=query, metadata_path="author", metadata_value="a0")
    assert all(metadata(row)["author"] != "a0" for row in rows_of(left))
    kept = search(filled, vector=query, count=200, filter={"row": {"lt": 9}})
    assert_ranked(hits(kept), ranked(query, lambda row: row < 9))
    assert len(hits(kept)) == len(ranked(query, lambda row: row < 9))


def test_pages_fit_together(filled: Shelf) -> None:
    query = vector(11)
    whole = hits(search(filled, vector=query, count=200))
    for size in (1, 7, 50):
        pages: Ranking = []
        for offset in range(0, 100, size):
            pages += hits(search(filled, vector=query, count=size, offset=offset))
        assert pages[:100] == whole[:100]


# --- Leaving out ----------------------------------------------------------------------------------
def test_exclude_same_leaves_out_what_shares_a_value(filled: Shelf) -> None:
    answer = like(filled, 30, exclude_same="author,work.title", count=200)
    own = metadata(30)
    expected = ranked(
        vectors()[30],
        lambda row: (
            metadata(row)["author"] != own["author"] and metadata(row)["work"] != own["work"]
        ),
    )
    assert_ranked(hits(answer), expected[:200])
    assert 30 not in rows_of(answer)
    lists = rows_of(like(filled, 4, exclude_same="tags", count=200))
    assert lists
    assert not any({"t1", "t4"} & set(metadata(row)["tags"]) for row in lists)
    # What the query document lacks is shared with nobody.
    assert len(rows_of(like(filled, 31, exclude_same="rare", count=200))) == 200


def test_exclude_values_leaves_out_what_has_one_of_them(filled: Shelf) -> None:
    values = {"author": ["a0", "a1"], "work.title": "w1", "nowhere": 5}
    answer = search(filled, vector=vector(9), exclude_values=values, count=200)
    expected = ranked(
        vectors()[9],
        lambda row: metadata(row)["author"] not in ("a0", "a1") and row // 20 != 1,
    )
    assert_ranked(hits(answer), expected)
    stored = like(filled, 9, exclude_values=json.dumps(values), count=200)
    assert sorted(rows_of(stored)) == sorted(rows_of(answer))


# --- Groups ---------------------------------------------------------------------------------------
def groups_of(query: Any, path: Callable[[int], str], size: int) -> list[list[int]]:
    """Return the groups as numpy ranks them."""
    found: dict[str, list[int]] = {}
    for text_id, _ in ranked(query):
        row = int(text_id[1:])
        group = found.setdefault(path(row), [])
        if len(group) < size:
            group.append(row)
    return list(found.values())


@pytest.mark.parametrize(("count", "size"), [(3, 1), (5, 2), (11, 4), (20, 10)])
def test_groups_are_full_though_one_dominates(filled: Shelf, count: int, size: int) -> None:
    query = vectors()[33]
    answer = search(
        filled, vector=vector(33), group_by="author", group_size=size, count=count, exact=True
    )
    expected = groups_of(query, lambda row: metadata(row)["author"], size)[:count]
    assert rows_of(answer) == [row for group in expected for row in group]
    values = [each["group"] for each in answer["results"]]
    assert values == [metadata(row)["author"] for row in rows_of(answer)]
    assert answer["complete"] is True
    second = search(
        filled,
        vector=vector(33),
        group_by="author",
        group_size=size,
        count=2,
        offset=1,
        exact=True,
    )
    assert rows_of(second) == [row for group in expected[1:3] for row in group]


def test_groups_through_the_index_and_by_a_stored_text(filled: Shelf) -> None:
    answer = like(filled, 33, group_by="work.title", group_size=2, count=4)
    assert len(answer["results"]) == 8
    assert 33 not in rows_of(answer)
    assert all(
        each["group"] == metadata(int(each["id"][1:]))["work"]["title"]
        for each in answer["results"]
    )


def test_groups_of_lists_missing_values_and_kinds(cast: Cast) -> None:
    values: list[Any] = [["x", "y"], "y", 1, True, 1.0, None, {"deep": 1}, [], "x", ["z", "x"]]
    items = [item(f"t{n}", [10, n, 0], metadata={"g": value}) for n, value in enumerate(values)] + [
        item("without", [10, 0, 0])
    ]
    assert cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": items}).status == 201
    answer = cast.rita.post(LETTERS, {"vector": [1, 0, 0], "group_by": "g", "group_size": 9})
    found: dict[str, list[str]] = {}
    for each in answer["results"]:
        found.setdefault(json.dumps(each["group"]), []).append(each["id"])
    assert found == {'"x"': ["t0", "t8", "t9"], '"y"': ["t1"], "1": ["t2", "t4"], "true": ["t3"]}
    assert answer["complete"] is True


# --- Diversity ------------------------------------------------------------------------------------
def relevance(query: Any, diversity: float, count: int) -> list[int]:
    """Return the rows by maximal marginal relevance, as its definition has it."""
    units = vectors().astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    left = [int(text_id[1:]) for text_id, _ in ranked(query)]
    similarity = dict(ranked(query))
    taken: list[int] = []
    while len(taken) < count:

        def marginal(row: int) -> float:
            most = max((float(units[row] @ units[each]) for each in taken), default=0.0)
            return (1 - diversity) * similarity[name(row)] - diversity * most

        best = max(left, key=marginal)
        left.remove(best)
        taken.append(best)
    return taken


@pytest.mark.parametrize("diversity", [0.2, 0.5, 0.9])
def test_diverse_results_are_those_of_the_definition(filled: Shelf, diversity: float) -> None:
    query = vectors()[5] + vectors()[60]
    sent = {"vector": query.astype(float).tolist(), "diversity": diversity}
    answer = search(filled, **sent, count=12, exact=True)
    assert rows_of(answer) == relevance(query, diversity, 12)
    page = search(filled, **sent, count=4, offset=4)
    assert rows_of(page) == rows_of(answer)[4:8]


def test_where_nothing_is_more_relevant_the_more_similar_comes_first(filled: Shelf) -> None:
    # The query is the first result: all others gain as much as they lose.
    answer = search(filled, vector=vector(5), diversity=0.5, count=2, exact=True)
    assert rows_of(answer) == rows_of(search(filled, vector=vector(5), count=2))


def test_no_diversity_is_the_ranking_and_all_of_it_needs_no_relevance(filled: Shelf) -> None:
    assert hits(search(filled, vector=vector(5), diversity=0)) == hits(
        search(filled, vector=vector(5), count=10)
    )
    assert len(hits(search(filled, vector=vector(5), diversity=1))) == 10


# --- Examples -------------------------------------------------------------------------------------
def test_examples_are_averaged(filled: Shelf) -> None:
    units = vectors().astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    answer = search(filled, positive=[name(1), name(310)], negative=[name(7)], count=20)
    query = 2 * (units[1] + units[310]) / 2 - units[7]
    expected = ranked(query, lambda row: row not in (1, 310, 7))
    assert_ranked(hits(answer), expected[:20])
    one = search(filled, positive=[name(8)], count=20)
    assert hits(one) == hits(like(filled, 8, count=20))
    same = search(filled, positive=[name(8)], exclude_same=["work.title"], count=200)
    assert rows_of(same) == rows_of(like(filled, 8, exclude_same="work.title", count=200))


def test_examples_that_are_not_there_or_cancel_each_other_out(cast: Cast) -> None:
    items = [item("a", [1, 0, 0]), item("b", [-1, 0, 0]), item("c", [1, 0, 1e-9])]
    assert cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": items}).status == 201
    answer = cast.rita.post(LETTERS, {"positive": ["a", "nope"]})
    assert_refused(answer, 404, location="body.positive[1]", says="'nope'")
    answer = cast.rita.post(LETTERS, {"positive": ["a"], "negative": ["x/y"]})
    assert_refused(answer, 404, location="body.negative[0]")
    assert_refused(cast.rita.post(LETTERS, {"positive": ["a", "b"]}), 400, says="cancel")


# --- Fields ---------------------------------------------------------------------------------------
def test_results_carry_what_was_asked_for(filled: Shelf) -> None:
    plain = search(filled, vector=vector(3), count=2)
    assert set(plain["results"][0]) == {"id", "similarity"}
    assert search(filled, vector=vector(3), count=2, fields=[])["results"] == plain["results"]
    full = search(filled, vector=vector(305), fields=["text", "metadata", "vector"], count=2)
    stored = filled.get(305)
    first = full["results"][0]
    assert {name: first[name] for name in ("text", "metadata", "vector")} == {
        name: stored[name] for name in ("text", "metadata", "vector")
    }
    part = like(filled, 3, fields="metadata.work.title,metadata.row,metadata.nowhere.at", count=1)
    (one,) = part["results"]
    row = int(one["id"][1:])
    assert one["metadata"] == {"work": {"title": f"w{row // 20}"}, "row": row}
    both = like(filled, 3, fields="metadata.row,metadata", count=1)
    assert both["results"][0]["metadata"] == metadata(row)


def test_parts_of_lists_and_keys_with_dots(cast: Cast) -> None:
    held = {"letters": [{"year": 1, "to": "B"}, {"to": "C"}, 5], "a.b": None, "a": {"b": 2, "c": 3}}
    assert (
        cast.alice.post(
            "/v1/embeddings/alice/letters", {"embeddings": [item("t", [1, 0, 0], metadata=held)]}
        ).status
        == 201
    )
    fields = ["metadata.letters.year", "metadata.a.b"]
    answer = cast.rita.post(LETTERS, {"vector": [1, 0, 0], "fields": fields})
    expected = {"letters": [{"year": 1}], "a": {"b": 2}, "a.b": None}
    assert answer["results"][0]["metadata"] == expected


# --- Context --------------------------------------------------------------------------------------
def test_context_is_what_stands_around(filled: Shelf) -> None:
    context = {"path": "sequence", "before": 2, "after": 3, "within": "work.title"}
    answer = search(filled, vector=vector(41), context=context, fields=["metadata.row"], count=40)
    for each in answer["results"]:
        row = int(each["id"][1:])
        work = range(row - row % 20, row - row % 20 + 20)
        before = [other for other in work if row - 2 <= other < row]
        after = [other for other in work if row < other <= row + 3]
        assert each["context"] == {
            side: [{"id": name(other), "metadata": {"row": other}} for other in others]
            for side, others in (("before", before), ("after", after))
        }
    # All of the project is one row where nothing is shared; ids alone without fields.
    whole = like(filled, 50, context=json.dumps({"path": "row"}), count=3)
    for each in whole["results"]:
        row = int(each["id"][1:])
        assert each["context"] == {
            "before": [{"id": name(row - 1)}][: row > 0],
            "after": [{"id": name(row + 1)}][: row < ALL[-1]],
        }


def test_context_where_there_is_no_order(cast: Cast) -> None:
    held: list[Any] = [{}, {"n": "1"}, {"n": 1}, {"n": 1.5}, {"n": [3, 0]}, {"n": 1.5}]
    items = [item(f"t{n}", [10, n, 0], metadata=each) for n, each in enumerate(held)]
    assert cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": items}).status == 201
    body = {"vector": [1, 0, 0], "context": {"path": "n", "before": 1, "after": 2}}
    answer = cast.rita.post(LETTERS, body)
    around = {
        each["id"]: [
            "".join(other["id"] for other in each["context"][side]) for side in ("before", "after")
        ]
        for each in answer["results"]
    }
    assert around == {
        "t0": ["", ""],
        "t1": ["", ""],
        "t2": ["", "t3t5"],
        "t3": ["t2", "t5t4"],
        "t5": ["t3", "t4"],
        "t4": ["t5", ""],
    }
    within = {**body, "context": {"path": "n", "within": "author"}}
    assert all(
        each["context"] == {"before": [], "after": []}
        for each in cast.rita.post(LETTERS, within)["results"]
    )


# --- By words ------------------------------------------------------------------------------------
@pytest.fixture
def words(cast: Cast) -> str:
    """Return the address of searches in a project that embeds texts itself."""
    make_project("alice", "words", instance_owner="_system", instance="builtin", readers=["rita"])
    texts = {
        "lisa": ("Leonardo painted the Mona Lisa.", "painting"),
        "supper": ("Leonardo painted the Last Supper.", "painting"),
        "sonata": ("Beethoven wrote the Moonlight Sonata.", "music"),
    }
    items = [
        {"text_id": text_id, "text": text, "metadata": {"art": art, "n": number}}
        for number, (text_id, (text, art)) in enumerate(texts.items())
    ]
    assert cast.alice.post("/v1/embeddings/alice/words", {"embeddings": items}).status == 201
    return "/v1/similars/alice/words"


def test_searches_by_words_are_shaped_as_well(cast: Cast, words: str) -> None:
    query = urlencode({"q": "who painted the Mona Lisa", "group_by": "art", "fields": "text"})
    answer = cast.rita.get(f"{words}?{query}")
    assert [(each["id"], each["group"]) for each in answer["results"]] == [
        ("lisa", "painting"),
        ("sonata", "music"),
    ]
    assert answer["results"][0]["text"] == "Leonardo painted the Mona Lisa."
    body = {"text": "who painted the Mona Lisa", "group_by": "art", "fields": ["text"]}
    assert cast.rita.post(words, body).body == answer.body
    batch = cast.rita.post(f"{words}/batch", {"queries": [body, {"positive": ["lisa"]}]})
    assert batch["answers"][0]["results"] == answer["results"]
    across = {"projects": ["alice/words"], "text": body["text"], "fields": ["text"], "count": 1}
    (first,) = cast.rita.post("/v1/similars", across)["results"]
    assert (first["project"], first["id"]) == ("alice/words", "lisa")
    assert first["similarity"] == answer["results"][0]["similarity"]


@pytest.mark.parametrize("mode", ["text", "hybrid"])
def test_results_by_words_alone_carry_fields_and_context(cast: Cast, words: str, mode: str) -> None:
    context = {"path": "n", "before": 0, "after": 1}
    query = {"mode": mode, "count": 1}
    plain = cast.rita.post(f"{words}?{urlencode(query)}", {"text": "Mona Lisa"})
    body = {"text": "Mona Lisa", "fields": ["metadata.art"], "context": context}
    (hit,) = cast.rita.post(f"{words}?{urlencode(query)}", body)["results"]
    carried = {
        "metadata": {"art": "painting"},
        "context": {"before": [], "after": [{"id": "supper", "metadata": {"art": "painting"}}]},
    }
    assert hit == {**plain["results"][0], **carried}
    query |= {"q": "Mona Lisa", "fields": "metadata.art", "context": json.dumps(context)}
    assert cast.rita.get(f"{words}?{urlencode(query)}")["results"] == [hit]
    for option in (
        {"diversity": 0.5},
        {"group_by": "art"},
        {"count": 3},
        {"exclude_values": {"n": 1}},
    ):
        [name] = option
        answer = cast.rita.post(f"{words}?mode={mode}", {"text": "Mona Lisa", **option})
        assert_refused(answer, 400, location=f"body.{name}")
    answer = cast.rita.get(f"{words}?mode={mode}&q=Mona&diversity=0.5")
    assert_refused(answer, 400, location="query.diversity")


def test_words_of_a_paid_model_are_for_those_it_is_shared_with(cast: Cast) -> None:
    Project.objects.update(public_read=True)
    body = {"text": "words", "count": 1}
    for path, asked in (
        (LETTERS, body),
        (f"{LETTERS}/batch", {"queries": [body]}),
        ("/v1/similars", {**body, "projects": ["alice/letters"]}),
    ):
        assert_refused(cast.sam.post(path, asked), 403, says="whom its owner pays")
        assert_refused(cast.nobody.post(path, asked), 401)


# --- Many searches --------------------------------------------------------------------------------
def test_a_batch_answers_in_order_what_single_searches_answer(filled: Shelf) -> None:
    queries: list[dict[str, Any]] = [
        {"vector": vector(5), "threshold": 0},
        {"positive": [name(8)], "exclude_same": ["work.title"], "fields": ["text"]},
        {"vector": vector(6), "group_by": "author", "group_size": 2, "count": 3},
        {"vector": vector(6), "filter": {"row": 4}, "threshold": 0},
    ]
    answer = filled.owner.post(f"{filled.similars}/batch", {"queries": queries})
    assert answer.status == 200, answer.body
    single = [filled.owner.post(filled.similars, each).body for each in queries]
    names = ("results", "complete")
    assert answer["answers"] == [
        {key: each[key] for key in names if key in each} for each in single
    ]
    assert (answer["user_handle"], answer["project_handle"]) == ("librarian", "shelf")


def test_the_text_with_the_id_batch_is_searched_by_all_the_same(cast: Cast) -> None:
    items = [item("batch", [1, 0, 0]), item("other", [1, 0.1, 0])]
    assert cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": items}).status == 201
    assert hits(cast.rita.get(f"{LETTERS}/batch"))[0][0] == "other"


V = {"vector": [1, 0, 0]}
BAD_BATCHES: list[tuple[Any, str]] = [
    ({}, "body.queries"),
    ({"queries": []}, "body.queries"),
    ({"queries": [V] * 101}, "body.queries"),
    ({"queries": {"0": V}}, "body.queries"),
    ({"queries": [V], "count": 3}, "body.count"),
    ({"queries": [V, 5]}, "body.queries[1]"),
    ({"queries": [V, V, V, {"vector": [1, 0]}]}, "body.queries[3].vector"),
    ({"queries": [V, {"vector": [[1, 0, 0]]}]}, "body.queries[1].vector"),
    ({"queries": [V, {"vector": [0, 0, 0]}]}, "body.queries[1].vector"),
    ({"queries": [V, {}]}, "body.queries[1].vector"),
    ({"queries": [{**V, "count": 0}]}, "body.queries[0].count"),
    ({"queries": [{**V, "filter": {"a": {"what": 1}}}]}, "body.queries[0].filter.a.what"),
    ({"queries": [{**V, "coutn": 5}]}, "body.queries[0].coutn"),
    ({"queries": [{**V, "metadata_path": "a"}]}, "body.queries[0].metadata_value"),
    ({"queries": [{"positive": [1]}]}, "body.queries[0].positive[0]"),
]


def test_a_malformed_search_refuses_the_batch_and_is_named(cast: Cast) -> None:
    with nothing_changes():
        for body, place in BAD_BATCHES:
            assert_refused(cast.rita.post(f"{LETTERS}/batch", body), 400, location=place)


def test_a_batch_that_takes_too_long_is_refused(
    filled: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "WITHIN_S", 0.0)
    queries = [{"vector": vector(5)}, {"vector": vector(6)}]
    refused = filled.owner.post(f"{filled.similars}/batch", {"queries": queries})
    assert_refused(refused, 413, location="body.queries")
    assert "send fewer at once" in refused["detail"]
    # One alone is answered, however long it takes.
    alone = filled.owner.post(f"{filled.similars}/batch", {"queries": queries[:1]})
    assert alone.status == 200


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
@pytest.mark.parametrize(
    ("path", "body", "within_s"),
    [
        ("/v1/similars/alice/letters?mode=hybrid", {"text": "garden", "vector": [1, 2, 3]}, 0),
        # Not refused before it begins, but stopped by the database.
        ("/v1/similars/alice/letters?mode=text", {"text": "garden"}, 0.002),
        ("/v1/similars/alice/letters", {"vector": [1, 2, 3], "group_by": "author"}, 0),
        ("/v1/similars/alice/letters", {"vector": [1, 2, 3], "fields": ["text"]}, 0),
        ("/v1/similars/alice/letters/batch", {"queries": [{"vector": [1, 2, 3]}]}, 0),
        ("/v1/similars", {"projects": ["alice/letters"], "vector": [1, 2, 3]}, 0),
    ],
)
def test_a_search_that_takes_too_long_is_stopped(
    path: str, body: dict[str, Any], within_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast = make_cast()
    items = [
        item(f"t{n}", [1, n, 1], text="a garden " * 200, metadata={"author": f"A{n}", "n": 1})
        for n in range(500)
    ]
    assert cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": items}).status == 201
    assert cast.rita.post(path, body).status == 200
    monkeypatch.setattr(searches, "ONE_WITHIN_S", within_s)
    stopped = cast.rita.post(path, body)
    assert_refused(stopped, 503, says="as long as one may take")
    assert stopped.headers["Retry-After"]
    # And what comes after it is not.
    monkeypatch.undo()
    assert cast.rita.post(path, body).status == 200


# --- What it costs, and who may ------------------------------------------------------------------
def statements(ask: Callable[[], Answer]) -> int:
    with CaptureQueriesContext(connection) as captured:
        answer = ask()
    assert answer.status == 200, answer.body
    return len(captured)


def test_statements_are_as_few_as_documented(filled: Shelf) -> None:
    context = {"path": "sequence", "within": "work.title"}
    costs: list[tuple[dict[str, Any], int]] = [
        ({"count": 200}, 1),
        ({"count": 200, "fields": ["text"]}, 2),
        ({"count": 200, "exclude_values": {"author": "a0"}}, 1),
        ({"count": 200, "context": context}, 3),
        ({"count": 200, "context": context, "fields": ["text"]}, 4),
        ({"diversity": 0.5, "count": 50}, 2),
        ({"group_by": "work.title", "count": 1}, 2),
    ]
    for options, budget in costs:
        body = {"vector": vector(4), "threshold": 0, "exact": True, **options}

        def ask(body: dict[str, Any] = body) -> Answer:
            return filled.owner.post(filled.similars, body)

        ask()
        assert statements(ask) == budget, options
    query = f"{filled.similars}/{name(4)}?exact=true&fields=text&threshold=0"
    filled.owner.get(query)
    assert statements(lambda: filled.owner.get(query)) == 3
    queries = {"queries": [{"vector": vector(row), "exact": True} for row in range(20)]}
    assert statements(lambda: filled.owner.post(f"{filled.similars}/batch", queries)) == 20


def test_whoever_may_no_longer_read_is_refused_at_once(cast: Cast) -> None:
    items = [item("a", [1, 0, 0]), item("b", [1, 0.1, 0])]
    assert cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": items}).status == 201
    asks: list[Callable[[], Answer]] = [
        lambda: cast.rita.post(LETTERS, {"positive": ["a"], "fields": ["text"]}),
        lambda: cast.rita.get(f"{LETTERS}/a?group_by=x"),
        lambda: cast.rita.post(f"{LETTERS}/batch", {"queries": [{"positive": ["a"]}]}),
    ]
    assert [ask().status for ask in asks] == [200] * 3
    assert cast.alice.delete("/v1/projects/alice/letters/share/rita").status == 200
    for ask in asks:
        assert_refused(ask(), 403)
    # And is told nothing of what is wrong with the request.
    assert_refused(cast.rita.post(LETTERS, {"positive": ["nope"], "count": 0}), 403)


# --- Refusals -------------------------------------------------------------------------------------
BAD: list[tuple[dict[str, Any], str]] = [
    ({**V, "group_size": 2}, "body.group_size"),
    ({**V, "group_by": "a", "group_size": 11}, "body.group_size"),
    ({**V, "group_by": "a", "diversity": 0.5}, "body.diversity"),
    ({**V, "group_by": "a..b"}, "body.group_by"),
    ({**V, "group_by": "a", "count": 100, "offset": 101}, "body.offset"),
    ({**V, "diversity": 1.5}, "body.diversity"),
    ({**V, "diversity": "0.5"}, "body.diversity"),
    ({**V, "diversity": 0.5, "offset": 200}, "body.offset"),
    ({**V, "exclude_same": ["author"]}, "body.exclude_same"),
    ({**V, "exclude_same": []}, "body.exclude_same"),
    ({**V, "exclude_values": ["author"]}, "body.exclude_values"),
    ({**V, "exclude_values": {"author": {"eq": 1}}}, "body.exclude_values.author[0]"),
    ({**V, "positive": ["a"]}, "body.vector"),
    ({**V, "negative": ["a"]}, "body.vector"),
    ({"negative": ["a"]}, "body.positive"),
    ({"count": 5}, "body.vector"),
    ({**V, "text": "words", "count": 1}, "body.text"),
    ({"text": "words", "positive": ["a"]}, "body.text"),
    ({"text": " ", "count": 1}, "body.text"),
    ({"text": "words", "exclude_same": ["author"]}, "body.exclude_same"),
    ({"positive": ["a"], "negative": ["a"]}, "body.negative[0]"),
    ({"positive": ["a" * 301]}, "body.positive[0]"),
    ({"positive": ["a"] * 101}, "body.positive"),
    ({**V, "fields": ["texts"]}, "body.fields[0]"),
    ({**V, "fields": ["metadata."]}, "body.fields[0]"),
    ({**V, "fields": "text"}, "body.fields"),
    ({**V, "context": {"before": 1}}, "body.context.path"),
    ({**V, "context": {"path": "n", "before": 0, "after": 0}}, "body.context"),
    ({**V, "context": {"path": "n", "before": 21}}, "body.context.before"),
    ({**V, "context": {"path": "n", "around": 1}}, "body.context.around"),
    ({**V, "context": "n"}, "body.context"),
    ({**V, "count": 5, "coutn": 6}, "body.coutn"),
    ({**V, "count": "5"}, "body.count"),
    ({**V, "exact": "true"}, "body.exact"),
    ({**V, "fields": ["text"], "filter": {}}, "body.filter"),
    (
        {
            **V,
            "count": 200,
            "fields": ["text"],
            "group_by": "a",
            "group_size": 10,
            "context": {"path": "n", "before": 20, "after": 20},
        },
        "body",
    ),
]


def test_unknown_and_contradicting_options_are_refused_and_named(cast: Cast) -> None:
    for body, place in BAD:
        answer = cast.rita.post(LETTERS, body)
        assert answer.status == 400, body
        assert_refused(answer, 400, location=place)


def test_options_in_both_places_are_refused(cast: Cast) -> None:
    answer = cast.rita.post(f"{LETTERS}?count=5", {**V, "count": 5})
    assert_refused(answer, 400, location="body.count")
    answer = cast.rita.post(
        f"{LETTERS}?filter={quote(json.dumps({'a': 1}))}", {**V, "filter": {"a": 1}, "count": 2}
    )
    assert_refused(answer, 400, location="body.filter")


BAD_QUERIES = [
    ("exclude_same=author,,work", "query.exclude_same[1]"),
    ("fields=text,similarity", "query.fields[1]"),
    (f"exclude_same={','.join('abcdefghijk')}", "query.exclude_same"),
    (f"fields={','.join(['text'] * 11)}", "query.fields"),
    ("context=5", "query.context"),
    ("context={", "query.context"),
    ("exclude_values=[]", "query.exclude_values"),
    ("group_size=2", "query.group_size"),
    ("group_by=a&diversity=0.5", "query.diversity"),
    ("positive=a", "query.positive"),
    ("diversity=2", "query.diversity"),
]


def test_query_strings_are_read_as_strictly(cast: Cast) -> None:
    items = [item("a", [1, 0, 0])]
    assert cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": items}).status == 201
    for query, place in BAD_QUERIES:
        assert_refused(cast.rita.get(f"{LETTERS}/a?{query}"), 400, location=place)


def test_a_body_without_options_may_hold_what_nobody_knows(cast: Cast) -> None:
    assert cast.rita.post(LETTERS, {**V, "project_handle": "letters"}).status == 200

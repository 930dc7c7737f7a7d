"""Similarity search: the ranking is numpy's, on real texts and by every parameter."""

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow.parquet as pq
import pytest
from django.db import transaction
from pytest_django import DjangoAssertNumQueries, DjangoDbBlocker, Settings

from tests.factories import Answer, Caller, Cast, item, make_instance, make_project, make_user

DEMO = Path(__file__).parents[2] / "embeddings" / "demo" / "wikipedia_vital.parquet"
ROWS = 1000
WIKI = "/v1/similars/librarian/wiki"
LETTERS = "/v1/similars/alice/letters"

Ranking = list[tuple[str, float]]


# --- The real thing -------------------------------------------------------------------------------
@dataclass(frozen=True)
class Articles:
    """The first articles of the demo; row n of all four is one article."""

    ids: list[str]
    texts: list[str]
    metadata: list[dict[str, Any]]
    vectors: npt.NDArray[np.float32]

    def like(
        self, query: npt.NDArray[Any], keep: Callable[[int], bool] = lambda row: True
    ) -> Ranking:
        """Return all (id, similarity), the best first, as numpy computes them."""
        matrix, wanted = self.vectors.astype(np.float64), query.astype(np.float64)
        lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(wanted)
        similarities = matrix @ wanted / lengths
        rows = [row for row in range(len(self.ids)) if keep(row)]
        rows.sort(key=lambda row: (-similarities[row], self.ids[row]))
        return [(self.ids[row], float(similarities[row])) for row in rows]


@cache
def articles() -> Articles:
    table: Any = pq.read_table(DEMO).slice(0, ROWS)
    flat = table.column("vector").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return Articles(
        table.column("text_id").to_pylist(),
        table.column("text").to_pylist(),
        [json.loads(each) for each in table.column("metadata").to_pylist()],
        flat.astype(np.float32).reshape(ROWS, -1),
    )


@pytest.fixture(scope="module")
def library(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Caller]:
    """Load the articles over HTTP, once for the tests of this module; return who may read them.

    The transactions of single tests nest in the one that is rolled back at the end.
    """
    data = articles()
    items = [
        item(text_id, (), text=text, metadata=metadata, instance_handle="use")
        | {"vector": vector, "vector_dim": 512}
        for text_id, text, metadata, vector in zip(
            data.ids, data.texts, data.metadata, data.vectors, strict=True
        )
    ]
    body = orjson.dumps({"embeddings": items}, option=orjson.OPT_SERIALIZE_NUMPY)
    with django_db_blocker.unblock(), transaction.atomic():
        librarian, visitor = make_user("librarian"), make_user("visitor")
        make_instance("librarian", "use", dimensions=512)
        make_project("librarian", "wiki", instance="use", readers=["visitor"])
        answer = librarian.post("/v1/embeddings/librarian/wiki", raw=body)
        assert (answer.status, answer["count"]) == (201, ROWS)
        yield visitor
        transaction.set_rollback(True)


@pytest.fixture
def wiki(library: Caller, db: None) -> Caller:
    """Return who may read the articles."""
    return library


def by_text(caller: Caller, row: int, **query: Any) -> Answer:
    path = f"{WIKI}/{quote(articles().ids[row], safe='')}"
    return caller.get(f"{path}?{urlencode(query)}")


def by_vector(caller: Caller, vector: npt.NDArray[Any], **query: Any) -> Answer:
    return caller.post(f"{WIKI}?{urlencode(query)}", {"vector": vector.astype(float).tolist()})


def hits(answer: Answer) -> Ranking:
    assert answer.status == 200, answer.body
    return [(hit["id"], hit["similarity"]) for hit in answer["results"]]


def assert_same(found: Ranking, expected: Ranking) -> None:
    """Compare rankings: similarities to 1e-6; ids too, but for neighbours closer than that."""
    assert [each for _, each in found] == pytest.approx([each for _, each in expected], abs=1e-6)
    for (text_id, similarity), (other, _) in zip(found, expected, strict=True):
        assert text_id == other or similarity == pytest.approx(
            dict(expected).get(text_id), abs=1e-6
        )


QUERY_ROWS = [0, 1, 17, 255, 512, 999]


def test_the_ranking_of_a_stored_text_is_numpys(wiki: Caller) -> None:
    data = articles()
    for row in QUERY_ROWS:
        expected = data.like(data.vectors[row], lambda other, row=row: other != row)  # type: ignore[misc]
        assert_same(hits(by_text(wiki, row, threshold=0)), expected[:10])
        assert_same(hits(by_text(wiki, row, threshold=0, count=200)), expected[:200])


def test_the_ranking_of_a_vector_is_numpys(wiki: Caller) -> None:
    data = articles()
    for row in QUERY_ROWS:
        query = data.vectors[row] + 0.1 * data.vectors[(row + 1) % ROWS]
        found = hits(by_vector(wiki, query, threshold=0, count=200))
        assert_same(found, data.like(query)[:200])


def test_a_stored_text_is_the_best_result_for_its_own_vector(wiki: Caller) -> None:
    data = articles()
    for row in QUERY_ROWS:
        (best, similarity), *_ = hits(by_vector(wiki, data.vectors[row]))
        assert best == data.ids[row]
        assert similarity == pytest.approx(1, abs=1e-6)
        others = hits(by_text(wiki, row, threshold=0, count=200))
        assert data.ids[row] not in dict(others)


def test_a_vectors_length_does_not_matter(wiki: Caller) -> None:
    vector = articles().vectors[3]
    found = hits(by_vector(wiki, vector))
    for factor in (0.001, 2.0, 12345.0):
        scaled = hits(by_vector(wiki, vector * np.float32(factor)))
        assert [each for _, each in scaled] == pytest.approx([each for _, each in found], abs=1e-6)


@pytest.mark.parametrize("threshold", [0, 0.1, 0.25, 0.3, 0.4, 0.5, 0.75, 0.999, 1])
def test_the_threshold_keeps_what_reaches_it(wiki: Caller, threshold: float) -> None:
    data = articles()
    expected = [
        each for each in data.like(data.vectors[5], lambda row: row != 5) if each[1] >= threshold
    ]
    found = hits(by_text(wiki, 5, threshold=threshold, count=200))
    assert_same(found, expected[:200])


def test_the_default_threshold_is_a_half(wiki: Caller) -> None:
    default = hits(by_text(wiki, 5, count=200))
    assert default == hits(by_text(wiki, 5, count=200, threshold=0.5))
    assert len(default) < len(hits(by_text(wiki, 5, count=200, threshold=0)))


def test_negative_similarities_never_pass(wiki: Caller) -> None:
    opposite = -articles().vectors[0]
    found = hits(by_vector(wiki, opposite, threshold=0, count=200))
    assert all(similarity >= 0 for _, similarity in found)
    assert articles().ids[0] not in dict(found)


@pytest.mark.parametrize("size", [7, 50, 200])
def test_pages_follow_each_other_without_overlap_or_gap(wiki: Caller, size: int) -> None:
    data = articles()
    expected = [each for each in data.like(data.vectors[9], lambda row: row != 9) if each[1] >= 0]
    pages: Ranking = []
    while page := hits(by_text(wiki, 9, threshold=0, count=size, offset=len(pages))):
        pages += page
        if len(pages) >= 20 * size:
            break
    assert_same(pages, expected[: len(pages)])
    assert len({text_id for text_id, _ in pages}) == len(pages)
    assert len(pages) == min(len(expected), 20 * size)


def test_pages_of_get_and_post_cut_at_the_threshold(wiki: Caller) -> None:
    ranked = articles().like(articles().vectors[9], lambda row: row != 9)
    threshold = (ranked[29][1] + ranked[30][1]) / 2
    everything = hits(by_text(wiki, 9, threshold=threshold, count=200))
    assert_same(everything, ranked[:30])
    assert hits(by_text(wiki, 9, threshold=threshold, count=5, offset=28)) == everything[28:]
    assert hits(by_text(wiki, 9, threshold=threshold, offset=30)) == []
    assert hits(by_vector(wiki, articles().vectors[9], offset=2**63 - 1)) == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, 10),
        ({"count": 20}, 20),
        ({"limit": 20}, 20),
        ({"count": 20, "limit": 30}, 20),
        ({"count": 30, "limit": 20}, 20),
        ({"count": 1}, 1),
        ({"count": 41}, 41),
        ({"limit": 200}, 200),
    ],
    ids=str,
)
def test_count_and_limit_are_one_and_the_smaller_wins(
    wiki: Caller, query: dict[str, int], expected: int
) -> None:
    assert len(hits(by_text(wiki, 2, threshold=0, **query))) == expected
    vector = articles().vectors[2]
    assert len(hits(by_vector(wiki, vector, threshold=0, **query))) == expected


@pytest.mark.parametrize("value", ["en", "fr", "es"])
def test_excluding_a_value_of_the_metadata_leaves_all_the_others(wiki: Caller, value: str) -> None:
    data = articles()
    expected = data.like(
        data.vectors[11], lambda row: row != 11 and data.metadata[row]["language"] != value
    )
    query = {"metadata_path": "language", "metadata_value": value, "threshold": 0, "count": 200}
    assert_same(hits(by_text(wiki, 11, **query)), expected[:200])
    expected = data.like(data.vectors[11], lambda row: data.metadata[row]["language"] != value)
    assert_same(hits(by_vector(wiki, data.vectors[11], **query)), expected[:200])


def test_an_exclusion_that_leaves_little_still_finds_it_all(wiki: Caller) -> None:
    data = articles()
    url = data.metadata[100]["url"]
    query = {"metadata_path": "url", "metadata_value": url, "threshold": 0.999}
    assert hits(by_vector(wiki, data.vectors[100], **query)) == []
    assert len(hits(by_vector(wiki, data.vectors[100], threshold=0.999))) == 1


def test_a_search_takes_one_statement(
    wiki: Caller, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    # After the first, it is written down that the key was used.
    for _ in range(2):
        by_text(wiki, 0)
    with django_assert_num_queries(1):
        by_text(wiki, 0)
    with django_assert_num_queries(1):
        by_vector(wiki, articles().vectors[0])


# --- Small cases ----------------------------------------------------------------------------------
def store(cast: Cast, *items: dict[str, Any]) -> None:
    answer = cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": list(items)})
    assert answer.status == 201, answer.body


def ids(answer: Answer) -> list[str]:
    return [text_id for text_id, _ in hits(answer)]


def test_ties_are_in_the_order_of_ids_across_pages(cast: Cast) -> None:
    names = ["b", "B", "é", "a/b", "10", "9", "_", "日"]
    store(cast, item("query", [1, 1, 1]), *(item(each, [2, 2, 2]) for each in names))
    assert ids(cast.rita.get(f"{LETTERS}/query")) == sorted(names)
    pages = [ids(cast.rita.get(f"{LETTERS}/query?count=3&offset={n}")) for n in (0, 3, 6)]
    assert [each for page in pages for each in page] == sorted(names)
    assert ids(cast.rita.post(LETTERS, {"vector": [3, 3, 3]})) == sorted([*names, "query"])


def test_a_twin_of_the_stored_text_is_a_result_the_text_itself_is_not(cast: Cast) -> None:
    store(cast, item("a", [1, 2, 3]), item("twin", [1, 2, 3]))
    assert hits(cast.rita.get(f"{LETTERS}/a?threshold=1")) == [("twin", 1.0)]
    assert hits(cast.rita.post(f"{LETTERS}?threshold=1", {"vector": [1, 2, 3]})) == [
        ("a", 1.0),
        ("twin", 1.0),
    ]


@pytest.mark.parametrize(
    ("vector", "similarity"),
    [([0, 1, 0], 0.0), ([3, 4, 0], 0.6), ([1, 0, 0], 1.0), ([5, 0, 0], 1.0)],
)
def test_a_similarity_equal_to_the_threshold_stays(
    cast: Cast, vector: list[float], similarity: float
) -> None:
    store(cast, item("a", vector))
    found = cast.rita.post(f"{LETTERS}?threshold={similarity}", {"vector": [1, 0, 0]})
    assert dict(hits(found)) == pytest.approx({"a": similarity}, abs=1e-9)


def test_nothing_found_is_an_empty_list(cast: Cast) -> None:
    expected = {"user_handle": "alice", "project_handle": "letters", "results": []}
    assert cast.rita.post(LETTERS, {"vector": [1, 0, 0]}).body == expected
    store(cast, item("a", [1, 0, 0]), item("b", [-1, 0, 0]))
    assert cast.rita.get(f"{LETTERS}/a").body == expected
    assert cast.rita.get(f"{LETTERS}/a?threshold=0").body == expected


def test_searching_stores_nothing(cast: Cast) -> None:
    store(cast, item("a", [1, 0, 0]))
    before = cast.alice.get("/v1/embeddings/alice/letters").body
    cast.alice.post(LETTERS, {"vector": [1, 0, 0], "text_id": "new", "text": "stored?"})
    cast.alice.get(f"{LETTERS}/a")
    assert cast.alice.get("/v1/embeddings/alice/letters").body == before


# Which of these rows an exclusion leaves out; every row has the same vector.
METADATA: dict[str, Any] = {
    "none at all": None,
    "empty": {},
    "ann": {"author": "Ann"},
    "ann padded": {"author": "  Ann\t\n"},
    "ann lower": {"author": "ann"},
    "anne": {"author": "Anne"},
    "bob": {"author": "Bob", "year": 2024},
    "year text": {"year": "2024"},
    "year float": {"year": 2024.5},
    "true": {"flag": True},
    "true text": {"flag": "true"},
    "null": {"author": None},
    "null text": {"author": "null"},
    "blank": {"author": ""},
    "spaces": {"author": "   "},
    "list": {"author": ["Ann", "Bob"]},
    "object": {"author": {"name": "Ann", "born": {"year": 1767}}},
    "dotted": {"author.name": "Ann"},
    "deep dotted": {"author": {"born.year": 1767}},
    "numbered": {"author": {"0": "Ann"}},
    "odd": {'it\'s "{odd}"': "x'; --", "a b": "ü 日"},
}
EXCLUSIONS: list[tuple[str, str, set[str]]] = [
    ("author", "Ann", {"ann", "ann padded"}),
    ("author", " Ann ", {"ann", "ann padded"}),
    ("author", "\tAnn\n", {"ann", "ann padded"}),
    ("author", "ann", {"ann lower"}),
    ("author", "An", set()),
    ("author", "%", set()),
    ("author", ".*", set()),
    ("author", "Bob", {"bob"}),
    ("Author", "Ann", set()),
    ("year", "2024", {"bob", "year text"}),
    ("year", " 2024 ", {"bob", "year text"}),
    ("year", "2024.0", set()),
    ("year", "2024.5", {"year float"}),
    ("flag", "true", {"true", "true text"}),
    ("flag", "True", set()),
    ("flag", "1", set()),
    ("author", "null", {"null text"}),
    ("author", "", {"blank", "spaces"}),
    ("author", '["Ann", "Bob"]', set()),
    ("author.0", "Ann", {"numbered"}),
    ("author.1", "Bob", set()),
    ("author.name", "Ann", {"object", "dotted"}),
    ("author.born.year", "1767", {"object"}),
    ("author.born", '{"year": 1767}', set()),
    ("author.born.year.x", "1767", set()),
    ("author", '{"name": "Ann", "born": {"year": 1767}}', set()),
    ("missing", "Ann", set()),
    ("missing.deeper", "", set()),
    ('it\'s "{odd}"', "x'; --", {"odd"}),
    ("a b", "ü 日", {"odd"}),
    ("author__name", "Ann", set()),
    ("$.author", "Ann", set()),
    ("{author}", "Ann", set()),
    ("author'; DROP TABLE users; --", "Ann", set()),
]


@pytest.mark.parametrize(
    ("path", "value", "excluded"), EXCLUSIONS, ids=[f"{e[0]}={e[1]!r}" for e in EXCLUSIONS]
)
def test_an_exclusion_compares_the_text_of_one_value(
    cast: Cast, path: str, value: str, excluded: set[str]
) -> None:
    store(cast, *(item(name, [1, 2, 3], metadata=each) for name, each in METADATA.items()))
    query = urlencode({"metadata_path": path, "metadata_value": value, "count": 200})
    expected = sorted(METADATA.keys() - excluded)
    assert ids(cast.rita.post(f"{LETTERS}?{query}", {"vector": [1, 2, 3]})) == expected
    itself = "empty"
    assert ids(cast.rita.get(f"{LETTERS}/{itself}?{query}")) == [
        each for each in expected if each != itself
    ]


def test_an_exclusion_fills_the_page_with_those_that_stay(cast: Cast) -> None:
    rows = [item(f"t{n:02}", [1, n / 100, 0], metadata={"odd": n % 2}) for n in range(40)]
    store(cast, *rows)
    query = "metadata_path=odd&metadata_value=0&count=10"
    even = [f"t{n:02}" for n in range(1, 40, 2)]
    assert ids(cast.rita.post(f"{LETTERS}?{query}", {"vector": [1, 0, 0]})) == even[:10]
    assert ids(cast.rita.post(f"{LETTERS}?{query}&offset=10", {"vector": [1, 0, 0]})) == even[10:]


def test_the_excluded_value_of_the_query_text_does_not_matter(cast: Cast) -> None:
    store(
        cast,
        item("query", [1, 0, 0], metadata={"author": "Ann"}),
        item("same", [1, 0, 0], metadata={"author": "Ann"}),
        item("other", [1, 0, 0], metadata={"author": "Bob"}),
    )
    query = "metadata_path=author&metadata_value=Ann"
    assert ids(cast.rita.get(f"{LETTERS}/query?{query}")) == ["other"]


# --- Refusals -------------------------------------------------------------------------------------
BAD_QUERIES: list[tuple[str, list[str]]] = [
    ("count=0", ["count"]),
    ("count=201", ["count"]),
    ("count=-5", ["count"]),
    ("count=ten", ["count"]),
    ("count=", ["count"]),
    ("count=1.0", ["count"]),
    ("count=%D9%A3", ["count"]),
    ("count=10&count=0", ["count"]),
    ("limit=0", ["limit"]),
    ("limit=201&count=10", ["limit"]),
    ("offset=-1", ["offset"]),
    (f"offset={2**63}", ["offset"]),
    ("offset=1_0", ["offset"]),
    ("threshold=1.01", ["threshold"]),
    ("threshold=-0.1", ["threshold"]),
    ("threshold=nan", ["threshold"]),
    ("threshold=inf", ["threshold"]),
    ("threshold=high", ["threshold"]),
    ("threshold=", ["threshold"]),
    ("threshold=0,5", ["threshold"]),
    ("metadata_path=author", ["metadata_value"]),
    ("metadata_value=Ann", ["metadata_path"]),
    ("metadata_path=&metadata_value=Ann", ["metadata_path"]),
    ("metadata_path=a..b&metadata_value=Ann", ["metadata_path"]),
    ("metadata_path=.a&metadata_value=Ann", ["metadata_path"]),
    ("metadata_path=a&metadata_value=%00", ["metadata_value"]),
    ("metadata_path=a%00&metadata_value=b", ["metadata_path"]),
    ("metadata_path=" + ".".join("a" * 33) + "&metadata_value=b", ["metadata_path"]),
    ("metadata_path=a&metadata_path=b&metadata_value=c", ["metadata_path"]),
    ("filter=author", ["filter"]),
    ("count=0&offset=x&threshold=2", ["count", "offset", "threshold"]),
]


@pytest.mark.parametrize(
    ("query", "names"), BAD_QUERIES, ids=[each[0][:40] for each in BAD_QUERIES]
)
def test_a_bad_parameter_is_refused_and_named(cast: Cast, query: str, names: Sequence[str]) -> None:
    store(cast, item("a", [1, 0, 0]))
    for answer in [
        cast.rita.get(f"{LETTERS}/a?{query}"),
        cast.rita.post(f"{LETTERS}?{query}", {"vector": [1, 0, 0]}),
    ]:
        assert (answer.status, answer["status"], answer["title"]) == (400, 400, "Bad Request")
        assert {each["location"] for each in answer["errors"]} == {f"query.{n}" for n in names}


NUMBERS = "vector must hold numbers only: no strings, booleans, nulls or lists."
FLAT = "vector must be a flat list of numbers."
NO_DIRECTION = "vector has no direction: all of its elements are zero, or too close to it."
NOT_BASE64 = "vector is neither a list nor base64."
NOT_FLOATS = "vector in base64 must hold little-endian 32-bit floating point numbers."
BAD_VECTORS: list[tuple[Any, str]] = [
    ([1, 2], "vector dimension mismatch: expected 3 dimensions, got 2"),
    ([1, 2, 3, 4], "vector dimension mismatch: expected 3 dimensions, got 4"),
    ([], "body.vector: vector is empty."),
    (None, "body.vector: vector must be a list of numbers."),
    ("1,2,3", f"body.vector: {NOT_BASE64}"),
    ("", f"body.vector: {NOT_FLOATS}"),
    ("AAAA", f"body.vector: {NOT_FLOATS}"),
    ("AACAPw==", "vector dimension mismatch: expected 3 dimensions, got 1"),
    ("AAAAAAAAAAAAAAAA", f"body.vector: {NO_DIRECTION}"),
    ({"0": 1}, "body.vector: vector must be a list of numbers."),
    (["1", "2", "3"], f"body.vector: {NUMBERS}"),
    ([True, 1, 1], f"body.vector: {NUMBERS}"),
    ([1, None, 1], f"body.vector: {NUMBERS}"),
    ([[1, 2, 3]], f"body.vector: {FLAT}"),
    ([1, [2], 3], f"body.vector: {FLAT}"),
    ([0, 0, 0], f"body.vector: {NO_DIRECTION}"),
    ([1e-30, 0, 0], f"body.vector: {NO_DIRECTION}"),
    ([1e-50, 0, 0], f"body.vector: {NO_DIRECTION}"),
    (
        [1e39, 0, 0],
        "body.vector: vector has elements that are too large for 32-bit floating point.",
    ),
    (..., 'body.vector: Send an object {"vector": [ … ]} or {"text": "…"}.'),
]


@pytest.mark.parametrize(("vector", "detail"), BAD_VECTORS, ids=[str(e[0]) for e in BAD_VECTORS])
def test_a_bad_query_vector_is_refused(cast: Cast, vector: Any, detail: str) -> None:
    store(cast, item("a", [1, 0, 0]))
    answer = cast.rita.post(LETTERS, {} if vector is ... else {"vector": vector})
    assert (answer.status, answer["status"], answer["detail"]) == (400, 400, detail)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[1, 2, 3]",
        b'{"vector": [1, 2, NaN]}',
        b'{"vector": [1, 2, Infinity]}',
        b'{"vector": [1, 2, 1e400]}',
        b'{"vector": [1, 2, 3], "vector": [3, 2, 1]}',
        b'{"vector": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    ],
    ids=lambda body: ascii(body)[:40],
)
def test_a_search_body_that_is_no_such_object_is_refused(cast: Cast, body: bytes) -> None:
    answer = cast.rita.post(LETTERS, raw=body, headers={"Content-Length": str(len(body))})
    assert answer.status in {400, 411} if not body else answer.status == 400
    assert answer["status"] == answer.status


VECTOR = b'{"vector": [1, 2, 3]}'
DAMAGED: dict[str, tuple[bytes, dict[str, str], int]] = {
    "no gzip": (b"junk", {"Content-Encoding": "gzip"}, 400),
    "half a gzip": (gzip.compress(VECTOR)[:-6], {"Content-Encoding": "gzip"}, 400),
    "unpacks to too much": (
        gzip.compress(b" " * 100_000 + VECTOR),
        {"Content-Encoding": "gzip"},
        413,
    ),
    "too much": (b" " * 5_000 + VECTOR, {}, 413),
    "no JSON": (b"{", {}, 400),
    "another encoding": (VECTOR, {"Content-Encoding": "br"}, 415),
}


@pytest.mark.parametrize(("body", "headers", "status"), list(DAMAGED.values()), ids=list(DAMAGED))
def test_a_damaged_body_is_refused_alike_by_the_first_search_and_the_next(
    cast: Cast, settings: Settings, body: bytes, headers: dict[str, str], status: int
) -> None:
    settings.MAX_BODY_BYTES = 4_000
    first = cast.rita.post(LETTERS, raw=body, headers=headers)
    assert first.status == status
    # Now it is remembered that Rita may search; what she sends can be read once only.
    for _ in range(3):
        assert cast.rita.post(LETTERS, raw=VECTOR).status == 200
    assert cast.rita.post(LETTERS, raw=body, headers=headers).body == first.body

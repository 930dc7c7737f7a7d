"""What is no filter is refused with its place, on every address that takes one."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from common.errors import Invalid
from embeddings import filters
from tests.answers import assert_refused, nothing_changes
from tests.factories import Answer, Cast

EMBEDDINGS, SIMILARS = "/v1/embeddings/alice/letters", "/v1/similars/alice/letters"
DEEP: Any = {"a": 1}
for _ in range(16):
    DEEP = {"not": DEEP}

REFUSED: list[tuple[Any, str | None]] = [
    (5, ""),
    ([], ""),
    ("author", ""),
    ({}, ""),
    ({"a": {}}, ".a"),
    ({"a": [1, 2]}, ".a"),
    ({"a": {"b": 1}}, ".a.b"),
    ({"a": {"$like": "x"}}, ".a.$like"),
    ({"a": {"EQ": 1}}, ".a.EQ"),
    ({"a": {"$$eq": 1}}, ".a.$$eq"),
    ({"$where": "1 = 1"}, ".$where"),
    ({"$eq": 1}, ".$eq"),
    ({"and": []}, ".and"),
    ({"or": {"a": 1}}, ".or"),
    ({"or": "x"}, ".or"),
    ({"$or": [{"a": 1}, {}]}, ".$or[1]"),
    ({"or": [{"a": 1}, {"b": {"gt": None}}]}, ".or[1].b.gt"),
    ({"not": [{"a": 1}]}, ".not"),
    ({"not": {}}, ".not"),
    ({"a": {"not": 5}}, ".a.not"),
    ({"a": {"not": {}}}, ".a.not"),
    ({"a": {"eq": {"b": 1}}}, ".a.eq"),
    ({"a": {"ne": [1]}}, ".a.ne"),
    ({"a": {"gt": True}}, ".a.gt"),
    ({"a": {"lte": [1]}}, ".a.lte"),
    ({"a": {"in": "x"}}, ".a.in"),
    ({"a": {"in": [1, [2]]}}, ".a.in[1]"),
    ({"a": {"nin": {"b": 1}}}, ".a.nin"),
    ({"a": {"contains": None}}, ".a.contains"),
    ({"a": {"contains": []}}, ".a.contains"),
    ({"a": {"contains": ""}}, ".a.contains"),
    ({"a": {"contains": ["x" * 1001]}}, ".a.contains"),
    ({"a": {"exists": 1}}, ".a.exists"),
    ({"a": {"exists": "true"}}, ".a.exists"),
    ({"a": {"prefix": 5}}, ".a.prefix"),
    ({"a": {"between": [1]}}, ".a.between"),
    ({"a": {"between": [1, 2, 3]}}, ".a.between"),
    ({"a": {"between": [1, "2"]}}, ".a.between"),
    ({"a": {"between": [None, 1]}}, ".a.between[0]"),
    ({"": 1}, "."),
    ({"a..b": 1}, ".a..b"),
    ({".a": 1}, "..a"),
    ({"a.": 1}, ".a."),
    ({"x.".join("a" * 40): 1}, None),
    ({"x" * 1001: 1}, None),
    ({"a": "x" * 10_001}, ".a"),
    ({str(number): 1 for number in range(101)}, ".100"),
    ({"and": [{"a": {"in": list(range(501))}}, {"b": {"nin": list(range(500))}}]}, None),
    (DEEP, None),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_is_wrong_is_named(case: int) -> None:
    given, place = REFUSED[case]
    with pytest.raises(Invalid) as raised:
        filters.parse(given, "filter")
    [error] = raised.value.errors
    assert error.message.endswith((".", "…"))
    if place is not None:
        assert error.location == f"filter{place}"


def test_what_is_within_the_bounds_is_read() -> None:
    for given in (
        {str(number): 1 for number in range(100)},
        {"a": {"in": list(range(1000))}},
        DEEP["not"],
        {".".join(map(str, range(32))): "x" * 10_000},
        {"a": {"contains": "x" * 1000}},
    ):
        filters.parse(given, "filter")


@pytest.mark.django_db
def test_every_address_refuses_them(cast: Cast) -> None:
    asked = cast.alice
    for given in ({"a": {"like": 1}}, {"$where": 1}, {}, {"a": {"gt": None}}):
        text = quote(json.dumps(given))
        body = {"filter": given, "metadata": {}}
        with nothing_changes():
            answers: list[tuple[str, Answer]] = [
                ("query", asked.get(f"{EMBEDDINGS}?filter={text}")),
                ("query", asked.get(f"{EMBEDDINGS}/count?filter={text}")),
                ("query", asked.get(f"{EMBEDDINGS}/facets?path=a&filter={text}")),
                ("query", asked.get(f"{SIMILARS}/x?filter={text}")),
                ("query", asked.post(f"{SIMILARS}/recall?filter={text}")),
                ("query", asked.post(f"{SIMILARS}?filter={text}", {"vector": [1, 2, 3]})),
                ("body", asked.post(SIMILARS, {"vector": [1, 2, 3], "filter": given})),
                ("body", asked.post(f"{EMBEDDINGS}/delete", body)),
                ("body", asked.post(f"{EMBEDDINGS}/update", body)),
            ]
        for where, answer in answers:
            assert_refused(answer, 400)
            assert answer["errors"][0]["location"].startswith(f"{where}.filter")


@pytest.mark.django_db
def test_what_is_no_json_or_comes_twice_is_refused(cast: Cast) -> None:
    for path in (f"{EMBEDDINGS}?", f"{EMBEDDINGS}/count?", f"{EMBEDDINGS}/facets?path=a&"):
        for query in ("filter=", "filter=author", "filter={'a':1}", 'filter={"a":1,"a":2}'):
            assert_refused(cast.alice.get(path + query), 400)
        assert_refused(cast.alice.get(path + 'filter={"a":1}&filter={"a":1}'), 400)
        assert_refused(cast.alice.get(path + f'filter={{"a":"{"x" * 20_000}"}}'), 400)
        assert_refused(cast.alice.get(path + 'filter={"a":1}&where=b'), 400)
    bodies: list[Any] = [[], {}, {"filter": None}, {"filter": []}, {"filter": "x"}]
    bodies += [{"filter": {"a": 1}, "metadata": {}, "dry_run": "yes"}]
    for name in ("delete", "update"):
        for body in bodies:
            with nothing_changes():
                assert_refused(cast.alice.post(f"{EMBEDDINGS}/{name}", body), 400)
    patches: list[Any] = [{}, {"metadata": None}, {"metadata": [1]}]
    for patch in patches:
        body = {"filter": {"a": 1}, **patch}
        assert_refused(cast.alice.post(f"{EMBEDDINGS}/update", body), 400)
    for path in ("", ".", "a..b", "x" * 1001, "%00"):
        assert_refused(cast.alice.get(f"{EMBEDDINGS}/facets?path={path}"), 400)

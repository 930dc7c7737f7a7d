"""The envelope and the bounds of every list: contract v1, section 4."""

from typing import Any

import pytest

from tests.answers import assert_refused, nothing_changes
from tests.factories import Cast, item, make_instance, make_project, make_user

SERVICE = {
    "endpoint": "https://api.example.org/v1",
    "api_standard": "openai",
    "model": "m",
    "dimensions": 3,
}
LISTS = {
    "users": "/v1/users",
    "standards": "/v1/api-standards",
    "definitions": "/v1/llm-service-definitions/alice",
    "instances": "/v1/llm-services/alice",
    "projects": "/v1/projects/alice",
    "embeddings": "/v1/embeddings/alice/letters",
}
HANDLES = {
    "standards": ("api_standard_handle",),
    "definitions": ("owner", "definition_handle"),
    "instances": ("owner", "instance_handle"),
    "projects": ("owner", "project_handle"),
    "embeddings": ("text_id",),
}


def names(key: str, entries: Any) -> list[Any]:
    """Return what a list is sorted by."""
    if key == "users":
        return list(entries)
    return [tuple(each[field] for field in HANDLES[key]) for each in entries]


@pytest.fixture
def many(cast: Cast) -> Cast:
    """Give every list 12 entries or more, made in another order than they are listed in."""
    for number in (7, 3, 11, 1, 5, 9, 2, 10, 4, 8, 6, 0):
        name = f"many-{number:02}"
        make_user(name)
        make_instance("alice", name)
        make_project("alice", name)
        body = {"key_method": "none"}
        assert cast.ada.put(f"/v1/api-standards/{name}", body).status == 201
        path = f"/v1/llm-service-definitions/alice/{name}"
        assert cast.alice.put(path, SERVICE).status == 201
        upload = {"embeddings": [item(name, [1, 2, number + 1])]}
        assert cast.alice.post(LISTS["embeddings"], upload).status == 201
    return cast


def test_every_list_pages_in_a_stable_order(many: Cast) -> None:
    for key, path in LISTS.items():
        whole = many.ada.get(f"{path}?limit=200").body
        total = whole["total_count"]
        entries = whole[key]
        assert set(whole) == {key, "total_count", "limit", "offset", "has_more"}
        assert (whole["limit"], whole["offset"], whole["has_more"]) == (200, 0, False)
        assert len(entries) == total >= 12
        assert names(key, entries) == sorted(names(key, entries))
        first = many.ada.get(path).body
        # Of this one list; tests/embeddings/test_cursor.py follows it.
        assert (first.pop("next_cursor", None) is not None) == (key == "embeddings")
        assert first == {**whole, key: entries[:10], "limit": 10, "has_more": True}
        paged: list[Any] = []
        for offset in range(0, total, 5):
            page = many.ada.get(f"{path}?limit=5&offset={offset}").body
            more = offset + 5 < total
            assert (page["limit"], page["offset"], page["has_more"]) == (5, offset, more)
            assert page["total_count"] == total
            paged += page[key]
        assert paged == entries


def test_past_the_end_a_list_is_empty(many: Cast) -> None:
    for key, path in LISTS.items():
        total = many.ada.get(path)["total_count"]
        for offset in (total, total + 1, 10**6, 2**31, 2**63 - 1):
            answer = many.ada.get(f"{path}?offset={offset}")
            assert answer.status == 200
            assert answer.body == {
                key: [],
                "total_count": total,
                "limit": 10,
                "offset": offset,
                "has_more": False,
            }


WRONG = [
    *("limit=0", "limit=-1", "limit=201", "limit=99999999999999999999", "limit=abc", "limit="),
    *("limit=1.5", "limit=1e1", "limit=0x10", "limit=1_0", "limit=%D9%A3", "limit=%EF%BC%91"),
    *("limit=%205", "limit=5%20", "limit=%2B5", "limit=+5", "limit=nan", "limit=inf", "limit=null"),
    *("limit=true", "limit=5%00", "limit=5%0A", "limit=[5]", "limit=5,5", "limit=%FF"),
    *("limit=5&limit=5", "limit=5&limit=abc"),
    *("offset=-1", "offset=9223372036854775808", f"offset={'9' * 500}", "offset=abc", "offset="),
    *("offset=%D9%A3", "offset=1.0", "offset=0&offset=0"),
]


def test_a_wrong_limit_or_offset_is_refused_on_every_list(cast: Cast) -> None:
    with nothing_changes():
        for path in LISTS.values():
            for query in WRONG:
                answer = cast.ada.get(f"{path}?{query}")
                location = "query" if "%FF" in query else f"query.{query.partition('=')[0]}"
                assert_refused(answer, 400, location=location)


def test_the_bounds_themselves_are_fine(cast: Cast) -> None:
    for path in LISTS.values():
        for query in ("limit=1", "limit=200", "offset=0", "limit=1&offset=1", "offset=007"):
            assert cast.ada.get(f"{path}?{query}").status == 200


def test_an_unknown_parameter_is_refused_and_named(cast: Cast) -> None:
    with nothing_changes():
        for path in LISTS.values():
            for name in ("count", "page", "verbose", "Limit", "limit ", "owner__handle", "a"):
                answer = cast.ada.get(path + "?" + name.replace(" ", "%20") + "=1")
                assert_refused(answer, 400, location=f"query.{name}", says="'limit', 'offset'")

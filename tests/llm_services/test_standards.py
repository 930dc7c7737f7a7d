"""API standards: contract v1, section 8."""

from typing import Any

import pytest

from tests.answers import TIMES, assert_refused, nothing_changes, page, queries_of, rolled_back
from tests.factories import Cast, make_instance

STANDARDS = "/v1/api-standards"
MISTRAL = {
    "api_standard_handle": "mistral",
    "description": "Mistral embeddings API",
    "key_method": "custom_header",
    "key_field": "X-Key",
}
SEEDED: list[dict[str, Any]] = [
    {
        "api_standard_handle": "builtin",
        "description": "A model that runs inside this server; needs no network and no key",
        "key_method": "none",
        "key_field": "",
        **TIMES,
    },
    {
        "api_standard_handle": "cohere",
        "description": "Cohere embed API, version 2",
        "key_method": "auth_bearer",
        "key_field": "Authorization",
        **TIMES,
    },
    {
        "api_standard_handle": "gemini",
        "description": "Google Gemini API",
        "key_method": "query_param",
        "key_field": "key",
        **TIMES,
    },
    {
        "api_standard_handle": "ollama",
        "description": "Ollama's own embed API",
        "key_method": "auth_bearer",
        "key_field": "Authorization",
        **TIMES,
    },
    {
        "api_standard_handle": "openai",
        "description": "OpenAI embeddings API and those compatible with it",
        "key_method": "auth_bearer",
        "key_field": "Authorization",
        **TIMES,
    },
    {
        "api_standard_handle": "voyage",
        "description": "Voyage AI embeddings API",
        "key_method": "auth_bearer",
        "key_field": "Authorization",
        **TIMES,
    },
]


def test_everybody_reads_the_seeded_standards(cast: Cast) -> None:
    for role in ("anonymous", "stranger", "reader", "editor", "owner", "admin"):
        caller = cast.with_role(role)
        assert caller.get(STANDARDS).body == page("standards", SEEDED, total=6)
        assert caller.get(f"{STANDARDS}/gemini").body == SEEDED[2]
        assert_refused(caller.get(f"{STANDARDS}/absent"), 404)
        assert_refused(caller.get(f"{STANDARDS}/OpenAI"), 404)


WRITES: list[tuple[str, str, Any, int]] = [
    ("POST", STANDARDS, MISTRAL, 201),
    ("PUT", f"{STANDARDS}/mistral", MISTRAL, 201),
    ("PUT", f"{STANDARDS}/gemini", {"key_method": "none"}, 200),
    ("PATCH", f"{STANDARDS}/gemini", {"description": "x"}, 200),
    ("DELETE", f"{STANDARDS}/gemini", None, 409),
]


def test_only_administrators_write_standards(cast: Cast) -> None:
    for method, path, body, success in WRITES:
        with nothing_changes():
            for role in ("anonymous", "stranger", "reader", "editor", "owner"):
                status = 401 if role == "anonymous" else 403
                assert_refused(cast.with_role(role).ask(method, path, body), status)
        with rolled_back():
            assert cast.ada.ask(method, path, body).status == success


def test_a_standard_lives_from_post_to_delete(cast: Cast) -> None:
    path = f"{STANDARDS}/mistral"
    shown = {**MISTRAL, **TIMES}
    created = cast.ada.post(STANDARDS, MISTRAL)
    assert (created.status, created.body) == (201, shown)
    assert cast.nobody.get(path).body == shown
    patched = cast.ada.patch(path, {"description": "Mistral"})
    assert (patched.status, patched.body) == (200, {**shown, "description": "Mistral"})
    assert cast.ada.patch(path, {"description": None})["description"] == ""
    replaced = cast.ada.put(path, {"key_method": "auth_bearer"})
    assert replaced.status == 200
    assert replaced.body == {
        "api_standard_handle": "mistral",
        "description": "",
        "key_method": "auth_bearer",
        "key_field": "",
        **TIMES,
    }
    deleted = cast.ada.delete(path)
    assert deleted.status == 200
    assert deleted.body == {"message": "API standard 'mistral' deleted."}
    assert_refused(cast.ada.delete(path), 404)
    assert_refused(cast.ada.patch(path, {}), 404)
    assert cast.ada.put(path, MISTRAL).status == 201


def test_every_key_method_of_either_documentation_is_known(cast: Cast) -> None:
    documented = "auth_bearer auth_apikey query_param body_form custom_header none"
    for method in documented.split():
        body = {"key_method": method, "key_field": "f" * 20}
        assert cast.ada.put(f"{STANDARDS}/{method}", body)["key_method"] == method


def test_key_field_may_be_empty_only_where_none_is_needed(cast: Cast) -> None:
    for number, method in enumerate(("none", "auth_bearer")):
        for letter, empty in (("a", ""), ("b", None)):
            body: dict[str, Any] = {"key_method": method, "key_field": empty}
            answer = cast.ada.put(f"{STANDARDS}/open-{number}{letter}", body)
            assert (answer.status, answer["key_field"]) == (201, "")
    with nothing_changes():
        for method in ("auth_apikey", "query_param", "body_form", "custom_header"):
            for body in (
                {"key_method": method},
                {"key_method": method, "key_field": ""},
                {"key_method": method, "key_field": None},
            ):
                answer = cast.ada.put(f"{STANDARDS}/closed", body)
                assert_refused(answer, 400, location="body.key_field")
        erased = cast.ada.patch(f"{STANDARDS}/gemini", {"key_field": None})
        assert_refused(erased, 400, location="body.key_field")
        moved = cast.ada.patch(f"{STANDARDS}/open-0a", {"key_method": "custom_header"})
        assert_refused(moved, 400, location="body.key_field")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "api_standard_handle"),
    ({"api_standard_handle": "ab"}, "api_standard_handle"),
    ({"api_standard_handle": "a" * 21}, "api_standard_handle"),
    ({"api_standard_handle": "a b c"}, "api_standard_handle"),
    ({"api_standard_handle": "abc\n"}, "api_standard_handle"),
    ({"api_standard_handle": 123}, "api_standard_handle"),
    ({"api_standard_handle": None}, "api_standard_handle"),
    ({"key_method": None}, "key_method"),
    ({"key_method": ""}, "key_method"),
    ({"key_method": "bearer"}, "key_method"),
    ({"key_method": "AUTH_BEARER"}, "key_method"),
    ({"key_method": 1}, "key_method"),
    ({"key_method": ["none"]}, "key_method"),
    ({"key_method": {"none": 1}}, "key_method"),
    ({"key_field": "f" * 21}, "key_field"),
    ({"key_field": 7}, "key_field"),
    ({"description": 7}, "description"),
    ({"description": "d" * 10_001}, "description"),
]


def test_a_wrong_standard_is_refused_by_name_of_the_field(cast: Cast) -> None:
    with nothing_changes():
        assert_refused(cast.ada.post(STANDARDS, {}), 400, location="body.key_method")
        for wrong, field in WRONG:
            body = {**MISTRAL, **wrong} if wrong else {"key_method": "none"}
            answer = cast.ada.post(STANDARDS, body)
            assert_refused(answer, 400, location=f"body.{field}")
            if field != "api_standard_handle":
                for method in ("PUT", "PATCH"):
                    answer = cast.ada.ask(method, f"{STANDARDS}/openai", body)
                    assert_refused(answer, 400)
    assert cast.ada.post(STANDARDS, MISTRAL).status == 201


@pytest.mark.parametrize("handle", ["openai", "OpenAI"])
def test_a_taken_standard_is_409(cast: Cast, handle: str) -> None:
    with nothing_changes():
        body = {**MISTRAL, "api_standard_handle": handle}
        assert_refused(cast.ada.post(STANDARDS, body), 409)
        if handle != "openai":
            assert_refused(cast.ada.put(f"{STANDARDS}/{handle}", body), 409)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_standard_cannot_be_renamed(cast: Cast, method: str) -> None:
    with nothing_changes():
        answer = cast.ada.ask(method, f"{STANDARDS}/openai", MISTRAL)
        assert_refused(answer, 400, location="body.api_standard_handle")
        wrong = cast.ada.put(f"{STANDARDS}/a%20b", {"key_method": "none"})
        assert_refused(wrong, 400, location="body.api_standard_handle")


def test_a_standard_in_use_cannot_be_deleted(cast: Cast) -> None:
    assert cast.ada.post(STANDARDS, MISTRAL).status == 201
    path = f"{STANDARDS}/mistral"
    make_instance("alice", "mine", api_standard="mistral")
    with nothing_changes():
        answer = cast.ada.delete(path)
        assert_refused(answer, 409, says="in use by 0 definitions and 1 instances")
        seeded = cast.ada.delete(f"{STANDARDS}/cohere")
        assert_refused(seeded, 409, says="in use by 1 definitions and 0 instances")
    assert cast.alice.delete("/v1/llm-services/alice/mine").status == 200
    assert cast.ada.delete(path).status == 200


def test_the_list_takes_as_many_queries_for_20_as_for_2(cast: Cast) -> None:
    few = queries_of(lambda: cast.nobody.get(f"{STANDARDS}?limit=200"))
    for number in range(20):
        body = {**MISTRAL, "api_standard_handle": f"standard{number}"}
        assert cast.ada.post(STANDARDS, body).status == 201
    assert queries_of(lambda: cast.nobody.get(f"{STANDARDS}?limit=200")) == few

"""The metadata schema in the browser: reading, drafting, trying, saving."""

import json
from typing import Any

import pytest
from django.test import Client

from projects.metadata import infer_schema, validator_for
from projects.models import Project
from tests.console.browser import PROJECT, browser, page, queries
from tests.factories import Cast, item, stored

ADDRESS = f"{PROJECT}/schema"
AUTHORS = '{"properties": {"author": {"enum": ["Ann"]}}}'


@pytest.fixture
def alice(texts: Cast) -> Client:
    """A browser of Alice's."""
    return browser("alice")


def schema() -> str:
    """Return the project's schema."""
    return Project.objects.get(owner__handle="alice", handle="letters").metadata_schema


def test_readers_see_it_and_the_owner_changes_it(texts: Cast, alice: Client) -> None:
    sent = {"schema": '{"type": "object"}', "save": "1"}
    assert alice.post(ADDRESS, sent).status_code == 302
    assert schema() == '{"type": "object"}'
    for handle in ("rita", "erin"):
        client = browser(handle)
        text = page(client.get(ADDRESS))
        assert "&quot;type&quot;: &quot;object&quot;" in text
        assert "<textarea" not in text
        page(client.post(ADDRESS, sent), 403)


def test_saving_asks_where_stored_texts_would_break_it(alice: Client) -> None:
    text = page(alice.post(ADDRESS, {"schema": AUTHORS, "save": "1"}))
    assert "<b>1</b> of 4 stored texts does not match it" in text
    assert "must be one of the following" in text
    assert "Save it all the same" in text
    assert schema() == ""
    assert alice.post(ADDRESS, {"schema": AUTHORS, "anyway": "1"}).status_code == 302
    assert schema() == AUTHORS
    assert alice.post(ADDRESS, {"schema": "", "save": "1"}).status_code == 302
    assert schema() == ""


def test_trying_changes_nothing(alice: Client) -> None:
    text = page(alice.post(ADDRESS, {"schema": '{"required": ["none"]}', "try": "1"}))
    assert "<b>4</b> of 4" in text
    assert "Save it all the same" not in text
    assert schema() == ""
    assert "All 4 stored texts match it" in page(alice.post(ADDRESS, {"schema": "{}"}))


def test_those_that_break_it_come_page_by_page(cast: Cast) -> None:
    rows = [item(f"t{number:02}", [1, 0, number]) for number in range(30)]
    cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": rows})
    client, sent = browser("alice"), {"schema": '{"required": ["none"]}'}
    first = page(client.post(ADDRESS, sent))
    assert 'name="after" value="t24"' in first
    second = page(client.post(ADDRESS, {**sent, "after": "t24"}))
    assert "/texts/t29" in second
    assert "/texts/t24" not in second
    assert 'name="after"' not in second


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ('{\n  "type": "object",\n}', "Line 3, column 1: "),
        ('{\n  "properties": {\n    "a": {"type": 5}}}', "Line 3: "),
        ("[]", "must be a JSON object"),
        ('{"$ref": "https://example.org/x"}', "outside itself"),
        ('{"a": "\x00"}', "Null characters"),
    ],
)
def test_what_is_wrong_is_said_in_words_at_the_line(
    wrong: str, problem: str, alice: Client
) -> None:
    text = page(alice.post(ADDRESS, {"schema": wrong, "save": "1"}), 400)
    assert problem in text
    assert schema() == ""


def test_a_draft_comes_from_what_is_stored(alice: Client) -> None:
    text = page(alice.get(f"{ADDRESS}?draft=1"))
    assert "made from the 4 texts" in text
    assert "&quot;author&quot;" in text
    assert schema() == ""
    page(alice.get(f"{ADDRESS}?other=1"), 400)


def test_what_is_inferred_matches_what_it_came_from() -> None:
    documents: list[dict[str, Any]] = [
        {
            "language": ["en", "fr"][number % 2],
            "title": f"T{number}",
            "year": number if number % 3 else number + 0.5,
            "tags": ["a", 1] if number % 2 else [],
            "by": {"name": "Ann", "born": None},
            **({"note": None} if number == 7 else {}),
        }
        for number in range(20)
    ]
    found = infer_schema(documents)
    assert found == infer_schema(reversed(documents))
    properties = found["properties"]
    assert properties["language"] == {"type": "string", "enum": ["en", "fr"]}
    assert properties["title"] == {"type": "string"}
    assert properties["year"] == {"type": "number"}
    assert properties["tags"]["items"] == {"type": ["integer", "string"]}
    assert properties["by"]["required"] == ["born", "name"]
    assert found["required"] == ["by", "language", "tags", "title", "year"]
    validator = validator_for(json.dumps(found))
    assert not any(validator.violations(each) for each in documents)
    assert not validator_for(json.dumps(infer_schema([]))).violations({"any": "thing"})


def test_a_form_without_its_token_is_refused(texts: Cast) -> None:
    client = Client(enforce_csrf_checks=True, headers={"Accept": "text/html"})
    client.force_login(stored("alice"), backend="django.contrib.auth.backends.ModelBackend")
    page(client.post(ADDRESS, {"schema": "{}", "save": "1"}), 403)


def test_pages_take_few_queries(alice: Client) -> None:
    assert queries(alice, ADDRESS) <= 15
    assert queries(alice, f"{ADDRESS}?draft=1") <= 15


def test_a_new_project_may_have_one(alice: Client) -> None:
    given = {"handle": "papers", "instance": "alice/model", "schema": '{"type": "object"}'}
    wrong = page(alice.post("/new-project", {**given, "schema": "[]"}), 400)
    assert "must be a JSON object" in wrong
    assert alice.post("/new-project", given).headers["Location"] == "/p/alice/papers/upload"
    assert Project.objects.get(handle="papers").metadata_schema == '{"type": "object"}'

"""The largest of everything is served, documented and enforced; connections have limits of time."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError, connection

from accounts import keys
from common import query
from config import limits
from config.settings import BASE_DIR
from embeddings import batches, columns
from tests.answers import assert_refused
from tests.factories import Caller, Cast, item

PAGE: Path = BASE_DIR / "docs/limits.md"


def served(caller: Caller) -> dict[str, int]:
    """Return the limits by their names."""
    answer = caller.get("/v1/limits")
    assert answer.status == 200
    return {each["name"]: each["value"] for each in answer["limits"]}


def test_the_limits_are_served_without_a_key(cast: Cast) -> None:
    named = served(cast.nobody)
    assert named == served(cast.alice)
    assert len(named) == len(list(limits.limits()))
    assert named["batch_items"] == batches.MAXIMUM_ITEMS
    assert named["page_entries"] == query.MAXIMUM_LIMIT
    assert named["body_bytes"] == settings.MAX_BODY_BYTES


def test_the_page_has_the_same_limits() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert limits.as_markdown() in page, f"docs/limits.md should hold:\n{limits.as_markdown()}"


def test_the_pattern_of_keys_is_documented_for_scanners() -> None:
    page = (BASE_DIR / "SECURITY.md").read_text(encoding="utf-8")
    assert f"`{keys.PATTERN}`" in page
    key, _ = keys.generate_key()
    assert re.fullmatch(keys.PATTERN, key)


def test_what_is_as_large_is_taken_and_one_more_is_refused(cast: Cast) -> None:
    named = served(cast.nobody)
    letters = "/v1/embeddings/alice/letters"
    longest = "x" * named["text_id_length"]
    assert cast.alice.post(letters, {"embeddings": [item(longest, [1, 0, 0])]}).status == 201
    assert_refused(cast.alice.post(letters, {"embeddings": [item(f"{longest}x", [1, 0, 0])]}), 400)
    assert len(longest) == columns.MAXIMUM_TEXT_ID_LENGTH
    assert cast.alice.get(f"{letters}?limit={named['page_entries']}").status == 200
    assert_refused(cast.alice.get(f"{letters}?limit={named['page_entries'] + 1}"), 400)
    assert cast.alice.get(f"/agents?limit={named['own_page_entries']}").status == 200
    assert cast.alice.get(f"/agents?limit={named['own_page_entries'] + 1}").status == 422
    deep: Any = 1
    for _ in range(named["json_depth"]):
        deep = [deep]
    assert_refused(
        cast.alice.put(f"{letters}/deep", {**item("deep", [1, 0, 0]), "metadata": {"a": deep}}), 400
    )
    conditions = [{"path": "a", "op": "eq", "value": 1}] * (named["filter_conditions"] + 1)
    assert_refused(cast.alice.post(f"{letters}/delete", {"filter": {"and": conditions}}), 400)


@pytest.mark.parametrize("name", settings.DATABASE_TIMEOUTS_MS)
def test_every_connection_has_limits_of_time(db: None, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT setting::int, unit FROM pg_settings WHERE name = %s", [name])
        assert cursor.fetchone() == (settings.DATABASE_TIMEOUTS_MS[name], "ms")
    assert 0 < settings.DATABASE_TIMEOUTS_MS[name] <= 60_000


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_a_statement_that_takes_too_long_is_ended() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 100")
        began = time.monotonic()
        with pytest.raises(OperationalError, match="statement timeout"):
            cursor.execute("SELECT pg_sleep(20)")
        assert time.monotonic() - began < 5
        cursor.execute("RESET statement_timeout")
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("30s",)

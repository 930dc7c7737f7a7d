"""Secrets that were stored or sent are looked for in everything that anybody can see or keep."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import override_settings
from pytest_django import Settings

from config.logs import logging_settings
from config.settings import LOG_AS_JSON, LOG_LEVEL
from tests.admin_site import sign_in
from tests.console.browser import browser
from tests.contract.world import ADMIN_KEY, CANARIES, World, make_world
from tests.factories import Caller, item
from tests.security.walk import (
    Things,
    admin_addresses,
    api_addresses,
    console_addresses,
    text_of,
)

PROVIDER_KEY = CANARIES["provider key"]
# In a vector of its own; exact in float32.
NUMBER = "1234.0625"
WORD = "canary-of-the-log"


@pytest.fixture
def world(db: None, settings: Settings, tmp_path: Path) -> Iterator[World]:
    """The world of the contract tests; files go to a folder of the test."""
    kept = settings.STORAGES["default"]
    there = {**kept, "OPTIONS": {**kept["OPTIONS"], "location": tmp_path / "files"}}
    settings.STORAGES = {**settings.STORAGES, "default": there}
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    with override_settings(ADMIN_KEY=ADMIN_KEY):
        yield make_world()


@pytest.fixture
def things(world: World) -> Things:
    """One thing of each kind of the Projects API, in Alice's project."""
    alice = world["owner"].caller
    bodies = {"agents": {"name": WORD}, "users": {"name": WORD}}
    bodies["files"] = {"name": WORD, "content": "SGVsbG8h"}
    ids = {}
    for kind, body in bodies.items():
        made = alice.post(f"/{kind}", {**body, "project": "letters"})
        ids[kind] = made["id"]
    ids["projects"] = alice.get("/projects").body["items"][0]["id"]
    return Things(ids)


def tables() -> Iterator[tuple[str, str]]:
    """Return each table of the database with all of its rows, as text."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT quote_ident(relname) FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        for (table,) in cursor.fetchall():
            cursor.execute(f"SELECT coalesce(string_agg(t::text, E'\\n'), '') FROM {table} t")
            yield table, cursor.fetchone()[0]


def test_a_provider_key_is_on_no_page_and_in_no_answer(world: World, things: Things) -> None:
    statuses = set()
    for actor, who in world.actors.items():
        for address in api_addresses(things):
            answer = who.ask("GET", address)
            statuses.add(answer.status)
            seen = answer.content.decode() + repr(dict(answer.headers))
            assert PROVIDER_KEY not in seen, (actor, address)
            assert answer.status < 500, (actor, address, seen[:500])
    assert {200, 401, 403, 404} <= statuses


def test_a_provider_key_is_nowhere_in_the_console_or_the_admin(
    world: World, things: Things
) -> None:
    shown = 0
    for handle in ("alice", "erin", "rita", "ada", None):
        visitor = browser(handle)
        for address in console_addresses(things):
            response: Any = visitor.get(address)
            shown += response.status_code == 200
            assert PROVIDER_KEY not in text_of(response), (handle, address)
            assert response.status_code < 500, (handle, address)
    administrator = sign_in("ada")
    for address in admin_addresses():
        response = administrator.get(address)
        shown += response.status_code == 200
        assert PROVIDER_KEY not in text_of(response), address
        assert response.status_code < 400 or "_add" not in address, address
    assert shown > 60


def test_the_database_holds_no_secret_in_the_clear(world: World, tmp_path: Path) -> None:
    alice = world["owner"].caller
    assert alice.key is not None
    hidden = {
        "provider key": PROVIDER_KEY,
        "user key": alice.key,
        "secret of a user key": alice.key[16:],
        "admin key": ADMIN_KEY,
    }
    searched = 0
    for table, rows in tables():
        searched += len(rows)
        for what, secret in hidden.items():
            assert secret not in rows, (table, what)
            assert secret.encode().hex() not in rows, (table, what)
    # The same search finds what is there in the clear.
    assert searched > 10_000
    assert any(CANARIES["text"] in rows for _, rows in tables())
    file = tmp_path / "letters.jsonl"
    call_command("exportembeddings", "alice/letters", str(file), stdout=StringIO())
    exported = file.read_text()
    assert CANARIES["text"] in exported
    assert not [what for what, secret in hidden.items() if secret in exported]


def test_jobs_carry_ids_and_nothing_else(world: World) -> None:
    note = {"note": CANARIES["metadata"]}
    accepted = world["owner"].caller.post(
        "/v1/embeddings/alice/letters",
        {"embeddings": [{"text_id": "new", "text": CANARIES["text"], "metadata": note}]},
        headers={"Prefer": "respond-async"},
    )
    assert accepted.status == 202
    rows = dict(tables())
    carried = "".join(
        rows[table] for table in rows if table.startswith("procrastinate") and rows[table]
    )
    assert "embeddings." in carried
    for what in ("provider key", "text", "metadata", "endpoint", "email"):
        assert CANARIES[what] not in carried, what


@contextmanager
def logs() -> Iterator[list[StringIO]]:
    """Collect everything that is logged meanwhile, down to the least, in both forms."""
    root = logging.getLogger()
    level, written, handlers = root.level, [], []
    try:
        for as_json in (True, False):
            described = logging_settings(level="DEBUG", as_json=as_json)
            [formatter] = described["formatters"].values()
            made = formatter.pop("()")(**formatter)
            handler = logging.StreamHandler(StringIO())
            handler.setFormatter(made)
            root.addHandler(handler)
            handlers.append(handler)
            written.append(handler.stream)
        root.setLevel(logging.DEBUG)
        yield written
    finally:
        for handler in handlers:
            root.removeHandler(handler)
        root.setLevel(level)
        logging_settings(level=LOG_LEVEL, as_json=LOG_AS_JSON)


def test_logs_and_refusals_repeat_no_secret(world: World, things: Things) -> None:
    alice = world["owner"].caller
    assert alice.key is not None
    new_key, sent_key = "sk-canary-sent-now", "arm_" + "c" * 62
    letters, services = "/v1/embeddings/alice/letters", "/v1/llm-services/alice"
    rows = [item("log", [float(NUMBER), 1, 0], text=WORD, metadata={"note": WORD})]
    broken = [item("log2", [float(NUMBER), 1], text=WORD, metadata={"note": WORD})]
    with logs() as written:
        answers = [
            alice.post(letters, {"embeddings": rows}),
            alice.post(letters, {"embeddings": rows}),
            alice.post(letters, {"embeddings": broken}),
            alice.post(letters, raw=b'{"embeddings": [' + WORD.encode()),
            alice.put(f"{letters}/log", rows[0] | {"vector": WORD}),
            alice.patch(f"{services}/spare", {"api_key": new_key}),
            alice.patch(f"{services}/spare", {"api_key": new_key, "dimensions": -1}),
            alice.patch(f"{services}/spare", {"api_key": new_key, "api_standard": "none-such"}),
            alice.patch(f"{services}/spare", {"api_key": [new_key]}),
            alice.patch(f"{services}/spare", {"endpoint": f"https://u:{new_key}@example.org/v1"}),
            alice.post(f"{services}/spare/test", {"text": WORD}),
            alice.post("/v1/similars/alice/letters", {"vector": [float(NUMBER), 1, 0]}),
            alice.post("/v1/similars/alice/letters?mode=text", {"text": WORD}),
            alice.get(f"/v1/similars/alice/letters?q={WORD}&mode=text&limit=5"),
            alice.get(f"/v1/users/alice?api_key={sent_key}"),
            Caller(sent_key).get("/v1/users/alice"),
            Caller().get("/projects", headers={"X-Auth-Key": sent_key}),
            Caller().get("/v1/users", headers={"Authorization": f"Basic {sent_key}"}),
        ]
        browser().post("/sign-in", {"key": sent_key})
        browser().post("/sign-in", {"handle": "alice", "password": sent_key})
        for address in [*api_addresses(things), *console_addresses(things)]:
            alice.get(address)
    assert {answer.status for answer in answers} >= {200, 201, 400, 401, 409}
    for stream in written:
        text = stream.getvalue()
        assert "/v1/similars/alice/letters?q=…&mode=…&limit=5" in text.replace("\\u2026", "…")
        for secret in (PROVIDER_KEY, new_key, sent_key, alice.key, ADMIN_KEY, NUMBER, WORD):
            assert secret not in text, secret
        assert CANARIES["text"] not in text
        assert CANARIES["metadata"] not in text
    for answer in answers:
        shown = answer.content.decode()
        assert not [each for each in (PROVIDER_KEY, new_key, sent_key, alice.key) if each in shown]

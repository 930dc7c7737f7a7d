"""Every route of the Projects API, every method, every kind of actor: developers never meet.

The routes come from the URL configuration; a new one without a row here fails, and so does a row
without a route. Bob has things of the same ids and names as Alice's, so that a look-up which
forgets the owner finds something.
"""

from base64 import b64encode
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.test import override_settings
from pytest_django import DjangoDbBlocker, Settings

from projects.models import Project
from resources.models import KINDS, File
from tests.contract import document
from tests.contract.world import (
    ACTORS,
    ADMIN_KEY,
    BAD_KEYS,
    World,
    make_world,
    methods_of,
    own_views,
    undone,
)
from tests.factories import Answer

PROJECT = "0198b5a4-2f6e-7cc1-9d53-6f0d4f9d2b01"
AGENT = "0198b5a4-2f6e-7cc1-9d53-6f0d4f9d2b02"
END_USER = "0198b5a4-2f6e-7cc1-9d53-6f0d4f9d2b03"
FILE = "0198b5a4-2f6e-7cc1-9d53-6f0d4f9d2b04"
NEW = "0198b5a4-2f6e-7cc1-9d53-6f0d4f9d2b05"
# What Alice's things say, and nobody but she may read; bytes in base64 are words, too.
CONTENT = b64encode(b"canary of the content").decode()
CANARIES = ("canary-name", "canary-about", "canary-metadata", "canary-key", CONTENT)

# The account's own keys, by what they carry.
FULL = {"owner"}
EDITING = {*FULL, "owner as editor", "letters only"}
READING = {*EDITING, "owner as reader"}
SAME_IDS = {"other owner"}


@dataclass(frozen=True)
class Row:
    """What one method of one route answers when it speaks of Alice's things.

    who: her keys that succeed.
    forbidden: the keys, hers or others', that carry too little to do this anywhere.
    others: the status for all other good keys; they see what is theirs, which is little.
    same: whether Bob, with things of the same ids, succeeds on his own.
    shows: whether the answer holds what Alice's things say.
    exceptions: the statuses of keys that fit none of this.
    """

    method: str
    route: str
    path: str
    status: int
    who: Collection[str]
    body: Any = None
    forbidden: Collection[str] = ()
    others: int = 404
    same: bool = False
    shows: bool = True
    exceptions: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.route}"

    def expected(self, actor: str) -> int:
        """Return the status that an actor gets."""
        if actor in BAD_KEYS or actor == "anonymous":
            return 401
        if actor == "admin key":
            # It belongs to no account, so nothing is its own; the list of models is nobody's.
            return 200 if self.route == "/agents/models" else 403
        if actor in self.exceptions:
            return self.exceptions[actor]
        if actor in self.forbidden:
            return 403
        if actor in self.who or (self.same and actor in SAME_IDS):
            return self.status
        return self.others


READERS = {"owner as reader", "admin as reader"}
# Keys that may change what a project groups, but not the project.
NO_OWNERS = {*READERS, "owner as editor"}
FOR_ONE = {"letters only", "other only"}


def _rows() -> Iterator[Row]:
    projects, project = "/projects", f"/projects/{PROJECT}"
    name, one = {"name": "New"}, "/projects/{id}"
    managing = {*FULL, "letters only"}
    weak = NO_OWNERS
    yield Row("GET", projects, projects, 200, READING, others=200)
    yield Row("POST", projects, projects, 201, FULL, name, weak | FOR_ONE, 201, shows=False)
    yield Row("GET", one, project, 200, READING, same=True)
    yield Row("POST", one, project, 200, managing, name, {*weak, "other only"}, 201, True, False)
    yield Row("PUT", one, project, 200, managing, name, _known(weak), same=True, shows=False)
    yield Row("PATCH", one, project, 200, managing, {}, _known(weak), same=True)
    path = f"{project}?on_resources=delete"
    yield Row("DELETE", one, path, 202, managing, None, _known(weak), same=True, shows=False)
    for kind, uuid in (("agents", AGENT), ("users", END_USER)):
        every, one, thing = f"/{kind}", f"/{kind}/{{id}}", f"/{kind}/{uuid}"
        yield Row("GET", every, every, 200, READING, others=200)
        yield Row("POST", every, every, 201, EDITING, name, READERS, 201, shows=False)
        yield Row("GET", one, thing, 200, READING, same=True)
        yield Row(
            "POST", one, thing, 200, EDITING, name, READERS, 201, True, False, {"other only": 409}
        )
        yield Row("PUT", one, thing, 200, EDITING, name, READERS, same=True, shows=False)
        yield Row("PATCH", one, thing, 200, EDITING, {}, READERS, same=True)
        yield Row("DELETE", one, thing, 202, EDITING, None, READERS, same=True, shows=False)
    models = "/agents/models"
    yield Row("GET", models, models, 200, READING, others=200, shows=False)
    files, file, one = "/files", f"/files/{FILE}", "/files/{id}"
    upload = {"name": "new", "content": "SGVsbG8h"}
    yield Row("GET", files, files, 200, READING, others=200)
    yield Row("POST", files, files, 201, EDITING, upload, READERS, 201, shows=False)
    yield Row("GET", one, file, 200, READING)
    yield Row("PATCH", one, file, 200, EDITING, {}, READERS)
    yield Row("DELETE", one, file, 202, EDITING, None, READERS, shows=False)


def _known(actors: Collection[str]) -> set[str]:
    """Return those who see the project, and are therefore told that they may not."""
    return set(actors) & READING


ROWS = list(_rows())


def test_every_method_of_every_route_has_one_row() -> None:
    rows = [(row.method, row.route) for row in ROWS]
    routes = {
        (method, template) for template, view in own_views().items() for method in methods_of(view)
    }
    assert len(rows) == len(set(rows))
    assert routes == set(rows)


@pytest.fixture(scope="module")
def _whole_world(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[World]:
    """Make the world once: the tests of this module undo what they do to it."""
    with django_db_blocker.unblock(), undone():
        with override_settings(ADMIN_KEY=ADMIN_KEY):
            made = make_world()
        _fill_alice(made)
        _fill_bob(made)
        yield made


def _fill_alice(world: World) -> None:
    Project.objects.filter(owner__handle="alice", handle="letters").update(uuid=PROJECT)
    alice = world["owner"].caller
    words = {"name": "canary-name", "metadata": {"canary-key": "canary-metadata"}}
    assert alice.patch(f"/projects/{PROJECT}", words).status == 200
    inside = {**words, "about": "canary-about", "project": "letters"}
    named = {**inside, "canonical_name": "support"}
    assert alice.post(f"/agents/{AGENT}", named).status == 201
    assert alice.post(f"/users/{END_USER}", inside).status == 201
    file = {"name": "canary-name", "description": "canary-about", "content": CONTENT}
    assert alice.post("/files", {**file, "project": "letters"}).status == 201
    File.objects.update(uuid=FILE)


def _fill_bob(world: World) -> None:
    Project.objects.filter(owner__handle="bob", handle="letters").update(uuid=PROJECT)
    bob = world["other owner"].caller
    inside = {"name": "Bob's", "project": "letters"}
    assert bob.post(f"/agents/{AGENT}", {**inside, "canonical_name": "support"}).status == 201
    assert bob.post(f"/users/{END_USER}", inside).status == 201
    assert bob.post("/files", {**inside, "content": "Qm9i"}).status == 201


@pytest.fixture
def world(_whole_world: World, db: None, settings: Settings) -> World:
    """Return the world as it was made, on a server with an admin key."""
    settings.ADMIN_KEY = ADMIN_KEY
    return _whole_world


def _of_alice() -> dict[str, Any]:
    """Return all that Alice has in the Projects API."""
    models: list[Any] = [Project, *KINDS]
    return {
        model._meta.label: list(
            model.objects.filter(owner__handle="alice").order_by("pk").values_list()
        )
        for model in models
    }


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_actors_get_what_the_contract_says(row: Row, world: World) -> None:
    before = _of_alice()
    problems = []
    for actor in ACTORS:
        with undone():
            answer = world[actor].ask(row.method, row.path, row.body)
            changed = _of_alice() != before
        problems += [f"{actor}: {each}" for each in _wrong(row, actor, answer, changed)]
        if row.method == "GET" and actor in {"anonymous", "stranger", "owner"}:
            head = world[actor].ask("HEAD", row.path)
            if (head.status, head.content) != (answer.status, b""):
                problems.append(f"{actor}: HEAD answers {head.status} {head.content[:40]!r}")
    assert problems == []


def _wrong(row: Row, actor: str, answer: Answer, changed: bool) -> Iterator[str]:
    expected = row.expected(actor)
    if answer.status != expected:
        yield f"{answer.status} instead of {expected}: {answer.content[:300]!r}"
        return
    if expected == 401 and not answer.headers.get("WWW-Authenticate", "").startswith("Bearer"):
        yield "401 without WWW-Authenticate: Bearer"
    alices = READING | {"other only"}
    if changed and (row.method == "GET" or expected >= 400 or actor not in alices):
        yield "changed what is Alice's"
    seen = answer.content.decode() + repr(dict(answer.headers))
    found = {word for word in CANARIES if word in seen}
    if row.shows and actor in row.who and not found:
        yield "shows nothing of Alice's"
    if found and (actor not in row.who or expected >= 400):
        yield f"shows {found}"
    if different := document.difference(row.method, row.route, answer):
        yield f"not as documented: {different}"


# --- What others have, as seen by themselves ------------------------------------------------------
@pytest.mark.parametrize("path", ["/projects", "/agents", "/users", "/files"])
def test_lists_hold_ones_own_and_nothing_else(path: str, world: World) -> None:
    numbers = {}
    for actor in ("owner", "other owner", "stranger", "admin", "letters only", "other only"):
        listed = world[actor].ask("GET", path).body
        numbers[actor] = len(listed if path == "/files" else listed["items"])
    default = 1 if path == "/projects" else 0
    assert numbers == {
        # default, letters and other; what is in letters.
        "owner": 3 * default or 1,
        "other owner": 2 * default or 1,
        "stranger": default,
        "admin": default,
        "letters only": 1,
        "other only": default,
    }


def test_neither_filters_nor_names_reach_what_others_have(world: World) -> None:
    sam = world["stranger"].caller
    for path in ("/agents", "/users"):
        for query in ("project=letters", "metadata_filter.canary-key=canary-metadata"):
            assert sam.get(f"{path}?{query}").body == {"items": []}
    assert sam.get("/files?project=letters").body == []
    for path in ("/agents", "/users", "/files"):
        body = {"name": "x", "content": "SGVsbG8h", "project": "letters"}
        refused = sam.post(path, body)
        assert (refused.status, refused["error"]["code"]) == (404, "project_not_found")
        assert refused.content.replace(b"letters", b"nothing") == (
            sam.post(path, {**body, "project": "nothing"}).content
        )


def test_an_id_that_somebody_else_has_is_as_good_as_any(world: World) -> None:
    before = _of_alice()
    sam = world["stranger"].caller
    with undone():
        for path, uuid in (("/projects", PROJECT), ("/agents", AGENT), ("/users", END_USER)):
            made = sam.post(f"{path}/{uuid}", {"name": "Sam's"})
            assert (made.status, made["id"], made["name"]) == (201, uuid, "Sam's")
            assert sam.get(f"{path}/{uuid}")["name"] == "Sam's"
            assert sam.patch(f"{path}/{uuid}", {"name": "still"})["name"] == "still"
            assert sam.delete(f"{path}/{uuid}").status == 202
            assert sam.get(f"{path}/{uuid}").status == 404
        assert _of_alice() == before


def test_canonical_names_of_others_are_free(world: World) -> None:
    with undone():
        sam = world["stranger"].caller
        assert sam.post("/agents", {"name": "x", "canonical_name": "support"}).status == 201
        assert sam.post("/projects", {"name": "x", "canonical_name": "letters"}).status == 201


# --- Keys that carry less than their account ------------------------------------------------------
def test_a_key_for_one_project_puts_things_there_and_nowhere_else(world: World) -> None:
    with undone():
        key = world["letters only"].caller
        made = key.post("/agents", {"name": "x"})
        assert (made.status, made["project"]) == (201, "letters")
        for name in ("default", "other"):
            refused = key.post("/agents", {"name": "x", "project": name})
            assert (refused.status, refused["error"]["code"]) == (404, "project_not_found")
            moved = key.patch(f"/agents/{AGENT}", {"project": name})
            assert (moved.status, moved["error"]["code"]) == (404, "project_not_found")
        refused = key.delete(f"/projects/{PROJECT}?on_resources=move")
        assert (refused.status, refused["error"]["code"]) == (403, "permission_denied")
        assert key.get(f"/agents/{AGENT}")["project"] == "letters"
        assert [each["id"] for each in key.get("/projects")["items"]] == [PROJECT]


# --- Credentials ----------------------------------------------------------------------------------
def test_the_key_comes_in_one_of_two_headers(world: World) -> None:
    nobody, key = world.cast.nobody, world["owner"].caller.key
    for headers in (
        {"Authorization": f"Bearer {key}"},
        {"X-Auth-Key": key},
        {"X-Auth-Key": f"Bearer {key}"},
        {"X-Auth-Key": f"bearer {key}"},
    ):
        assert nobody.get("/projects", headers=headers).status == 200
    for headers in (
        {},
        {"Authorization": key},
        {"Authorization": f"Basic {key}"},
        {"X-Auth-Key": ""},
        {"X-Auth-Key": f"Basic {key}"},
        {"X-Auth-Key": f"{key} {key}"},
        {"X-API-Key": key},
        {"Authorization": "Bearer wrong", "X-Auth-Key": key},
    ):
        answer = nobody.get("/projects", headers=headers)
        assert (answer.status, answer["error"]["code"]) == (401, "unauthorized"), headers
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    # `/v1` takes one header only.
    assert nobody.get("/v1/projects/alice", headers={"X-Auth-Key": str(key)}).status == 401


def test_the_configured_admin_key_is_told_that_it_has_no_account(world: World) -> None:
    answer = world["admin key"].ask("GET", "/projects")
    assert (answer.status, answer["error"]["code"]) == (403, "permission_denied")
    assert "belongs to no account" in answer["error"]["message"]

"""Every route, every method, every kind of actor: the answer of the contract's section 17.

The routes come from the URL configuration; a new one without a row here fails, and so does a row
without a route.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.test import override_settings
from pytest_django import DjangoDbBlocker, Settings
from rest_framework.permissions import AllowAny
from rest_framework.settings import api_settings

from accounts.authentication import (
    KeyRequired,
    Public,
    PublicReading,
    PublicReadingUncheckedWriting,
    UncheckedKeyAuthentication,
)
from projects.models import Project
from tests.contract import document
from tests.contract.world import (
    ACCOUNT,
    ACCOUNT_READERS,
    ACTORS,
    ADMIN_KEY,
    ADMINS,
    ALIASES,
    ANYBODY,
    BAD_KEYS,
    EDITORS,
    ENDED_JOB,
    OPERATIONS,
    OWNERS,
    READERS,
    SHAREES,
    STRANGERS,
    TEXT_ID_IN_URL,
    WAITING_JOB,
    WITH_KEY,
    WORDS,
    World,
    all_views,
    api_views,
    fingerprint,
    found_canaries,
    make_world,
    methods_of,
    operations,
    undone,
)
from tests.factories import Answer, item

_SERVICE = {
    "endpoint": "https://api.example.org/v1",
    "api_standard": "openai",
    "model": "test-embedding",
    "dimensions": 3,
}
_PROJECT = {"instance_handle": "model"}
_EMBEDDING = item("new", [0, 1, 0], metadata={})
SHARED_WITH = set(READERS)
_TO_SAM = {"share_with_handle": "sam", "role": "reader"}


@dataclass(frozen=True)
class Row:
    """What one method of one route answers.

    who: the actors that are allowed; everybody else with a key is refused with 403.
    shows: which canaries the allowed read.
    shows_to: whom; None for all who are allowed.
    owner_shows: what only owners and administrators read besides.
    anybody: whether keys are not even looked at.
    """

    method: str
    route: str
    path: str
    who: Collection[str]
    status: int
    body: Any = None
    shows: Collection[str] = ()
    shows_to: Collection[str] | None = None
    owner_shows: Collection[str] = ()
    anybody: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.route}"

    @property
    def reads(self) -> bool:
        """Whether it only reads."""
        asks = "/similars" in self.route or self.route.endswith(("/test", "/comparison"))
        return asks or (self.method == "GET" and self.status != 204)

    def expected(self, actor: str) -> int:
        """Return the status that an actor gets."""
        if self.anybody:
            return self.status
        if actor in BAD_KEYS:
            return 401
        if actor in self.who:
            return self.status
        return 401 if actor == "anonymous" else 403

    def readable(self, actor: str) -> set[str]:
        """Return the canaries that an actor may read."""
        if self.expected(actor) >= 400:
            return set()
        words = set(self.shows) if self.shows_to is None or actor in self.shows_to else set()
        return words | (set(self.owner_shows) if actor in OWNERS else set())


def _rows() -> Iterator[Row]:
    yield Row("GET", "/v1", "/v1", ANYBODY, 200, anybody=True)
    yield Row("GET", "/v1/limits", "/v1/limits", ANYBODY, 200)
    yield from _users()
    yield from _standards()
    services = [*_definitions(), *_instances()]
    yield from services
    for alias, first in ALIASES.items():
        for row in services:
            if row.route.startswith(f"{first}/"):
                yield replace(
                    row,
                    route=row.route.replace(first, alias),
                    path=row.path.replace(first, alias),
                )
    yield from _projects()
    yield from _embeddings()
    yield from _jobs()
    yield Row("GET", "/v1/admin/sanity-check", "/v1/admin/sanity-check", ADMINS, 200)
    log = "/v1/admin/audit-log"
    yield Row("GET", log, f"{log}?limit=200", ADMINS, 200, shows={"sharee"})
    yield Row("GET", "/v1/admin/footgun", "/v1/admin/footgun", ADMINS, 204)


def _users() -> Iterator[Row]:
    everybody, one, alice = "/v1/users", "/v1/users/{user}", "/v1/users/alice"
    yield Row("GET", everybody, everybody, ADMINS, 200, shows={"sharee"})
    yield Row("POST", everybody, everybody, ADMINS, 201, {"user_handle": "newcomer"})
    yield Row("GET", one, alice, ACCOUNT_READERS, 200, shows={"email"})
    yield Row("PUT", one, alice, ADMINS, 200, {"name": "Alice"})
    yield Row("PATCH", one, alice, ACCOUNT, 200, {"name": "Alice"}, shows={"email"})
    yield Row("DELETE", one, alice, ACCOUNT, 200)


def _standards() -> Iterator[Row]:
    everyone, one = "/v1/api-standards", "/v1/api-standards/{standard}"
    spare = "/v1/api-standards/spare"
    new = {"api_standard_handle": "another", "key_method": "none"}
    yield Row("GET", everyone, everyone, ANYBODY, 200)
    yield Row("POST", everyone, everyone, ADMINS, 201, new)
    yield Row("GET", one, spare, ANYBODY, 200)
    yield Row("PUT", one, spare, ADMINS, 200, {"key_method": "none"})
    yield Row("PATCH", one, spare, ADMINS, 200, {"description": "Changed"})
    yield Row("DELETE", one, spare, ADMINS, 200)


def _definitions() -> Iterator[Row]:
    base = "/v1/llm-service-definitions"
    of_owner, one = f"{base}/{{owner}}", f"{base}/{{owner}}/{{handle}}"
    alice, template = f"{base}/alice", f"{base}/alice/template"
    new = {**_SERVICE, "definition_handle": "another"}
    gone = f"{template}/share/canary-sharee"
    yield Row("GET", of_owner, alice, ACCOUNT_READERS, 200, shows={"definition"})
    yield Row("POST", of_owner, alice, ACCOUNT, 201, new)
    yield Row("GET", one, template, ACCOUNT_READERS | SHAREES, 200, shows={"definition"})
    yield Row("PUT", one, template, ACCOUNT, 200, _SERVICE)
    yield Row("PATCH", one, template, ACCOUNT, 200, {"is_public": True}, shows={"definition"})
    yield Row("DELETE", one, template, ACCOUNT, 200)
    to_sam = {"share_with_handle": "sam"}
    sharee = {"sharee"}
    yield Row("POST", f"{one}/share", f"{template}/share", ACCOUNT, 201, to_sam, shows=sharee)
    yield Row("DELETE", f"{one}/share/{{user}}", gone, ACCOUNT, 200, shows=sharee)
    yield Row("GET", f"{one}/shared-with", f"{template}/shared-with", ACCOUNT, 200, shows=sharee)


def _instances() -> Iterator[Row]:
    base = "/v1/llm-services"
    of_owner, one = f"{base}/{{owner}}", f"{base}/{{owner}}/{{handle}}"
    alice, model = f"{base}/alice", f"{base}/alice/model"
    new = {**_SERVICE, "instance_handle": "another", "api_key": "sk-new"}
    derived = {
        "instance_handle": "another",
        "definition_owner": "_system",
        "definition_handle": "openai-small",
    }
    readers, gone = ACCOUNT_READERS | SHAREES, f"{model}/share/canary-sharee"
    yield Row("GET", of_owner, alice, readers, 200, shows={"endpoint"})
    yield Row("POST", of_owner, alice, ACCOUNT, 201, new)
    route = f"{of_owner}/from-definition"
    yield Row("POST", route, f"{alice}/from-definition", ACCOUNT, 201, derived)
    yield Row("GET", one, model, readers, 200, shows={"endpoint"})
    yield Row("PUT", one, model, ACCOUNT, 200, _SERVICE)
    yield Row("PATCH", one, model, ACCOUNT, 200, {"description": "New"}, shows={"endpoint"})
    yield Row("DELETE", one, f"{alice}/spare", ACCOUNT, 200)
    sharee = {"sharee"}
    yield Row("POST", f"{one}/share", f"{model}/share", ACCOUNT, 201, _TO_SAM, shows=sharee)
    yield Row("DELETE", f"{one}/share/{{user}}", gone, ACCOUNT, 200, shows=sharee)
    yield Row("GET", f"{one}/shared-with", f"{model}/shared-with", ACCOUNT, 200, shows=sharee)
    # It is in a private network: what is called is not the server there.
    yield Row("POST", f"{one}/test", f"{alice}/spare/test", readers, 409, {})


def _projects() -> Iterator[Row]:
    of_owner, one = "/v1/projects/{owner}", "/v1/projects/{owner}/{project}"
    alice, letters = "/v1/projects/alice", "/v1/projects/alice/letters"
    new = {**_PROJECT, "project_handle": "another"}
    told, sharee = {"description"}, {"sharee"}
    yield Row("GET", of_owner, alice, WITH_KEY, 200, shows=told, shows_to=READERS)
    yield Row("POST", of_owner, alice, ACCOUNT, 201, new)
    told = {"description", "schema"}
    yield Row("GET", one, letters, READERS, 200, shows=told, owner_shows=sharee)
    yield Row("PUT", one, letters, OWNERS, 200, _PROJECT, shows=sharee)
    patch = {"description": "New"}
    yield Row("PATCH", one, letters, OWNERS, 200, patch, shows={"schema", "sharee"})
    yield Row("DELETE", one, letters, OWNERS, 200)
    yield Row("POST", f"{one}/share", f"{letters}/share", OWNERS, 201, _TO_SAM)
    gone = f"{letters}/share/canary-sharee"
    yield Row("DELETE", f"{one}/share/{{user}}", gone, OWNERS, 200, shows=sharee)
    yield Row("GET", f"{one}/shared-with", f"{letters}/shared-with", OWNERS, 200, shows=sharee)
    to_sam = {"new_owner_handle": "sam"}
    route = f"{one}/transfer-ownership"
    yield Row("POST", route, f"{letters}/transfer-ownership", OWNERS, 200, to_sam)
    log, path = f"{one}/audit-log", f"{letters}/audit-log?limit=200"
    yield Row("GET", log, path, OWNERS, 200, shows=sharee)
    index = f"{one}/index"
    yield Row("GET", index, f"{letters}/index", READERS, 200)
    yield Row("PATCH", index, f"{letters}/index", OWNERS, 200, {"ef_search": 200})
    yield Row("POST", f"{index}/rebuild", f"{letters}/index/rebuild", OWNERS, 202)
    again, path = f"{one}/reembedding", f"{letters}/reembedding"
    yield Row("GET", again, path, EDITORS, 200)
    yield Row("DELETE", again, path, OWNERS, 200)
    for step in ("estimate", "comparison"):
        yield Row("GET", f"{again}/{step}", f"{path}/{step}", EDITORS, 200)
    questions = {"questions": [WORDS]}
    yield Row("POST", f"{again}/comparison", f"{path}/comparison", EDITORS, 200, questions)
    yield Row("POST", f"{again}/switch", f"{path}/switch", OWNERS, 202)
    # There is one already, which is ready.
    yield Row("POST", again, path, OWNERS, 409, _PROJECT)
    for step in ("pause", "resume", "rollback"):
        yield Row("POST", f"{again}/{step}", f"{path}/{step}", OWNERS, 409)


def _embeddings() -> Iterator[Row]:
    every, one = "/v1/embeddings/{owner}/{project}", "/v1/embeddings/{owner}/{project}/{text_id}"
    letters, text = (
        "/v1/embeddings/alice/letters",
        f"/v1/embeddings/alice/letters/{TEXT_ID_IN_URL}",
    )
    told, uploaded = {"text id", "text", "metadata"}, {"embeddings": [_EMBEDDING]}
    unnamed = {name: each for name, each in _EMBEDDING.items() if name != "text_id"}
    yield Row("GET", every, letters, READERS, 200, shows=told)
    yield Row("POST", every, letters, EDITORS, 201, uploaded)
    yield Row("DELETE", every, letters, EDITORS, 200)
    yield Row("GET", one, text, READERS, 200, shows=told)
    yield Row("PUT", one, text, EDITORS, 200, unnamed, shows={"text id"})
    yield Row("DELETE", one, text, EDITORS, 200, shows={"text id"})
    yield from _by_filter(every, letters, unnamed)
    every, one = "/v1/similars/{owner}/{project}", "/v1/similars/{owner}/{project}/{text_id}"
    letters, text = "/v1/similars/alice/letters", f"/v1/similars/alice/letters/{TEXT_ID_IN_URL}"
    vector = {"vector": [1, 0, 0]}
    yield Row("POST", every, letters, READERS, 200, vector, shows={"text id"})
    # Asks a provider, whom the owner pays: not for everybody, even where everybody may read.
    words = f"{letters}?{urlencode({'q': WORDS})}"
    yield Row("GET", every, words, SHARED_WITH, 200, shows={"text id"})
    yield Row("GET", one, text, READERS, 200, shows={"text id"})
    route, recall = f"{every}/recall", f"{letters}/recall"
    yield Row("POST", route, recall, READERS, 200)
    # Also the address of a text with this very id.
    yield Row("GET", route, recall, READERS, 200, shows={"text id"})
    route, batch = f"{every}/batch", f"{letters}/batch"
    told = {"text id", "text", "metadata"}
    full = {**vector, "fields": ["text", "metadata"]}
    yield Row("POST", route, batch, READERS, 200, {"queries": [full]}, shows=told)
    yield Row("GET", route, batch, READERS, 200, shows={"text id"})
    across = {**full, "projects": ["alice/letters"]}
    yield Row("POST", "/v1/similars", "/v1/similars", READERS, 200, across, shows=told)


def _by_filter(every: str, letters: str, unnamed: dict[str, Any]) -> Iterator[Row]:
    """Operations, and what is done at their addresses to texts with these very ids."""
    there = {"filter": {"note": {"exists": True}}}
    count = f"{letters}/count?filter={quote(json.dumps(there['filter']))}"
    yield Row("GET", f"{every}/count", count, READERS, 200)
    path = f"{letters}/facets?path=note"
    yield Row("GET", f"{every}/facets", path, READERS, 200, shows={"metadata"})
    yield Row("POST", f"{every}/delete", f"{letters}/delete", EDITORS, 200, there)
    change = {**there, "metadata": {"seen": True}}
    yield Row("POST", f"{every}/update", f"{letters}/update", EDITORS, 200, change)
    for name in OPERATIONS:
        route, text = f"{every}/{name}", f"{letters}/{name}"
        if name in {"delete", "update"}:
            yield Row("GET", route, text, READERS, 200, shows={"text", "metadata"})
        yield Row("PUT", route, text, EDITORS, 200, unnamed)
        yield Row("DELETE", route, text, EDITORS, 200)


def _jobs() -> Iterator[Row]:
    every = "/v1/projects/{owner}/{project}/embedding-jobs"
    jobs = "/v1/projects/alice/letters/embedding-jobs"
    one, waiting, ended = f"{every}/{{id}}", f"{jobs}/{WAITING_JOB}", f"{jobs}/{ENDED_JOB}"
    yield Row("GET", every, jobs, EDITORS, 200)
    yield Row("GET", one, ended, EDITORS, 200, shows={"text id"})
    yield Row("DELETE", one, ended, EDITORS, 200)
    yield Row("POST", f"{one}/cancel", f"{waiting}/cancel", EDITORS, 200)
    yield Row("POST", f"{one}/retry", f"{ended}/retry", EDITORS, 202)


ROWS = list(_rows())


def _in_public(row: Row) -> Row:
    """Return the row for a project that is public: whoever read before, now everybody may.

    But a key for one other project stays one for that project only.
    """
    if row.who is READERS:
        return replace(row, who=READERS | STRANGERS | {"anonymous"})
    if row.shows_to == READERS:
        return replace(row, shows_to=READERS | STRANGERS)
    return row


PUBLIC_ROWS = [
    _in_public(row)
    for row in ROWS
    if row.route.startswith(("/v1/projects/", "/v1/embeddings/", "/v1/similars"))
]


# --- The table is complete ------------------------------------------------------------------------
def test_every_method_of_every_route_has_one_row() -> None:
    rows = [(row.method, row.route) for row in ROWS]
    assert len(rows) == len(set(rows))
    assert operations() - set(rows) == set(), "add a row to the matrix"
    assert set(rows) - operations() == set(), "these rows have no route any more"


# --- The matrix -----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def _whole_world(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[World]:
    """Make the world once: the tests of this module undo what they do to it."""
    with django_db_blocker.unblock(), undone():
        with override_settings(ADMIN_KEY=ADMIN_KEY):
            made = make_world()
        yield made


@pytest.fixture
def world(_whole_world: World, db: None, settings: Settings) -> World:
    """Return the world as it was made, on a server with the admin key that can be reset."""
    settings.ADMIN_KEY = ADMIN_KEY
    settings.ALLOW_RESET = True
    return _whole_world


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_actors_of_a_private_project_get_what_the_contract_says(row: Row, world: World) -> None:
    assert _problems(row, world) == []


@pytest.mark.parametrize("row", PUBLIC_ROWS, ids=str)
def test_actors_of_a_public_project_get_what_the_contract_says(row: Row, world: World) -> None:
    _publish()
    assert _problems(row, world) == []


def _publish() -> None:
    Project.objects.filter(owner__handle="alice", handle="letters").update(public_read=True)


def _problems(row: Row, world: World) -> list[str]:
    before = fingerprint()
    problems = []
    for actor in ACTORS:
        with undone():
            answer = world[actor].ask(row.method, row.path, row.body)
            changed = [] if row.reads else _changed_since(before)
        problems += [f"{actor}: {each}" for each in _wrong(row, actor, answer, changed)]
        if row.method == "GET" and row.reads and actor in {"anonymous", "stranger", "owner"}:
            head = world[actor].ask("HEAD", row.path)
            if (head.status, head.content) != (answer.status, b""):
                problems.append(f"{actor}: HEAD answers {head.status} {head.content[:40]!r}")
    if row.reads and _changed_since(before):
        problems.append(f"reading changed {_changed_since(before)}")
    return problems


def _changed_since(before: dict[str, str]) -> list[str]:
    return [table for table, rows in fingerprint().items() if rows != before[table]]


def _wrong(row: Row, actor: str, answer: Answer, changed: list[str]) -> Iterator[str]:
    expected = row.expected(actor)
    if answer.status != expected:
        yield f"{answer.status} instead of {expected}: {answer.content[:300]!r}"
        return
    if expected == 401 and not answer.headers.get("WWW-Authenticate", "").startswith("Bearer"):
        yield "401 without WWW-Authenticate: Bearer"
    if changed and expected >= 400:
        yield f"changed {changed}"
    if not changed and expected < 400 and not row.reads:
        yield "allowed, but nothing changed"
    canaries, readable = found_canaries(answer), row.readable(actor)
    if canaries != readable:
        yield f"shows {canaries} instead of {readable}"
    if different := document.difference(row.method, row.route, answer):
        yield f"not as documented: {different}"


# --- What `_system` owns --------------------------------------------------------------------------
@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if "alice" in row.path and not row.reads],
    ids=str,
)
def test_only_administrators_write_under_system(row: Row, world: World) -> None:
    before = fingerprint()
    path = row.path.replace("alice", "_system").replace("template", "openai-small")
    for actor in ACTORS:
        if actor in ADMINS:
            continue
        with undone():
            answer = world[actor].ask(row.method, path, row.body)
            assert fingerprint() == before, actor
        wanted = 401 if actor in BAD_KEYS | {"anonymous"} else 403
        assert answer.status == wanted, (actor, answer.content)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/v1/users/_system", "/v1/llm-services/_system/builtin"])
def test_nobody_changes_the_system_account_or_the_builtin_instance(
    method: str, path: str, world: World
) -> None:
    before = fingerprint()
    body = _SERVICE if "llm" in path else {"name": "System"}
    for actor in ADMINS:
        answer = world[actor].ask(method, path, None if method == "DELETE" else body)
        assert answer.status == 403, answer.content
    assert fingerprint() == before


@pytest.mark.parametrize("kind", ["llm-service-definitions", "llm-definitions"])
def test_templates_of_the_system_are_read_with_any_key_and_written_by_administrators(
    kind: str, world: World
) -> None:
    for actor in sorted(WITH_KEY):
        listed = world[actor].ask("GET", f"/v1/{kind}/_system")
        assert listed.status == 200, actor
        assert len(listed["definitions"]) == 9
        assert world[actor].ask("GET", f"/v1/{kind}/_system/openai-small").status == 200
    assert world["anonymous"].ask("GET", f"/v1/{kind}/_system").status == 401
    for actor in ADMINS:
        with undone():
            change = world[actor].ask("PATCH", f"/v1/{kind}/_system/cohere-v4", {"model": "x"})
            assert change.status == 200


# --- Fields by role (Z5) --------------------------------------------------------------------------
PROJECT_FIELDS = {
    "project_id",
    "project_handle",
    "owner",
    "description",
    "instance_id",
    "instance_owner",
    "instance_handle",
    "public_read",
    "role",
    "number_of_embeddings",
    "created_at",
    "updated_at",
    "metadataScheme",
}
INSTANCE_FIELDS = {
    "instance_id",
    "instance_handle",
    "owner",
    "definition_id",
    "definition_owner",
    "definition_handle",
    "endpoint",
    "description",
    "api_standard",
    "model",
    "dimensions",
    "context_limit",
    "access_role",
    "has_api_key",
    "created_at",
    "updated_at",
}
ROLES = {
    "anonymous": "reader",
    "stranger": "reader",
    "other owner": "reader",
    "reader": "reader",
    "owner as reader": "reader",
    "editor": "editor",
    "owner as editor": "editor",
    "owner": "owner",
    "letters only": "owner",
    "admin": "admin",
    "admin key": "admin",
}


def test_fields_of_a_project_depend_on_the_role(world: World) -> None:
    _publish()
    for actor, role in ROLES.items():
        one = world[actor].ask("GET", "/v1/projects/alice/letters")
        shared = {"shared_with"} if actor in OWNERS else set()
        assert set(one.body) == PROJECT_FIELDS | shared, actor
        assert one["role"] == role, actor
        if actor == "anonymous":
            continue
        listed = world[actor].ask("GET", "/v1/projects/alice")
        of_letters = [each for each in listed["projects"] if each["project_handle"] == "letters"]
        assert [each["role"] for each in of_letters] == [role], actor
        assert set(of_letters[0]) == PROJECT_FIELDS - {"metadataScheme"}, actor


def test_fields_of_an_instance_never_hold_the_key_or_the_sharees(world: World) -> None:
    roles = {
        "reader": "reader",
        "editor": "editor",
        "owner": "owner",
        "admin": "admin",
        "owner as reader": "reader",
        "letters only": "reader",
    }
    for actor, role in roles.items():
        one = world[actor].ask("GET", "/v1/llm-services/alice/model")
        assert set(one.body) == INSTANCE_FIELDS, actor
        assert one["access_role"] == role, actor
        assert one["has_api_key"] is True


def test_a_key_for_one_project_names_no_other_project(world: World) -> None:
    for actor, reached in {"letters only": ["letters"], "other only": ["other"]}.items():
        # A capped key is not told what its account reaches.
        assert "projects" not in world[actor].ask("GET", "/v1/users/alice").body
        listed = world[actor].ask("GET", "/v1/projects/alice")
        assert [each["project_handle"] for each in listed["projects"]] == reached
        assert listed["total_count"] == 1


def test_the_old_address_of_a_moved_project_is_404_for_everybody_with_a_key(world: World) -> None:
    moved = world["owner"].ask(
        "POST", "/v1/projects/alice/letters/transfer-ownership", {"new_owner_handle": "sam"}
    )
    assert moved.status == 200
    for actor in sorted(WITH_KEY - {"letters only"}):
        for kind in ("projects", "embeddings"):
            assert world[actor].ask("GET", f"/v1/{kind}/alice/letters").status == 404, actor
    assert world["owner"].ask("GET", moved["new_path"]).status == 403
    assert world["letters only"].ask("GET", moved["new_path"]).status == 401
    assert world["stranger"].ask("GET", moved["new_path"])["role"] == "owner"
    assert world["reader"].ask("GET", moved["new_path"])["role"] == "reader"


def test_the_reset_is_refused_unless_the_configuration_allows_it(
    settings: Settings, world: World
) -> None:
    settings.ALLOW_RESET = False
    before = fingerprint()
    for actor in ADMINS:
        assert world[actor].ask("GET", "/v1/admin/footgun").status == 403
    assert fingerprint() == before


def test_a_reset_that_fails_at_the_end_leaves_the_numbering(world: World) -> None:
    with undone():
        assert world["admin"].ask("GET", "/v1/admin/footgun").status == 204
        assert world["admin key"].ask("POST", "/v1/users", {"user_handle": "first"}).status == 201
    again = world["admin"].ask("POST", "/v1/users", {"user_handle": "another"})
    assert again.status == 201, again.body


# --- Credentials ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic {key}",
        "Token {key}",
        "{key}",
        'Bearer "{key}"',
        "Bearer {key} {key}",
        "Bearer  {key}",
        "Bearer {key},Bearer {key}",
        "Bearer\t{key}",
    ],
)
def test_only_a_bearer_header_with_one_key_is_a_credential(header: str, world: World) -> None:
    for key in (world.cast.alice.key, ADMIN_KEY):
        answer = world.cast.nobody.get(
            "/v1/users/alice", headers={"Authorization": header.format(key=key)}
        )
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_an_empty_admin_key_matches_nothing(settings: Settings, world: World) -> None:
    settings.ADMIN_KEY = ""
    for header in ("Bearer", "Bearer ", 'Bearer ""'):
        answer = world.cast.nobody.get("/v1/users", headers={"Authorization": header})
        assert answer.status == 401
    assert world["admin key"].ask("GET", "/v1/users").status == 401


def test_keys_in_query_cookie_body_or_other_headers_are_nothing(world: World) -> None:
    nobody, key = world.cast.nobody, str(world.cast.alice.key)
    for name in ("api_key", "access_token", "key"):
        assert nobody.get(f"/v1/projects/alice?{name}={key}").status == 401
    for name in ("X-API-Key", "X-Forwarded-User", "Remote-User", "Cookie", "Proxy-Authorization"):
        assert nobody.get("/v1/projects/alice", headers={name: f"Bearer {key}"}).status == 401
    body = {"share_with_handle": "sam", "role": "reader", "api_key": key}
    assert nobody.post("/v1/projects/alice/letters/share", body).status == 401


# --- Deny by default ------------------------------------------------------------------------------
PUBLIC_VIEWS = {
    "/v1",
    "/v1/similars/{owner}/{project}",
    "/v1/similars/{owner}/{project}/{text_id}",
    "/v1/similars/{owner}/{project}/recall",
    "/v1/similars/{owner}/{project}/batch",
    "/v1/similars",
    "/openapi.json",
    "/openapi.yaml",
    "/docs",
}
PUBLICLY_READABLE_VIEWS = {
    "/v1/limits",
    "/v1/api-standards",
    "/v1/api-standards/{standard}",
    "/v1/projects/{owner}/{project}",
    "/v1/embeddings/{owner}/{project}",
    "/v1/embeddings/{owner}/{project}/{text_id}",
    *(f"/v1/embeddings/{{owner}}/{{project}}/{name}" for name in OPERATIONS),
    "/v1/projects/{owner}/{project}/index",
}
# The policy looks at the key there, in one statement with the search, or with the project's lock.
UNCHECKED_KEYS = {
    "/v1/embeddings/{owner}/{project}",
    "/v1/similars/{owner}/{project}",
    "/v1/similars/{owner}/{project}/{text_id}",
    "/v1/similars/{owner}/{project}/recall",
    "/v1/similars/{owner}/{project}/batch",
}


def test_views_ask_for_a_key_unless_they_are_listed_here() -> None:
    default: Any = api_settings.DEFAULT_PERMISSION_CLASSES
    assert default == [KeyRequired]
    for template, view in all_views().items():
        permissions = view.permission_classes
        assert permissions, f"{template} lets everybody in"
        assert "get_permissions" not in vars(view), f"{template} decides by itself"
        assert AllowAny not in permissions
        if template in PUBLIC_VIEWS:
            assert permissions == [Public]
        elif template in PUBLICLY_READABLE_VIEWS & UNCHECKED_KEYS:
            assert permissions == [PublicReadingUncheckedWriting]
        elif template in PUBLICLY_READABLE_VIEWS:
            assert permissions == [PublicReading]
        else:
            assert permissions == [KeyRequired], template
        leaves_it = UncheckedKeyAuthentication in view.authentication_classes
        assert leaves_it == (template in UNCHECKED_KEYS), template
    assert set(all_views()) >= PUBLIC_VIEWS | PUBLICLY_READABLE_VIEWS


def test_every_address_under_v1_is_a_view_of_the_api() -> None:
    assert len(api_views()) >= 35
    assert all(methods_of(view) for view in api_views().values())

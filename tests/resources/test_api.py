"""Agents and end users: the verbs, what they default to, and what they refuse."""

from typing import Any
from uuid import uuid4

import pytest

from projects.models import Project
from resources.models import DEFAULT_SYSTEM_TEMPLATE
from tests.answers import A_UUID, TIMES, Like, assert_error, nothing_changes
from tests.factories import Caller, Cast

A_NAME = Like("a canonical name", lambda it: isinstance(it, str) and it.startswith("scribe_"))
DEFAULTS: dict[str, dict[str, Any]] = {
    "agents": {
        "name": "Scribe",
        "canonical_name": A_NAME,
        "project": "default",
        "about": "",
        "model": "",
        "instructions": [],
        "metadata": {},
        "default_settings": {},
        "default_system_template": DEFAULT_SYSTEM_TEMPLATE,
    },
    "users": {"name": "Scribe", "project": "default", "about": "", "metadata": {}},
}
FULL: dict[str, dict[str, Any]] = {
    "agents": {
        "name": "Scribe",
        "canonical_name": "scribe",
        "project": "letters",
        "about": "Copies letters",
        "model": "any/model-1",
        "instructions": ["Be brief.", ""],
        "metadata": {"a": {"b": [1, None, "x"]}},
        "default_settings": {"temperature": 0.5, "stop": ["\n"]},
        "default_system_template": "{{ agent.name }}",
    },
    "users": {
        "name": "Ann\tSmith\n",
        "project": "letters",
        "about": "Ünïcode 🙂",
        "metadata": {"a": {"b": [1, None, "x"]}},
    },
}
NAME = {"name": "Scribe"}
both = pytest.mark.parametrize("kind", ["agents", "users"])


def made(caller: Caller, kind: str, **body: Any) -> dict[str, Any]:
    answer = caller.post(f"/{kind}", {**NAME, **body})
    assert answer.status == 201, answer.body
    return dict(answer.body)


# --- Create ---------------------------------------------------------------------------------------
@both
def test_one_is_created_with_defaults(cast: Cast, kind: str) -> None:
    created = cast.alice.post(f"/{kind}", NAME)
    assert (created.status, created.body) == (201, {"id": A_UUID, **DEFAULTS[kind], **TIMES})
    assert cast.alice.get(f"/{kind}/{created['id']}").body == created.body


@both
def test_one_is_created_with_all_that_is_given(cast: Cast, kind: str) -> None:
    created = cast.alice.post(f"/{kind}", FULL[kind])
    assert (created.status, created.body) == (201, {"id": A_UUID, **FULL[kind], **TIMES})
    assert cast.alice.get(f"/{kind}/{created['id']}").body == created.body


@both
def test_the_case_of_a_projects_name_does_not_matter(cast: Cast, kind: str) -> None:
    assert made(cast.alice, kind, project="LETTERS")["project"] == "letters"


@both
def test_nulls_that_stand_for_nothing_are_as_good_as_absent(cast: Cast, kind: str) -> None:
    nulls = dict.fromkeys(("project", "canonical_name", "metadata", "default_settings"))
    assert made(cast.alice, kind, **nulls) == {"id": A_UUID, **DEFAULTS[kind], **TIMES}


def test_an_end_user_needs_nothing(cast: Cast) -> None:
    for body in ({}, {"name": ""}):
        created = cast.alice.post("/users", body)
        assert created.body == {"id": A_UUID, **DEFAULTS["users"], "name": "", **TIMES}


def test_a_bare_instruction_is_a_list_of_one(cast: Cast) -> None:
    assert made(cast.alice, "agents", instructions="Be brief.")["instructions"] == ["Be brief."]
    assert made(cast.alice, "agents", instructions="")["instructions"] == [""]


@both
def test_unknown_and_read_only_fields_are_ignored(cast: Cast, kind: str) -> None:
    other = {"id": str(uuid4()), "created_at": "x", "updated_at": 5, "developer_id": "y"}
    assert made(cast.alice, kind, **other, owner="sam", owner_id=1) == {
        "id": A_UUID,
        **DEFAULTS[kind],
        **TIMES,
    }


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("agents", {"name": None}, "name"),
    ("agents", {"name": ""}, "name"),
    ("agents", {"name": "a\nb"}, "name"),
    ("agents", {"name": "a" * 256}, "name"),
    ("agents", {"name": ["x"]}, "name"),
    ("agents", {"canonical_name": "9lives"}, "canonical_name"),
    ("agents", {"canonical_name": "new\n"}, "canonical_name"),
    ("agents", {"model": None}, "model"),
    ("agents", {"model": "m" * 256}, "model"),
    ("agents", {"instructions": None}, "instructions"),
    ("agents", {"instructions": [1]}, "instructions"),
    ("agents", {"instructions": {"0": "x"}}, "instructions"),
    ("agents", {"default_settings": []}, "default_settings"),
    ("agents", {"default_system_template": None}, "default_system_template"),
    ("agents", {"default_system_template": ""}, "default_system_template"),
    ("agents", {"default_system_template": " \n\t"}, "default_system_template"),
    ("users", {"name": None}, "name"),
    ("users", {"name": "a" * 121}, "name"),
    ("users", {"name": "a\x07b"}, "name"),
    *(
        (kind, body, loc)
        for kind in ("agents", "users")
        for body, loc in (
            ({"about": None}, "about"),
            ({"about": "a" * 16_001}, "about"),
            ({"about": 5}, "about"),
            ({"metadata": []}, "metadata"),
            ({"metadata": "{}"}, "metadata"),
            ({"project": 5}, "project"),
            ({"project": ""}, "project"),
        )
    ),
]


@pytest.mark.parametrize(("kind", "body", "loc"), BAD, ids=repr)
def test_a_bad_value_is_named_whatever_the_verb(
    cast: Cast, kind: str, body: dict[str, Any], loc: str
) -> None:
    path = f"/{kind}/{made(cast.alice, kind)['id']}"
    with nothing_changes():
        for method, address in (
            ("POST", f"/{kind}"),
            ("POST", f"/{kind}/{uuid4()}"),
            ("POST", path),
            ("PUT", path),
            ("PATCH", path),
        ):
            if method == "PATCH" and body == {"name": None} and kind == "agents":
                # The client sends null for what it was not given.
                continue
            answer = cast.alice.ask(method, address, {**NAME, **body})
            assert_error(answer, 422, "validation_error", loc=loc)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("agents", {"name": "n" * 255, "about": "a" * 16_000, "model": "m" * 255}),
        ("users", {"name": "n" * 120, "about": "a" * 16_000}),
        ("users", {"name": "2024-report.pdf 🙂\r\n"}),
        ("agents", {"name": " ‮ ", "metadata": {"": {"a.b": "'\"\\; DROP TABLE"}}}),
    ],
)
def test_the_limits_themselves_are_fine(cast: Cast, kind: str, body: dict[str, Any]) -> None:
    created = made(cast.alice, kind, **body)
    assert {name: created[name] for name in body} == body


@both
@pytest.mark.parametrize("name", ["nothing", "letters'--", "no such\nproject", "a" * 5_000])
def test_a_project_that_is_not_ones_own_is_404_with_its_name(
    cast: Cast, kind: str, name: str
) -> None:
    path = f"/{kind}/{made(cast.alice, kind)['id']}"
    with nothing_changes():
        for method, address in (
            ("POST", f"/{kind}"),
            ("POST", f"/{kind}/{uuid4()}"),
            ("POST", path),
            ("PUT", path),
            ("PATCH", path),
        ):
            body = {"name": "changed", "about": "changed", "project": name}
            answer = cast.alice.ask(method, address, body)
            assert_error(answer, 404, "project_not_found", says=name[:20])
        # What is shared with somebody, or public, is not theirs.
        Project.objects.filter(handle="letters").update(public_read=True)
        for caller in (cast.erin, cast.sam, cast.ada):
            answer = caller.post(f"/{kind}", {**NAME, "project": "letters"})
            assert_error(answer, 404, "project_not_found")
        Project.objects.filter(handle="letters").update(public_read=False)


@both
def test_letters_that_fold_to_ascii_are_other_letters(cast: Cast, kind: str) -> None:
    assert cast.alice.post("/projects", {"name": "x", "canonical_name": "kelvin"}).status == 201
    for name in ("\u212aelvin", "KELV\u0130N"):
        answer = cast.alice.post(f"/{kind}", {**NAME, "project": name})
        assert_error(answer, 404, "project_not_found")
    made(cast.alice, kind, project="KELVIN")
    assert cast.alice.get(f"/{kind}?project=%E2%84%AAelvin")["items"] == []


# --- Canonical names ------------------------------------------------------------------------------
def test_canonical_names_of_agents_are_unique_for_their_owner_in_all_projects(cast: Cast) -> None:
    made(cast.alice, "agents", canonical_name="scribe", project="letters")
    other = made(cast.alice, "agents", canonical_name="copyist")
    with nothing_changes():
        for name in ("scribe", "SCRIBE"):
            body = {**NAME, "canonical_name": name}
            assert_error(cast.alice.post("/agents", body), 409, "conflict", says=name)
            for method in ("PUT", "PATCH", "POST"):
                answer = cast.alice.ask(method, f"/agents/{other['id']}", body)
                assert_error(answer, 409, "conflict")
    assert made(cast.sam, "agents", canonical_name="scribe")
    for name in ("Copyist", "copyist-2"):
        changed = cast.alice.patch(f"/agents/{other['id']}", {"canonical_name": name})
        assert changed["canonical_name"] == name


# --- Replace --------------------------------------------------------------------------------------
@both
def test_put_puts_everything_back_but_id_project_and_canonical_name(cast: Cast, kind: str) -> None:
    before = cast.alice.post(f"/{kind}", FULL[kind]).body
    after = cast.alice.put(f"/{kind}/{before['id']}", {"name": "New"})
    kept = {name: before[name] for name in ("id", "project", "created_at")}
    kept |= {"canonical_name": "scribe"} if kind == "agents" else {}
    assert after.status == 200
    assert after.body == {**DEFAULTS[kind], **TIMES, **kept, "name": "New"}
    assert after["updated_at"] > before["updated_at"]


@both
def test_put_applies_all_that_is_given(cast: Cast, kind: str) -> None:
    before = made(cast.alice, kind)
    after = cast.alice.put(f"/{kind}/{before['id']}", FULL[kind])
    assert after.body == {"id": before["id"], **FULL[kind], **TIMES}
    assert cast.alice.get(f"/{kind}/{before['id']}").body == after.body


def test_put_of_an_agent_needs_a_name_and_that_of_an_end_user_nothing(cast: Cast) -> None:
    agent, user = made(cast.alice, "agents"), made(cast.alice, "users")
    answer = cast.alice.put(f"/agents/{agent['id']}", {"about": "x"})
    assert_error(answer, 422, "validation_error", loc="name")
    assert cast.alice.put(f"/users/{user['id']}", {})["name"] == ""


# --- Create or replace ----------------------------------------------------------------------------
@both
def test_post_to_an_id_creates_and_then_replaces(cast: Cast, kind: str) -> None:
    chosen = str(uuid4())
    created = cast.alice.post(f"/{kind}/{chosen}", FULL[kind])
    assert (created.status, created.body) == (201, {"id": chosen, **FULL[kind], **TIMES})
    replaced = cast.alice.post(f"/{kind}/{chosen}", {"name": "New"})
    kept = {"id": chosen, "project": "letters", "created_at": created["created_at"]}
    kept |= {"canonical_name": "scribe"} if kind == "agents" else {}
    assert replaced.status == 200
    assert replaced.body == {**DEFAULTS[kind], **TIMES, **kept, "name": "New"}
    moved = cast.alice.post(f"/{kind}/{chosen}", {"name": "New", "project": "default"})
    assert (moved.status, moved["project"]) == (200, "default")


# --- Change ---------------------------------------------------------------------------------------
@both
def test_patch_changes_what_is_given_and_nothing_else(cast: Cast, kind: str) -> None:
    before = cast.alice.post(f"/{kind}", FULL[kind]).body
    path = f"/{kind}/{before['id']}"
    changed = cast.alice.patch(path, {"about": "New"})
    assert (changed.status, changed.body) == (200, {**before, "about": "New", **TIMES})
    assert changed["updated_at"] > before["updated_at"]
    assert changed["created_at"] == before["created_at"]
    merged = cast.alice.patch(path, {"metadata": {"a": {"c": 1}, "n": None}})
    assert merged["metadata"] == {"a": {"c": 1}, "n": None}
    merged = cast.alice.patch(path, {"metadata": {"z": 1}})
    assert merged["metadata"] == {"a": {"c": 1}, "n": None, "z": 1}


@both
def test_patch_of_nothing_changes_no_value(cast: Cast, kind: str) -> None:
    before = cast.alice.post(f"/{kind}", FULL[kind]).body
    nulls = dict.fromkeys(("project", "canonical_name", "metadata", "default_settings"))
    for body in ({}, nulls, {"unknown": 1, "id": "x"}):
        answer = cast.alice.patch(f"/{kind}/{before['id']}", body)
        assert (answer.status, answer.body) == (200, {**before, **TIMES})


def test_patch_replaces_default_settings_and_takes_a_null_name(cast: Cast) -> None:
    before = cast.alice.post("/agents", FULL["agents"]).body
    body = {"default_settings": {"top_p": 1}, "name": None}
    changed = cast.alice.patch(f"/agents/{before['id']}", body)
    assert (changed["default_settings"], changed["name"]) == ({"top_p": 1}, "Scribe")


# --- Move -----------------------------------------------------------------------------------------
@both
@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST"])
def test_naming_another_project_moves_and_naming_none_does_not(
    cast: Cast, kind: str, method: str
) -> None:
    path = f"/{kind}/{made(cast.alice, kind)['id']}"
    moved = cast.alice.ask(method, path, {**NAME, "project": "letters"})
    assert (moved.status, moved["project"]) == (200, "letters")
    for body in (NAME, {**NAME, "project": None}):
        assert cast.alice.ask(method, path, body)["project"] == "letters"
    for project, number in (("letters", 1), ("default", 0)):
        assert len(cast.alice.get(f"/{kind}?project={project}")["items"]) == number


@both
def test_members_follow_the_name_of_their_project(cast: Cast, kind: str) -> None:
    path = f"/{kind}/{made(cast.alice, kind, project='letters')['id']}"
    uuid = Project.objects.get(owner__handle="alice", handle="letters").uuid
    assert cast.alice.patch(f"/projects/{uuid}", {"canonical_name": "post"}).status == 200
    assert cast.alice.get(path)["project"] == "post"
    assert len(cast.alice.get(f"/{kind}?project=post")["items"]) == 1
    assert cast.alice.get(f"/{kind}?project=letters")["items"] == []


# --- Documents ------------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [1e19, 1e22, -1e22, 1.5e300, 9223372036854775807, 1e-300])
def test_large_numbers_come_back_and_can_be_sent_again(cast: Cast, number: float) -> None:
    for kind in ("agents", "users", "projects"):
        created = made(cast.alice, kind, metadata={"n": number, "in": [number]})
        assert created["metadata"] == {"n": number, "in": [number]}
        found = cast.alice.get(f"/{kind}/{created['id']}")
        assert (found.status, found.body) == (200, created)
        assert cast.alice.get(f"/{kind}").status == 200
        again = {"name": "x", "metadata": found["metadata"]}
        answer = cast.alice.put(f"/{kind}/{created['id']}", again)
        assert (answer.status, answer["metadata"]) == (200, created["metadata"])
    settings = {"default_settings": {"n": number}}
    assert made(cast.alice, "agents", **settings)["default_settings"] == {"n": number}
    assert cast.alice.get("/agents").status == 200


@pytest.mark.parametrize("kind", ["agents", "users", "projects"])
def test_metadata_does_not_grow_past_its_limits_bit_by_bit(cast: Cast, kind: str) -> None:
    path = f"/{kind}/{made(cast.alice, kind)['id']}"
    for first, second, says in (
        ({f"a{n}": 0 for n in range(60_000)}, {f"b{n}": 0 for n in range(60_000)}, "100000 values"),
        ({"a": "x" * 600_000}, {"b": "x" * 600_000}, "1 MiB"),
    ):
        assert cast.alice.put(path, {"name": "x", "metadata": first}).status == 200
        with nothing_changes():
            answer = cast.alice.patch(path, {"metadata": second})
            assert_error(answer, 422, "validation_error", loc="metadata", says=says)


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": {"a": "x" * 1024**2}},
        {"default_settings": {"a": "x" * 1024**2}},
        {"instructions": ["x" * 1024**2]},
        {"default_system_template": "x" * (1024**2 + 1)},
    ],
)
def test_a_document_has_at_most_one_mebibyte(cast: Cast, body: dict[str, Any]) -> None:
    with nothing_changes():
        answer = cast.alice.post("/agents", {**NAME, **body})
        assert_error(answer, 422, "validation_error", loc=next(iter(body)))


# --- Delete ---------------------------------------------------------------------------------------
@both
def test_delete_answers_202_and_then_404(cast: Cast, kind: str) -> None:
    other = made(cast.alice, kind, project="letters")
    gone = made(cast.alice, kind, project="letters")
    answer = cast.alice.delete(f"/{kind}/{gone['id']}")
    assert answer.status == 202
    assert answer.body == {"id": gone["id"], "deleted_at": TIMES["created_at"], "jobs": []}
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        answer = cast.alice.ask(method, f"/{kind}/{gone['id']}", NAME)
        assert_error(answer, 404, "not_found")
    assert cast.alice.get(f"/{kind}/{other['id']}").status == 200
    assert cast.alice.get("/v1/projects/alice/letters").status == 200


@both
def test_what_is_no_uuid_is_422(cast: Cast, kind: str) -> None:
    with nothing_changes():
        for text in ("x", "models2", "0198b5a42f6e7cc19d536f0d4f9d2b10"):
            for method in ("GET", "PUT", "PATCH", "DELETE", "POST"):
                answer = cast.alice.ask(method, f"/{kind}/{text}", NAME)
                assert_error(answer, 422, "validation_error", loc="path.id")


def test_the_server_knows_no_models(cast: Cast) -> None:
    assert cast.alice.get("/agents/models").body == {"models": []}

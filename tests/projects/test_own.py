"""Projects in the Projects API: made, read, changed and listed by the account that owns them."""

from typing import Any
from uuid import uuid4

import pytest

from tests.answers import A_UUID, TIMES, assert_error, nothing_changes, queries_of
from tests.factories import Answer, Caller, Cast

AN_ID = "0198b5a4-2f6e-7cc1-9d53-6f0d4f9d2b10"
NAME = {"name": "Customer Support"}
FULL = {**NAME, "canonical_name": "customer_support", "metadata": {"team": {"lead": "ann"}}}


def made(caller: Caller, **body: Any) -> dict[str, Any]:
    answer = caller.post("/projects", {**NAME, **body})
    assert answer.status == 201, answer.body
    return dict(answer.body)


def names(answer: Answer) -> list[str]:
    return [each["canonical_name"] for each in answer["items"]]


# --- Create ---------------------------------------------------------------------------------------
def test_a_project_is_created_with_all_that_is_given(cast: Cast) -> None:
    created = cast.sam.post("/projects", FULL)
    assert (created.status, created.body) == (201, {"id": A_UUID, **FULL, **TIMES})
    assert cast.sam.get(f"/projects/{created['id']}").body == created.body


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Customer Support", "customer_suppo"),
        ("2024 Report", "report"),
        ("Übersetzung", "ubersetzung"),
        ("日本語", "project"),
        ("___", "project"),
        ("a" * 255, "a" * 14),
    ],
)
def test_a_canonical_name_is_made_from_the_name(cast: Cast, name: str, stem: str) -> None:
    generated = [made(cast.sam, name=name)["canonical_name"] for _ in range(3)]
    for each in generated:
        assert each.rpartition("_")[0] == stem
        assert each.isascii()
        assert each.replace("_", "").isalnum()
        assert len(each) <= 20
        assert cast.sam.get(f"/v1/projects/sam/{each}").status == 200
    assert len(set(generated)) == 3


@pytest.mark.parametrize("name", ["support-bot", "A", "a_b-c9", "x" * 255])
def test_canonical_names_may_be_these(cast: Cast, name: str) -> None:
    assert made(cast.sam, canonical_name=name)["canonical_name"] == name


@pytest.mark.parametrize(
    "name", ["", "1a", "_a", "-a", "a b", "a.b", "a/b", "ä", "a\n", "\na", "a" * 256, "\u0430"]
)
def test_canonical_names_may_not_be_these(cast: Cast, name: str) -> None:
    with nothing_changes():
        answer = cast.sam.post("/projects", {**NAME, "canonical_name": name})
        assert_error(answer, 422, "validation_error", loc="canonical_name")


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({}, "name"),
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": 5}, "name"),
        ({"name": "a" * 256}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\x9fb"}, "name"),
        ({**NAME, "metadata": []}, "metadata"),
        ({**NAME, "metadata": "{}"}, "metadata"),
        ({**NAME, "canonical_name": 5}, "canonical_name"),
    ],
)
def test_a_bad_value_is_named(cast: Cast, body: dict[str, Any], loc: str) -> None:
    with nothing_changes():
        assert_error(cast.sam.post("/projects", body), 422, "validation_error", loc=loc)


def test_nulls_are_as_good_as_absent(cast: Cast) -> None:
    project = made(cast.sam, canonical_name=None, metadata=None)
    assert project["metadata"] == {}
    assert project["canonical_name"].startswith("customer_suppo_")


def test_unknown_and_read_only_fields_are_ignored(cast: Cast) -> None:
    other = {"id": str(uuid4()), "created_at": "x", "developer_id": "y", "owner": "alice"}
    project = made(cast.sam, **other, is_default=True, instance_id=1, public_read=True)
    assert project["id"] != other["id"]
    shown = cast.sam.get(f"/v1/projects/sam/{project['canonical_name']}")
    assert (shown["owner"], shown["public_read"]) == ("sam", False)


@pytest.mark.parametrize("name", ["customer_support", "CUSTOMER_support"])
def test_a_name_that_is_taken_is_a_conflict(cast: Cast, name: str) -> None:
    made(cast.sam, canonical_name="customer_support")
    with nothing_changes():
        answer = cast.sam.post("/projects", {**NAME, "canonical_name": name})
        assert_error(answer, 409, "conflict", says="customer_support" if name.islower() else "")
    assert cast.rita.post("/projects", {**NAME, "canonical_name": name}).status == 201


# --- Replace --------------------------------------------------------------------------------------
def test_put_replaces_name_and_metadata_and_keeps_the_canonical_name(cast: Cast) -> None:
    project = made(cast.sam, **FULL)
    path = f"/projects/{project['id']}"
    replaced = cast.sam.put(path, {"name": "Helpdesk"})
    assert replaced.status == 200
    assert replaced.body == {**project, "name": "Helpdesk", "metadata": {}, **TIMES}
    assert replaced["created_at"] == project["created_at"]
    assert replaced["updated_at"] > project["updated_at"]
    assert cast.sam.put(path, {**NAME, "canonical_name": "helpdesk"})["canonical_name"] == (
        "helpdesk"
    )
    assert_error(cast.sam.put(path, {}), 422, "validation_error", loc="name")
    assert_error(cast.sam.put(path, {"name": None}), 422, "validation_error", loc="name")


def test_put_needs_a_project_that_is_there(cast: Cast) -> None:
    with nothing_changes():
        assert_error(cast.sam.put(f"/projects/{uuid4()}", NAME), 404, "not_found")


# --- Create or replace ----------------------------------------------------------------------------
def test_post_to_an_id_creates_and_then_replaces(cast: Cast) -> None:
    chosen = str(uuid4())
    path = f"/projects/{chosen}"
    created = cast.sam.post(path, FULL)
    assert (created.status, created.body) == (201, {"id": chosen, **FULL, **TIMES})
    replaced = cast.sam.post(path, {"name": "Helpdesk"})
    assert replaced.status == 200
    assert replaced.body == {**created.body, "name": "Helpdesk", "metadata": {}, **TIMES}
    assert len(cast.sam.get("/projects")["items"]) == 2


def test_an_id_is_free_for_every_owner(cast: Cast) -> None:
    mine = made(cast.sam, **FULL)
    other = cast.rita.post(f"/projects/{mine['id']}", {"name": "Rita's"})
    assert (other.status, other["id"], other["name"]) == (201, mine["id"], "Rita's")
    assert cast.sam.get(f"/projects/{mine['id']}").body == mine
    assert cast.rita.delete(f"/projects/{mine['id']}").status == 202
    assert cast.sam.get(f"/projects/{mine['id']}").body == mine


# --- Change ---------------------------------------------------------------------------------------
def test_patch_merges_metadata_at_its_top_level(cast: Cast) -> None:
    project = made(cast.sam, **FULL)
    path = f"/projects/{project['id']}"
    cast.sam.patch(path, {"metadata": {"region": "eu", "team": {"size": 3}, "x": 1}})
    changed = cast.sam.patch(path, {"metadata": {"region": None}})
    assert changed.status == 200
    assert changed["metadata"] == {"team": {"size": 3}, "region": None, "x": 1}
    assert changed["name"] == project["name"]


def test_patch_of_nothing_changes_no_value(cast: Cast) -> None:
    project = made(cast.sam, **FULL)
    nulls = {"name": None, "canonical_name": None, "metadata": None}
    for body in ({}, nulls, {"unknown": 1}):
        changed = cast.sam.patch(f"/projects/{project['id']}", body)
        assert (changed.status, changed.body) == (200, {**project, **TIMES})


def test_a_project_is_renamed_to_what_is_free(cast: Cast) -> None:
    project = made(cast.sam, **FULL)
    made(cast.sam, canonical_name="taken")
    path = f"/projects/{project['id']}"
    with nothing_changes():
        refused = cast.sam.patch(path, {"canonical_name": "Taken", "metadata": {"a": 1}})
        assert_error(refused, 409, "conflict")
        refused = cast.sam.patch(path, {"canonical_name": "not.good"})
        assert_error(refused, 422, "validation_error", loc="canonical_name")
    for name in ("Customer_Support", "helpdesk", "helpdesk"):
        assert cast.sam.patch(path, {"canonical_name": name})["canonical_name"] == name


# --- Delete ---------------------------------------------------------------------------------------
def test_delete_answers_202_and_then_404(cast: Cast) -> None:
    project = made(cast.sam, **FULL)
    path = f"/projects/{project['id']}"
    gone = cast.sam.delete(path)
    assert gone.status == 202
    assert gone.body == {"id": project["id"], "deleted_at": TIMES["created_at"], "jobs": []}
    for method in ("GET", "DELETE"):
        assert_error(cast.sam.ask(method, path), 404, "not_found")
    again = made(cast.sam, **FULL)
    assert again["id"] != project["id"]


# --- Addresses ------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["x", "1", "default", "0198b5a42f6e7cc19d536f0d4f9d2b10", "null"])
def test_what_is_no_uuid_is_422(cast: Cast, text: str) -> None:
    with nothing_changes():
        for method in ("GET", "PUT", "PATCH", "DELETE", "POST"):
            answer = cast.sam.ask(method, f"/projects/{text}", NAME)
            assert_error(answer, 422, "validation_error", loc="path.id")


def test_any_version_and_casing_of_a_uuid_is_an_id(cast: Cast) -> None:
    for chosen in (str(uuid4()), "00000000-0000-0000-0000-000000000000"):
        assert cast.sam.post(f"/projects/{chosen}", NAME).status == 201
        assert cast.sam.get(f"/projects/{chosen.upper()}")["id"] == chosen


@pytest.mark.parametrize("path", ["/projects", "/agents", "/users", "/files", "/agents/models"])
def test_no_address_takes_or_redirects_to_a_trailing_slash(cast: Cast, path: str) -> None:
    with nothing_changes():
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            answer = cast.sam.ask(method, f"{path}/", NAME)
            assert answer.status in {404, 422}
            assert "error" in answer.body


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/projects", {"GET", "POST"}),
        ("/agents", {"GET", "POST"}),
        ("/agents/models", {"GET"}),
        (f"/projects/{AN_ID}", {"GET", "POST", "PUT", "PATCH", "DELETE"}),
        (f"/users/{AN_ID}", {"GET", "POST", "PUT", "PATCH", "DELETE"}),
        (f"/files/{AN_ID}", {"GET", "PATCH", "DELETE"}),
    ],
)
def test_other_methods_are_405_with_those_allowed(cast: Cast, path: str, allowed: set[str]) -> None:
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - allowed:
        answer = cast.sam.ask(method, path, {})
        assert_error(answer, 405, "method_not_allowed")
        assert set(answer.headers["Allow"].split(", ")) - {"HEAD", "OPTIONS"} == allowed


@pytest.mark.parametrize(
    "path",
    [
        *("/agents/{}/docs", "/agents/{}/tools", "/users/{}/search", "/sessions", "/tasks/{}"),
        *("/executions/{}", "/jobs/{}", "/secrets", "/embed", "/docs/{}", "/projects/{}/members"),
    ],
)
def test_what_is_not_built_yet_is_a_404_of_this_api(cast: Cast, path: str) -> None:
    assert_error(cast.sam.get(path.format(uuid4())), 404, "not_found")
    assert_error(cast.sam.post(path.format(uuid4()), {}), 404, "not_found")


# --- Lists ----------------------------------------------------------------------------------------
def test_a_first_look_shows_the_default_project_only(cast: Cast) -> None:
    (default,) = cast.sam.get("/projects")["items"]
    assert default == {
        "id": A_UUID,
        "canonical_name": "default",
        "name": "Default Project",
        "metadata": {
            "is_default": True,
            "description": "Holds whatever was made without naming a project.",
        },
        **TIMES,
    }


def test_a_list_shows_what_one_owns_and_nothing_that_is_shared_or_public(cast: Cast) -> None:
    cast.alice.patch("/v1/projects/alice/letters", {"public_read": True})
    assert set(names(cast.alice.get("/projects"))) == {"default", "letters"}
    for caller in (cast.erin, cast.rita, cast.sam, cast.ada):
        assert names(caller.get("/projects")) == ["default"]


def test_a_list_costs_the_same_for_2_and_for_200(cast: Cast) -> None:
    made(cast.sam)
    few = queries_of(lambda: cast.sam.get("/projects?limit=999"))
    for _ in range(198):
        made(cast.sam)
    assert len(cast.sam.get("/projects?limit=999")["items"]) == 200
    assert queries_of(lambda: cast.sam.get("/projects?limit=999")) == few == 3

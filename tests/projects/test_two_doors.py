"""One project behind two doors: what is made, changed or deleted in one is so in the other."""

from typing import Any
from uuid import uuid4

import pytest

from accounts.models import ApiKey
from accounts.services import create_key
from projects.models import Project
from tests.answers import assert_error, assert_refused, nothing_changes
from tests.factories import Caller, Cast, item, make_project, stored

SCHEMA = '{"type": "object", "required": ["author"]}'
SETTINGS = {
    "description": "Letters of the eighteenth century",
    "metadataScheme": SCHEMA,
    "public_read": True,
}
LETTERS = "/v1/projects/alice/letters"


def own_id(cast: Cast, handle: str = "letters") -> str:
    listed = cast.alice.get("/projects")["items"]
    (found,) = [each["id"] for each in listed if each["canonical_name"] == handle]
    return str(found)


def upload(cast: Cast, owner: str = "alice", handle: str = "letters") -> None:
    rows = [item(each, [1, 0, 0.5], metadata={"author": "Kant"}) for each in ("a", "b")]
    answer = cast.ada.post(f"/v1/embeddings/{owner}/{handle}", {"embeddings": rows})
    assert answer.status == 201, answer.body


# --- Made in one, seen in the other ---------------------------------------------------------------
def test_what_v1_made_is_an_own_project(cast: Cast) -> None:
    found = cast.alice.get(f"/projects/{own_id(cast)}")
    assert (found["canonical_name"], found["name"], found["metadata"]) == (
        "letters",
        "letters",
        {},
    )


def test_what_the_projects_api_made_has_the_builtin_instance_and_takes_vectors(cast: Cast) -> None:
    name = "a-name-that-v1-would-not-give-to-anything-" + "x" * 200
    body = {"name": "Long", "canonical_name": name, "metadata": {"a": 1}}
    made = cast.alice.post("/projects", body)
    assert made.status == 201
    path = f"/v1/projects/alice/{name}"
    shown = cast.alice.get(path)
    assert (shown.status, shown["project_handle"], shown["role"]) == (200, name, "owner")
    assert (shown["instance_owner"], shown["instance_handle"]) == ("_system", "builtin")
    new = item("a", [0.5] * 512, instance_handle="_system/builtin")
    assert cast.alice.post(f"/v1/embeddings/alice/{name}", {"embeddings": [new]}).status == 201
    assert cast.alice.patch(path, {"description": "d"}).status == 200
    assert cast.alice.get(f"/projects/{made['id']}")["metadata"] == {"a": 1}
    assert name in [
        each["project_handle"] for each in cast.alice.get("/v1/projects/alice").body["projects"]
    ]


def test_a_handle_that_is_no_canonical_name_can_stay_and_be_named(cast: Cast) -> None:
    make_project("alice", "18th-century")
    uuid = own_id(cast, "18th-century")
    same = {"name": "New", "canonical_name": "18th-century"}
    for method in ("PUT", "PATCH", "POST"):
        answer = cast.alice.ask(method, f"/projects/{uuid}", same)
        assert (answer.status, answer["canonical_name"]) == (200, "18th-century")
    made = cast.alice.post("/agents", {"name": "x", "project": "18TH-century"})
    assert made["project"] == "18th-century"
    assert_error(
        cast.alice.patch(f"/projects/{uuid}", {"canonical_name": "19th-century"}),
        422,
        "validation_error",
    )


@pytest.mark.parametrize("name", ["letters", "LETTERS"])
def test_a_name_is_taken_in_both(cast: Cast, name: str) -> None:
    with nothing_changes():
        answer = cast.alice.post("/projects", {"name": "x", "canonical_name": name})
        assert_error(answer, 409, "conflict")
    cast.alice.post("/projects", {"name": "x", "canonical_name": "mine"})
    new = {"project_handle": name.replace("letters", "mine").replace("LETTERS", "MINE")}
    with nothing_changes():
        assert_refused(
            cast.alice.post("/v1/projects/alice", {**new, "instance_handle": "model"}), 409
        )


# --- Changed in one -------------------------------------------------------------------------------
def test_the_v1_address_follows_a_new_canonical_name(cast: Cast) -> None:
    upload(cast)
    renamed = cast.alice.patch(f"/projects/{own_id(cast)}", {"canonical_name": "correspondence"})
    assert renamed.status == 200
    for kind in ("projects", "embeddings"):
        assert cast.alice.get(f"/v1/{kind}/alice/letters").status == 404
        assert cast.rita.get(f"/v1/{kind}/alice/correspondence").status == 200
    found = cast.rita.get("/v1/similars/alice/correspondence/a")
    assert [hit["id"] for hit in found["results"]] == ["b"]
    assert cast.erin.delete("/v1/embeddings/alice/correspondence/a").status == 200


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH"])
def test_what_v1_says_survives_a_change_in_the_projects_api(cast: Cast, method: str) -> None:
    upload(cast)
    assert cast.alice.patch(LETTERS, SETTINGS).status == 200
    before = cast.alice.get(LETTERS).body
    body = {"name": "Letters", "metadata": {"a": 1}}
    assert cast.alice.ask(method, f"/projects/{own_id(cast)}", body).status == 200
    after = cast.alice.get(LETTERS).body
    assert after.pop("updated_at") > before.pop("updated_at")
    assert after == before
    assert (after["public_read"], after["metadataScheme"]) == (True, SCHEMA)
    assert (after["instance_handle"], after["number_of_embeddings"]) == ("model", 2)
    assert len(after["shared_with"]) == 3


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_name_and_metadata_survive_a_change_in_v1(cast: Cast, method: str) -> None:
    path = f"/projects/{own_id(cast)}"
    before = cast.alice.patch(path, {"name": "My letters", "metadata": {"a": 1}}).body
    body = {"instance_handle": "model", "description": "New"}
    assert cast.alice.ask(method, LETTERS, body).status == 200
    after = cast.alice.get(path).body
    assert after.pop("updated_at") > before.pop("updated_at")
    assert after == before


# --- Transferred in v1 ----------------------------------------------------------------------------
def fill(cast: Cast, **inside: Any) -> dict[str, str]:
    """Put one of each kind into a project of Alice's; return their addresses."""
    agent = cast.alice.post("/agents", {"name": "Agent", "canonical_name": "scribe", **inside})
    user = cast.alice.post("/users", {"name": "End user", **inside})
    file = cast.alice.post("/files", {"name": "a.txt", "content": "SGVsbG8h", **inside})
    made = {"agents": agent, "users": user, "files": file}
    assert [each.status for each in made.values()] == [201, 201, 201]
    return {kind: f"/{kind}/{each['id']}" for kind, each in made.items()}


def test_a_transfer_takes_everything_in_the_project_along(cast: Cast) -> None:
    inside, outside = fill(cast, project="letters"), {}
    outside["users"] = f"/users/{cast.alice.post('/users', {})['id']}"
    uuid = own_id(cast)
    to_sam = {"new_owner_handle": "sam"}
    assert cast.alice.post(f"{LETTERS}/transfer-ownership", to_sam).status == 200
    assert_error(cast.alice.get(f"/projects/{uuid}"), 404, "not_found")
    assert [each["canonical_name"] for each in cast.alice.get("/projects")["items"]] == ["default"]
    for kind, path in inside.items():
        for method in ("GET", "PATCH", "DELETE"):
            assert_error(cast.alice.ask(method, path, {}), 404, "not_found")
        listed = cast.alice.get(f"/{kind}").body
        assert path.rpartition("/")[2] not in str(listed)
        assert (cast.sam.get(path).status, cast.sam.get(path)["project"]) == (200, "letters")
        assert path.rpartition("/")[2] in str(cast.sam.get(f"/{kind}?project=letters").body)
    assert cast.sam.get(inside["files"])["content"] == "SGVsbG8h"
    assert cast.alice.get(outside["users"]).status == 200
    assert cast.sam.get(f"/projects/{uuid}")["canonical_name"] == "letters"
    # The names that went away are free again.
    assert cast.alice.post("/agents", {"name": "x", "canonical_name": "scribe"}).status == 201


@pytest.mark.parametrize("clash", ["name", "id of an agent", "id of a user", "id of the project"])
def test_a_transfer_that_would_clash_is_refused_whole(cast: Cast, clash: str) -> None:
    inside = fill(cast, project="letters")
    match clash:
        case "name":
            cast.sam.post("/agents", {"name": "x", "canonical_name": "SCRIBE"})
        case "id of an agent":
            cast.sam.post(inside["agents"], {"name": "x"})
        case "id of a user":
            cast.sam.post(inside["users"], {"name": "x"})
        case "id of the project":
            cast.sam.post(f"/projects/{own_id(cast)}", {"name": "x"})
    with nothing_changes():
        answer = cast.alice.post(f"{LETTERS}/transfer-ownership", {"new_owner_handle": "sam"})
        own = clash == "id of the project"
        says = "its id is in use there" if own else "an agent's canonical name or an id would occur"
        assert_refused(answer, 409, says=says)
    assert cast.alice.get(inside["agents"]).status == 200


# --- Deleted in one -------------------------------------------------------------------------------
def test_a_deletion_in_one_is_one_in_the_other(cast: Cast) -> None:
    upload(cast)
    uuid = own_id(cast)
    assert cast.alice.delete(f"/projects/{uuid}").status == 202
    assert cast.alice.get(LETTERS).status == cast.rita.get(LETTERS).status == 404
    make_project("alice", "letters")
    assert cast.alice.get(LETTERS)["number_of_embeddings"] == 0
    assert cast.rita.get(LETTERS).status == 403
    again = own_id(cast)
    assert again != uuid
    assert cast.alice.delete(LETTERS).status == 200
    assert_error(cast.alice.get(f"/projects/{again}"), 404, "not_found")


def test_a_deletion_takes_the_keys_of_the_project_along(cast: Cast) -> None:
    key = Caller(create_key(user=stored("alice"), project_id=cast.project.pk))
    assert key.get("/projects").status == 200
    assert cast.alice.delete(f"/projects/{own_id(cast)}").status == 202
    assert_error(key.get("/projects"), 401, "unauthorized")
    assert not ApiKey.objects.filter(project__isnull=False).exists()


# --- The default project in both ------------------------------------------------------------------
@pytest.fixture
def default(cast: Cast) -> str:
    """Return the address of Alice's default project in the Projects API."""
    return f"/projects/{own_id(cast, 'default')}"


def test_it_cannot_be_deleted(cast: Cast, default: str) -> None:
    for how in ("", "?on_resources=restrict", "?on_resources=move", "?on_resources=delete"):
        with nothing_changes():
            assert_error(cast.alice.delete(default + how), 409, "default_project_protected")
            refused = cast.alice.delete(f"/v1/projects/alice/default{how}")
            assert_refused(refused, 409, says="The default project cannot be deleted.")
            assert refused["type"] == "urn:armarium:problem:default-project-protected"
    cast.alice.post("/users", {})
    assert_error(cast.alice.delete(default), 409, "default_project_protected")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST"])
def test_its_canonical_name_is_locked_and_the_rest_is_not(
    cast: Cast, default: str, method: str
) -> None:
    for name in ("mine", "Default", "not.valid"):
        with nothing_changes():
            answer = cast.alice.ask(method, default, {"name": "x", "canonical_name": name})
            assert_error(answer, 409, "default_project_protected")
    body = {"name": "Odds and ends", "canonical_name": "default", "metadata": {"is_default": False}}
    changed = cast.alice.ask(method, default, body)
    assert (changed.status, changed["name"]) == (200, "Odds and ends")
    assert changed["metadata"]["is_default"] is False
    # What its metadata says is for people; the protection does not read it.
    assert_error(cast.alice.delete(default), 409, "default_project_protected")
    assert cast.alice.post("/users", {})["project"] == "default"


@pytest.mark.parametrize("name", ["default", "Default", "DEFAULT"])
def test_no_other_project_takes_its_name(cast: Cast, name: str) -> None:
    new = {"name": "x", "canonical_name": name}
    with nothing_changes():
        assert_error(cast.alice.post("/projects", new), 409, "conflict")
        assert_error(cast.alice.post(f"/projects/{uuid4()}", new), 409, "conflict")
        for method in ("PUT", "PATCH", "POST"):
            answer = cast.alice.ask(method, f"/projects/{own_id(cast)}", new)
            assert_error(answer, 409, "conflict")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/projects", None),
        ("POST", "/projects", {"name": "x"}),
        ("POST", "/agents", {"name": "x"}),
        ("POST", "/users", {}),
        ("POST", "/files", {"name": "x", "content": "SGVsbG8h"}),
        ("GET", "/v1/projects/sam", None),
    ],
)
def test_an_account_without_one_gets_it_at_the_first_interaction(
    cast: Cast, method: str, path: str, body: Any
) -> None:
    Project.objects.filter(owner__handle="sam").delete()
    answer = cast.sam.ask(method, path, body)
    assert answer.status in {200, 201}
    assert Project.objects.filter(owner__handle="sam", is_default=True).count() == 1
    if path in {"/agents", "/users", "/files"}:
        assert answer["project"] == "default"

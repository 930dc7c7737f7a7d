"""Deleting a project that holds agents, users or files, through both doors."""

from typing import Any

import pytest

from projects.models import Project
from resources.models import Agent, EndUser, File
from tests.answers import assert_error, assert_refused, nothing_changes
from tests.factories import Answer, Cast, item, make_project

OWN, V1 = "own", "v1"
doors = pytest.mark.parametrize("door", [OWN, V1])
COUNTS = {"agents": 2, "users": 1, "files": 3}


@pytest.fixture
def full(cast: Cast) -> Cast:
    """Put agents, users, files and an embedding into Alice's letters, and some elsewhere."""
    for n in range(2):
        cast.alice.post("/agents", {"name": f"a{n}", "project": "letters"})
    cast.alice.post("/users", {"project": "letters"})
    for n in range(3):
        body = {"name": f"f{n}", "content": "SGVsbG8h", "project": "letters"}
        assert cast.alice.post("/files", body).status == 201
    uploaded = {"embeddings": [item("a", [1, 2, 3])]}
    assert cast.alice.post("/v1/embeddings/alice/letters", uploaded).status == 201
    make_project("alice", "other")
    for caller, project in ((cast.alice, "other"), (cast.alice, "default"), (cast.sam, "default")):
        caller.post("/agents", {"name": "elsewhere", "project": project})
        caller.post("/files", {"name": "elsewhere", "content": "SGVsbG8h", "project": project})
    return cast


def delete(cast: Cast, door: str, query: str = "", *, role: str = "owner") -> Answer:
    path = f"/projects/{cast.project.uuid}" if door == OWN else "/v1/projects/alice/letters"
    return cast.with_role(role).delete(path + query)


def refused(answer: Answer, door: str, code: str, status: int = 409) -> Any:
    """Check the refusal in the words of its door; return its details."""
    if door == OWN:
        assert_error(answer, status, code)
        return answer["error"].get("details")
    assert answer.status == (400 if status == 422 else status), answer.body
    assert answer["type"].endswith(f":{code.replace('_', '-')}")
    return answer.body.get("details")


def in_projects(model: Any) -> dict[str, int]:
    """Return how many of a kind each project of Alice's holds."""
    found: dict[str, int] = {}
    for handle in model.objects.filter(owner__handle="alice").values_list(
        "project__handle", flat=True
    ):
        found[handle] = found.get(handle, 0) + 1
    return found


@doors
@pytest.mark.parametrize("query", ["", "?on_resources=restrict"])
def test_a_project_that_holds_something_is_not_deleted_unasked(
    full: Cast, door: str, query: str
) -> None:
    with nothing_changes():
        answer = delete(full, door, query)
        assert refused(answer, door, "project_not_empty") == COUNTS
    text = answer.content.decode()
    assert "2 agents, 1 user, 3 files" in text
    assert "on_resources=move" in text


@doors
def test_move_puts_everything_into_the_default_project(full: Cast, door: str) -> None:
    before = {each.pk: each.updated_at for each in Agent.objects.filter(project=full.project)}
    assert delete(full, door, "?on_resources=move").status in {200, 202}
    assert not Project.objects.filter(pk=full.project.pk).exists()
    assert in_projects(Agent) == {"default": 3, "other": 1}
    assert in_projects(EndUser) == {"default": 1}
    assert in_projects(File) == {"default": 4, "other": 1}
    for each in Agent.objects.filter(pk__in=before):
        assert each.updated_at > before[each.pk]
    listed = full.alice.get("/files?project=default").body
    assert {each["content"] for each in listed} == {"SGVsbG8h"}


@doors
def test_delete_takes_everything_in_it_along_and_nothing_else(full: Cast, door: str) -> None:
    assert delete(full, door, "?on_resources=delete").status in {200, 202}
    assert in_projects(Agent) == {"default": 1, "other": 1}
    assert in_projects(EndUser) == {}
    assert in_projects(File) == {"default": 1, "other": 1}
    assert Agent.objects.filter(owner__handle="sam").count() == 1
    assert File.objects.filter(owner__handle="sam").count() == 1


@doors
def test_a_project_of_the_same_name_starts_empty(full: Cast, door: str) -> None:
    assert delete(full, door, "?on_resources=delete").status in {200, 202}
    make_project("alice", "letters")
    for kind in ("agents", "users"):
        assert full.alice.get(f"/{kind}?project=letters")["items"] == []
    assert full.alice.get("/files?project=letters").body == []
    assert full.alice.get("/v1/embeddings/alice/letters")["total_count"] == 0


@doors
@pytest.mark.parametrize(
    "query",
    ["?on_resources=keep", "?on_resources=", "?on_resources=MOVE", "?on_resource=move"],
)
def test_another_word_is_refused(full: Cast, door: str, query: str) -> None:
    with nothing_changes():
        code = "validation_error" if door == OWN else "invalid_request"
        refused(delete(full, door, query), door, code, 422)
        refused(delete(full, door, "?on_resources=move&on_resources=delete"), door, code, 422)


@doors
@pytest.mark.parametrize("query", ["", "?on_resources=move", "?on_resources=delete"])
def test_an_empty_project_is_deleted_however_one_asks(cast: Cast, door: str, query: str) -> None:
    assert delete(cast, door, query).status in {200, 202}
    assert not Project.objects.filter(pk=cast.project.pk).exists()


@pytest.mark.parametrize("role", ["editor", "reader", "stranger"])
def test_others_learn_nothing_of_what_is_in_a_project(full: Cast, role: str) -> None:
    with nothing_changes():
        for query in ("", "?on_resources=move", "?on_resources=delete"):
            answer = delete(full, V1, query, role=role)
            assert_refused(answer, 403)
            assert "agents" not in answer.content.decode()
            assert_error(delete(full, OWN, query, role=role), 404, "not_found")


def test_an_administrator_deletes_for_the_owner(full: Cast) -> None:
    assert refused(delete(full, V1, role="admin"), V1, "project_not_empty") == COUNTS
    assert delete(full, V1, "?on_resources=move", role="admin").status == 200
    assert in_projects(Agent) == {"default": 3, "other": 1}
    assert full.ada.get("/agents")["items"] == []


def test_an_account_takes_everything_along(full: Cast) -> None:
    assert full.alice.delete("/v1/users/alice").status == 200
    for model in (Agent, EndUser, File):
        assert not model.objects.filter(owner__handle="alice").exists()
    assert Agent.objects.filter(owner__handle="sam").count() == 1

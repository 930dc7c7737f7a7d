"""Ownership transfer: the address moves, nothing is lost, and the old owner is out."""

from typing import Any

import pytest

from accounts.models import Role
from accounts.policy import BOOTSTRAP_ADMIN
from accounts.services import create_key
from llm_services import services as llm_services
from projects.models import Project
from tests.factories import Answer, Caller, Cast, item, make_instance, make_project, stored

OLD = "/v1/projects/alice/letters"
NEW = "/v1/projects/sam/letters"
SCHEMA = '{"type": "object", "properties": {"author": {"type": "string"}}, "required": ["author"]}'


@pytest.fixture
def filled(cast: Cast) -> Cast:
    """Give Alice's project a schema, a description and two embeddings."""
    settings = {"metadataScheme": SCHEMA, "description": "Letters"}
    assert cast.alice.patch(OLD, settings).status == 200
    items = [
        item("a", [1, 0, 0], text="first", metadata={"author": "Ann"}),
        item("b", [1, 1, 0], metadata={"author": "Bob"}),
    ]
    assert cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": items}).status == 201
    return cast


def transfer(caller: Caller, to: Any = "sam", path: str = OLD) -> Answer:
    return caller.post(f"{path}/transfer-ownership", {"new_owner_handle": to})


@pytest.mark.parametrize("role", ["owner", "admin"])
def test_the_owner_and_administrators_transfer(filled: Cast, role: str) -> None:
    answer = transfer(filled.with_role(role))
    assert (answer.status, answer.body) == (
        200,
        {
            "message": "Project 'alice/letters' now belongs to 'sam'.",
            "project_id": filled.project.pk,
            "project_handle": "letters",
            "old_owner": "alice",
            "new_owner": "sam",
            "new_path": NEW,
        },
    )
    assert filled.sam.get(NEW)["role"] == "owner"


@pytest.mark.parametrize(
    ("role", "status"), [("editor", 403), ("reader", 403), ("stranger", 403), ("anonymous", 401)]
)
@pytest.mark.parametrize("is_public", [False, True], ids=["private", "public"])
def test_nobody_else_transfers(filled: Cast, role: str, status: int, is_public: bool) -> None:
    filled.alice.patch(OLD, {"public_read": is_public})
    before = filled.alice.get(OLD).body
    for target in ("sam", "erin", "rita", "missing", "alice"):
        answer = transfer(filled.with_role(role), target)
        assert (answer.status, answer["status"]) == (status, status)
    assert filled.alice.get(OLD).body == before


def test_the_address_moves(filled: Cast) -> None:
    transfer(filled.alice)
    # Alice had all rights, the editor and the reader keep theirs under the new address.
    for caller in (filled.alice, filled.erin, filled.rita, filled.sam, filled.ada):
        for path in ("projects", "embeddings"):
            answer = caller.get(f"/v1/{path}/alice/letters")
            assert (answer.status, answer["status"]) == (404, 404)
        assert caller.get("/v1/similars/alice/letters/a").status == 404
        assert caller.get("/v1/embeddings/alice/letters/a").status == 404
        assert caller.post("/v1/similars/alice/letters", {"vector": [1, 2, 3]}).status == 404
    # Without a key nobody learns which addresses exist.
    assert filled.nobody.get(OLD).status == 401
    handles = [each["project_handle"] for each in filled.sam.get("/v1/projects/sam")["projects"]]
    assert handles == ["default", "letters"]
    handles = [
        each["project_handle"] for each in filled.alice.get("/v1/projects/alice")["projects"]
    ]
    assert handles == ["default"]


def test_the_old_owner_has_no_access_until_it_is_shared_again(filled: Cast) -> None:
    transfer(filled.alice)
    requests: list[tuple[str, str, Any]] = [
        ("GET", NEW, None),
        ("PATCH", NEW, {"description": "mine"}),
        ("PUT", NEW, {"instance_owner": "alice", "instance_handle": "model"}),
        ("DELETE", NEW, None),
        ("GET", f"{NEW}/shared-with", None),
        ("POST", f"{NEW}/share", {"share_with_handle": "alice", "role": "editor"}),
        ("DELETE", f"{NEW}/share/erin", None),
        ("POST", f"{NEW}/transfer-ownership", {"new_owner_handle": "alice"}),
        ("GET", "/v1/embeddings/sam/letters", None),
        ("POST", "/v1/embeddings/sam/letters", {"embeddings": [item("x", [1, 2, 3])]}),
        ("DELETE", "/v1/embeddings/sam/letters", None),
        ("GET", "/v1/similars/sam/letters/a", None),
    ]
    before = filled.sam.get(NEW).body
    for request in requests:
        answer = filled.alice.ask(*request)
        assert answer.status == 403, request
        assert b"Letters" not in answer.content
    assert filled.sam.get(NEW).body == before
    assert filled.alice.get("/v1/projects/sam")["projects"] == []

    share = {"share_with_handle": "alice", "role": "reader"}
    assert filled.sam.post(f"{NEW}/share", share).status == 201
    assert filled.alice.get(NEW)["role"] == "reader"
    assert filled.alice.delete(NEW).status == 403


def test_embeddings_move_and_stay_readable_and_searchable(filled: Cast) -> None:
    before = filled.alice.get("/v1/embeddings/alice/letters").body
    found = filled.alice.get("/v1/similars/alice/letters/a")["results"]
    transfer(filled.alice)
    for row in before["embeddings"]:
        row["user_handle"] = "sam"
    for caller in (filled.sam, filled.erin, filled.rita):
        assert caller.get("/v1/embeddings/sam/letters").body == before
        assert caller.get("/v1/embeddings/sam/letters/a").body == before["embeddings"][0]
        answer = caller.get("/v1/similars/sam/letters/a")
        assert (answer["user_handle"], answer["results"]) == ("sam", found)
        answer = caller.post("/v1/similars/sam/letters", {"vector": [1, 0, 0]})
        assert [hit["id"] for hit in answer["results"]] == ["a", "b"]


def test_settings_and_other_grants_stay(filled: Cast) -> None:
    filled.alice.patch(OLD, {"public_read": True})
    before = filled.alice.get(OLD).body
    transfer(filled.alice)
    after = filled.sam.get(NEW).body
    assert after["updated_at"] >= before["updated_at"]
    assert after == {**before, "owner": "sam", "updated_at": after["updated_at"]}
    assert after["metadataScheme"] == SCHEMA
    assert (after["instance_owner"], after["instance_handle"]) == ("alice", "model")
    assert [grant["user_handle"] for grant in after["shared_with"]] == ["*", "erin", "rita"]
    assert filled.nobody.get(NEW).status == 200
    assert filled.erin.get(NEW)["role"] == "editor"
    assert filled.rita.get(NEW)["role"] == "reader"


def test_a_grant_of_the_new_owner_is_dropped(filled: Cast) -> None:
    assert transfer(filled.alice, "erin").status == 200
    found = filled.erin.get("/v1/projects/erin/letters")
    assert (found["role"], found["shared_with"]) == (
        "owner",
        [{"user_handle": "rita", "role": "reader"}],
    )
    # Given away again, it does not come back.
    assert transfer(filled.erin, "sam", "/v1/projects/erin/letters").status == 200
    assert filled.erin.get(NEW).status == 403


def test_uploads_go_on_under_the_new_owner_by_the_same_instance(filled: Cast) -> None:
    transfer(filled.alice)
    path = "/v1/embeddings/sam/letters"
    author = {"author": "Cy"}
    for caller, name in [(filled.sam, "model"), (filled.erin, "alice/model")]:
        new = item(caller.handle, [1, 2, 3], instance_handle=name, metadata=author)
        assert caller.post(path, {"embeddings": [new]}).status == 201
    owned = item("x", [1, 2, 3], instance_owner="alice", metadata=author)
    assert filled.sam.put(f"{path}/x", owned).status == 201
    wrong = item("y", [1, 2, 3], instance_handle="sam/model", metadata=author)
    assert filled.sam.post(path, {"embeddings": [wrong]}).status == 400
    # The new owner neither owns the instance nor has a share on it.
    assert filled.sam.get("/v1/llm-services/alice/model").status == 403
    bare = item("z", [1, 2, 3], metadata={})
    assert filled.sam.post(path, {"embeddings": [bare]}).status == 400


def test_the_new_owner_can_keep_the_instance_but_not_choose_it_elsewhere(filled: Cast) -> None:
    transfer(filled.alice)
    assert filled.sam.patch(NEW, {"description": "mine now"}).status == 200
    keeps = {"instance_owner": "alice", "instance_handle": "model", "description": "put"}
    assert filled.sam.put(NEW, keeps).status == 200
    other = {"project_handle": "other", "instance_owner": "alice", "instance_handle": "model"}
    answer = filled.sam.post("/v1/projects/sam", other)
    assert (answer.status, answer["status"]) == (400, 400)
    by_id = {"project_handle": "other", "instance_id": filled.project.instance_id}
    assert filled.sam.post("/v1/projects/sam", by_id).status == 400
    # Once it is left, it is gone.
    make_instance("sam", "own")
    assert filled.sam.patch(NEW, {"instance_handle": "own"}).status == 200
    assert filled.sam.patch(NEW, {k: keeps[k] for k in list(keeps)[:2]}).status == 400
    assert filled.sam.get(NEW)["instance_handle"] == "own"


def test_an_instance_that_serves_a_given_away_project_is_in_use(filled: Cast) -> None:
    transfer(filled.alice)
    answer = filled.alice.delete("/v1/llm-services/alice/model")
    assert (answer.status, answer["status"]) == (409, 409)
    assert "in use by 1 projects" in answer["detail"]
    answer = filled.alice.delete("/v1/users/alice")
    assert (answer.status, answer["status"]) == (409, 409)
    assert "sam/letters" in answer["detail"]
    assert filled.rita.get("/v1/embeddings/sam/letters")["total_count"] == 2


@pytest.mark.parametrize(
    ("to", "status", "detail"),
    [
        ("missing", 404, "User 'missing' does not exist."),
        ("_system", 404, "User '_system' does not exist."),
        ("Sam", 404, "User 'Sam' does not exist."),
        ("*", 404, "User '*' does not exist."),
        ("alice", 400, "'alice' owns the project already."),
        ("", 400, None),
        (None, 400, None),
        (5, 400, None),
        (["sam"], 400, None),
    ],
)
def test_a_target_that_cannot_be_is_refused(
    filled: Cast, to: Any, status: int, detail: str | None
) -> None:
    before = filled.alice.get(OLD).body
    answer = transfer(filled.alice, to)
    assert (answer.status, answer["status"]) == (status, status)
    assert detail is None or answer["detail"] == detail
    assert filled.alice.get(OLD).body == before


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b"{", b'{"new_owner": "sam"}'])
def test_a_body_without_a_target_is_refused(filled: Cast, body: bytes) -> None:
    answer = filled.alice.post(f"{OLD}/transfer-ownership", raw=body)
    assert (answer.status, answer["status"]) == (400, 400)
    assert filled.alice.get(OLD).status == 200


@pytest.mark.parametrize("handle", ["letters", "Letters", "LETTERS"])
def test_a_handle_that_the_new_owner_uses_is_a_conflict(filled: Cast, handle: str) -> None:
    make_instance("sam", "model")
    make_project("sam", handle)
    answer = transfer(filled.alice)
    assert (answer.status, answer["detail"]) == (409, "'sam' already has a project 'letters'.")
    assert filled.alice.get(OLD)["role"] == "owner"
    assert [grant["user_handle"] for grant in filled.alice.get(OLD)["shared_with"]] == [
        "erin",
        "rita",
    ]
    assert filled.sam.get(f"/v1/projects/sam/{handle}")["number_of_embeddings"] == 0


def test_a_missing_project_is_404(cast: Cast) -> None:
    assert transfer(cast.alice, path="/v1/projects/alice/missing").status == 404
    assert transfer(cast.alice, path="/v1/projects/alice/Letters").status == 404
    assert transfer(cast.nobody, path="/v1/projects/alice/missing").status == 401


def test_the_default_project_cannot_be_given_away(cast: Cast) -> None:
    for caller in (cast.alice, cast.ada):
        answer = transfer(caller, path="/v1/projects/alice/default")
        assert (answer.status, answer["detail"]) == (
            409,
            "The default project cannot be transferred.",
        )
    assert Project.objects.get(owner__handle="alice", is_default=True).handle == "default"


def test_keys_for_this_project_alone_end_with_the_transfer(filled: Cast) -> None:
    key = create_key(user=stored("alice"), project_id=filled.project.pk, role_cap=Role.READER)
    bound = Caller(key)
    assert bound.get("/v1/embeddings/alice/letters").status == 200
    transfer(filled.alice)
    assert bound.get("/v1/embeddings/sam/letters").status == 401


def test_a_project_can_come_back(filled: Cast) -> None:
    before = filled.alice.get(OLD).body
    transfer(filled.alice)
    assert transfer(filled.sam, "alice", NEW).status == 200
    after = filled.alice.get(OLD).body
    assert after == {**before, "updated_at": after["updated_at"]}
    assert filled.sam.get(OLD).status == 403


def test_the_old_handle_is_free_again(filled: Cast) -> None:
    transfer(filled.alice)
    new = make_project("alice", "letters")
    assert filled.alice.get(OLD)["number_of_embeddings"] == 0
    assert new.pk != filled.project.pk
    assert filled.erin.get(OLD).status == 403


def test_unsharing_an_instance_leaves_projects_on_it_working(filled: Cast) -> None:
    llm_services.share_instance(
        actor=BOOTSTRAP_ADMIN, owner="alice", handle="model", user="sam", role=Role.READER
    )
    on_it = {"project_handle": "other", "instance_owner": "alice", "instance_handle": "model"}
    assert filled.sam.post("/v1/projects/sam", on_it).status == 201
    assert filled.alice.delete("/v1/llm-services/alice/model/share/sam").status == 200
    new = {"embeddings": [item("a", [1, 2, 3])]}
    assert filled.sam.post("/v1/embeddings/sam/other", new).status == 201

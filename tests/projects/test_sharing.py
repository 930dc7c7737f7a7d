"""Sharing: who may be let in, as what, who sees it, and that it ends at once."""

from typing import Any

import pytest

from projects.models import ProjectShare
from tests.factories import Caller, Cast, item, make_instance, make_project, make_user

ONE = "/v1/projects/alice/letters"
EMBEDDINGS = "/v1/embeddings/alice/letters"
EVERYBODY = {"user_handle": "*", "role": "reader"}
ERIN = {"user_handle": "erin", "role": "editor"}
RITA = {"user_handle": "rita", "role": "reader"}


def shares(cast: Cast) -> list[dict[str, str]]:
    answer = cast.alice.get(f"{ONE}/shared-with")
    assert answer.status == 200
    return list(answer["shared_with"])


def share(caller: Caller, user: Any, role: Any = "reader") -> Any:
    return caller.post(f"{ONE}/share", {"share_with_handle": user, "role": role})


@pytest.mark.parametrize("caller", ["owner", "admin"])
@pytest.mark.parametrize("role", ["reader", "editor"])
def test_the_owner_and_administrators_share(cast: Cast, caller: str, role: str) -> None:
    answer = share(cast.with_role(caller), "sam", role)
    assert (answer.status, answer.body) == (
        201,
        {
            "message": f"Project 'alice/letters' is now shared with 'sam' as {role}.",
            "project": "alice/letters",
            "shared_with": "sam",
            "role": role,
            "owner": "alice",
            "project_handle": "letters",
            "project_id": cast.project.pk,
            "shared_with_handle": "sam",
            "shared_with_role": role,
        },
    )
    assert cast.sam.get(ONE)["role"] == role
    listed = cast.with_role(caller).get(f"{ONE}/shared-with")
    assert (listed.status, listed.body) == (
        200,
        {
            "project": "alice/letters",
            "owner": "alice",
            "project_handle": "letters",
            "shared_with": [ERIN, RITA, {"user_handle": "sam", "role": role}],
        },
    )
    gone = cast.with_role(caller).delete(f"{ONE}/share/sam")
    assert (gone.status, gone.body) == (
        200,
        {
            "message": "Project 'alice/letters' is no longer shared with 'sam'.",
            "project": "alice/letters",
            "removed_user": "sam",
        },
    )
    assert cast.sam.get(ONE).status == 403
    assert shares(cast) == [ERIN, RITA]


@pytest.mark.parametrize(
    ("role", "status"), [("editor", 403), ("reader", 403), ("stranger", 403), ("anonymous", 401)]
)
@pytest.mark.parametrize("is_public", [False, True], ids=["private", "public"])
def test_nobody_else_shares_unshares_or_sees_the_sharees(
    cast: Cast, role: str, status: int, is_public: bool
) -> None:
    cast.alice.patch(ONE, {"public_read": is_public})
    before = shares(cast)
    caller = cast.with_role(role)
    for answer in [
        share(caller, "sam", "editor"),
        share(caller, "*"),
        share(caller, "missing"),
        caller.delete(f"{ONE}/share/rita"),
        caller.delete(f"{ONE}/share/erin"),
        caller.delete(f"{ONE}/share/*"),
        caller.get(f"{ONE}/shared-with"),
    ]:
        assert (answer.status, answer["status"]) == (status, status)
        assert b"rita" not in answer.content
    assert shares(cast) == before


def test_sharing_again_replaces_the_role(cast: Cast) -> None:
    for role in ("editor", "editor", "reader"):
        assert share(cast.alice, "rita", role).status == 201
        assert shares(cast) == [ERIN, {"user_handle": "rita", "role": role}]
    assert ProjectShare.objects.count() == 2
    new = {"embeddings": [item("a", [1, 2, 3])]}
    assert cast.rita.post(EMBEDDINGS, new).status == 403


@pytest.mark.parametrize(
    ("user", "role"),
    [
        ("alice", "reader"),
        ("alice", "editor"),
        ("sam", "owner"),
        ("sam", "admin"),
        ("sam", "Reader"),
        ("sam", ""),
        ("sam", None),
        ("sam", 1),
        ("sam", ["reader"]),
        ("missing", "reader"),
        ("Sam", "reader"),
        ("_system", "reader"),
        ("", "reader"),
        (None, "reader"),
        (5, "reader"),
        (["sam"], "reader"),
        ("*", "editor"),
        ("*", "owner"),
    ],
)
def test_a_share_that_cannot_be_is_refused(cast: Cast, user: Any, role: Any) -> None:
    for caller in (cast.alice, cast.ada):
        answer = share(caller, user, role)
        assert (answer.status, answer["status"], answer["title"]) == (400, 400, "Bad Request")
        assert answer["errors"][0]["location"].startswith("body.")
    assert shares(cast) == [ERIN, RITA]
    assert cast.alice.get(ONE)["public_read"] is False


@pytest.mark.parametrize(
    "body", [{}, {"share_with_handle": "sam"}, {"role": "reader"}, {"user_handle": "sam"}], ids=str
)
def test_a_share_names_whom_and_as_what(cast: Cast, body: dict[str, str]) -> None:
    assert cast.alice.post(f"{ONE}/share", body).status == 400
    assert shares(cast) == [ERIN, RITA]


@pytest.mark.parametrize("user", ["sam", "missing", "alice", "Rita", "*", "_system", "%2A%2A"])
def test_taking_back_what_was_never_given_is_404(cast: Cast, user: str) -> None:
    answer = cast.alice.delete(f"{ONE}/share/{user}")
    assert (answer.status, answer["status"]) == (404, 404)
    assert shares(cast) == [ERIN, RITA]
    assert cast.alice.get(ONE)["role"] == "owner"


def test_sharing_a_missing_project_is_404(cast: Cast) -> None:
    missing = "/v1/projects/alice/missing"
    body = {"share_with_handle": "sam", "role": "reader"}
    for method, path, sent in [
        ("POST", f"{missing}/share", body),
        ("DELETE", f"{missing}/share/sam", None),
        ("GET", f"{missing}/shared-with", None),
    ]:
        assert cast.alice.ask(method, path, sent).status == 404
        assert cast.nobody.ask(method, path, sent).status == 401


def test_the_owner_cannot_be_shared_with_or_removed_in_any_way(cast: Cast) -> None:
    owner = {"user_handle": "alice", "role": "reader"}
    instance = {"instance_owner": "alice", "instance_handle": "model"}
    for verb in ("PUT", "PATCH"):
        assert cast.alice.ask(verb, ONE, {**instance, "shared_with": [owner]}).status == 400
    assert cast.alice.delete(f"{ONE}/share/alice").status == 404
    assert cast.alice.patch(ONE, {"shared_with": []}).status == 200
    assert cast.alice.get(ONE)["role"] == "owner"
    assert shares(cast) == []


def test_sixty_sharees_all_get_in_and_are_listed_once(cast: Cast) -> None:
    people = [make_user(f"guest-{number:02}") for number in range(60)]
    for person in people:
        assert share(cast.alice, person.handle).status == 201
    assert len(shares(cast)) == 62
    assert {person.get(ONE)["role"] for person in people} == {"reader"}
    assert cast.alice.get("/v1/projects/alice")["total_count"] == 2
    assert people[59].get("/v1/projects/alice")["total_count"] == 1
    fewer = [{"user_handle": person.handle, "role": "editor"} for person in people[:55]]
    assert len(cast.alice.patch(ONE, {"shared_with": fewer})["shared_with"]) == 55
    assert people[54].get(ONE)["role"] == "editor"
    assert people[55].get(ONE).status == 403


def test_roles_do_not_reach_other_projects(cast: Cast) -> None:
    make_project("alice", "diaries")
    make_instance("sam", "model")
    make_project("sam", "letters", editors=["alice"])
    assert cast.erin.get("/v1/projects/alice/diaries").status == 403
    assert cast.rita.get("/v1/embeddings/alice/diaries").status == 403
    assert cast.erin.get("/v1/projects/sam/letters").status == 403
    assert cast.alice.get("/v1/projects/sam/letters")["role"] == "editor"
    assert cast.sam.get(ONE).status == 403


def test_sharing_a_project_does_not_share_its_instance(cast: Cast) -> None:
    for caller in (cast.erin, cast.rita):
        assert caller.get("/v1/llm-services/alice/model").status == 403
    new = {"embeddings": [item("a", [1, 2, 3])]}
    assert cast.erin.post(EMBEDDINGS, new).status == 201
    on_it = {
        "project_handle": "mine",
        "instance_owner": "alice",
        "instance_handle": "model",
    }
    assert cast.erin.post("/v1/projects/erin", on_it).status == 400


@pytest.mark.parametrize("role", ["editor", "reader"])
def test_a_sharee_may_neither_set_nor_delete_nor_give_on(cast: Cast, role: str) -> None:
    caller = cast.with_role(role)
    before = cast.alice.get(ONE).body
    instance = {"instance_owner": "alice", "instance_handle": "model"}
    requests: list[tuple[str, str, Any]] = [
        ("PATCH", ONE, {"description": "ours"}),
        ("PATCH", ONE, {"shared_with": []}),
        ("PUT", ONE, instance),
        ("DELETE", ONE, None),
        ("POST", f"{ONE}/share", {"share_with_handle": "sam", "role": "reader"}),
        ("POST", f"{ONE}/share", {"share_with_handle": caller.handle, "role": "editor"}),
        ("DELETE", f"{ONE}/share/{caller.handle}", None),
        ("GET", f"{ONE}/shared-with", None),
        ("POST", f"{ONE}/transfer-ownership", {"new_owner_handle": caller.handle}),
    ]
    for request in requests:
        assert caller.ask(*request).status == 403, request
    assert cast.alice.get(ONE).body == before


def test_a_share_ends_with_the_account_and_does_not_come_back(cast: Cast) -> None:
    assert cast.erin.delete("/v1/users/erin").status == 200
    assert shares(cast) == [RITA]
    again = make_user("erin")
    assert again.get(ONE).status == 403


# --- Everybody ------------------------------------------------------------------------------------
INSTANCE = {"instance_owner": "alice", "instance_handle": "model"}
PUBLISHING: list[tuple[str, str, Any]] = [
    ("POST", f"{ONE}/share", {"share_with_handle": "*", "role": "reader"}),
    ("PATCH", ONE, {"public_read": True}),
    ("PATCH", ONE, {"shared_with": ["*"]}),
    ("PATCH", ONE, {"shared_with": [EVERYBODY, ERIN]}),
    ("PUT", ONE, {**INSTANCE, "public_read": True}),
    ("PUT", ONE, {**INSTANCE, "shared_with": ["*"]}),
    ("PUT", ONE, {**INSTANCE, "shared_with": ["*"], "public_read": True}),
    ("PUT", ONE, {**INSTANCE, "shared_with": [RITA], "public_read": True}),
]
HIDING: list[tuple[str, str, Any]] = [
    ("DELETE", f"{ONE}/share/*", None),
    ("DELETE", f"{ONE}/share/%2A", None),
    ("PATCH", ONE, {"public_read": False}),
    ("PATCH", ONE, {"shared_with": [ERIN]}),
    ("PUT", ONE, INSTANCE),
    ("PUT", ONE, {**INSTANCE, "shared_with": []}),
    ("PUT", ONE, {**INSTANCE, "public_read": False, "shared_with": [RITA]}),
]


@pytest.mark.parametrize("request_", PUBLISHING, ids=lambda r: f"{r[0]} {r[2]}")
def test_a_star_is_public(cast: Cast, request_: tuple[str, str, Any]) -> None:
    assert cast.nobody.get(ONE).status == 401
    assert cast.alice.ask(*request_).status in {200, 201}
    project = cast.alice.get(ONE)
    assert project["public_read"] is True
    assert project["shared_with"][0] == EVERYBODY
    assert project["shared_with"] == shares(cast)
    assert not ProjectShare.objects.filter(user__handle="*").exists()
    assert cast.nobody.get(ONE)["role"] == "reader"
    assert "shared_with" not in cast.nobody.get(ONE).body
    assert cast.sam.get(EMBEDDINGS).status == 200
    # Everybody's right to read takes nothing from those who have more, and gives no more.
    assert cast.alice.get(ONE)["role"] == "owner"
    new = {"embeddings": [item("a", [1, 2, 3])]}
    assert cast.nobody.post(EMBEDDINGS, new).status == 401
    assert cast.sam.post(EMBEDDINGS, new).status == 403


@pytest.mark.parametrize("request_", HIDING, ids=lambda r: f"{r[0]} {r[1][-8:]} {r[2]}")
def test_a_public_project_can_be_hidden_at_once(cast: Cast, request_: tuple[str, str, Any]) -> None:
    share(cast.alice, "*")
    assert cast.nobody.get(EMBEDDINGS).status == 200
    answer = cast.alice.ask(*request_)
    assert answer.status == 200
    for path in (ONE, EMBEDDINGS):
        assert cast.nobody.get(path).status == 401
        assert cast.sam.get(path).status == 403
    project = cast.alice.get(ONE)
    assert project["public_read"] is False
    assert EVERYBODY not in project["shared_with"]


def test_publishing_leaves_the_other_grants(cast: Cast) -> None:
    share(cast.alice, "*")
    assert shares(cast) == [EVERYBODY, ERIN, RITA]
    cast.alice.delete(f"{ONE}/share/*")
    assert shares(cast) == [ERIN, RITA]
    assert cast.erin.get(ONE)["role"] == "editor"


def test_a_star_in_a_new_project_is_public(cast: Cast) -> None:
    new = {"project_handle": "open", **INSTANCE, "shared_with": ["*"]}
    answer = cast.alice.post("/v1/projects/alice", new)
    assert (answer.status, answer["public_read"], answer["shared_with"]) == (201, True, [EVERYBODY])
    assert cast.nobody.get("/v1/projects/alice/open").status == 200

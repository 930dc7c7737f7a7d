"""The users resource: contract v1, sections 2, 5, 6, 7 and 17."""

from typing import Any

import pytest

from accounts import services
from accounts.models import User
from accounts.policy import Actor
from common.errors import Forbidden
from embeddings.models import Embedding
from llm_services.models import Definition, DefinitionShare, Instance, InstanceShare
from projects.models import Project, ProjectShare
from tests.answers import (
    A_KEY,
    TIMES,
    assert_refused,
    nothing_changes,
    page,
    queries_of,
    rolled_back,
    state,
)
from tests.factories import (
    Caller,
    Cast,
    item,
    make_instance,
    make_project,
    make_user,
    stored,
)

NOT_ADMINISTRATORS = ["anonymous", "stranger", "reader", "editor", "owner"]
OTHERS_THAN_ALICE = ["anonymous", "stranger", "reader", "editor"]
REFUSED = {"anonymous": 401}


def refusal(role: str) -> int:
    """Return with which status somebody of a role is refused."""
    return REFUSED.get(role, 403)


# --- Who may --------------------------------------------------------------------------------------
ADMINISTRATION: list[tuple[str, str, Any, int]] = [
    ("GET", "/v1/users", None, 200),
    ("POST", "/v1/users", {"user_handle": "newcomer"}, 201),
    ("PUT", "/v1/users/newcomer", {}, 201),
    ("PUT", "/v1/users/alice", {"name": "Alice"}, 200),
]


def test_only_administrators_list_create_and_replace_users(cast: Cast) -> None:
    for method, path, body, success in ADMINISTRATION:
        with nothing_changes():
            for role in NOT_ADMINISTRATORS:
                assert_refused(cast.with_role(role).ask(method, path, body), refusal(role))
        with rolled_back():
            assert cast.ada.ask(method, path, body).status == success


def test_only_a_user_and_administrators_read_change_and_delete_it(cast: Cast) -> None:
    for method, body in (("GET", None), ("PATCH", {"name": "Alice Roe"}), ("DELETE", None)):
        with nothing_changes():
            for role in OTHERS_THAN_ALICE:
                answer = cast.with_role(role).ask(method, "/v1/users/alice", body)
                assert_refused(answer, refusal(role))
                assert b"Alice Roe" not in answer.content
        for role in ("owner", "admin"):
            with rolled_back():
                answer = cast.with_role(role).ask(method, "/v1/users/alice", body)
                assert answer.status == 200


def test_a_user_cannot_put_itself(cast: Cast) -> None:
    with nothing_changes():
        assert_refused(cast.alice.put("/v1/users/alice", {"name": "Alice"}), 403)


def test_an_absent_user_is_404_with_any_key_and_401_without(cast: Cast) -> None:
    for method, body in (("GET", None), ("PATCH", {"name": "N"}), ("DELETE", None)):
        for caller, status in ((cast.ada, 404), (cast.sam, 404), (cast.nobody, 401)):
            assert_refused(caller.ask(method, "/v1/users/nobody-here", body), status)


def test_the_path_matches_the_handle_exactly(cast: Cast) -> None:
    assert_refused(cast.ada.get("/v1/users/Alice"), 404)


# --- POST -----------------------------------------------------------------------------------------
def test_creating_a_user_shows_the_key_under_both_names(cast: Cast) -> None:
    answer = cast.ada.post(
        "/v1/users", {"user_handle": "bob", "name": "Bob B", "email": "bob@example.org"}
    )
    assert answer.status == 201
    assert answer.body == {
        "user_handle": "bob",
        "name": "Bob B",
        "email": "bob@example.org",
        "embapi_key": A_KEY,
        "api_key": answer["embapi_key"],
        **TIMES,
    }
    assert Caller(answer["api_key"]).get("/v1/users/bob").status == 200


def test_the_key_is_never_shown_again(cast: Cast) -> None:
    key = cast.ada.post("/v1/users", {"user_handle": "bob"})["api_key"]
    digest = stored("bob").api_keys.get().digest
    bob = Caller(key)
    answers = [
        bob.get("/v1/users/bob"),
        bob.patch("/v1/users/bob", {"name": "B"}),
        cast.ada.put("/v1/users/bob", {"name": "B"}),
        cast.ada.get("/v1/users"),
        cast.ada.post("/v1/users", {"user_handle": "bob"}),
        bob.delete("/v1/users/bob"),
    ]
    assert [each.status for each in answers] == [200, 200, 200, 200, 409, 200]
    for answer in answers:
        assert key.encode() not in answer.content
        assert bytes(digest).hex().encode() not in answer.content
        assert b"api_key" not in answer.content
        assert b"embapi_key" not in answer.content


def test_a_handle_of_3_to_20_letters_digits_hyphens_and_underscores_is_fine(cast: Cast) -> None:
    for handle in ("abc", "a" * 20, "a-b_C9", "---", "Zed", "administrator"):
        assert cast.ada.post("/v1/users", {"user_handle": handle}).status == 201
        assert cast.ada.get(f"/v1/users/{handle}")["user_handle"] == handle


BAD_USERS: dict[str, tuple[dict[str, Any], str]] = {
    "no handle": ({}, "user_handle"),
    "handle null": ({"user_handle": None}, "user_handle"),
    "handle a number": ({"user_handle": 12345}, "user_handle"),
    "handle a boolean": ({"user_handle": True}, "user_handle"),
    "handle a list": ({"user_handle": ["bob"]}, "user_handle"),
    "handle an object": ({"user_handle": {"a": "bob"}}, "user_handle"),
    "handle empty": ({"user_handle": ""}, "user_handle"),
    "handle of 2": ({"user_handle": "ab"}, "user_handle"),
    "handle of 21": ({"user_handle": "a" * 21}, "user_handle"),
    "handle huge": ({"user_handle": "a" * 500_000}, "user_handle"),
    "handle with a space": ({"user_handle": "a b"}, "user_handle"),
    "handle with spaces around": ({"user_handle": " bob "}, "user_handle"),
    "handle with a slash": ({"user_handle": "a/b"}, "user_handle"),
    "handle with a newline": ({"user_handle": "bob\n"}, "user_handle"),
    "handle with an umlaut": ({"user_handle": "böb"}, "user_handle"),
    "handle in full width": ({"user_handle": "ｂｏｂ"}, "user_handle"),  # noqa: RUF001
    "handle with other digits": ({"user_handle": "bob٣"}, "user_handle"),
    "handle with markup": ({"user_handle": "<b>bob</b>"}, "user_handle"),
    "handle _system": ({"user_handle": "_system"}, "user_handle"),
    "handle _System": ({"user_handle": "_System"}, "user_handle"),
    "handle admin": ({"user_handle": "admin"}, "user_handle"),
    "handle Admin": ({"user_handle": "Admin"}, "user_handle"),
    "handle public": ({"user_handle": "public"}, "user_handle"),
    "handle *": ({"user_handle": "*"}, "user_handle"),
    "name of 51": ({"user_handle": "bob", "name": "n" * 51}, "name"),
    "name a number": ({"user_handle": "bob", "name": 5}, "name"),
    "email without @": ({"user_handle": "bob", "email": "bob.example.org"}, "email"),
    "email of 101": ({"user_handle": "bob", "email": f"{'b' * 89}@example.org"}, "email"),
    "email a number": ({"user_handle": "bob", "email": 5}, "email"),
    "email with a newline": ({"user_handle": "bob", "email": "bob@example.org\n"}, "email"),
}


def test_a_wrong_user_is_refused_by_name_of_the_field(cast: Cast) -> None:
    with nothing_changes():
        for body, field in BAD_USERS.values():
            assert_refused(cast.ada.post("/v1/users", body), 400, location=f"body.{field}")
    good = {"user_handle": "bob", "name": "n" * 50, "email": f"{'b' * 60}@example.org"}
    assert cast.ada.post("/v1/users", good).status == 201


def test_a_wrong_user_is_refused_by_put_too(cast: Cast) -> None:
    with nothing_changes():
        for handle in ("ab", "a" * 21, "a b", "_System", "admin", "PUBLIC", "*", "b%C3%B6b"):
            answer = cast.ada.put(f"/v1/users/{handle}", {})
            assert_refused(answer, 400, location="body.user_handle")
        for name, (body, field) in BAD_USERS.items():
            if not name.startswith("handle") and field != "user_handle":
                answer = cast.ada.put("/v1/users/bob", body)
                assert_refused(answer, 400, location=f"body.{field}")
    assert cast.ada.put("/v1/users/bob", {}).status == 201


def test_a_taken_handle_is_409_whatever_its_case_and_nothing_changes(cast: Cast) -> None:
    with nothing_changes():
        for handle in ("alice", "ALICE", "Alice"):
            assert_refused(cast.ada.post("/v1/users", {"user_handle": handle}), 409, says="exists")
    assert cast.alice.get("/v1/users/alice").status == 200


def test_put_of_another_casing_is_409(cast: Cast) -> None:
    with nothing_changes():
        assert_refused(cast.ada.put("/v1/users/ALICE", {"name": "Other"}), 409)


def test_email_is_optional_and_unique_when_given(cast: Cast) -> None:
    assert cast.ada.post("/v1/users", {"user_handle": "no-mail1"})["email"] == ""
    assert cast.ada.post("/v1/users", {"user_handle": "no-mail2", "email": None}).status == 201
    assert cast.ada.post("/v1/users", {"user_handle": "no-mail3", "email": ""}).status == 201
    given = {"email": "alice@example.org"}
    assert cast.ada.patch("/v1/users/alice", given).status == 200
    with nothing_changes():
        for answer in (
            cast.ada.post("/v1/users", {"user_handle": "bob", **given}),
            cast.ada.put("/v1/users/bob", given),
            cast.ada.put("/v1/users/sam", given),
            cast.sam.patch("/v1/users/sam", given),
        ):
            assert_refused(answer, 409, says="email")
    assert cast.alice.patch("/v1/users/alice", given).status == 200


def test_fields_that_a_user_has_not_are_ignored(cast: Cast) -> None:
    extra = {
        "is_superuser": True,
        "is_staff": True,
        "role": "admin",
        "api_key": "mine",
        "password": "hunter2hunter2",
        "id": 1,
        "projects": ["letters"],
    }
    answer = cast.ada.post("/v1/users", {"user_handle": "bob", **extra})
    assert answer.status == 201
    assert answer["api_key"] == A_KEY
    bob = Caller(answer["api_key"])
    assert bob.patch("/v1/users/bob", extra).status == 200
    assert cast.ada.put("/v1/users/bob", extra).status == 200
    assert_refused(bob.get("/v1/users"), 403)
    account = stored("bob")
    assert not account.is_superuser
    assert not account.is_staff
    assert not account.has_usable_password()


def test_a_new_user_has_a_default_project(cast: Cast) -> None:
    bob = Caller(cast.ada.post("/v1/users", {"user_handle": "bob"})["api_key"])
    listed = bob.get("/v1/projects/bob")["projects"]
    assert [each["project_handle"] for each in listed] == ["default"]


# --- GET ------------------------------------------------------------------------------------------
def test_a_user_reads_what_it_owns_and_is_given(cast: Cast) -> None:
    make_instance("sam", "sams-model")
    cast.alice.post(
        "/v1/llm-services/alice/model/share", {"share_with_handle": "rita", "role": "reader"}
    )
    assert cast.rita.get("/v1/users/rita").body == {
        "user_handle": "rita",
        "name": "",
        "email": "",
        **TIMES,
        "projects": [
            {"project_handle": "letters", "owner": "alice", "role": "reader"},
            {"project_handle": "default", "owner": "rita", "role": "owner"},
        ],
        "instances": [{"instance_handle": "model", "owner": "alice", "role": "reader"}],
    }
    alice = cast.ada.get("/v1/users/alice")
    assert alice["instances"] == [{"instance_handle": "model", "owner": "alice", "role": "owner"}]
    assert [each["project_handle"] for each in alice["projects"]] == ["default", "letters"]
    assert cast.ada.get("/v1/users/ada")["projects"] == [
        {"project_handle": "default", "owner": "ada", "role": "owner"}
    ]


def test_a_key_for_one_project_does_not_learn_of_the_others(cast: Cast) -> None:
    make_project("alice", "diaries")
    alice = stored("alice")
    capped = Caller(services.create_key(user=alice, project_id=cast.project.pk))
    answer = capped.get("/v1/users/alice")
    assert answer.body == {"user_handle": "alice", "name": "", "email": "", **TIMES}
    listed = capped.get("/v1/projects/alice")["projects"]
    assert [each["project_handle"] for each in listed] == ["letters"]


def test_the_list_holds_handles_in_order_and_system(cast: Cast) -> None:
    handles = ["_system", "ada", "alice", "erin", "rita", "sam"]
    assert cast.ada.get("/v1/users").body == page("users", handles, total=6)


def test_the_list_of_users_takes_as_many_queries_for_20_as_for_2(cast: Cast) -> None:
    few = queries_of(lambda: cast.ada.get("/v1/users?limit=200"))
    for number in range(20):
        make_user(f"user{number}")
    assert queries_of(lambda: cast.ada.get("/v1/users?limit=200")) == few


def test_a_user_with_20_projects_takes_as_many_queries_as_one_with_2(cast: Cast) -> None:
    few = queries_of(lambda: cast.alice.get("/v1/users/alice"))
    for number in range(20):
        make_instance("alice", f"model{number}")
        make_project("alice", f"project{number}", readers=["rita", "sam"])
    assert queries_of(lambda: cast.alice.get("/v1/users/alice")) == few
    assert len(cast.alice.get("/v1/users/alice")["projects"]) == 22


# --- PUT ------------------------------------------------------------------------------------------
def test_put_creates_with_a_key_and_replaces_without(cast: Cast) -> None:
    created = cast.ada.put("/v1/users/bob", {"name": "Bob", "email": "bob@example.org"})
    assert created.status == 201
    assert created.body == {
        "user_handle": "bob",
        "name": "Bob",
        "email": "bob@example.org",
        "embapi_key": A_KEY,
        "api_key": created["embapi_key"],
        **TIMES,
    }
    replaced = cast.ada.put("/v1/users/bob", {"user_handle": "bob", "name": "Bob B"})
    assert replaced.status == 200
    assert replaced.body == {"user_handle": "bob", "name": "Bob B", "email": "", **TIMES}
    assert Caller(created["api_key"]).get("/v1/users/bob").status == 200
    assert stored("bob").api_keys.count() == 1


def test_put_keeps_what_the_user_owns_and_is(cast: Cast) -> None:
    assert cast.ada.put("/v1/users/ada", {"name": "Ada"}).status == 200
    assert cast.ada.get("/v1/users").status == 200
    assert cast.ada.put("/v1/users/alice", {}).status == 200
    assert cast.rita.get("/v1/projects/alice/letters").status == 200


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_handle_in_the_body_must_be_that_of_the_address(cast: Cast, method: str) -> None:
    with nothing_changes():
        for other in ("bob", "ALICE", "", " alice"):
            answer = cast.ada.ask(method, "/v1/users/alice", {"user_handle": other, "name": "X"})
            assert_refused(answer, 400, location="body.user_handle")
    same = {"user_handle": "alice", "name": "X"}
    assert cast.ada.ask(method, "/v1/users/alice", same).status == 200


# --- PATCH ----------------------------------------------------------------------------------------
def test_patch_changes_what_is_given_and_null_clears(cast: Cast) -> None:
    before = cast.ada.put("/v1/users/alice", {"name": "Alice", "email": "a@example.org"})
    described = {"user_handle": "alice", "name": "Alice Roe", "email": "a@example.org", **TIMES}
    assert cast.alice.patch("/v1/users/alice", {"name": "Alice Roe"}).body == described
    assert cast.alice.patch("/v1/users/alice", {}).body == described
    cleared = {**described, "email": ""}
    assert cast.alice.patch("/v1/users/alice", {"email": None}).body == cleared
    cleared["name"] = ""
    after = cast.alice.patch("/v1/users/alice", {"name": None})
    assert after.body == cleared
    assert after["created_at"] == before["created_at"]
    assert after["updated_at"] > before["updated_at"]
    assert stored("alice").email is None


def test_a_wrong_patch_is_refused_whole(cast: Cast) -> None:
    with nothing_changes():
        for body, field in (
            ({"name": "Good", "email": "bad"}, "email"),
            ({"name": "n" * 51}, "name"),
            ({"name": ["A"]}, "name"),
        ):
            answer = cast.alice.patch("/v1/users/alice", body)
            assert_refused(answer, 400, location=f"body.{field}")


# --- DELETE ---------------------------------------------------------------------------------------
@pytest.fixture
def wide_reach(cast: Cast) -> Cast:
    """Give Alice one of everything that an account owns, gives and is given."""
    uploaded = cast.alice.post(
        "/v1/embeddings/alice/letters", {"embeddings": [item("a", [1, 2, 3]), item("b", [3, 2, 1])]}
    )
    assert uploaded.status == 201
    body = {
        "definition_handle": "template",
        "endpoint": "https://api.example.org/v1",
        "api_standard": "openai",
        "model": "m",
        "dimensions": 3,
    }
    assert cast.alice.post("/v1/llm-service-definitions/alice", body).status == 201
    make_instance("sam", "model")
    make_project("sam", "sams", editors=["alice"])
    share = {"share_with_handle": "rita", "role": "reader"}
    assert cast.alice.post("/v1/llm-services/alice/model/share", share).status == 201
    definition = "/v1/llm-service-definitions/alice/template/share"
    assert cast.alice.post(definition, share).status == 201
    share = {"share_with_handle": "alice", "role": "editor"}
    assert cast.sam.post("/v1/llm-services/sam/model/share", share).status == 201
    return cast


def test_deleting_a_user_takes_all_it_owns_and_every_grant(wide_reach: Cast) -> None:
    cast, alice = wide_reach, stored("alice")
    answer = cast.alice.delete("/v1/users/alice")
    assert answer.status == 200
    assert answer.body == {"message": "User 'alice' deleted."}
    assert_refused(cast.alice.get("/v1/users/alice"), 401)
    assert_refused(cast.ada.get("/v1/users/alice"), 404)
    assert not User.objects.filter(pk=alice.pk).exists()
    for owned in (Project, Instance, Definition):
        assert not owned._default_manager.filter(owner_id=alice.pk).exists()
    for share in (ProjectShare, InstanceShare, DefinitionShare):
        assert not share._default_manager.filter(user_id=alice.pk).exists()
        assert not share._default_manager.filter(subject__owner_id=alice.pk).exists()
    assert not Embedding.objects.exists()
    assert cast.sam.get("/v1/projects/sam/sams/shared-with")["shared_with"] == []


def test_a_handle_made_again_inherits_nothing(wide_reach: Cast) -> None:
    cast, old_key = wide_reach, wide_reach.alice.key
    assert cast.ada.delete("/v1/users/alice").status == 200
    again = Caller(cast.ada.post("/v1/users", {"user_handle": "alice"})["api_key"])
    assert_refused(Caller(old_key).get("/v1/users/alice"), 401)
    described = again.get("/v1/users/alice")
    assert [each["project_handle"] for each in described["projects"]] == ["default"]
    assert described["instances"] == []
    assert_refused(again.get("/v1/projects/sam/sams"), 403)
    assert_refused(again.get("/v1/llm-services/sam/model"), 403)
    assert_refused(again.get("/v1/embeddings/alice/letters"), 404)
    assert_refused(cast.rita.get("/v1/projects/alice/letters"), 404)


def test_a_user_whose_instance_others_use_cannot_be_deleted(wide_reach: Cast) -> None:
    cast = wide_reach
    named = {"instance_owner": "sam", "instance_handle": "model"}
    body = {"project_handle": "borrowed", **named}
    assert cast.alice.post("/v1/projects/alice", body).status == 201
    with nothing_changes():
        for caller in (cast.sam, cast.ada):
            answer = caller.delete("/v1/users/sam")
            assert_refused(answer, 409, says="in use by 1 projects")
            assert "alice/borrowed" in answer["detail"]
            assert "sam/sams" not in answer["detail"]
    assert cast.sam.get("/v1/users/sam").status == 200
    assert cast.alice.delete("/v1/projects/alice/borrowed").status == 200
    assert cast.sam.delete("/v1/users/sam").status == 200


# --- _system --------------------------------------------------------------------------------------
def test_system_cannot_be_changed_or_deleted(cast: Cast) -> None:
    with nothing_changes():
        for caller in (cast.sam, cast.ada):
            assert_refused(caller.put("/v1/users/_system", {"name": "Mine"}), 403)
            assert_refused(caller.patch("/v1/users/_system", {"name": "Mine"}), 403)
            assert_refused(caller.delete("/v1/users/_system"), 403)


def test_system_can_never_have_a_key(cast: Cast) -> None:
    system = stored("_system")
    assert not system.is_active
    assert not system.has_usable_password()
    before = state()
    with pytest.raises(Forbidden):
        services.create_key(user=system)
    with pytest.raises(Forbidden):
        services.import_key(user=system, key="ab" * 32)
    assert state() == before
    assert cast.ada.get("/v1/users/_system")["user_handle"] == "_system"


def test_a_refused_creation_gives_away_no_key_and_makes_no_project(cast: Cast) -> None:
    with nothing_changes(), pytest.raises(Forbidden):
        services.create_user(actor=Actor(user=stored("sam")), handle="bob")

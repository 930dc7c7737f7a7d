"""LLM service instances: contract v1, section 10; reliability, E5 and E6."""

from typing import Any

import pytest

from llm_services import services
from llm_services.models import Instance
from tests.answers import (
    AN_ID,
    TIMES,
    assert_refused,
    nothing_changes,
    page,
    queries_of,
    rolled_back,
)
from tests.factories import Cast, item, make_instance, make_project, make_user

BASE = "/v1/llm-services"
ALIAS = "/v1/llm-instances"
ONE = f"{BASE}/alice/mine"
# Whoever finds this in an answer has found a leak.
CANARY = "sk-canary-7f3a9c-do-not-show"
STANDALONE: dict[str, Any] = {
    "instance_handle": "mine",
    "endpoint": "https://api.example.org/v1/embeddings",
    "description": "Mine",
    "api_standard": "openai",
    "model": "example-1",
    "dimensions": 3,
    "context_limit": 512,
}
NO_DEFINITION = {"definition_id": None, "definition_owner": None, "definition_handle": None}
SHOWN: dict[str, Any] = {
    "instance_id": AN_ID,
    "owner": "alice",
    "access_role": "owner",
    "has_api_key": False,
    **NO_DEFINITION,
    **STANDALONE,
    **TIMES,
}
FROM_OPENAI = {
    "instance_handle": "mine",
    "definition_owner": "_system",
    "definition_handle": "openai-large",
}
COPIED: dict[str, Any] = {
    **SHOWN,
    "definition_id": AN_ID,
    "definition_owner": "_system",
    "definition_handle": "openai-large",
    "endpoint": "https://api.openai.com/v1/embeddings",
    "description": "",
    "model": "text-embedding-3-large",
    "dimensions": 3072,
    "context_limit": 8192,
}
BUILTIN = {
    "instance_id": AN_ID,
    "instance_handle": "builtin",
    "owner": "_system",
    **NO_DEFINITION,
    "endpoint": "builtin:universal-sentence-encoder-multilingual-3",
    "description": "Universal Sentence Encoder multilingual v3: 16 languages, on this server, "
    "for everybody.",
    "api_standard": "builtin",
    "model": "universal-sentence-encoder-multilingual-3",
    "dimensions": 512,
    "context_limit": None,
    "access_role": "reader",
    "has_api_key": False,
    **TIMES,
}


def without(body: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return the body without some fields."""
    return {name: value for name, value in body.items() if name not in names}


def key_of(handle: str = "mine") -> str:
    """Return the provider's key that is stored for Alice's instance."""
    return services.api_key_of(Instance.objects.get(owner__handle="alice", handle=handle))


@pytest.fixture
def shared(cast: Cast) -> Cast:
    """Alice has `mine` with a key, shared with Rita (reader) and Erin (editor)."""
    assert cast.alice.post(f"{BASE}/alice", {**STANDALONE, "api_key": CANARY}).status == 201
    for user, role in (("rita", "reader"), ("erin", "editor")):
        body = {"share_with_handle": user, "role": role}
        assert cast.alice.post(f"{ONE}/share", body).status == 201
    return cast


# --- Who may --------------------------------------------------------------------------------------
WRITES: list[tuple[str, str, Any, int]] = [
    ("POST", f"{BASE}/alice", {**STANDALONE, "instance_handle": "another"}, 201),
    ("POST", f"{BASE}/alice/from-definition", {**FROM_OPENAI, "instance_handle": "new"}, 201),
    ("PUT", f"{BASE}/alice/another", without(STANDALONE, "instance_handle"), 201),
    ("PUT", ONE, STANDALONE, 200),
    ("PATCH", ONE, {"description": "changed"}, 200),
    ("DELETE", ONE, None, 200),
    ("POST", f"{ONE}/share", {"share_with_handle": "sam", "role": "reader"}, 201),
    ("DELETE", f"{ONE}/share/rita", None, 200),
    ("GET", f"{ONE}/shared-with", None, 200),
]


def test_only_the_owner_and_administrators_write_an_instance(shared: Cast) -> None:
    for method, path, body, success in WRITES:
        with nothing_changes():
            for role in ("anonymous", "stranger", "reader", "editor"):
                answer = shared.with_role(role).ask(method, path, body)
                assert_refused(answer, 401 if role == "anonymous" else 403)
                assert b"example" not in answer.content
        for role in ("owner", "admin"):
            with rolled_back():
                assert shared.with_role(role).ask(method, path, body).status == success


def test_an_instance_is_read_by_its_owner_and_sharees(shared: Cast) -> None:
    shown = {**SHOWN, "has_api_key": True}
    for role, word in (
        ("owner", "owner"),
        ("admin", "admin"),
        ("reader", "reader"),
        ("editor", "editor"),
    ):
        answer = shared.with_role(role).get(ONE)
        assert (answer.status, answer.body) == (200, {**shown, "access_role": word})
    assert_refused(shared.sam.get(ONE), 403)
    assert_refused(shared.nobody.get(ONE), 401)
    for caller, status in ((shared.alice, 404), (shared.sam, 404), (shared.nobody, 401)):
        assert_refused(caller.get(f"{BASE}/alice/absent"), status)
        assert_refused(caller.get(f"{BASE}/nobody-here/absent"), status)
    assert_refused(shared.alice.get(f"{BASE}/alice/MINE"), 404)


def test_the_list_holds_own_and_shared_each_once(shared: Cast) -> None:
    make_instance("rita", "ritas")
    mine = {**SHOWN, "has_api_key": True}
    model = {
        **SHOWN,
        "instance_handle": "model",
        "description": "",
        "model": "test-embedding",
        "context_limit": None,
    }
    ritas = {**model, "instance_handle": "ritas", "owner": "rita"}
    alices = page("instances", [mine, model], total=2)
    assert shared.alice.get(f"{BASE}/alice").body == alices
    own = page("instances", [{**mine, "access_role": "reader"}, ritas], total=2)
    assert shared.rita.get(f"{BASE}/rita").body == own
    administered = shared.ada.get(f"{BASE}/rita")
    assert [each["instance_handle"] for each in administered["instances"]] == ["mine", "ritas"]
    assert {each["access_role"] for each in administered["instances"]} == {"admin"}
    for caller, word in ((shared.rita, "reader"), (shared.erin, "editor")):
        filtered = page("instances", [{**mine, "access_role": word}], total=1)
        assert caller.get(f"{BASE}/alice").body == filtered
    assert_refused(shared.sam.get(f"{BASE}/alice"), 403)
    assert_refused(shared.nobody.get(f"{BASE}/alice"), 401)
    assert_refused(shared.ada.get(f"{BASE}/nobody-here"), 404)
    assert shared.sam.get(f"{BASE}/sam").body == page("instances", [], total=0)


def test_an_administrators_own_instance_says_owner(cast: Cast) -> None:
    body = {**STANDALONE, "instance_handle": "adas"}
    assert cast.ada.post(f"{BASE}/ada", body)["access_role"] == "owner"
    assert cast.ada.get(f"{BASE}/ada")["instances"][0]["access_role"] == "owner"


# --- Standalone -----------------------------------------------------------------------------------
def test_a_standalone_instance_lives_from_post_to_delete(cast: Cast) -> None:
    created = cast.alice.post(f"{BASE}/alice", STANDALONE)
    assert (created.status, created.body) == (201, SHOWN)
    assert cast.alice.get(ONE).body == created.body
    patched = cast.alice.patch(ONE, {"model": "example-2"})
    assert (patched.status, patched.body) == (
        200,
        {**created.body, "model": "example-2", **TIMES},
    )
    cleared = cast.alice.patch(ONE, {"description": None, "context_limit": None})
    defaults = {"description": "", "context_limit": None}
    assert cleared.body == {**patched.body, **defaults, **TIMES}
    replaced = cast.alice.put(ONE, without(STANDALONE, "instance_handle", "description"))
    assert replaced.status == 200
    assert replaced.body == {**created.body, "description": "", **TIMES}
    deleted = cast.alice.delete(ONE)
    assert deleted.status == 200
    assert deleted.body == {"message": "LLM service 'alice/mine' deleted."}
    for method, body in (("GET", None), ("PATCH", {"model": "m"}), ("DELETE", None)):
        assert_refused(cast.alice.ask(method, ONE, body), 404)
    assert cast.alice.put(ONE, STANDALONE).status == 201


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"instance_handle": "ab"}, "instance_handle"),
    ({"instance_handle": "a" * 21}, "instance_handle"),
    ({"instance_handle": "a b c"}, "instance_handle"),
    ({"instance_handle": "from-definition"}, "instance_handle"),
    ({"instance_handle": "From-Definition"}, "instance_handle"),
    ({"instance_handle": "share"}, "instance_handle"),
    ({"instance_handle": "shared-with"}, "instance_handle"),
    ({"instance_handle": ["mine"]}, "instance_handle"),
    ({"endpoint": None}, "endpoint"),
    ({"endpoint": "example.org"}, "endpoint"),
    ({"endpoint": "builtin:mine"}, "endpoint"),
    ({"endpoint": "gopher://example.org/"}, "endpoint"),
    ({"endpoint": "https://key@example.org/"}, "endpoint"),
    ({"endpoint": "https://example.org:0/"}, "endpoint"),
    ({"endpoint": ["https://example.org/"]}, "endpoint"),
    ({"api_standard": "unknown"}, "api_standard"),
    ({"api_standard": None}, "api_standard"),
    ({"model": ""}, "model"),
    ({"model": None}, "model"),
    ({"dimensions": 0}, "dimensions"),
    ({"dimensions": 16_001}, "dimensions"),
    ({"dimensions": 2.0}, "dimensions"),
    ({"dimensions": "3"}, "dimensions"),
    ({"dimensions": None}, "dimensions"),
    ({"context_limit": -5}, "context_limit"),
    ({"context_limit": False}, "context_limit"),
    ({"api_key": 5}, "api_key"),
    ({"api_key": [CANARY]}, "api_key"),
    ({"api_key": CANARY * 400}, "api_key"),
    ({"api_key_encrypted": {"key": CANARY}}, "api_key_encrypted"),
    ({"definition_handle": "openai-large"}, "definition_handle"),
    ({"definition_owner": "_system"}, "definition_handle"),
    ({"definition_owner": 1, "definition_handle": "openai-large"}, "definition_owner"),
]


def test_a_wrong_instance_is_refused_by_name_of_the_field(shared: Cast) -> None:
    fresh = {**STANDALONE, "instance_handle": "fresh"}
    with nothing_changes():
        for wrong, field in WRONG:
            answer = shared.alice.post(f"{BASE}/alice", {**fresh, **wrong})
            assert_refused(answer, 400, location=f"body.{field}")
            assert CANARY.encode() not in answer.content
            for method in ("PUT", "PATCH"):
                answer = shared.alice.ask(method, ONE, {**STANDALONE, **wrong})
                assert_refused(answer, 400, location=f"body.{field}")
        for field in ("instance_handle", "endpoint", "api_standard", "model", "dimensions"):
            answer = shared.alice.post(f"{BASE}/alice", without(fresh, field))
            assert_refused(answer, 400, location=f"body.{field}")
            if field != "instance_handle":
                answer = shared.alice.put(ONE, without(STANDALONE, field))
                assert_refused(answer, 400, location=f"body.{field}")
        nothing = shared.alice.put(f"{BASE}/alice/fresh", {})
        assert_refused(nothing, 400, says="name a definition")
    assert shared.alice.post(f"{BASE}/alice", fresh).status == 201


def test_a_taken_handle_is_409_whatever_its_case(shared: Cast) -> None:
    with nothing_changes():
        for handle in ("mine", "MINE"):
            body = {**STANDALONE, "instance_handle": handle}
            assert_refused(shared.alice.post(f"{BASE}/alice", body), 409, says="exists")
        other = {**STANDALONE, "instance_handle": "MINE"}
        assert_refused(shared.alice.put(f"{BASE}/alice/MINE", other), 409)
    assert shared.sam.post(f"{BASE}/sam", STANDALONE).status == 201


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_an_instance_cannot_be_renamed_or_given_away(shared: Cast, method: str) -> None:
    with nothing_changes():
        body = {**STANDALONE, "instance_handle": "renamed"}
        answer = shared.alice.ask(method, ONE, body)
        assert_refused(answer, 400, location="body.instance_handle")
    extra = {
        "owner": "sam",
        "instance_id": 1,
        "definition_id": 1,
        "access_role": "admin",
        "has_api_key": False,
        "sealed_key": "",
        "shared_with": [],
    }
    answer = shared.alice.ask(method, ONE, {**STANDALONE, **extra})
    assert answer.body == {**SHOWN, "has_api_key": True}
    assert len(shared.alice.get(f"{ONE}/shared-with")["shared_with"]) == 2


# --- From a definition ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", f"{BASE}/alice"), ("POST", f"{BASE}/alice/from-definition"), ("PUT", ONE)],
)
def test_an_instance_is_made_from_a_definition_by_every_address(
    cast: Cast, method: str, path: str
) -> None:
    created = cast.alice.ask(method, path, FROM_OPENAI)
    assert (created.status, created.body) == (201, COPIED)
    override = {"model": "mine-too", "dimensions": 256, "description": "Own", "api_key": CANARY}
    if method == "POST":
        override["instance_handle"] = "second"
    second = cast.alice.ask(method, path, {**FROM_OPENAI, **override})
    shown = {**COPIED, **without(override, "api_key"), "has_api_key": True}
    assert (second.status, second.body) == (201 if method == "POST" else 200, shown)


def test_from_definition_needs_a_definition_that_exists_and_is_visible(cast: Cast) -> None:
    body = {**without(STANDALONE, "instance_handle"), "definition_handle": "hidden"}
    assert cast.sam.post("/v1/llm-service-definitions/sam", body).status == 201
    named = {"instance_handle": "mine", "definition_owner": "sam", "definition_handle": "hidden"}
    addresses = [("POST", f"{BASE}/alice"), ("POST", f"{BASE}/alice/from-definition"), ("PUT", ONE)]
    with nothing_changes():
        for method, path in addresses:
            refused = cast.alice.ask(method, path, named)
            assert_refused(refused, 403)
            assert b"example" not in refused.content
            absent = {**named, "definition_handle": "absent"}
            assert_refused(cast.alice.ask(method, path, absent), 404)
            unknown = {**named, "definition_owner": "nobody-here"}
            assert_refused(cast.alice.ask(method, path, unknown), 404)
        standalone = cast.alice.post(f"{BASE}/alice/from-definition", STANDALONE)
        assert_refused(standalone, 400, location="body.definition_handle")
    hidden = "/v1/llm-service-definitions/sam/hidden"
    assert cast.sam.post(f"{hidden}/share", {"share_with_handle": "alice"}).status == 201
    assert cast.alice.put(ONE, named)["definition_owner"] == "sam"
    assert cast.sam.patch(hidden, {"is_public": True}).status == 200
    rita = cast.rita.put(f"{BASE}/rita/mine", named)
    assert (rita.status, rita["model"]) == (201, "example-1")


def test_later_edits_of_the_definition_do_not_propagate(cast: Cast) -> None:
    path = "/v1/llm-service-definitions/alice/template"
    template = without(STANDALONE, "instance_handle")
    assert cast.alice.put(path, template).status == 201
    named = {"definition_owner": "alice", "definition_handle": "template"}
    copy = cast.alice.put(ONE, named)
    assert copy.status == 201
    changed = {"model": "example-9", "dimensions": 9, "endpoint": "https://other.example.org/"}
    assert cast.alice.patch(path, changed).status == 200
    assert cast.alice.get(ONE).body == copy.body


# --- The provider's key ---------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["api_key", "api_key_encrypted"])
def test_a_provider_key_is_taken_under_both_names_and_never_shown(cast: Cast, name: str) -> None:
    named = {"share_with_handle": "rita", "role": "reader"}
    answers = [
        cast.alice.post(f"{BASE}/alice", {**STANDALONE, name: CANARY}),
        cast.alice.get(ONE),
        cast.alice.get(f"{BASE}/alice"),
        cast.alice.put(ONE, {**STANDALONE, name: CANARY}),
        cast.alice.patch(ONE, {name: CANARY}),
        cast.alice.post(f"{ONE}/share", named),
        cast.alice.get(f"{ONE}/shared-with"),
        cast.rita.get(ONE),
        cast.rita.get(f"{BASE}/rita"),
        cast.ada.get(ONE),
        cast.alice.get("/v1/users/alice"),
        cast.alice.post(f"{BASE}/alice", {**STANDALONE, name: CANARY}),
        cast.alice.patch(ONE, {"dimensions": 0, name: CANARY}),
        cast.alice.post(
            f"{BASE}/alice/from-definition",
            {**FROM_OPENAI, "instance_handle": "copy", name: CANARY},
        ),
    ]
    assert key_of() == CANARY
    sealed = bytes(Instance.objects.get(handle="mine").sealed_key)
    for answer in answers:
        assert CANARY.encode() not in answer.content
        assert sealed.hex().encode() not in answer.content
        assert b"api_key_encrypted" not in answer.content
        assert b"sealed_key" not in answer.content
        assert b'"api_key"' not in answer.content
    assert answers[1]["has_api_key"] is True
    assert answers[-1]["has_api_key"] is True


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("name", ["api_key", "api_key_encrypted"])
def test_an_absent_key_keeps_and_null_or_empty_erases(shared: Cast, method: str, name: str) -> None:
    def ask(fields: dict[str, Any]) -> Any:
        body = {**STANDALONE, **fields} if method == "PUT" else fields
        return shared.alice.ask(method, ONE, body)["has_api_key"], key_of()

    assert ask({"description": "x"}) == (True, CANARY)
    assert ask({name: "sk-second"}) == (True, "sk-second")
    assert ask({name: ""}) == (False, "")
    assert ask({name: CANARY}) == (True, CANARY)
    assert ask({name: None}) == (False, "")
    assert ask({}) == (False, "")


ENDPOINTS = {
    "https://api.example.org/v2/other?x=1": True,
    "https://api.example.org:443/v1/embeddings": True,
    "HTTPS://API.EXAMPLE.ORG/v1/embeddings": True,
    "http://api.example.org/v1/embeddings": False,
    "https://api.example.com/v1/embeddings": False,
    "https://evil.example.org/v1/embeddings": False,
    "https://api.example.org.evil.org/v1/embeddings": False,
    "https://api.example.org:8443/v1/embeddings": False,
}


def test_moving_the_endpoint_to_another_server_erases_the_key(shared: Cast) -> None:
    for endpoint, kept in ENDPOINTS.items():
        moved = {"endpoint": endpoint}
        for method, body in (("PATCH", moved), ("PUT", {**STANDALONE, **moved})):
            with rolled_back():
                answer = shared.alice.ask(method, ONE, body)
                assert answer.body == {**SHOWN, **moved, "has_api_key": kept}, endpoint
                assert key_of() == (CANARY if kept else "")


def test_moving_the_endpoint_by_a_definition_erases_the_key_too(shared: Cast) -> None:
    named = {"definition_owner": "_system", "definition_handle": "cohere-v4"}
    assert shared.alice.patch(ONE, named)["has_api_key"] is False
    moved = {"endpoint": "https://other.example.org/", "api_key": "sk-other"}
    assert shared.alice.patch(ONE, moved)["has_api_key"] is True
    assert key_of() == "sk-other"
    assert shared.alice.put(ONE, named)["has_api_key"] is False


# --- Sharing --------------------------------------------------------------------------------------
def test_an_instance_is_shared_replaced_and_taken_back(cast: Cast) -> None:
    assert cast.alice.post(f"{BASE}/alice", STANDALONE).status == 201
    grants: dict[str, Any] = {
        "instance": "alice/mine",
        "owner": "alice",
        "instance_handle": "mine",
    }

    def share(user: str, role: str) -> Any:
        return cast.alice.post(f"{ONE}/share", {"share_with_handle": user, "role": role})

    first = share("rita", "editor")
    rita, erin = ({"user_handle": name, "role": "editor"} for name in ("rita", "erin"))
    assert (first.status, first.body) == (201, {**grants, "shared_with": [rita]})
    assert share("erin", "editor").body == {**grants, "shared_with": [erin, rita]}
    rita["role"] = "reader"
    assert share("rita", "reader").body == {**grants, "shared_with": [erin, rita]}
    assert cast.alice.get(f"{ONE}/shared-with").body == {**grants, "shared_with": [erin, rita]}
    answer = cast.alice.delete(f"{ONE}/share/rita")
    assert answer.status == 200
    assert answer.body == {"message": "'alice/mine' is no longer shared with 'rita'."}
    assert_refused(cast.rita.get(ONE), 403)
    assert_refused(cast.alice.delete(f"{ONE}/share/rita"), 404)
    assert_refused(cast.alice.delete(f"{ONE}/share/nobody-here"), 404)
    assert cast.erin.get(ONE).status == 200


WRONG_SHARES: list[tuple[dict[str, Any], str]] = [
    ({"role": "reader"}, "share_with_handle"),
    ({"share_with_handle": "sam"}, "role"),
    ({"share_with_handle": "sam", "role": "owner"}, "role"),
    ({"share_with_handle": "sam", "role": "admin"}, "role"),
    ({"share_with_handle": "sam", "role": "Reader"}, "role"),
    ({"share_with_handle": "sam", "role": ""}, "role"),
    ({"share_with_handle": "sam", "role": None}, "role"),
    ({"share_with_handle": "sam", "role": ["reader"]}, "role"),
    ({"share_with_handle": "alice", "role": "reader"}, "share_with_handle"),
    ({"share_with_handle": "unknown", "role": "reader"}, "share_with_handle"),
    ({"share_with_handle": "SAM", "role": "reader"}, "share_with_handle"),
    ({"share_with_handle": "_system", "role": "reader"}, "share_with_handle"),
    ({"share_with_handle": "*", "role": "reader"}, "share_with_handle"),
    ({"share_with_handle": 5, "role": "reader"}, "share_with_handle"),
]


def test_a_share_needs_another_account_and_a_role(shared: Cast) -> None:
    with nothing_changes():
        for body, field in WRONG_SHARES:
            answer = shared.alice.post(f"{ONE}/share", body)
            assert_refused(answer, 400, location=f"body.{field}")


def test_sharees_base_their_own_projects_on_the_instance(shared: Cast) -> None:
    body = {
        "project_handle": "borrowing",
        "instance_owner": "alice",
        "instance_handle": "mine",
    }
    with nothing_changes():
        refused = shared.sam.post("/v1/projects/sam", body)
        assert_refused(refused, 400, location="body.instance_handle")
    for caller in (shared.rita, shared.erin):
        assert caller.post(f"/v1/projects/{caller.handle}", body).status == 201


def test_sixty_sharees_all_have_access_and_the_instance_is_listed_once(shared: Cast) -> None:
    sharees = [make_user(f"sharee{number:02}") for number in range(60)]
    for sharee in sharees:
        body = {"share_with_handle": sharee.handle, "role": "reader"}
        assert shared.alice.post(f"{ONE}/share", body).status == 201
    for sharee in (sharees[0], sharees[50], sharees[51], sharees[59]):
        assert sharee.get(ONE)["access_role"] == "reader"
        assert sharee.get(f"{BASE}/{sharee.handle}")["total_count"] == 1
    names = [each["user_handle"] for each in shared.alice.get(f"{ONE}/shared-with")["shared_with"]]
    assert names == ["erin", "rita", *(sharee.handle for sharee in sharees)]
    listed = shared.alice.get(f"{BASE}/alice")
    assert [each["instance_handle"] for each in listed["instances"]] == ["mine", "model"]


# --- The built-in instance ------------------------------------------------------------------------
def test_every_key_sees_the_builtin_instance_under_system(cast: Cast) -> None:
    for caller in (cast.sam, cast.rita, cast.alice):
        assert caller.get(f"{BASE}/_system").body == page("instances", [BUILTIN], total=1)
        assert caller.get(f"{BASE}/_system/builtin").body == BUILTIN
        own = caller.get(f"{BASE}/{caller.handle}")["instances"]
        assert "builtin" not in [each["instance_handle"] for each in own]
    assert_refused(cast.nobody.get(f"{BASE}/_system"), 401)
    assert_refused(cast.nobody.get(f"{BASE}/_system/builtin"), 401)


@pytest.mark.parametrize("role", ["stranger", "admin"])
def test_nobody_changes_shares_or_deletes_the_builtin_instance(cast: Cast, role: str) -> None:
    caller, path = cast.with_role(role), f"{BASE}/_system/builtin"
    share = {"share_with_handle": "rita", "role": "reader"}
    with nothing_changes():
        replacement = {**STANDALONE, "instance_handle": "builtin"}
        assert_refused(caller.put(path, replacement), 403)
        assert_refused(caller.patch(path, {"model": "mine"}), 403)
        assert_refused(caller.patch(path, {"api_key": CANARY}), 403)
        assert_refused(caller.delete(path), 403)
        assert_refused(caller.post(f"{path}/share", share), 403)


def test_what_else_system_owns_is_listed_for_administrators_only(cast: Cast) -> None:
    with nothing_changes():
        assert_refused(cast.alice.post(f"{BASE}/_system", STANDALONE), 403)
        assert_refused(cast.alice.put(f"{BASE}/_system/mine", STANDALONE), 403)
    assert cast.ada.post(f"{BASE}/_system", STANDALONE).status == 201
    assert cast.alice.get(f"{BASE}/_system").body == page("instances", [BUILTIN], total=1)
    assert_refused(cast.alice.get(f"{BASE}/_system/mine"), 403)
    assert cast.ada.get(f"{BASE}/_system")["total_count"] == 2


# --- In use ---------------------------------------------------------------------------------------
def test_an_instance_in_use_cannot_be_deleted(shared: Cast) -> None:
    for handle in ("one", "two"):
        make_project("alice", f"project-{handle}", instance="mine")
    with nothing_changes():
        for caller in (shared.alice, shared.ada):
            answer = caller.delete(ONE)
            assert_refused(answer, 409)
            assert answer["detail"].endswith("in use by 2 projects.")
    for handle in ("one", "two"):
        assert shared.alice.delete(f"/v1/projects/alice/project-{handle}").status == 200
    assert shared.alice.delete(ONE).status == 200
    assert_refused(shared.rita.get(ONE), 404)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_dimensions_stay_while_embeddings_exist(shared: Cast, method: str) -> None:
    make_project("alice", "used", instance="mine")
    body = {**STANDALONE, "dimensions": 4} if method == "PUT" else {"dimensions": 4}
    upload = {"embeddings": [{**item("a", [1, 2, 3]), "instance_handle": "mine"}]}
    assert shared.alice.post("/v1/embeddings/alice/used", upload).status == 201
    with nothing_changes():
        assert_refused(shared.alice.ask(method, ONE, body), 409)
    assert shared.alice.delete("/v1/embeddings/alice/used").status == 200
    assert shared.alice.ask(method, ONE, body)["dimensions"] == 4


# --- Addresses and lists --------------------------------------------------------------------------
def test_every_instance_route_has_an_alias(shared: Cast) -> None:
    one = f"{ALIAS}/alice/mine"
    assert shared.alice.get(one).body == shared.alice.get(ONE).body
    assert shared.alice.get(f"{ALIAS}/alice").body == shared.alice.get(f"{BASE}/alice").body
    assert shared.sam.get(f"{ALIAS}/_system").body == page("instances", [BUILTIN], total=1)
    for path in (f"{ALIAS}/alice", f"{ALIAS}/alice/from-definition"):
        body = {**FROM_OPENAI, "instance_handle": f"new-{len(path)}"}
        assert shared.alice.post(path, body).status == 201
    assert shared.alice.patch(one, {"model": "m2"})["model"] == "m2"
    assert shared.alice.put(one, STANDALONE).status == 200
    share = {"share_with_handle": "sam", "role": "reader"}
    assert shared.alice.post(f"{one}/share", share).status == 201
    assert len(shared.alice.get(f"{one}/shared-with")["shared_with"]) == 3
    assert shared.alice.delete(f"{one}/share/sam").status == 200
    assert shared.alice.delete(one).status == 200


def test_lists_take_as_many_queries_for_20_as_for_2(shared: Cast) -> None:
    asks = {
        "own": lambda: shared.alice.get(f"{BASE}/alice?limit=200"),
        "shared": lambda: shared.rita.get(f"{BASE}/rita?limit=200"),
        "sharees": lambda: shared.alice.get(f"{ONE}/shared-with"),
    }
    few = {name: queries_of(ask) for name, ask in asks.items()}
    for number in range(20):
        make_user(f"user{number}")
        body = {"share_with_handle": f"user{number}", "role": "reader"}
        assert shared.alice.post(f"{ONE}/share", body).status == 201
        handle = f"copy{number}"
        created = shared.alice.post(f"{BASE}/alice", {**FROM_OPENAI, "instance_handle": handle})
        assert created.status == 201
        body = {"share_with_handle": "rita", "role": "reader"}
        assert shared.alice.post(f"{BASE}/alice/{handle}/share", body).status == 201
    assert {name: queries_of(ask) for name, ask in asks.items()} == few
    assert asks["shared"]()["total_count"] == 21

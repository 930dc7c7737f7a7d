"""LLM service definitions: contract v1, section 9."""

from typing import Any

import pytest

from tests.answers import (
    AN_ID,
    TIMES,
    assert_refused,
    nothing_changes,
    page,
    queries_of,
    rolled_back,
)
from tests.factories import Cast, make_user

BASE = "/v1/llm-service-definitions"
ALIAS = "/v1/llm-definitions"
ONE = f"{BASE}/alice/template"
TEMPLATE: dict[str, Any] = {
    "definition_handle": "template",
    "endpoint": "https://api.example.org/v1/embeddings",
    "description": "A template",
    "api_standard": "openai",
    "model": "example-1",
    "dimensions": 3,
    "context_limit": 512,
    "is_public": False,
}
SHOWN = {"definition_id": AN_ID, "owner": "alice", **TEMPLATE, **TIMES}
REQUIRED = {
    name: TEMPLATE[name]
    for name in ("definition_handle", "endpoint", "api_standard", "model", "dimensions")
}
DEFAULTS: dict[str, Any] = {"description": "", "context_limit": None, "is_public": False}


def seeded(
    handle: str, endpoint: str, model: str, *figures: int, standard: str, description: str = ""
) -> dict[str, Any]:
    """Return a definition of `_system` as it is shown."""
    dimensions, context_limit = figures
    return {
        "definition_id": AN_ID,
        "definition_handle": handle,
        "owner": "_system",
        "endpoint": endpoint,
        "description": description,
        "api_standard": standard,
        "model": model,
        "dimensions": dimensions,
        "context_limit": context_limit,
        "is_public": True,
        **TIMES,
    }


OPENAI = "https://api.openai.com/v1/embeddings"
GEMINI = "https://generativelanguage.googleapis.com/v1beta/models/gemini-embedding-001:embedContent"
COHERE = "https://api.cohere.com/v2/embed"
MISTRAL = "https://api.mistral.ai/v1/embeddings"
OLLAMA = "http://localhost:11434/api/embed"
VLLM = "http://localhost:8000/v1/embeddings"
VOYAGE = "https://api.voyageai.com/v1/embeddings"
SEEDED = [
    seeded("cohere-v4", COHERE, "embed-v4.0", 1536, 128000, standard="cohere"),
    seeded("gemini-embedding-001", GEMINI, "gemini-embedding-001", 3072, 2048, standard="gemini"),
    seeded(
        "minilm-l6-v2",
        "builtin:all-MiniLM-L6-v2",
        "all-MiniLM-L6-v2",
        384,
        256,
        standard="builtin",
        description="A small model for English, on this server, once it is installed.",
    ),
    seeded("mistral-embed", MISTRAL, "mistral-embed", 1024, 8192, standard="openai"),
    seeded("ollama-nomic", OLLAMA, "nomic-embed-text", 768, 2048, standard="ollama"),
    seeded("openai-large", OPENAI, "text-embedding-3-large", 3072, 8192, standard="openai"),
    seeded("openai-small", OPENAI, "text-embedding-3-small", 1536, 8191, standard="openai"),
    seeded("vllm-bge-m3", VLLM, "BAAI/bge-m3", 1024, 8192, standard="openai"),
    seeded("voyage-3-5", VOYAGE, "voyage-3.5", 1024, 32000, standard="voyage"),
]


@pytest.fixture
def shared(cast: Cast) -> Cast:
    """Alice has `template`, shared with Rita, and `published`, which is public."""
    assert cast.alice.post(f"{BASE}/alice", TEMPLATE).status == 201
    published = {**TEMPLATE, "definition_handle": "published", "is_public": True}
    assert cast.alice.post(f"{BASE}/alice", published).status == 201
    answer = cast.alice.post(f"{ONE}/share", {"share_with_handle": "rita"})
    assert answer.status == 201
    assert answer.body == {
        "definition": "alice/template",
        "owner": "alice",
        "definition_handle": "template",
        "shared_with": [{"user_handle": "rita", "role": "reader"}],
    }
    return cast


# --- The program's own ----------------------------------------------------------------------------
def test_every_key_reads_the_definitions_of_system(cast: Cast) -> None:
    for caller in (cast.sam, cast.rita, cast.alice, cast.ada):
        assert caller.get(f"{BASE}/_system").body == page("definitions", SEEDED, total=len(SEEDED))
        assert caller.get(f"{BASE}/_system/openai-large").body == SEEDED[5]
    assert_refused(cast.nobody.get(f"{BASE}/_system"), 401)
    assert_refused(cast.nobody.get(f"{BASE}/_system/openai-large"), 401)


SYSTEM_WRITES: list[tuple[str, str, Any, int]] = [
    ("POST", "_system", TEMPLATE, 201),
    ("PUT", "_system/template", TEMPLATE, 201),
    ("PUT", "_system/cohere-v4", {**TEMPLATE, "definition_handle": "cohere-v4"}, 200),
    ("PATCH", "_system/cohere-v4", {"description": "x"}, 200),
    ("POST", "_system/cohere-v4/share", {"share_with_handle": "rita"}, 201),
    ("GET", "_system/cohere-v4/shared-with", None, 200),
    ("DELETE", "_system/cohere-v4", None, 200),
]


def test_only_administrators_write_the_definitions_of_system(cast: Cast) -> None:
    for method, path, body, success in SYSTEM_WRITES:
        with nothing_changes():
            assert_refused(cast.nobody.ask(method, f"{BASE}/{path}", body), 401)
            assert_refused(cast.alice.ask(method, f"{BASE}/{path}", body), 403)
        with rolled_back():
            assert cast.ada.ask(method, f"{BASE}/{path}", body).status == success


# --- Who may --------------------------------------------------------------------------------------
WRITES: list[tuple[str, str, Any, int]] = [
    ("POST", f"{BASE}/alice", {**TEMPLATE, "definition_handle": "another"}, 201),
    ("PUT", f"{BASE}/alice/another", {**TEMPLATE, "definition_handle": "another"}, 201),
    ("PUT", ONE, TEMPLATE, 200),
    ("PATCH", ONE, {"description": "changed"}, 200),
    ("DELETE", ONE, None, 200),
    ("POST", f"{ONE}/share", {"share_with_handle": "sam"}, 201),
    ("DELETE", f"{ONE}/share/rita", None, 200),
    ("GET", f"{ONE}/shared-with", None, 200),
    ("DELETE", f"{BASE}/alice/published", None, 200),
]


def test_only_the_owner_and_administrators_write_a_definition(shared: Cast) -> None:
    for method, path, body, success in WRITES:
        with nothing_changes():
            for role, status in (("anonymous", 401), ("stranger", 403), ("reader", 403)):
                assert_refused(shared.with_role(role).ask(method, path, body), status)
        for role in ("owner", "admin"):
            with rolled_back():
                assert shared.with_role(role).ask(method, path, body).status == success


def test_a_definition_is_read_by_its_owner_its_sharees_and_everybody_if_public(
    shared: Cast,
) -> None:
    published = {**SHOWN, "definition_handle": "published", "is_public": True}
    for role, own, public in (
        ("owner", 200, 200),
        ("admin", 200, 200),
        ("reader", 200, 200),
        ("stranger", 403, 200),
        ("editor", 403, 200),
        ("anonymous", 401, 401),
    ):
        caller = shared.with_role(role)
        for path, status, shown in (
            (ONE, own, SHOWN),
            (f"{BASE}/alice/published", public, published),
        ):
            answer = caller.get(path)
            if status == 200:
                assert (answer.status, answer.body) == (200, shown)
            else:
                assert_refused(answer, status)
                assert b"example" not in answer.content


def test_the_list_holds_own_shared_and_those_of_system_each_once(shared: Cast) -> None:
    for handle in ("erin", "sam"):
        shared.alice.post(f"{ONE}/share", {"share_with_handle": handle})
    sams = {**TEMPLATE, "definition_handle": "sams"}
    assert shared.sam.post(f"{BASE}/sam", sams).status == 201

    def handles(answer: Any) -> list[str]:
        return [f"{each['owner']}/{each['definition_handle']}" for each in answer["definitions"]]

    system = [f"_system/{each['definition_handle']}" for each in SEEDED]
    own = ["alice/published", "alice/template"]
    assert handles(shared.alice.get(f"{BASE}/alice?limit=20")) == system + own
    assert handles(shared.ada.get(f"{BASE}/alice?limit=20")) == system + own
    sees = handles(shared.sam.get(f"{BASE}/sam?limit=20"))
    assert sees == [*system, "alice/template", "sam/sams"]
    for caller, status in ((shared.sam, 403), (shared.rita, 403), (shared.nobody, 401)):
        assert_refused(caller.get(f"{BASE}/alice"), status)
    assert_refused(shared.ada.get(f"{BASE}/nobody-here"), 404)


# --- Writing --------------------------------------------------------------------------------------
def test_a_definition_lives_from_post_to_delete(cast: Cast) -> None:
    created = cast.alice.post(f"{BASE}/alice", TEMPLATE)
    assert (created.status, created.body) == (201, SHOWN)
    assert cast.alice.get(ONE).body == created.body
    patched = cast.alice.patch(ONE, {"model": "example-2", "is_public": True})
    assert patched.status == 200
    assert patched.body == {**created.body, "model": "example-2", "is_public": True, **TIMES}
    cleared = cast.alice.patch(ONE, {"description": None, "context_limit": None, "is_public": None})
    assert cleared.body == {**created.body, "model": "example-2", **DEFAULTS, **TIMES}
    replaced = cast.alice.put(ONE, {**REQUIRED, "dimensions": 4})
    assert replaced.status == 200
    assert replaced.body == {**created.body, **DEFAULTS, "dimensions": 4, **TIMES}
    assert cast.alice.put(ONE, TEMPLATE).body == {**created.body, **TIMES}
    minimal = {name: value for name, value in REQUIRED.items() if name != "definition_handle"}
    assert cast.alice.put(ONE, minimal).body == {**created.body, **DEFAULTS, **TIMES}
    deleted = cast.alice.delete(ONE)
    assert deleted.status == 200
    assert deleted.body == {"message": "LLM service definition 'alice/template' deleted."}
    for method, body in (("GET", None), ("PATCH", {"model": "m"}), ("DELETE", None)):
        assert_refused(cast.alice.ask(method, ONE, body), 404)
    assert cast.alice.put(ONE, minimal).status == 201


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"definition_handle": "ab"}, "definition_handle"),
    ({"definition_handle": "a" * 21}, "definition_handle"),
    ({"definition_handle": "a/b/c"}, "definition_handle"),
    ({"definition_handle": "share"}, "definition_handle"),
    ({"definition_handle": "Shared-With"}, "definition_handle"),
    ({"definition_handle": "from-definition"}, "definition_handle"),
    ({"definition_handle": 123}, "definition_handle"),
    ({"endpoint": None}, "endpoint"),
    ({"endpoint": ""}, "endpoint"),
    ({"endpoint": "not a url"}, "endpoint"),
    ({"endpoint": "ftp://example.org/"}, "endpoint"),
    ({"endpoint": "file:///etc/passwd"}, "endpoint"),
    ({"endpoint": "javascript:alert(1)"}, "endpoint"),
    ({"endpoint": "https://"}, "endpoint"),
    ({"endpoint": "https://user:password@example.org/"}, "endpoint"),
    ({"endpoint": "https://@example.org/"}, "endpoint"),
    ({"endpoint": "https://example.org/a b"}, "endpoint"),
    ({"endpoint": "https://example.org/\n"}, "endpoint"),
    ({"endpoint": "https://example.org:99999/"}, "endpoint"),
    ({"endpoint": "https://[::1/"}, "endpoint"),
    ({"endpoint": f"https://example.org/{'a' * 2000}"}, "endpoint"),
    ({"endpoint": 5}, "endpoint"),
    ({"api_standard": None}, "api_standard"),
    ({"api_standard": "unknown"}, "api_standard"),
    ({"api_standard": "OpenAI"}, "api_standard"),
    ({"api_standard": ["openai"]}, "api_standard"),
    ({"model": None}, "model"),
    ({"model": ""}, "model"),
    ({"model": "m" * 256}, "model"),
    ({"model": 3}, "model"),
    ({"dimensions": None}, "dimensions"),
    ({"dimensions": 0}, "dimensions"),
    ({"dimensions": -1}, "dimensions"),
    ({"dimensions": 16_001}, "dimensions"),
    ({"dimensions": 2**40}, "dimensions"),
    ({"dimensions": 1.5}, "dimensions"),
    ({"dimensions": "3"}, "dimensions"),
    ({"dimensions": True}, "dimensions"),
    ({"dimensions": [3]}, "dimensions"),
    ({"context_limit": 0}, "context_limit"),
    ({"context_limit": 2**31}, "context_limit"),
    ({"context_limit": "512"}, "context_limit"),
    ({"is_public": "true"}, "is_public"),
    ({"is_public": 1}, "is_public"),
    ({"description": 5}, "description"),
]


def test_a_wrong_definition_is_refused_by_name_of_the_field(shared: Cast) -> None:
    fresh = {**TEMPLATE, "definition_handle": "fresh"}
    with nothing_changes():
        for wrong, field in WRONG:
            answer = shared.alice.post(f"{BASE}/alice", {**fresh, **wrong})
            assert_refused(answer, 400, location=f"body.{field}")
            for method in ("PUT", "PATCH"):
                answer = shared.alice.ask(method, ONE, {**TEMPLATE, **wrong})
                assert_refused(answer, 400, location=f"body.{field}")
        for field in REQUIRED:
            body = {name: value for name, value in fresh.items() if name != field}
            answer = shared.alice.post(f"{BASE}/alice", body)
            assert_refused(answer, 400, location=f"body.{field}")
    assert shared.alice.post(f"{BASE}/alice", fresh).status == 201


def test_a_taken_handle_is_409_whatever_its_case(shared: Cast) -> None:
    with nothing_changes():
        for handle in ("template", "TEMPLATE"):
            body = {**TEMPLATE, "definition_handle": handle}
            assert_refused(shared.alice.post(f"{BASE}/alice", body), 409, says="exists")
        other_case = {**TEMPLATE, "definition_handle": "TEMPLATE"}
        assert_refused(shared.alice.put(f"{BASE}/alice/TEMPLATE", other_case), 409)
        assert_refused(shared.alice.get(f"{BASE}/alice/TEMPLATE"), 404)
    assert shared.sam.post(f"{BASE}/sam", TEMPLATE).status == 201


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_definition_cannot_be_renamed_or_given_away(shared: Cast, method: str) -> None:
    with nothing_changes():
        body = {**TEMPLATE, "definition_handle": "renamed"}
        answer = shared.alice.ask(method, ONE, body)
        assert_refused(answer, 400, location="body.definition_handle")
    extra = {"owner": "sam", "definition_id": 1, "created_at": "2001-01-01T00:00:00Z"}
    answer = shared.alice.ask(method, ONE, {**TEMPLATE, **extra})
    assert (answer["owner"], answer["created_at"] > "2001-01-02") == ("alice", True)


def test_deleting_a_definition_leaves_its_instances(shared: Cast) -> None:
    body = {
        "instance_handle": "copy",
        "definition_owner": "alice",
        "definition_handle": "template",
    }
    before = shared.alice.post("/v1/llm-services/alice", body)
    assert before["definition_handle"] == "template"
    assert shared.alice.delete(ONE).status == 200
    after = shared.alice.get("/v1/llm-services/alice/copy")
    nothing = {"definition_id": None, "definition_owner": None, "definition_handle": None}
    assert after.body == {**before.body, **nothing}


# --- Sharing --------------------------------------------------------------------------------------
def test_a_definition_is_shared_and_taken_back(shared: Cast) -> None:
    again = shared.alice.post(f"{ONE}/share", {"share_with_handle": "rita"})
    assert again.status == 201
    assert shared.alice.get(f"{ONE}/shared-with").body == again.body
    answer = shared.alice.delete(f"{ONE}/share/rita")
    assert answer.status == 200
    assert answer.body == {"message": "'alice/template' is no longer shared with 'rita'."}
    assert_refused(shared.rita.get(ONE), 403)
    assert_refused(shared.alice.delete(f"{ONE}/share/rita"), 404)
    assert shared.alice.get(f"{ONE}/shared-with")["shared_with"] == []


def test_a_share_needs_another_account_that_exists(shared: Cast) -> None:
    wrong: list[Any] = [None, "", "alice", "unknown", "Rita", "_system", "*", ["rita"], 5]
    with nothing_changes():
        for body in ({}, *({"share_with_handle": each} for each in wrong)):
            answer = shared.alice.post(f"{ONE}/share", body)
            assert_refused(answer, 400, location="body.share_with_handle")


# --- Addresses and lists --------------------------------------------------------------------------
def test_every_definition_route_has_an_alias(shared: Cast) -> None:
    one = f"{ALIAS}/alice/template"
    assert shared.alice.get(one).body == shared.alice.get(ONE).body
    assert shared.alice.get(f"{ALIAS}/alice").body == shared.alice.get(f"{BASE}/alice").body
    assert shared.sam.get(f"{ALIAS}/_system").body == page("definitions", SEEDED, total=len(SEEDED))
    body = {**TEMPLATE, "definition_handle": "another"}
    assert shared.alice.post(f"{ALIAS}/alice", body).status == 201
    assert shared.alice.patch(one, {"model": "m2"})["model"] == "m2"
    assert shared.alice.put(one, TEMPLATE).status == 200
    assert shared.alice.post(f"{one}/share", {"share_with_handle": "sam"}).status == 201
    assert len(shared.alice.get(f"{one}/shared-with")["shared_with"]) == 2
    assert shared.alice.delete(f"{one}/share/sam").status == 200
    assert shared.alice.delete(one).status == 200


def test_lists_take_as_many_queries_for_20_as_for_2(shared: Cast) -> None:
    asks = {
        "definitions": lambda: shared.alice.get(f"{BASE}/alice?limit=200"),
        "sharees": lambda: shared.alice.get(f"{ONE}/shared-with"),
    }
    few = {name: queries_of(ask) for name, ask in asks.items()}
    for number in range(20):
        make_user(f"user{number}")
        shared.alice.post(f"{ONE}/share", {"share_with_handle": f"user{number}"})
        body = {**TEMPLATE, "definition_handle": f"template{number}"}
        assert shared.alice.post(f"{BASE}/alice", body).status == 201
    assert {name: queries_of(ask) for name, ask in asks.items()} == few
    assert len(asks["sharees"]()["shared_with"]) == 21

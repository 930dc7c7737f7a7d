"""The life of a project, told in requests: every fixed shape and sentence of the v1 contract."""

import re
from typing import Any

import pytest
from pytest_django import Settings

from tests.contract.world import ADMIN_KEY
from tests.factories import Answer, Caller

SCHEMA = (
    '{"type": "object", "properties": {"author": {"type": "string"}, '
    '"year": {"type": "integer"}}, "required": ["author"]}'
)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def shape(value: Any) -> Any:
    """Return the value with what differs from run to run masked: ids, times, keys."""
    if isinstance(value, dict):
        return {name: _masked(name, each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return value


def _masked(name: str, value: Any) -> Any:
    if name in {"project_id", "instance_id", "definition_id"} and isinstance(value, int):
        return "ID"
    if name in {"created_at", "updated_at"} and _TIME.fullmatch(str(value)):
        return "TIME"
    if name in {"embapi_key", "api_key"} and re.fullmatch(r"arm_[0-9A-Za-z]{62}", str(value)):
        return "KEY"
    return shape(value)


def said(answer: Answer, status: int) -> Any:
    """Return the masked body of an answer of this status."""
    assert answer.status == status, answer.body
    return shape(answer.body)


def refused(answer: Answer, status: int, detail: str, title: str) -> None:
    """Check a refusal: its status, its detail to the letter, and the problem around it."""
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer["title"], answer["status"], answer["detail"]) == (title, status, detail)


def page(key: str, entries: list[Any], *, total: int | None = None, **other: Any) -> dict[str, Any]:
    """Return the envelope of a list."""
    total = len(entries) if total is None else total
    return {
        key: entries,
        "total_count": total,
        "limit": 10,
        "offset": 0,
        "has_more": False,
        **other,
    }


MARKS = {"created_at": "TIME", "updated_at": "TIME"}
INSTANCE = {
    "instance_id": "ID",
    "instance_handle": "my-openai",
    "owner": "alice",
    "definition_id": None,
    "definition_owner": None,
    "definition_handle": None,
    "endpoint": "https://api.openai.com/v1/embeddings",
    "description": "",
    "api_standard": "openai",
    "model": "text-embedding-3-small",
    "dimensions": 3,
    "context_limit": None,
    "access_role": "owner",
    "has_api_key": True,
    **MARKS,
}
PROJECT = {
    "project_id": "ID",
    "project_handle": "letters",
    "owner": "alice",
    "description": "Letters of the eighteenth century",
    "instance_id": "ID",
    "instance_owner": "alice",
    "instance_handle": "my-openai",
    "public_read": False,
    "role": "owner",
    "number_of_embeddings": 0,
    **MARKS,
}
EMBEDDING = {
    "text_id": "https://id.example.org/letter/1",
    "user_handle": "alice",
    "project_handle": "letters",
    "project_id": "ID",
    "instance_handle": "my-openai",
    "text": "My dear friend",
    "vector": [1.0, 0.0, 0.0],
    "vector_dim": 3,
    "metadata": {"author": "Ann", "year": 1791},
    **MARKS,
}


def _item(text_id: str, vector: list[float], author: str = "Ann", **fields: Any) -> dict[str, Any]:
    return {
        "text_id": text_id,
        "instance_handle": "my-openai",
        "vector": vector,
        "vector_dim": len(vector),
        "metadata": {"author": author},
        **fields,
    }


FIRST = _item(
    "https://id.example.org/letter/1",
    [1, 0, 0],
    text="My dear friend",
    metadata={"author": "Ann", "year": 1791},
)
FIRST_IN_URL = "https%3A%2F%2Fid.example.org%2Fletter%2F1"


@pytest.mark.django_db
def test_a_project_from_its_first_user_to_its_end(settings: Settings) -> None:
    settings.ADMIN_KEY = ADMIN_KEY
    admin, nobody = Caller(ADMIN_KEY), Caller()
    _server_introduces_itself(nobody)
    alice, bob, carol = _users(admin)
    _standards(nobody, admin)
    _definitions(alice, bob)
    _instances(alice, bob)
    _projects(alice, admin)
    _uploads(alice)
    _searches(alice)
    _sharing(alice, bob, carol, nobody)
    _publishing(alice, nobody)
    _sanity(admin)
    _transfer(alice, bob, carol)
    _end(alice, bob, admin)


def _server_introduces_itself(nobody: Caller) -> None:
    manifest = said(nobody.get("/v1"), 200)
    endpoints = manifest.pop("endpoints")
    assert {"path", "methods", "description"} == set(endpoints[0])
    assert manifest.pop("serviceVersion")
    assert manifest == {
        "name": "Armarium",
        "versions": ["v1"],
        "description": "A self-hosted home for embeddings, shared and searched by project.",
        "documentation": "/docs",
        "authentication": "Authorization: Bearer <key>",
    }
    for path in ("/v1/users", "/v1/nothing", "/openapi.json"):
        options = nobody.ask("OPTIONS", path)
        assert (options.status, options.content) == (200, b"")
        assert options.headers["Access-Control-Allow-Origin"] == "*"
        assert (
            options.headers["Access-Control-Allow-Methods"]
            == "GET, POST, PUT, DELETE, OPTIONS, PATCH"
        )
        assert options.headers["Access-Control-Allow-Headers"] == (
            "Accept, Authorization, Content-Type, Content-Disposition, Origin, X-Requested-With"
        )
    assert nobody.get("/v1/projects/alice/").status == 404
    assert nobody.get("/v1/nothing")["title"] == "Not Found"
    assert nobody.delete("/v1").status == 405


def _users(admin: Caller) -> tuple[Caller, Caller, Caller]:
    made = admin.post(
        "/v1/users",
        {"user_handle": "alice", "name": "Alice Doe", "email": "alice@example.org"},
    )
    account = {
        "user_handle": "alice",
        "name": "Alice Doe",
        "email": "alice@example.org",
        **MARKS,
    }
    assert said(made, 201) == {**account, "embapi_key": "KEY", "api_key": "KEY"}
    assert made["api_key"] == made["embapi_key"]
    alice = Caller(made["api_key"], "alice")
    refused(
        admin.post("/v1/users", {"user_handle": "alice"}),
        409,
        "User 'alice' already exists.",
        "Conflict",
    )
    created = admin.put("/v1/users/bob", {})
    assert said(created, 201)["api_key"] == "KEY"
    bob = Caller(created["api_key"], "bob")
    replaced = said(admin.put("/v1/users/bob", {"user_handle": "bob", "name": "Bob"}), 200)
    assert replaced == {"user_handle": "bob", "name": "Bob", "email": "", **MARKS}
    assert bob.get("/v1/users/bob").status == 200
    carol = Caller(admin.post("/v1/users", {"user_handle": "carol"})["api_key"], "carol")
    assert said(admin.get("/v1/users"), 200) == page("users", ["_system", "alice", "bob", "carol"])
    assert said(admin.get("/v1/users?limit=1&offset=1"), 200) == page(
        "users", ["alice"], total=4, limit=1, offset=1, has_more=True
    )
    assert said(admin.get("/v1/users?offset=99"), 200)["users"] == []
    assert said(alice.patch("/v1/users/alice", {"name": "Alice Roe"}), 200) == {
        **account,
        "name": "Alice Roe",
    }
    assert said(alice.get("/v1/users/alice"), 200) == {
        **account,
        "name": "Alice Roe",
        "projects": [{"owner": "alice", "role": "owner", "project_handle": "default"}],
        "instances": [],
    }
    assert alice.patch("/v1/users/alice", {"user_handle": "other"}).status == 400
    assert bob.get("/v1/users/alice").status == 403
    return alice, bob, carol


def _standards(nobody: Caller, admin: Caller) -> None:
    listed = said(nobody.get("/v1/api-standards"), 200)
    seeded = {
        each["api_standard_handle"]: (each["key_method"], each["key_field"])
        for each in listed.pop("standards")
    }
    assert listed == {"total_count": len(seeded), "limit": 10, "offset": 0, "has_more": False}
    assert {
        "openai": ("auth_bearer", "Authorization"),
        "cohere": ("auth_bearer", "Authorization"),
        "gemini": ("query_param", "key"),
    }.items() <= seeded.items()
    mistral = {
        "api_standard_handle": "mistral-v1",
        "description": "Mistral embeddings API",
        "key_method": "auth_bearer",
        "key_field": "Authorization",
    }
    assert said(admin.post("/v1/api-standards", mistral), 201) == {**mistral, **MARKS}
    assert said(nobody.get("/v1/api-standards/mistral-v1"), 200) == {**mistral, **MARKS}
    assert said(admin.delete("/v1/api-standards/mistral-v1"), 200) == {
        "message": "API standard 'mistral-v1' deleted."
    }
    assert admin.delete("/v1/api-standards/openai").status == 409


def _definitions(alice: Caller, bob: Caller) -> None:
    base = "/v1/llm-service-definitions"
    seeded = said(alice.get(f"{base}/_system"), 200)["definitions"]
    assert [(each["definition_handle"], each["dimensions"]) for each in seeded] == [
        ("cohere-v4", 1536),
        ("gemini-embedding-001", 3072),
        ("minilm-l6-v2", 384),
        ("mistral-embed", 1024),
        ("ollama-nomic", 768),
        ("openai-large", 3072),
        ("openai-small", 1536),
        ("vllm-bge-m3", 1024),
        ("voyage-3-5", 1024),
    ]
    given = {
        "definition_handle": "small",
        "endpoint": "https://llm.example.org/v1",
        "api_standard": "openai",
        "model": "small-1",
        "dimensions": 3,
    }
    shown = {
        **given,
        "definition_id": "ID",
        "owner": "alice",
        "description": "",
        "context_limit": None,
        "is_public": False,
        **MARKS,
    }
    assert said(alice.post(f"{base}/alice", given), 201) == shown
    assert bob.get(f"{base}/alice/small").status == 403
    assert said(alice.post(f"{base}/alice/small/share", {"share_with_handle": "bob"}), 201) == {
        "definition": "alice/small",
        "owner": "alice",
        "definition_handle": "small",
        "shared_with": [{"user_handle": "bob", "role": "reader"}],
    }
    assert said(bob.get("/v1/llm-definitions/alice/small"), 200) == shown


def _instances(alice: Caller, bob: Caller) -> None:
    standalone = {
        "instance_handle": "my-openai",
        "endpoint": "https://api.openai.com/v1/embeddings",
        "api_standard": "openai",
        "model": "text-embedding-3-small",
        "dimensions": 3,
        "api_key_encrypted": "sk-secret",
    }
    assert said(alice.put("/v1/llm-services/alice/my-openai", standalone), 201) == INSTANCE
    assert said(alice.get("/v1/llm-instances/alice/my-openai"), 200) == INSTANCE
    derived = {
        "instance_handle": "from-small",
        "definition_owner": "alice",
        "definition_handle": "small",
        "model": "small-2",
    }
    copied = {
        **INSTANCE,
        "instance_handle": "from-small",
        "owner": "bob",
        "definition_id": "ID",
        "definition_owner": "alice",
        "definition_handle": "small",
        "endpoint": "https://llm.example.org/v1",
        "model": "small-2",
        "has_api_key": False,
    }
    assert said(bob.post("/v1/llm-services/bob/from-definition", derived), 201) == copied
    assert said(alice.delete("/v1/llm-service-definitions/alice/small"), 200)["message"]
    forgotten = said(bob.get("/v1/llm-services/bob/from-small"), 200)
    assert forgotten["definition_handle"] is None
    assert forgotten["endpoint"] == copied["endpoint"]
    share = {"share_with_handle": "bob", "role": "reader"}
    granted = {
        "instance": "alice/my-openai",
        "owner": "alice",
        "instance_handle": "my-openai",
        "shared_with": [{"user_handle": "bob", "role": "reader"}],
    }
    assert said(alice.post("/v1/llm-services/alice/my-openai/share", share), 201) == granted
    assert said(alice.get("/v1/llm-services/alice/my-openai/shared-with"), 200) == granted
    assert said(bob.get("/v1/llm-services/bob"), 200) == page(
        "instances", [{**INSTANCE, "access_role": "reader"}, forgotten]
    )
    gone = said(alice.delete("/v1/llm-services/alice/my-openai/share/bob"), 200)
    assert gone == {"message": "'alice/my-openai' is no longer shared with 'bob'."}


def _projects(alice: Caller, admin: Caller) -> None:
    given = {
        "project_handle": "letters",
        "description": "Letters of the eighteenth century",
        "instance_owner": "alice",
        "instance_handle": "my-openai",
        "metadataScheme": SCHEMA,
    }
    shown = {**PROJECT, "metadataScheme": SCHEMA, "shared_with": []}
    assert said(alice.post("/v1/projects/alice", given), 201) == shown
    assert said(alice.get("/v1/projects/alice/letters"), 200) == shown
    listed = said(alice.get("/v1/projects/alice"), 200)
    assert [each["project_handle"] for each in listed["projects"]] == ["default", "letters"]
    assert listed["projects"][1] == PROJECT
    assert said(admin.get("/v1/projects/alice/letters"), 200) == {**shown, "role": "admin"}
    refused(
        alice.delete("/v1/llm-services/alice/my-openai"),
        409,
        "LLM service 'alice/my-openai' cannot be deleted: in use by 1 projects.",
        "Conflict",
    )
    unusable = alice.patch("/v1/projects/alice/letters", {"metadataScheme": "{not json"})
    assert unusable.status == 422
    assert alice.get("/v1/projects/alice/letters")["metadataScheme"] == SCHEMA


def _uploads(alice: Caller) -> None:
    letters = "/v1/embeddings/alice/letters"
    assert said(alice.get(letters), 200) == page("embeddings", [])
    batch = {"embeddings": [FIRST, _item("letter/2", [0.9, 0.1, 0], "Bob")]}
    ids = ["https://id.example.org/letter/1", "letter/2"]
    assert said(alice.post(letters, batch), 201) == {
        "message": "2 embedding(s) uploaded successfully",
        "uploaded": ids,
        "ids": ids,
        "count": 2,
    }
    assert said(alice.get(f"{letters}/{FIRST_IN_URL}"), 200) == EMBEDDING
    listed = said(alice.get(f"{letters}?limit=1"), 200)
    more = {"has_more": True, "next_cursor": listed["next_cursor"]}
    assert listed == page("embeddings", [EMBEDDING], total=2, limit=1, **more)
    _refused_uploads(alice, letters)
    replaced = said(
        alice.put(f"{letters}/letter%2F2", _item("letter/2", [0.9, 0.1, 0], "Carl")), 200
    )
    assert (replaced["text_id"], replaced["metadata"]) == ("letter/2", {"author": "Carl"})
    new = alice.put(f"{letters}/letter%2F3", _item("letter/3", [0, 1, 0], "Dan"))
    assert said(new, 201)["text_id"] == "letter/3"
    assert alice.get("/v1/projects/alice/letters")["number_of_embeddings"] == 3


def _refused_uploads(alice: Caller, letters: str) -> None:
    good = _item("good", [1, 2, 3])

    def details(bad: dict[str, Any]) -> tuple[int, str]:
        answer = alice.post(letters, {"embeddings": [good, bad]})
        return answer.status, answer["detail"]

    assert details(_item("bad", [1, 2])) == (
        400,
        "dimension validation failed: vector dimension mismatch: embedding declares 2 dimensions "
        "but LLM service 'my-openai' expects 3 dimensions",
    )
    assert details(_item("bad", [1, 2], vector_dim=3)) == (
        400,
        "dimension validation failed: vector length mismatch for text_id 'bad': actual vector has "
        "2 elements but vector_dim declares 3",
    )
    status, detail = details(_item("bad", [1, 2, 3], metadata={"year": "soon"}))
    first, *lines = detail.split("\n")
    assert (status, first) == (
        400,
        "metadata validation failed for text_id 'bad': metadata validation failed:",
    )
    assert sorted(line.split(":")[0] for line in lines) == ["  - author", "  - year"]
    assert details(_item("bad", [1, 2, 3], instance_handle="from-small"))[0] == 400
    assert details(good)[0] == 409
    assert details(FIRST)[0] == 409
    assert alice.get(f"{letters}/good").status == 404


def _searches(alice: Caller) -> None:
    letters = "/v1/similars/alice/letters"
    found = said(alice.get(f"{letters}/{FIRST_IN_URL}"), 200)
    similarity = found["results"][0].pop("similarity")
    assert similarity == pytest.approx(0.9938837, abs=1e-6)
    assert found == {
        "user_handle": "alice",
        "project_handle": "letters",
        "results": [{"id": "letter/2"}],
    }
    by_vector = said(alice.post(f"{letters}?threshold=0&count=2", {"vector": [1, 0, 0]}), 200)
    assert [hit["id"] for hit in by_vector["results"]] == [EMBEDDING["text_id"], "letter/2"]
    assert by_vector["results"][0]["similarity"] == 1.0
    without = f"{letters}?threshold=0&metadata_path=author&metadata_value=Carl"
    left = said(alice.post(without, {"vector": [1, 0, 0]}), 200)
    assert [hit["id"] for hit in left["results"]] == [EMBEDDING["text_id"], "letter/3"]
    nothing = said(alice.post(letters, {"vector": [0, 0, 1]}), 200)
    assert nothing == {"user_handle": "alice", "project_handle": "letters", "results": []}
    refused(
        alice.post(letters, {"vector": [1, 2]}),
        400,
        "vector dimension mismatch: expected 3 dimensions, got 2",
        "Bad Request",
    )
    assert alice.get(f"{letters}/letter%2F3?metadata_path=author").status == 400


def _sharing(alice: Caller, bob: Caller, carol: Caller, nobody: Caller) -> None:
    letters = "/v1/projects/alice/letters"
    shared = said(
        alice.post(f"{letters}/share", {"share_with_handle": "bob", "role": "reader"}), 201
    )
    assert shared == {
        "message": "Project 'alice/letters' is now shared with 'bob' as reader.",
        "project": "alice/letters",
        "shared_with": "bob",
        "role": "reader",
        "owner": "alice",
        "project_handle": "letters",
        "project_id": "ID",
        "shared_with_handle": "bob",
        "shared_with_role": "reader",
    }
    assert (
        alice.post(f"{letters}/share", {"share_with_handle": "carol", "role": "editor"}).status
        == 201
    )
    assert said(alice.get(f"{letters}/shared-with"), 200) == {
        "project": "alice/letters",
        "owner": "alice",
        "project_handle": "letters",
        "shared_with": [
            {"user_handle": "bob", "role": "reader"},
            {"user_handle": "carol", "role": "editor"},
        ],
    }
    assert said(bob.get(letters), 200) == {
        **PROJECT,
        "role": "reader",
        "number_of_embeddings": 3,
        "metadataScheme": SCHEMA,
    }
    refused(
        bob.post("/v1/embeddings/alice/letters", {"embeddings": [_item("x", [1, 2, 3])]}),
        403,
        "This needs the role editor on Project 'alice/letters'; yours is reader.",
        "Forbidden",
    )
    assert carol.delete("/v1/embeddings/alice/letters/letter%2F3").status == 200
    unshared = said(alice.delete(f"{letters}/share/bob"), 200)
    assert unshared == {
        "message": "Project 'alice/letters' is no longer shared with 'bob'.",
        "project": "alice/letters",
        "removed_user": "bob",
    }
    assert bob.get(letters).status == 403
    assert alice.delete(f"{letters}/share/bob").status == 404
    refused(
        nobody.get(letters),
        401,
        "This needs an API key: send 'Authorization: Bearer <key>'.",
        "Unauthorized",
    )


def _publishing(alice: Caller, nobody: Caller) -> None:
    letters = "/v1/projects/alice/letters"
    assert (
        alice.post(f"{letters}/share", {"share_with_handle": "*", "role": "editor"}).status == 400
    )
    assert (
        alice.post(f"{letters}/share", {"share_with_handle": "*", "role": "reader"}).status == 201
    )
    assert said(nobody.get(letters), 200) == {
        **PROJECT,
        "public_read": True,
        "role": "reader",
        "number_of_embeddings": 2,
        "metadataScheme": SCHEMA,
    }
    assert said(alice.get(letters), 200)["shared_with"] == [
        {"user_handle": "*", "role": "reader"},
        {"user_handle": "carol", "role": "editor"},
    ]
    assert nobody.post("/v1/similars/alice/letters", {"vector": [1, 0, 0]}).status == 200
    assert nobody.delete("/v1/embeddings/alice/letters").status == 401
    assert said(alice.patch(letters, {"public_read": False}), 200)["public_read"] is False
    assert nobody.get(letters).status == 401


def _sanity(admin: Caller) -> None:
    assert said(admin.get("/v1/admin/sanity-check"), 200) == {
        "status": "PASSED",
        "total_projects": 4,
        "issues_count": 0,
        "warnings_count": 0,
        "issues": [],
        "warnings": [],
    }
    assert admin.patch("/v1/projects/alice/letters", {"metadataScheme": None}).status == 200
    assert said(admin.get("/v1/admin/sanity-check"), 200)["warnings"] == [
        "Project alice/letters has 2 embeddings but no metadata schema defined"
    ]
    stricter = SCHEMA.replace('["author"]', '["author", "year"]')
    assert admin.patch("/v1/projects/alice/letters", {"metadataScheme": stricter}).status == 200
    failed = said(admin.get("/v1/admin/sanity-check"), 200)
    assert (failed["status"], failed["issues_count"], failed["warnings_count"]) == ("FAILED", 1, 0)
    assert failed["issues"][0].startswith("Project alice/letters")
    assert admin.patch("/v1/projects/alice/letters", {"metadataScheme": SCHEMA}).status == 200
    assert admin.get("/v1/admin/footgun").status == 403


def _transfer(alice: Caller, bob: Caller, carol: Caller) -> None:
    letters = "/v1/projects/alice/letters"
    assert carol.post(f"{letters}/transfer-ownership", {"new_owner_handle": "carol"}).status == 403
    moved = alice.post(f"{letters}/transfer-ownership", {"new_owner_handle": "bob"})
    assert said(moved, 200) == {
        "message": "Project 'alice/letters' now belongs to 'bob'.",
        "project_id": "ID",
        "project_handle": "letters",
        "old_owner": "alice",
        "new_owner": "bob",
        "new_path": "/v1/projects/bob/letters",
    }
    for caller in (alice, bob, carol):
        refused(caller.get(letters), 404, "Project 'alice/letters' does not exist.", "Not Found")
    assert alice.get("/v1/projects/bob/letters").status == 403
    assert said(bob.get("/v1/projects/bob/letters"), 200) == {
        **PROJECT,
        "owner": "bob",
        "number_of_embeddings": 2,
        "metadataScheme": SCHEMA,
        "shared_with": [{"user_handle": "carol", "role": "editor"}],
    }
    there = "/v1/embeddings/bob/letters"
    assert said(bob.get(f"{there}/{FIRST_IN_URL}"), 200) == {**EMBEDDING, "user_handle": "bob"}
    # The instance stays, though Bob has no share on it.
    assert carol.post(there, {"embeddings": [_item("letter/4", [0, 0, 1])]}).status == 201
    assert bob.get("/v1/similars/bob/letters/letter%2F2")["results"][0]["id"] == FIRST["text_id"]


def _end(alice: Caller, bob: Caller, admin: Caller) -> None:
    letters = "/v1/embeddings/bob/letters"
    assert said(bob.delete(f"{letters}/letter%2F4"), 200) == {
        "message": "Embedding 'letter/4' deleted."
    }
    assert said(bob.delete(letters), 200) == {
        "message": "2 embedding(s) of project 'bob/letters' deleted.",
        "deleted_count": 2,
    }
    in_use = alice.delete("/v1/users/alice")
    assert in_use.status == 409
    assert "bob/letters" in in_use["detail"]
    assert said(bob.delete("/v1/projects/bob/letters"), 200) == {
        "message": "Project 'bob/letters' deleted."
    }
    assert said(alice.delete("/v1/llm-services/alice/my-openai"), 200) == {
        "message": "LLM service 'alice/my-openai' deleted."
    }
    assert said(alice.delete("/v1/users/alice"), 200) == {"message": "User 'alice' deleted."}
    assert alice.get("/v1/users/alice").status == 401
    assert admin.get("/v1/users/alice").status == 404
    assert admin.delete("/v1/users/_system").status == 403
    again = said(admin.post("/v1/users", {"user_handle": "alice"}), 201)
    assert again["api_key"] == "KEY"
    assert [each["project_handle"] for each in admin.get("/v1/projects/alice")["projects"]] == [
        "default"
    ]

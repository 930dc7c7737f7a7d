"""Embeddings over HTTP: who may do what, whole answers, and refusals that leave no trace."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils.timezone import now

from embeddings.models import Embedding
from projects.models import Project
from tests.factories import Caller, Cast, item, make_instance, make_project, make_user

PROJECT = "/v1/embeddings/alice/letters"
SIMILARS = "/v1/similars/alice/letters"
READERS = ["owner", "editor", "reader", "admin"]
EDITORS = ["owner", "editor", "admin"]


@pytest.fixture
def filled(cast: Cast) -> Cast:
    """Put two embeddings into Alice's letters."""
    items = [
        item("a", [1, 0, 0], text="first", metadata={"author": "Ann"}),
        item("b", [1, 1, 0], text="second"),
    ]
    assert cast.alice.post(PROJECT, {"embeddings": items}).status == 201
    return cast


def timeless(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body of an embedding after checking its times and taking them out."""
    rest = dict(body)
    for name in ("created_at", "updated_at"):
        written = rest.pop(name)
        assert written.endswith("Z")
        datetime.fromisoformat(written)
    return rest


def first(cast: Cast) -> dict[str, Any]:
    return {
        "text_id": "a",
        "user_handle": "alice",
        "project_handle": "letters",
        "project_id": cast.project.pk,
        "instance_handle": "model",
        "text": "first",
        "vector": [1, 0, 0],
        "vector_dim": 3,
        "metadata": {"author": "Ann"},
    }


# --- Reading --------------------------------------------------------------------------------------
@pytest.mark.parametrize("role", READERS)
def test_whoever_may_read_gets_the_list_the_item_and_the_searches(filled: Cast, role: str) -> None:
    caller = filled.with_role(role)
    second = {**first(filled), "text_id": "b", "text": "second", "vector": [1, 1, 0]}
    listed = caller.get(PROJECT)
    assert listed.status == 200
    assert [timeless(row) for row in listed.body.pop("embeddings")] == [
        first(filled),
        {**second, "metadata": {}},
    ]
    assert listed.body == {"total_count": 2, "limit": 10, "offset": 0, "has_more": False}

    one = caller.get(f"{PROJECT}/a")
    assert (one.status, timeless(one.body)) == (200, first(filled))

    hit = pytest.approx(0.5**0.5, abs=1e-6)
    by_text = caller.get(f"{SIMILARS}/a")
    assert (by_text.status, by_text.body) == (
        200,
        {
            "user_handle": "alice",
            "project_handle": "letters",
            "results": [{"id": "b", "similarity": hit}],
        },
    )
    by_vector = caller.post(SIMILARS, {"vector": [1, 0, 0]})
    assert (by_vector.status, by_vector.body) == (
        200,
        {
            "user_handle": "alice",
            "project_handle": "letters",
            "results": [{"id": "a", "similarity": 1.0}, {"id": "b", "similarity": hit}],
        },
    )


READING: list[tuple[str, str, Any]] = [
    ("GET", PROJECT, None),
    ("GET", f"{PROJECT}/a", None),
    ("GET", f"{PROJECT}/missing", None),
    ("GET", f"{SIMILARS}/a", None),
    ("GET", f"{SIMILARS}/missing", None),
    ("POST", SIMILARS, {"vector": [1, 0, 0]}),
]
WRITING: list[tuple[str, str, Any]] = [
    ("POST", PROJECT, {"embeddings": [item("new", [1, 2, 3])]}),
    ("PUT", f"{PROJECT}/a", item("a", [3, 2, 1])),
    ("PUT", f"{PROJECT}/new", item("new", [3, 2, 1])),
    ("DELETE", f"{PROJECT}/a", None),
    ("DELETE", f"{PROJECT}/missing", None),
    ("DELETE", PROJECT, None),
]


@pytest.mark.parametrize(("role", "status"), [("stranger", 403), ("anonymous", 401)])
def test_others_can_neither_read_nor_write_and_learn_nothing(
    filled: Cast, role: str, status: int
) -> None:
    before = filled.alice.get(PROJECT).body
    for method, path, body in READING + WRITING:
        answer = filled.with_role(role).ask(method, path, body)
        assert (answer.status, answer["status"]) == (status, status), (method, path)
        assert b"first" not in answer.content
        assert b"Ann" not in answer.content
        assert ("WWW-Authenticate" in answer.headers) is (status == 401)
    assert filled.alice.get(PROJECT).body == before


@pytest.mark.parametrize(("role", "status"), [("reader", 403), ("anonymous", 401)])
@pytest.mark.parametrize("is_public", [False, True], ids=["private", "public"])
def test_reading_never_includes_writing(
    filled: Cast, role: str, status: int, is_public: bool
) -> None:
    filled.alice.patch("/v1/projects/alice/letters", {"public_read": is_public})
    before = filled.alice.get(PROJECT).body
    for method, path, body in WRITING:
        answer = filled.with_role(role).ask(method, path, body)
        assert (answer.status, answer["status"]) == (status, status), (method, path)
    assert filled.alice.get(PROJECT).body == before


@pytest.mark.parametrize("role", ["anonymous", "stranger"])
def test_anybody_reads_a_public_project_until_it_is_private_again(filled: Cast, role: str) -> None:
    caller = filled.with_role(role)
    expected = [filled.rita.ask(*each).body for each in READING]
    filled.alice.patch("/v1/projects/alice/letters", {"public_read": True})
    assert [caller.ask(*each).body for each in READING] == expected
    filled.alice.patch("/v1/projects/alice/letters", {"public_read": False})
    status = 401 if role == "anonymous" else 403
    assert [caller.ask(*each).status for each in READING] == [status] * len(READING)


def test_a_wrong_key_is_refused_even_where_no_key_is_needed(filled: Cast) -> None:
    filled.alice.patch("/v1/projects/alice/letters", {"public_read": True})
    for method, path, body in READING:
        assert Caller("wrong").ask(method, path, body).status == 401


def test_the_body_is_read_only_for_those_who_may_write(filled: Cast) -> None:
    # Whoever may not write learns that, not what is wrong with the body.
    assert filled.rita.post(PROJECT, raw=b"{").status == 403
    assert filled.nobody.post(PROJECT, raw=b"{").status == 401
    assert filled.sam.post(SIMILARS, raw=b"{").status == 403
    assert filled.erin.post(PROJECT, raw=b"{").status == 400


# --- Addresses ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "project", ["alice/missing", "nobody/letters", "Alice/letters", "alice/Letters"]
)
def test_a_project_that_does_not_exist_is_404_with_a_key_and_401_without(
    filled: Cast, project: str
) -> None:
    for method, path, body in READING + WRITING:
        path = path.replace("alice/letters", project)
        answer = filled.alice.ask(method, path, body)
        assert (answer.status, answer["detail"]) == (404, f"Project '{project}' does not exist.")
        assert filled.nobody.ask(method, path, body).status == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{PROJECT}/missing"),
        ("DELETE", f"{PROJECT}/missing"),
        ("GET", f"{SIMILARS}/missing"),
    ],
)
def test_a_missing_text_is_404(filled: Cast, method: str, path: str) -> None:
    answer = filled.alice.ask(method, path)
    assert (answer.status, answer.body) == (
        404,
        {
            "type": "urn:armarium:problem:not-found",
            "title": "Not Found",
            "status": 404,
            "detail": "Project 'alice/letters' has no embedding with text_id 'missing'.",
        },
    )


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", PROJECT, {"GET", "POST", "DELETE"}),
        ("PUT", PROJECT, {"GET", "POST", "DELETE"}),
        ("POST", f"{PROJECT}/a", {"GET", "PUT", "DELETE"}),
        ("PATCH", f"{PROJECT}/a", {"GET", "PUT", "DELETE"}),
        ("PUT", SIMILARS, {"GET", "POST"}),
        ("POST", f"{SIMILARS}/a", {"GET"}),
        ("DELETE", f"{SIMILARS}/a", {"GET"}),
    ],
)
def test_other_methods_are_405(filled: Cast, method: str, path: str, allowed: set[str]) -> None:
    answer = filled.alice.ask(method, path, {})
    assert (answer.status, answer["status"], answer["title"]) == (405, 405, "Method Not Allowed")
    served = {each.strip() for each in answer.headers["Allow"].split(",")}
    assert served - {"OPTIONS", "HEAD"} == allowed
    assert filled.alice.get(PROJECT)["total_count"] == 2


# --- Lists ----------------------------------------------------------------------------------------
def test_an_empty_project_gives_an_empty_list(cast: Cast) -> None:
    assert cast.alice.get(PROJECT).body == {
        "embeddings": [],
        "total_count": 0,
        "limit": 10,
        "offset": 0,
        "has_more": False,
    }


def test_a_list_comes_in_pages_by_text_id(cast: Cast) -> None:
    ids = [f"t{number:02}" for number in range(25)]
    items = [item(each, [1, 2, 3]) for each in reversed(ids)]
    assert cast.alice.post(PROJECT, {"embeddings": items})["uploaded"] == ids[::-1]
    for query, limit, offset, expected in [
        ("", 10, 0, ids[:10]),
        ("?offset=10", 10, 10, ids[10:20]),
        ("?limit=20&offset=20", 20, 20, ids[20:]),
        ("?limit=200", 200, 0, ids),
        ("?limit=1&offset=24", 1, 24, ids[24:]),
        ("?offset=25", 10, 25, []),
        (f"?offset={2**63 - 1}", 10, 2**63 - 1, []),
    ]:
        answer = cast.rita.get(PROJECT + query)
        assert [row["text_id"] for row in answer.body.pop("embeddings")] == expected
        more = offset + len(expected) < 25
        assert ("next_cursor" in answer.body, "Link" in answer.headers) == (more, more)
        answer.body.pop("next_cursor", None)
        assert answer.body == {
            "total_count": 25,
            "limit": limit,
            "offset": offset,
            "has_more": more,
        }


BAD_QUERIES = [
    "limit=0",
    "limit=-1",
    "limit=201",
    "limit=abc",
    "limit=",
    "limit=1.5",
    "limit=1_0",
    "limit=%D9%A3",
    "limit=%205",
    "limit=10&limit=0",
    "limit=99999999999999999999",
    "offset=-1",
    "offset=nan",
    f"offset={2**63}",
    "offset=0x1",
    "unknown=1",
]


@pytest.mark.parametrize("query", BAD_QUERIES)
def test_a_bad_page_is_refused_and_named(filled: Cast, query: str) -> None:
    answer = filled.alice.get(f"{PROJECT}?{query}")
    assert (answer.status, answer["status"], answer["title"]) == (400, 400, "Bad Request")
    name = query.partition("=")[0]
    assert {each["location"] for each in answer["errors"]} == {f"query.{name}"}
    assert name in answer["detail"]


# --- Writing --------------------------------------------------------------------------------------
@pytest.mark.parametrize("role", EDITORS)
def test_editors_upload_replace_and_delete(filled: Cast, role: str) -> None:
    caller = filled.with_role(role)
    new = caller.post(PROJECT, {"embeddings": [item("d", [1, 2, 3]), item("c", [1, 2, 3])]})
    assert (new.status, new.body) == (
        201,
        {
            "message": "2 embedding(s) uploaded successfully",
            "uploaded": ["d", "c"],
            "ids": ["d", "c"],
            "count": 2,
        },
    )
    replaced = caller.put(f"{PROJECT}/a", item("a", [0, 0, 1], text="changed"))
    assert (replaced.status, timeless(replaced.body)) == (
        200,
        {**first(filled), "text": "changed", "vector": [0, 0, 1], "metadata": {}},
    )
    assert filled.rita.get(f"{PROJECT}/a").body == replaced.body
    created = caller.put(f"{PROJECT}/e", item("e", [1, 2, 3]))
    assert created.status == 201

    gone = caller.delete(f"{PROJECT}/a")
    assert (gone.status, gone.body) == (200, {"message": "Embedding 'a' deleted."})
    assert filled.rita.get(f"{PROJECT}/a").status == 404
    assert caller.delete(f"{PROJECT}/a").status == 404
    assert [row["text_id"] for row in filled.rita.get(PROJECT)["embeddings"]] == list("bcde")

    emptied = caller.delete(PROJECT)
    assert (emptied.status, emptied.body) == (
        200,
        {"message": "4 embedding(s) of project 'alice/letters' deleted.", "deleted_count": 4},
    )
    assert caller.delete(PROJECT)["deleted_count"] == 0
    assert filled.rita.get(PROJECT)["total_count"] == 0
    assert filled.rita.get("/v1/projects/alice/letters")["number_of_embeddings"] == 0


def test_posting_an_id_again_is_a_conflict_and_changes_nothing(filled: Cast) -> None:
    before = filled.alice.get(PROJECT).body
    items = [item("new", [1, 2, 3]), item("a", [3, 2, 1], text="other", metadata={"more": 1})]
    answer = filled.erin.post(PROJECT, {"embeddings": items})
    assert (answer.status, answer.body) == (
        409,
        {
            "type": "urn:armarium:problem:conflict",
            "title": "Conflict",
            "status": 409,
            "detail": "text_id 'a' already exists; nothing was stored. Delete it first, or "
            "replace it with PUT.",
            "errors": [
                {
                    "location": "body.embeddings[1].text_id",
                    "message": "text_id 'a' already exists.",
                }
            ],
        },
    )
    assert filled.alice.get(PROJECT).body == before


def test_deleting_and_uploading_again_replaces(filled: Cast) -> None:
    assert filled.erin.delete(f"{PROJECT}/a").status == 200
    assert filled.erin.post(PROJECT, {"embeddings": [item("a", [0, 1, 0])]}).status == 201
    assert filled.rita.get(f"{PROJECT}/a")["vector"] == [0, 1, 0]


def test_put_replaces_everything_but_the_time_of_creation(filled: Cast) -> None:
    # Within the test's one transaction, time stands still.
    yesterday = now() - timedelta(days=1)
    Embedding.objects.update(created_at=yesterday, updated_at=yesterday)
    before = filled.alice.get(f"{PROJECT}/a").body
    after = filled.erin.put(f"{PROJECT}/a", item("a", [1, 0, 0])).body
    assert (after["text"], after["metadata"]) == ("", {})
    assert after["created_at"] == before["created_at"]
    assert after["updated_at"] > before["updated_at"]


def test_a_body_cannot_write_into_another_project(filled: Cast) -> None:
    make_project("alice", "diaries")
    stray = item(
        "stray", [1, 2, 3], user_handle="sam", project_handle="diaries", owner="sam", project_id=1
    )
    assert filled.erin.post(PROJECT, {"embeddings": [stray]}).status == 201
    assert filled.erin.get(f"{PROJECT}/stray")["project_handle"] == "letters"
    assert filled.alice.get("/v1/embeddings/alice/diaries")["total_count"] == 0


def test_two_projects_with_the_same_ids_never_meet(filled: Cast) -> None:
    make_user("bob")
    make_instance("bob", "model")
    make_project("bob", "letters", readers=["rita"])
    theirs = [item("a", [0, 0, 1], text="bob's"), item("only", [1, 0, 0])]
    bobs = "/v1/embeddings/bob/letters"
    assert filled.ada.post(bobs, {"embeddings": theirs}).status == 201
    assert filled.rita.get(f"{bobs}/a")["text"] == "bob's"
    assert filled.rita.get(f"{PROJECT}/a")["text"] == "first"
    assert [hit["id"] for hit in filled.rita.get(f"{SIMILARS}/a?threshold=0")["results"]] == ["b"]
    hits = filled.rita.post(f"{SIMILARS}?threshold=0", {"vector": [1, 0, 0]})["results"]
    assert [hit["id"] for hit in hits] == ["a", "b"]
    assert filled.alice.get(f"{bobs}/a").status == 403
    assert filled.rita.get(f"{PROJECT}/only").status == 404
    assert filled.alice.delete(PROJECT)["deleted_count"] == 2
    assert filled.rita.get(bobs)["total_count"] == 2


def test_deleting_the_project_takes_its_embeddings_along(filled: Cast) -> None:
    assert filled.alice.delete("/v1/projects/alice/letters").status == 200
    assert not Embedding.objects.exists()
    make_project("alice", "letters")
    assert filled.alice.get(PROJECT)["total_count"] == 0


def test_deleting_the_account_takes_its_embeddings_along(filled: Cast) -> None:
    assert filled.alice.delete("/v1/users/alice").status == 200
    assert not Embedding.objects.exists()
    make_user("alice")
    make_instance("alice", "model")
    make_project("alice", "letters")
    assert filled.ada.get(PROJECT)["total_count"] == 0
    assert filled.erin.get(PROJECT).status == 403


# --- Emptying the server --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("role", "status"),
    [(each, 403) for each in ("owner", "editor", "reader", "stranger", "admin")]
    + [("anonymous", 401)],
)
def test_nobody_empties_a_server_that_does_not_allow_it(
    filled: Cast, role: str, status: int
) -> None:
    answer = filled.with_role(role).get("/v1/admin/footgun")
    assert (answer.status, answer["status"]) == (status, status)
    assert filled.alice.get(PROJECT)["total_count"] == 2


def test_only_administrators_empty_a_server_that_allows_it(filled: Cast, settings: Any) -> None:
    settings.ALLOW_RESET = True
    settings.ADMIN_KEY = "k" * 40
    for role in ("owner", "editor", "reader", "stranger"):
        assert filled.with_role(role).get("/v1/admin/footgun").status == 403
    standards = filled.nobody.get("/v1/api-standards").body
    templates = filled.ada.get("/v1/llm-service-definitions/_system").body
    builtin = {"instance_owner": "_system", "instance_handle": "builtin"}
    new = {"project_handle": "systems", **builtin}
    assert filled.ada.post("/v1/projects/_system", new).status == 201

    answer = filled.ada.get("/v1/admin/footgun")
    assert (answer.status, answer.content) == (204, b"")

    assert filled.ada.get("/v1/users").status == 401
    admin = Caller("k" * 40)
    assert admin.get("/v1/users")["users"] == ["_system"]
    assert admin.get("/v1/api-standards").body == standards
    handles = [each["definition_handle"] for each in templates["definitions"]]
    left = admin.get("/v1/llm-service-definitions/_system")["definitions"]
    assert [each["definition_handle"] for each in left] == handles
    assert not Embedding.objects.exists()
    assert not Project.objects.exists()
    make_user("alice")
    made = admin.post("/v1/projects/alice", {"project_handle": "again", **builtin})
    assert made.status == 201

"""Projects over HTTP: made, read, replaced, changed and deleted, by whom and into what."""

import json
from datetime import datetime
from typing import Any

import pytest

from accounts.models import Role
from accounts.policy import BOOTSTRAP_ADMIN
from embeddings.models import Embedding
from llm_services import services as llm_services
from projects.models import Project, ProjectShare
from tests.factories import Answer, Cast, item, make_instance, make_project

LIST = "/v1/projects/alice"
ONE = "/v1/projects/alice/letters"
EMBEDDINGS = "/v1/embeddings/alice/letters"
OWN = {"instance_owner": "alice", "instance_handle": "model"}
BUILTIN = {"instance_owner": "_system", "instance_handle": "builtin"}
SCHEMA = {"type": "object", "properties": {"author": {"type": "string"}}, "required": ["author"]}


def refused(answer: Answer, status: int) -> None:
    title = {
        400: "Bad Request",
        401: "Unauthorized",
        403: "Forbidden",
        404: "Not Found",
        409: "Conflict",
        422: "Unprocessable Entity",
    }[status]
    assert (answer.status, answer["status"], answer["title"]) == (status, status, title)
    assert answer["detail"]
    assert answer.headers["Content-Type"] == "application/problem+json"


def timeless(body: dict[str, Any]) -> dict[str, Any]:
    rest = dict(body)
    for name in ("created_at", "updated_at"):
        written = rest.pop(name)
        assert written.endswith("Z")
        datetime.fromisoformat(written)
    return rest


def letters(cast: Cast, **changes: Any) -> dict[str, Any]:
    """Return Alice's project as its owner sees it, without times."""
    return {
        "project_id": cast.project.pk,
        "project_handle": "letters",
        "owner": "alice",
        "description": "",
        "instance_id": cast.project.instance_id,
        "instance_owner": "alice",
        "instance_handle": "model",
        "public_read": False,
        "role": "owner",
        "number_of_embeddings": 0,
        "metadataScheme": None,
        "shared_with": [
            {"user_handle": "erin", "role": "editor"},
            {"user_handle": "rita", "role": "reader"},
        ],
        **changes,
    }


def fill(cast: Cast, count: int = 1) -> None:
    items = [item(f"t{n}", [1, 2, 3]) for n in range(count)]
    assert cast.alice.post(EMBEDDINGS, {"embeddings": items}).status == 201


# --- Reading --------------------------------------------------------------------------------------
@pytest.mark.parametrize("role", ["owner", "editor", "reader", "admin"])
def test_a_project_is_shown_with_the_callers_role(cast: Cast, role: str) -> None:
    fill(cast, 2)
    cast.alice.patch(ONE, {"metadataScheme": SCHEMA, "description": "Old letters"})
    expected = letters(
        cast,
        role=role,
        number_of_embeddings=2,
        description="Old letters",
        metadataScheme=json.dumps(SCHEMA),
    )
    if role not in {"owner", "admin"}:
        del expected["shared_with"]
    found = timeless(cast.with_role(role).get(ONE).body)
    assert json.loads(found["metadataScheme"]) == SCHEMA
    assert isinstance(found["metadataScheme"], str)
    expected["metadataScheme"] = found["metadataScheme"]
    assert found == expected


@pytest.mark.parametrize("role", ["stranger", "anonymous"])
def test_a_public_project_is_shown_to_anybody_as_a_reader_without_names(
    cast: Cast, role: str
) -> None:
    cast.alice.patch(ONE, {"public_read": True})
    expected = letters(cast, role="reader", public_read=True)
    del expected["shared_with"]
    answer = cast.with_role(role).get(ONE)
    assert timeless(answer.body) == expected
    assert b"erin" not in answer.content
    cast.alice.patch(ONE, {"public_read": False})
    refused(cast.with_role(role).get(ONE), 401 if role == "anonymous" else 403)


def test_a_missing_project_is_404_and_401_without_a_key(cast: Cast) -> None:
    for path in (f"{LIST}/missing", "/v1/projects/missing/letters", f"{LIST}/Letters"):
        requests: list[tuple[str, Any]] = [("GET", None), ("PATCH", {}), ("DELETE", None)]
        for method, body in requests:
            refused(cast.alice.ask(method, path, body), 404)
            refused(cast.nobody.ask(method, path, body), 401)


# --- Lists ----------------------------------------------------------------------------------------
def test_a_list_holds_each_project_once_without_its_schema_and_sharees(cast: Cast) -> None:
    cast.alice.patch(ONE, {"metadataScheme": SCHEMA})
    fill_schema = [item(f"t{n}", [1, 2, 3], metadata={"author": "a"}) for n in range(3)]
    cast.alice.post(EMBEDDINGS, {"embeddings": fill_schema})
    answer = cast.alice.get(LIST)
    expected = letters(cast, number_of_embeddings=3)
    del expected["metadataScheme"], expected["shared_with"]
    default, found = answer.body.pop("projects")
    assert default["project_handle"] == "default"
    assert timeless(found) == expected
    assert answer.body == {"total_count": 2, "limit": 10, "offset": 0, "has_more": False}


@pytest.mark.parametrize(
    ("role", "handles"),
    [
        ("owner", ["default", "letters", "open", "secret"]),
        ("admin", ["default", "letters", "open", "secret"]),
        ("editor", ["letters", "open"]),
        ("reader", ["letters", "open"]),
        ("stranger", ["open"]),
    ],
)
def test_others_see_only_what_they_may_read(cast: Cast, role: str, handles: list[str]) -> None:
    make_project("alice", "open", public_read=True)
    make_project("alice", "secret")
    answer = cast.with_role(role).get(LIST)
    assert [each["project_handle"] for each in answer["projects"]] == handles
    assert answer["total_count"] == len(handles)
    roles = {each["role"] for each in answer["projects"]}
    assert ("owner" in roles) is (role == "owner")


def test_a_list_needs_a_key_and_an_owner_that_exists(cast: Cast) -> None:
    make_project("alice", "open", public_read=True)
    refused(cast.nobody.get(LIST), 401)
    refused(cast.nobody.get("/v1/projects/missing"), 401)
    refused(cast.alice.get("/v1/projects/missing"), 404)


def test_a_list_comes_in_pages_by_handle(cast: Cast) -> None:
    for number in range(12):
        make_project("alice", f"p{number:02}")
    handles = ["default", "letters", *(f"p{number:02}" for number in range(12))]
    for query, expected in [
        ("", handles[:10]),
        ("?offset=10", handles[10:]),
        ("?limit=3&offset=1", handles[1:4]),
        ("?limit=200", handles),
        ("?offset=14", []),
        (f"?offset={2**63 - 1}", []),
    ]:
        answer = cast.alice.get(LIST + query)
        assert [each["project_handle"] for each in answer["projects"]] == expected
        assert answer["total_count"] == 14
        assert answer["has_more"] is (answer["offset"] + len(expected) < 14)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "offset=-1", f"offset={2**63}", "q=letters"]
)
def test_a_bad_page_is_refused(cast: Cast, query: str) -> None:
    answer = cast.alice.get(f"{LIST}?{query}")
    refused(answer, 400)
    assert answer["errors"][0]["location"] == f"query.{query.partition('=')[0]}"


# --- Creating -------------------------------------------------------------------------------------
def test_a_project_needs_only_a_handle_and_an_instance(cast: Cast) -> None:
    answer = cast.alice.post(LIST, {"project_handle": "new", **OWN})
    project = Project.objects.get(handle="new")
    assert (answer.status, timeless(answer.body)) == (
        201,
        letters(cast, project_id=project.pk, project_handle="new", shared_with=[]),
    )
    assert cast.alice.get(f"{LIST}/new").body == answer.body


@pytest.mark.parametrize("verb", ["POST", "PUT"])
def test_a_project_can_be_made_with_everything_at_once(cast: Cast, verb: str) -> None:
    text = ' {"type": "object",   "required": []} '
    body = {
        "project_handle": "A_new-1",
        "description": "d" * 255,
        **OWN,
        "metadataScheme": text,
        "public_read": True,
        "shared_with": [
            {"user_handle": "sam", "role": "editor"},
            {"user_handle": "rita", "role": "reader"},
        ],
        # Read-only and unknown fields say nothing.
        "owner": "sam",
        "project_id": 1,
        "role": "reader",
        "number_of_embeddings": 9,
        "is_default": True,
        "created_at": "2000-01-01T00:00:00Z",
        "unknown": {"a": 1},
    }
    path = LIST if verb == "POST" else f"{LIST}/A_new-1"
    answer = cast.alice.ask(verb, path, body)
    made = answer.body
    assert (answer.status, timeless(made)) == (
        201,
        letters(
            cast,
            project_id=made["project_id"],
            project_handle="A_new-1",
            description="d" * 255,
            public_read=True,
            metadataScheme=text,
            shared_with=[
                {"user_handle": "*", "role": "reader"},
                {"user_handle": "rita", "role": "reader"},
                {"user_handle": "sam", "role": "editor"},
            ],
        ),
    )
    assert made["project_id"] > 1
    assert made["created_at"] > "2020"
    assert cast.sam.get(f"{LIST}/A_new-1")["role"] == "editor"


WRITES: list[tuple[str, str, Any]] = [
    ("POST", LIST, {"project_handle": "new", **OWN}),
    ("PUT", f"{LIST}/new", OWN),
    ("PUT", ONE, {**OWN, "description": "taken over"}),
    ("PATCH", ONE, {"description": "taken over"}),
    ("PATCH", ONE, {"public_read": True}),
    ("DELETE", ONE, None),
]


@pytest.mark.parametrize(
    ("role", "status"), [("editor", 403), ("reader", 403), ("stranger", 403), ("anonymous", 401)]
)
@pytest.mark.parametrize("is_public", [False, True], ids=["private", "public"])
def test_nobody_but_the_owner_and_administrators_writes(
    cast: Cast, role: str, status: int, is_public: bool
) -> None:
    cast.alice.patch(ONE, {"public_read": is_public})
    before = cast.alice.get(LIST).body, cast.alice.get(ONE).body
    for request in WRITES:
        refused(cast.with_role(role).ask(*request), status)
    assert (cast.alice.get(LIST).body, cast.alice.get(ONE).body) == before


@pytest.mark.parametrize("role", ["owner", "admin"])
def test_the_owner_and_administrators_write(cast: Cast, role: str) -> None:
    caller = cast.with_role(role)
    assert [caller.ask(*each).status for each in WRITES] == [201, 200, 200, 200, 200, 200]
    refused(cast.alice.get(ONE), 404)
    assert Project.objects.get(handle="new").owner.handle == "alice"


@pytest.mark.parametrize("handle", ["letters", "Letters", "LETTERS"])
def test_a_handle_is_taken_in_every_casing(cast: Cast, handle: str) -> None:
    before = cast.alice.get(ONE).body
    refused(cast.alice.post(LIST, {"project_handle": handle, **OWN, "public_read": True}), 409)
    if handle != "letters":
        refused(cast.alice.put(f"{LIST}/{handle}", OWN), 409)
    assert cast.alice.get(ONE).body == before
    make_instance("sam", "model")
    assert cast.sam.post("/v1/projects/sam", {"project_handle": handle, **BUILTIN}).status == 201


BAD_HANDLES = ["ab", "x" * 21, "with space", "dot.ted", "sl/ash", "umläut", "new\n", "", "٣٣٣", "*"]


@pytest.mark.parametrize("handle", [*BAD_HANDLES, 5, None, ["new"], ...], ids=ascii)
def test_a_bad_handle_is_refused(cast: Cast, handle: Any) -> None:
    body = {"project_handle": handle, **OWN}
    answer = cast.alice.post(LIST, {k: v for k, v in body.items() if v is not ...})
    refused(answer, 400)
    assert answer["errors"][0]["location"] == "body.project_handle"
    assert cast.alice.get(LIST)["total_count"] == 2


BAD_FIELDS: list[tuple[dict[str, Any], int, str]] = [
    ({"description": "d" * 256}, 400, "description"),
    ({"description": 5}, 400, "description"),
    ({"public_read": "true"}, 400, "public_read"),
    ({"public_read": 1}, 400, "public_read"),
    ({"shared_with": "rita"}, 400, "shared_with"),
    ({"shared_with": {"rita": "reader"}}, 400, "shared_with"),
    ({"shared_with": ["rita"]}, 400, "shared_with[0]"),
    ({"shared_with": [{"user_handle": "rita"}]}, 400, "shared_with[0]"),
    ({"shared_with": [{"role": "reader"}]}, 400, "shared_with[0]"),
    ({"shared_with": [{"user_handle": "rita", "role": "owner"}]}, 400, "shared_with[0]"),
    ({"shared_with": [{"user_handle": "rita", "role": "admin"}]}, 400, "shared_with[0]"),
    ({"shared_with": [{"user_handle": "rita", "role": ["reader"]}]}, 400, "shared_with[0]"),
    ({"shared_with": [{"user_handle": 5, "role": "reader"}]}, 400, "shared_with[0]"),
    ({"shared_with": [{"user_handle": "missing", "role": "reader"}]}, 400, ""),
    ({"shared_with": [{"user_handle": "_system", "role": "reader"}]}, 400, ""),
    ({"shared_with": [{"user_handle": "alice", "role": "reader"}]}, 400, ""),
    ({"shared_with": [{"user_handle": "*", "role": "editor"}]}, 400, ""),
    ({"shared_with": ["*"], "public_read": False}, 400, "public_read"),
    (
        {
            "shared_with": [
                {"user_handle": "sam", "role": "editor"},
                {"user_handle": "missing", "role": "reader"},
            ]
        },
        400,
        "",
    ),
    ({"instance_handle": "missing"}, 400, "instance_handle"),
    ({"instance_handle": "Model"}, 400, "instance_handle"),
    ({"instance_handle": 5}, 400, "instance_handle"),
    ({"instance_owner": "sam"}, 400, "instance_handle"),
    ({"instance_owner": "missing"}, 400, "instance_handle"),
    ({"instance_id": 987654321}, 400, "instance_id"),
    ({"instance_id": "1"}, 400, "instance_id"),
    ({"instance_id": True}, 400, "instance_id"),
    ({"instance_id": 2**63}, 400, "instance_id"),
    ({"instance_id": -1}, 400, "instance_id"),
    ({"metadataScheme": "not json"}, 422, "metadataScheme"),
    ({"metadataScheme": '{"type": "object"'}, 422, "metadataScheme"),
    ({"metadataScheme": "[]"}, 422, "metadataScheme"),
    ({"metadataScheme": '"object"'}, 422, "metadataScheme"),
    ({"metadataScheme": {"type": "nothing"}}, 422, "metadataScheme"),
    ({"metadataScheme": '{"type": 5}'}, 422, "metadataScheme"),
    ({"metadataScheme": {"required": "author"}}, 422, "metadataScheme"),
    ({"metadataScheme": {"$ref": "https://example.org/schema"}}, 422, "metadataScheme"),
    ({"metadataScheme": {"$ref": "file:///etc/passwd"}}, 422, "metadataScheme"),
    ({"metadataScheme": {"$ref": "#/definitions/missing"}}, 422, "metadataScheme"),
    ({"metadataScheme": {"pattern": "("}}, 422, "metadataScheme"),
    ({"metadataScheme": 5}, 422, "metadataScheme"),
    ({"metadataScheme": ["a"]}, 422, "metadataScheme"),
    ({"metadataScheme": True}, 422, "metadataScheme"),
    ({"project_handle": "other"}, 400, "project_handle"),
    ({"project_handle": "Letters"}, 400, "project_handle"),
]


@pytest.mark.parametrize(
    ("fields", "status", "field"), BAD_FIELDS, ids=[str(e[0])[:60] for e in BAD_FIELDS]
)
def test_a_bad_field_is_refused_by_every_verb_and_changes_nothing(
    cast: Cast, fields: dict[str, Any], status: int, field: str
) -> None:
    fill(cast)
    before = cast.alice.get(LIST).body, cast.alice.get(ONE).body
    requests: list[tuple[str, str, Any]] = [
        ("PUT", ONE, {**OWN, "description": "changed", **fields}),
        ("PATCH", ONE, {"description": "changed", **OWN, **fields}),
    ]
    if "project_handle" not in fields:
        requests.append(("POST", LIST, {"project_handle": "new", **OWN, **fields}))
        requests.append(("PUT", f"{LIST}/new", {**OWN, **fields}))
    for method, path, body in requests:
        answer = cast.alice.ask(method, path, body)
        refused(answer, status)
        if field:
            assert answer["errors"][0]["location"] == f"body.{field}", (method, path)
    assert (cast.alice.get(LIST).body, cast.alice.get(ONE).body) == before
    assert ProjectShare.objects.count() == 2


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"null", b'"a"', b"5", b'{"description": "\\ud800"}']
)
def test_a_body_that_is_no_object_is_refused(cast: Cast, body: bytes) -> None:
    before = cast.alice.get(ONE).body
    for method, path in [("POST", LIST), ("PUT", ONE), ("PATCH", ONE), ("POST", f"{ONE}/share")]:
        refused(cast.alice.ask(method, path, raw=body), 400)
    assert cast.alice.get(ONE).body == before


def test_there_is_no_limit_on_projects(cast: Cast) -> None:
    for number in range(60):
        new = {"project_handle": f"p{number:02}", **OWN}
        assert cast.alice.post(LIST, new).status == 201
    assert cast.alice.get(LIST)["total_count"] == 62


# --- The instance ---------------------------------------------------------------------------------
def test_a_project_names_its_instance(cast: Cast) -> None:
    for method, path, body in [
        ("POST", LIST, {"project_handle": "new"}),
        ("POST", LIST, {"project_handle": "new", "instance_owner": "alice"}),
        ("PUT", f"{LIST}/new", {}),
        ("PUT", ONE, {"description": "no instance"}),
        ("PUT", ONE, {"instance_owner": "alice"}),
        ("PATCH", ONE, {"instance_owner": "alice"}),
        ("PATCH", ONE, {"instance_handle": None}),
        ("PATCH", ONE, {"instance_id": None}),
        ("PUT", ONE, {"instance_owner": "alice", "instance_handle": None}),
    ]:
        answer = cast.alice.ask(method, path, body)
        refused(answer, 400)
        assert answer["errors"][0]["location"].startswith("body.instance_")
    assert timeless(cast.alice.get(ONE).body) == letters(cast)
    assert cast.alice.get(LIST)["total_count"] == 2


@pytest.mark.parametrize(
    "named",
    [
        OWN,
        {"instance_handle": "model"},
        {"instance_id": ...},
        {**OWN, "instance_id": ...},
        {"instance_handle": "model", "instance_owner": None},
        {"instance_handle": "model", "instance_id": None},
    ],
    ids=str,
)
def test_an_instance_is_named_by_handle_or_by_id(cast: Cast, named: dict[str, Any]) -> None:
    number = cast.project.instance_id
    body = {name: number if value is ... else value for name, value in named.items()}
    made = cast.alice.post(LIST, {"project_handle": "new", **body})
    assert (made.status, made["instance_id"], made["instance_owner"]) == (201, number, "alice")


def test_two_names_for_the_instance_must_agree(cast: Cast) -> None:
    other = make_instance("alice", "other")
    body = {"project_handle": "new", **OWN, "instance_id": other.pk}
    refused(cast.alice.post(LIST, body), 400)
    refused(cast.alice.patch(ONE, {**OWN, "instance_id": other.pk}), 400)


def test_the_instance_is_the_owners_or_shared_with_the_owner_whoever_asks(cast: Cast) -> None:
    sams = make_instance("sam", "sams")
    adas = make_instance("ada", "adas")

    def tried(instance: dict[str, Any]) -> set[int]:
        found = set()
        for caller in (cast.alice, cast.ada):
            answer = caller.post(LIST, {"project_handle": f"by-{caller.handle}", **instance})
            found |= {answer.status, caller.patch(ONE, instance).status}
            Project.objects.filter(handle__startswith="by-").delete()
        return found

    assert tried({"instance_owner": "sam", "instance_handle": "sams"}) == {400}
    assert tried({"instance_id": sams.pk}) == {400}
    # That the caller may use it does not help: it is Alice's project.
    assert tried({"instance_owner": "ada", "instance_handle": "adas"}) == {400}
    assert tried({"instance_id": adas.pk}) == {400}

    llm_services.share_instance(
        actor=BOOTSTRAP_ADMIN, owner="sam", handle="sams", user="alice", role=Role.READER
    )
    assert tried({"instance_owner": "sam", "instance_handle": "sams"}) == {200, 201}
    assert tried({"instance_id": sams.pk}) == {200, 201}
    # A sharee of the project needs no access to the instance.
    assert cast.rita.get(ONE)["instance_owner"] == "sam"
    assert cast.rita.get("/v1/llm-services/sam/sams").status == 403


def test_an_instance_out_of_reach_and_a_missing_one_read_the_same(cast: Cast) -> None:
    make_instance("sam", "sams")
    details = [
        cast.alice.post(
            LIST, {"project_handle": "new", "instance_owner": "sam", "instance_handle": handle}
        )["detail"].replace(handle, "…")
        for handle in ("sams", "missing")
    ]
    assert details[0] == details[1]


def test_the_builtin_instance_is_everybodys(cast: Cast) -> None:
    made = cast.alice.post(LIST, {"project_handle": "new", **BUILTIN})
    assert (made.status, made["instance_owner"], made["instance_handle"]) == (
        201,
        "_system",
        "builtin",
    )


def test_another_instance_of_the_same_dimensions_may_take_over(cast: Cast) -> None:
    make_instance("alice", "twin")
    fill(cast, 3)
    before = cast.alice.get(EMBEDDINGS).body
    changed = cast.alice.patch(ONE, {"instance_handle": "twin"})
    assert (changed.status, changed["instance_handle"]) == (200, "twin")
    for row in before["embeddings"]:
        row["instance_handle"] = "twin"
    assert cast.alice.get(EMBEDDINGS).body == before
    refused(cast.alice.post(EMBEDDINGS, {"embeddings": [item("new", [1, 2, 3])]}), 400)
    new = item("new", [1, 2, 3], instance_handle="twin")
    assert cast.alice.post(EMBEDDINGS, {"embeddings": [new]}).status == 201


def test_other_dimensions_are_a_conflict_while_embeddings_exist(cast: Cast) -> None:
    make_instance("alice", "wide", dimensions=4)
    fill(cast, 3)
    before = cast.alice.get(ONE).body
    body = {"instance_owner": "alice", "instance_handle": "wide", "description": "wider"}
    for answer in [cast.alice.patch(ONE, body), cast.alice.put(ONE, body)]:
        refused(answer, 409)
        assert answer["detail"] == (
            "Project 'alice/letters' holds 3 embeddings of 3 dimensions; an instance with 4 cannot "
            "serve them. Delete them first, or make a new project."
        )
    refused(cast.alice.patch("/v1/llm-services/alice/model", {"dimensions": 4}), 409)
    assert cast.alice.get(ONE).body == before
    assert cast.alice.get("/v1/llm-services/alice/model")["dimensions"] == 3

    cast.alice.delete(EMBEDDINGS)
    assert cast.alice.patch(ONE, body)["instance_handle"] == "wide"
    wide = item("a", [1, 2, 3, 4], instance_handle="wide")
    assert cast.alice.post(EMBEDDINGS, {"embeddings": [wide]}).status == 201


# --- Replacing and changing -----------------------------------------------------------------------
def settle(cast: Cast) -> None:
    fill(cast, 2)
    settings = {"description": "Old letters", "metadataScheme": SCHEMA, "public_read": True}
    assert cast.alice.patch(ONE, settings).status == 200


def test_put_resets_what_it_does_not_name_and_keeps_embeddings_and_grants(cast: Cast) -> None:
    settle(cast)
    before = cast.alice.get(ONE).body
    rows = cast.alice.get(EMBEDDINGS).body
    answer = cast.alice.put(ONE, OWN)
    assert (answer.status, timeless(answer.body)) == (200, letters(cast, number_of_embeddings=2))
    assert answer["created_at"] == before["created_at"]
    assert cast.alice.get(EMBEDDINGS).body == rows
    assert cast.erin.get(ONE)["role"] == "editor"


def test_put_makes_shared_with_the_exact_list(cast: Cast) -> None:
    sam = {"user_handle": "sam", "role": "editor"}
    rita = {"user_handle": "rita", "role": "editor"}
    for wanted in ([sam], [rita, sam], [], [{**rita, "role": "reader"}]):
        answer = cast.alice.put(ONE, {**OWN, "shared_with": wanted})
        assert (answer.status, answer["shared_with"]) == (200, wanted)
        assert cast.alice.get(f"{ONE}/shared-with")["shared_with"] == wanted
    assert cast.erin.get(ONE).status == 403
    assert cast.alice.put(ONE, {**OWN, "shared_with": None})["shared_with"] == [
        {**rita, "role": "reader"}
    ]


def test_what_get_returns_can_be_put_back(cast: Cast) -> None:
    settle(cast)
    before = cast.alice.get(ONE).body
    answer = cast.alice.put(ONE, before)
    assert (answer.status, timeless(answer.body)) == (200, timeless(before))
    patched = cast.alice.patch(ONE, before)
    assert (patched.status, timeless(patched.body)) == (200, timeless(before))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"description": "New"}, {"description": "New"}),
        ({"description": None}, {"description": ""}),
        ({"description": ""}, {"description": ""}),
        ({"metadataScheme": None}, {"metadataScheme": None}),
        ({"metadataScheme": ""}, {"metadataScheme": None}),
        ({"metadataScheme": '{"a": 1}'}, {"metadataScheme": '{"a": 1}'}),
        ({"public_read": False}, {"public_read": False, "everybody": False}),
        ({"public_read": None}, {"public_read": False, "everybody": False}),
        ({"shared_with": []}, {"public_read": False, "shared_with": []}),
        ({"shared_with": None}, {"public_read": False, "shared_with": []}),
        (
            {"shared_with": ["*"]},
            {"shared_with": [{"user_handle": "*", "role": "reader"}]},
        ),
        ({"project_handle": "letters"}, {}),
        ({"owner": "sam", "project_id": 1, "role": "admin", "unknown": 1}, {}),
        ({"instance_handle": "model", "instance_owner": "alice"}, {}),
    ],
    ids=str,
)
def test_patch_changes_what_it_names_and_null_clears(
    cast: Cast, changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    settle(cast)
    before = timeless(cast.alice.get(ONE).body)
    if expected.pop("everybody", True) is False:
        before["shared_with"] = before["shared_with"][1:]
    answer = cast.alice.patch(ONE, changes)
    assert (answer.status, timeless(answer.body)) == (200, {**before, **expected})
    assert timeless(cast.alice.get(ONE).body) == {**before, **expected}


def test_a_handle_cannot_be_changed(cast: Cast) -> None:
    for verb in ("PATCH", "PUT"):
        answer = cast.alice.ask(verb, ONE, {**OWN, "project_handle": "diaries"})
        refused(answer, 400)
        assert "cannot be changed" in answer["detail"]
    assert cast.alice.get(f"{LIST}/diaries").status == 404
    assert cast.alice.put(ONE, {**OWN, "project_handle": "letters"}).status == 200


def test_a_refused_change_changes_nothing_at_all(cast: Cast) -> None:
    settle(cast)
    before = cast.alice.get(ONE).body
    grants = [
        {"user_handle": "sam", "role": "editor"},
        {"user_handle": "missing", "role": "reader"},
    ]
    for verb in ("PATCH", "PUT"):
        body = {**OWN, "description": "half done", "public_read": False, "shared_with": grants}
        refused(cast.alice.ask(verb, ONE, body), 400)
        body = {**OWN, "description": "half done", "metadataScheme": {"type": "nothing"}}
        refused(cast.alice.ask(verb, ONE, body), 422)
    assert cast.alice.get(ONE).body == before


@pytest.mark.parametrize("verb", ["PATCH", "PUT", "DELETE"])
def test_lists_and_action_addresses_take_no_such_verbs(cast: Cast, verb: str) -> None:
    for path in (LIST, f"{ONE}/share", f"{ONE}/shared-with", f"{ONE}/transfer-ownership"):
        answer = cast.alice.ask(verb, path, {})
        assert (answer.status, answer["status"]) == (405, 405)
        assert answer.headers["Allow"]


# --- Deleting -------------------------------------------------------------------------------------
def test_deleting_takes_embeddings_and_grants_along(cast: Cast) -> None:
    settle(cast)
    answer = cast.alice.delete(ONE)
    assert (answer.status, answer.body) == (200, {"message": "Project 'alice/letters' deleted."})
    for caller in (cast.alice, cast.erin, cast.rita):
        refused(caller.get(ONE), 404)
        refused(caller.get(EMBEDDINGS), 404)
    refused(cast.alice.delete(ONE), 404)
    assert not Embedding.objects.exists()
    assert not ProjectShare.objects.exists()
    assert cast.alice.get("/v1/llm-services/alice/model").status == 200

    make_project("alice", "letters")
    refused(cast.erin.get(ONE), 403)
    assert cast.alice.get(ONE)["number_of_embeddings"] == 0

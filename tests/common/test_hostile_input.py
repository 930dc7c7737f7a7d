"""Any bytes get an answer that names field and remedy, and nothing is written.

Contract on reliability and security, section 5; the numbers of its rows are in the names of the
tables. What only concerns the parser, media types, sizes or methods is in the tests beside this.
"""

import json
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from accounts.models import FailedAttempts
from tests.answers import assert_refused, nothing_changes, state
from tests.factories import Answer, Caller, Cast, item, make_instance, make_user

LISTED = "/v1/embeddings/alice/letters"
DEFINITION = "/v1/llm-service-definitions/alice/template"
SERVICE = {
    "endpoint": "https://api.example.org/v1",
    "api_standard": "openai",
    "model": "m",
    "dimensions": 3,
}
# Every route that reads a body, with who may ask it.
WRITES = [
    ("admin", "POST", "/v1/users"),
    ("admin", "PUT", "/v1/users/bob"),
    ("owner", "PATCH", "/v1/users/alice"),
    ("admin", "POST", "/v1/api-standards"),
    ("admin", "PUT", "/v1/api-standards/mine"),
    ("admin", "PATCH", "/v1/api-standards/openai"),
    ("owner", "POST", "/v1/llm-service-definitions/alice"),
    ("owner", "PUT", DEFINITION),
    ("owner", "PATCH", DEFINITION),
    ("owner", "POST", f"{DEFINITION}/share"),
    ("owner", "POST", "/v1/llm-services/alice"),
    ("owner", "POST", "/v1/llm-services/alice/from-definition"),
    ("owner", "PUT", "/v1/llm-services/alice/model"),
    ("owner", "PATCH", "/v1/llm-services/alice/model"),
    ("owner", "POST", "/v1/llm-services/alice/model/share"),
    ("owner", "POST", "/v1/projects/alice"),
    ("owner", "PUT", "/v1/projects/alice/letters"),
    ("owner", "PATCH", "/v1/projects/alice/letters"),
    ("owner", "POST", "/v1/projects/alice/letters/share"),
    ("owner", "POST", "/v1/projects/alice/letters/transfer-ownership"),
    ("editor", "POST", LISTED),
    ("editor", "PUT", f"{LISTED}/a"),
    ("reader", "POST", "/v1/similars/alice/letters"),
]


@pytest.fixture
def stage(cast: Cast) -> Cast:
    """Give every route of WRITES what it addresses."""
    assert cast.alice.put(DEFINITION, SERVICE).status == 201
    upload = {
        "embeddings": [item("a", [1, 2, 3], metadata={"author": "Kant"}), item("b", [3, 2, 1])]
    }
    assert cast.erin.post(LISTED, upload).status == 201
    return cast


NOT_AN_OBJECT = {
    "I1 cut off": b'{"user_handle": "bo',
    "I1 trailing comma": b'{"name": "n",}',
    "I1 two values": b"{} {}",
    "I1 comment": b"{/* */}",
    "I1 single quotes": b"{'name': 'n'}",
    "I1 hexadecimal": b'{"dimensions": 0x3}',
    "I1 control character": b'{"name": "a\x07b"}',
    "I2 empty": b"",
    "I2 white space": b"  \n",
    "I2 null": b"null",
    "I2 list": b"[]",
    "I2 list of objects": b"[{}]",
    "I2 string": b'"name"',
    "I2 number": b"5",
    "I2 boolean": b"true",
    "I3 NaN": b'{"dimensions": NaN}',
    "I3 Infinity": b'{"dimensions": -Infinity}',
    "I3 1e400": b'{"dimensions": 1e400}',
    "I3 2^64": b'{"dimensions": 18446744073709551616}',
    "I4 100 000 lists": b"[" * 100_000,
    "I4 nested objects": b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
    "I5 invalid UTF-8": b'{"name": "\xff\xfe"}',
    "I5 Latin-1": '{"name": "ü"}'.encode("latin-1"),
    "I5 UTF-16": '{"name": "n"}'.encode("utf-16"),
    "I5 UTF-32": '{"name": "n"}'.encode("utf-32"),
    "I5 lone surrogate": rb'{"name": "\ud800"}',
}


def test_what_is_no_json_object_is_400_on_every_route(stage: Cast) -> None:
    with nothing_changes():
        for role, method, path in WRITES:
            caller = stage.with_role(role)
            for name, body in NOT_AN_OBJECT.items():
                length = {"Content-Length": str(len(body))}
                answer = caller.ask(method, path, raw=body, headers=length)
                assert answer.status == 400, (method, path, name)
                assert_refused(answer, 400)
                assert answer["errors"][0]["location"].startswith("body"), (path, name)


# In a field that no route knows: it is ignored, unless its value cannot be.
EVERYWHERE = {
    "I3 2^63": b"9223372036854775808",
    "I4 65 levels": b"[" * 65 + b"]" * 65,
    "I4 100 001 values": b"[" + b"0," * 100_000 + b"0]",
    "I5 U+0000": rb'"a\u0000b"',
    "I5 U+0000 in a key": rb'{"a\u0000b": 1}',
    "I9 key twice": b'{"a": 1, "a": 2}',
}
BATCHES = ("/v1/embeddings/", "/v1/similars/")


def test_a_value_that_cannot_be_stored_is_400_in_any_field(stage: Cast) -> None:
    good = {
        "user_handle": "bob",
        "api_standard_handle": "mine",
        "key_method": "none",
        "definition_handle": "openai-large",
        "definition_owner": "_system",
        "instance_handle": "model",
        "project_handle": "project",
        "share_with_handle": "sam",
        "role": "reader",
        "new_owner_handle": "sam",
    }
    with nothing_changes():
        for role, method, path in WRITES:
            if path.startswith(BATCHES):
                continue
            for name, value in EVERYWHERE.items():
                body = orjson.dumps(good)[:-1] + b', "extra": ' + value + b"}"
                answer = stage.with_role(role).ask(method, path, raw=body)
                assert answer.status == 400, (method, path, name)
                assert_refused(answer, 400)
                assert answer["errors"][0]["location"].startswith("body.extra"), (path, name)


def test_metadata_that_cannot_be_stored_is_400(stage: Cast) -> None:
    new = orjson.dumps(item("new", [1, 2, 3]))[:-1]
    with nothing_changes():
        for name, value in EVERYWHERE.items():
            embedding = new + b', "metadata": {"m": ' + value + b"}}"
            answer = stage.erin.post(LISTED, raw=b'{"embeddings": [' + embedding + b"]}")
            assert_refused(answer, 400)
            location = answer["errors"][0]["location"]
            assert location.startswith("body.embeddings[0].metadata"), name
            answer = stage.erin.put(f"{LISTED}/new", raw=embedding)
            assert_refused(answer, 400)
            assert answer["errors"][0]["location"].startswith("body.metadata"), name


def test_a_key_that_occurs_twice_in_a_batch_is_400(stage: Cast) -> None:
    one, two = (orjson.dumps([item(name, [1, 2, 3])]) for name in ("one", "two"))
    with nothing_changes():
        twice = b'{"embeddings": ' + one + b', "embeddings": ' + two + b"}"
        assert_refused(stage.erin.post(LISTED, raw=twice), 400)
        inside = one[:-2] + b', "text_id": "other"}]'
        assert_refused(stage.erin.post(LISTED, raw=b'{"embeddings": ' + inside + b"}"), 400)
        vectors = b'{"vector": [1, 2, 3], "vector": [3, 2, 1]}'
        assert_refused(stage.rita.post("/v1/similars/alice/letters", raw=vectors), 400)


# --- I10, I11, I13: embeddings --------------------------------------------------------------------
VECTORS: dict[str, bytes] = {
    "missing": b"null",
    "empty": b"[]",
    "short": b"[1, 2]",
    "long": b"[1, 2, 3, 4]",
    "strings": b'["1", "2", "3"]',
    "a string": b'"[1, 2, 3]"',
    "booleans": b"[true, false, true]",
    "nulls": b"[1, null, 3]",
    "nested": b"[[1, 2, 3]]",
    "nested inside": b"[1, [2], 3]",
    "objects": b"[1, {}, 3]",
    "an object": b'{"0": 1, "1": 2, "2": 3}',
    "a number": b"3",
    "zero": b"[0, 0, 0]",
    "minus zero": b"[-0.0, 0, 0]",
    "zero in float32": b"[1e-60, 1e-60, 0]",
    "tiny": b"[1e-30, 1e-30, 1e-30]",
    "huge": b"[1e38, 1e38, 1e38]",
    "infinite in float32": b"[1e39, 0, 0]",
    "1e400": b"[1e400, 0, 0]",
    "NaN": b"[NaN, 0, 0]",
}
TEXT_IDS: dict[str, Any] = {
    "missing": None,
    "empty": "",
    "301 characters": "a" * 301,
    "a number": 5,
    "a boolean": True,
    "a list": ["a"],
    "an object": {"a": 1},
}


def test_an_unusable_vector_is_400_wherever_it_is_sent(stage: Cast) -> None:
    fields = b'"text_id": "x", "instance_handle": "model", "vector_dim": 3'
    good = orjson.dumps(item("good", [1, 2, 3]))
    with nothing_changes():
        for name, vector in VECTORS.items():
            embedding = b"{" + fields + b', "vector": ' + vector + b"}"
            for caller, method, path, body in (
                (stage.erin, "POST", LISTED, b'{"embeddings": [' + embedding + b"]}"),
                (stage.erin, "POST", LISTED, b'{"embeddings": [' + good + b"," + embedding + b"]}"),
                (stage.erin, "PUT", f"{LISTED}/x", embedding),
                (stage.rita, "POST", "/v1/similars/alice/letters", b'{"vector": ' + vector + b"}"),
            ):
                answer = caller.ask(method, path, raw=body)
                assert answer.status == 400, (name, method, path)
                assert_refused(answer, 400)
        for body in (b"{}", b'{"vectors": [1, 2, 3]}'):
            answer = stage.rita.post("/v1/similars/alice/letters", raw=body)
            assert_refused(answer, 400, location="body.vector")


def test_a_wrong_text_id_or_batch_is_refused_whole(stage: Cast) -> None:
    good = item("good", [1, 2, 3])
    with nothing_changes():
        for wrong in TEXT_IDS.values():
            bad = {**good, "text_id": wrong}
            answer = stage.erin.post(LISTED, {"embeddings": [good, bad]})
            assert_refused(answer, 400, location="body.embeddings[1].text_id")
        del bad["text_id"]
        answer = stage.erin.post(LISTED, {"embeddings": [bad, good]})
        assert_refused(answer, 400, location="body.embeddings[0].text_id")
        for body, status in (
            ({"embeddings": []}, 400),
            ({"embeddings": {}}, 400),
            ({"embeddings": None}, 400),
            ({"embeddings": [None]}, 400),
            ({"embeddings": [[good]]}, 400),
            ({"embedding": [good]}, 400),
            ({"embeddings": [good, good]}, 409),
            ({"embeddings": [good, item("a", [1, 2, 3])]}, 409),
            ({"embeddings": [good] * 5_001}, 413),
        ):
            assert_refused(stage.erin.post(LISTED, body), status)
        assert_refused(stage.erin.put(f"{LISTED}/{'a' * 301}", without_id(good)), 400)
    assert stage.erin.post(LISTED, {"embeddings": [good]}).status == 201


def without_id(embedding: dict[str, Any]) -> dict[str, Any]:
    """Return an embedding whose id the address gives."""
    return {name: value for name, value in embedding.items() if name != "text_id"}


# --- I12: handles in addresses --------------------------------------------------------------------
BAD_HANDLES = [
    *("ab", "a" * 21, "a%20b", "abc%0A", "b%C3%B6b", "%E2%91%A0%E2%91%A1%E2%91%A2", "a.b"),
    *("%3Cb%3E", "a%27b", "%00abc%00"),
]


def test_nothing_is_made_under_a_wrong_handle(stage: Cast) -> None:
    with nothing_changes():
        for handle in BAD_HANDLES:
            for caller, path, body, field in (
                (stage.ada, "users", {}, "user_handle"),
                (stage.ada, "api-standards", {"key_method": "none"}, "api_standard_handle"),
                (stage.alice, "llm-service-definitions/alice", SERVICE, "definition_handle"),
                (stage.alice, "llm-services/alice", SERVICE, "instance_handle"),
                (stage.alice, "projects/alice", {"instance_handle": "model"}, "project_handle"),
            ):
                answer = caller.put(f"/v1/{path}/{handle}", body)
                if "%00" in handle:
                    assert_refused(answer, 404)
                else:
                    assert_refused(answer, 400, location=f"body.{field}")


# --- I14, I15: searches ---------------------------------------------------------------------------
WRONG_NUMBERS = [
    *("count=0", "count=201", "count=-1", "count=abc", "count=", "count=%D9%A3", "count=1_0"),
    *("count=5&count=abc", "limit=0", "limit=201", "offset=-1", "offset=9223372036854775808"),
    *("threshold=nan", "threshold=inf", "threshold=-0.1", "threshold=1.1", "threshold=abc"),
    *("threshold=", "threshold=1e999", "threshold=0,5", "threshold=%D9%A0", "threshold=0x1"),
    *("metadata_path=a", "metadata_value=a", "metadata_filter=a", "sort_by=a", "ef_search=1"),
]
INJECTIONS = [
    *("author' OR '1'='1", "'; DROP TABLE embeddings_embedding; --", 'a"b', "a}b{", "{a,b}", "a,b"),
    *("$.author", "$.** ? (@ == 1)", "author::text", "metadata__author", "project__owner__handle"),
    *(
        "_connector",
        "pk",
        "..",
        ".",
        "a..b",
        ".a",
        "a.",
        "\\",
        "%",
        "%s",
        "%(x)s",
        "{0}",
        "\n",
        "😀",
    ),
    *("a." * 100 + "a", "a" * 1_000, "a" * 1_001, "NULL", "*", "?", "a?b", "#>>", "0", "-1"),
]


def test_a_wrong_search_parameter_is_400(stage: Cast) -> None:
    with nothing_changes():
        for query in WRONG_NUMBERS:
            answer = stage.rita.get(f"/v1/similars/alice/letters/a?{query}")
            assert_refused(answer, 400)
            assert answer["errors"][0]["location"].startswith("query."), query
            body = {"vector": [1, 2, 3]}
            answer = stage.rita.post(f"/v1/similars/alice/letters?{query}", body)
            assert_refused(answer, 400)


def test_a_metadata_path_is_data_and_nothing_else(stage: Cast) -> None:
    path = "/v1/similars/alice/letters/b"
    everything = stage.rita.get(f"{path}?threshold=0")
    assert [each["id"] for each in everything["results"]] == ["a"]
    excluded = stage.rita.get(f"{path}?threshold=0&metadata_path=author&metadata_value=Kant")
    assert excluded["results"] == []
    with nothing_changes():
        for injection in INJECTIONS:
            for pair in ((injection, "Kant"), ("author", injection), (injection, injection)):
                given = dict(zip(("metadata_path", "metadata_value"), pair, strict=True))
                answer = stage.rita.get(f"{path}?{urlencode({'threshold': 0, **given})}")
                if answer.status == 200:
                    assert answer.body == everything.body, pair
                else:
                    assert_refused(answer, 400)
    assert stage.rita.get(f"{path}?threshold=0").body == everything.body


# --- I18, I19: fields that are not the caller's to set --------------------------------------------
FOREIGN = {
    "owner": "sam",
    "user_handle": "sam",
    "project_id": 1,
    "instance_id_": 1,
    "role": "admin",
    "is_superuser": True,
    "is_default": True,
    "uuid": "00000000-0000-7000-8000-000000000000",
    "number_of_embeddings": 99,
    "created_at": "2001-01-01T00:00:00Z",
    "access_role": "owner",
    "id": 1,
    "pk": 1,
}


def test_a_body_cannot_name_another_owner_or_project(stage: Cast) -> None:
    def of_sam() -> list[Answer]:
        return [
            stage.sam.get(f"/v1/{path}/sam")
            for path in ("projects", "llm-services", "llm-service-definitions", "users")
        ]

    before = [each.body for each in of_sam()]
    own = {"project_handle": "new", "instance_handle": "model"}
    created = stage.alice.post("/v1/projects/alice", {**FOREIGN, **own})
    assert (created.status, created["owner"], created["role"]) == (201, "alice", "owner")
    assert (created["number_of_embeddings"], created["created_at"][:4] > "2001") == (0, True)
    instance = {**FOREIGN, **SERVICE, "instance_handle": "new"}
    assert stage.alice.post("/v1/llm-services/alice", instance)["owner"] == "alice"
    definition = {**FOREIGN, **SERVICE, "definition_handle": "new"}
    assert stage.alice.post("/v1/llm-service-definitions/alice", definition)["owner"] == "alice"
    upload = {"embeddings": [item("new", [1, 2, 3], **FOREIGN, project_handle="new")]}
    assert stage.erin.post(LISTED, upload).status == 201
    stored = stage.rita.get(f"{LISTED}/new")
    assert (stored["user_handle"], stored["project_handle"]) == ("alice", "letters")
    assert stage.alice.get("/v1/embeddings/alice/new")["total_count"] == 0
    assert [each.body for each in of_sam()] == before


def test_an_editor_cannot_share_by_the_body_of_an_upload(stage: Cast) -> None:
    grants = stage.alice.get("/v1/projects/alice/letters/shared-with").body
    extra = {"shared_with": [{"user_handle": "sam", "role": "editor"}], "public_read": True}
    upload = {"embeddings": [item("new", [1, 2, 3], **extra)], **extra}
    assert stage.erin.post(LISTED, upload).status == 201
    assert stage.alice.get("/v1/projects/alice/letters/shared-with").body == grants
    assert_refused(stage.sam.get("/v1/projects/alice/letters"), 403)


def test_an_upload_naming_another_instance_is_400(stage: Cast) -> None:
    make_instance("erin", "model")
    make_instance("alice", "other")
    with nothing_changes():
        for name in ("other", "erin/model", "Model", "", "/model", "alice/", "a/b/c", 5, None):
            bad = {**item("new", [1, 2, 3]), "instance_handle": name}
            assert_refused(stage.erin.post(LISTED, {"embeddings": [bad]}), 400)
        owned = item("new", [1, 2, 3], instance_owner="erin")
        assert_refused(stage.erin.post(LISTED, {"embeddings": [owned]}), 400)
    good = {**item("new", [1, 2, 3]), "instance_handle": "alice/model"}
    assert stage.erin.post(LISTED, {"embeddings": [good]}).status == 201


# --- Anything -------------------------------------------------------------------------------------
FIELDS = [
    *("user_handle", "name", "email", "api_standard_handle", "key_method", "key_field"),
    *("description", "endpoint", "api_standard", "model", "dimensions", "context_limit"),
    *("is_public", "definition_handle", "definition_owner", "instance_handle", "api_key"),
    *("api_key_encrypted", "share_with_handle", "role", "project_handle", "instance_owner"),
    *("instance_id", "metadataScheme", "public_read", "shared_with", "new_owner_handle"),
    *("embeddings", "vector", "vector_dim", "text_id", "text", "metadata"),
]
TEXTS = st.text(max_size=30) | st.sampled_from(["alice", "sam", "openai", "model", "*", "reader"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(TEXTS | st.sampled_from(FIELDS), inner, max_size=4)
    ),
    max_leaves=12,
)
BODIES = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=10)
FUZZ = hypothesis_settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def check_any_answer(answer: Answer) -> None:
    """Check that an answer is a success or a proper refusal, never a failure of ours."""
    assert answer.status < 500, answer.content
    if answer.status >= 400:
        assert_refused(answer, answer.status)


@FUZZ
@given(route=st.sampled_from(WRITES), body=st.binary(max_size=200))
def test_arbitrary_bytes_never_end_in_a_5xx_and_change_nothing(
    stage: Cast, route: tuple[str, str, str], body: bytes
) -> None:
    role, method, path = route
    before = state()
    answer = stage.with_role(role).ask(method, path, raw=body)
    check_any_answer(answer)
    if answer.status >= 400:
        assert state() == before


@FUZZ
@given(route=st.sampled_from(WRITES), body=BODIES)
def test_arbitrary_json_never_ends_in_a_5xx_and_refusals_change_nothing(
    stage: Cast, route: tuple[str, str, str], body: dict[str, Any]
) -> None:
    role, method, path = route
    before = state()
    raw = json.dumps(body).encode()
    answer = stage.with_role(role).ask(method, path, raw=raw)
    check_any_answer(answer)
    if answer.status >= 400:
        assert state() == before


@FUZZ
@given(header=st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=80))
def test_an_arbitrary_authorization_header_is_401(stage: Cast, header: str) -> None:
    FailedAttempts.objects.all().delete()
    for sent in (header, f"Bearer {header}"):
        answer = stage.nobody.get("/v1/users", headers={"Authorization": sent})
        assert_refused(answer, 401)


def test_the_next_request_works(stage: Cast) -> None:
    """After a body of each kind was refused, a good one goes through on the same connection."""
    for name, body in NOT_AN_OBJECT.items():
        assert stage.ada.post("/v1/users", raw=body).status in {400, 411}, name
    assert stage.ada.post("/v1/users", {"user_handle": "bob"}).status == 201
    assert Caller(make_user("zoe").key).get("/v1/users/zoe").status == 200

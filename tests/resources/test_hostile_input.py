"""Any bytes sent to the Projects API get its error object, and nothing is written.

The tables are those of the tests for `/v1`; the statuses are this API's own.
"""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.answers import assert_error, nothing_changes, state
from tests.common.raw import ask_raw
from tests.common.test_hostile_input import EVERYWHERE, NOT_AN_OBJECT
from tests.factories import Answer, Caller, Cast

# Which of them is no JSON, rather than JSON of the wrong kind.
NO_JSON = {
    *("I1 cut off", "I1 trailing comma", "I1 two values", "I1 comment", "I1 single quotes"),
    *("I1 hexadecimal", "I1 control character", "I2 empty", "I2 white space", "I3 NaN"),
    *("I3 Infinity", "I5 invalid UTF-8", "I5 Latin-1", "I5 UTF-16", "I5 UTF-32"),
}
GOOD = {"name": "x", "content": "SGVsbG8h"}


@pytest.fixture
def writes(cast: Cast) -> list[tuple[str, str]]:
    """Return every method and address that reads a body, on things of Alice's that are there."""
    agent = f"/agents/{cast.alice.post('/agents', GOOD)['id']}"
    user = f"/users/{cast.alice.post('/users', GOOD)['id']}"
    file = f"/files/{cast.alice.post('/files', GOOD)['id']}"
    project = f"/projects/{cast.project.uuid}"
    return [
        *(("POST", path) for path in ("/projects", "/agents", "/users", "/files")),
        *((method, path) for path in (project, agent, user) for method in ("POST", "PUT", "PATCH")),
        ("PATCH", file),
    ]


def test_what_is_no_json_object_is_400_or_422_on_every_route(
    cast: Cast, writes: list[tuple[str, str]]
) -> None:
    with nothing_changes():
        for method, path in writes:
            for name, body in NOT_AN_OBJECT.items():
                length = {"Content-Length": str(len(body))}
                answer = cast.alice.ask(method, path, raw=body, headers=length)
                if name in NO_JSON:
                    assert_error(answer, 400, "invalid_json")
                else:
                    assert_error(answer, 422, "validation_error", loc="body")


def test_a_value_that_cannot_be_stored_is_422_in_any_field(
    cast: Cast, writes: list[tuple[str, str]]
) -> None:
    with nothing_changes():
        for method, path in writes:
            for name, value in EVERYWHERE.items():
                for field in (b"extra", b"metadata", b"default_settings"):
                    body = b'{"name": "x", "%s": {"a": %s}}' % (field, value)
                    answer = cast.alice.ask(method, path, raw=body)
                    assert_error(answer, 422, "validation_error")
                    assert field.decode() in answer["error"]["details"][0]["loc"], (name, path)


def test_media_types_encodings_and_lengths_are_told_apart(
    cast: Cast, writes: list[tuple[str, str]]
) -> None:
    with nothing_changes():
        for method, path in writes:
            for content_type in ("text/plain", "multipart/form-data; boundary=x"):
                answer = cast.alice.ask(method, path, raw=b"a=1", content_type=content_type)
                assert_error(answer, 415, "unsupported_media_type")
            answer = cast.alice.ask(method, path, raw=b"{}", headers={"Content-Encoding": "br"})
            assert_error(answer, 415, "unsupported_media_type")
            neither = ask_raw(cast.alice, method, path, b"{}", CONTENT_LENGTH="")
            assert_error(neither, 411, "length_required")
            for length in ("52428801", "9" * 40):
                huge = ask_raw(cast.alice, method, path, b"{}", CONTENT_LENGTH=length)
                assert_error(huge, 413, "payload_too_large", says="50 MiB")
            odd = ask_raw(cast.alice, method, path, b"{}", CONTENT_LENGTH="x")
            assert_error(odd, 400, "invalid_request")


def test_a_foreign_host_and_odd_paths_are_refused_in_this_apis_words(cast: Cast) -> None:
    with nothing_changes():
        answer = cast.alice.get("/agents", headers={"Host": "evil.example.org"})
        assert_error(answer, 400, "invalid_request", says="ARMARIUM_ALLOWED_HOSTS")
        for path in ("/agents/%00", "/agents//x", "/agents/a/b/c", "/files/x/content"):
            assert_error(cast.alice.get(path), 404, "not_found")
        for text in ("%FF", "%ED%A0%80", "%0A", "..%2F..", "%2e%2e", "'", "{}", "١٢"):
            answer = cast.alice.get(f"/agents/{text}")
            assert answer.status in {404, 422}
            assert "error" in answer.body


def test_without_a_key_nothing_is_read(cast: Cast, writes: list[tuple[str, str]]) -> None:
    with nothing_changes():
        for method, path in writes:
            for caller in (Caller(), Caller("wrong"), Caller("arm_" + "x" * 62)):
                assert_error(caller.ask(method, path, raw=b"{"), 401, "unauthorized")


TEXTS = st.text(max_size=20)
FIELDS = [
    *("name", "canonical_name", "project", "about", "model", "instructions", "metadata"),
    *("default_settings", "default_system_template", "content", "description", "mime_type"),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)
BODIES = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=10)
FUZZ = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def check_any_answer(answer: Answer) -> None:
    """Check that an answer is a success or a proper refusal, never a failure of ours."""
    assert answer.status < 500, answer.content
    if answer.status >= 400:
        assert_error(answer, answer.status, answer["error"]["code"])


@FUZZ
@given(which=st.integers(0, 13), body=st.binary(max_size=200) | BODIES)
def test_arbitrary_bodies_never_end_in_a_5xx_and_refusals_change_nothing(
    cast: Cast, writes: list[tuple[str, str]], which: int, body: Any, files_folder: Path
) -> None:
    method, path = writes[which]
    before, kept = state(), sorted(files_folder.rglob("*"))
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = cast.alice.ask(method, path, raw=raw)
    check_any_answer(answer)
    if answer.status >= 400:
        assert state() == before
        assert sorted(files_folder.rglob("*")) == kept


@FUZZ
@given(
    path=st.sampled_from(["/projects", "/agents", "/users", "/files"]),
    names=st.lists(
        st.tuples(
            st.sampled_from(["limit", "offset", "sort_by", "direction", "project"])
            | TEXTS.map(lambda text: f"metadata_filter.{text}")
            | st.just("metadata_filter"),
            TEXTS | VALUES.map(lambda value: json.dumps(value)),
        ),
        max_size=4,
    ),
)
def test_arbitrary_queries_never_end_in_a_5xx(
    cast: Cast, path: str, names: list[tuple[str, str]]
) -> None:
    query = urlencode(
        [
            (name.encode("utf-8", "replace"), value.encode("utf-8", "replace"))
            for name, value in names
        ]
    )
    check_any_answer(cast.alice.get(f"{path}?{query}"))


def test_the_next_request_works(cast: Cast) -> None:
    for body in NOT_AN_OBJECT.values():
        assert cast.alice.post("/agents", raw=body).status in {400, 411, 422}
    assert cast.alice.post("/agents", orjson.loads(b'{"name": "x"}')).status == 201

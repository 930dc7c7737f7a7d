"""What holds for every address: problem bodies, methods, limits, CORS, the manifest."""

import re
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import orjson
import psycopg
import pytest
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.core.exceptions import ValidationError as ModelValidationError
from django.core.signals import request_finished, request_started
from django.db import (
    DataError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    close_old_connections,
)
from django.http import Http404, UnreadablePostError
from django.test import Client, RequestFactory
from django.urls import URLPattern
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings
from rest_framework import exceptions as rest

from common import errors, problems
from config import urls
from config.manifest import Manifest
from config.wsgi import application
from tests.answers import assert_refused, nothing_changes, rolled_back
from tests.common.raw import ask_raw
from tests.factories import Answer, Caller, Cast

PREFLIGHT = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS, PATCH",
    "Access-Control-Allow-Headers": (
        "Accept, Authorization, Content-Type, Content-Disposition, Origin, X-Requested-With"
    ),
}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


_UUID = "0197c3f6-5b1a-7e52-9a4c-3f6b8f1c2d3e"


def routes() -> Iterator[tuple[str, set[str]]]:
    """Yield an address of every route under /v1, and the methods that its view has."""
    for route in urls.v1:
        assert isinstance(route, URLPattern)
        path = re.sub(r"<str:\w+>", "letters", str(route.pattern))
        path = re.sub(r"<uuid:\w+>", _UUID, path)
        path = re.sub(r"\(\?P<\w+>.*?\)(?=/|\\Z)", "letters", path)
        path = path.removeprefix("^").removesuffix(r"\Z").replace("/))", "")
        view: Any = route.callback
        yield f"/v1/{path}", {each for each in METHODS if hasattr(view.cls, each.lower())}


ROUTES = dict(routes())


def test_every_route_has_an_address_here() -> None:
    assert len(ROUTES) == len(urls.v1)
    assert all(re.fullmatch(r"/v1[a-z0-9/-]+", path) for path in ROUTES), list(ROUTES)


# --- Addresses ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "path",
    [
        *("/nope", "/v1/", "/v2", "/v1/nope", "/v1/users/alice/keys", "/V1/users"),
        *("/v1/users/", "/v1//users", "/v1/users/a%2Fb", "/v1/%00", "/v1/users/%00"),
        *("/healthz/", "/docs/", "/openapi.json/", "/v1/llm-services", "/v1/projects"),
    ],
)
def test_an_unknown_address_is_a_404_problem(db: None, path: str) -> None:
    for method in METHODS:
        assert_refused(Caller().ask(method, path), 404)


def test_a_path_of_odd_bytes_addresses_nobody(cast: Cast) -> None:
    with nothing_changes():
        for segment in ("%FF", "%ED%A0%80", "%C0%80", "%0A", "%20", "..", "a%2525b"):
            assert_refused(cast.ada.get(f"/v1/users/{segment}"), 404)
            assert_refused(cast.ada.get(f"/v1/projects/{segment}/{segment}"), 404)
            assert_refused(cast.ada.patch(f"/v1/users/{segment}", {"name": "x"}), 404)
            assert_refused(cast.ada.put(f"/v1/users/{segment}", {}), 400)


def test_no_address_takes_or_redirects_to_a_trailing_slash(cast: Cast) -> None:
    with nothing_changes():
        for path, methods in ROUTES.items():
            for method in methods:
                answer = cast.ada.ask(method, f"{path}/", {})
                # With the slash, this is the address of a text, and nothing is posted to one.
                names = ("/recall", "/batch", "/delete", "/update")
                of_text = {405} if method == "POST" and path.endswith(names) else set()
                assert answer.status in {404, 400} | of_text, (method, path, answer.status)
                if "/embeddings/" not in path and "/similars/" not in path:
                    assert_refused(answer, 404)
        for path in ("/v1", "/healthz", "/readyz", "/docs", "/openapi.json", "/openapi.yaml"):
            assert_refused(cast.ada.get(f"{path}/"), 404)


# --- Methods --------------------------------------------------------------------------------------
def test_a_wrong_method_is_405_with_those_allowed(cast: Cast) -> None:
    with nothing_changes():
        for path, methods in ROUTES.items():
            assert methods
            for method in {*METHODS, "TRACE", "BREW", "PROPFIND"} - methods:
                for caller in (cast.ada, cast.nobody):
                    answer = caller.ask(method, path, {})
                    assert_refused(answer, 405)
                    allowed = set(answer.headers["Allow"].split(", "))
                    assert allowed - {"HEAD", "OPTIONS"} == methods, path


def test_patch_is_not_on_lists_or_actions() -> None:
    for path, methods in ROUTES.items():
        is_item = "PUT" in methods and "embeddings" not in path
        # An index has settings; as a whole it is not replaced.
        assert ("PATCH" in methods) == (is_item or path.endswith("/index")), path


def test_a_method_override_is_ignored(cast: Cast) -> None:
    headers = {"X-HTTP-Method-Override": "DELETE", "X-Method-Override": "DELETE"}
    with nothing_changes():
        for query in ("", "?_method=DELETE"):
            answer = cast.alice.get(f"/v1/users/alice{query}", headers=headers)
            assert answer.status == (400 if query else 200)


def test_get_changes_nothing(cast: Cast) -> None:
    with nothing_changes():
        for path, methods in ROUTES.items():
            if "GET" in methods:
                real = path.replace("letters", "alice", 1)
                # 400: some need a parameter.
                assert cast.ada.get(real).status in {200, 400, 403, 404}, real
                assert cast.ada.ask("HEAD", real).status in {200, 400, 403, 404}


def test_the_pages_about_the_api_refuse_other_methods(db: None) -> None:
    strict = Caller(client=Client(raise_request_exception=False, enforce_csrf_checks=True))
    for path in ("/v1", "/docs", "/openapi.json", "/openapi.yaml", "/healthz", "/readyz"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            answer = strict.ask(method, path, {})
            assert_refused(answer, 405)
            assert "GET" in answer.headers["Allow"]


# --- Query strings --------------------------------------------------------------------------------
def test_an_unknown_query_parameter_is_refused_on_every_route(cast: Cast) -> None:
    with nothing_changes():
        for path, methods in ROUTES.items():
            for method in methods:
                answer = cast.ada.ask(method, f"{path}?nope=1&metadata__x=2", {})
                assert_refused(answer, 400, location="query.nope")
                assert "query.metadata__x" in [each["location"] for each in answer["errors"]]


def test_a_query_string_that_is_not_utf8_is_refused(cast: Cast) -> None:
    for path in ("/v1/users", "/v1/similars/alice/letters/a"):
        for bad in ("%FF", "%ED%A0%80", "%C0%80", "%E2%82"):
            assert_refused(cast.ada.get(f"{path}?limit={bad}"), 400, location="query")
            assert_refused(cast.ada.get(f"{path}?{bad}=5"), 400, location="query")
            assert_refused(cast.ada.get(f"{path}?metadata_value={bad}"), 400)
    nul = cast.alice.get("/v1/similars/alice/letters/a?metadata_path=%00&metadata_value=x")
    assert_refused(nul, 400, location="query.metadata_path")


def test_floods_of_parameters_get_a_short_answer(cast: Cast) -> None:
    many = "&".join(f"filter{number}=1" for number in range(900))
    assert_refused(cast.ada.get(f"/v1/users?{many}"), 400)
    too_many = "&".join(f"f{number}=1" for number in range(2_000))
    assert_refused(cast.ada.get(f"/v1/users?{too_many}"), 400)
    assert_refused(cast.ada.get(f"/v1/users?{'x' * 20_000}=1"), 400)
    assert_refused(cast.ada.get(f"/v1/users?{'%01' * 10_000}=1"), 400)


# --- Bodies ---------------------------------------------------------------------------------------
def test_a_body_over_the_limit_is_413_at_once(cast: Cast, settings: Settings) -> None:
    settings.MAX_BODY_BYTES = 1024**2
    body = b'{"user_handle": "bob", "x": "' + b"y" * 1024**2 + b'"}'
    with nothing_changes():
        for caller in (cast.ada, cast.nobody):
            assert_refused(caller.post("/v1/users", raw=body), 413, says="1 MiB")
        chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}
        assert_refused(ask_raw(cast.ada, "POST", "/v1/users", body, **chunked), 413, says="1 MiB")
    fits = body[:29] + b'"}'
    assert cast.ada.post("/v1/users", raw=fits).status == 201


@pytest.mark.parametrize("length", ["10737418240", "52428801", "9" * 18, "9" * 40, "9" * 5_000])
def test_a_declared_length_over_the_limit_is_413_unread(db: None, length: str) -> None:
    unread = BytesIO(b"{}")
    sent: dict[str, Any] = {"CONTENT_LENGTH": length, "wsgi.input": unread}
    answer = ask_raw(Caller(), "POST", "/v1/users", **sent)
    assert_refused(answer, 413, says="50 MiB")
    assert unread.tell() == 0


@pytest.mark.parametrize("length", ["abc", "-1", "1.5", "+5", "٣", "0x10", "1_0"])
def test_a_length_that_is_no_number_is_400(db: None, length: str) -> None:
    assert_refused(ask_raw(Caller(), "POST", "/v1/users", CONTENT_LENGTH=length), 400)


def test_a_chunked_body_is_honoured_and_never_taken_for_an_empty_one(cast: Cast) -> None:
    body = b'{"user_handle": "bob"}'
    chunked: dict[str, Any] = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}
    answer = ask_raw(cast.ada, "POST", "/v1/users", body, **chunked)
    assert answer.status == 201
    with nothing_changes():
        packed = {**chunked, "HTTP_TRANSFER_ENCODING": "gzip, chunked"}
        assert_refused(ask_raw(cast.ada, "POST", "/v1/users", body, **packed), 415)
        both = {"HTTP_TRANSFER_ENCODING": "chunked"}
        assert_refused(ask_raw(cast.ada, "POST", "/v1/users", body, **both), 400)
        neither = {"CONTENT_LENGTH": ""}
        assert_refused(ask_raw(cast.ada, "POST", "/v1/users", body, **neither), 411)
        short = {"CONTENT_LENGTH": str(len(body) + 5)}
        assert_refused(ask_raw(cast.ada, "POST", "/v1/users", body, **short), 400)
        assert_refused(ask_raw(cast.ada, "POST", "/v1/users", b"", **chunked), 400)
        assert_refused(ask_raw(cast.ada, "POST", "/v1/users", b""), 400, location="body")


OTHER_TYPES = [
    *("text/plain", "text/json", "application/xml", "application/x-www-form-urlencoded"),
    *("multipart/form-data; boundary=x", "application/octet-stream", "json", "*/*"),
    *("application/json; charset=utf-16", "application/json; charset=latin-1"),
    *("application/json; charset=utf-7", 'application/json; charset="utf-32"'),
]
JSON_TYPES = [
    *("application/json", "APPLICATION/JSON", "application/json; charset=utf-8", ""),
    *("application/json;charset=UTF-8", "application/merge-patch+json"),
]


def test_only_json_in_utf8_is_read_and_the_rest_is_415(cast: Cast) -> None:
    body = '{"user_handle": "bob", "name": "Böb"}'.encode()
    with nothing_changes():
        for content_type in OTHER_TYPES:
            answer = cast.ada.post("/v1/users", raw=body, content_type=content_type)
            assert_refused(answer, 415)
        for encoding in ("deflate", "br", "compress", "gzip, identity", "gzip, gzip", "x"):
            headers = {"Content-Encoding": encoding}
            answer = cast.ada.post("/v1/users", raw=body, headers=headers)
            assert_refused(answer, 415)
            assert answer["detail"].endswith("with one of: gzip, zstd")
    for content_type in JSON_TYPES:
        sent = {"CONTENT_TYPE": content_type, "HTTP_CONTENT_ENCODING": "identity"}
        with rolled_back():
            assert ask_raw(cast.ada, "POST", "/v1/users", body, **sent)["name"] == "Böb"


def test_any_accept_header_gets_json(cast: Cast) -> None:
    for accept in ("text/html", "application/xml", "*/*", "nonsense", "", "a/b;q=x"):
        answer = cast.nobody.get("/v1/api-standards", headers={"Accept": accept})
        assert answer.headers["Content-Type"] == "application/json"
    for query in ("format=json", "format=api"):
        assert_refused(cast.nobody.get(f"/v1/api-standards?{query}"), 400)


# --- CORS -----------------------------------------------------------------------------------------
def test_options_on_any_path_needs_no_key_and_says_what_is_allowed(cast: Cast) -> None:
    with nothing_changes():
        for path in [*ROUTES, "/v1", "/nope", "/v1/users/", "/v1/projects/a/b/c/d/e"]:
            for headers in ({}, {"Origin": "https://example.org"}, {"Authorization": "Bearer x"}):
                answer = cast.nobody.ask("OPTIONS", path, headers=headers)
                assert (answer.status, answer.content) == (200, b"")
                assert {name: answer.headers[name] for name in PREFLIGHT} == PREFLIGHT
                assert "Access-Control-Allow-Credentials" not in answer.headers


def test_every_answer_lets_any_origin_read_it(cast: Cast) -> None:
    for caller, path, status in (
        (cast.nobody, "/v1", 200),
        (cast.ada, "/v1/users", 200),
        (cast.nobody, "/v1/users", 401),
        (cast.sam, "/v1/users", 403),
        (cast.nobody, "/nope", 404),
        (cast.nobody, "/openapi.json", 200),
        (cast.nobody, "/healthz", 200),
    ):
        answer = caller.get(path, headers={"Origin": "https://example.org"})
        assert answer.status == status
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert "Set-Cookie" not in answer.headers


# --- Open to everybody ----------------------------------------------------------------------------
def test_the_manifest_is_public(db: None) -> None:
    for caller in (Caller(), Caller("a-wrong-key")):
        answer = caller.get("/v1")
        assert answer.status == 200
        assert list(answer.body) == [
            "name",
            "versions",
            "description",
            "documentation",
            "serviceVersion",
            "authentication",
            "endpoints",
        ]
        assert answer["versions"] == ["v1"]
    assert_refused(Caller().get("/v1?nope=1"), 400)


def test_the_manifest_names_routes_and_methods_that_exist(db: None) -> None:
    for endpoint in Caller().get("/v1")["endpoints"]:
        path = re.sub(r"\{\w+\}", "letters", endpoint["path"])
        assert set(endpoint["methods"].split(", ")) == ROUTES[path], path
    assert Manifest.permission_classes


def test_the_documentation_is_public(db: None) -> None:
    for path, kind in (
        ("/openapi.json", "application/json"),
        ("/openapi.yaml", "yaml"),
        ("/docs", "text/html"),
    ):
        for caller in (Caller(), Caller("a-wrong-key")):
            answer = caller.get(path)
            assert answer.status == 200
            assert kind in answer.headers["Content-Type"]
    assert Caller().get("/openapi.json")["openapi"].startswith("3.")
    assert Caller().get("/openapi.yaml").content.startswith(b"openapi: 3")
    assert b"<html" in Caller().get("/docs").content


# --- Exceptions -----------------------------------------------------------------------------------
KNOWN: list[tuple[Exception, int]] = [
    *((kind("Something."), kind.status) for kind in errors.DomainError.__subclasses__()),
    (rest.ValidationError({"name": ["Wrong."]}), 400),
    (ModelValidationError("Wrong."), 400),
    (rest.ParseError(), 400),
    (rest.NotAuthenticated(), 401),
    (rest.AuthenticationFailed(), 401),
    (rest.PermissionDenied(), 403),
    (PermissionDenied(), 403),
    (rest.NotFound(), 404),
    (Http404(), 404),
    (rest.MethodNotAllowed("BREW"), 405),
    (RequestDataTooBig(), 413),
    (rest.UnsupportedMediaType("text/plain"), 415),
    (SuspiciousOperation("secret"), 400),
    (UnreadablePostError("secret"), 400),
    (OperationalError("secret"), 503),
    (InterfaceError("secret"), 503),
    (IntegrityError("secret"), 409),
    (DataError("secret"), 500),
    (RuntimeError("secret"), 500),
    (psycopg.Error("secret"), 500),
    (RecursionError("secret"), 500),
]


@pytest.mark.parametrize(("exception", "status"), KNOWN, ids=lambda each: repr(each))
def test_every_exception_becomes_a_problem_without_insides(
    exception: Exception, status: int
) -> None:
    response = problems.answer(exception, {})
    response.headers["Access-Control-Allow-Origin"] = "*"
    content = response.content
    answer = Answer(response.status_code, orjson.loads(content), response.headers, content)
    assert_refused(answer, status)
    assert b"secret" not in content
    assert (status in {429, 503}) == ("Retry-After" in response.headers)
    assert answer["type"].startswith("urn:armarium:problem:")


def test_errors_outside_of_views_are_problems_too() -> None:
    request = RequestFactory().get("/")
    for response, status in (
        (problems.bad_request(request, SuspiciousOperation("secret")), 400),
        (problems.bad_request(request, RequestDataTooBig()), 413),
        (problems.permission_denied(request, PermissionDenied()), 403),
        (problems.page_not_found(request, Http404()), 404),
        (problems.server_error(request), 500),
    ):
        assert response.status_code == status
        assert response.headers["Content-Type"] == "application/problem+json"
        assert b"secret" not in response.content


@hypothesis_settings(deadline=None)
@given(
    st.text(max_size=20_000),
    st.lists(st.text(max_size=2_000), max_size=100),
    st.sampled_from(["/v1/users", "/users"]),
)
def test_a_refusal_stays_short_whatever_it_repeats(
    detail: str, locations: list[str], path: str
) -> None:
    fields = [errors.FieldError(each, each * 10) for each in locations]
    content = problems.response(
        errors.Invalid(detail.encode("utf-8", "replace").decode(), errors=fields), path
    ).content
    assert len(content) <= 64 * 1024


# --- Beneath Django -------------------------------------------------------------------------------
@pytest.fixture
def kept_connection() -> Iterator[None]:
    """Keep Django from closing the test's connection after a request, as its test client does."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def serve(method: str, path: str, query: str, content_type: str) -> tuple[str, dict[str, str]]:
    """Ask the WSGI application itself; return status and headers."""
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_TYPE": content_type,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.input": BytesIO(),
        "wsgi.url_scheme": "http",
    }
    answered: list[Any] = []

    def start(status: str, headers: Any, *more: Any) -> Any:
        answered.extend((status, headers))

    application(environ, start).close()
    return answered[0], dict(answered[1])


@pytest.mark.usefixtures("kept_connection")
@pytest.mark.parametrize(
    "content_type",
    [
        *("charset=hex", "charset=zlib", "charset=rot13", "charset=undefined", "charset=idna"),
        *("charset=utf-16", "charset=utf-7", "charset=unicode_escape", "charset=", "charset=é"),
        *("charset*=bogus''x", "charset*=utf-8''%FF", "charset*0=a; charset*1=b", 'charset="'),
        *("charset=\x00", "a;" * 5_000),
    ],
)
def test_no_codec_that_a_client_names_is_looked_up(content_type: str) -> None:
    given_type = f"application/json; {content_type}"
    for query, status in (("", "200 OK"), ("limit=%35", "400 Bad Request")):
        assert serve("GET", "/v1", query, given_type)[0] == status
    status, headers = serve("POST", "/v1", "", given_type)
    assert status == "405 Method Not Allowed"
    assert headers["Content-Type"] == "application/problem+json"


LATIN = st.text(st.characters(codec="latin-1"), max_size=60)


@hypothesis_settings(deadline=None, max_examples=100)
@given(LATIN, LATIN, LATIN)
def test_arbitrary_paths_queries_and_media_types_never_end_in_a_5xx(
    path: str, query: str, content_type: str
) -> None:
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    try:
        for address in (f"/nope/{path}", "/v1"):
            status, headers = serve("GET", address, query, content_type)
            assert status[:3] in {"200", "400", "404"}
            assert "json" in headers["Content-Type"]
    finally:
        for signal in (request_started, request_finished):
            signal.connect(close_old_connections)

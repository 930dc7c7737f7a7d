"""The shortcut of repeated searches: the same answers as by Django's chain, or none of its own."""

import io
import logging
import shlex
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from accounts.models import ApiKey
from config.shortcut import Shortcut
from config.wsgi import Handler
from projects.models import Project, ProjectShare
from tests.factories import Caller, Cast, item, make_project

SEARCH = "/v1/similars/alice/letters"
BODY = b'{"vector": [1, 2, 3]}'

pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)


@dataclass
class Given:
    """What the server sends."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


class Server:
    """Asks the WSGI application as the web server does."""

    def __init__(self) -> None:
        self.handler = Handler()
        self.short = 0
        answer = self.handler.shortcut.answer

        def counted(environ: dict[str, Any]) -> Any:
            given = answer(environ)
            self.short += given is not None
            return given

        self.handler.shortcut.answer = counted  # type: ignore[method-assign]

    def ask(self, key: str | None, path: str = SEARCH, body: bytes = BODY, **environ: Any) -> Given:
        """POST and return the answer."""
        given: list[Any] = []
        parts = urlsplit(path)
        request = {
            "REQUEST_METHOD": "POST",
            "SCRIPT_NAME": "",
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "localhost",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            "wsgi.url_scheme": "http",
            "wsgi.errors": io.StringIO(),
            **({} if key is None else {"HTTP_AUTHORIZATION": f"Bearer {key}"}),
            **environ,
        }
        answer = self.handler(request, lambda *values: given.extend(values))
        content = b"".join(answer)
        if hasattr(answer, "close"):
            answer.close()
        return Given(given[0], sorted(given[1]), content)


@pytest.fixture
def server(cast: Cast) -> Server:
    """Return a server that has seen rita search, so that she is known."""
    items = [item(f"t{n}", [1, n, 3], metadata={"n": n}) for n in range(5)]
    assert cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": items}).status == 201
    server = Server()
    for _ in range(3):
        assert server.ask(cast.rita.key).status == "200 OK"
    assert server.short >= 1, "a repeated search takes the shortcut"
    return server


def without_shortcut(server: Server, *arguments: Any, **environ: Any) -> Given:
    shortcut, server.handler.shortcut = server.handler.shortcut, Shortcut()
    try:
        return server.ask(*arguments, **environ)
    finally:
        server.handler.shortcut = shortcut


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", BODY),
        ("?count=2&offset=1&threshold=0", BODY),
        ("?exact=true", BODY),
        ("?metadata_path=n&metadata_value=1", BODY),
        ("", b'{"vector": [1, 2, 3], "filter": {"n": 2}}'),
        ("?filter=%7B%22n%22%3A3%7D", BODY),
        ("", b'{"vector": "AACAPwAAAEAAAEBA"}'),
        ("?threshold=1", b'{"vector": [3, 2, 1]}'),
    ],
)
def test_the_answer_is_the_chains_to_the_letter(
    server: Server, cast: Cast, query: str, body: bytes
) -> None:
    short = server.short
    given = server.ask(cast.rita.key, SEARCH + query, body)
    assert server.short == short + 1
    assert given == without_shortcut(server, cast.rita.key, SEARCH + query, body)


@pytest.mark.parametrize(
    ("query", "body", "environ"),
    [
        ("?explain=true", BODY, {}),
        ("?nope=1", BODY, {}),
        ("?count=0", BODY, {}),
        ("?count=%FF", BODY, {}),
        ("", b"", {}),
        ("", b"{", {}),
        ("", b'{"vector": [1, 2]}', {}),
        ("", b'{"vector": [0, 0, 0]}', {}),
        ("", b'{"vector": [[1], 2, 3]}', {}),
        ("", BODY, {"CONTENT_LENGTH": "100"}),
        ("", BODY, {"CONTENT_LENGTH": ""}),
        ("", BODY, {"CONTENT_LENGTH": "9" * 30}),
        ("", BODY, {"CONTENT_TYPE": "text/plain"}),
        ("", BODY, {"CONTENT_TYPE": "application/json; charset=utf-8"}),
        ("", BODY, {"HTTP_CONTENT_ENCODING": "br"}),
        ("", BODY, {"HTTP_HOST": "evil.example.org"}),
        ("", BODY, {"HTTP_AUTHORIZATION": "Basic abc"}),
        ("", BODY, {"HTTP_AUTHORIZATION": "Bearer nobody"}),
        ("", BODY, {"REQUEST_METHOD": "PUT"}),
        ("/", BODY, {}),
        ("/recall", BODY, {}),
    ],
)
def test_whatever_is_unusual_is_left_to_the_chain(
    server: Server, cast: Cast, query: str, body: bytes, environ: dict[str, Any]
) -> None:
    short = server.short
    given = server.ask(cast.rita.key, SEARCH + query, body, **environ)
    assert server.short == short
    expected = without_shortcut(server, cast.rita.key, SEARCH + query, body, **environ)
    if "explain" not in query and "recall" not in query:
        assert given == expected
    assert given.status == expected.status


def refused(server: Server, key: str | None) -> str:
    short = server.short
    given = server.ask(key)
    assert server.short == short
    return given.status


def test_what_was_allowed_is_refused_by_the_very_next_search(server: Server, cast: Cast) -> None:
    make_project("alice", "open", public_read=True)
    for _ in range(3):
        assert server.ask(cast.alice.key).status == "200 OK"
    ProjectShare.objects.filter(user__handle="rita").delete()
    assert refused(server, cast.rita.key) == "403 Forbidden"
    ApiKey.objects.filter(user__handle="alice").delete()
    assert refused(server, cast.alice.key) == "401 Unauthorized"


def test_a_project_made_private_is_closed_to_strangers_at_once(server: Server, cast: Cast) -> None:
    Project.objects.filter(handle="letters").update(public_read=True)
    short = server.short
    for _ in range(3):
        assert server.ask(None).status == "200 OK"
    assert server.short > short
    Project.objects.filter(handle="letters").update(public_read=False)
    assert refused(server, None) == "401 Unauthorized"


def test_another_tenants_project_is_not_opened_by_a_name(server: Server, cast: Cast) -> None:
    assert refused(server, cast.sam.key) == "403 Forbidden"
    assert server.ask(cast.rita.key, "/v1/similars/alice/nothing").status == "404 Not Found"


def test_the_log_line_is_the_chains(
    server: Server,
    cast: Cast,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = f"{SEARCH}?count=3"
    short = server.short
    server.ask(cast.rita.key, path)
    assert server.short == short + 1
    [line] = capfd.readouterr().err.splitlines()
    fields = dict(word.split("=", 1) for word in shlex.split(line))
    with caplog.at_level(logging.INFO, "django_structlog.middlewares.request"):
        without_shortcut(server, cast.rita.key, path)
    [record] = [each for each in caplog.records if "request_finished" in str(each.msg)]
    event: Any = record.msg
    assert fields.keys() == event.keys()
    assert all(fields[name] == str(event[name]) for name in fields.keys() - _OF_ONE_LINE)


_OF_ONE_LINE = {"timestamp", "request_id"}


def test_the_use_of_a_key_is_still_written_down(server: Server, cast: Cast) -> None:
    ApiKey.objects.update(last_used_at=None)
    for _ in range(3):
        assert server.ask(cast.rita.key).status == "200 OK"
    assert ApiKey.objects.get(user__handle="rita").last_used_at is not None


def test_somebody_new_is_known_from_the_second_search_on(server: Server, cast: Cast) -> None:
    erin: Caller = cast.erin
    counts = []
    for _ in range(4):
        before = server.short
        body = orjson.loads(server.ask(erin.key).body)
        assert body["project_handle"] == "letters"
        counts.append(server.short - before)
    assert counts[-1] == 1
    assert counts[0] == 0

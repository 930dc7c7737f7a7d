"""The Projects API on a running server: many at once, large files, kills, and a new owner."""

import base64
import hashlib
import http.client
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from config.embedded_postgres import EmbeddedPostgres
from tests.end_to_end.harness import ADMIN_KEY, Armarium

MIB = 1024**2
LARGE = 20 * MIB
# The server takes 50 MiB.
TOO_LARGE = 51 * MIB
RESET_PEAK = "5"

# One process of the run starts the server, once.
pytestmark = pytest.mark.xdist_group("projects-api")
measures_memory = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="Only Linux tells the peak since a moment."
)


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    content: bytes

    @property
    def body(self) -> Any:
        """The decoded body."""
        return json.loads(self.content)


@dataclass(frozen=True)
class Developer:
    """An account of the server, asking with its key."""

    armarium: Armarium
    handle: str
    key: str

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        """Give a connection of its own."""
        one = http.client.HTTPConnection("127.0.0.1", self.armarium.port, timeout=60)
        with closing(one):
            yield one

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Send one request and read the whole answer."""
        with self.connection() as connection:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, self.headers)
            return read(connection)

    def upload(self, content: bytes, **fields: Any) -> Answer:
        """Store a file; the answer is a 201."""
        encoded = base64.b64encode(content).decode()
        answer = self.ask("POST", "/files", {"name": "file", "content": encoded, **fields})
        assert answer.status == 201, answer.content[:500]
        return answer

    def make(self, path: str, **fields: Any) -> Any:
        """Create something; return what the answer shows."""
        answer = self.ask("POST", path, fields)
        assert answer.status == 201, answer.content[:500]
        return answer.body

    def list(self, path: str) -> Any:
        """Return the entries of a list."""
        answer = self.ask("GET", path)
        assert answer.status == 200, answer.content[:500]
        return answer.body if path.startswith("/files") else answer.body["items"]


SignUp = Callable[[], Developer]


@pytest.fixture(scope="module")
def armarium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Armarium]:
    one = Armarium(tmp_path_factory.mktemp("projects-api") / "data").migrated()
    one.start()
    yield one
    one.kill_everything()


@pytest.fixture
def sign_up(armarium: Armarium) -> SignUp:
    """Give a function that makes an account of the test's own."""

    def make_account() -> Developer:
        handle = f"dev_{secrets.token_hex(6)}"
        status, answer = armarium.request("POST", "/v1/users", {"user_handle": handle})
        assert status == 201, answer
        return Developer(armarium, handle, str(answer["api_key"]))

    return make_account


@pytest.fixture
def developer(sign_up: SignUp) -> Developer:
    return sign_up()


def read(connection: http.client.HTTPConnection) -> Answer:
    """Return the answer to what was sent."""
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def at_once(developer: Developer, requests: Sequence[tuple[str, str, Any]]) -> list[Answer]:
    """Send requests at the same moment; return the answers in their order."""
    barrier = threading.Barrier(len(requests))

    def ask(request: tuple[str, str, Any]) -> Answer:
        barrier.wait()
        return developer.ask(*request)

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(ask, requests))


def refusals(requests: Sequence[tuple[str, str, Any]], answers: Sequence[Answer]) -> list[str]:
    """Return what was refused, and how."""
    return [
        f"{method} {path}: {answer.status} {answer.content[:200]!r}"
        for (method, path, _), answer in zip(requests, answers, strict=True)
        if answer.status >= 400
    ]


def stored_files(armarium: Armarium) -> set[Path]:
    """Return where the bytes of files are on disk."""
    return {path for path in (armarium.data_dir / "files").rglob("*") if path.is_file()}


@contextmanager
def database(armarium: Armarium) -> Iterator[psycopg.Cursor[Any]]:
    """Give a cursor on the server's own database; what it did is kept."""
    parameters = EmbeddedPostgres(armarium.data_dir).connection_parameters()
    with psycopg.connect(**asdict(parameters)) as connection, connection.cursor() as cursor:
        yield cursor


def restart(armarium: Armarium) -> None:
    """Start again: memory that an earlier test has used would hide what the next one needs."""
    assert armarium.terminate()[0] == 0
    armarium.start()


def workers(armarium: Armarium) -> list[psutil.Process]:
    """Return the processes that answer requests."""
    assert armarium.process is not None
    children = psutil.Process(armarium.process.pid).children()
    server = next(child for child in children if "config.web_server" in child.cmdline())
    return server.children()


@dataclass
class Growth:
    """How far the memory of all workers rises inside a `with` block, at most."""

    armarium: Armarium
    bytes: int = 0
    _before: dict[int, int] = field(default_factory=dict)

    def __enter__(self) -> "Growth":
        for worker in workers(self.armarium):
            Path(f"/proc/{worker.pid}/clear_refs").write_text(RESET_PEAK)
            self._before[worker.pid] = _peak(worker.pid)
        assert self._before
        return self

    def __exit__(self, *error: object) -> None:
        self.bytes = sum(_peak(pid) - before for pid, before in self._before.items())

    def __str__(self) -> str:
        return f"{self.bytes / MIB:.1f} MiB"


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def say(sentence: str) -> None:
    """Write what was measured, for `pytest -s` and failures."""
    sys.stdout.write(f"{sentence}\n")


# --- The default project --------------------------------------------------------------------------
def assert_first_requests_find_one_default_project(developer: Developer) -> None:
    each = 10
    requests = each * [
        ("GET", "/projects", None),
        ("POST", "/agents", {"name": "agent"}),
        ("POST", "/users", {}),
        ("POST", "/files", {"name": "file", "content": "AA=="}),
        ("GET", f"/v1/projects/{developer.handle}", None),
    ]
    assert len(requests) == 50
    answers = at_once(developer, requests)
    assert refusals(requests, answers) == []
    for (method, path, _), answer in zip(requests, answers, strict=True):
        assert answer.status == (201 if method == "POST" else 200)
        if method == "POST":
            assert answer.body["project"] == "default"
        elif path == "/projects":
            assert [one["canonical_name"] for one in answer.body["items"]] == ["default"]
        else:
            assert [one["project_handle"] for one in answer.body["projects"]] == ["default"]

    with database(developer.armarium) as cursor:
        rows = cursor.execute(
            """
            SELECT project.handle, project.is_default,
                (SELECT count(*) FROM resources_agent WHERE project_id = project.id),
                (SELECT count(*) FROM resources_enduser WHERE project_id = project.id),
                (SELECT count(*) FROM resources_file WHERE project_id = project.id)
            FROM projects_project project
            JOIN accounts_user owner ON owner.id = project.owner_id
            WHERE owner.handle = %s
            """,
            [developer.handle],
        ).fetchall()
    assert rows == [("default", True, each, each, each)]


def test_concurrent_first_requests_make_one_default_project(sign_up: SignUp) -> None:
    for _ in range(3):
        developer = sign_up()
        with database(developer.armarium) as cursor:
            cursor.execute(
                """
                DELETE FROM projects_project
                WHERE owner_id = (SELECT id FROM accounts_user WHERE handle = %s)
                """,
                [developer.handle],
            )
            assert cursor.rowcount == 1
        assert_first_requests_find_one_default_project(developer)


def test_concurrent_first_requests_find_the_default_project_of_a_new_account(
    developer: Developer,
) -> None:
    assert_first_requests_find_one_default_project(developer)


# --- Several changes at once ----------------------------------------------------------------------
NEW: dict[str, Any] = {
    "/agents": {"name": "agent"},
    "/users": {"name": "user"},
    "/files": {"name": "file", "content": "AA=="},
}


@pytest.mark.parametrize("kind", NEW)
def test_moves_at_the_same_time_all_find_what_they_move(developer: Developer, kind: str) -> None:
    developer.make("/projects", name="Other", canonical_name="other")
    path = f"{kind}/{developer.make(kind, **NEW[kind])['id']}"
    requests: list[tuple[str, str, Any]] = 10 * [
        ("PATCH", path, {"project": "other"}),
        ("PATCH", path, {"project": "default"}),
    ]
    assert refusals(requests, at_once(developer, requests)) == []
    assert developer.ask("GET", path).body["project"] in ("default", "other")


@pytest.mark.parametrize("kind", NEW)
def test_a_deletion_finds_what_is_moved_at_the_same_time(developer: Developer, kind: str) -> None:
    developer.make("/projects", name="Other", canonical_name="other")
    for _ in range(12):
        path = f"{kind}/{developer.make(kind, **NEW[kind])['id']}"
        moved, deleted = at_once(
            developer, [("PATCH", path, {"project": "other"}), ("DELETE", path, None)]
        )
        # Whoever is second finds nothing to move, but never nothing to delete.
        assert deleted.status == 202
        assert moved.status in (200, 404)
        assert developer.ask("GET", path).status == 404


def test_a_change_finds_a_project_whose_instance_changes_at_the_same_time(
    developer: Developer,
) -> None:
    owner = developer.handle
    for name in ("one", "other"):
        instance = {
            "endpoint": "https://embeddings.example/v1",
            "api_standard": "openai",
            "model": name,
            "dimensions": 3,
        }
        answer = developer.ask("PUT", f"/v1/llm-services/{owner}/{name}", instance)
        assert answer.status == 201, answer.content
    project = developer.make("/projects", name="Project", canonical_name="project")
    requests: list[tuple[str, str, Any]] = []
    for name in 5 * ["one", "other"]:
        choice = {"instance_owner": owner, "instance_handle": name}
        requests.append(("PATCH", f"/v1/projects/{owner}/project", choice))
        requests.append(("PATCH", f"/projects/{project['id']}", {"name": name}))
    assert refusals(requests, at_once(developer, requests)) == []


# --- Large files ----------------------------------------------------------------------------------
def test_a_large_file_comes_back_byte_for_byte(armarium: Armarium, developer: Developer) -> None:
    before = stored_files(armarium)
    content = secrets.token_bytes(LARGE)
    created = developer.upload(content)
    shown = created.body
    found = developer.ask("GET", f"/files/{shown['id']}")
    listed = developer.ask("GET", "/files")
    assert (found.status, listed.status) == (200, 200)
    assert found.body == shown
    assert listed.body == [shown]
    assert base64.b64decode(shown["content"], validate=True) == content
    assert (shown["size"], shown["hash"]) == (LARGE, digest(content))
    assert int(found.headers["Content-Length"]) == len(found.content)
    [stored] = stored_files(armarium) - before
    assert stored.read_bytes() == content


def assert_refused_as_too_large(answer: Answer) -> None:
    assert answer.status == 413
    assert answer.headers["Content-Type"] == "application/json"
    error = answer.body["error"]
    assert error["code"] == "payload_too_large"
    assert "50 MiB" in error["message"]
    assert error["type"]


@measures_memory
@pytest.mark.slow
def test_a_body_that_says_it_is_too_large_is_refused_unread(
    armarium: Armarium, developer: Developer
) -> None:
    restart(armarium)
    before = stored_files(armarium)
    piece = b'{"name": "file", "content": "'.ljust(MIB, b"A")
    with developer.connection() as connection:
        connection.putrequest("POST", "/files")
        for name, value in {**developer.headers, "Content-Length": str(TOO_LARGE)}.items():
            connection.putheader(name, value)
        with Growth(armarium) as growth:
            connection.endheaders()
            connection.send(piece[: MIB // 16])
            began = time.monotonic()
            assert_refused_as_too_large(read(connection))
            waited = time.monotonic() - began
    # Somebody who sends all of it without looking for an answer changes nothing.
    with developer.connection() as connection, Growth(armarium) as stubborn:
        headers = {**developer.headers, "Content-Length": str(TOO_LARGE)}
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", "/files", iter([piece] * (TOO_LARGE // MIB)), headers)
    # The measure does show a body that is read.
    with Growth(armarium) as read_growth:
        developer.upload(bytes(LARGE))
    say(f"413 in {waited:.3f} s; memory: {growth}, {stubborn}; with 20 MiB stored: {read_growth}")
    assert waited < 5
    assert growth.bytes < TOO_LARGE / 3
    assert stubborn.bytes < TOO_LARGE / 3
    assert read_growth.bytes > LARGE
    assert len(stored_files(armarium) - before) == 1


@measures_memory
def test_a_body_in_chunks_that_becomes_too_large_is_refused(
    armarium: Armarium, developer: Developer
) -> None:
    before = stored_files(armarium)
    piece = b'{"name": "file", "content": "'.ljust(MIB, b"A")
    with developer.connection() as connection, Growth(armarium) as growth:
        connection.putrequest("POST", "/files")
        for name, value in {**developer.headers, "Transfer-Encoding": "chunked"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        for _ in range(TOO_LARGE // MIB):
            connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        # The chunk that ends the body is never sent.
        assert_refused_as_too_large(read(connection))
    say(f"413 for chunks; memory: {growth}")
    assert growth.bytes < 2 * TOO_LARGE
    assert stored_files(armarium) == before
    assert developer.list("/files") == []


@measures_memory
@pytest.mark.slow
def test_a_list_of_large_files_is_sent_while_it_is_read(
    armarium: Armarium, developer: Developer
) -> None:
    expected = {}
    for _ in range(6):
        content = secrets.token_bytes(LARGE)
        file = developer.upload(content).body
        expected[file["id"]] = digest(content)
    restart(armarium)
    with developer.connection() as connection, Growth(armarium) as growth:
        began = time.monotonic()
        connection.request("GET", "/files", headers=developer.headers)
        response = connection.getresponse()
        assert response.status == 200
        beginning = response.read(MIB)
        # A client that pauses shall not make the server gather the rest.
        time.sleep(1)
        content = beginning + response.read()
        took = time.monotonic() - began
    files = json.loads(content)
    say(f"{len(content) / MIB:.0f} MiB in {took:.1f} s; memory: {growth}")
    found = {file["id"]: digest(base64.b64decode(file["content"])) for file in files}
    assert found == expected
    assert list(found) == list(expected)[::-1]
    assert {file["id"]: file["hash"] for file in files} == expected
    assert {file["size"] for file in files} == {LARGE}
    assert growth.bytes < 40 * MIB


# --- What is left on disk -------------------------------------------------------------------------
def test_no_bytes_are_left_of_what_was_deleted(armarium: Armarium, sign_up: SignUp) -> None:
    before = stored_files(armarium)
    one, other = sign_up(), sign_up()
    project = one.make("/projects", name="Project", canonical_name="project")
    singles = [one.upload(os.urandom(1000)).body["id"] for _ in range(3)]
    for number in range(3):
        one.upload(os.urandom(1000), project="project")
        # The same bytes twice are two files.
        other.upload(b"%d" % (number // 2))
    refused = one.ask("POST", "/files", {"name": "x", "content": "AA==", "project": "nowhere"})
    assert refused.status == 404
    assert len(stored_files(armarium) - before) == 9

    for id in singles:
        assert one.ask("DELETE", f"/files/{id}").status == 202
    assert len(stored_files(armarium) - before) == 6
    path = f"/projects/{project['id']}"
    assert one.ask("DELETE", path).status == 409
    assert len(stored_files(armarium) - before) == 6
    assert one.ask("DELETE", f"{path}?on_resources=delete").status == 202
    assert len(stored_files(armarium) - before) == 3
    assert armarium.request("DELETE", f"/v1/users/{other.handle}", key=ADMIN_KEY)[0] in (200, 204)
    assert stored_files(armarium) == before
    assert one.list("/files") == []


@pytest.mark.slow
def test_an_acknowledged_file_outlives_a_kill(armarium: Armarium, developer: Developer) -> None:
    content = secrets.token_bytes(3 * MIB)
    file = developer.upload(content).body
    armarium.kill_everything()
    armarium.start()
    found = developer.ask("GET", f"/files/{file['id']}").body
    assert found == file
    assert base64.b64decode(found["content"]) == content
    assert developer.list("/files?include_content=false") == [{**file, "content": ""}]


# --- A new owner ----------------------------------------------------------------------------------
def test_a_transfer_moves_agents_users_and_files(sign_up: SignUp) -> None:
    old, new = sign_up(), sign_up()
    project = old.make("/projects", name="Project", canonical_name="moving")
    kept = {path: old.make(path, name="kept") for path in ("/agents", "/users")}
    kept["/files"] = old.upload(b"kept").body
    moved = {
        "/agents": [old.make("/agents", name=f"{n}", project="moving") for n in range(3)],
        "/users": [old.make("/users", name=f"{n}", project="moving") for n in range(3)],
        "/files": [old.upload(b"%d" % n * 5000, project="moving").body for n in range(3)],
    }
    transfer = f"/v1/projects/{old.handle}/moving/transfer-ownership"
    answer = old.ask("POST", transfer, {"new_owner_handle": new.handle})
    assert answer.status == 200, answer.content

    assert [each["canonical_name"] for each in old.list("/projects")] == ["default"]
    assert old.ask("GET", f"/projects/{project['id']}").status == 404
    assert [each["canonical_name"] for each in new.list("/projects")] == ["moving", "default"]
    assert new.ask("GET", f"/projects/{project['id']}").body["name"] == "Project"
    for path, things in moved.items():
        assert old.list(path) == [kept[path]]
        assert old.list(f"{path}?project=moving") == []
        assert new.list(path) == things[::-1]
        assert new.list(f"{path}?project=moving") == things[::-1]
        for thing in things:
            address = f"{path}/{thing['id']}"
            for method, body in (("GET", None), ("PATCH", {"name": "mine"}), ("DELETE", None)):
                assert old.ask(method, address, body).status == 404
            assert new.ask("GET", address).body == thing
    for number, file in enumerate(moved["/files"]):
        assert base64.b64decode(file["content"]) == b"%d" % number * 5000
    changed = new.ask("PATCH", f"/agents/{moved['/agents'][0]['id']}", {"project": "default"})
    assert (changed.status, changed.body["project"]) == (200, "default")

"""Clients that break HTTP or never finish, against a real server: others are served."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from tests.end_to_end.harness import ADMIN_KEY, Armarium

CRLF = "\r\n"
# More than threads of the web server, and than its connections to the database.
DAWDLERS = 20
CLIENTS = 48
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Armarium]:
    """One server for all of them."""
    running = Armarium(tmp_path_factory.mktemp("broken") / "data")
    try:
        running.start()
        yield running
    finally:
        running.kill_everything()


def send(server: Armarium, *pieces: str, wait_s: float = 5) -> bytes:
    """Send bytes as they are; return what comes back until the server closes, or for a while."""
    answer = b""
    link = socket.create_connection(("127.0.0.1", server.port), timeout=wait_s)
    with link, suppress(OSError):
        for piece in pieces:
            link.sendall(piece.encode("latin-1"))
        while received := link.recv(65_536):
            answer += received
            if b"\r\n\r\n" in answer:
                break
    return answer


def request(*lines: str, body: str = "") -> str:
    """Return a request with its headers, as text."""
    return CRLF.join([*lines, "Connection: close", "", body])


HOST = "Host: localhost"
KEY = f"Authorization: Bearer {ADMIN_KEY}"
JSON = "Content-Type: application/json"
POST = "POST /v1/users HTTP/1.1"
BODY = '{"user_handle": "smuggled"}'
BROKEN = {
    "two lengths": request(
        POST, HOST, KEY, JSON, "Content-Length: 5", f"Content-Length: {len(BODY)}", body=BODY
    ),
    "length and chunks": request(
        POST, HOST, KEY, JSON, "Content-Length: 5", "Transfer-Encoding: chunked", body="0\r\n\r\n"
    ),
    "length that is none": request(POST, HOST, KEY, JSON, "Content-Length: -1", body=BODY),
    "length in words": request(POST, HOST, KEY, JSON, "Content-Length: ten", body=BODY),
    "bad chunk": request(
        POST, HOST, KEY, JSON, "Transfer-Encoding: chunked", body=f"zz\r\n{BODY}\r\n0\r\n\r\n"
    ),
    "no host": request("GET /v1 HTTP/1.1"),
    "strange host": request("GET /v1/users HTTP/1.1", "Host: evil.example", KEY),
    "header of 100 KB": request("GET /v1 HTTP/1.1", HOST, f"X-Long: {'x' * 100_000}"),
    "header of 1 MB": request("GET /v1 HTTP/1.1", HOST, f"X-Long: {'x' * 1_000_000}"),
    "1000 headers": request("GET /v1 HTTP/1.1", HOST, *(f"X-{n}: x" for n in range(1_000))),
    "another protocol": "PRI * SMTP/9.9\r\n\r\n",
    "no protocol": "\x00\x01\x02\x03\r\n\r\n",
    "line without a version": "GET\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_http_is_refused_or_closed(server: Armarium, name: str) -> None:
    began = time.monotonic()
    answer = send(server, BROKEN[name])
    assert time.monotonic() - began < 5
    if answer:
        status = int(answer.split(b" ", 2)[1])
        assert 400 <= status < 500, answer[:300]
        assert b"Traceback" not in answer
    assert server.request("GET", "/v1/users/smuggled")[0] == 404
    assert server.is_ready()


def test_two_hosts_and_an_absolute_address_lead_nowhere_else(server: Armarium) -> None:
    for lines in (
        ("GET /v1/users HTTP/1.1", HOST, "Host: evil.example", KEY),
        ("GET http://evil.example/v1/users HTTP/1.1", HOST, KEY),
    ):
        answer = send(server, request(*lines))
        assert b"evil.example" not in answer
        if answer:
            assert int(answer.split(b" ", 2)[1]) < 500


def served_within(server: Armarium, seconds: float) -> None:
    """Check that others are answered, with and without the database."""
    for path in ("/v1", "/readyz", "/v1/users"):
        began = time.monotonic()
        assert server.request("GET", path)[0] == 200
        assert time.monotonic() - began < seconds, path


@pytest.mark.parametrize(
    "begun",
    [
        "GET /v1/users HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        f"{POST}\r\n{HOST}\r\n{JSON}\r\nContent-Length: 1000\r\n\r\n{{",
    ],
    ids=["headers", "bodies without a key"],
)
def test_who_never_finishes_keeps_nobody_waiting(server: Armarium, begun: str) -> None:
    with ExitStack() as open_links:
        for _ in range(DAWDLERS):
            link = socket.create_connection(("127.0.0.1", server.port), timeout=5)
            open_links.callback(link.close)
            link.sendall(begun.encode())
        time.sleep(0.2)
        served_within(server, 5)


def test_more_clients_than_connections_wait_or_are_told_to_come_again(server: Armarium) -> None:
    found: Counter[int] = Counter()
    slowest = [0.0]
    lock = threading.Lock()

    def ask(number: int) -> None:
        for _ in range(5):
            began = time.monotonic()
            status, body = server.request("GET", "/v1/users", timeout_s=10)
            with lock:
                found[status] += 1
                slowest[0] = max(slowest[0], time.monotonic() - began)
            assert "too many" not in str(body).lower()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask, range(CLIENTS)))
    assert set(found) <= {200, 503}
    assert found[200] > 0
    assert slowest[0] < 5.5, slowest
    assert "too many clients" not in server.output()

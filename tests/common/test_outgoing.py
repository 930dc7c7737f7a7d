"""The client for requests to other people's servers: contract E1 to E3, trap T16."""

import datetime
import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from common import outgoing
from common.outgoing import NotAllowed, OutgoingError, Reply, TimedOut, TooLong, Unreachable

Talk = Callable[[socket.socket], None]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class Listener:
    """A server of bytes, which notes what it is sent."""

    def __init__(self, talk: Talk, context: ssl.SSLContext | None = None) -> None:
        self.talk = talk
        self.context = context
        self.heard: list[bytes] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connected, _ = self.socket.accept()
            except OSError:
                return
            with connected:
                try:
                    self._answer(connected)
                except OSError:
                    self.heard.append(b"broken off")

    def _answer(self, connected: socket.socket) -> None:
        if self.context is not None:
            connected = self.context.wrap_socket(connected, server_side=True)
        heard = b""
        # Closing with something unread would take the answer back.
        while not heard.endswith(b"{}") and (piece := connected.recv(65536)):
            heard += piece
        self.heard.append(heard)
        self.talk(connected)

    def close(self) -> None:
        """Stop listening."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()


@contextmanager
def listening(talk: Talk, context: ssl.SSLContext | None = None) -> Iterator[Listener]:
    """Run a listener."""
    listener = Listener(talk, context)
    try:
        yield listener
    finally:
        listener.close()


@pytest.fixture
def listen(settings: Any) -> Iterator[Callable[..., Listener]]:
    """Return a function that runs a listener at an address that may be called."""
    with ExitStack() as running:

        def start(talk: Talk, context: ssl.SSLContext | None = None) -> Listener:
            listener = running.enter_context(listening(talk, context))
            settings.ALLOWED_PRIVATE_ENDPOINTS = [
                *settings.ALLOWED_PRIVATE_ENDPOINTS,
                f"127.0.0.1:{listener.port}",
            ]
            return listener

        yield start


def says(answer: bytes) -> Talk:
    """Return a talk that is one answer."""
    return lambda connected: connected.sendall(answer)


def post(url: str, **options: Any) -> Reply:
    """Post something."""
    return outgoing.post(url, headers={"X-Key": "k"}, body=b"{}", **options)


# --- Where to -------------------------------------------------------------------------------------
SPELLINGS = [
    *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0", "0.0.0.0", "017700000001"),
    *("①②⑦.⓪.⓪.①", "localhost", "LOCALHOST", "[::1]", "[::]", "[::ffff:127.0.0.1]"),
    *("[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"),
]


@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_reaches_this_machine(host: str) -> None:
    with listening(says(OK)) as listener:
        with pytest.raises(OutgoingError) as caught:
            post(f"http://{host}:{listener.port}/")
        assert isinstance(caught.value, NotAllowed)
        assert listener.heard == []


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.1"),
        *("127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1"),
        *("192.88.99.1", "::1", "::", "fe80::1", "fe80::1%1", "fc00::1", "fd00::1", "fec0::1"),
        *("ff02::1", "::ffff:8.8.8.8", "::8.8.8.8", "64:ff9b::808:808", "64:ff9b:1::1"),
        *("2001::1", "2002:808:808::1", "2001:db8::1", "no address", ""),
    ],
)
def test_what_is_not_public(address: str) -> None:
    assert not outgoing.is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700:4700::1111"])
def test_what_is_public(address: str) -> None:
    assert outgoing.is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://example.org/", "file:///etc/passwd", "gopher://example.org/", "example.org", ""),
        *("http://", "http:///path", "http://user@example.org/", "http://a:b@example.org/"),
        *("http://example.org:0/", "http://example.org:99999/", "http://[::1/", "http://a..b/"),
    ],
)
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(NotAllowed):
        post(url)


def test_only_the_listed_host_and_port_is_called(settings: Any) -> None:
    with listening(says(OK)) as listener, listening(says(OK)) as other:
        settings.ALLOWED_PRIVATE_ENDPOINTS = [f"LocalHost:{listener.port}", "127.0.0.1:1"]
        assert post(f"http://localhost:{listener.port}/a?b=c#d").body == b"ok"
        assert listener.heard[0].startswith(b"POST /a?b=c HTTP/1.1\r\n")
        for url in (f"http://127.0.0.1:{listener.port}/", f"http://localhost:{other.port}/"):
            with pytest.raises(NotAllowed):
                post(url)
        assert (len(listener.heard), other.heard) == (1, [])


def test_a_name_is_resolved_once_and_all_its_addresses_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve, asked = socket.getaddrinfo, []
    answers: dict[str, list[str]] = {"mixed.example": ["8.8.8.8", "127.0.0.1"]}

    def resolver(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(host)
        if host == "rebinding.example":
            # Public for whoever looks, this machine for whoever asks once more.
            address = "8.8.8.8" if asked.count(host) > 1 else "127.0.0.1"
            return resolve(address, port, *arguments, **options)
        found = [resolve(each, port, *arguments, **options) for each in answers.get(host, [host])]
        return [each for some in found for each in some]

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    with listening(says(OK)) as listener:
        for host in ("mixed.example", "rebinding.example"):
            with pytest.raises(NotAllowed):
                post(f"http://{host}:{listener.port}/")
            assert asked.count(host) == 1
        assert listener.heard == []


def test_the_checked_address_is_the_one_that_is_called(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    resolve, asked = socket.getaddrinfo, []

    def resolver(host: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(host)
        return resolve("127.0.0.1" if host == "model.example" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    with listening(says(OK)) as listener:
        settings.ALLOWED_PRIVATE_ENDPOINTS = [f"model.example:{listener.port}"]
        post(f"http://model.example:{listener.port}/")
        assert f"Host: model.example:{listener.port}\r\n".encode() in listener.heard[0]
    assert asked.count("model.example") == 1


def test_proxies_of_the_environment_are_not_used(
    listen: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, proxy = listen(says(OK)), listen(says(OK))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    assert post(f"http://127.0.0.1:{server.port}/").status == 200
    assert proxy.heard == []


def test_redirects_are_answers(listen: Callable[..., Listener]) -> None:
    there = listen(says(OK))
    location = f"Location: http://127.0.0.1:{there.port}/\r\n".encode()
    here = listen(says(b"HTTP/1.1 307 Go\r\n" + location + b"Content-Length: 0\r\n\r\n"))
    assert post(f"http://127.0.0.1:{here.port}/").status == 307
    assert there.heard == []


def test_a_header_cannot_smuggle_another(listen: Callable[..., Listener]) -> None:
    server = listen(says(OK))
    for value in ("a\r\nX-Injected: 1", "a\n", "\u20ac"):
        with pytest.raises(NotAllowed):
            outgoing.post(f"http://127.0.0.1:{server.port}/", headers={"X-Key": value}, body=b"{}")
    assert all(b"Injected" not in each for each in server.heard)


# --- How long, how large --------------------------------------------------------------------------
def _silent(connected: socket.socket) -> None:
    connected.recv(1)


def _dripping(connected: socket.socket) -> None:
    connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(200):
        connected.sendall(b"x")
        time.sleep(0.02)


def _dripping_headers(connected: socket.socket) -> None:
    connected.sendall(b"HTTP/1.1 200 OK\r\n")
    for _ in range(200):
        connected.sendall(b"X: y\r\n")
        time.sleep(0.02)


@pytest.mark.parametrize("talk", [_silent, _dripping, _dripping_headers])
def test_an_answer_is_there_in_time_or_not_at_all(
    talk: Talk, listen: Callable[..., Listener]
) -> None:
    server = listen(talk)
    began = time.monotonic()
    with pytest.raises(TimedOut):
        post(f"http://127.0.0.1:{server.port}/", total_s=0.3)
    assert time.monotonic() - began < 1


def _endless(connected: socket.socket) -> None:
    connected.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    for _ in range(64):
        connected.sendall(piece)


def test_an_answer_without_end_is_broken_off(listen: Callable[..., Listener]) -> None:
    server = listen(_endless)
    with pytest.raises(TooLong):
        post(f"http://127.0.0.1:{server.port}/")
    deadline = time.monotonic() + 5
    while b"broken off" not in server.heard and time.monotonic() < deadline:
        time.sleep(0.01)
    assert b"broken off" in server.heard


def test_a_compressed_answer_is_not_unpacked(listen: Callable[..., Listener]) -> None:
    packed = gzip.compress(b"0" * 1_000_000)
    headers = f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    server = listen(says(b"HTTP/1.1 200 OK\r\n" + headers + packed))
    with pytest.raises(Unreachable):
        post(f"http://127.0.0.1:{server.port}/")
    assert b"Accept-Encoding: identity\r\n" in server.heard[0]


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000,
    ],
    ids=["nothing", "no HTTP", "cut off", "no chunks", "headers without end"],
)
def test_a_broken_answer_is_none(answer: bytes, listen: Callable[..., Listener]) -> None:
    server = listen(says(answer))
    with pytest.raises(Unreachable):
        post(f"http://127.0.0.1:{server.port}/")


# --- TLS ------------------------------------------------------------------------------------------
def _certificate(folder: Path) -> ssl.SSLContext:
    """Return the context of a server that has signed its own certificate for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    file = folder / "server.pem"
    file.write_bytes(private + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def test_certificates_are_verified(listen: Callable[..., Listener], tmp_path: Path) -> None:
    server = listen(says(OK), _certificate(tmp_path))
    with pytest.raises(Unreachable, match="certificate"):
        post(f"https://127.0.0.1:{server.port}/")
    assert b"X-Key" not in b"".join(server.heard)


def test_the_certificate_must_be_of_the_name_in_the_address(
    listen: Callable[..., Listener],
    tmp_path: Path,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = listen(says(OK), _certificate(tmp_path))
    settings.ALLOWED_PRIVATE_ENDPOINTS += [f"localhost:{server.port}"]
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    outgoing._pool.cache_clear()
    try:
        assert post(f"https://localhost:{server.port}/").body == b"ok"
        with pytest.raises(Unreachable, match="certificate"):
            post(f"https://127.0.0.1:{server.port}/")
    finally:
        outgoing._pool.cache_clear()

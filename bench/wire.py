"""A minimal HTTP/1.1 client on one kept connection, the same for every server that is measured.

The clients share the machine's cores with the servers, so bodies are encoded beforehand and an
answer is read without looking at more of it than its length.
"""

import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

import orjson

JSON = "application/json"
_END = b"\r\n\r\n"
_CHUNK = 1 << 18


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Return the decoded body, None for an empty one."""
        return orjson.loads(self.body) if self.body else None


@dataclass(frozen=True)
class Body:
    """What is sent, ready for the wire."""

    data: bytes
    content_type: str = JSON


def as_json(value: Any) -> Body:
    """Encode a value that may hold numpy arrays."""
    return Body(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))


class Refused(Exception):
    """A server gave another answer than the one that was needed."""

    def __init__(self, what: str, answer: Answer) -> None:
        self.status = answer.status
        super().__init__(f"{what}: {answer.status} {answer.body[:500].decode(errors='replace')}")


class Connection:
    """One kept connection.

    key: is sent as the bearer token.
    """

    def __init__(
        self, address: tuple[str, int], *, key: str | None = None, timeout_s: float = 600
    ) -> None:
        self._socket = socket.create_connection(address, timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._authorization = f"Authorization: Bearer {key}\r\n" if key else ""
        self._heads: dict[tuple[str, str, str], bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def request(self, method: str, path: str, body: Body | None = None) -> Answer:
        """Send a request and return the answer, whatever it says."""
        data = body.data if body else b""
        head = self._head(method, path, body.content_type if body else JSON)
        message = b"%b%d\r\n\r\n" % (head, len(data))
        if len(data) < _CHUNK:
            self._socket.sendall(message + data)
        else:
            self._socket.sendall(message)
            self._socket.sendall(data)
        return self._answer()

    def expect(self, status: int, method: str, path: str, body: Body | None = None) -> Answer:
        """Send a request; raise Refused unless the answer has this status."""
        answer = self.request(method, path, body)
        if answer.status != status:
            raise Refused(f"{method} {path}", answer)
        return answer

    def _head(self, method: str, path: str, content_type: str) -> bytes:
        named = (method, path, content_type)
        if named not in self._heads:
            self._heads[named] = (
                f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{self._authorization}"
                f"Content-Type: {content_type}\r\nContent-Length: "
            ).encode()
        return self._heads[named]

    def _answer(self) -> Answer:
        received = self._receive()
        while _END not in received:
            received += self._receive()
        head, _, rest = received.partition(_END)
        fields = head.lower()
        status = int(head[9:12])
        if b"transfer-encoding: chunked" in fields:
            return Answer(status, self._chunks(rest))
        at = fields.find(b"content-length:")
        length = int(fields[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        return Answer(status, self._exactly(length, rest)[0])

    def _chunks(self, rest: bytes) -> bytes:
        body = b""
        while True:
            while b"\r\n" not in rest:
                rest += self._receive()
            size, _, rest = rest.partition(b"\r\n")
            length = int(size.split(b";")[0], 16)
            chunk, rest = self._exactly(length + 2, rest)
            body += chunk[:-2]
            if length == 0:
                return body

    def _exactly(self, length: int, rest: bytes) -> tuple[bytes, bytes]:
        parts, have = [rest], len(rest)
        while have < length:
            parts.append(self._receive())
            have += len(parts[-1])
        whole = b"".join(parts)
        return whole[:length], whole[length:]

    def _receive(self) -> bytes:
        received = self._socket.recv(_CHUNK)
        if not received:
            raise ConnectionError("The server closed the connection.")
        return received

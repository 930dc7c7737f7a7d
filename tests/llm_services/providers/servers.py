"""Real HTTP servers that speak the protocols of providers, and are strict about them.

A request that is not as the protocol says is answered with 400 and noted in `complaints`. What a
server says in a refusal holds canaries: nothing of it may ever reach a caller of ours.
"""

import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from numpy.typing import NDArray

KEY = "sk-canary-key"
SAYS = "canary-of-the-provider's-own-words"
DIMENSIONS = 4


def vector_of(text: str) -> NDArray[np.float32]:
    """Return the vector that servers make of a text: float32 of shape (DIMENSIONS,)."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)


@dataclass
class Reply:
    """What to answer: an object as JSON, bytes as they are, pieces one by one."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Received:
    """A request."""

    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Dialect:
    """One protocol.

    check: returns the texts of a body, or raises AssertionError or LookupError.
    answer: returns the body for vectors in order.
    """

    path: str
    limit: int
    check: Callable[[Any], list[str]]
    answer: Callable[[list[list[float]]], Any]
    tokens_per_text: int | None = 3


class Server:
    """Answers as a dialect says, but for the faults that a test puts in the way."""

    def __init__(self, dialect: Dialect, *, key: str = KEY) -> None:
        self.dialect = dialect
        self.key = key
        # (where, name) at which the key must come: header, query, body; None for nowhere.
        self.place: tuple[str, str] | None = ("header", "authorization")
        self.scheme = "Bearer "
        self.longest = 1_000
        self.most = dialect.limit
        self.delay_s = 0.0
        self.faults: deque[Reply] = deque()
        self.received: list[Received] = []
        self.complaints: list[str] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.port = 0

    @property
    def host(self) -> str:
        """Return host:port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Return the endpoint."""
        return f"http://{self.host}{self.dialect.path}"

    def texts(self) -> list[list[str]]:
        """Return the texts of the requests that came."""
        return [self.dialect.check(each.body) for each in self.received]

    def answer(self, request: Received) -> Reply:
        """Return the reply to a request."""
        with self.lock:
            self.received.append(request)
            if self.faults:
                return self.faults.popleft()
        try:
            assert request.path == self.dialect.path, f"path {request.path}"
            assert request.headers["content-type"] == "application/json", "content type"
            self._check_key(request)
            texts = self.dialect.check(request.body)
        except (AssertionError, LookupError, TypeError) as error:
            self.complaints.append(repr(error))
            return Reply({"error": SAYS}, 400)
        if len(texts) > self.most:
            return Reply({"error": SAYS}, 413)
        if any(len(text) > self.longest for text in texts):
            return Reply({"error": f"{SAYS}: too long"}, 400)
        return Reply(self.dialect.answer([vector_of(text).tolist() for text in texts]))

    def _check_key(self, request: Received) -> None:
        sent = {("header", name): each for name, each in request.headers.items()}
        sent |= {("query", name): each for name, each in request.query.items()}
        sent |= {("body", name): each for name, each in request.body.items()}
        places = [place for place, each in sent.items() if self.key in str(each)]
        assert places == ([] if self.place is None else [self.place]), places
        if self.place is not None:
            assert sent[self.place] == f"{self.scheme}{self.key}", "how the key is written"
        if self.place is not None and self.place[0] == "body":
            del request.body[self.place[1]]


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Run a server on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            with server.lock:
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            try:
                reply = self._reply()
            finally:
                with server.lock:
                    server.at_once -= 1
            self._send(reply)

        def _reply(self) -> Reply:
            time.sleep(server.delay_s)
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            parts = urlsplit(self.path)
            headers = {name.lower(): each for name, each in self.headers.items()}
            return server.answer(Received(parts.path, dict(parse_qsl(parts.query)), headers, body))

        def _send(self, reply: Reply) -> None:
            body = reply.body
            if not isinstance(body, bytes):
                body = json.dumps(body).encode()
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, each in reply.headers.items():
                self.send_header(name, each)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Keep quiet."""

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Keep quiet: clients hang up on purpose."""

    listening = Quiet(("127.0.0.1", 0), Handler)
    server.port = listening.server_address[1]
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


# --- Protocols ------------------------------------------------------------------------------------
def _strings(value: Any) -> list[str]:
    assert isinstance(value, list), "texts must be a list"
    assert value, "no texts"
    assert all(isinstance(text, str) for text in value), "texts must be strings"
    return value


def _openai(body: Any) -> list[str]:
    assert set(body) == {"model", "input"}, set(body)
    assert body["model"] == "small"
    return _strings(body["input"])


def _indexed(vectors: list[list[float]]) -> Any:
    entries = [{"index": index, "embedding": each} for index, each in enumerate(vectors)]
    # In any order, as the protocol allows.
    return {"data": entries[::-1], "usage": {"total_tokens": 3 * len(vectors)}}


def _cohere(body: Any) -> list[str]:
    fields = {"model", "texts", "input_type", "embedding_types", "truncate", "output_dimension"}
    assert set(body) == fields, set(body)
    assert body["input_type"] in {"search_document", "search_query"}
    assert (body["embedding_types"], body["truncate"]) == (["float"], "NONE")
    assert body["output_dimension"] == DIMENSIONS
    return _strings(body["texts"])


def _cohere_answer(vectors: list[list[float]]) -> Any:
    billed = {"billed_units": {"input_tokens": 3 * len(vectors)}}
    return {"id": "x", "embeddings": {"float": vectors}, "meta": billed}


def _gemini(body: Any) -> list[str]:
    assert set(body) == {"requests"}
    for each in body["requests"]:
        assert set(each) == {"model", "content", "taskType", "outputDimensionality"}
        assert each["model"] == "models/small"
        assert each["taskType"] in {"RETRIEVAL_DOCUMENT", "RETRIEVAL_QUERY"}
        assert each["outputDimensionality"] == DIMENSIONS
    return _strings([each["content"]["parts"][0]["text"] for each in body["requests"]])


def _ollama(body: Any) -> list[str]:
    assert set(body) == {"model", "input", "truncate"}
    assert body["truncate"] is False
    return _strings(body["input"])


def _voyage(body: Any) -> list[str]:
    assert set(body) == {"model", "input", "input_type", "truncation", "output_dimension"}
    assert body["input_type"] in {"document", "query"}
    assert body["truncation"] is False
    assert body["output_dimension"] == DIMENSIONS
    return _strings(body["input"])


DIALECTS = {
    "openai": Dialect("/v1/embeddings", 2048, _openai, _indexed),
    "cohere": Dialect("/v2/embed", 96, _cohere, _cohere_answer),
    "gemini": Dialect(
        "/v1beta/models/small:batchEmbedContents",
        100,
        _gemini,
        lambda vectors: {"embeddings": [{"values": each} for each in vectors]},
        tokens_per_text=None,
    ),
    "ollama": Dialect(
        "/api/embed",
        10_000,
        _ollama,
        lambda vectors: {"embeddings": vectors, "prompt_eval_count": 3 * len(vectors)},
    ),
    "voyage": Dialect("/v1/embeddings", 128, _voyage, _indexed),
}

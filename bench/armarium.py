"""Our own server: started as its users start it, asked over HTTP with an ordinary account's key."""

import base64
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil
import pyarrow as pa

from bench.corpus import TOP, Corpus, Matrix
from bench.load import Ask, Opener
from bench.processes import Server, ServerFailed, free_port
from bench.raw import Raw
from bench.side import BATCH, Side, Unavailable
from bench.wire import Answer, Body, Connection, Refused, as_json
from config.embedded_postgres import EmbeddedPostgres

ACCOUNT = "bench"
FORMATS = ("json", "base64", "arrow")
ARROW = "application/vnd.apache.arrow.stream"
# A project gets an index once it holds more than about four million numbers …
INDEXED_FROM = 4_200_000
# … and this many rows may wait outside of it.
GROWING = 2_000
NO_INDEX = (
    "This server answers 404 at /v1/projects/{owner}/{project}/index: it has no index, and all its"
    " searches are exact."
)
_INDEX_WITHIN_S = 1_800
_QUIET_WITHIN_S = 300


class Armarium(Side):
    """One installation in a folder of its own, stopped by `close`.

    settings: environment variables beside those that it needs; without any, all is as it comes.
    """

    name = "Armarium"

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.address = ("127.0.0.1", free_port())
        self._admin_key = secrets.token_urlsafe(40)
        self._numbers = 0
        self._formats: tuple[str, ...] = ()
        self.environment = {
            "ARMARIUM_DATA_DIR": str(folder / "data"),
            "ARMARIUM_ADMIN_KEY": self._admin_key,
            **(settings or {}),
        }
        command = [sys.executable, "manage.py", "up", "--no-demo", "--port", str(self.address[1])]
        self.server = Server(command, folder / "armarium.log", self.environment)
        self.server.wait_until(lambda: self.ask("GET", "/readyz", key=None).status == 200)
        self.key = self.add_account(ACCOUNT)
        parameters = EmbeddedPostgres(folder / "data").connection_parameters()
        self.raw = Raw(parameters)

    def close(self) -> None:
        """Stop the server."""
        self.server.stop()

    # Over HTTP, a connection for each request

    def ask(self, method: str, path: str, body: Any = None, *, key: str | None) -> Answer:
        """Send one request on a fresh connection."""
        with Connection(self.address, key=key) as connection:
            return connection.request(method, path, None if body is None else as_json(body))

    def own(self, method: str, path: str, body: Any = None) -> Any:
        """Ask as the bench's account; return the decoded answer, raise Refused for an error."""
        answer = self.ask(method, path, body, key=self.key)
        if answer.status >= 300:
            raise Refused(f"{method} {path}", answer)
        return answer.json()

    def figures(self) -> str:
        """Return what the server tells Prometheus."""
        answer = self.ask("GET", "/metrics", key=self._admin_key)
        if answer.status != 200:
            raise Refused("GET /metrics", answer)
        return answer.body.decode()

    def add_account(self, handle: str) -> str:
        """Make an account; return its key."""
        answer = self.ask("POST", "/v1/users", {"user_handle": handle}, key=self._admin_key)
        if answer.status != 201:
            raise Refused("POST /v1/users", answer)
        return str(answer.json()["api_key"])

    def remove_account(self, handle: str) -> None:
        """Delete an account, and its keys with it."""
        answer = self.ask("DELETE", f"/v1/users/{handle}", key=self._admin_key)
        if answer.status >= 300:
            raise Refused(f"DELETE /v1/users/{handle}", answer)

    # What every side can do

    def create(self, name: str, dimensions: int) -> str:
        """Make a project whose service has these dimensions."""
        self._numbers += 1
        handle = f"{name}-{self._numbers}"
        self.create_named(handle, dimensions)
        return handle

    def create_named(self, handle: str, dimensions: int) -> None:
        """Make a project of exactly this name."""
        self.add_service(dimensions)
        self.own("POST", f"/v1/projects/{ACCOUNT}", project(handle, dimensions))

    def add_service(self, dimensions: int) -> None:
        """Make the service instance of these dimensions, unless it is there."""
        service = {
            "instance_handle": f"dim-{dimensions}",
            "endpoint": "https://api.openai.com/v1/embeddings",
            "api_standard": "openai",
            "model": "bench",
            "dimensions": dimensions,
        }
        path = f"/v1/llm-services/{ACCOUNT}"
        made = self.ask("POST", path, service, key=self.key)
        if made.status not in {201, 409}:
            raise Refused(f"POST {path}", made)

    def batches(self, corpus: Corpus) -> Sequence[Body]:
        return self.encoded(corpus, self.fastest_format())

    def encoded(self, corpus: Corpus, format: str, size: int = BATCH) -> Sequence[Body]:
        """Encode a corpus in one of the formats."""
        encode = {"json": _json, "base64": _base64, "arrow": _arrow}[format]
        starts = range(0, len(corpus), size)
        return [encode(corpus.slice(start, start + size)) for start in starts]

    def formats(self) -> tuple[str, ...]:
        """Return the formats of uploads that this server reads, the slowest first."""
        if not self._formats:
            place = self.create("formats", 4)
            with Connection(self.address, key=self.key) as connection:
                self._formats = tuple(
                    format
                    for format in FORMATS
                    if connection.request(
                        "POST", f"/v1/embeddings/{ACCOUNT}/{place}", _sample(format)
                    ).status
                    == 201
                )
            self.drop(place)
        return self._formats

    def fastest_format(self) -> str:
        """Return the format that loads are uploaded in."""
        return self.formats()[-1]

    def uploader(self, place: str) -> Opener:
        return self.opener("POST", f"/v1/embeddings/{ACCOUNT}/{place}", 201)

    def questions(
        self, queries: Matrix, where: Mapping[str, object] | None = None
    ) -> Sequence[Body]:
        condition = {"filter": dict(where)} if where else {}
        return [as_json({"vector": query, **condition}) for query in queries]

    def base64_questions(self, queries: Matrix) -> Sequence[Body]:
        """Encode searches with base64 vectors."""
        return [as_json({"vector": _text(query)}) for query in queries]

    def reads_base64_searches(self, place: str, query: Matrix) -> bool:
        """Tell whether this server reads base64 vectors in searches."""
        body = {"vector": _text(query)}
        return self.ask("POST", self.search_path(place), body, key=self.key).status == 200

    def search_path(self, place: str) -> str:
        """Return the address of a search for the ten nearest."""
        return f"/v1/similars/{ACCOUNT}/{place}?count={TOP}&threshold=0"

    def searcher(self, place: str) -> Opener:
        return self.opener("POST", self.search_path(place), 200)

    def found(self, answer: Answer) -> list[str]:
        return [hit["id"] for hit in answer.json()["results"]]

    def drop(self, place: str) -> None:
        self.own("DELETE", f"/v1/projects/{ACCOUNT}/{place}")

    def opener(self, method: str, path: str, status: int) -> Opener:
        """Return how a client sends bodies to one address and gets this status."""

        @contextmanager
        def opened() -> Iterator[Ask]:
            with Connection(self.address, key=self.key) as connection:
                yield lambda body: connection.expect(status, method, path, body)

        return opened

    def requester(self) -> Opener:
        """Return how a client sends requests of every kind: (status to expect, method, …)."""

        @contextmanager
        def opened() -> Iterator[Ask]:
            with Connection(self.address, key=self.key) as connection:
                yield lambda request: connection.expect(*request)

        return opened

    # The index

    def index(self, place: str) -> dict[str, Any] | None:
        """Return the state of a project's index, None if this server has none to show."""
        try:
            shown: dict[str, Any] = self.own("GET", f"/v1/projects/{ACCOUNT}/{place}/index")
        except Refused as refused:
            if refused.status == 404:
                return None
            raise
        return shown

    def set_ef_search(self, place: str, ef_search: int) -> None:
        path = f"/v1/projects/{ACCOUNT}/{place}/index"
        if self.index(place) is None:
            raise Unavailable(NO_INDEX)
        self.own("PATCH", path, {"ef_search": ef_search})

    def settle(self, place: str) -> None:
        """Wait until a large project is indexed and few rows wait outside of its index."""
        began = time.monotonic()
        while (index := self.index(place)) is not None:
            if index["last_error"]:
                raise ServerFailed(f"The index of {place} could not be built: {index!r}")
            if self._is_settled(place, index):
                return
            if time.monotonic() - began > _INDEX_WITHIN_S:
                raise ServerFailed(f"{place} has no index after {_INDEX_WITHIN_S} s: {index!r}")
            time.sleep(0.1)

    def _is_settled(self, place: str, index: dict[str, Any]) -> bool:
        if index["state"] == "indexed":
            return bool(index["rows"]["growing"] <= GROWING)
        if index["state"] == "building":
            return False
        path = f"/v1/embeddings/{ACCOUNT}/{place}?limit=1"
        page = self.own("GET", path)["embeddings"]
        return not page or index["rows"]["total"] * len(page[0]["vector"]) <= INDEXED_FROM

    def wait_until_quiet(self) -> None:
        """Wait until nothing runs in the database: builds, vacuuming, what a deletion left."""
        deadline = time.monotonic() + _QUIET_WITHIN_S
        calm = 0
        while calm < 5 and time.monotonic() < deadline:
            [(busy,)] = self.raw.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
                " AND pid <> pg_backend_pid() AND backend_type <> 'walsender'"
            )
            calm = 0 if busy else calm + 1
            time.sleep(0.2)

    # Its processes

    def memory_mb(self) -> float:
        """Return what the largest web worker holds now, in megabytes; 0 when none lives."""
        return max((_status_mb(worker, "VmRSS") for worker in self.web_workers()), default=0)

    def peak_memory_mb(self) -> float:
        """Return the most that a web worker has held, in megabytes; 0 when none lives."""
        return max((_status_mb(worker, "VmHWM") for worker in self.web_workers()), default=0)

    def connection_memory_mb(self) -> list[float]:
        """Return the private memory of each connection to the database, in megabytes."""
        rows = self.raw.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND datname = current_database() AND pid <> pg_backend_pid()"
        )
        return sorted(_private_mb(pid) for (pid,) in rows)

    def memory_of_parts_mb(self) -> dict[str, float]:
        """Return what web server, background worker and database have for themselves alone, in MB.

        Without the memory that the processes of the database share, which fills up to a size that
        is set when it starts.
        """
        parts = {"web": 0.0, "worker": 0.0, "database": 0.0}
        cluster = str(self.folder / "data" / "postgres")
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                part = _part(process, cluster, self.environment["ARMARIUM_DATA_DIR"])
                if part is not None:
                    parts[part] += _private_mb(process.pid)
        return parts

    def web_workers(self) -> list[psutil.Process]:
        """Return the processes that serve requests."""
        found = []
        for process in psutil.Process(self.server.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                parent = process.parent()
                is_worker = parent is not None and "config.web_server" in parent.cmdline()
                if is_worker and not any("resource_tracker" in each for each in process.cmdline()):
                    found.append(process)
        return found


def project(handle: str, dimensions: int) -> dict[str, object]:
    """Return the wish for a project whose service has these dimensions."""
    return {
        "project_handle": handle,
        "instance_owner": ACCOUNT,
        "instance_handle": f"dim-{dimensions}",
    }


def _part(process: psutil.Process, cluster: str, data_dir: str) -> str | None:
    """Say which part of the installation a process belongs to, None for none."""
    command = process.cmdline()
    if process.name() == "postgres":
        return "database" if process.cwd() == cluster else None
    if process.environ().get("ARMARIUM_DATA_DIR") != data_dir:
        return None
    return "worker" if "config.worker" in command else "web"


def _status_mb(process: psutil.Process, field: str) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace")
    [line] = [line for line in status.splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) / 1024


def _private_mb(pid: int) -> float:
    """Return the memory that only this process has, in megabytes.

    Without the pages of PostgreSQL's shared memory that no other process has touched yet: the
    kernel counts them as private, too.
    """
    private, kilobytes = False, 0
    for line in (
        Path(f"/proc/{pid}/smaps").read_text(encoding="ascii", errors="replace").split("\n")
    ):
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            private = rest[3:4] == "p"
        elif private and name in {"Private_Dirty:", "Private_Clean:"}:
            kilobytes += int(rest.split()[0])
    return kilobytes / 1024


def _sample(format: str) -> Body:
    one = Corpus(
        name="sample",
        ids=[format],
        texts=["a text"],
        metadata=["{}"],
        vectors=np.ones((1, 4), dtype=np.float32),
        queries=np.ones((0, 4), dtype=np.float32),
        truth=[],
    )
    return {"json": _json, "base64": _base64, "arrow": _arrow}[format](one)


def _json(corpus: Corpus) -> Body:
    return _items(corpus, list(corpus.vectors))


def _base64(corpus: Corpus) -> Body:
    return _items(corpus, [_text(vector) for vector in corpus.vectors])


def _items(corpus: Corpus, vectors: Sequence[Any]) -> Body:
    rows = zip(corpus.ids, vectors, corpus.texts, corpus.metadata, strict=True)
    return as_json(
        {
            "embeddings": [
                {
                    "text_id": text_id,
                    "instance_handle": f"dim-{corpus.dimensions}",
                    "vector": vector,
                    "vector_dim": corpus.dimensions,
                    "text": text,
                    "metadata": orjson.Fragment(metadata),
                }
                for text_id, vector, text, metadata in rows
            ]
        }
    )


def _text(vector: Matrix) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _arrow(corpus: Corpus) -> Body:
    flat = pa.array(corpus.vectors.reshape(-1), type=pa.float32())
    table = pa.table(
        {
            "text_id": pa.array(corpus.ids, type=pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(flat, corpus.dimensions),
            "text": pa.array(corpus.texts, type=pa.string()),
            "metadata": pa.array(corpus.metadata, type=pa.string()),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return Body(sink.getvalue().to_pybytes(), ARROW)

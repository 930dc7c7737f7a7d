"""Uploads and searches over HTTP beside raw SQL, in one run, on the demo's real vectors.

`make bench` starts a server of its own (data in a temporary directory) and prints a Markdown table.
Raw SQL is what the same database does without this program: binary COPY into a table like ours, and
a prepared exact search over a connection of its own.
"""

import argparse
import os
import secrets
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psycopg
import pyarrow.parquet as pq
import requests
from pgvector.psycopg import register_vector

from config.embedded_postgres import EmbeddedPostgres

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "embeddings" / "demo" / "wikipedia_vital.parquet"
BATCH = 1_000
SEARCHES = 300


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=8_000, help="rows of the demo data (8000)")
    parser.add_argument("--rounds", type=int, default=3, help="repeat, and take medians (3)")
    options = parser.parse_args()
    ids, texts, vectors = _data(options.rows)
    with tempfile.TemporaryDirectory(prefix="armarium-bench-") as folder, _server(folder) as api:
        print("| what | Armarium over HTTP | raw SQL | ratio |")
        print("|---|---|---|---|")
        with _raw(folder, ids, texts, vectors) as raw:
            uploads = [_upload(api, ids, texts, vectors, each) for each in range(options.rounds)]
            copies = [raw.copy() for _ in range(options.rounds)]
            _row("upload, rows a second", uploads, copies, higher_is_better=True)
            for size in (1_000, options.rows):
                project = _project(api, f"search-{size}")
                _send(api, project, ids[:size], texts[:size], vectors[:size])
                raw.fill(size)
                ours = [_search(api, project, vectors) for _ in range(options.rounds)]
                theirs = [raw.search(vectors) for _ in range(options.rounds)]
                _row(f"search in {size} rows, ms (median of one client)", ours, theirs)


def _data(rows: int) -> tuple[list[str], list[str], np.ndarray[Any, Any]]:
    table = pq.read_table(DATA).slice(0, rows)
    dimensions = table.schema.field("vector").type.list_size
    flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = flat.astype(np.float32).reshape(-1, dimensions)
    return table["text_id"].to_pylist(), table["text"].to_pylist(), vectors


class Api:
    """The server, asked with the admin key."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {key}"
        self.session.headers["Content-Type"] = "application/json"

    def post(self, path: str, body: bytes) -> Any:
        """POST a JSON body; raise for a refusal."""
        answer = self.session.post(self.url + path, data=body)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def _server(folder: str) -> Iterator[Api]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    key = secrets.token_urlsafe(40)
    process = subprocess.Popen(
        [sys.executable, "manage.py", "up", "--port", str(port), "--no-demo"],
        cwd=ROOT,
        env={
            **os.environ,
            "ARMARIUM_DATA_DIR": folder,
            "ARMARIUM_ADMIN_KEY": key,
            "ARMARIUM_LOG_LEVEL": "WARNING",
        },
        stdout=subprocess.DEVNULL,
    )
    api = Api(f"http://127.0.0.1:{port}", key)
    try:
        for _ in range(600):
            try:
                if api.session.get(f"{api.url}/readyz").ok:
                    break
            except requests.ConnectionError:
                pass
            time.sleep(0.2)
        api.post("/v1/users", b'{"user_handle": "bench"}')
        yield api
    finally:
        process.terminate()
        process.wait()


def _project(api: Api, handle: str) -> str:
    body = {
        "project_handle": handle,
        "instance_owner": "_system",
        "instance_handle": "builtin",
    }
    api.post("/v1/projects/bench", orjson.dumps(body))
    return f"bench/{handle}"


def _bodies(ids: list[str], texts: list[str], vectors: np.ndarray[Any, Any]) -> Iterator[bytes]:
    for start in range(0, len(ids), BATCH):
        items = [
            {
                "text_id": ids[row],
                "instance_handle": "builtin",
                "vector": vectors[row],
                "vector_dim": vectors.shape[1],
                "text": texts[row],
                "metadata": {"row": row},
            }
            for row in range(start, min(start + BATCH, len(ids)))
        ]
        yield orjson.dumps({"embeddings": items}, option=orjson.OPT_SERIALIZE_NUMPY)


def _send(
    api: Api, project: str, ids: list[str], texts: list[str], vectors: np.ndarray[Any, Any]
) -> float:
    bodies = list(_bodies(ids, texts, vectors))
    start = time.perf_counter()
    for body in bodies:
        api.post(f"/v1/embeddings/{project}", body)
    return time.perf_counter() - start


def _upload(
    api: Api, ids: list[str], texts: list[str], vectors: np.ndarray[Any, Any], number: int
) -> float:
    project = _project(api, f"upload-{number}")
    return len(ids) / _send(api, project, ids, texts, vectors)


def _search(api: Api, project: str, vectors: np.ndarray[Any, Any]) -> float:
    queries = vectors[:: max(1, len(vectors) // SEARCHES)]
    bodies = [orjson.dumps({"vector": each}, option=orjson.OPT_SERIALIZE_NUMPY) for each in queries]
    return _median_ms(
        lambda body: api.post(f"/v1/similars/{project}?threshold=0&count=10", body), bodies
    )


def _median_ms(ask: Callable[[Any], Any], questions: list[Any]) -> float:
    times = []
    for question in questions:
        start = time.perf_counter()
        ask(question)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1_000


class Raw:
    """The same database without this program."""

    def __init__(
        self, connection: psycopg.Connection[Any], rows: list[tuple[str, str, bytes]]
    ) -> None:
        self.connection = connection
        self.rows = rows

    def copy(self) -> float:
        """Return the rows a second of binary COPY, one transaction a batch."""
        self._empty()
        start = time.perf_counter()
        for first in range(0, len(self.rows), BATCH):
            self._copy(self.rows[first : first + BATCH])
        return len(self.rows) / (time.perf_counter() - start)

    def fill(self, size: int) -> None:
        """Hold the first rows, ready to be searched."""
        self._empty()
        self._copy(self.rows[:size])
        self.connection.execute("ANALYZE raw")
        self.connection.commit()

    def search(self, vectors: np.ndarray[Any, Any]) -> float:
        """Return the median milliseconds of an exact search."""
        queries = list(vectors[:: max(1, len(vectors) // SEARCHES)])
        cursor = self.connection.cursor(binary=True)
        return _median_ms(
            lambda query: cursor.execute(
                "SELECT text_id, vector <=> %b AS distance FROM raw"
                " WHERE project_id = 1 ORDER BY distance LIMIT 10",
                [query],
                prepare=True,
            ).fetchall(),
            queries,
        )

    def _empty(self) -> None:
        self.connection.execute("TRUNCATE raw")
        self.connection.commit()

    def _copy(self, rows: list[tuple[str, str, bytes]]) -> None:
        with self.connection.cursor().copy(
            "COPY raw (project_id, text_id, text, vector) FROM STDIN (FORMAT BINARY)"
        ) as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0))
            for text_id, text, vector in rows:
                fields = (struct.pack(">q", 1), text_id.encode(), text.encode(), vector)
                parts = [struct.pack(">i", len(each)) + each for each in fields]
                copy.write(struct.pack(">h", len(fields)) + b"".join(parts))
            copy.write(struct.pack(">h", -1))
        self.connection.commit()


def _binary(vector: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(">HH", len(vector), 0) + vector.astype(">f4").tobytes()


@contextmanager
def _raw(
    folder: str, ids: list[str], texts: list[str], vectors: np.ndarray[Any, Any]
) -> Iterator[Raw]:
    parameters = EmbeddedPostgres(Path(folder)).connection_parameters()
    with psycopg.connect(
        host=parameters.host,
        port=parameters.port,
        user=parameters.user,
        password=parameters.password,
        dbname=parameters.dbname,
    ) as connection:
        connection.execute(
            "CREATE TABLE raw (project_id bigint, text_id text, text text, vector vector,"
            " PRIMARY KEY (project_id, text_id)) WITH (toast_tuple_target = 8160)"
        )
        connection.commit()
        register_vector(connection)
        rows = list(zip(ids, texts, (_binary(each) for each in vectors), strict=True))
        yield Raw(connection, rows)


def _row(
    what: str, ours: list[float], theirs: list[float], *, higher_is_better: bool = False
) -> None:
    our, their = statistics.median(ours), statistics.median(theirs)
    ratio = our / their if higher_is_better else their / our
    print(f"| {what} | {our:,.1f} | {their:,.1f} | {ratio:.2f} |", flush=True)


main()

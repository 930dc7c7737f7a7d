"""How much memory a web worker takes while somebody uploads a large Parquet file.

    python -m bench.memory [--megabytes 500]

Starts a server of its own with one worker (data in a temporary directory), makes a Parquet file of
real vectors repeated under other ids, uploads it in one request, and prints one line of a Markdown
table: the most memory (VmHWM) of the worker before and after, and that of the process which
decodes.
"""

import argparse
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import requests

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data" / "wordnet_glosses.parquet"
DEMO = ROOT / "embeddings" / "demo" / "wikipedia_vital.parquet"
PART = 5_000
MEDIA_TYPE = "application/vnd.apache.parquet"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.memory", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=500, help="size of the file (500)")
    parser.add_argument("--folder", help="where the data goes (a temporary directory)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="armarium-memory-", dir=options.folder) as folder:
        file = Path(folder) / "upload.parquet"
        rows, dimensions = _write(file, options.megabytes * 1024**2)
        with _server(Path(folder) / "data") as (url, key, server):
            session = requests.Session()
            session.headers["Authorization"] = f"Bearer {key}"
            _prepare(session, url, dimensions)
            worker = _worker(server)
            before = _peak(worker)
            with _Watching(worker) as watching:
                began = time.perf_counter()
                with file.open("rb") as body:
                    answer = session.post(
                        f"{url}/v1/embeddings/bench/large",
                        data=body,
                        headers={"Content-Type": MEDIA_TYPE},
                        timeout=600,
                    )
                took = time.perf_counter() - began
            assert answer.status_code == 201, answer.text
            assert answer.json()["count"] == rows
            print(
                "| upload | rows | seconds | worker before, MB | worker peak, MB "
                "| decoder peak, MB | decoder's own, MB |"
            )
            print("|---|---|---|---|---|---|---|")
            print(
                f"| Parquet, {file.stat().st_size / 1024**2:.0f} MB | {rows} | {took:.1f} "
                f"| {before:.0f} | {_peak(worker):.0f} | {watching.peak:.0f} "
                f"| {watching.own:.0f} |"
            )


def _write(file: Path, size: int) -> tuple[int, int]:
    """Write a Parquet file of about so many bytes; return its rows and dimensions."""
    given = pq.read_table(SHARED if SHARED.exists() else DEMO).slice(0, 50_000)
    dimensions = given.schema.field("vector").type.list_size
    flat = given["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = flat.astype(np.float32).reshape(-1, dimensions)
    texts = given["text"].to_pylist()
    schema = pa.schema(
        [
            ("text_id", pa.string()),
            ("vector", pa.list_(pa.float32(), dimensions)),
            ("text", pa.string()),
            ("metadata", pa.string()),
        ]
    )
    rows = 0
    with pq.ParquetWriter(file, schema, compression="none", use_dictionary=False) as writer:
        while file.stat().st_size < size:
            at = np.arange(rows, rows + PART) % len(vectors)
            columns = [
                pa.array([f"copy-{rows // len(vectors)}:{row}" for row in at]),
                pa.FixedSizeListArray.from_arrays(pa.array(vectors[at].ravel()), dimensions),
                pa.array([texts[row] for row in at]),
                pa.array([f'{{"row": {row}, "source": "bench"}}' for row in at]),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema), row_group_size=100_000)
            rows += PART
    return rows, dimensions


@contextmanager
def _server(data: Path) -> Iterator[tuple[str, str, psutil.Process]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    key = secrets.token_urlsafe(40)
    process = subprocess.Popen(
        [sys.executable, "manage.py", "up", "--port", str(port), "--no-demo", "--workers", "1"],
        cwd=ROOT,
        env={
            **os.environ,
            "ARMARIUM_DATA_DIR": str(data),
            "ARMARIUM_ADMIN_KEY": key,
            "ARMARIUM_LOG_LEVEL": "WARNING",
        },
        stdout=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with suppress(requests.ConnectionError):
                if requests.get(f"{url}/readyz", timeout=5).ok:
                    break
            time.sleep(0.2)
        yield url, key, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _prepare(session: requests.Session, url: str, dimensions: int) -> None:
    instance = {
        "instance_handle": "model",
        "endpoint": "https://api.example.org/v1/embeddings",
        "api_standard": "openai",
        "model": "test",
        "dimensions": dimensions,
    }
    project = {
        "project_handle": "large",
        "instance_owner": "bench",
        "instance_handle": "model",
    }
    session.post(f"{url}/v1/users", json={"user_handle": "bench"}).raise_for_status()
    session.post(f"{url}/v1/llm-services/bench", json=instance).raise_for_status()
    session.post(f"{url}/v1/projects/bench", json=project).raise_for_status()
    # Warm: every module is loaded that the first requests load.
    session.get(f"{url}/v1/embeddings/bench/large").raise_for_status()


def _worker(server: psutil.Process) -> psutil.Process:
    """Return the process that answers requests: the last of the web server's."""
    web = [each for each in server.children(recursive=True) if "granian" in _words(each)]
    web += [each for each in server.children(recursive=True) if "spawn_main" in _words(each)]
    listening = [each for each in server.children(recursive=True) if _words(each)]
    found = web or listening
    return max(found, key=lambda each: _peak(each))


def _words(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _peak(process: psutil.Process) -> float:
    """Return the most memory that a process ever had, in MB."""
    return _figure(process, "VmHWM")


def _figure(process: psutil.Process, name: str) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    return 0


class _Watching:
    """Watches the process that decodes, which may be gone afterwards.

    peak: the most memory that it had; own: the same without the pages of the file that it reads.
    """

    def __init__(self, worker: psutil.Process) -> None:
        self.peak = self.own = 0.0
        self._worker = worker
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "_Watching":
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            for child in self._worker.children():
                if "_child.py" in _words(child):
                    self.peak = max(self.peak, _peak(child))
                    self.own = max(self.own, _figure(child, "RssAnon"))


if __name__ == "__main__":
    main()

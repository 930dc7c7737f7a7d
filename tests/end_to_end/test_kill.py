"""Acknowledged means durable: processes are killed at random moments under a writing load.

ARMARIUM_KILL_CYCLES says how often the whole tree is killed (2 unless it is set).
"""

import hashlib
import http.client
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.end_to_end.harness import Armarium, wait_for

CYCLES = int(os.environ.get("ARMARIUM_KILL_CYCLES", "2"))
BATCH = 60
DIMENSIONS = 16
PROJECT = "alice/killed"
UPDATED = [f"updated/{number}" for number in range(20)]


def checksum(vector: list[float], text: str, version: int) -> str:
    return hashlib.sha256(json.dumps([vector, text, version]).encode()).hexdigest()


def embedding(text_id: str, version: int = 0) -> dict[str, Any]:
    # Halves survive the way through float32, so that checksums can be compared.
    vector = [random.randint(-2000, 2000) / 2 + 0.5 for _ in range(DIMENSIONS)]
    text = f"Text {random.random()} of {text_id}, version {version}. " * 5
    return {
        "text_id": text_id,
        "instance_handle": "small",
        "vector": vector,
        "vector_dim": DIMENSIONS,
        "text": text,
        "metadata": {"version": version, "sum": checksum(vector, text, version)},
    }


@dataclass
class Ledger:
    """What the server has acknowledged, and what it may or may not have done."""

    stored: set[str] = field(default_factory=set)
    batches: list[list[str]] = field(default_factory=list)
    unsure_batches: list[list[str]] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)
    unsure_deleted: set[str] = field(default_factory=set)
    versions: dict[str, int] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Load:
    """Clients that upload, replace and delete until they are told to stop."""

    def __init__(self, armarium: Armarium, key: str, ledger: Ledger, cycle: int) -> None:
        self._armarium = armarium
        self._key = key
        self._ledger = ledger
        self._cycle = cycle
        self._ended = threading.Event()
        work = [self._upload, self._upload, self._replace, self._delete]
        self._threads = [
            threading.Thread(target=self._repeat, args=(each, number))
            for number, each in enumerate(work)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, step: Callable[[int, int], None], client: int) -> None:
        number = 0
        while not self._ended.is_set():
            step(client, number)
            number += 1

    def _send(self, method: str, path: str, body: Any = None) -> int | None:
        """Return the status, or None when nobody knows whether the request was carried out."""
        try:
            status, answer = self._armarium.request(method, path, body, key=self._key)
        except (OSError, http.client.HTTPException, ValueError):
            time.sleep(0.05)
            return None
        with self._ledger.lock:
            self._ledger.statuses[status] = self._ledger.statuses.get(status, 0) + 1
            if status >= 400 and status != 503:
                self._ledger.unexpected.append(f"{method} {path}: {status} {answer}")
        if status == 503:
            time.sleep(0.05)
        return status

    def _upload(self, client: int, number: int) -> None:
        ids = [f"{self._cycle}/{client}/{number}/{item}" for item in range(BATCH)]
        body = {"embeddings": [embedding(text_id) for text_id in ids]}
        status = self._send("POST", f"/v1/embeddings/{PROJECT}", body)
        with self._ledger.lock:
            if status == 201:
                self._ledger.batches.append(ids)
                self._ledger.stored.update(ids)
            elif status is None or status == 503:
                # A commit whose answer was lost is answered with 503 as well.
                self._ledger.unsure_batches.append(ids)

    def _replace(self, client: int, number: int) -> None:
        version = self._cycle * 1_000_000 + number + 1
        text_id = random.choice(UPDATED)
        path = f"/v1/embeddings/{PROJECT}/{text_id.replace('/', '%2F')}"
        if self._send("PUT", path, embedding(text_id, version)) in (200, 201):
            with self._ledger.lock:
                self._ledger.versions[text_id] = version

    def _delete(self, client: int, number: int) -> None:
        with self._ledger.lock:
            left = self._ledger.stored - self._ledger.deleted - self._ledger.unsure_deleted
            text_id = random.choice(sorted(left)) if left else None
        if text_id is None:
            time.sleep(0.02)
            return
        path = f"/v1/embeddings/{PROJECT}/{text_id.replace('/', '%2F')}"
        with self._ledger.lock:
            self._ledger.unsure_deleted.add(text_id)
        if self._send("DELETE", path) in (200, 204):
            with self._ledger.lock:
                self._ledger.deleted.add(text_id)
        time.sleep(0.02)


def prepare(armarium: Armarium) -> str:
    """Make the owner, the instance and the project; return the owner's key."""
    status, user = armarium.request("POST", "/v1/users", {"user_handle": "alice"})
    assert status == 201, user
    key = str(user["embapi_key"])
    instance = {
        "endpoint": "https://embeddings.example/v1",
        "api_standard": "openai",
        "model": "small",
        "dimensions": DIMENSIONS,
    }
    status, answer = armarium.request("PUT", "/v1/llm-services/alice/small", instance, key=key)
    assert status == 201, answer
    project = {
        "project_handle": "killed",
        "instance_owner": "alice",
        "instance_handle": "small",
    }
    status, answer = armarium.request("POST", "/v1/projects/alice", project, key=key)
    assert status == 201, answer
    return key


def stored_rows(armarium: Armarium, key: str) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    while True:
        path = f"/v1/embeddings/{PROJECT}?limit=200&offset={len(rows)}"
        status, page = armarium.request("GET", path, key=key)
        assert status == 200, page
        for row in page["embeddings"]:
            assert row["text_id"] not in rows
            rows[row["text_id"]] = row
        if not page["embeddings"]:
            assert page["total_count"] == len(rows)
            return rows


def check(armarium: Armarium, key: str, ledger: Ledger) -> None:
    """Compare what the server holds with what it has acknowledged."""
    assert ledger.unexpected == []
    rows = stored_rows(armarium, key)

    for text_id, row in rows.items():
        metadata = row["metadata"]
        expected = checksum(row["vector"], row["text"], metadata["version"])
        assert metadata["sum"] == expected, f"{text_id} is a mixture"

    missing = ledger.stored - ledger.deleted - ledger.unsure_deleted - rows.keys()
    assert not missing, f"{len(missing)} acknowledged rows are lost"
    returned = ledger.deleted & rows.keys()
    assert not returned, f"{len(returned)} deleted rows are back"
    for ids in ledger.unsure_batches:
        present = sum(text_id in rows for text_id in ids)
        assert present in (0, BATCH), f"{present} of {BATCH} rows of a batch"
    for text_id, version in ledger.versions.items():
        assert rows[text_id]["metadata"]["version"] >= version
    known = {*UPDATED, *ledger.stored}.union(*ledger.unsure_batches)
    assert rows.keys() <= known

    status, project = armarium.request("GET", f"/v1/projects/{PROJECT}", key=key)
    assert status == 200
    assert project["number_of_embeddings"] == len(rows)

    for row in random.sample(sorted(rows.values(), key=lambda row: row["text_id"]), 10):
        body = {"vector": row["vector"]}
        status, found = armarium.request("POST", f"/v1/similars/{PROJECT}", body, key=key)
        assert status == 200
        assert found["results"][0]["id"] == row["text_id"]

    # What may have been stored or deleted is settled now, and must stay as it is.
    for ids in ledger.unsure_batches:
        if ids[0] in rows or ids[-1] in rows:
            ledger.stored.update(ids)
    ledger.unsure_batches.clear()
    ledger.deleted |= ledger.unsure_deleted - rows.keys()
    ledger.unsure_deleted.clear()


@pytest.fixture
def armarium(tmp_path: Path) -> Iterator[Armarium]:
    one = Armarium(tmp_path / "data").migrated()
    one.start()
    yield one
    one.kill_everything()


@pytest.mark.slow
@pytest.mark.timeout(120 + 60 * CYCLES)
def test_nothing_acknowledged_is_lost_when_everything_is_killed(armarium: Armarium) -> None:
    key = prepare(armarium)
    ledger = Ledger()
    for cycle in range(1, CYCLES + 1):
        before = len(ledger.batches)
        with Load(armarium, key, ledger, cycle):
            wait_for(lambda before=before: len(ledger.batches) > before, "the first batch")  # type: ignore[misc]
            time.sleep(random.uniform(0.1, 3))
            armarium.kill_everything()
        armarium.start()
        check(armarium, key, ledger)
    assert armarium.terminate()[0] == 0
    assert armarium.processes() == []
    armarium.start()
    check(armarium, key, ledger)
    sys.stdout.write(f"{CYCLES} kills, {len(ledger.stored)} rows kept: {ledger.statuses}\n")


def web_server(armarium: Armarium) -> list[psutil.Process]:
    assert armarium.process is not None
    children = psutil.Process(armarium.process.pid).children()
    return [child for child in children if "config.web_server" in child.cmdline()]


def workers(armarium: Armarium) -> list[psutil.Process]:
    return list(web_server(armarium)[0].children())


def postmaster(armarium: Armarium) -> list[psutil.Process]:
    server = armarium.postmaster()
    assert server is not None
    return [server]


def backends(armarium: Armarium) -> list[psutil.Process]:
    found = []
    for process in postmaster(armarium)[0].children():
        with suppress(psutil.NoSuchProcess):
            if "armarium armarium" in " ".join(process.cmdline()):
                found.append(process)
    return found[:1]


@pytest.mark.slow
@pytest.mark.parametrize("victims", [backends, postmaster, workers, web_server])
def test_service_heals_under_load_without_an_error_of_its_own(
    armarium: Armarium, victims: Callable[[Armarium], list[psutil.Process]]
) -> None:
    key = prepare(armarium)
    ledger = Ledger()
    with Load(armarium, key, ledger, 1):
        wait_for(lambda: len(ledger.batches) > 2, "the first batches")
        for process in victims(armarium):
            process.kill()
        time.sleep(0.3)
        wait_for(armarium.is_ready, "ready again", timeout_s=15)
        count = len(ledger.batches)
        wait_for(lambda: len(ledger.batches) > count + 2, "batches again", timeout_s=15)
    check(armarium, key, ledger)

"""One writer replaces an embedding again and again; nobody ever sees it go back.

Each version has a vector, a text and metadata of its own. What a reader is shown is no older than
what was acknowledged before it asked, no newer than what was sent before it was answered, and of
one version in all its parts; also while the project is indexed and its rows are sealed.
"""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.harness import Armarium, wait_for
from tests.end_to_end.test_index_kill import THRESHOLD_ROWS, index
from tests.end_to_end.test_kill import DIMENSIONS, PROJECT, embedding, prepare

# Lists begin with it: the names of all others come later.
REGISTER = "a/register"
PATH = f"/v1/embeddings/{PROJECT}/{REGISTER.replace('/', '%2F')}"
# Far from all others, which lie all around: the register is the first hit whatever its version.
DIRECTION = [100_000.0] + [0.0] * (DIMENSIONS - 1)
# A part that is built beside a graph has so many rows (embeddings.indexes).
SEALED_FROM = 1_000
FEWEST = 10


@pytest.fixture
def armarium(tmp_path: Path) -> Iterator[Armarium]:
    one = Armarium(
        tmp_path / "data",
        ARMARIUM_INDEX_THRESHOLD=str(THRESHOLD_ROWS * DIMENSIONS),
        ARMARIUM_WORKER_HEARTBEAT_S="1",
    ).migrated()
    one.start()
    yield one
    one.kill_everything()


def version_of(row: dict[str, Any]) -> int:
    """Return the version of a row, after a look whether all of it is of that version."""
    version = int(row["metadata"]["version"])
    assert row["text"] == f"Version {version}"
    assert row.get("vector", written(version)["vector"]) == written(version)["vector"]
    return version


def written(version: int) -> dict[str, Any]:
    # The versions fit into float32 as they are.
    return {
        "text_id": REGISTER,
        "instance_handle": "small",
        "vector": [*DIRECTION[:-1], float(version)],
        "vector_dim": DIMENSIONS,
        "text": f"Version {version}",
        "metadata": {"version": version},
    }


class Register:
    """The embedding, who writes it and who reads it."""

    def __init__(self, armarium: Armarium, key: str) -> None:
        self.armarium = armarium
        self.key = key
        self.sent = self.acknowledged = 0
        self.reads: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._write)]
        for read in (self.get, self.get, self.search, self.listed):
            self._threads.append(threading.Thread(target=self._read, args=(read,)))

    def __enter__(self) -> "Register":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = self.armarium.request(method, path, body, key=self.key)
        assert status in (200, 201), (method, path, status, answer)
        return answer

    def get(self) -> int:
        return version_of(self.ask("GET", PATH))

    def search(self) -> int:
        body = {"vector": DIRECTION, "count": 3, "fields": ["text", "metadata", "vector"]}
        found = self.ask("POST", f"/v1/similars/{PROJECT}", body)["results"]
        assert [each["id"] for each in found].count(REGISTER) == 1
        assert found[0]["id"] == REGISTER
        return version_of(found[0])

    def listed(self) -> int:
        path = f"/v1/embeddings/{PROJECT}?limit=20"
        rows = [each for each in self.ask("GET", path)["embeddings"] if each["text_id"] == REGISTER]
        assert len(rows) == 1
        return version_of(rows[0])

    def _write(self) -> None:
        while not self._ended.is_set():
            try:
                self.write()
            except AssertionError as error:
                self.wrong.append(str(error))

    def write(self) -> None:
        self.sent += 1
        self.ask("PUT", PATH, written(self.sent))
        self.acknowledged = self.sent

    def _read(self, read: Callable[[], int]) -> None:
        seen = 0
        while not self._ended.is_set():
            acknowledged = self.acknowledged
            try:
                version = read()
            except AssertionError as error:
                self.wrong.append(f"{read.__name__}: {error}")
                return
            latest = self.sent
            if not max(seen, acknowledged) <= version <= latest:
                self.wrong.append(
                    f"{read.__name__}: version {version} after {seen} was seen;"
                    f" {acknowledged} was acknowledged before, {latest} sent by then"
                )
            seen = version
            self.reads[read.__name__] += 1


def fill(register: Register, first: int, rows: int) -> None:
    for start in range(first, first + rows, 250):
        items = [embedding(f"other/{number:06}") for number in range(start, start + 250)]
        register.ask("POST", f"/v1/embeddings/{PROJECT}", {"embeddings": items})


@pytest.mark.slow
def test_no_reader_goes_back_in_time_while_it_is_indexed_and_sealed(armarium: Armarium) -> None:
    key = prepare(armarium)
    register = Register(armarium, key)
    register.write()
    seen: set[str] = set()

    def indexed_rows(at_least: int) -> bool:
        found = index(armarium, key)
        seen.add(found["state"])
        return bool(found["state"] == "indexed" and found["rows"]["indexed"] >= at_least)

    with register:
        fill(register, 0, 1_000)
        wait_for(lambda: indexed_rows(THRESHOLD_ROWS), "an index", timeout_s=60)
        before = index(armarium, key)["rows"]["indexed"]
        fill(register, 1_000, SEALED_FROM + 500)
        wait_for(lambda: indexed_rows(before + 500), "sealing", timeout_s=60)
        count = register.reads.copy()
        wait_for(
            lambda: all(register.reads[each] > count[each] + 5 for each in register.reads),
            "reads of what is sealed",
        )
    assert register.wrong == []
    assert register.acknowledged >= FEWEST
    assert min(register.reads.values()) >= FEWEST
    assert {"get", "search", "listed"} == register.reads.keys()
    sys.stdout.write(f"{register.acknowledged} versions, {dict(register.reads)}, {seen}\n")

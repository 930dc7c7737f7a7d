"""Everything at once, for a while: are there errors, wrong answers, or memory that only grows?

    python -m bench.soak --minutes 10 --clients 8

Starts a server of its own. Clients of several accounts upload, replace, delete, list, and search by
vector, by a stored text and by words; each keeps to texts of its own, so that it knows what the
answers must be. Before and beside that, one account searches alone, and then while another uploads
a lot and its index is built. Prints Markdown; exits with 1 when a bar is missed.

A server error, a refusal or a wrong answer is a miss in a run of any length. Times and memory are
judged in runs of MINUTES_TO_JUDGE and more: what is warming up grows, and a busy machine stalls.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import psutil

from bench.armarium import Armarium
from bench.wire import Answer, Body, Connection, Refused, as_json

ACCOUNTS = 4
DIMENSIONS = 64
BATCH = 20
# A client uploads below this many texts of its own, and deletes above.
ROWS_OF_A_CLIENT = 400
INDEXED_FROM_ROWS = 600
BULK_ROWS = 2_000
WORDS = ("garden", "harbour", "winter", "letter", "mountain", "candle", "river", "orchard")
SEARCH = "search by vector"
# One account's searches, without anybody else, and beside another's bulk upload.
ALONE, BESIDE = "search by vector, alone", "search by vector, beside a bulk upload"
JUDGED = (SEARCH, "search by stored text", "search by words")
WARM_UP_SHARE = 0.3
MINUTES_TO_JUDGE = 3.0
MEMORY_GROWTH = 1.10
TAIL = 20
BESIDE_BULK = 3


@dataclass
class Report:
    """What a run saw.

    seconds: of each request, by what it was. wrong: answers that were not true, in words.
    memory: megabytes of each part after warming up, and at the end.
    bulk_rows: how many texts one account uploaded while another searched.
    niceness: the most that a process of the database gave way.
    """

    minutes: float
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    memory: list[dict[str, float]] = field(default_factory=list)
    bulk_rows: int = 0
    niceness: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def note(self, what: str, seconds: float, answer: Answer) -> None:
        """Count one answer."""
        with self.lock:
            self.seconds[what].append(seconds)
            self.statuses[answer.status] += 1
            if answer.status >= 400:
                self.wrong.append(f"{what}: {answer.status} {answer.body[:300]!r}")

    def say_wrong(self, words: str) -> None:
        """Note an answer that was not true."""
        with self.lock:
            self.wrong.append(words)

    @property
    def growth(self) -> float:
        """Return the memory at the end as a multiple of that after warming up."""
        warm, end = (sum(each.values()) for each in self.memory)
        return end / warm

    @property
    def slowed(self) -> float:
        """Return the p95 of searches beside somebody's bulk upload as a multiple of that alone."""
        return _ms(self.seconds[BESIDE], 95) / _ms(self.seconds[ALONE], 95)

    def missed(self) -> Iterator[str]:
        """Return which bars were missed."""
        yield from self.wrong[:20]
        if self.minutes < MINUTES_TO_JUDGE:
            return
        for what, seconds in self.seconds.items():
            if what in JUDGED and _ms(seconds, 99) > TAIL * _ms(seconds, 50):
                yield f"{what}: p99 is more than {TAIL} times p50"
        if self.growth > MEMORY_GROWTH:
            yield f"memory grew to {self.growth:.2f} times what it was"
        if self.slowed > BESIDE_BULK:
            yield f"beside a bulk upload, p95 is {self.slowed:.1f} times that alone"

    def markdown(self) -> str:
        """Return it as tables."""
        lines = ["| request | count | p50, ms | p95, ms | p99, ms | p99 / p50 |", "|---" * 6 + "|"]
        for what, seconds in sorted(self.seconds.items()):
            p50, p95, p99 = (_ms(seconds, each) for each in (50, 95, 99))
            lines.append(
                f"| {what} | {len(seconds)} | {p50:.1f} | {p95:.1f} | {p99:.1f} | {p99 / p50:.1f} |"
            )
        lines += ["", "| memory, MB | after warming up | at the end |", "|---|---|---|"]
        for part in self.memory[0]:
            warm, end = (each[part] for each in self.memory)
            lines.append(f"| {part} | {warm:.0f} | {end:.0f} |")
        lines += [
            "",
            f"{sum(self.statuses.values())} answers in {self.minutes:.1f} minutes, by status:"
            f" {dict(self.statuses)}; {len(self.wrong)} wrong. Memory: {self.growth:.2f} times."
            f" One account's searches, p95: {_ms(self.seconds[ALONE], 95):.1f} ms alone,"
            f" {_ms(self.seconds[BESIDE], 95):.1f} ms while another uploaded {self.bulk_rows}"
            f" texts and had them indexed ({self.slowed:.1f} times); building gave way by"
            f" {self.niceness}.",
        ]
        return "\n".join(lines)


def _ms(seconds: list[float], percent: float) -> float:
    return float(np.percentile(seconds, percent)) * 1_000


class Account:
    """One owner with a project."""

    def __init__(self, server: Armarium, handle: str) -> None:
        self.address = server.address
        self.place = f"{handle}/soak"
        self.key = server.add_account(handle)
        self._make(
            "PUT",
            f"/v1/llm-services/{handle}/small",
            {
                "endpoint": "https://embeddings.example/v1",
                "api_standard": "openai",
                "model": "small",
                "dimensions": DIMENSIONS,
            },
        )
        self._make(
            "POST",
            f"/v1/projects/{handle}",
            {"project_handle": "soak", "instance_owner": handle, "instance_handle": "small"},
        )

    def connection(self) -> Connection:
        """Return a new connection with this account's key."""
        return Connection(self.address, key=self.key)

    def _make(self, method: str, path: str, body: Any) -> None:
        with self.connection() as connection:
            answer = connection.request(method, path, as_json(body))
        if answer.status != 201:
            raise Refused(f"{method} {path}", answer)


class Client:
    """Somebody who does all there is to do with texts of their own, and checks what comes back."""

    def __init__(self, account: Account, number: int, report: Report) -> None:
        self._report = report
        self._place = account.place
        self._connection = account.connection()
        self._name = f"client-{number}"
        self._random = random.Random(number)
        self._numbers = np.random.default_rng(number)
        self._vectors: dict[str, np.ndarray] = {}
        self._count = 0

    def step(self) -> None:
        """Do one thing."""
        if len(self._vectors) < ROWS_OF_A_CLIENT // 2:
            return self._upload()
        much = len(self._vectors) >= ROWS_OF_A_CLIENT
        work: list[Callable[[], None]] = [self._delete if much else self._upload, self._replace]
        work += [self._search, self._search, self._search, self._search_text]
        work += [self._search_words, self._list, self._delete]
        return self._random.choice(work)()

    def _ask(self, what: str, method: str, path: str, body: Body | None = None) -> Any:
        began = time.perf_counter()
        answer = self._connection.request(method, path, body)
        self._report.note(what, time.perf_counter() - began, answer)
        return answer.json() if answer.status < 300 else None

    def _item(self, text_id: str) -> dict[str, Any]:
        vector = self._numbers.normal(size=DIMENSIONS).astype(np.float32)
        self._vectors[text_id] = vector
        return {
            "text_id": text_id,
            "instance_handle": "small",
            "vector": vector,
            "vector_dim": DIMENSIONS,
            "text": " ".join(self._random.choices(WORDS, k=12)),
            "metadata": {"client": self._name},
        }

    def _upload(self) -> None:
        ids = [f"{self._name}/{self._count + number}" for number in range(BATCH)]
        self._count += BATCH
        body = as_json({"embeddings": [self._item(each) for each in ids]})
        self._ask("upload", "POST", f"/v1/embeddings/{self._place}", body)

    def _replace(self) -> None:
        text_id = self._any()
        self._ask("replace", "PUT", self._path(text_id), as_json(self._item(text_id)))

    def _delete(self) -> None:
        for _ in range(3):
            text_id = self._any()
            del self._vectors[text_id]
            self._ask("delete", "DELETE", self._path(text_id))

    def _search(self, what: str = SEARCH) -> None:
        text_id = self._any()
        body = as_json({"vector": self._vectors[text_id]})
        found = self._ask(what, "POST", f"/v1/similars/{self._place}", body)
        self._check("by vector", found, first=text_id)

    def _search_text(self) -> None:
        text_id = self._any()
        path = f"/v1/similars/{self._place}/{quote(text_id, safe='')}?threshold=0"
        found = self._ask("search by stored text", "GET", path)
        self._check("by stored text", found, without=text_id)

    def _search_words(self) -> None:
        path = f"/v1/similars/{self._place}?mode=text&q={self._random.choice(WORDS)}"
        found = self._ask("search by words", "GET", path)
        self._check("by words", found, score="score")

    def _list(self) -> None:
        page = self._ask("list", "GET", f"/v1/embeddings/{self._place}?limit=50")
        if page is not None:
            ids = [each["text_id"] for each in page["embeddings"]]
            if len(set(ids)) != min(50, page["total_count"]):
                self._report.say_wrong(f"list: {len(set(ids))} texts of {page['total_count']}")

    def _check(
        self,
        what: str,
        found: Any,
        *,
        first: str | None = None,
        without: str | None = None,
        score: str = "similarity",
    ) -> None:
        if found is None:
            return
        ids = [each["id"] for each in found["results"]]
        scores = [each[score] for each in found["results"] if score in each]
        if not ids:
            self._report.say_wrong(f"{what}: nothing was found in {self._place}")
        elif first is not None and ids[0] != first:
            self._report.say_wrong(f"{what}: {first} does not find itself, but {ids[0]}")
        elif without in ids or len(set(ids)) < len(ids):
            self._report.say_wrong(f"{what}: {ids}")
        elif scores != sorted(scores, reverse=True):
            self._report.say_wrong(f"{what}: not in order: {scores}")

    def _any(self) -> str:
        return self._random.choice(list(self._vectors))

    def _path(self, text_id: str) -> str:
        return f"/v1/embeddings/{self._place}/{quote(text_id, safe='')}"


@contextmanager
def _repeated(step: Callable[[], None], report: Report) -> Iterator[None]:
    """Do something again and again in a thread, until the block ends."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.is_set():
            try:
                step()
            except (OSError, ValueError, KeyError) as error:
                report.say_wrong(f"{type(error).__name__}: {error}")
                return

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def soak(server: Armarium, *, minutes: float, clients: int) -> Report:
    """Load a server that runs for so many minutes, and as long again for what comes before."""
    report = Report(minutes)
    accounts = [Account(server, f"tenant-{number}") for number in range(ACCOUNTS)]
    everybody = [Client(accounts[number % ACCOUNTS], number, report) for number in range(clients)]
    _beside_bulk(server, accounts, report, seconds=minutes * 60 / 6)
    _mixed(everybody, server, report, seconds=minutes * 60)
    return report


def _mixed(everybody: list[Client], server: Armarium, report: Report, *, seconds: float) -> None:
    ended = time.monotonic() + seconds
    with _all(everybody, report):
        time.sleep(seconds * WARM_UP_SHARE)
        report.memory.append(server.memory_of_parts_mb())
        time.sleep(max(0, ended - time.monotonic()))
        report.memory.append(server.memory_of_parts_mb())


@contextmanager
def _all(everybody: list[Client], report: Report) -> Iterator[None]:
    if not everybody:
        yield
        return
    with _repeated(everybody[0].step, report), _all(everybody[1:], report):
        yield


def _beside_bulk(
    server: Armarium, accounts: list[Account], report: Report, *, seconds: float
) -> None:
    """Search one account's texts, alone and while another account uploads a lot."""
    small, bulk = Client(accounts[0], 1_000, report), accounts[-1]
    for _ in range(ROWS_OF_A_CLIENT // BATCH):
        small._upload()
    _search_for(small, ALONE, seconds)
    numbers = np.random.default_rng(0)
    with bulk.connection() as connection:

        def upload() -> None:
            items = [
                {
                    "text_id": f"bulk/{report.bulk_rows + number}",
                    "instance_handle": "small",
                    "vector": numbers.normal(size=DIMENSIONS).astype(np.float32),
                    "vector_dim": DIMENSIONS,
                    "text": " ".join(random.choices(WORDS, k=12)),
                    "metadata": {},
                }
                for number in range(BULK_ROWS)
            ]
            answer = connection.request(
                "POST", f"/v1/embeddings/{bulk.place}", as_json({"embeddings": items})
            )
            report.statuses[answer.status] += 1
            if answer.status != 201:
                report.say_wrong(f"bulk upload: {answer.status} {answer.body[:300]!r}")
            report.bulk_rows += BULK_ROWS

        def watch() -> None:
            report.niceness = max(report.niceness, _niceness(server))
            time.sleep(0.1)

        with _repeated(upload, report), _repeated(watch, report):
            _search_for(small, BESIDE, seconds)


def _search_for(client: Client, what: str, seconds: float) -> None:
    ended = time.monotonic() + seconds
    while time.monotonic() < ended:
        client._search(what)


def _niceness(server: Armarium) -> int:
    """Return how far the politest process of the database gives way."""
    found = 0
    cluster = str(server.folder / "data" / "postgres")
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.name() == "postgres" and process.cwd() == cluster:
                found = max(found, process.nice())
    return found


@contextmanager
def running() -> Iterator[Armarium]:
    """Run a server with indexes from some hundred texts on."""
    with tempfile.TemporaryDirectory(prefix="armarium-soak-") as folder:
        settings = {"ARMARIUM_INDEX_THRESHOLD": str(INDEXED_FROM_ROWS * DIMENSIONS)}
        server = Armarium(Path(folder), settings)
        try:
            yield server
        finally:
            server.close()


def main() -> int:
    """Run and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of mixed load (10)")
    parser.add_argument("--clients", type=int, default=8, help="at once (8)")
    options = parser.parse_args()
    with running() as server:
        report = soak(server, minutes=options.minutes, clients=options.clients)
    print(report.markdown())
    missed = list(report.missed())
    print("", *(f"- missed: {each}" for each in missed), sep="\n")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())

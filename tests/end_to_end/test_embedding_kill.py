"""Accepted texts are embedded once, also when processes are killed in the middle of it."""

import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.end_to_end.harness import Armarium, wait_for
from tests.llm_services.providers.servers import (
    DIALECTS,
    DIMENSIONS,
    Received,
    Reply,
    Server,
    serving,
)

TEXTS = 5_000
# Requests that are under way at once, and texts of each.
REQUESTS, TEXTS_OF_ONE = 4, 128
# Texts that the built-in model makes the vectors of at once.
LOT = 16
NOTES = "alice/notes"
# Whoever is killed may have had an answer for so long without having kept it.
KEPT_WITHIN_S = 0.25


class CountingServer(Server):
    """Speaks OpenAI's protocol, remembers when it was asked for which texts, and works once.

    A request with an Idempotency-Key that it has seen gets the answer that it has kept.

    asked: when each text was asked for. worked: how often each was embedded.
    """

    def __init__(self) -> None:
        super().__init__(DIALECTS["openai"])
        self.delay_s = 0.1
        self.asked: list[tuple[float, str]] = []
        self.worked: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.kept: dict[str, tuple[Any, Reply]] = {}

    def answer(self, request: Received) -> Reply:
        """Return the vectors."""
        key, texts = request.headers["idempotency-key"], request.body["input"]
        now = time.monotonic()
        with self.lock:
            self.asked += [(now, text) for text in texts]
            self.requests[key] += 1
            kept = self.kept.get(key)
        if kept is not None:
            body, reply = kept
            if body != request.body:
                self.complaints.append(f"Another request with the key {key}.")
            return reply
        reply = super().answer(request)
        with self.lock:
            self.worked.update(texts)
            self.kept[key] = request.body, reply
        return reply


@pytest.fixture
def provider() -> Iterator[CountingServer]:
    with serving(CountingServer()) as server:
        assert isinstance(server, CountingServer)
        yield server


@pytest.fixture
def armarium(tmp_path: Path, provider: CountingServer) -> Iterator[Armarium]:
    one = Armarium(
        tmp_path / "data",
        ARMARIUM_ALLOWED_PRIVATE_ENDPOINTS=provider.host,
        ARMARIUM_WORKER_HEARTBEAT_S="1",
    ).migrated()
    one.start()
    yield one
    one.kill_everything()


def prepare(armarium: Armarium, provider: CountingServer) -> str:
    """Make the owner, and a project on the provider; return the owner's key."""
    _, user = armarium.request("POST", "/v1/users", {"user_handle": "alice"})
    key = str(user["embapi_key"])
    instance = {
        "instance_handle": "small",
        "endpoint": provider.url,
        "api_standard": "openai",
        "model": "small",
        "dimensions": DIMENSIONS,
        "api_key": provider.key,
    }
    project = {"project_handle": "notes", "instance_owner": "alice", "instance_handle": "small"}
    for path, body in (("/v1/llm-services/alice", instance), ("/v1/projects/alice", project)):
        status, answer = armarium.request("POST", path, body, key=key)
        assert status == 201, answer
    return key


def worker(armarium: Armarium) -> psutil.Process:
    (found,) = [each for each in armarium.processes() if "config.worker" in each.cmdline()]
    return found


@pytest.mark.slow
def test_no_text_is_lost_or_embedded_twice_when_everything_is_killed(
    armarium: Armarium, provider: CountingServer
) -> None:
    key = prepare(armarium, provider)
    items = [{"text_id": f"t{number}", "text": f"Text {number}"} for number in range(TEXTS)]
    path = f"/v1/embeddings/{NOTES}"
    status, job = armarium.request("POST", path, {"embeddings": items}, key=key)
    assert status == 202, job
    in_flight: list[tuple[float, float]] = []

    def kill(how: Any, after: int) -> None:
        wait_for(lambda: len(provider.asked) >= after, f"{after} texts")
        began = time.monotonic()
        how()
        # What was being answered then goes to nobody.
        time.sleep(2 * provider.delay_s)
        in_flight.append((began - KEPT_WITHIN_S, time.monotonic()))

    kill(armarium.kill_everything, 1_200)
    assert len(provider.asked) < TEXTS
    armarium.start()
    kill(lambda: worker(armarium).kill(), 3_000)

    def shown() -> Any:
        where = f"/v1/projects/{NOTES}/embedding-jobs/{job['id']}"
        return armarium.request("GET", where, key=key)[1]

    wait_for(lambda: shown()["state"] not in {"waiting", "running"}, "the end", timeout_s=60)
    ended = shown()
    assert (ended["state"], ended["done"], ended["failed"]) == ("finished", TEXTS, 0)
    _, page = armarium.request("GET", f"{path}?limit=1", key=key)
    assert page["total_count"] == TEXTS

    # No text whose answer had come is asked for again: only what was under way at a kill is.
    times = Counter(text for _, text in provider.asked)
    assert set(times) == {each["text"] for each in items}
    unlucky = {
        text
        for when, text in provider.asked
        if any(begin <= when <= end for begin, end in in_flight)
    }
    twice = {text for text, count in times.items() if count > 1}
    assert twice <= unlucky
    assert max(times.values()) <= 1 + len(in_flight)
    assert len(twice) <= len(in_flight) * REQUESTS * TEXTS_OF_ONE
    # It is asked for by the same requests, which a provider that knows their keys does not work at
    # a second time.
    assert provider.complaints == []
    assert provider.requests.total() - len(provider.requests) <= len(in_flight) * REQUESTS
    assert provider.worked == Counter(dict.fromkeys(times, 1))


@pytest.mark.slow
def test_the_builtin_model_makes_nothing_twice_but_what_was_under_way(tmp_path: Path) -> None:
    armarium = Armarium(
        tmp_path / "data", ARMARIUM_LOG_LEVEL="DEBUG", ARMARIUM_WORKER_HEARTBEAT_S="1"
    )
    armarium.start()
    try:
        _embed_while_killing(armarium, texts=400)
    finally:
        armarium.kill_everything()


def _embed_while_killing(armarium: Armarium, *, texts: int) -> None:
    _, user = armarium.request("POST", "/v1/users", {"user_handle": "alice"})
    key = str(user["embapi_key"])
    project = {"project_handle": "notes", "instance_owner": "_system", "instance_handle": "builtin"}
    assert armarium.request("POST", "/v1/projects/alice", project, key=key)[0] == 201
    # So many characters that a request does not wait for them.
    items = [
        {"text_id": f"t{number}", "text": f"Text {number} of a long day. " * 12}
        for number in range(texts)
    ]
    path = f"/v1/embeddings/{NOTES}"
    status, job = armarium.request("POST", path, {"embeddings": items}, key=key)
    assert status == 202, job

    def made() -> int:
        """Return how many texts the model was given, in all runs."""
        return sum(map(int, re.findall(r"event=embedding_texts.* texts=(\d+)", armarium.output())))

    def shown() -> Any:
        where = f"/v1/projects/{NOTES}/embedding-jobs/{job['id']}"
        return armarium.request("GET", where, key=key)[1]

    wait_for(lambda: made() >= texts // 4, "a quarter", timeout_s=60)
    armarium.kill_everything()
    armarium.start()
    wait_for(lambda: made() >= texts // 2, "a half", timeout_s=60)
    worker(armarium).kill()
    wait_for(lambda: shown()["state"] == "finished", "the end", timeout_s=240)
    assert (shown()["done"], shown()["failed"]) == (texts, 0)
    _, page = armarium.request("GET", f"{path}?limit=1", key=key)
    assert page["total_count"] == texts
    assert texts <= made() <= texts + 2 * LOT

"""Accepted texts are embedded once, also when processes are killed in the middle of it."""

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
NOTES = "alice/notes"
# Whoever is killed may have had an answer for so long without having kept it.
KEPT_WITHIN_S = 0.25


class CountingServer(Server):
    """Speaks OpenAI's protocol, and remembers when it embedded which texts."""

    def __init__(self) -> None:
        super().__init__(DIALECTS["openai"])
        self.delay_s = 0.1
        self.embedded: list[tuple[float, str]] = []

    def answer(self, request: Received) -> Reply:
        """Return the vectors."""
        reply = super().answer(request)
        now = time.monotonic()
        with self.lock:
            self.embedded += [(now, text) for text in request.body["input"]]
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
        wait_for(lambda: len(provider.embedded) >= after, f"{after} texts")
        began = time.monotonic()
        how()
        # What was being answered then goes to nobody.
        time.sleep(2 * provider.delay_s)
        in_flight.append((began - KEPT_WITHIN_S, time.monotonic()))

    kill(armarium.kill_everything, 1_200)
    assert len(provider.embedded) < TEXTS
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

    times = Counter(text for _, text in provider.embedded)
    assert set(times) == {each["text"] for each in items}
    unlucky = {
        text
        for when, text in provider.embedded
        if any(begin <= when <= end for begin, end in in_flight)
    }
    twice = {text for text, count in times.items() if count > 1}
    assert twice <= unlucky
    assert max(times.values()) <= 1 + len(in_flight)
    # Four requests of 128 texts at most are under way.
    assert len(twice) <= len(in_flight) * 4 * 128

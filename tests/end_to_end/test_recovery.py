"""A recovery of the embedded database that takes long is waited for, and nobody is told "ready".

The recovery is PostgreSQL's own, and takes as long as the test likes: it is told to ask an archive
for more of its log, and the archive lets it wait. That shows what happens while a server recovers,
not how long a large log takes.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.harness import Armarium, wait_for
from tests.end_to_end.test_kill import PROJECT, embedding, prepare

# A start that gives up does so after ten seconds: that is pg_ctl's patience.
LONGER_THAN_S = 11
# PostgreSQL runs commands in the cluster's folder.
SLOW_ARCHIVE = """
hot_standby = off
restore_command = 'while test -e archive-is-slow; do sleep 0.1; done; false'
"""


@pytest.fixture
def armarium(tmp_path: Path) -> Iterator[Armarium]:
    one = Armarium(tmp_path / "data").migrated()
    one.start("--no-demo", "--no-worker")
    yield one
    (one.data_dir / "postgres" / "archive-is-slow").unlink(missing_ok=True)
    one.kill_everything()


def stored(armarium: Armarium, key: str) -> int:
    status, page = armarium.request("GET", f"/v1/embeddings/{PROJECT}?limit=1", key=key)
    assert status == 200, page
    return int(page["total_count"])


def filled(armarium: Armarium) -> str:
    """Store something that only the log of the database holds; return its owner's key."""
    key = prepare(armarium)
    body = {"embeddings": [embedding(f"kept/{number}") for number in range(100)]}
    status, answer = armarium.request("POST", f"/v1/embeddings/{PROJECT}", body, key=key)
    assert status == 201, answer
    return key


def slow_down(armarium: Armarium) -> Path:
    """Have the next recovery wait until the returned file is removed."""
    cluster = armarium.data_dir / "postgres"
    with (cluster / "armarium.conf").open("a") as settings:
        settings.write(SLOW_ARCHIVE)
    (cluster / "recovery.signal").touch()
    gate = cluster / "archive-is-slow"
    gate.touch()
    return gate


@pytest.mark.slow
def test_a_server_says_that_it_is_not_ready_while_its_database_recovers(
    armarium: Armarium,
) -> None:
    key = filled(armarium)
    process = armarium.process
    gate = slow_down(armarium)
    server = armarium.postmaster()
    assert server is not None
    server.kill()
    wait_for(lambda: armarium.request("GET", "/readyz")[0] == 503, "not ready")
    began = time.monotonic()
    while time.monotonic() - began < LONGER_THAN_S:
        status, problem = armarium.request("GET", "/readyz")
        assert (status, problem["type"]) == (503, "urn:armarium:problem:unavailable")
        assert armarium.request("GET", "/healthz")[0] == 200
        status, _ = armarium.request("GET", f"/v1/embeddings/{PROJECT}", key=key)
        assert status == 503
        time.sleep(0.25)
    gate.unlink()
    wait_for(armarium.is_ready, "ready again")
    assert stored(armarium, key) == 100
    assert process is not None
    assert process.poll() is None
    # It was waited for, and not started over and over.
    assert armarium.output().count("The database server has gone") == 1


@pytest.mark.slow
def test_a_start_waits_for_the_recovery_and_serves_nobody_before(armarium: Armarium) -> None:
    key = filled(armarium)
    armarium.kill_everything()
    gate = slow_down(armarium)
    process = armarium.launch()

    def has_waited_long() -> bool:
        assert process.poll() is None, armarium.output()
        assert not armarium.is_ready()
        return "Waiting for the database (10 s)" in armarium.output()

    wait_for(has_waited_long, "ten seconds of waiting", timeout_s=60)
    gate.unlink()
    wait_for(armarium.is_ready, "ready")
    assert stored(armarium, key) == 100

"""The next release brings the database up to date while the one before keeps serving."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from config.embedded_postgres import EmbeddedPostgres
from tests.end_to_end.harness import ROOT, Armarium, wait_for
from tests.end_to_end.test_kill import PROJECT, Ledger, Load, check, prepare

LOCK_TIMEOUT_S = 5
# Processes start slowly where others use the machine, too.
PATIENCE_S = 90
patiently = partial(wait_for, timeout_s=PATIENCE_S)
APPLIED = "SELECT name FROM django_migrations WHERE app = 'next_release' ORDER BY id"
ALL = ["0001_column", "0002_filled", "0003_index"]
# What the second migration waits for, as if it had much to do.
GATE = 4242
FILLING = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO %WHILE NOT%'"


@pytest.fixture
def armarium(tmp_path: Path) -> Iterator[Armarium]:
    one = Armarium(tmp_path / "data").migrated()
    one.start("--no-demo", "--no-worker")
    yield one
    one.kill_everything()


@pytest.fixture
def database(armarium: Armarium) -> Iterator[psycopg.Connection]:
    """Return a session of somebody else in the same database."""
    place = EmbeddedPostgres(armarium.data_dir).connection_parameters()
    with psycopg.connect(
        host=place.host,
        port=place.port,
        user=place.user,
        password=place.password,
        dbname=place.dbname,
        autocommit=True,
    ) as session:
        yield session


def asked(database: psycopg.Connection, query: LiteralString) -> list[Any]:
    return [row[0] for row in database.execute(query)]


class Migration:
    """`manage.py migrate` of the next release, as a process of its own."""

    def __init__(self, armarium: Armarium) -> None:
        self._log = armarium.data_dir.with_name(f"migration-{time.monotonic_ns()}.log")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "migrate", "--verbosity", "0"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    **armarium.environment,
                    "DJANGO_SETTINGS_MODULE": "tests.end_to_end.next_release.settings",
                },
                cwd="/",
            )

    def says(self, words: str) -> bool:
        assert self.process.poll() is None, self.output()
        return words in self.output()

    def output(self) -> str:
        return self._log.read_text()


@contextmanager
def watched_search(armarium: Armarium, key: str) -> Iterator[list[float]]:
    """Search again and again; collect the seconds that each answer took."""
    took: list[float] = []
    refused: list[object] = []
    ended = threading.Event()

    def search() -> None:
        while not ended.wait(0.02):
            began = time.monotonic()
            body = {"vector": [1] * 16}
            status, answer = armarium.request("POST", f"/v1/similars/{PROJECT}", body, key=key)
            took.append(time.monotonic() - began)
            if status != 200:
                refused.append((status, answer))

    thread = threading.Thread(target=search)
    thread.start()
    try:
        yield took
    finally:
        ended.set()
        thread.join()
    assert refused == []


@pytest.mark.slow
def test_the_release_before_serves_while_two_processes_migrate_and_one_is_killed(
    armarium: Armarium, database: psycopg.Connection
) -> None:
    key = prepare(armarium)
    ledger = Ledger()
    with Load(armarium, key, ledger, 1), watched_search(armarium, key) as took:
        wait_for(lambda: len(ledger.batches) > 1, "the first batches")

        # Somebody reads for long; the migration lets everybody pass after its lock_timeout.
        with database.transaction():
            database.execute("SELECT 1 FROM projects_project LIMIT 1")
            database.execute("SELECT pg_advisory_lock(%s)", [GATE])
            first = Migration(armarium)
            wait_for(
                lambda: first.says("A table is locked by another session"), "giving way", PATIENCE_S
            )
            assert asked(database, APPLIED) == []
        second = Migration(armarium)
        wait_for(lambda: asked(database, FILLING) != [], "the long migration", PATIENCE_S)
        wait_for(
            lambda: second.says("Another process applies migrations"), "waiting in turn", PATIENCE_S
        )

        # Half of it is done: what is applied stays, what was being applied is undone.
        first.process.kill()
        first.process.wait()
        assert asked(database, APPLIED) == ALL[:1]
        database.execute("SELECT pg_advisory_unlock(%s)", [GATE])
        assert second.process.wait(timeout=PATIENCE_S) == 0, second.output()
        count = len(ledger.batches)
        wait_for(lambda: len(ledger.batches) > count + 1, "batches of the release before")

    assert asked(database, APPLIED) == ALL
    assert asked(database, "SELECT number FROM next_release_filled") == [1]
    assert set(ledger.statuses) <= {200, 201, 204}
    assert max(took) < LOCK_TIMEOUT_S + 2
    check(armarium, key, ledger)
    again = Migration(armarium)
    assert (again.process.wait(timeout=PATIENCE_S), again.output()) == (0, "")
    sys.stdout.write(f"{ledger.statuses}; the longest search took {max(took):.2f} s\n")

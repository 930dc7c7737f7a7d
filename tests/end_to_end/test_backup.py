"""Drills: a backup taken while clients write, restored elsewhere; a project that moves."""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.harness import Armarium, wait_for
from tests.end_to_end.test_kill import (
    BATCH,
    DIMENSIONS,
    PROJECT,
    Ledger,
    Load,
    check,
    prepare,
    stored_rows,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("backup"), pytest.mark.timeout(600)]

THRESHOLD_ROWS = 700
SETTINGS = {
    "ARMARIUM_INDEX_THRESHOLD": str(THRESHOLD_ROWS * DIMENSIONS),
    "ARMARIUM_WORKER_HEARTBEAT_S": "1",
}
PROVIDER_KEY = "sk-canary-of-the-provider-0123456789"


@dataclass
class World:
    """A server that was written to while it was saved, and saved again when it was quiet.

    before: what it had acknowledged when the first backup began.
    fingerprint: of the whole server at the second; of_project: of its project.
    """

    server: Armarium
    key: str
    folder: Path
    ledger: Ledger
    before: set[str]
    fingerprint: dict[str, str]
    of_project: dict[str, str]
    recall: float
    neighbours: Any

    def elsewhere(self, name: str) -> Armarium:
        """Return an installation that holds nothing."""
        return Armarium(self.folder / name, **SETTINGS)


def ran(one: Armarium, *arguments: str, code: int = 0) -> str:
    """Run a command; return what it printed, or why it refused."""
    done = one.manage(*arguments)
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout if code == 0 else done.stderr


def answer(one: Armarium, *arguments: str) -> Any:
    """Run a command that prints JSON."""
    return json.loads(ran(one, *arguments, "--json"))


def recall_of(one: Armarium, key: str) -> float:
    status, compared = one.request("POST", f"/v1/similars/{PROJECT}/recall?queries=100", key=key)
    assert status == 200, compared
    assert compared["plans"].get("hnsw", 0) > 0, compared
    return float(compared["recall"])


def neighbours_of(one: Armarium, key: str, text_id: str) -> Any:
    path = f"/v1/similars/{PROJECT}/{text_id.replace('/', '%2F')}?count=10"
    status, found = one.request("GET", path, key=key)
    assert status == 200, found
    return found["results"]


def is_indexed(one: Armarium, key: str) -> bool:
    found = one.request("GET", f"/v1/projects/{PROJECT}/index", key=key)[1]
    return found["state"] == "indexed" and found["progress"] is None


def fill(one: Armarium, key: str) -> None:
    """Have something of everything besides embeddings."""
    for handle in ("erin", "rita"):
        assert one.request("POST", "/v1/users", {"user_handle": handle})[0] == 201
    for handle, role in (("erin", "editor"), ("rita", "reader")):
        shared = {"share_with_handle": handle, "role": role}
        assert one.request("POST", f"/v1/projects/{PROJECT}/share", shared, key=key)[0] in {
            200,
            201,
        }
    secret = {"api_key": PROVIDER_KEY}
    assert one.request("PATCH", "/v1/llm-services/alice/small", secret, key=key)[0] == 200
    for number in range(3):
        file = {"name": f"letter {number}.txt", "content": "RGVhciBCb2I=", "project": "killed"}
        status, stored = one.request("POST", "/files", file, key=key)
        assert status == 201, stored
    agent = {"name": "Scribe", "instructions": ["Be kind"], "project": "killed"}
    assert one.request("POST", "/agents", agent, key=key)[0] == 201


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Save a server twice: under a load, and when it was quiet."""
    folder = tmp_path_factory.mktemp("backup")
    one = Armarium(folder / "data", **SETTINGS)
    try:
        one.start("--no-demo", "--workers", "1")
        key = prepare(one)
        fill(one, key)
        ledger = Ledger()
        with Load(one, key, ledger, 1):
            wait_for(lambda: len(ledger.stored) > 2 * THRESHOLD_ROWS, "some batches", 60)
            with ledger.lock:
                before = set(ledger.stored)
            said = ran(one, "backup", str(folder / "busy"))
            during = len(ledger.stored) - len(before)
        assert "is not in it" in said
        assert during > 0, "nobody wrote during the backup"
        check(one, key, ledger)
        wait_for(lambda: is_indexed(one, key), "an index", 90)
        recall = recall_of(one, key)
        neighbours = neighbours_of(one, key, "updated/1")
        # The worker is still: it may move rows, which is no change, but let it be one state.
        assert one.terminate()[0] == 0
        fingerprint = answer(one, "fingerprint")
        of_project = answer(one, "fingerprint", PROJECT)
        made = answer(one, "backup", str(folder / "quiet"), "--with-keys")
        assert made["files"] == 3
        assert made["lacking_files"] == []
        yield World(one, key, folder, ledger, before, fingerprint, of_project, recall, neighbours)
    finally:
        one.kill_everything()


def test_a_backup_taken_under_load_holds_what_was_acknowledged(world: World) -> None:
    other = world.elsewhere("busy-restored")
    try:
        restored = answer(other, "restore", str(world.folder / "busy"))
        assert restored["checked"] is True
        assert (restored["files"], restored["damaged_files"]) == (3, [])
        # The key of the ring stayed behind: what it sealed cannot be read, all else can.
        assert restored["locked_keys"] == 1
        other.start("--no-demo", "--workers", "1")
        rows = stored_rows(other, world.key)
        ledger = world.ledger
        gone = ledger.deleted | ledger.unsure_deleted
        assert not world.before - rows.keys() - gone
        for ids in ledger.batches:
            left = [text_id for text_id in ids if text_id not in gone]
            present = sum(text_id in rows for text_id in left)
            assert present in (0, len(left)), f"{present} of {BATCH} rows of a batch"
        assert other.terminate()[0] == 0
    finally:
        other.kill_everything()


def test_a_quiet_server_comes_back_as_it_was(world: World) -> None:
    other = world.elsewhere("quiet-restored")
    try:
        began = time.monotonic()
        restored = answer(other, "restore", str(world.folder / "quiet"))
        took = time.monotonic() - began
        assert restored["checked"] is True
        assert (restored["locked_keys"], restored["upgraded"]) == (0, [])
        assert answer(other, "fingerprint") == world.fingerprint
        assert answer(other, "fingerprint", PROJECT) == world.of_project
        other.start("--no-demo", "--workers", "1")
        assert neighbours_of(other, world.key, "updated/1") == world.neighbours
        # Other queries are drawn each time.
        assert recall_of(other, world.key) == pytest.approx(world.recall, abs=0.03)
        check(other, world.key, world.ledger)
        assert other.terminate()[0] == 0
        assert "holds a database already" in ran(
            other, "restore", str(world.folder / "quiet"), code=2
        )
        sys.stdout.write(f"restored in {took:.1f} s, recall {world.recall:.3f}\n")
    finally:
        other.kill_everything()


def test_a_dump_comes_back_as_it_was(world: World) -> None:
    other = world.elsewhere("dump-restored")
    try:
        ran(world.server, "backup", str(world.folder / "dump"), "--format", "dump")
        restored = answer(other, "restore", str(world.folder / "dump"))
        assert restored["checked"] is True
        assert answer(other, "fingerprint") == world.fingerprint
    finally:
        other.kill_everything()


def test_keys_are_only_in_a_backup_that_was_asked_for_them(world: World) -> None:
    secret = (world.server.data_dir / "secrets" / "encryption_key").read_bytes()
    busy, quiet = world.folder / "busy", world.folder / "quiet"
    assert not any(secret in each.read_bytes() for each in busy.rglob("*") if each.is_file())
    assert (quiet / "secrets" / "encryption_key").read_bytes() == secret
    for folder in (busy, quiet):
        for each in folder.rglob("*"):
            assert each.stat().st_mode & 0o077 == 0, each
            assert not each.is_file() or PROVIDER_KEY.encode() not in each.read_bytes()


@pytest.mark.parametrize("place", ["files", "database/base", "database/pg_wal"])
def test_a_damaged_backup_is_refused_and_the_file_named(
    world: World, place: str, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(world.folder / "quiet", damaged)
    assert "good" in ran(world.server, "verifybackup", str(damaged))
    victim = max(
        (each for each in (damaged / place).rglob("*") if each.is_file()),
        key=lambda each: each.stat().st_size,
    )
    content = bytearray(victim.read_bytes())
    content[10] ^= 1
    victim.write_bytes(content)
    refusal = ran(world.server, "verifybackup", str(damaged), code=1)
    assert victim.name in refusal or place == "database/pg_wal", refusal
    other = Armarium(tmp_path / "other", **SETTINGS)
    assert "damaged" in ran(other, "restore", str(damaged), code=2)
    assert not (other.data_dir / "postgres").exists()
    assert not (other.data_dir / "files").exists()


def test_nothing_is_left_of_a_backup_that_fails(world: World, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    assert "is not empty" in ran(world.server, "backup", str(taken), code=2)
    inside = world.server.data_dir / "backup"
    assert "data directory" in ran(world.server, "backup", str(inside), code=2)
    (world.server.data_dir / "postgres" / "unreadable").mkdir()
    assert [each.name for each in tmp_path.iterdir()] == ["taken"]
    (world.server.data_dir / "postgres" / "unreadable").rmdir()


def test_a_project_moves_to_another_server(world: World, tmp_path: Path) -> None:
    archive = tmp_path / "letters.zip"
    exported = answer(world.server, "exportproject", PROJECT, str(archive))
    assert exported["fingerprint"] == world.of_project
    other = world.elsewhere("moved")
    try:
        ran(other, "migrate", "--verbosity", "0")
        for handle in ("alice", "erin"):
            ran(other, "createowner", handle)
        imported = answer(other, "importproject", str(archive))
        assert imported["not_granted"] == [{"user_handle": "rita", "role": "reader"}]
        here = answer(other, "fingerprint", PROJECT)
        assert here.pop("grants") != world.of_project["grants"]
        assert here == {name: each for name, each in world.of_project.items() if name != "grants"}
        ran(other, "tendindexes")
        other.start("--no-demo", "--workers", "1")
        found = [each["id"] for each in neighbours_of(other, _key(other), "updated/1")]
        assert found == [each["id"] for each in world.neighbours]
        assert recall_of(other, _key(other)) == pytest.approx(world.recall, abs=0.03)
    finally:
        other.kill_everything()


def _key(one: Armarium) -> str:
    return one.environment["ARMARIUM_ADMIN_KEY"]


def test_data_of_an_older_release_is_upgraded(tmp_path: Path) -> None:
    old, new = Armarium(tmp_path / "old"), Armarium(tmp_path / "new")
    try:
        # The last step of the application with most of them is what this release adds.
        ran(old, "migrate", "--verbosity", "0", "llm_services")
        ran(old, "migrate", "--verbosity", "0", "resources")
        ran(old, "migrate", "--verbosity", "0", "embeddings", "0005")
        for app in ("procrastinate", "sessions", "admin", "axes", "common"):
            ran(old, "migrate", "--verbosity", "0", app)
        ran(old, "createowner", "alice")
        insert = (
            "from django.db import connection; from projects.models import Project;"
            " p = Project.objects.get(owner__handle='alice');"
            " connection.cursor().execute('INSERT INTO embeddings_embedding (segment, project_id,"
            " instance_id, id, text_id, vector, text, metadata) VALUES (0, %s, %s,"
            " gen_random_uuid(), %s, array_fill(0.5, ARRAY[512])::vector, %s, %s)',"
            " [p.pk, p.instance_id, 'old', 'Dear Bob', '{}'])"
        )
        ran(old, "shell", "--no-imports", "-c", insert)
        ran(old, "backup", str(tmp_path / "saved"))
        restored = answer(new, "restore", str(tmp_path / "saved"))
        assert "embeddings.0006_models_and_reembedding" in restored["upgraded"]
        assert restored["embeddings"] == 1
        new.start("--no-demo", "--workers", "1")
        status, found = new.request("GET", "/v1/embeddings/alice/default/old")
        assert (status, found["text"]) == (200, "Dear Bob")
        assert new.terminate()[0] == 0
        # And back: the backup is as it was, for the release that made it.
        assert "good" in ran(old, "verifybackup", str(tmp_path / "saved"))
    finally:
        old.kill_everything()
        new.kill_everything()

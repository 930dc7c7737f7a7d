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

from config.backup import Damaged, verify_backup
from tests.end_to_end.harness import Armarium, wait_for
from tests.end_to_end.test_kill import (
    BATCH,
    DIMENSIONS,
    PROJECT,
    Ledger,
    Load,
    prepare,
    stored_rows,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("backup"), pytest.mark.timeout(600)]

THRESHOLD_ROWS = 700
SETTINGS: dict[str, Any] = {
    "ARMARIUM_INDEX_THRESHOLD": str(THRESHOLD_ROWS * DIMENSIONS),
    "ARMARIUM_WORKER_HEARTBEAT_S": "1",
}
PROVIDER_KEY = "sk-canary-of-the-provider-0123456789"
# A database that lacks the last step of the application with most of them, and what is in it.
OLDER_RELEASE = """
from django.core.management import call_command
call_command("migrate", "embeddings", "0005", verbosity=0)
for app in ("accounts", "resources", "common", "procrastinate", "sessions", "admin", "axes"):
    call_command("migrate", app, verbosity=0)
call_command("migrate", "llm_services", verbosity=0)
call_command("createowner", "alice")
from django.db import connection
from projects.models import Project
project = Project.objects.get(owner__handle="alice")
with connection.cursor() as cursor:
    cursor.execute(
        "INSERT INTO embeddings_embedding"
        " (segment, project_id, instance_id, id, text_id, vector, text, metadata)"
        " VALUES (0, %s, %s, gen_random_uuid(), 'old', array_fill(0.5, ARRAY[512])::vector,"
        " 'Dear Bob', '{}')",
        [project.pk, project.instance_id],
    )
call_command("backup", FOLDER)
"""


@dataclass
class World:
    """A server that was saved while it was written to, and again when it was quiet.

    before: what it had acknowledged when the first backup began.
    fingerprint: of the whole server at the second.
    exported: what `exportproject` said of its project, in `letters.zip`.
    """

    server: Armarium
    key: str
    folder: Path
    ledger: Ledger
    before: set[str]
    fingerprint: dict[str, str]
    exported: dict[str, Any]
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


def recall_of(one: Armarium, key: str, project: str = PROJECT) -> float:
    status, compared = one.request("POST", f"/v1/similars/{project}/recall?queries=100", key=key)
    assert status == 200, compared
    assert compared["plans"].get("hnsw", 0) > 0, compared
    return float(compared["recall"])


def neighbours_of(one: Armarium, key: str, text_id: str, project: str = PROJECT) -> Any:
    path = f"/v1/similars/{project}/{text_id.replace('/', '%2F')}?count=10"
    status, found = one.request("GET", path, key=key)
    assert status == 200, found
    return found["results"]


def is_indexed(one: Armarium, key: str, project: str = PROJECT) -> bool:
    found = one.request("GET", f"/v1/projects/{project}/index", key=key)[1]
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


class Clients(Load):
    """Clients that leave something of the processor to the backup."""

    def _upload(self, client: int, number: int) -> None:
        super()._upload(client, number)
        time.sleep(0.1)


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
        with Clients(one, key, ledger, 1):
            wait_for(lambda: len(ledger.stored) > 2 * THRESHOLD_ROWS, "some batches", 60)
            with ledger.lock:
                before = set(ledger.stored)
            said = ran(one, "backup", str(folder / "busy"))
            during = len(ledger.stored) - len(before)
        assert "is not in it" in said
        assert during > 0, "nobody wrote during the backup"
        assert ledger.unexpected == []
        wait_for(lambda: is_indexed(one, key), "an index", 90)
        recall = recall_of(one, key)
        neighbours = neighbours_of(one, key, "updated/1")
        fingerprint = answer(one, "fingerprint")
        exported = answer(one, "exportproject", PROJECT, str(folder / "letters.zip"))
        made = answer(one, "backup", str(folder / "quiet"), "--with-keys")
        assert (made["files"], made["lacking_files"]) == (3, [])
        noted = json.loads((one.data_dir / "last-backup.json").read_text())
        assert noted["folder"] == made["folder"] == str(folder / "quiet")
        yield World(one, key, folder, ledger, before, fingerprint, exported, recall, neighbours)
    finally:
        one.kill_everything()


@pytest.fixture(scope="module")
def busy(world: World) -> Iterator[Armarium]:
    """Restore what was saved under the load, on another machine as it were, and serve it."""
    other = world.elsewhere("busy-restored")
    try:
        restored = answer(other, "restore", str(world.folder / "busy"))
        assert restored["checked"] is True
        assert (restored["files"], restored["damaged_files"]) == (3, [])
        # The key of the ring stayed behind: what it sealed cannot be read, all else can.
        assert restored["locked_keys"] == 1
        ran(other, "rotateencryptionkey", "--erase-unreadable")
        other.start("--no-demo", "--workers", "1")
        yield other
        assert other.terminate()[0] == 0
    finally:
        other.kill_everything()


def test_a_backup_taken_under_load_holds_what_was_acknowledged(
    world: World, busy: Armarium
) -> None:
    rows = stored_rows(busy, world.key)
    ledger = world.ledger
    gone = ledger.deleted | ledger.unsure_deleted
    assert not world.before - rows.keys() - gone
    for ids in ledger.batches:
        left = [text_id for text_id in ids if text_id not in gone]
        present = sum(text_id in rows for text_id in left)
        assert present in (0, len(left)), f"{present} of {BATCH} rows of a batch"


def test_a_project_moves_to_another_server(world: World, busy: Armarium) -> None:
    """One of the same agents, so it goes to another account there."""
    archive = str(world.folder / "letters.zip")
    imported = answer(busy, "importproject", archive, "--as", "erin/moved")
    assert imported["not_granted"] == [{"user_handle": "erin", "role": "editor"}]
    there, here = dict(world.exported["fingerprint"]), dict(imported["fingerprint"])
    assert there.pop("grants") != here.pop("grants")
    assert here == there
    key = busy.environment["ARMARIUM_ADMIN_KEY"]
    wait_for(lambda: is_indexed(busy, key, "erin/moved"), "an index", 90)
    assert neighbours_of(busy, key, "updated/1", "erin/moved") == world.neighbours
    assert recall_of(busy, key, "erin/moved") == pytest.approx(world.recall, abs=0.03)


def test_a_quiet_server_comes_back_as_it_was(world: World) -> None:
    other = world.elsewhere("quiet-restored")
    try:
        restored = answer(other, "restore", str(world.folder / "quiet"))
        assert restored["checked"] is True
        assert (restored["locked_keys"], restored["upgraded"]) == (0, [])
        assert answer(other, "fingerprint") == world.fingerprint
        other.start("--no-demo", "--workers", "1")
        assert neighbours_of(other, world.key, "updated/1") == world.neighbours
        # Other queries are drawn each time.
        assert recall_of(other, world.key) == pytest.approx(world.recall, abs=0.03)
        assert other.terminate()[0] == 0
        sys.stdout.write(f"{restored['seconds']} s to restore, recall {world.recall:.3f}\n")
    finally:
        other.kill_everything()


def test_a_dump_comes_back_as_it_was(world: World) -> None:
    other = world.elsewhere("dump-restored")
    try:
        ran(world.server, "backup", str(world.folder / "dump"), "--format", "dump")
        assert answer(other, "restore", str(world.folder / "dump"))["checked"] is True
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


def test_a_damaged_backup_is_refused_and_the_file_named(world: World, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(world.folder / "quiet", damaged)
    verify_backup(damaged, on_progress=lambda *_: None)
    for place in ("files", "database/pg_wal", "database/base"):
        files = [each for each in (damaged / place).rglob("*") if each.is_file()]
        victim = max(files, key=lambda each: each.stat().st_size)
        whole = victim.read_bytes()
        victim.write_bytes(whole[:5] + bytes([whole[5] ^ 1]) + whole[6:])
        with pytest.raises(Damaged) as refused:
            verify_backup(damaged, on_progress=lambda *_: None)
        assert victim.name in str(refused.value)
        if place != "database/base":
            victim.write_bytes(whole)
    other = Armarium(tmp_path / "other", **SETTINGS)
    assert victim.name in ran(other, "restore", str(damaged), code=2)
    assert not (other.data_dir / "postgres").exists()
    assert not (other.data_dir / "files").exists()


def test_data_of_an_older_release_is_upgraded(tmp_path: Path) -> None:
    old, new = Armarium(tmp_path / "old"), Armarium(tmp_path / "new")
    saved = tmp_path / "saved"
    try:
        script = OLDER_RELEASE.replace("FOLDER", repr(str(saved)))
        ran(old, "shell", "--no-imports", "-c", script)
        restored = answer(new, "restore", str(saved))
        assert "embeddings.0006_models_and_reembedding" in restored["upgraded"]
        assert restored["embeddings"] == 1
        new.start("--no-demo", "--workers", "1")
        status, found = new.request("GET", "/v1/embeddings/alice/default/old")
        assert (status, found["text"]) == (200, "Dear Bob")
        assert new.terminate()[0] == 0
        # And back: the backup is as it was, for the release that made it.
        verify_backup(saved, on_progress=lambda *_: None)
    finally:
        old.kill_everything()
        new.kill_everything()

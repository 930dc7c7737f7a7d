"""Makes a backup of the whole server while it serves."""

import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings
from django.core.files.storage import storages
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from config import env
from config.backup import _programs
from config.backup._manifest import (
    DATABASE,
    DUMP,
    FILES,
    SECRETS,
    SETTINGS,
    UPLOADS,
    BackupError,
    Entry,
    Kind,
    Manifest,
    copy_of,
    digest_of,
    files_in,
    sync_folders,
    write_durably,
)
from config.processes import Failed, only_one
from llm_services import crypto
from resources.models import File
from resources.storage import is_generated, keeping_deleted_files

_PROGRESS = re.compile(r"(\d+)/(\d+) kB")
# Of a free disk; what is written meanwhile comes on top.
_SPARE = 1.05

LAST_BACKUP = "last-backup.json"

OnProgress = Callable[[int, float | None], object]


@dataclass(frozen=True)
class Made:
    """A backup that was made.

    files: how many uploaded files are in it.
    lacking: the ids of files whose bytes the storage had lost or damaged before.
    """

    manifest: Manifest
    files: int
    lacking: list[str]


def make_backup(target: Path, *, kind: Kind, with_keys: bool, on_progress: OnProgress) -> Made:
    """Save database, uploaded files and settings into a new folder, as they are at one moment.

    The folder appears under its name when it is complete and on the disk.
    with_keys: whether the encryption keys go along.
    on_progress: is told how many bytes were saved, and what part that is.
    Raises BackupError.
    """
    if kind is Kind.PHYSICAL and settings.EMBEDDED_POSTGRES is None:
        raise BackupError(
            "A physical backup is one of the embedded database, and DATABASE_URL names another"
            " server. Use --format dump, or that server's own pg_basebackup."
        )
    target = target.expanduser().resolve()
    _refuse_occupied(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _refuse_full_disk(target.parent)
    unfinished = Path(
        tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".part", dir=target.parent)
    )
    try:
        with (
            only_one(settings.DATA_DIR / "locks" / "backup.lock", what="A backup is being made"),
            # From before the database is saved until its files are: what it refers to stays.
            keeping_deleted_files() as still_kept,
        ):
            made = _Making(unfinished, kind, on_progress).run(with_keys=with_keys)
            if not still_kept():
                raise BackupError(
                    "The connection to the database was lost, so that files may have been deleted"
                    " before they were saved. Make the backup again."
                )
        sync_folders(unfinished)
        # Takes the place of an empty folder.
        unfinished.rename(target)
        _sync(target.parent)
        _note(target, made.manifest)
    except Failed as error:
        raise BackupError(str(error)) from error
    except OSError as error:
        raise BackupError(
            f"The backup cannot be written to {target.parent}: {error.strerror or error}."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return made


class _Making:
    """One backup under way."""

    def __init__(self, folder: Path, kind: Kind, on_progress: OnProgress) -> None:
        self._folder, self._kind, self._on_progress = folder, kind, on_progress
        self._entries: list[Entry] = []
        self._done = 0
        self._total = _size_of_database() + _size_of_files()

    def run(self, *, with_keys: bool) -> Made:
        major, postgres = _programs.server_version()
        if major > (ours := _programs.version_of_programs()):
            raise BackupError(
                f"The database is PostgreSQL {postgres}, and the programs that come with Armarium"
                f" are of version {ours}: older programs cannot save it. Use the pg_dump of that"
                " server (docs/backup.md)."
            )
        size = self._physical() if self._kind is Kind.PHYSICAL else self._dump()
        pgvector = _programs.one("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        migrations: dict[str, list[str]] = {}
        for app, name in sorted(MigrationRecorder(connection).applied_migrations()):
            migrations.setdefault(app, []).append(name)
        number = self._files()
        self._note_settings()
        if with_keys:
            self._keys()
        manifest = Manifest(
            armarium=settings.VERSION,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            kind=self._kind,
            postgres=postgres,
            postgres_major=major,
            pgvector=pgvector,
            machine=platform.machine(),
            bytes=size + sum(each.bytes for each in self._entries),
            migrations=migrations,
            encryption_keys=crypto.key_ids(),
            with_keys=with_keys,
            entries=sorted(self._entries, key=lambda each: each.path),
        )
        manifest.write(self._folder)
        return Made(manifest, number, self._lacking())

    def _physical(self) -> int:
        """Save the files of the cluster and the log that makes them consistent.

        Return the bytes of those that do not count among ours.
        """
        target = self._folder / DATABASE

        def show(said: str) -> None:
            if found := _PROGRESS.findall(said):
                self._show(1024 * int(found[-1][0]))

        _programs.run(
            "pg_basebackup",
            *("--pgdata", str(target), "--format", "plain", "--wal-method", "stream"),
            *("--checkpoint", "fast", "--no-password", "--progress"),
            *("--manifest-checksums", "SHA256", "--label", "Armarium"),
            connects=True,
            while_running=show,
        )
        for name, path in files_in(self._folder):
            self._list(path, name)
        _programs.run("pg_verifybackup", "--quiet", str(target))
        size = sum(each.stat().st_size for each in target.rglob("*") if each.is_file())
        self._done = size
        return size - sum(each.bytes for each in self._entries)

    def _dump(self) -> int:
        """Save the database as statements; return 0, since that file counts among ours."""
        target = self._folder / DUMP
        target.touch(mode=0o600)
        _programs.run(
            "pg_dump",
            *("--file", str(target), "--format", "custom", "--no-password"),
            # Who restores it owns it.
            *("--no-owner", "--no-privileges"),
            connects=True,
            while_running=lambda said: self._show(target.stat().st_size),
        )
        # Reads its table of contents.
        _programs.run("pg_restore", "--list", str(target))
        with target.open("rb") as stream:
            os.fsync(stream.fileno())
        self._list(target, DUMP)
        self._done = target.stat().st_size
        return 0

    def _files(self) -> int:
        """Copy the bytes of uploaded files; return how many files there were.

        Those uploaded since the database was saved come along: they belong to nothing, and the
        daily sweep of a restored server deletes them.
        """
        for name, place in folders_of_files().items():
            (self._folder / name).mkdir(mode=0o700)
            for path in sorted(each for each in place.rglob("*") if each.is_file()):
                relative = path.relative_to(place).as_posix()
                # What others put there is not ours, nor what is still being written.
                if name == UPLOADS or is_generated(relative):
                    self._copy(path, f"{name}/{relative}")
        return sum(each.path.startswith(f"{FILES}/") for each in self._entries)

    def _copy(self, source: Path, place: str) -> None:
        target = self._folder / place
        target.parent.mkdir(mode=0o700, exist_ok=True, parents=True)
        # An upload that failed meanwhile took its bytes back.
        with suppress(FileNotFoundError):
            copied = copy_of(source, target, on_bytes=self._add)
            self._entries.append(Entry(place, copied.bytes, copied.sha256))

    def _lacking(self) -> list[str]:
        """Return the files whose bytes are not those that were uploaded."""
        saved = {each.path: each for each in self._entries}
        lacking = []
        rows = File.objects.order_by("pk").values_list("uuid", "content", "sha256")
        for uuid, content, sha256 in rows.iterator():
            entry = saved.get(f"{FILES}/{content}")
            if entry is None:
                # One that was uploaded since we looked is of no concern to this backup.
                if not (folders_of_files()[FILES] / content).exists():
                    lacking.append(str(uuid))
            elif entry.sha256 != sha256:
                lacking.append(str(uuid))
        return lacking

    def _note_settings(self) -> None:
        public, secret = env.given()
        lines = ["# The settings that the saved server was given (docs/configuration.md)."]
        lines += [f"{name}={_quoted(value)}" for name, value in sorted(public.items())]
        lines += [f"# {name} was set too; it is secret." for name in sorted(secret)]
        self._write(SETTINGS, "\n".join([*lines, ""]))

    def _keys(self) -> None:
        (self._folder / SECRETS).mkdir(mode=0o700)
        self._write(f"{SECRETS}/encryption_key", settings.ENCRYPTION_KEY)
        previous = "\n".join(settings.PREVIOUS_ENCRYPTION_KEYS)
        self._write(f"{SECRETS}/previous_encryption_keys", previous)

    def _write(self, name: str, content: str) -> None:
        write_durably(self._folder / name, content.encode())
        self._list(self._folder / name, name)

    def _list(self, path: Path, name: str) -> None:
        self._entries.append(Entry(name, path.stat().st_size, digest_of(path)))

    def _add(self, number: int) -> None:
        self._done += number
        self._show(self._done)

    def _show(self, done: int) -> None:
        self._on_progress(done, min(1.0, done / max(self._total, 1)))


def _note(target: Path, manifest: Manifest) -> None:
    """Leave word of the last backup where monitors find it."""
    place = Path(settings.DATA_DIR) / LAST_BACKUP
    draft = place.with_name(f".{LAST_BACKUP}.{os.getpid()}")
    told = {"folder": str(target), "made_at": manifest.made_at, "bytes": manifest.bytes}
    draft.write_text(json.dumps(told) + "\n", encoding="utf-8")
    draft.replace(place)


def folders_of_files() -> dict[str, Path]:
    """Return where files are kept, by what those places are called in a backup."""
    kept = {FILES: File._meta.get_field("content").storage, UPLOADS: storages["uploads"]}
    return {name: Path(storage.path("")) for name, storage in kept.items()}


def _refuse_occupied(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise BackupError(f"'{target}' is not a folder. Name one that does not exist yet.")
    if target.exists() and any(target.iterdir()):
        raise BackupError(
            f"'{target}' is not empty. Name a folder that does not exist yet, such as"
            f" {target / datetime.now(UTC).strftime('%Y-%m-%d')}."
        )
    data = Path(settings.DATA_DIR)
    if target == data or data in target.parents:
        raise BackupError(
            f"'{target}' lies in the data directory {data}, and would be lost together with it."
            " Name a folder elsewhere, best on another disk."
        )


def _refuse_full_disk(folder: Path) -> None:
    needed = int((_size_of_database() + _size_of_files()) * _SPARE)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BackupError(
            f"{folder} has {free // 1024**2} MB left, and the backup may take"
            f" {needed // 1024**2} MB. Free space, or name a folder on another disk."
        )


def _size_of_database() -> int:
    return int(_programs.one("SELECT pg_database_size(current_database())"))


def _size_of_files() -> int:
    return int(_programs.one("SELECT coalesce(sum(size), 0) FROM resources_file"))


def _quoted(value: str) -> str:
    plain = re.fullmatch(r"[\w./:@%+,-]*", value, re.ASCII)
    return value if plain else "'" + value.replace("'", "'\\''") + "'"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

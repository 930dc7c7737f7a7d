"""What a backup says of itself, and whether its files are still what was written.

A backup is a folder:

    manifest.json           what made it, and size and SHA-256 of everything below
    manifest.json.sha256    of the manifest itself, as `sha256sum --check` reads it
    database/               a base backup, with a manifest of PostgreSQL's own; or
    database.dump           what pg_dump wrote
    files/                  the bytes of uploaded files
    uploads/                files whose rows are being imported
    settings.env            the settings of the environment, without secrets
    secrets/                the encryption keys, where they were asked for
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from common.errors import DomainError

FORMAT = 1
MANIFEST = "manifest.json"
CHECKSUM = "manifest.json.sha256"
DATABASE = "database"
DUMP = "database.dump"
FILES = "files"
UPLOADS = "uploads"
SETTINGS = "settings.env"
SECRETS = "secrets"
# PostgreSQL's own list of what is in `database/`. Ours has this one, and what pg_verifybackup
# passes over: the log, and files that would change how the database is recovered.
DATABASE_MANIFEST = f"{DATABASE}/backup_manifest"
_LOG = f"{DATABASE}/pg_wal"
_PASSED_OVER = {
    DATABASE_MANIFEST,
    *(f"{DATABASE}/{name}" for name in ("postgresql.auto.conf", "recovery.signal")),
    f"{DATABASE}/standby.signal",
}

_PIECE = 1024**2
_SHOWN = 5


class BackupError(DomainError):
    """A backup cannot be made, read or restored; the text says why and what to do."""

    code = "backup"


class Damaged(BackupError):
    """Files of a backup are missing, or are not what was written."""


class Kind(StrEnum):
    """How the database is saved.

    Physical: its files and its log, for the same major version of PostgreSQL. Dump: statements, for
    any version that is not older.
    """

    PHYSICAL = "physical"
    DUMP = "dump"


@dataclass(frozen=True)
class Entry:
    """One file of a backup; path: relative to it, with slashes."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a backup is.

    armarium, postgres, pgvector: versions. machine: the processor's architecture.
    bytes: of everything, the database included.
    migrations: those that had been applied, by app.
    encryption_keys: the ids of those that were configured, the newest first.
    with_keys: whether the keys themselves are in it.
    """

    armarium: str
    made_at: str
    kind: Kind
    postgres: str
    postgres_major: int
    pgvector: str
    machine: str
    bytes: int
    migrations: dict[str, list[str]]
    encryption_keys: list[str]
    with_keys: bool
    entries: list[Entry]
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Write it into the backup; it is the last file to come."""
        content = json.dumps(asdict(self), indent=1, ensure_ascii=False).encode() + b"\n"
        write_durably(folder / MANIFEST, content)
        line = f"{hashlib.sha256(content).hexdigest()}  {MANIFEST}\n"
        write_durably(folder / CHECKSUM, line.encode())


def read_manifest(folder: Path) -> Manifest:
    """Return what a backup says of itself; raise BackupError, and Damaged."""
    try:
        content = (folder / MANIFEST).read_bytes()
        expected = (folder / CHECKSUM).read_text(encoding="ascii").split()[0]
    except (OSError, UnicodeDecodeError, IndexError) as error:
        raise BackupError(
            f"'{folder}' is no backup of Armarium, or not a whole one: it has no {MANIFEST} with a"
            f" {CHECKSUM}. Name the folder that `manage.py backup` made."
        ) from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise Damaged(f"{MANIFEST} is damaged: its SHA-256 is not the one in {CHECKSUM}.")
    given = json.loads(content)
    if given.get("format") != FORMAT:
        raise BackupError(
            f"The backup has format {given.get('format')}, made by Armarium"
            f" {given.get('armarium')}; this release reads format {FORMAT}. Restore it with that"
            " release."
        )
    given["entries"] = [Entry(**each) for each in given["entries"]]
    given["kind"] = Kind(given["kind"])
    manifest = Manifest(**given)
    for entry in manifest.entries:
        path = PurePosixPath(entry.path)
        if path.is_absolute() or ".." in path.parts or str(path) != entry.path:
            raise Damaged(f"{MANIFEST} names '{entry.path}', which is no place in a backup.")
    return manifest


def verify_entries(folder: Path, manifest: Manifest, *, on_bytes: Callable[[int], object]) -> None:
    """Compare what the manifest lists with what is there.

    Most of what is inside `database/` is compared by pg_verifybackup.
    Raises Damaged, naming the files.
    """
    listed = {entry.path: entry for entry in manifest.entries}
    found = dict(files_in(folder))
    wrong = [f"{path} is missing" for path in listed if path not in found]
    wrong += [f"{path} is not in the manifest" for path in found if path not in listed]
    for path in sorted(listed.keys() & found.keys()):
        problem = _problem(found[path], listed[path], on_bytes)
        if problem is not None:
            wrong.append(f"{path} {problem}")
    refuse_damage(wrong)


def refuse_damage(wrong: list[str]) -> None:
    """Raise Damaged with what is wrong, if anything is."""
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise Damaged(f"The backup is damaged: {'; '.join(wrong[:_SHOWN])}{more}.")


def _problem(path: Path, entry: Entry, on_bytes: Callable[[int], object]) -> str | None:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        return "is not a file"
    if status.st_size != entry.bytes:
        return f"has {status.st_size} bytes instead of {entry.bytes}"
    if digest_of(path, on_bytes=on_bytes) != entry.sha256:
        return "has another SHA-256 than when it was written"
    return None


def files_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield everything that our manifest has to list, links too: those are none of ours."""
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in [*names, *links]:
            path = Path(parent, name).relative_to(folder).as_posix()
            inside = path.startswith(f"{DATABASE}/")
            ours = path in _PASSED_OVER or path.startswith(f"{_LOG}/")
            if path not in (MANIFEST, CHECKSUM) and (ours or not inside):
                yield path, Path(parent, name)


def digest_of(path: Path, *, on_bytes: Callable[[int], object] = lambda number: None) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
            on_bytes(len(piece))
    return digest.hexdigest()


def copy_of(
    source: Path, target: Path, *, on_bytes: Callable[[int], object], durably: bool = True
) -> Entry:
    """Copy a file, with its time; return what was copied, with `target` as its path.

    durably: down to the disk.
    """
    digest, size = hashlib.sha256(), 0
    # What is a link was put there by somebody else.
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(reading, "rb") as read:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(writing, "wb") as written:
            while piece := read.read(_PIECE):
                digest.update(piece)
                written.write(piece)
                size += len(piece)
                on_bytes(len(piece))
            written.flush()
            if durably:
                os.fsync(written.fileno())
        status = os.fstat(read.fileno())
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    return Entry(str(target), size, digest.hexdigest())


def write_durably(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, down to the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def sync_folders(top: Path) -> None:
    """Write the entries of a folder, and of those below, to the disk."""
    for parent, _, _ in os.walk(top):
        descriptor = os.open(parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def as_mapping(manifest: Manifest) -> dict[str, Any]:
    """Return what to tell a script of a backup."""
    told = asdict(manifest)
    del told["entries"]
    return told

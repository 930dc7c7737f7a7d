"""Keeps the bytes of files: in the data directory, written to disk before anybody is told."""

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage
from django.db import connection, transaction

# Any number will do, as long as every release uses the same one.
_KEPT_LOCK = 0x46494C45
_POLL_S = 0.05

# Django appends something to a name that is taken.
_generated = re.compile(r"[0-9a-f]{2}/[0-9a-f]{32}(_[0-9A-Za-z]+)?")


class DurableFileSystemStorage(FileSystemStorage):
    """Django's storage in a folder; what `save` returned for survives a power cut."""

    def _save(self, name: str, content: Any) -> str:
        try:
            stored: str = super()._save(name, content)  # type: ignore[misc]
            written = Path(self.path(stored))
            # The bytes, the entry in their folder, and the entry of that folder if it is new.
            for place in (written, written.parent, Path(self.location)):
                _sync(place)
        except OSError:
            # The disk is full, say; what was written so far belongs to nobody.
            with suppress(OSError):
                self.delete(name)
            raise
        return stored


def _sync(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def generated_name(row: Any, given: str) -> str:
    """Return where a new file goes: nothing in the name comes from whoever uploads it."""
    name = secrets.token_hex(16)
    return f"{name[:2]}/{name}"


def is_generated(name: str) -> bool:
    """Tell whether a name is one that `generated_name` gives: whatever has another is not ours."""
    return _generated.fullmatch(name) is not None


@contextmanager
def keeping_deleted_files() -> Iterator[Callable[[], bool]]:
    """Have the bytes of files that are deleted meanwhile stay, on every machine.

    The daily sweep deletes them afterwards. For backups: the database is saved at one moment, the
    files it refers to are only copied later. Yields what tells whether they stayed until now.
    """
    with connection.cursor() as cursor:
        # Who deletes at this moment ends first. Asked again and again: waiting has a limit of time.
        while True:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [_KEPT_LOCK])
            if cursor.fetchone()[0]:
                break
            time.sleep(_POLL_S)
    locking = connection.connection

    def still_kept() -> bool:
        # The lock belongs to the connection; another one does not have it.
        return connection.is_usable() and connection.connection is locking

    try:
        yield still_kept
    finally:
        if still_kept():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_KEPT_LOCK])


@contextmanager
def deleting() -> Iterator[bool]:
    """Tell whether the bytes of files may be deleted now, and hold back a backup meanwhile."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock_shared(%s)", [_KEPT_LOCK])
        yield bool(cursor.fetchone()[0])

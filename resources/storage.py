"""Keeps the bytes of files: in the data directory, written to disk before anybody is told."""

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage

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

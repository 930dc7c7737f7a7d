"""Compares what is said of files with the bytes that the storage holds."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.core.files.storage import Storage
from django.db.models import Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from accounts.policy import Actor, require_admin
from common.errors import NotFound
from resources.models import File
from resources.selectors import ContentMissing, open_content
from resources.storage import is_generated

# An upload that is going on writes its bytes before its row.
_GRACE = timedelta(hours=1)


class Problem(StrEnum):
    """What is wrong with the bytes of a file."""

    MISSING = "missing"
    SIZE = "size"
    HASH = "hash"


@dataclass(frozen=True)
class Damaged:
    """A file whose bytes are not those that were uploaded."""

    file: File
    problem: Problem


@dataclass(frozen=True)
class Orphan:
    """Bytes that no file refers to."""

    name: str
    size: int
    modified_at: datetime


@dataclass(frozen=True)
class Report:
    """What a check found among so many files."""

    files: int
    damaged: list[Damaged]
    orphans: list[Orphan]

    @property
    def passed(self) -> bool:
        """Whether there is nothing to tell."""
        return not self.damaged and not self.orphans


def content_report(
    actor: Actor, *, verify: bool, on_progress: Callable[[int, float], object]
) -> Report:
    """Return which files are damaged, and which bytes belong to none.

    verify: whether to read all bytes and compare their SHA-256; sizes are always compared.
    on_progress: called with the number of files so far, and what part of the work is done.
    Raises Forbidden for anybody but administrators, OSError where the storage cannot be read.
    """
    require_admin(actor)
    files, damaged = 0, []
    for files, (file, done) in enumerate(_files(), start=1):
        problem = _problem_of(file, verify=verify)
        if problem is not None:
            damaged.append(Damaged(file, problem))
        on_progress(files, done)
    return Report(files, damaged, orphans(actor))


def orphans(actor: Actor) -> list[Orphan]:
    """Return which bytes in the storage belong to no file.

    Raises Forbidden for anybody but administrators, OSError where the storage cannot be read.
    """
    require_admin(actor)
    return list(_orphans())


def digests_of_files() -> Iterator[tuple[UUID, str]]:
    """Yield the id of every file and the SHA-256 of the bytes that the storage holds, if any."""
    for file in File.objects.order_by("pk").iterator():
        try:
            content: Any = open_content(file)
        except (ContentMissing, NotFound):
            yield file.uuid, Problem.MISSING
            continue
        with closing(content):
            yield file.uuid, hashlib.file_digest(content, "sha256").hexdigest()


def _files() -> Iterator[tuple[File, float]]:
    """Yield every file, and the part of all bytes that is behind once it is dealt with."""
    total = File.objects.aggregate(bytes=Coalesce(Sum("size"), 0))
    behind = 0
    for file in File.objects.select_related("project__owner").order_by("pk").iterator():
        behind += file.size
        yield file, min(1.0, behind / max(total["bytes"], 1))


def _problem_of(file: File, *, verify: bool) -> Problem | None:
    try:
        content: Any = open_content(file)
    except ContentMissing:
        return Problem.MISSING
    except NotFound:
        return None
    with closing(content):
        if file.content.size != file.size:
            return Problem.SIZE
        if verify and hashlib.file_digest(content, "sha256").hexdigest() != file.sha256:
            return Problem.HASH
    return None


def _orphans() -> Iterator[Orphan]:
    before = timezone.now() - _GRACE
    referred = set(File.objects.values_list("content", flat=True))
    storage: Storage = File._meta.get_field("content").storage
    for name in _names(storage):
        if name in referred or not is_generated(name):
            continue
        # Whatever deletes it at this moment does what it should.
        with suppress(FileNotFoundError):
            modified_at = storage.get_modified_time(name)
            if modified_at < before:
                yield Orphan(name, storage.size(name), modified_at)


def _names(storage: Storage) -> Iterator[str]:
    for folder in _listed(storage, "")[0]:
        for file in _listed(storage, folder)[1]:
            yield f"{folder}/{file}"


def _listed(storage: Storage, folder: str) -> tuple[list[str], list[str]]:
    """Return the folders and files in a folder; a server without uploads has none."""
    try:
        folders, files = storage.listdir(folder)
    except FileNotFoundError:
        return [], []
    return sorted(folders), sorted(files)

"""Writes a project into an archive, as it is at one moment."""

import hashlib
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson
from django.conf import settings

from accounts.policy import Actor, Level
from common.appearing import appearing
from common.database import at_one_moment
from common.errors import Conflict
from embeddings import files
from embeddings.selectors import about, snapshot_of
from projects.models import Project
from projects.selectors import count_embeddings, project_for, warnings_about
from resources.archives._reading import (
    EMBEDDINGS,
    FORMAT,
    MANIFEST,
    MAXIMUM_FILES,
    VERSION,
    entry_of,
)
from resources.fingerprints import (
    PROJECT_FIELDS,
    RESOURCE_FIELDS,
    Digest,
    add_embeddings,
    described,
    fingerprint_of,
    index_settings,
)
from resources.models import File
from resources.selectors import ContentMissing, open_content

_BATCH = 1_000
_PIECE = 1024**2

OnProgress = Callable[[int, float | None], object]


@dataclass(frozen=True)
class Exported:
    """What an archive holds: how many of each, and its fingerprint.

    warnings: of vectors that another model made than the project's LLM service has: where the
    archive is imported, they count as made by that one.
    """

    embeddings: int
    agents: int
    users: int
    files: int
    fingerprint: dict[str, str]
    warnings: list[str]


def export_archive(
    *, actor: Actor, owner: str, handle: str, target: Path, on_progress: OnProgress
) -> Exported:
    """Write a project with all that is in it into a file, which appears when it is complete.

    on_progress: is told how many embeddings and files were written, and what part that is.
    Raises as `project_for`; Conflict where bytes of its files are lost; Invalid where the file
    cannot be written.
    """
    with at_one_moment():
        project = project_for(actor, Level.OWNER, owner=owner, handle=handle)
        with appearing(target, mode=0o600) as stream, zipfile.ZipFile(stream, "w") as archive:
            return _Exporting(project, archive, on_progress).run()


class _Exporting:
    """One export under way."""

    def __init__(self, project: Project, archive: zipfile.ZipFile, on_progress: OnProgress) -> None:
        self._project, self._archive, self._on_progress = project, archive, on_progress
        self._entries: dict[str, dict[str, Any]] = {}
        count_embeddings(project)
        self._files = File.objects.filter(project=project).count()
        if self._files > MAXIMUM_FILES:
            raise Conflict(
                f"Project '{project}' has {self._files} files, and an archive holds at most"
                f" {MAXIMUM_FILES}. Move some to another project first (moveresources)."
            )
        counted: Any = project
        self._total = counted.number_of_embeddings + self._files
        self._done = 0

    def run(self) -> Exported:
        digest = self._embeddings()
        counts = {name: self._resources(name) for name in RESOURCE_FIELDS}
        fingerprint = fingerprint_of(self._project, digest)
        manifest = orjson.dumps(self._described(fingerprint), option=orjson.OPT_INDENT_2)
        self._archive.writestr(MANIFEST, manifest)
        embeddings = self._done - self._files
        warnings = warnings_about(self._project)
        return Exported(embeddings, **counts, fingerprint=fingerprint, warnings=warnings)

    def _embeddings(self) -> Digest:
        digest = Digest()
        # The writer wants to know where it is in its file.
        with tempfile.TemporaryFile() as parquet:
            writer = files.writer("parquet", cast("BinaryIO", parquet), about(self._project))
            with closing(snapshot_of(self._project, size=_BATCH)) as snapshot:
                for rows in snapshot:
                    writer.write(rows)
                    add_embeddings(digest, rows)
                    self._advance(len(rows))
            writer.close()
            parquet.seek(0)
            self._store(EMBEDDINGS, cast("BinaryIO", parquet))
        return digest

    def _resources(self, name: str) -> int:
        kind, fields = RESOURCE_FIELDS[name]
        rows = kind._default_manager.filter(project=self._project).order_by("created_at", "uuid")
        count = 0
        with tempfile.TemporaryFile() as lines:
            for count, row in enumerate(rows.iterator(), start=1):
                line = described(row, fields)
                if isinstance(row, File):
                    line["entry"] = entry_of(count)
                    self._content(row, line["entry"])
                lines.write(orjson.dumps(line) + b"\n")
            lines.seek(0)
            self._store(f"{name}.jsonl", cast("BinaryIO", lines))
        return count

    def _content(self, file: File, entry: str) -> None:
        try:
            with open_content(file) as content:
                digest = self._copy(entry, content)[1]
        except ContentMissing as error:
            raise Conflict(
                f"The bytes of file '{file.uuid}' are gone: it was deleted at this moment, or the"
                " storage has lost them (checkfiles tells). Export again."
            ) from error
        if digest != file.sha256:
            raise Conflict(
                f"The bytes of file '{file.uuid}' are damaged in the storage. Delete it, or put"
                " them back from a backup, then export again."
            )
        self._advance(1)

    def _store(self, name: str, content: BinaryIO) -> None:
        size, sha256 = self._copy(name, content)
        self._entries[name] = {"bytes": size, "sha256": sha256}

    def _copy(self, name: str, content: BinaryIO) -> tuple[int, str]:
        # Not compressed: Parquet is already, and what repeats itself a lot would look like a bomb.
        described_entry = zipfile.ZipInfo(name, datetime.now(UTC).timetuple()[:6])
        digest, size = hashlib.sha256(), 0
        with self._archive.open(described_entry, "w", force_zip64=True) as entry:
            while piece := content.read(_PIECE):
                digest.update(piece)
                size += len(piece)
                entry.write(piece)
        return size, digest.hexdigest()

    def _described(self, fingerprint: dict[str, str]) -> dict[str, Any]:
        project, instance = self._project, self._project.instance
        return {
            "format": FORMAT,
            "version": VERSION,
            "armarium": settings.VERSION,
            "made_at": datetime.now(UTC),
            "project": {
                "owner": project.owner.handle,
                "handle": project.handle,
                "uuid": project.uuid,
                **described(project, PROJECT_FIELDS),
            },
            "index": index_settings(project),
            "grants": [
                {"user": share.user.handle, "role": share.role}
                for share in project.shares.select_related("user").order_by("user__handle")
            ],
            "instance": {
                "owner": instance.owner.handle,
                **described(
                    instance,
                    ("handle", "endpoint", "description", "model", "dimensions", "context_limit"),
                ),
                "api_standard": described(
                    instance.api_standard, ("handle", "description", "key_method", "key_field")
                ),
            },
            "entries": self._entries,
            "fingerprint": fingerprint,
        }

    def _advance(self, number: int) -> None:
        self._done += number
        self._on_progress(self._done, min(1.0, self._done / max(self._total, 1)))

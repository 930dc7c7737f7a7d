"""Fingerprints of projects: equal where two hold the same, on whichever server and however kept.

Handles, ids of rows, segments and graphs are left out, and so are the times of embeddings, which
are those of their upload. Everything else that people see of a project is in it, part by part.
"""

import hashlib
from collections.abc import Generator, Iterable
from contextlib import closing
from typing import Any

import orjson
from django.db.models import Model

from accounts.policy import Actor, Level
from embeddings.models import SearchIndex
from embeddings.selectors import snapshot_of
from projects.models import Project
from projects.selectors import project_for
from projects.services import grants_of
from resources.models import Agent, EndUser, File

INDEX_SETTINGS = ("m", "ef_construction", "ef_search", "target_recall", "search_language")
PROJECT_FIELDS = (
    "name",
    "description",
    "metadata",
    "metadata_schema",
    "public_read",
    "created_at",
    "updated_at",
)
RESOURCE_FIELDS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "agents": (Agent, ("uuid", "canonical_name", *Agent.settable, "created_at", "updated_at")),
    "users": (EndUser, ("uuid", *EndUser.settable, "created_at", "updated_at")),
    "files": (File, ("uuid", *File.settable, "size", "sha256", "created_at", "updated_at")),
}
_BATCH = 1_000
_MODULUS = 2**256


class Digest:
    """The sum of the SHA-256 of things, so that their order does not matter; and their number."""

    def __init__(self) -> None:
        self._sum, self._count = 0, 0

    def add(self, *parts: bytes) -> None:
        """Add one thing that consists of these parts."""
        digest = hashlib.sha256()
        for part in parts:
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        self._sum = (self._sum + int.from_bytes(digest.digest(), "big")) % _MODULUS
        self._count += 1

    def __str__(self) -> str:
        return f"{self._count}:{self._sum:064x}"


def add_embeddings(digest: Digest, rows: Iterable[Any]) -> None:
    """Add embeddings: what was uploaded of each."""
    for row in rows:
        metadata = canonical(orjson.loads(row.metadata))
        digest.add(row.text_id.encode(), row.text.encode(), metadata, row.vector.tobytes())


def fingerprint_for(actor: Actor, *, owner: str, handle: str) -> dict[str, str]:
    """Return the fingerprint of a project to its owner; raise as `project_for`."""
    return fingerprint_of(project_for(actor, Level.OWNER, owner=owner, handle=handle))


def fingerprint_of(project: Project, embeddings: Digest | None = None) -> dict[str, str]:
    """Return the fingerprint of each part of a project.

    embeddings: theirs, where somebody has read them already.
    """
    if embeddings is None:
        embeddings = Digest()
        snapshot: Generator[list[Any], None, None] = snapshot_of(project, size=_BATCH)
        with closing(snapshot):
            for rows in snapshot:
                add_embeddings(embeddings, rows)
    parts = {
        "settings": _of([described(project, PROJECT_FIELDS)]),
        "index": _of([index_settings(project)]),
        "model": project.instance.fingerprint().hex(),
        "grants": _of([str(grant.user_handle), str(grant.role)] for grant in grants_of(project)),
        "embeddings": str(embeddings),
    }
    for name, (kind, fields) in RESOURCE_FIELDS.items():
        rows = kind._default_manager.filter(project=project).iterator()
        parts[name] = _of(described(row, fields) for row in rows)
    return parts


def index_settings(project: Project) -> dict[str, Any]:
    """Return what was chosen for the project's search index, or what is usual."""
    index = SearchIndex.objects.filter(project=project).first() or SearchIndex(project=project)
    return described(index, INDEX_SETTINGS)


def described(row: Model, fields: Iterable[str]) -> dict[str, Any]:
    """Return some fields of a row."""
    return {name: getattr(row, name) for name in fields}


def canonical(value: Any) -> bytes:
    """Return JSON in which equal values are equal bytes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z)


def _of(values: Iterable[Any]) -> str:
    digest = Digest()
    for value in values:
        digest.add(canonical(value))
    return str(digest)

"""Deletes and changes the embeddings that a filter keeps: all of them or none."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from django.db import transaction

from accounts import audit
from accounts.audit import EMBEDDINGS, Verb
from accounts.policy import Actor
from common import json
from common.database import retry_conflicts
from common.errors import FieldError, Invalid
from embeddings import indexes, store
from embeddings.batches import MAXIMUM_ITEMS
from embeddings.filters import Condition
from embeddings.services import project_to_edit
from projects.metadata import Budget, MetadataValidator, describe, validator_for
from projects.models import Project
from projects.selectors import lock_for_upload, wait_for_uploads

# How many rows are read, checked and written at once.
_PART = 1_000


@dataclass(frozen=True)
class Changed:
    """How many embeddings a filter kept, and how many of them were changed or deleted."""

    project: Project
    matched: int
    changed: int


@retry_conflicts
def delete_matching(
    *, actor: Actor, owner: str, handle: str, condition: Condition, dry_run: bool = False
) -> Changed:
    """Delete the project's embeddings that a filter keeps; raise as `project_for`.

    dry_run: whether to count them only.
    """
    project = project_to_edit(actor, owner, handle)
    if dry_run:
        return Changed(project, store.count(project.pk, condition), 0)
    with transaction.atomic():
        wait_for_uploads(project)
        lock_for_upload(project)
        removed = store.remove_matching(project.pk, condition)
        audit.note(actor, Verb.DELETE, project, EMBEDDINGS, count=removed)
    return Changed(project, removed, removed)


@retry_conflicts
def update_matching(
    *,
    actor: Actor,
    owner: str,
    handle: str,
    condition: Condition,
    patch: dict[str, Any],
    dry_run: bool = False,
) -> Changed:
    """Merge a patch into the metadata of the embeddings that a filter keeps (RFC 7396).

    dry_run: whether to check only. Those that are as the patch wants them already stay untouched.
    Raises as `project_for`, and Invalid where some metadata would break the project's schema or
    grow too large; then nothing is changed.
    """
    project = project_to_edit(actor, owner, handle)
    matched = changed = 0
    with transaction.atomic():
        if not dry_run:
            wait_for_uploads(project)
        schema = lock_for_upload(project).metadata_schema
        validator = validator_for(schema) if schema else None
        budget = Budget()
        for rows in store.metadata_matching(project.pk, condition, size=_PART):
            matched += len(rows)
            # Many may take more time, but no more of it an embedding than few.
            budget.seconds += Budget().seconds * len(rows) / MAXIMUM_ITEMS
            new = dict(_patched(rows, patch, validator, budget))
            if new and not dry_run:
                store.change_metadata(project.pk, text_ids=list(new), metadata=list(new.values()))
                changed += len(new)
        indexes.notice_growth(project, changed)
        if changed:
            audit.note_override(actor, Verb.UPDATE, project, EMBEDDINGS, count=changed)
    return Changed(project, matched, changed)


def _patched(
    rows: list[tuple[str, bytes]],
    patch: dict[str, Any],
    validator: MetadataValidator | None,
    budget: Budget,
) -> Iterator[tuple[str, bytes]]:
    """Return id and new metadata of the rows that the patch changes; raise Invalid."""
    for text_id, stored in rows:
        before = orjson.loads(stored)
        after = json.merged(before, patch)
        content = json.render(after)
        # By their text: True and 1 are equal to Python.
        if content == json.render(before):
            continue
        if len(content) > json.MAX_DOCUMENT_BYTES:
            raise json.invalid(
                "body.metadata",
                f"The metadata of '{text_id[:80]}' would be larger than "
                f"{json.MAX_DOCUMENT_BYTES // 1024**2} MiB.",
            )
        violations = [] if validator is None else validator.violations(after, budget)
        if violations:
            raise Invalid(
                describe(text_id, violations),
                errors=[
                    FieldError(f"body.metadata.{each.field}", each.reason) for each in violations
                ],
            )
        yield text_id, content

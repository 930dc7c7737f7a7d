"""Stores and deletes embeddings."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Max, Model
from psycopg import sql

from accounts import audit
from accounts.audit import EMBEDDINGS, Verb
from accounts.models import ApiKey, User
from accounts.policy import Actor, Level, require_admin
from common.database import retry_conflicts
from common.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from common.handles import SYSTEM
from common.versions import RowVersion
from embeddings import batches, indexes, model_guard, store, texts
from embeddings.batches import Batch, Expected
from embeddings.files import Part
from embeddings.selectors import Row, missing, spellings
from llm_services.models import Definition, Instance
from projects.metadata import Budget, Violation, describe, validator_for
from projects.models import Project, ProjectShare
from projects.selectors import Locked, lock_for_upload, project_for, wait_for_uploads
from projects.services import OnResources, delete_project

# A schema asks for metadata, even one that would accept an empty object.
_NO_METADATA = Violation(
    "metadata", "metadata is required, because the project has a metadata schema"
)


# Where the items of a JSON batch are in the request.
in_batch = "body.embeddings[{}]".format


@dataclass(frozen=True)
class Stored:
    """What an upload stored, in its order, and what is odd about it, in sentences."""

    text_ids: list[str]
    warnings: list[str] = field(default_factory=list)


@retry_conflicts
def store_batch(project: Project, batch: Batch, rests_on: Sequence[RowVersion] = ()) -> Stored:
    """Store new embeddings in a project: all of them or none; raise Conflict or Invalid.

    rests_on: what must still be as the caller knows it; else Stale is raised.
    """
    _refuse_repeated(batch)
    with transaction.atomic():
        locked = lock_for_upload(project, rests_on)
        _check(batch, locked, project, in_batch)
        warnings = model_guard.notice(project, locked, batch.vectors)
        try:
            store.insert(project.pk, locked.instance_id, **_columns(batch, locked))
        except store.TextIdExists as error:
            raise _exists(error, batch) from error
        indexes.notice_growth(project, len(batch))
        audit.note_override(None, Verb.CREATE, project, EMBEDDINGS, count=len(batch))
    return Stored(batch.text_ids, warnings)


def _refuse_repeated(batch: Batch) -> None:
    row = batches.repeated(batch.text_ids)
    if row is not None:
        problem = f"text_id '{batch.text_ids[row]}' occurs more than once in the request."
        raise Conflict(problem, errors=[FieldError(f"{in_batch(row)}.text_id", problem)])


def check_batch(project: Project, batch: Batch) -> None:
    """Raise what `store_batch` would for all but the vectors, before they are made."""
    _refuse_repeated(batch)
    with transaction.atomic():
        check_part(project, lock_for_upload(project), batch)


def check_part(
    project: Project,
    locked: Locked,
    batch: Batch,
    *,
    numbers: Sequence[int] | None = None,
    budget: Budget | None = None,
) -> None:
    """Raise what storing would for a part of an upload whose vectors are still to be made.

    numbers: of its rows in a file; None for a JSON batch.
    """
    _check(
        batch, locked, project, in_batch if numbers is None else partial(_row_of, numbers), budget
    )
    known = store.existing(project.pk, batch.text_ids)
    if known:
        raise _exists(store.TextIdExists(sorted(known)), batch, numbers)


class VectorsMissing(Exception):
    """An upload holds texts whose vectors are still to be made."""


@retry_conflicts
def store_parts(
    project: Project, parts: Callable[[], Iterator[Part]], rests_on: Sequence[RowVersion] = ()
) -> Stored:
    """Store the new embeddings of an upload: all of them or none.

    parts: reads them from the start; what it raises goes on. Called again after a deadlock, and to
    find out where an id occurred before.
    rests_on: what must still be as the caller knows it; else Stale is raised.
    Raises Conflict for an id that is stored or given twice, Invalid, and VectorsMissing for a text
    without a vector.
    """
    ids: list[str] = []
    warnings: list[str] = []
    budget = Budget()
    with transaction.atomic():
        locked = lock_for_upload(project, rests_on)
        for part in parts():
            batch, numbers = part.batch, part.numbers
            if batch.to_embed:
                raise VectorsMissing
            row = batches.repeated(batch.text_ids)
            if row is not None:
                raise given_twice(batch.text_ids[row], numbers[row])
            allow_for(batch, budget)
            _check(batch, locked, project, partial(_row_of, numbers), budget)
            if not ids:
                # The first of them stand for all: an upload comes out of one program.
                warnings = model_guard.notice(project, locked, batch.vectors)
            try:
                store.insert(project.pk, locked.instance_id, **_columns(batch, locked))
            except store.TextIdExists as error:
                raise _exists_or_repeats(error, part, parts()) from error
            ids += batch.text_ids
        indexes.notice_growth(project, len(ids))
        audit.note_override(None, Verb.CREATE, project, EMBEDDINGS, count=len(ids))
    return Stored(ids, warnings)


def allow_for(batch: Batch, budget: Budget) -> None:
    """Give the checks of a long upload more time, but no more of it a row than short ones have."""
    budget.seconds += Budget().seconds * len(batch) / batches.MAXIMUM_ITEMS


def _row_of(numbers: Sequence[int], row: int) -> str:
    return f"body.rows[{numbers[row]}]"


def given_twice(text_id: str, number: int) -> Conflict:
    """Return the refusal of an id that occurs before in the same file."""
    problem = f"text_id '{text_id}' occurs more than once in the request."
    return Conflict(problem, errors=[FieldError(f"body.rows[{number}].text_id", problem)])


def _exists_or_repeats(error: store.TextIdExists, part: Part, before: Iterator[Part]) -> Conflict:
    """Return the refusal of ids that others have stored, or that occur in an earlier part."""
    known = set(error.text_ids)
    for earlier in before:
        if earlier.numbers == part.numbers:
            break
        known.difference_update(earlier.batch.text_ids)
    if not known:
        found = set(error.text_ids)
        row = next(row for row, each in enumerate(part.batch.text_ids) if each in found)
        return given_twice(part.batch.text_ids[row], part.numbers[row])
    return _exists(store.TextIdExists(sorted(known)), part.batch, part.numbers)


@dataclass(frozen=True)
class Imported:
    """What became of the rows of a batch.

    known: the ids that were stored already, which is why their rows were skipped.
    refused: the rows that the project's schema refuses, and why.
    warnings: what is odd about the vectors, in sentences.
    """

    stored: int
    replaced: int
    known: set[str]
    refused: dict[int, str]
    warnings: list[str]


@retry_conflicts
def import_batch(project: Project, batch: Batch, *, replace: bool = False) -> Imported:
    """Store those embeddings of a batch that the project accepts; each id occurs once.

    Those whose id is stored already are skipped, or replaced on demand. Raises NotFound or Conflict
    where the project went away or changed its dimensions.
    """
    with transaction.atomic():
        locked = lock_for_upload(project)
        _check_dimensions(batch, locked, project)
        warnings = model_guard.notice(project, locked, batch.vectors)
        if replace:
            refused = _refused(batch, locked, known=set())
            rows = batch.part([row for row in range(len(batch)) if row not in refused])
            created = store.put_all(project.pk, locked.instance_id, **_columns(rows, locked))
            indexes.notice_growth(project, len(rows))
            return Imported(created, len(rows) - created, set(), refused, warnings)
        while True:
            known = store.existing(project.pk, batch.text_ids)
            refused = _refused(batch, locked, known=known)
            rows = batch.part(
                [
                    row
                    for row, text_id in enumerate(batch.text_ids)
                    if text_id not in known and row not in refused
                ]
            )
            try:
                store.insert(project.pk, locked.instance_id, **_columns(rows, locked))
            except store.TextIdExists:
                # Somebody else stored some of them since we looked.
                continue
            indexes.notice_growth(project, len(rows))
            return Imported(len(rows), 0, known, refused, warnings)


def _columns(batch: Batch, locked: Locked) -> dict[str, Any]:
    return {
        "model_id": locked.model_id,
        "text_ids": batch.text_ids,
        "vectors": batch.vectors,
        "texts": batch.texts,
        "metadata": batch.metadata_json,
    }


def _refused(batch: Batch, locked: Locked, *, known: set[str]) -> dict[int, str]:
    """Return which rows break the schema, and how; those of known ids do not count."""
    refused = {}
    for row, violations in _violations(batch, locked.metadata_schema, Budget(math.inf)):
        if batch.text_ids[row] not in known:
            refused[row] = _in_words(violations)
    return refused


def refused_by_schema(schema: str, batch: Batch) -> dict[int, str]:
    """Return which rows of a batch break a schema ("" for none), and how."""
    found = _violations(batch, schema, Budget(math.inf))
    return {row: _in_words(violations) for row, violations in found}


def _in_words(violations: list[Violation]) -> str:
    reasons = "; ".join(f"{each.field}: {each.reason}" for each in violations)
    return f"metadata does not match the project's schema: {reasons}"


def known_ids(project: Project, text_ids: Sequence[str]) -> set[str]:
    """Return which of these ids are stored."""
    return store.existing(project.pk, text_ids)


def put_embedding(
    *, actor: Actor, owner: str, handle: str, text_id: str, body: Callable[[], bytes]
) -> tuple[bool, Project, Row]:
    """Store one embedding, replacing the one of that id.

    Return whether it is new, its project, and what is stored now. Raises as `project_for`; Invalid
    for the body; as `texts.embedded` for one without a vector.
    """
    project = project_to_edit(actor, owner, handle)
    batch = batches.parse_item(body(), expected_by(project), text_id=text_id)
    if batch.to_embed:
        # What would be refused is not embedded.
        with transaction.atomic():
            _check(batch, lock_for_upload(project), project, _in_body)
        batch = texts.embedded(project.instance, batch, _in_body)
    created, row = _put(actor, project, batch, text_id)
    return created, project, row


@retry_conflicts
@transaction.atomic
def _put(actor: Actor, project: Project, batch: Batch, text_id: str) -> tuple[bool, Row]:
    locked = lock_for_upload(project)
    _check(batch, locked, project, _in_body)
    model_guard.notice(project, locked, batch.vectors)
    created = store.put(
        project.pk,
        locked.instance_id,
        text_id=text_id,
        vector=batch.vectors[0],
        text=batch.texts[0],
        metadata=batch.metadata_json[0],
        model_id=locked.model_id,
    )
    row = store.get(project.pk, [text_id])
    indexes.notice_growth(project, 1)
    audit.note_override(actor, Verb.UPDATE, project, EMBEDDINGS, count=1)
    if row is None:
        raise NotFound(missing(project, text_id))
    return created, row


def _in_body(row: int) -> str:
    return "body"


def project_to_edit(actor: Actor, owner: str, handle: str) -> Project:
    """Return the project if the actor may write to it; raise as `project_for`."""
    return project_for(actor, Level.EDITOR, owner=owner, handle=handle)


def expected_by(project: Project) -> Expected:
    """Return what the project demands of its embeddings."""
    instance = project.instance
    return Expected(instance.owner.handle, instance.handle, instance.dimensions)


def hold_embedding(*, actor: Actor, owner: str, handle: str, text_id: str) -> None:
    """Let nobody else change an embedding until the transaction ends.

    Raises as `delete_embedding`.
    """
    project = project_to_edit(actor, owner, handle)
    lock_for_upload(project)
    if not store.hold(project.pk, spellings(text_id)):
        raise NotFound(missing(project, text_id))


@retry_conflicts
@transaction.atomic
def delete_embedding(*, actor: Actor, owner: str, handle: str, text_id: str) -> None:
    """Delete one embedding; raise as `project_for`, and NotFound."""
    project = project_to_edit(actor, owner, handle)
    lock_for_upload(project)
    if not store.remove(project.pk, spellings(text_id)):
        raise NotFound(missing(project, text_id))
    audit.note_override(actor, Verb.DELETE, project, EMBEDDINGS, count=1)


@transaction.atomic
def delete_all_embeddings(*, actor: Actor, owner: str, handle: str) -> int:
    """Delete every embedding of the project; return how many there were."""
    project = project_to_edit(actor, owner, handle)
    wait_for_uploads(project)
    removed = store.remove_all(project.pk)
    audit.note(actor, Verb.DELETE, project, EMBEDDINGS, count=removed)
    return removed


@transaction.atomic
def delete_everything(*, actor: Actor) -> None:
    """Delete all accounts with what they own, and start numbering anew.

    API standards, `_system`, its definitions and the built-in instance stay. Raises Forbidden for
    anybody but administrators, and where the configuration does not allow it.
    """
    require_admin(actor)
    if not settings.ALLOW_RESET:
        raise Forbidden(
            "This server does not allow it; to empty it, start it with ARMARIUM_ALLOW_RESET=true."
        )
    for project in Project.objects.filter(owner__handle=SYSTEM):
        delete_project(
            actor=actor,
            owner=SYSTEM,
            handle=project.handle,
            on_resources=OnResources.DELETE,
        )
    # What an account owns goes with it, whatever higher apps have put there.
    User.objects.exclude(handle=SYSTEM).delete()
    numbered: list[type[Model]] = [User, ApiKey, Project, ProjectShare, Instance, Definition]
    for each in numbered:
        _restart_numbering(each)
    audit.note_about_server(actor, Verb.RESET)


def _restart_numbering(model: type[Model]) -> None:
    """Let the next row have the number after the last.

    Unlike setval, this waits for those who insert at the moment, and is undone with the
    transaction: numbers that were started anew under rows that came back would be given out twice.
    """
    last = model._default_manager.aggregate(last=Max("pk"))["last"] or 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_serial_sequence(%s, 'id')", [model._meta.db_table])
        sequence = cursor.fetchone()[0].split(".")
        restart = sql.SQL("ALTER SEQUENCE {name} RESTART WITH {number}").format(
            name=sql.Identifier(*sequence), number=sql.Literal(last + 1)
        )
        cursor.execute(restart)


def _check(
    batch: Batch,
    locked: Locked,
    project: Project,
    place: Callable[[int], str],
    budget: Budget | None = None,
) -> None:
    """Compare the batch with the project as it is now, under the lock.

    place: where a row of the batch is in the request.
    """
    _check_dimensions(batch, locked, project)
    for row, violations in _violations(batch, locked.metadata_schema, budget or Budget()):
        location = f"{place(row)}.metadata"
        raise Invalid(
            describe(batch.text_ids[row], violations),
            errors=[
                FieldError(
                    location if each is _NO_METADATA else f"{location}.{each.field}", each.reason
                )
                for each in violations
            ],
        )


def _violations(batch: Batch, schema: str, budget: Budget) -> Iterator[tuple[int, list[Violation]]]:
    """Return the rows whose metadata breaks the schema, one by one, and how."""
    if not schema:
        return
    validator = validator_for(schema)
    for row, metadata in enumerate(batch.metadata):
        violations = validator.violations({} if metadata is None else metadata, budget)
        if metadata is None and not violations:
            violations = [_NO_METADATA]
        if violations:
            yield row, violations


class ProjectChanged(Conflict):
    """The project's LLM service is another one than a moment ago."""


def _check_dimensions(batch: Batch, locked: Locked, project: Project) -> None:
    if locked.instance_id != project.instance_id:
        raise ProjectChanged(f"Project '{project}' has just changed its LLM service; try again.")
    if batch.vectors.shape[1] != locked.dimensions:
        raise ProjectChanged(f"The dimensions of project '{project}' have just changed; try again.")


def _exists(
    error: store.TextIdExists, batch: Batch, numbers: Sequence[int] | None = None
) -> Conflict:
    """Return the refusal of ids that are stored; numbers: of the rows, if it is no JSON batch."""
    known = set(error.text_ids)
    name, places = ("embeddings", range(len(batch))) if numbers is None else ("rows", numbers)
    errors = [
        FieldError(f"body.{name}[{place}].text_id", f"text_id '{text_id}' already exists.")
        for place, text_id in zip(places, batch.text_ids, strict=True)
        if text_id in known
    ]
    first = next((each for each in batch.text_ids if each in known), batch.text_ids[0])
    more = f" (and {len(known) - 1} more)" if len(known) > 1 else ""
    return Conflict(
        f"text_id '{first}' already exists{more}; nothing was stored. Delete it first, or replace "
        "it with PUT.",
        errors=errors[:20],
    )


# --- What lower apps ask before a change ----------------------------------------------------------
def refuse_other_dimensions(project: Project, instance: Instance) -> None:
    """Raise Conflict if the project's embeddings would not fit the instance.

    The caller keeps uploads waiting. A project without any may still have the index of those that
    were deleted, which goes: it takes vectors of the old dimensions only.
    """
    stored = store.count(project.pk)
    if stored:
        raise Conflict(
            f"Project '{project}' holds {stored} embeddings of {project.instance.dimensions} "
            f"dimensions; an instance with {instance.dimensions} cannot serve them. Delete them "
            "first, or make a new project."
        )
    store.remove_all(project.pk)


def refuse_new_dimensions(instance: Instance) -> None:
    """Raise Conflict if projects hold embeddings made by the instance; as for one project."""
    used = [each for each in instance.projects.all() if store.count(each.pk)]
    if used:
        raise Conflict(
            f"The dimensions of '{instance}' cannot change: it is in use by {len(used)} projects "
            "that hold embeddings."
        )
    for each in instance.projects.all():
        store.remove_all(each.pk)

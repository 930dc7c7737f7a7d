"""Stores the rows of files that people bring, in the background: jobs that survive a dead worker.

A file is kept under a name of our own until its rows are stored. Which of its columns is what, its
owner says before anything is stored. Each batch of rows is stored, counted and remembered as done
in one transaction, so that a worker that takes a job up again goes on with the next one.
"""

import secrets
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any
from uuid import UUID

from django.conf import settings
from django.core.files import File
from django.core.files.storage import Storage, storages
from django.db import transaction
from django.db.models import QuerySet, Sum
from django.utils import timezone

from accounts.models import User
from accounts.policy import Actor, Level
from common import jobs
from common.errors import (
    BadGateway,
    Conflict,
    DomainError,
    Forbidden,
    GatewayTimeout,
    Invalid,
    NotFound,
    Unavailable,
)
from embeddings import files, services
from embeddings.files import Column, Rejected, Rows, Use, Uses
from embeddings.imports import Checkpoint, Outcome, import_rows
from embeddings.models import ImportJob, ImportProblem, ImportState
from projects.models import Project
from projects.selectors import project_for

WORK = "embeddings.work_import_job"
# How long a file is kept whose rows are not all stored, and how long is told what became of one.
FILES_KEPT_FOR = timedelta(days=1)
JOBS_KEPT_FOR = timedelta(days=30)
MOST_REJECTED = 10_000
MOST_FILES = 20
PREVIEW_ROWS = 10
# Rows that are stored at once; texts that are embedded first take half a second.
_ROWS, _TEXTS = 1_000, 32
_TURN = timedelta(seconds=60)
# Until a provider that failed is asked again.
_PAUSES_S = (10.0, 60.0, 300.0, 900.0)
# Others are more urgent: they are short.
_PRIORITY = -1
_LONGEST_WORDS = 1_000
# A job may be between two of its turns for a moment, and a file be kept before its job is there.
_LOST_AFTER = timedelta(minutes=2)
_ORPHANED_AFTER = timedelta(hours=1)


class TooManyFiles(Forbidden):
    """An account keeps as many files, or bytes of them, as it may."""


# --- Bringing a file ------------------------------------------------------------------------------
def offer(
    *, actor: Actor, owner: str, handle: str, name: str, content: IO[bytes], size: int
) -> ImportJob:
    """Keep a file, and return the job in which somebody is to say what its columns are for.

    name: tells the format; it is never a path. size: in bytes.
    Raises as `project_for`; Invalid for a file that cannot be read, and so Unreadable for one that
    is damaged; TooManyFiles; Unavailable where the disk is full.
    """
    project = services.project_to_edit(actor, owner, handle)
    file_format = _format_of(name, content)
    kept = _keep(content)
    try:
        columns = files.columns_of(_path(kept), file_format)
        with transaction.atomic():
            _check_quota(actor, size)
            return ImportJob.objects.create(
                project=project,
                user=actor.user,
                name=_storable(name)[:255],
                file=kept,
                size=size,
                format=file_format,
                columns=[vars(each) for each in _fitting(columns, project)],
            )
    except BaseException:
        _storage().delete(kept)
        raise


def most_bytes() -> int:
    """Return how large a file may be."""
    return int(settings.MAX_BULK_BYTES)


def _format_of(name: str, content: IO[bytes]) -> str:
    found = files.format_of(name)
    start = content.read(4)
    content.seek(0)
    if not start:
        raise Invalid("The file is empty.")
    if start[:2] == b"\x1f\x8b":
        raise Invalid("The file is compressed; unpack it first, or load it with loadembeddings.")
    if (start == b"PAR1") is not (found == "parquet"):
        raise Invalid("The file is of another format than the end of its name says; rename it.")
    return found


def _fitting(columns: list[Column], project: Project) -> list[Column]:
    """Leave vectors of another model out, where there are texts to be embedded instead."""
    dimensions = project.instance.dimensions
    has_texts = any(each.guess == Use.TEXT for each in columns)
    return [
        Column(each.name, each.kind, each.length, Use.NO, each.examples)
        if each.guess == Use.VECTOR and has_texts and each.length not in (0, dimensions)
        else each
        for each in columns
    ]


def _check_quota(actor: Actor, size: int) -> None:
    """Raise TooManyFiles; counted exactly, one upload of an account after the other."""
    if actor.user is None:
        return
    User.objects.select_for_update(no_key=True).get(pk=actor.user.pk)
    kept = ImportJob.objects.filter(user=actor.user).exclude(file="")
    total = kept.aggregate(total=Sum("size"))["total"] or 0
    if kept.count() >= MOST_FILES or total + size > 2 * settings.MAX_BULK_BYTES:
        raise TooManyFiles(
            f"Your account has {kept.count()} files with {total / 1024**2:.0f} MiB whose rows are "
            "not stored yet, and may have no more. Wait for them, or discard some."
        )


# --- What its columns are for ---------------------------------------------------------------------
@dataclass(frozen=True)
class Shown:
    """A row as it would be stored; problem: why it cannot be, "" where it can."""

    number: int
    text_id: str
    text: str
    metadata: dict[str, Any]
    problem: str


def columns_of(job: ImportJob) -> list[Column]:
    """Return the columns of a job's file."""
    return [Column(**{**each, "guess": Use(each["guess"])}) for each in job.columns]


def preview(job: ImportJob, uses: Uses) -> list[Shown]:
    """Return the first rows of a job's file; raise Unreadable where there are none."""
    with closing(_rows_of(job, uses, PREVIEW_ROWS)) as chunks:
        rows = next(chunks)
    batch = rows.batch
    refused = services.refused_by_schema(job.project.metadata_schema, batch)
    shown = [
        Shown(
            number,
            batch.text_ids[row],
            batch.texts[row],
            batch.metadata[row] or {},
            refused.get(row, ""),
        )
        for row, number in enumerate(rows.numbers)
    ]
    shown += [Shown(each.row, each.text_id, "", {}, each.reason) for each in rows.rejected]
    return sorted(shown, key=lambda each: each.number)[:PREVIEW_ROWS]


def _rows_of(job: ImportJob, uses: Uses, size: int) -> Generator[Rows, None, None]:
    expected = services.expected_by(job.project)
    if not job.file:
        raise Conflict("The file is not kept any more; upload it again.")
    return files.read(_path(job.file), job.format, expected, batch_size=size, uses=uses)


# --- Having it done -------------------------------------------------------------------------------
@transaction.atomic
def begin(
    *, actor: Actor, owner: str, handle: str, job_id: UUID, uses: Uses, replacing: bool
) -> ImportJob:
    """Have the rows of a file stored; raise Conflict where that was asked for already.

    replacing: whether rows whose id is stored replace those; else they are skipped.
    """
    job = _locked(actor, owner, handle, job_id)
    if not job.is_draft:
        raise Conflict(f"The rows of '{job}' are being stored, or were, already.")
    job.uses = {name: use.value for name, use in uses.columns.items()}
    # Kept: whoever goes on with it must meet the same batches.
    job.chunk_rows = _ROWS if uses.name_of(Use.VECTOR) else _TEXTS
    job.replacing, job.state = replacing, ImportState.WAITING
    job.save()
    _ask_for_turn(job)
    return job


def import_jobs_of(actor: Actor, *, owner: str, handle: str) -> QuerySet[ImportJob]:
    """Return the imports of a project that the actor may edit, the newest first."""
    project = services.project_to_edit(actor, owner, handle)
    jobs_of_it = project.import_jobs.select_related("project__owner", "project__instance__owner")
    return jobs_of_it.select_related("user").order_by("-id")


def import_job_for(actor: Actor, *, owner: str, handle: str, job_id: UUID) -> ImportJob:
    """Return an import of a project that the actor may edit; raise as `project_for`, NotFound."""
    return _one(import_jobs_of(actor, owner=owner, handle=handle), job_id)


@transaction.atomic
def cancel(*, actor: Actor, owner: str, handle: str, job_id: UUID) -> ImportJob:
    """Have an import stop after the batch that it works at, or forget a draft.

    Rows that are stored stay. Raises Conflict for one that has ended.
    """
    job = _locked(actor, owner, handle, job_id)
    if not (job.is_active or job.is_draft):
        raise Conflict(f"The import of '{job}' has ended already.")
    _end(job, ImportState.CANCELLED)
    return job


@transaction.atomic
def retry(*, actor: Actor, owner: str, handle: str, job_id: UUID) -> ImportJob:
    """Go on with an import that failed or was cancelled, as the actor; raise Conflict."""
    job = _locked(actor, owner, handle, job_id)
    if job.state not in (ImportState.FAILED, ImportState.CANCELLED) or not job.uses:
        raise Conflict(f"The import of '{job}' has not failed.")
    if not job.file:
        raise Conflict("The file is not kept any more; upload it again.")
    job.user, job.state, job.failures, job.error = actor.user, ImportState.WAITING, 0, ""
    job.finished_at = None
    job.save()
    _ask_for_turn(job)
    return job


def _one(rows: QuerySet[ImportJob], job_id: UUID) -> ImportJob:
    job = rows.filter(pk=job_id).first()
    if job is None:
        raise NotFound(f"The project has no upload {job_id}.")
    return job


def _locked(actor: Actor, owner: str, handle: str, job_id: UUID) -> ImportJob:
    rows = import_jobs_of(actor, owner=owner, handle=handle)
    return _one(rows.select_for_update(of=("self",)), job_id)


def _ask_for_turn(job: ImportJob, *, in_s: float | None = None) -> None:
    jobs.defer(
        WORK,
        lock=f"import into project {job.project_id}",
        queueing_lock=f"import job {job.pk}",
        priority=_PRIORITY,
        schedule_in_s=in_s,
        job_id=str(job.pk),
    )


# --- Doing it -------------------------------------------------------------------------------------
class _Stop(Exception):
    """The job has ended meanwhile, or its turn has."""


def work(job_id: UUID) -> None:
    """Store the rows of a job's file for one turn; then ask for the next."""
    job = _taken_up(job_id)
    if job is None:
        return
    ends_at = timezone.now() + _TURN
    uses = Uses({name: Use(use) for name, use in job.uses.items()})

    def keep(outcome: Outcome, rejected: list[Rejected]) -> None:
        _note(job, outcome, rejected)

    def go_on(outcome: Outcome) -> None:
        jobs.checkpoint()
        if timezone.now() > ends_at:
            raise _Stop

    checkpoint = Checkpoint(job.chunks, _outcome_of(job), keep)
    try:
        outcome = import_rows(
            job.project,
            lambda expected: _rows_of(job, uses, job.chunk_rows),
            replacing=job.replacing,
            max_rejected=MOST_REJECTED,
            on_progress=go_on,
            checkpoint=checkpoint,
        )
    except _Stop:
        _change(job, _ask_for_turn)
    except (BadGateway, GatewayTimeout) as error:
        _postpone(job, error)
    except DomainError as error:
        _fail(job, error.detail)
    else:
        if outcome.stopped:
            _fail(job, outcome.stopped)
        else:
            _change(job, lambda current: _end(current, ImportState.FINISHED))


# What a job and the outcome of an import both tell.
_COUNTED = ("rows", "stored", "replaced", "skipped", "rejected", "fraction", "warnings")


def _outcome_of(job: ImportJob) -> Outcome:
    return Outcome(**{name: getattr(job, name) for name in _COUNTED})


@transaction.atomic
def _taken_up(job_id: UUID) -> ImportJob | None:
    """Return a job to work at, with its project as it is now; None where there is nothing to do."""
    rows = ImportJob.objects.select_for_update(of=("self",))
    job = rows.filter(pk=job_id, state__in=ImportState.active()).first()
    if job is None:
        return None
    try:
        job.project = _editable(job)
    except DomainError as refusal:
        _end(job, ImportState.CANCELLED, _not_theirs(refusal))
        return None
    job.state, job.started_at = ImportState.RUNNING, job.started_at or timezone.now()
    job.save(update_fields=["state", "started_at"])
    return job


def _editable(job: ImportJob) -> Project:
    """Return the project, as it is now, if whoever brought the file may still edit it."""
    project = Project.objects.select_related("owner").get(pk=job.project_id)
    actor = Actor(user=job.user if job.user is not None and job.user.is_active else None)
    return project_for(actor, Level.EDITOR, owner=project.owner.handle, handle=project.handle)


def _not_theirs(refusal: DomainError) -> str:
    return f"Whoever uploaded the file may not edit the project now: {refusal.detail}"


def _note(job: ImportJob, outcome: Outcome, rejected: list[Rejected]) -> None:
    """Remember a batch, in the transaction that stores it; raise _Stop to have it undone."""
    rows = ImportJob.objects.select_for_update(of=("self",))
    current = rows.filter(pk=job.pk, state=ImportState.RUNNING).first()
    if current is None:
        raise _Stop
    # What is revoked is revoked now.
    _editable(current)
    for name in _COUNTED:
        setattr(current, name, getattr(outcome, name))
    current.chunks += 1
    current.failures, current.error = 0, ""
    current.save()
    ImportProblem.objects.bulk_create(
        [
            ImportProblem(
                job=current,
                row=each.row,
                text_id=_storable(each.text_id)[:_LONGEST_WORDS],
                reason=_storable(each.reason)[:_LONGEST_WORDS],
            )
            for each in rejected
        ],
        batch_size=1_000,
    )


def _storable(text: str) -> str:
    """Return a text without what PostgreSQL cannot hold."""
    return text.replace("\0", "�").encode(errors="replace").decode()


def _postpone(job: ImportJob, error: BadGateway | GatewayTimeout) -> None:
    """Have a job go on later, when its provider may answer again, or give it up at last."""

    def note(current: ImportJob) -> None:
        if current.failures >= len(_PAUSES_S):
            _end(current, ImportState.FAILED, error.detail)
            return
        pause_s = max(_PAUSES_S[current.failures], float(error.details.get("retry_after_s", 0)))
        current.failures += 1
        current.error = error.detail[:_LONGEST_WORDS]
        current.save(update_fields=["failures", "error"])
        _ask_for_turn(current, in_s=pause_s)

    _change(job, note)


def _fail(job: ImportJob, reason: str) -> None:
    _change(job, lambda current: _end(current, ImportState.FAILED, reason))


@transaction.atomic
def _change(job: ImportJob, change: Callable[[ImportJob], object]) -> None:
    """Change a job unless somebody has ended it meanwhile."""
    rows = ImportJob.objects.select_for_update(of=("self",))
    current = rows.filter(pk=job.pk, state=ImportState.RUNNING).first()
    if current is not None:
        change(current)


def _end(job: ImportJob, state: ImportState, error: str = "") -> None:
    """End a job; its file goes, unless somebody may want to try it again."""
    job.state, job.error = state, error[:_LONGEST_WORDS]
    job.finished_at = timezone.now()
    if state == ImportState.FINISHED or not job.uses:
        _forget_file(job)
    job.save(update_fields=["state", "error", "finished_at", "file"])


# --- Files ----------------------------------------------------------------------------------------
def _storage() -> Storage:
    return storages["uploads"]


def _path(name: str) -> Path:
    return Path(_storage().path(name))


def _keep(content: IO[bytes]) -> str:
    """Write a file to the disk under a name of ours, which is returned; raise Unavailable."""
    try:
        return _storage().save(secrets.token_hex(16), File(content))
    except OSError as error:
        raise Unavailable("The server has no room for the file at the moment.") from error


def _forget_file(job: ImportJob) -> None:
    """Delete a job's file once that it has none is committed."""
    name, job.file = job.file, ""
    if name:
        transaction.on_commit(lambda: _storage().delete(name))


# --- Keeping house --------------------------------------------------------------------------------
def sweep() -> None:
    """End jobs that no worker takes up again: they failed in a way that `work` did not expect."""
    asked_for = jobs.arguments_of_unfinished(WORK, "job_id")
    active = ImportJob.objects.filter(
        state__in=ImportState.active(), created_at__lt=timezone.now() - _LOST_AFTER
    )
    for job in active:
        if str(job.pk) not in asked_for:
            _lose(job.pk)


@transaction.atomic
def _lose(job_id: UUID) -> None:
    rows = ImportJob.objects.select_for_update(of=("self",))
    job = rows.filter(pk=job_id, state__in=ImportState.active()).first()
    # Looked for once more: it may have asked for its next turn.
    if job is not None and str(job_id) not in jobs.arguments_of_unfinished(WORK, "job_id"):
        _end(job, ImportState.FAILED, "It failed for a reason that the server's log tells.")


def tidy() -> None:
    """Delete old drafts, the files of imports that stopped a day ago, and what belongs to none."""
    now = timezone.now()
    drafts = ImportJob.objects.filter(state=ImportState.DRAFT)
    drafts.filter(created_at__lt=now - FILES_KEPT_FOR).delete()
    ImportJob.objects.filter(finished_at__lt=now - JOBS_KEPT_FOR).delete()
    ImportJob.objects.filter(finished_at__lt=now - FILES_KEPT_FOR).exclude(file="").update(file="")
    if not _storage().exists(""):
        return
    _, names = _storage().listdir("")
    known = set(ImportJob.objects.exclude(file="").values_list("file", flat=True))
    for name in set(names) - known:
        if _storage().get_modified_time(name) < now - _ORPHANED_AFTER:
            _storage().delete(name)

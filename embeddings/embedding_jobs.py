"""Embeds texts in the background: jobs that survive whatever kills the worker.

The texts lie in the database from the moment in which they are accepted. They are embedded piece
by piece, outside of transactions; what a provider returns is kept as it comes (`llm_services`). A
piece is stored, counted and taken out of the job in one transaction. So a worker that takes a job
up again goes on where the last piece ended, and asks the provider only for what never came.
"""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from uuid import UUID

import numpy as np
import orjson
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts import audit
from accounts.audit import EMBEDDINGS, Verb
from accounts.authentication import Credentials
from accounts.policy import BOOTSTRAP_ADMIN, Actor, Level
from common import bodies, jobs
from common.database import retry_conflicts
from common.errors import BadGateway, Conflict, DomainError, GatewayTimeout, NotFound
from common.versions import Stale
from embeddings import batches, services, texts
from embeddings.batches import Batch
from embeddings.files import Part
from embeddings.models import EmbeddingJob, EmbeddingJobItem, JobState
from llm_services.embedding import is_local
from projects import access
from projects.metadata import Budget
from projects.models import Project
from projects.selectors import lock_for_upload, project_for

WORK = "embeddings.work_embedding_job"
KEPT_FOR = timedelta(days=30)
# Texts of a piece: as many as a provider gets at once, or as the built-in model makes in a second.
_PIECE, _LOCAL_PIECE = 512, 64
# How long a job works until others of its project and of other projects have their turn.
_TURN_S = 20.0
# Until a provider that failed is asked again.
_PAUSES_S = (10.0, 60.0, 300.0, 900.0)
# Others are more urgent: they are short.
_PRIORITY = -1
_LONGEST_ERROR = 1_000
_MOST_WARNINGS = 20
# A job may be between two of its turns for a moment.
_LOST_AFTER = timedelta(minutes=2)


# --- Asking for one -------------------------------------------------------------------------------
def upload(
    credentials: Credentials,
    *,
    owner: str,
    handle: str,
    body: Callable[[], bytes],
    in_background: bool,
    note: Callable[[Actor], None],
) -> services.Stored | EmbeddingJob:
    """Store the new embeddings of a JSON body: all of them or none.

    Return what was stored; or the job that embeds the texts without a vector, where those are too
    many for one request or the caller wants it.

    body: reads the request; called once the actor is known to be allowed to write.
    note: is told who that is.
    Raises as `project_for`; Invalid for the body; Conflict for an id that is stored or given twice;
    as `texts.embedded`.
    """
    content = bodies.once(body)
    known = access.remembered(credentials, owner=owner, handle=handle, level=Level.EDITOR)
    refusal: DomainError | None = None
    if known is not None:
        note(known.actor)
        # What is remembered may be true no longer. Locking finds out; a refusal may rest on it.
        try:
            batch = batches.parse_batch(content(), services.expected_by(known.project))
            if not batch.to_embed:
                return services.store_batch(known.project, batch, known.rests_on)
        except Stale:
            pass
        except DomainError as error:
            refusal = error
    fresh = access.look_up(credentials, owner=owner, handle=handle, level=Level.EDITOR)
    note(fresh.actor)
    if refusal is not None and known is not None and fresh.rests_on == known.rests_on:
        raise refusal
    return _upload(fresh.actor, fresh.project, content, in_background=in_background)


def _upload(
    actor: Actor, project: Project, body: Callable[[], bytes], *, in_background: bool
) -> services.Stored | EmbeddingJob:
    batch = batches.parse_batch(body(), services.expected_by(project))
    if batch.to_embed:
        services.check_batch(project, batch)
        if in_background or not texts.fit_into_request(project.instance, batch):
            numbers = list(range(len(batch)))
            return start(actor, project, lambda: iter([Part(batch, numbers)]), in_file=False)
        batch = texts.embedded(project.instance, batch, services.in_batch)
        # The provider may have taken its time.
        services.project_to_edit(actor, project.owner.handle, project.handle)
    return services.store_batch(project, batch)


@retry_conflicts
def start(
    actor: Actor, project: Project, parts: Callable[[], Iterator[Part]], *, in_file: bool
) -> EmbeddingJob:
    """Have the texts of an upload embedded in the background.

    parts: reads them from the start; called again after a deadlock.
    in_file: whether the numbers of its parts are those of a file's rows.
    Raises Conflict for an id that is stored, given twice or waiting in another job, and Invalid for
    metadata.
    """
    budget = Budget()
    with transaction.atomic():
        locked = lock_for_upload(project)
        job = EmbeddingJob.objects.create(
            project=project, user=actor.user, by_admin_key=actor.user is None
        )
        for part in parts():
            numbers = part.numbers if in_file else None
            services.allow_for(part.batch, budget)
            services.check_part(project, locked, part.batch, numbers=numbers, budget=budget)
            _refuse_known(job, part)
            _add_items(job, part)
            job.total += len(part.batch)
        job.save(update_fields=["total"])
        _ask_for_turn(job)
        audit.note_override(actor, Verb.CREATE, project, EMBEDDINGS, count=job.total)
    return job


def _refuse_known(job: EmbeddingJob, part: Part) -> None:
    """Raise Conflict for an id that the job, or another one of its project, holds already."""
    ids = part.batch.text_ids
    row = batches.repeated(ids)
    items = EmbeddingJobItem.objects.filter(text_id__in=ids)
    if row is None:
        earlier = set(items.filter(job=job).values_list("text_id", flat=True))
        row = next((row for row, each in enumerate(ids) if each in earlier), None)
    if row is not None:
        raise services.given_twice(ids[row], part.numbers[row])
    waiting = items.filter(job__project=job.project, job__state__in=JobState.active(), error="")
    other = waiting.first()
    if other is not None:
        raise Conflict(
            f"text_id '{other.text_id}' waits to be embedded already, in job {other.job_id}; "
            "nothing was stored."
        )


def _add_items(job: EmbeddingJob, part: Part) -> None:
    batch = part.batch
    wanted = set(batch.to_embed)
    EmbeddingJobItem.objects.bulk_create(
        [
            EmbeddingJobItem(
                job=job,
                number=part.numbers[row],
                text_id=text_id,
                text=batch.texts[row],
                metadata=None if batch.metadata[row] is None else batch.metadata_json[row].decode(),
                vector=None if row in wanted else batch.vectors[row].astype("<f4").tobytes(),
            )
            for row, text_id in enumerate(batch.text_ids)
        ],
        batch_size=1_000,
    )


def _ask_for_turn(job: EmbeddingJob, *, in_s: float | None = None) -> None:
    jobs.defer(
        WORK,
        lock=f"embedding for project {job.project_id}",
        queueing_lock=f"embedding job {job.pk}",
        priority=_PRIORITY,
        schedule_in_s=in_s,
        job_id=str(job.pk),
    )


# --- Looking at them, and changing one's mind -----------------------------------------------------
def jobs_of(actor: Actor, *, owner: str, handle: str) -> QuerySet[EmbeddingJob]:
    """Return the jobs of a project that the actor may edit, the newest first."""
    project = services.project_to_edit(actor, owner, handle)
    return project.embedding_jobs.select_related("project__owner").order_by("-id")


def job_for(actor: Actor, *, owner: str, handle: str, job_id: UUID) -> EmbeddingJob:
    """Return a job of a project that the actor may edit; raise as `project_for`, and NotFound."""
    return _one(jobs_of(actor, owner=owner, handle=handle), job_id)


def failures_of(job: EmbeddingJob) -> QuerySet[EmbeddingJobItem]:
    """Return the texts of a job that failed, in the order of the request."""
    return job.items.exclude(error="").order_by("number")


@transaction.atomic
def cancel(*, actor: Actor, owner: str, handle: str, job_id: UUID) -> EmbeddingJob:
    """Have a job stop after the piece that it works at; raise Conflict for one that has ended."""
    job = _locked(actor, owner, handle, job_id)
    if not job.is_active:
        raise Conflict(f"Job {job.pk} has ended already: it is {job.state}.")
    _end(job, JobState.CANCELLED)
    return job


@transaction.atomic
def retry(*, actor: Actor, owner: str, handle: str, job_id: UUID) -> EmbeddingJob:
    """Try again what an ended job did not store, as the actor; raise Conflict for nothing."""
    job = _locked(actor, owner, handle, job_id)
    if job.is_active:
        raise Conflict(f"Job {job.pk} has not ended yet: it is {job.state}.")
    if job.done == job.total:
        raise Conflict(f"Job {job.pk} has nothing to try again: all of its texts are stored.")
    job.items.exclude(error="").update(error="")
    job.user, job.by_admin_key = actor.user, actor.user is None
    job.state, job.failed, job.failures, job.error = JobState.WAITING, 0, 0, ""
    job.warnings = []
    job.finished_at = None
    job.save()
    _ask_for_turn(job)
    return job


@transaction.atomic
def delete(*, actor: Actor, owner: str, handle: str, job_id: UUID) -> None:
    """Forget an ended job, and the texts that it did not store; raise Conflict for another one."""
    job = _locked(actor, owner, handle, job_id)
    if job.is_active:
        raise Conflict(f"Job {job.pk} has not ended yet: cancel it first.")
    job.delete()


def _one(rows: QuerySet[EmbeddingJob], job_id: UUID) -> EmbeddingJob:
    job = rows.filter(pk=job_id).first()
    if job is None:
        raise NotFound(f"The project has no embedding job {job_id}.")
    return job


def _locked(actor: Actor, owner: str, handle: str, job_id: UUID) -> EmbeddingJob:
    rows = jobs_of(actor, owner=owner, handle=handle)
    return _one(rows.select_for_update(of=("self",)), job_id)


def _end(job: EmbeddingJob, state: JobState, error: str = "") -> None:
    job.state, job.error, job.finished_at = state, error[:_LONGEST_ERROR], timezone.now()
    job.save(update_fields=["state", "error", "finished_at"])


# --- Working at them ------------------------------------------------------------------------------
def work(job_id: UUID) -> None:
    """Embed and store the texts of a job, piece by piece, for one turn; then ask for the next."""
    ends_at = time.monotonic() + _TURN_S
    while (job := _taken_up(job_id)) is not None:
        jobs.checkpoint()
        if time.monotonic() > ends_at:
            _ask_for_turn(job)
            return
        size = _LOCAL_PIECE if is_local(job.project.instance) else _PIECE
        items = list(job.items.filter(error="").order_by("number")[:size])
        try:
            if not items:
                _finish(job)
                return
            _work_at(job, items)
        except (BadGateway, GatewayTimeout) as error:
            _postpone(job, error)
            return
        except DomainError as error:
            _give_up(job, error.detail)
            return


@transaction.atomic
def _taken_up(job_id: UUID) -> EmbeddingJob | None:
    """Return a job to work at, with its project as it is now; None where there is nothing to do.

    A job has the rights of whoever asked for it, as they are now.
    """
    # The project's row is read only: whoever changes it is not waited for.
    rows = EmbeddingJob.objects.select_for_update(of=("self",))
    job = rows.filter(pk=job_id, state__in=JobState.active()).first()
    if job is None:
        return None
    project = Project.objects.select_related("owner").get(pk=job.project_id)
    try:
        where = {"owner": project.owner.handle, "handle": project.handle}
        job.project = project_for(_actor_of(job), Level.EDITOR, **where)
    except DomainError as refusal:
        _end(job, JobState.CANCELLED, f"Whoever asked for it may not edit it now: {refusal.detail}")
        return None
    if job.state != JobState.RUNNING:
        job.state, job.started_at = JobState.RUNNING, job.started_at or timezone.now()
        job.save(update_fields=["state", "started_at"])
    return job


def _actor_of(job: EmbeddingJob) -> Actor:
    if job.by_admin_key:
        return BOOTSTRAP_ADMIN
    return Actor(user=job.user if job.user is not None and job.user.is_active else None)


def _work_at(job: EmbeddingJob, items: list[EmbeddingJobItem]) -> None:
    """Embed a piece of a job, and store it."""
    began = time.monotonic()
    batch, failures = _batch(items, job.project.instance.dimensions)
    rows = [row for row in range(len(items)) if row not in failures]
    made = texts.embedded_one_by_one(job.project.instance, batch)
    failures |= {rows[row]: reason for row, reason in made.refused.items()}
    numbers = [rows[row] for row in made.rows]
    try:
        _store(job, items, made, numbers, failures, began)
    except (services.ProjectChanged, NotFound):
        # The next look at the project sees what it is now, and whose.
        return


def _batch(items: list[EmbeddingJobItem], dimensions: int) -> tuple[Batch, dict[int, str]]:
    """Return the items that can be stored as a batch, and why others cannot, by their place."""
    failures = {
        place: f"vector has {len(item.vector) // 4} elements, and the project's LLM service "
        f"expects {dimensions} now."
        for place, item in enumerate(items)
        if item.vector is not None and len(item.vector) != 4 * dimensions
    }
    kept = [item for place, item in enumerate(items) if place not in failures]
    vectors = np.zeros((len(kept), dimensions), dtype=np.float32)
    for row, item in enumerate(kept):
        if item.vector is not None:
            vectors[row] = np.frombuffer(item.vector, dtype="<f4")
    batch = Batch(
        vectors,
        [item.text_id for item in kept],
        [item.text for item in kept],
        [None if item.metadata is None else orjson.loads(item.metadata) for item in kept],
        [b"{}" if item.metadata is None else item.metadata.encode() for item in kept],
        [row for row, item in enumerate(kept) if item.vector is None],
    )
    return batch, failures


@retry_conflicts
def _store(
    job: EmbeddingJob,
    items: list[EmbeddingJobItem],
    made: texts.Embedded,
    places: list[int],
    failures: dict[int, str],
    began: float,
) -> None:
    """Store what was embedded of a piece, and note it, in one transaction.

    places: which item each row of the batch is. failures: why others cannot be stored.
    """
    failures = dict(failures)
    with transaction.atomic():
        # In the order in which whoever deletes a project locks them.
        lock_for_upload(job.project)
        rows = EmbeddingJob.objects.select_for_update(of=("self",))
        current = rows.filter(pk=job.pk, state=JobState.RUNNING).first()
        if current is None:
            return
        stored = services.import_batch(job.project, made.batch)
        failures |= {places[row]: reason for row, reason in stored.refused.items()}
        for row, text_id in enumerate(made.batch.text_ids):
            if text_id in stored.known:
                failures[places[row]] = "text_id was stored by somebody else meanwhile."
        _note(items, failures)
        took_s = (time.monotonic() - began) / len(items)
        pace_s = current.seconds_per_text
        current.seconds_per_text = took_s if pace_s is None else 0.7 * pace_s + 0.3 * took_s
        current.done += len(items) - len(failures)
        current.failed += len(failures)
        tokens = current.tokens
        current.tokens = None if tokens is None or made.tokens is None else tokens + made.tokens
        current.failures, current.error = 0, ""
        current.warnings = _added(current.warnings, stored.warnings)
        current.save()


def _added(known: list[str], warnings: list[str]) -> list[str]:
    """Return the warnings that are known and those that are new, each once, up to a number."""
    return list(dict.fromkeys([*known, *warnings]))[:_MOST_WARNINGS]


def _note(items: list[EmbeddingJobItem], failures: dict[int, str]) -> None:
    failed = []
    for place, reason in failures.items():
        items[place].error = reason[:_LONGEST_ERROR]
        failed.append(items[place])
    EmbeddingJobItem.objects.bulk_update(failed, ["error"])
    stored = [item.pk for place, item in enumerate(items) if place not in failures]
    EmbeddingJobItem.objects.filter(pk__in=stored).delete()


def _finish(job: EmbeddingJob) -> None:
    _change(job, partial(_end, state=JobState.FINISHED))


def _give_up(job: EmbeddingJob, reason: str) -> None:
    _change(job, partial(_end, state=JobState.FAILED, error=reason))


def _postpone(job: EmbeddingJob, error: BadGateway | GatewayTimeout) -> None:
    """Have a job go on later, when its provider may answer again, or give it up at last."""

    def note(current: EmbeddingJob) -> None:
        if current.failures >= len(_PAUSES_S):
            _end(current, JobState.FAILED, error.detail)
            return
        pause_s = max(_PAUSES_S[current.failures], float(error.details.get("retry_after_s", 0)))
        current.failures += 1
        current.error = error.detail[:_LONGEST_ERROR]
        current.save(update_fields=["failures", "error"])
        _ask_for_turn(current, in_s=pause_s)

    _change(job, note)


@transaction.atomic
def _change(job: EmbeddingJob, change: Callable[[EmbeddingJob], object]) -> None:
    """Change a job unless somebody has ended it meanwhile."""
    rows = EmbeddingJob.objects.select_for_update(of=("self",))
    current = rows.filter(pk=job.pk, state=JobState.RUNNING).first()
    if current is not None:
        change(current)


# --- Keeping house --------------------------------------------------------------------------------
def sweep() -> None:
    """End jobs that no worker takes up again: they failed in a way that `work` did not expect."""
    asked_for = jobs.arguments_of_unfinished(WORK, "job_id")
    active = EmbeddingJob.objects.filter(
        state__in=JobState.active(), created_at__lt=timezone.now() - _LOST_AFTER
    )
    for job in active:
        if str(job.pk) not in asked_for:
            _lose(job.pk)


@transaction.atomic
def _lose(job_id: UUID) -> None:
    rows = EmbeddingJob.objects.select_for_update(of=("self",))
    job = rows.filter(pk=job_id, state__in=JobState.active()).first()
    # Looked for once more: it may have asked for its next turn.
    if job is not None and str(job_id) not in jobs.arguments_of_unfinished(WORK, "job_id"):
        _end(job, JobState.FAILED, "It failed for a reason that the server's log tells.")


def forget_old() -> None:
    """Delete jobs that ended long ago, with the texts that they did not store."""
    EmbeddingJob.objects.filter(finished_at__lt=timezone.now() - KEPT_FOR).delete()

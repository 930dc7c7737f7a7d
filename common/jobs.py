"""Background jobs: how apps declare tasks and ask for them. PostgreSQL is the queue.

A task is an ordinary function in an app's `tasks.py`, which is found by itself:

    @jobs.task("embeddings.seal")
    def seal(*, project_id: int) -> None: ...

    jobs.defer("embeddings.seal", project_id=5, lock="project 5")

`manage.py worker` runs what is committed, at least once: a task must bear to be run again from its
start, after a part of it is done. Arguments are JSON, are kept and can be read: never secrets, keys
of rows rather than their texts.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import psycopg
import structlog
from django.db import IntegrityError, connection, connections, transaction
from django.db.models import F
from django.db.models.fields.json import KeyTextTransform
from django.utils import timezone
from procrastinate.contrib.django import app
from procrastinate.contrib.django.django_connector import DjangoConnector
from procrastinate.contrib.django.models import ProcrastinateJob
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from procrastinate.job_context import JobContext
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from procrastinate.tasks import configure_task

from common.database import ATTEMPTS
from common.errors import Conflict, DomainError, NotFound
from common.models import JobFailure

# Between the tries of a job; one more try than pauses.
PAUSES_S = (10, 60)
TRIES = len(PAUSES_S) + 1
ANOTHER_WAITS = "Another job for the same work was waiting already."
WORKER_DIED = "The worker ended in the middle of it."
# Procrastinate says it for new jobs only, not for those that a lock held back or that come back.
WAKE_WORKERS = """
    SELECT pg_notify('procrastinate_any_queue_v1', '{"type": "job_inserted", "job_id": 0}')
"""
_SERVER_ERROR = 500
_LONGEST_REASON = 1000

# Set when the worker was asked to stop.
stopping = threading.Event()

F_ = TypeVar("F_", bound=Callable[..., None])

_log = structlog.get_logger("armarium.jobs")
_running: ContextVar[Job | None] = ContextVar("running_job", default=None)
# Works on Django's connection. The app's own does not in a worker, and jobs ask for jobs, too.
manager = JobManager(DjangoConnector())


class Interrupted(Exception):
    """The worker is to stop. The job is run again at the next start, and this was not a try."""


def task(name: str, *, pauses_s: Sequence[float] = PAUSES_S) -> Callable[[F_], F_]:
    """Declare a function, which takes keywords, as the task of a name.

    What it raises fails the job, which is tried again after the pauses; a refusal (DomainError
    below 500) fails it at once, because it would be the same next time.
    """

    def declare(function: F_) -> F_:
        app.task(name=name, retry=_Tries(pauses_s))(function)
        return function

    return declare


def periodic(name: str, *, cron: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Declare a function without arguments as a task that runs at the times of a cron line (UTC).

    One that was missed while no worker ran is made up for, once, within a day.
    """

    def declare(function: Callable[[], None]) -> Callable[[], None]:
        @wraps(function)
        def run(timestamp: int) -> None:
            function()

        declared = app.task(name=name, retry=_Tries(PAUSES_S), lock=name, queueing_lock=name)(run)
        app.periodic(cron=cron)(declared)
        return function

    return declare


def defer(
    task: str,
    *,
    lock: str | None = None,
    queueing_lock: str | None = None,
    priority: int = 0,
    schedule_in_s: float | None = None,
    **arguments: Any,
) -> bool:
    """Ask for a job. It is there once the caller's transaction is committed, and only then.

    lock: of jobs with the same lock one runs at a time, in the order in which they were asked for.
    queueing_lock: where a job with this lock waits already, that one will do, and False is
    returned. It does not start before the caller's transaction ends, so that it sees what this
    wrote: ask late in a transaction, or others that do the same hold it up, too.
    priority: jobs with a higher one start first.
    schedule_in_s: the job starts no earlier than in so many seconds.
    Raises LookupError for an unknown task, and Django's errors of the database.
    """
    if task not in app.tasks:
        raise LookupError(f"There is no task '{task}'.")
    deferrer = configure_task(
        name=task,
        job_manager=manager,
        lock=lock,
        queueing_lock=queueing_lock,
        priority=priority,
        schedule_in=None if schedule_in_s is None else {"milliseconds": int(schedule_in_s * 1000)},
    )
    # Bounded for transactions of an isolation that does not show what others have committed since.
    for _ in range(ATTEMPTS):
        if queueing_lock is not None and _hold_waiting(queueing_lock):
            break
        try:
            # A savepoint: that a job waits already must not end the caller's transaction.
            with transaction.atomic():
                deferrer.defer(**arguments)
        except AlreadyEnqueued:
            # Somebody else was quicker.
            continue
        except ConnectorException as error:
            raise _django_error(error) from error
        else:
            return True
    return False


def arguments_of_unfinished(task: str, name: str) -> set[str]:
    """Return the values of an argument among the jobs of a task that wait or are being done."""
    unfinished = ProcrastinateJob.objects.filter(
        task_name=task, status__in=[Status.TODO.value, Status.DOING.value]
    )
    return set(unfinished.values_list(KeyTextTransform(name, "args"), flat=True))


def checkpoint() -> None:
    """Raise Interrupted when the worker is to stop; for long tasks, between steps that last."""
    if stopping.is_set() and _running.get() is not None:
        raise Interrupted


def is_running() -> bool:
    """Say whether this is done for a job."""
    return _running.get() is not None


def retry(job_id: int) -> str:
    """Put a failed job back into the queue, with all its tries; return its task.

    Raises NotFound, and Conflict for a job that has not failed or whose work another will do.
    """
    with transaction.atomic():
        job = ProcrastinateJob.objects.select_for_update(of=("self",)).filter(pk=job_id).first()
        if job is None:
            raise NotFound(f"There is no job {job_id}.")
        if job.status != Status.FAILED.value:
            raise Conflict(f"Job {job_id} has not failed: it is {job.status}.")
        if not _put_back(job_id):
            raise Conflict(f"Job {job_id} is not needed: another job for the same work waits.")
        ProcrastinateJob.objects.filter(pk=job_id).update(attempts=0)
        return str(job.task_name)


def _hold_waiting(queueing_lock: str) -> bool:
    """Keep a waiting job from starting before this transaction ends; False where none waits."""
    with connection.cursor() as cursor:
        # Workers pass over rows that somebody else has locked.
        cursor.execute(
            "SELECT 1 FROM procrastinate_jobs WHERE queueing_lock = %s AND status = 'todo'"
            " FOR KEY SHARE",
            [queueing_lock],
        )
        return cursor.fetchone() is not None


def _django_error(error: ConnectorException) -> Exception:
    if not isinstance(error.__cause__, psycopg.Error):
        return error
    try:
        with connection.wrap_database_errors:
            raise error.__cause__
    except Exception as translated:  # noqa: BLE001
        return translated


class _Tries(BaseRetryStrategy):
    def __init__(self, pauses_s: Sequence[float]) -> None:
        self._pauses_s = pauses_s

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        if isinstance(exception, Interrupted):
            return RetryDecision(retry_at=timezone.now())
        if isinstance(exception, DomainError) and exception.status < _SERVER_ERROR:
            return None
        if job.attempts >= len(self._pauses_s):
            return None
        pause_ms = int(self._pauses_s[job.attempts] * 1000)
        return RetryDecision(retry_in={"milliseconds": pause_ms})


# --- What a worker needs --------------------------------------------------------------------------
def watched(call_next: Callable[[], Any], context: JobContext, worker: object) -> Any:
    """Run a job: with a log line, its failure noted, and no transaction left open.

    A middleware of procrastinate's, in the thread in which the task runs.
    """
    job = context.job
    log = _log.bind(job=job.id, task=job.task_name, attempt=job.attempts + 1)
    log.debug("job_started")
    began = time.monotonic()
    token = _running.set(job)
    try:
        result = call_next()
    except Interrupted:
        # Procrastinate will count it.
        _leave_no_transaction()
        _uncount([job.id or 0])
        log.info("job_interrupted")
        raise
    except Exception as error:
        log.exception("job_failed")
        _leave_no_transaction()
        note_failure(job.id or 0, f"{type(error).__name__}: {error}")
        raise
    finally:
        _running.reset(token)
        _leave_no_transaction()
    log.info("job_succeeded", seconds=round(time.monotonic() - began, 3))
    return result


def note_failure(job_id: int, reason: str) -> None:
    """Keep why the last try of a job failed."""
    # PostgreSQL's text holds neither.
    storable = reason.replace("\0", "").encode(errors="replace").decode()
    JobFailure.objects.update_or_create(
        job_id=job_id,
        defaults={"reason": storable[:_LONGEST_REASON], "failed_at": timezone.now()},
    )


@dataclass(frozen=True)
class TakenUp:
    """A job that a worker has left unfinished, and what became of it."""

    id: int
    task: str
    status: str


def take_up_stalled(silent_s: float) -> list[TakenUp]:
    """Put jobs back into the queue whose worker has not been heard of for so many seconds.

    It counts as a try: a job that kills its worker is failed after the last one, too.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        # The lock makes sure that of several workers one takes a job up, and that it still is as
        # it was found.
        cursor.execute(
            "SELECT job.id, job.task_name, job.attempts FROM procrastinate_jobs job"
            " LEFT JOIN procrastinate_workers worker ON worker.id = job.worker_id"
            " WHERE job.status = 'doing' AND (worker.id IS NULL"
            " OR worker.last_heartbeat < now() - make_interval(secs => %s))"
            " FOR UPDATE OF job SKIP LOCKED",
            [silent_s],
        )
        taken_up = []
        for job_id, name, attempts in cursor.fetchall():
            note_failure(job_id, WORKER_DIED)
            is_last = attempts + 1 >= TRIES
            status = _finish(job_id, Status.FAILED) if is_last else _put_back_or_abort(job_id)
            taken_up.append(TakenUp(job_id, name, status.value))
        cursor.execute("SELECT procrastinate_prune_stalled_workers_v1(%s)", [silent_s])
    for each in taken_up:
        _log.warning("job_taken_up", job=each.id, task=each.task, status=each.status)
    return taken_up


def give_back(worker_id: int) -> list[int]:
    """Put what a worker is doing back into the queue, not counted as a try; return the jobs."""
    with transaction.atomic():
        held = ProcrastinateJob.objects.filter(worker_id=worker_id, status=Status.DOING.value)
        ids = list(held.select_for_update(of=("self",)).values_list("pk", flat=True))
        _uncount(ids)
        for job_id in ids:
            _put_back_or_abort(job_id)
    return ids


def _put_back_or_abort(job_id: int) -> Status:
    if _put_back(job_id):
        return Status.TODO
    # Whoever asked for the one that waits wanted the same work.
    note_failure(job_id, ANOTHER_WAITS)
    return _finish(job_id, Status.ABORTED)


def _put_back(job_id: int) -> bool:
    """Have a job run again; False where its queueing lock is taken by one that waits."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT procrastinate_retry_job_v2(%s, now(), NULL, NULL, NULL)", [job_id]
            )
            cursor.execute(WAKE_WORKERS)
    except IntegrityError:
        return False
    return True


def _finish(job_id: int, status: Status) -> Status:
    with connection.cursor() as cursor:
        cursor.execute("SELECT procrastinate_finish_job_v1(%s, %s, false)", [job_id, status.value])
    return status


def _uncount(job_ids: Sequence[int]) -> None:
    ProcrastinateJob.objects.filter(pk__in=job_ids).update(attempts=F("attempts") - 1)


def _leave_no_transaction() -> None:
    """Close connections of this thread that a task has left in the middle of a transaction."""
    for each in connections.all(initialized_only=True):
        inner = each.connection
        if inner is not None and inner.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            each.close()

"""Background jobs in tests: running them in the test itself, and workers as real processes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import connection, transaction
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob
from procrastinate.jobs import Job, Status

from common import jobs
from config.settings import BASE_DIR

_LIMIT = 1000


def run_jobs(*, again: bool = False) -> list[str]:
    """Run the jobs that wait, one after the other, as a worker would; return their tasks.

    On the connection of the test, so that it works in ordinary tests, which are one transaction, as
    well as in those with `transaction=True`. What a job asks for runs, too; what is scheduled for
    later does not. A job that fails is noted as a worker would, and nothing is raised.

    again: whether jobs that failed are tried again at once, until they are failed for good.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT worker_id FROM procrastinate_register_worker_v1()")
        (worker_id,) = cursor.fetchone()
    done = []
    while job := async_to_sync(jobs.manager.fetch_job)(queues=None, worker_id=worker_id):
        # Django's connections leave JSON to Django's fields.
        arguments: Any = job.task_kwargs
        _run(job.evolve(task_kwargs=json.loads(arguments)), again=again)
        done.append(job.task_name)
        assert len(done) < _LIMIT, "jobs ask for jobs without end"
    async_to_sync(jobs.manager.unregister_worker)(worker_id)
    return done


def _run(job: Job, *, again: bool) -> None:
    task = app.tasks[job.task_name]
    # A statement that fails would end the test's transaction otherwise.
    savepoint = transaction.atomic() if connection.in_atomic_block else nullcontext()
    try:
        with savepoint:
            task(**job.task_kwargs)
    except Exception as error:  # noqa: BLE001
        jobs.note_failure(job.id or 0, f"{type(error).__name__}: {error}")
        retry = task.get_retry_exception(exception=error, job=job)
        if retry is None:
            _finish(job, Status.FAILED)
        else:
            async_to_sync(jobs.manager.retry_job)(job, retry.retry_decision.retry_at)
            if again:
                ProcrastinateJob.objects.filter(pk=job.id).update(scheduled_at=None)
    else:
        _finish(job, Status.SUCCEEDED)


def _finish(job: Job, status: Status) -> None:
    async_to_sync(jobs.manager.finish_job)(job, status, False)


def forget_jobs() -> None:
    """Delete all jobs; Django's clean-up of tests with `transaction=True` does not know of them."""
    with connection.cursor() as cursor:
        for table in ("periodic_defers", "jobs", "workers"):
            cursor.execute(f"DELETE FROM procrastinate_{table}")


class Worker:
    """A background worker as a process of its own, on the database of the test.

    It knows the tasks of `tests.job_tasks` beside those of the product.
    """

    def __init__(
        self, log: Path, *, heartbeat_s: int, concurrency: int, looks_every_s: float | None
    ) -> None:
        self.log = log
        arguments = [str(settings.DATABASES["default"]["NAME"]), str(heartbeat_s)]
        looking = [] if looks_every_s is None else [str(looks_every_s)]
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.job_worker", *arguments, str(concurrency), *looking],
                cwd=BASE_DIR,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def output(self) -> str:
        """Return what it has written."""
        return self.log.read_text()

    def terminate(self) -> int:
        """End it as `up` does; return its exit code."""
        self.process.terminate()
        return self.process.wait(timeout=15)

    def kill(self) -> None:
        """End it as the kernel does."""
        self.process.kill()
        self.process.wait()


@contextmanager
def worker(
    log: Path, *, heartbeat_s: int = 1, concurrency: int = 2, looks_every_s: float | None = None
) -> Iterator[Worker]:
    """Run a worker for as long as the block takes.

    looks_every_s: how often it looks for jobs that it is not told of; as in real life if None.
    """
    one = Worker(log, heartbeat_s=heartbeat_s, concurrency=concurrency, looks_every_s=looks_every_s)
    try:
        yield one
    finally:
        one.kill()


def rows(**wanted: Any) -> list[ProcrastinateJob]:
    """Return jobs in the order in which they were asked for."""
    return list(ProcrastinateJob.objects.filter(**wanted).order_by("pk"))

"""Background jobs: asked for in a transaction, run at least once, never lost."""

import json
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connection, transaction
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateEvent

from common import jobs
from common.models import JobFailure
from config.tasks import prune_jobs
from tests import job_tasks
from tests.end_to_end.harness import wait_for
from tests.jobs import Worker, forget_jobs, rows, run_jobs, worker
from tests.races import at_once

committing = pytest.mark.django_db(transaction=True, serialized_rollback=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where the tasks of tests write."""
    return tmp_path / "notes"


@pytest.fixture
def log(tmp_path: Path, db: None) -> Iterator[Path]:
    """Return where workers write; their database knows no job before and after."""
    forget_jobs()
    yield tmp_path / "worker.log"
    forget_jobs()


def wait_until(file: Path, *lines: str, timeout_s: float = 30) -> float:
    """Wait until the tasks have written these lines, in this order and no others."""
    return wait_for(lambda: job_tasks.notes(file) == list(lines), f"{lines}", timeout_s)


def wait_for_end(status: str, timeout_s: float = 30) -> Any:
    """Wait until the only job has a status; return it."""
    wait_for(lambda: [each.status for each in rows()] == [status], status, timeout_s)
    return rows()[0]


# --- Asking ---------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_a_job_is_there_with_the_transaction_and_goes_with_it(file: Path) -> None:
    with transaction.atomic():
        assert jobs.defer("tests.write", file=str(file), line="lost")
        transaction.set_rollback(True)
    assert rows() == []
    assert jobs.defer("tests.write", file=str(file), line="kept", lock="a", priority=3)
    (job,) = rows()
    assert (job.task_name, job.lock, job.priority, job.status) == ("tests.write", "a", 3, "todo")
    assert run_jobs() == ["tests.write"]
    assert job_tasks.notes(file) == ["kept"]


@pytest.mark.django_db
def test_a_waiting_job_will_do_and_breaks_no_transaction(file: Path) -> None:
    arguments: dict[str, Any] = {"file": str(file), "line": "once", "queueing_lock": "q"}
    with transaction.atomic():
        assert jobs.defer("tests.write", **arguments)
        assert not jobs.defer("tests.write", **arguments)
        Group.objects.create(name="kept")
    assert Group.objects.exists()
    assert len(rows()) == 1
    run_jobs()
    assert jobs.defer("tests.write", **arguments)


@pytest.mark.django_db
def test_what_is_scheduled_waits(file: Path) -> None:
    jobs.defer("tests.write", file=str(file), line="later", schedule_in_s=3600)
    assert run_jobs() == []
    assert rows()[0].scheduled_at is not None


@pytest.mark.django_db
def test_an_unknown_task_is_refused_at_once() -> None:
    with pytest.raises(LookupError, match=r"tests\.nothing"):
        jobs.defer("tests.nothing")


@committing
def test_errors_of_the_database_are_djangos(log: Path) -> None:
    parameters = connection.get_connection_params() | {"autocommit": True}
    for name in ("cursor_factory", "context"):
        parameters.pop(name, None)
    with psycopg.connect(**parameters) as other, other.transaction():
        other.execute("LOCK TABLE procrastinate_jobs")
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = 50")
            with pytest.raises(OperationalError, match="lock timeout"):
                jobs.defer("tests.refuse")


@committing
def test_of_those_who_ask_at_the_same_moment_one_does(log: Path, file: Path) -> None:
    def ask() -> bool:
        with transaction.atomic():
            return jobs.defer("tests.write", file=str(file), line="once", queueing_lock="q")

    assert sorted(at_once([ask] * 8)) == [False] * 7 + [True]
    assert len(rows()) == 1


@committing
def test_a_waiting_job_does_not_start_before_those_who_relied_on_it_committed(
    log: Path, file: Path
) -> None:
    """It would not see what they wrote."""
    jobs.defer("tests.count", file=str(file), queueing_lock="q")
    with transaction.atomic():
        Group.objects.create(name="late")
        assert not jobs.defer("tests.count", file=str(file), queueing_lock="q")
        with worker(log) as one:
            wait_for(lambda: "worker_started" in one.output(), "start")
            time.sleep(1)
            assert job_tasks.notes(file) == []
            one.kill()
    run_jobs()
    assert job_tasks.notes(file) == ["1", "after"]


# --- Running them in a test -----------------------------------------------------------------------
@pytest.mark.django_db
def test_failures_are_tried_again_and_then_kept_with_their_reason(file: Path) -> None:
    jobs.defer("tests.refuse")
    assert run_jobs() == ["tests.refuse"]
    (job,) = rows()
    assert (job.status, job.attempts) == ("failed", 1)
    assert job.failure.reason == "Invalid: Line 7 is no JSON."


# --- A worker -------------------------------------------------------------------------------------
@committing
def test_a_committed_job_starts_soon_and_may_ask_for_another(log: Path, file: Path) -> None:
    with worker(log) as one:
        wait_for(lambda: "worker_started" in one.output(), "start")
        time.sleep(0.5)
        committed_at = time.time()
        jobs.defer("tests.count", file=str(file))
        wait_until(file, "0", "after")
        started_at = float(file.read_text().split()[0])
        assert started_at - committed_at < 1
        wait_for(lambda: {each.status for each in rows()} == {"succeeded"}, "success")
        assert one.terminate() == 0
    assert str(file) not in one.output()
    assert "Traceback" not in one.output()


@committing
def test_jobs_of_one_lock_run_one_after_the_other(log: Path, file: Path) -> None:
    for line in "abc":
        jobs.defer("tests.take_long", file=str(file), line=line, seconds=0.3, lock="one")
    with worker(log, concurrency=2), worker(log.with_suffix(".2"), concurrency=2):
        lines = [f"{line} {what}" for line in "abc" for what in ("begins", "ends")]
        wait_until(file, *lines)


@committing
def test_a_failing_job_is_tried_three_times(log: Path, file: Path) -> None:
    jobs.defer("tests.fail", file=str(file))
    with worker(log, looks_every_s=0.2) as one:
        job = wait_for_end("failed")
        assert job.attempts == jobs.TRIES == 3
        assert job_tasks.notes(file) == ["tries"] * 3
        assert "division by zero" in job.failure.reason
        # The connection is fit for the next one.
        jobs.defer("tests.write", file=str(file), line="next")
        wait_until(file, *["tries"] * 3, "next")
        assert one.terminate() == 0
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            # Other workers of the test run have databases of their own on this server.
            " WHERE state LIKE 'idle in%' AND datname = current_database()"
        )
        assert cursor.fetchone() == (0,)


@committing
def test_a_stopping_worker_finishes_its_job(log: Path, file: Path) -> None:
    jobs.defer("tests.take_long", file=str(file), line="job", seconds=2)
    with worker(log) as one:
        wait_until(file, "job begins")
        assert one.terminate() == 0
    assert job_tasks.notes(file) == ["job begins", "job ends"]
    assert rows()[0].status == "succeeded"


@committing
def test_a_long_job_stops_between_steps_and_that_was_no_try(log: Path, file: Path) -> None:
    jobs.defer("tests.take_steps", file=str(file), seconds=30)
    for _ in range(jobs.TRIES + 1):
        before = job_tasks.notes(file)
        with worker(log) as one:
            wait_until(file, *before, "begins")
            began = time.monotonic()
            assert one.terminate() == 0
            assert time.monotonic() - began < 3
        (job,) = rows()
        assert (job.status, job.attempts, job.worker_id) == ("todo", 0, None)
    assert not JobFailure.objects.exists()


@pytest.mark.slow
@committing
def test_a_job_that_hears_nothing_is_given_back_in_time(log: Path, file: Path) -> None:
    jobs.defer("tests.take_long", file=str(file), line="job", seconds=60)
    with worker(log) as one:
        wait_until(file, "job begins")
        began = time.monotonic()
        assert one.terminate() == 0
        assert time.monotonic() - began < 9
    (job,) = rows()
    assert (job.status, job.attempts) == ("todo", 0)


@pytest.mark.slow
@committing
def test_a_job_whose_worker_was_killed_is_taken_up_again(log: Path, file: Path) -> None:
    jobs.defer("tests.take_long", file=str(file), line="job", seconds=8)
    with worker(log) as one:
        wait_until(file, "job begins")
        one.kill()
    with worker(log):
        seconds = wait_until(file, "job begins", "job begins")
        assert 2 < seconds < 20
        wait_until(file, "job begins", "job begins", "job ends")
        job = wait_for_end("succeeded")
    assert job.attempts == 2
    events = ProcrastinateEvent.objects.filter(job=job).order_by("pk")
    assert "deferred_for_retry" in events.values_list("type", flat=True)


@pytest.mark.slow
@committing
def test_a_job_that_kills_its_worker_is_failed_after_the_last_try(log: Path, file: Path) -> None:
    jobs.defer("tests.deadly", file=str(file))
    for number in range(1, jobs.TRIES + 1):
        with worker(log) as one:
            wait_until(file, *["tries"] * number)
            assert one.process.wait(timeout=10) == 137
    with worker(log):
        job = wait_for_end("failed")
    assert job_tasks.notes(file) == ["tries"] * jobs.TRIES
    assert job.failure.reason == jobs.WORKER_DIED


@pytest.mark.slow
@committing
def test_no_job_of_a_living_worker_is_taken_up(log: Path, file: Path) -> None:
    jobs.defer("tests.take_long", file=str(file), line="job", seconds=9)
    with worker(log), worker(log.with_suffix(".2")):
        wait_until(file, "job begins", "job ends")
        assert wait_for_end("succeeded").attempts == 1


@committing
def test_a_failing_job_gives_way_to_one_that_waits_for_the_same_work(log: Path, file: Path) -> None:
    """Two waiting jobs of one queueing lock cannot be; it must not stay in the way for ever."""
    arguments: dict[str, Any] = {"file": str(file), "lock": "one", "queueing_lock": "q"}
    jobs.defer("tests.take_steps", seconds=30, **arguments)
    with worker(log) as one:
        wait_until(file, "begins")
        assert jobs.defer("tests.take_steps", seconds=0, **arguments)
        assert one.terminate() == 0
    assert [each.status for each in rows()] == ["aborted", "todo"]
    assert rows()[0].failure.reason == jobs.ANOTHER_WAITS
    with worker(log.with_suffix(".2")):
        wait_until(file, "begins", "begins", "ends")


@committing
def test_a_worker_survives_its_connections(log: Path, file: Path) -> None:
    with worker(log) as one:
        jobs.defer("tests.write", file=str(file), line="before")
        wait_until(file, "before")
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        jobs.defer("tests.write", file=str(file), line="after")
        if _ended(one):
            with worker(log):
                wait_until(file, "before", "after")
        else:
            wait_until(file, "before", "after")


def _ended(one: Worker) -> bool:
    time.sleep(2)
    return one.process.poll() is not None


# --- Commands -------------------------------------------------------------------------------------
def manage(*arguments: str) -> str:
    written = StringIO()
    call_command(*arguments, stdout=written)
    return written.getvalue()


@pytest.mark.django_db
def test_a_failed_job_is_listed_with_its_reason_and_tried_again(file: Path) -> None:
    jobs.defer("tests.fail_simply", file=str(file))
    run_jobs(again=True)
    (job,) = rows()
    assert (job.status, job.attempts) == ("failed", 3)

    table = manage("listjobs", "--status", "failed")
    assert "tests.fail_simply" in table
    assert "RuntimeError: no more" in table
    assert "No worker runs." in table
    assert "There are none." in manage("listjobs", "--status", "todo", "--status", "doing")
    listed = json.loads(manage("listjobs", "--task", "tests.fail_simply", "--json"))
    assert listed["total_count"] == 1
    assert listed["jobs"][0] | {"id": job.pk, "tries": 3, "status": "failed"} == listed["jobs"][0]
    assert listed["jobs"][0]["failure"] == "RuntimeError: no more"

    assert "waits to be run again" in manage("retryjob", str(job.pk))
    (job,) = rows()
    assert (job.status, job.attempts) == ("todo", 0)
    file.write_text("0 0 may succeed\n")
    run_jobs()
    assert rows()[0].status == "succeeded"


@pytest.mark.django_db
def test_only_failed_jobs_are_tried_again(file: Path) -> None:
    with pytest.raises(CommandError, match="There is no job 123456789"):
        manage("retryjob", "123456789")
    jobs.defer("tests.write", file=str(file), line="a")
    with pytest.raises(CommandError, match="it is todo"):
        manage("retryjob", str(rows()[0].pk))


@pytest.mark.django_db
def test_a_job_is_not_tried_again_beside_one_for_the_same_work(file: Path) -> None:
    jobs.defer("tests.refuse", queueing_lock="q")
    run_jobs()
    jobs.defer("tests.refuse", queueing_lock="q")
    with pytest.raises(CommandError, match="another job for the same work waits"):
        manage("retryjob", str(rows()[0].pk))
    assert [each.status for each in rows()] == ["failed", "todo"]


# --- What is done daily ---------------------------------------------------------------------------
@pytest.mark.django_db
def test_old_jobs_go_with_their_reasons(file: Path) -> None:
    jobs.defer("tests.refuse")
    jobs.defer("tests.write", file=str(file), line="a")
    run_jobs()
    prune_jobs()
    assert len(rows()) == 2
    for hours, left in ((25, ["failed"]), (24 * 30, [])):
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE procrastinate_events SET at = at - make_interval(hours => %s)", [hours]
            )
        prune_jobs()
        assert [each.status for each in rows()] == left
    assert not JobFailure.objects.exists()


def test_daily_tasks_are_known() -> None:
    declared = {name: each.cron for (name, _), each in app.periodic_registry.periodic_tasks.items()}
    assert {"config.prune_jobs", "resources.sweep_orphans"} <= set(declared)

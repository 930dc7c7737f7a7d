"""Many requests at the same moment, each on a thread and a connection of its own."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import connection, transaction

from tests.factories import Answer, Caller

THREADS = 12
ROUNDS = 2

T = TypeVar("T")


def at_once(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Run all jobs at the same moment, each on a thread and a connection of its own."""
    barrier = threading.Barrier(len(jobs))

    def run(job: Callable[[], T]) -> T:
        try:
            connection.ensure_connection()
            barrier.wait(20)
            return job()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(jobs)) as pool:
        running = [pool.submit(run, job) for job in jobs]
        return [each.result(60) for each in running]


def asking(caller: Caller, method: str, path: str, body: Any = None) -> Callable[[], Answer]:
    """Return a job that asks as the caller, with a client of its own."""
    return lambda: Caller(caller.key).ask(method, path, body)


def statuses(answers: Sequence[Answer]) -> Counter[int]:
    """Count the statuses of answers, none of which may be an error of ours."""
    found = Counter(answer.status for answer in answers)
    assert max(found) < 500, [answer.body for answer in answers if answer.status >= 500]
    return found


def while_waiting(change: Callable[[], object], ask: Callable[[], Answer]) -> Answer:
    """Ask while a change has been made but not committed, and commit once the request waits."""
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            change()

            def run() -> Answer:
                try:
                    return ask()
                finally:
                    connection.close()

            running = pool.submit(run)
            # Waits for us: another worker's database on the same server has waits of its own.
            waiting = (
                "SELECT count(*) FROM pg_locks"
                " WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
            )
            with connection.cursor() as cursor:
                for _ in range(400):
                    cursor.execute(waiting)
                    if cursor.fetchone()[0] or running.done():
                        break
                    threading.Event().wait(0.01)
            assert not running.done(), "the request did not wait for the change"
        return running.result(20)

"""The background worker's own process: procrastinate with what Armarium asks of it.

Run as ``python -m config.worker`` by `config.processes`. It never guesses: when it can no longer
tell others that it lives, or the queue what became of a job, it ends at once. Then its jobs are
taken up again by whoever comes next.
"""

import argparse
import asyncio
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

from config.parent import die_with

if TYPE_CHECKING:
    from procrastinate import App

# Jobs get this long when the worker stops, then they are given back.
FINISH_WITHIN_S = 8
_HURRY_S = 1.0
# Notifications start jobs; this is for those that are scheduled, and for lost notifications.
_POLL_S = 3.0
# A worker that was not heard of for so many heartbeats is dead to others, and knows it before.
_DEAD_AFTER = 5
_GIVES_UP_AFTER = 4
_CONNECTIONS = 4
_SAY_EVERY_S = 2.0


def main() -> None:
    """Run jobs until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="config.worker")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    options = parser.parse_args()
    die_with(options.parent)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    django.setup()
    run(concurrency=options.concurrency)


def run(*, concurrency: int) -> NoReturn:
    """Wait for the database, then run jobs; ends the process."""
    from procrastinate.exceptions import ConnectorException
    from structlog import get_logger

    from config.processes import Failed, StopRequested, StopSignals

    log = get_logger("armarium.worker")
    try:
        with StopSignals() as signals, signals.interruptible():
            _wait_for_tables(lambda sentence: log.info("worker_waits", reason=sentence))
        code = asyncio.run(_Worker(concurrency).work())
    except StopRequested:
        code = 0
    except (Failed, ConnectorException) as error:
        log.error("worker_failed", reason=str(error.__cause__ or error))
        code = 1
    _end(code)


def _end(code: int) -> NoReturn:
    """End without waiting for the threads in which jobs still run."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _wait_for_tables(say: Any) -> None:
    from django.db import connections

    from config import startup
    from config.health import unapplied_migrations

    startup.prepare_database(say=say)
    said = 0.0
    while unapplied_migrations():
        if time.monotonic() - said >= _SAY_EVERY_S:
            said = time.monotonic()
            say("Database migrations are still to be applied (`manage.py migrate`).")
        time.sleep(_SAY_EVERY_S / 4)
    connections.close_all()


class _Worker:
    def __init__(self, concurrency: int) -> None:
        from django.conf import settings
        from structlog import get_logger

        self._concurrency = concurrency
        self._heartbeat_s = float(settings.WORKER_HEARTBEAT_S)
        self._log = get_logger("armarium.worker")
        self._id: int | None = None
        self._lived_at = time.monotonic()
        self._code: int | None = None

    async def work(self) -> int:
        """Run jobs until a signal; return the exit code."""
        from procrastinate.contrib.django import app
        from procrastinate.contrib.django.utils import connector_params
        from procrastinate.psycopg_connector import PsycopgConnector

        connector = PsycopgConnector(
            kwargs=connector_params(), min_size=1, max_size=_CONNECTIONS, timeout=10.0
        )
        # Through what it yields: the imported one only stands for the application.
        with app.replace_connector(connector) as application:
            application.job_manager = self._manager(connector)
            async with application.open_async():
                return await self._work(application)

    async def _work(self, app: "App") -> int:
        from common import jobs

        self._lived_at = time.monotonic()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        await self._take_up()
        sweep = asyncio.create_task(self._sweep(app))
        running = asyncio.create_task(
            app.run_worker_async(
                concurrency=self._concurrency,
                install_signal_handlers=False,
                fetch_job_polling_interval=_POLL_S,
                shutdown_graceful_timeout=FINISH_WITHIN_S - _HURRY_S,
                update_heartbeat_interval=self._heartbeat_s,
                stalled_worker_timeout=self._heartbeat_s * _DEAD_AFTER,
                task_middleware=[*app.worker_defaults.get("task_middleware", []), jobs.watched],
            )
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, running, 0)
        self._log.info("worker_started", concurrency=self._concurrency)
        try:
            await asyncio.wait((running, sweep), return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                # The sweep does not end by itself, except by an error.
                self._log.error("worker_failed", reason=str(sweep.exception()))
                self._stop(running, 1)
                await asyncio.wait((running,))
        finally:
            sweep.cancel()
        if not running.cancelled() and (error := running.exception()) is not None:
            raise error
        if self._code is None:
            # Procrastinate has said which of its parts failed.
            return 1
        self._log.info("worker_stopped")
        return self._code

    def _stop(self, running: "asyncio.Task[None]", code: int) -> None:
        from common import jobs

        if self._code is not None:
            return
        self._code = code
        jobs.stopping.set()
        running.cancel()
        threading.Thread(target=self._give_back_late, name="give back", daemon=True).start()

    def _give_back_late(self) -> None:
        """Give back what is not finished in time, and end the process."""
        from common import jobs

        time.sleep(FINISH_WITHIN_S - _HURRY_S / 2)
        reserve = threading.Timer(_HURRY_S / 2, os._exit, (1,))
        reserve.daemon = True
        reserve.start()
        if self._id is not None:
            self._log.warning("jobs_given_back", jobs=jobs.give_back(self._id))
        _end(self._code or 0)

    # --- Signs of life ----------------------------------------------------------------------------
    def _watch(self) -> None:
        """End the process before others take its jobs for abandoned."""
        patience_s = self._heartbeat_s * _GIVES_UP_AFTER
        while time.monotonic() - self._lived_at < patience_s:
            time.sleep(self._heartbeat_s / 4)
        self._log.error("worker_failed", reason="It could not tell in time that it lives.")
        _end(1)

    async def _sweep(self, app: "App") -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            if self._code is None:
                await self._take_up()
            elif self._id is not None:
                # Procrastinate gives no sign of life while it waits for the last jobs.
                await app.job_manager.update_heartbeat(self._id)

    async def _take_up(self) -> None:
        from asgiref.sync import sync_to_async
        from django.db import close_old_connections, connection

        from common import jobs

        def take_up() -> None:
            close_old_connections()
            if connection.connection is None:
                connection.ensure_connection()
            jobs.take_up_stalled(self._heartbeat_s * _DEAD_AFTER)

        await sync_to_async(take_up)()

    def _manager(self, connector: Any) -> Any:
        from procrastinate.exceptions import ConnectorException, UniqueViolation
        from procrastinate.jobs import Job, Status
        from procrastinate.manager import JobManager

        from common import jobs

        worker = self

        class Manager(JobManager):
            """Keeps the worker informed, and ends it where a job's end cannot be written down."""

            async def register_worker(self) -> int:
                began = time.monotonic()
                worker._id = await super().register_worker()
                worker._lived_at = began
                return worker._id

            async def update_heartbeat(self, worker_id: int) -> None:
                began = time.monotonic()
                await super().update_heartbeat(worker_id)
                worker._lived_at = began

            async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:
                await super().finish_job(job, status, delete_job)
                if job.lock is not None:
                    # One that waits for the lock may start.
                    await self.connector.execute_query_async(jobs.WAKE_WORKERS)

            async def retry_job_by_id_async(self, job_id: int, *args: Any, **options: Any) -> None:
                try:
                    await super().retry_job_by_id_async(job_id, *args, **options)
                except UniqueViolation:
                    # Whoever asked for the job that waits wanted the same work.
                    await asyncio.to_thread(jobs.note_failure, job_id, jobs.ANOTHER_WAITS)
                    await self.finish_job_by_id_async(job_id, Status.ABORTED, False)
                except ConnectorException as error:
                    worker._lose(job_id, error)

            async def finish_job_by_id_async(
                self, job_id: int, status: Status, delete_job: bool
            ) -> None:
                try:
                    await super().finish_job_by_id_async(job_id, status, delete_job)
                except ConnectorException as error:
                    worker._lose(job_id, error)

        return Manager(connector)

    def _lose(self, job_id: int, error: Exception) -> NoReturn:
        reason = str(error.__cause__ or error)
        self._log.error("worker_failed", job=job_id, reason=reason)
        _end(1)


if __name__ == "__main__":
    main()

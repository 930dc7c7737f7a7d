"""Runs only the background worker, for installations that run each part by itself."""

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from common.commands import whole_number
from config import startup
from config.processes import Failed, StopRequested, StopSignals, Supervisor, worker_program


class Command(BaseCommand):
    help = (
        "Run the background worker alone, on a database that is there and migrated. "
        "`manage.py up` runs everything. Several workers, also on several machines, share the jobs."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--concurrency",
            type=whole_number(1, 64),
            default=settings.WORKER_CONCURRENCY,
            metavar="N",
            help="jobs that run at once (%(default)s)",
        )

    def handle(self, *, concurrency: int, **options: Any) -> None:
        with StopSignals() as signals:
            supervisor = Supervisor(signals, say=self._say)
            try:
                with signals.interruptible():
                    startup.prepare_database(say=self._say)
                    startup.check_encryption_key()
                    supervisor.start(worker_program(concurrency=concurrency))
                supervisor.run(ready=lambda: True, on_ready=lambda: self._say("Working."))
            except StopRequested:
                pass
            except Failed as error:
                raise CommandError(str(error)) from error
            finally:
                supervisor.stop()

    def _say(self, sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)  # noqa: T201

"""Runs only the web server, for installations that run each part by itself."""

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from config import startup
from config.processes import (
    Failed,
    StopRequested,
    StopSignals,
    Supervisor,
    check_port,
    web_program,
)


def add_web_arguments(parser: CommandParser) -> None:
    """Add the options that every command with a web server has."""
    parser.add_argument("--host", default=settings.HOST, help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=settings.PORT, help="port (%(default)s)")
    parser.add_argument(
        "--workers", type=int, default=settings.WORKERS, help="worker processes (%(default)s)"
    )


class Command(BaseCommand):
    help = (
        "Run the web server alone, on a database that is there and migrated. "
        "`manage.py up` runs everything."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add_web_arguments(parser)

    def handle(self, *, host: str, port: int, workers: int, **options: Any) -> None:
        with StopSignals() as signals:
            supervisor = Supervisor(signals, say=self._say)
            try:
                with signals.interruptible():
                    startup.check_exposure(host)
                    check_port(host, port)
                    startup.prepare_database(say=self._say)
                    startup.check_encryption_key()
                    supervisor.start(
                        web_program(host=host, port=port, workers=workers, threads=settings.THREADS)
                    )
                supervisor.run(
                    ready=lambda: startup.answers_ready(host, port),
                    on_ready=lambda: self._say(f"Serving at {startup.base_url(host, port)}"),
                )
            except StopRequested:
                pass
            except Failed as error:
                raise CommandError(str(error)) from error
            finally:
                supervisor.stop()

    def _say(self, sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)  # noqa: T201

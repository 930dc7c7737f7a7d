"""Runs everything: database, migrations, first administrator, demo, web server, worker."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from accounts.services import FirstAdministrator, ensure_first_administrator
from config import startup
from config.embedded_postgres import EmbeddedPostgresError
from config.management.commands.serve import add_web_arguments
from config.processes import (
    Failed,
    StopRequested,
    StopSignals,
    Supervisor,
    check_port,
    only_one,
    web_program,
    worker_program,
)

# The neighbours of one text of the demo: needs no key, as the demo is public.
DEMO_SEARCH = "/v1/similars/demo/wikipedia-vital/wiki%3Aen%3AImpressionism?count=5"


class Command(BaseCommand):
    help = (
        "Start Armarium: the embedded PostgreSQL (unless DATABASE_URL is set), migrations, the "
        "first administrator, demo data, the web server and the background worker. Stop it with "
        "Ctrl-C."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add_web_arguments(parser)
        parser.add_argument(
            "--data-dir",
            help=f"where everything is kept, for any command ({settings.DATA_DIR})",
        )
        parser.add_argument(
            "--no-demo",
            action="store_false",
            dest="demo",
            help="do not load the demo project at the first start",
        )
        parser.add_argument(
            "--demo",
            action="store_true",
            default=True,
            help="load the demo project at the first start (default)",
        )

        parser.add_argument(
            "--no-worker",
            action="store_false",
            dest="worker",
            help="run no background worker here; another machine does (manage.py worker)",
        )

    def handle(self, *, host: str, port: int, **options: Any) -> None:
        try:
            with only_one(
                settings.DATA_DIR / "locks" / "up.lock",
                what=f"Armarium already runs on {settings.DATA_DIR}",
            ):
                self._run(host=host, port=port, **options)
        except (Failed, EmbeddedPostgresError) as error:
            raise CommandError(str(error)) from error

    def _run(
        self, *, host: str, port: int, workers: int, demo: bool, worker: bool, **options: Any
    ) -> None:
        database = settings.EMBEDDED_POSTGRES
        if database is not None:
            database.report = self._say
        self._administrator: FirstAdministrator | None = None
        with StopSignals() as signals:
            supervisor = Supervisor(signals, say=self._say, database=database)
            try:
                with signals.interruptible():
                    self._say(f"Armarium {settings.VERSION} starts; data in {settings.DATA_DIR}")
                    startup.check_exposure(host)
                    check_port(host, port)
                    if database is not None:
                        self._say("Starting the database …")
                        database.start()
                    startup.prepare_database(say=self._say)
                    startup.apply_migrations(say=self._say)
                    startup.check_encryption_key()
                    self._prepare_contents(demo=demo)
                    connections.close_all()
                    self._say("Starting the web server …")
                    supervisor.start(
                        web_program(host=host, port=port, workers=workers, threads=settings.THREADS)
                    )
                    if worker:
                        supervisor.start(worker_program(concurrency=settings.WORKER_CONCURRENCY))
                supervisor.run(
                    ready=lambda: startup.answers_ready(host, port),
                    on_ready=lambda: self._show_banner(host, port),
                )
                self._say("Stopping …")
            except StopRequested:
                self._say("Stopping …")
            finally:
                # The password is nowhere else: it must be seen even when the start failed.
                self._show_administrator()
                connections.close_all()
                supervisor.stop()
        self._say("Stopped.")

    def _prepare_contents(self, *, demo: bool) -> None:
        """Make the first administrator and the demo; a run that was killed here is completed."""
        pending: Path = settings.DATA_DIR / "demo-pending"
        if demo and not get_user_model()._default_manager.filter(is_superuser=True).exists():
            pending.touch(mode=0o600)
        self._administrator = ensure_first_administrator()
        if demo and pending.exists():
            self._say("Loading the demo …")
            try:
                call_command("loaddemo")
            except CommandError as error:
                # Worth a word, but not worth refusing to start: the next start tries again.
                self._say(f"Warning: the demo could not be loaded: {error}")
            else:
                pending.unlink()

    def _show_administrator(self) -> None:
        first = self._administrator
        if first is None:
            return
        self._administrator = None
        key = first.api_key or "the one in ARMARIUM_ADMIN_KEY"
        self._show(
            [
                ("First login", first.handle),
                ("Password", first.password),
                ("API key", key),
                ("", "Write these down: they are not shown again."),
            ]
        )

    def _show_banner(self, host: str, port: int) -> None:
        url = startup.base_url(host, port)
        example = DEMO_SEARCH if startup.answers(host, port, DEMO_SEARCH) else "/v1"
        first = self._administrator
        self._say("")
        self._show(
            [
                ("Armarium", f"{url}/"),
                ("API docs", f"{url}/docs"),
                ("Admin", f"{url}/admin/"),
                ("Data", str(settings.DATA_DIR)),
            ]
        )
        if first is None:
            self._show([("New API key", ".venv/bin/python manage.py createkey HANDLE")])
        self._show_administrator()
        self._show([("Try it", f"curl '{url}{example}'"), ("Stop", "Ctrl-C")])

    def _show(self, rows: list[tuple[str, str]]) -> None:
        for name, value in rows:
            self._say(f"  {name:<12} {value}")

    def _say(self, sentence: str) -> None:
        try:
            self.stdout.write(sentence)
            self.stdout.flush()
        except OSError:
            # Whoever read our words has gone; that is no reason to stop.
            return

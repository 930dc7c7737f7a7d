"""Does at once what a worker would do for indexes."""

import sys
from typing import Any

from django.core.management.base import CommandParser
from django.db import InterfaceError, OperationalError

from common import commands
from embeddings import indexes

SOME_FAILED = 1


class Command(commands.Command):
    help = (
        "Build, extend, measure and dissolve indexes here and now, whatever needs it: for servers "
        "without a worker, and after a restore. Beside a worker it does no harm: each index is "
        "looked after by one process at a time. Exit code 0: nothing is left to do; 1: some could "
        "not be looked after; 2: it could not run."
    )
    example = """\
  manage.py tendindexes
  manage.py tendindexes --json | jq -r '.failed[]'"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print what was done as JSON")

    def handle(self, **options: Any) -> None:
        tended: list[str] = []
        failed: dict[str, str] = {}
        wanted = indexes.wanting()
        with commands.Meter(
            "indexes", "indexes", stream=self.stderr, no_color=options["no_color"]
        ) as meter:
            for number, project_id in enumerate(wanted):
                meter.show(number, number / len(wanted))
                name = indexes.name_of(project_id)
                meter.say(f"{name}: looking after it")
                try:
                    indexes.tend(project_id)
                except indexes.Busy:
                    failed[name] = "another process is at it"
                except (InterfaceError, OperationalError) as error:
                    failed[name] = commands.sentence_of(error)
                else:
                    tended.append(name)
            meter.show(len(wanted), 1.0)
        dropped = indexes.drop_retired()
        if options["json"]:
            self.show_json({"tended": tended, "failed": failed, "dropped_segments": len(dropped)})
        else:
            for name, reason in failed.items():
                self.stderr.write(f"{name}: {reason}")
            self.stdout.write(
                f"{len(tended)} indexes looked after, {len(failed)} not, {len(dropped)} retired "
                "segments dropped"
            )
        if failed:
            sys.exit(SOME_FAILED)

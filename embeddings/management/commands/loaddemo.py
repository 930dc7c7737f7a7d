"""Loads the demo project."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from common import commands
from embeddings import demo
from embeddings.imports import Outcome


class Command(commands.Command):
    help = (
        "Load the public project demo/wikipedia-vital: summaries of 8000 Wikipedia articles in "
        "English, French and Spanish, with vectors of the built-in model. Running it again adds "
        "only what is missing."
    )
    example = "  manage.py loaddemo"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the summary as JSON")

    def handle(self, **options: Any) -> None:
        name = f"{demo.OWNER}/{demo.HANDLE}"
        with commands.Meter(
            name, "rows", stream=self.stderr, no_color=options["no_color"]
        ) as meter:
            outcome = demo.load_demo(
                on_progress=lambda so_far: meter.show(so_far.rows, so_far.fraction),
                on_rejected=lambda row: meter.say(f"row {row.row}: {row.reason}"),
            )
        if outcome.stopped or outcome.rejected:
            raise CommandError(
                outcome.stopped or f"{outcome.rejected} rows of the demo were rejected.",
                returncode=commands.COULD_NOT_RUN,
            )
        self._conclude(name, outcome, as_json=options["json"])

    def _conclude(self, name: str, outcome: Outcome, *, as_json: bool) -> None:
        total = outcome.stored + outcome.skipped
        if as_json:
            self.show_json({"project": name, "rows": total, "stored": outcome.stored})
        elif outcome.stored:
            self.stdout.write(f"Demo project {name}: {total} rows, {outcome.stored} of them new.")
        else:
            self.stdout.write(f"Demo project {name} is complete: {total} rows.")

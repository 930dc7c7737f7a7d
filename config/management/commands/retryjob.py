"""Tries a failed job again."""

from typing import Any

from django.core.management.base import CommandParser

from common import commands, jobs


class Command(commands.Command):
    help = (
        "Put a failed background job back into the queue: it starts at once, and has all its tries "
        "again. Find its id with listjobs."
    )
    example = """\
  manage.py retryjob 1234"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "id", type=commands.whole_number(1, 2**63 - 1), metavar="ID", help="id of the job"
        )
        parser.add_argument("--json", action="store_true", help="print the job as JSON")

    def handle(self, **options: Any) -> None:
        task = jobs.retry(options["id"])
        if options["json"]:
            self.show_json({"id": options["id"], "task": task})
        else:
            self.stdout.write(f"Job {options['id']} ({task}) waits to be run again.")

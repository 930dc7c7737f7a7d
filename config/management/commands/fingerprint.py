"""Tells whether two servers, or two projects, hold the same."""

from typing import Any

from django.core.management.base import CommandParser

from accounts.policy import BOOTSTRAP_ADMIN
from common import commands
from config.backup import server_fingerprint
from resources.fingerprints import fingerprint_for


class Command(commands.Command):
    help = (
        "Print what is equal for two servers that hold the same: a number of rows and a hash for "
        "each table, for the bytes of files, and for everything. Sessions, jobs, times of use, and "
        "how embeddings are kept do not count. With OWNER/HANDLE: what is equal for two projects "
        "that hold the same, on whichever servers and under whichever handles."
    )
    example = """\
  manage.py fingerprint
  manage.py fingerprint alice/letters
  manage.py fingerprint --json | jq -r .everything"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "project",
            nargs="?",
            type=commands.address,
            metavar="OWNER/HANDLE",
            help="a project; default: the whole server",
        )
        parser.add_argument("--json", action="store_true", help="print it as JSON")

    def handle(self, *, project: tuple[str, str] | None, **options: Any) -> None:
        with commands.Meter(
            "fingerprint", "tables", stream=self.stderr, no_color=options["no_color"]
        ) as meter:
            if project is None:
                found = server_fingerprint(meter.show)
            else:
                owner, handle = project
                found = fingerprint_for(BOOTSTRAP_ADMIN, owner=owner, handle=handle)
        if options["json"]:
            self.show_json(found)
        else:
            self.show_table(["Part", "Fingerprint"], list(found.items()))

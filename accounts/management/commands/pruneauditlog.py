"""Forgets what the audit log has of long ago."""

from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from accounts import audit
from common import commands


class Command(commands.Command):
    help = (
        "Delete entries of the audit log that are older than some days: the only way to delete "
        "any. The log keeps that it was done, and how many went."
    )
    example = """\
  manage.py pruneauditlog --older-than 400"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--older-than",
            type=commands.whole_number(1, 36_500),
            required=True,
            metavar="DAYS",
            help="age in days from which on entries go",
        )
        parser.add_argument("--json", action="store_true", help="print the number as JSON")

    def handle(self, **options: Any) -> None:
        before = timezone.now() - timedelta(days=options["older_than"])
        deleted = audit.prune(before=before)
        if options["json"]:
            self.show_json({"deleted": deleted, "before": before})
        else:
            what = "entry" if deleted == 1 else "entries"
            self.stdout.write(f"{deleted} {what} of the audit log deleted.")

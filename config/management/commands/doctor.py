"""Examines the server."""

import sys
from typing import Any

from django.core.management.base import CommandParser

from common import commands, doctor
from common.doctor import Examined, Severity

FOUND_ERRORS = 1
_MARKS = {Severity.OK: "ok", Severity.WARNING: "warning", Severity.ERROR: "ERROR"}


class Command(commands.Command):
    help = (
        "Examine the server: database, indexes, stored vectors, keys, worker, disk, settings. Each "
        "finding comes with what mends it. Exit code 0: no errors, perhaps warnings; 1: errors; 2: "
        "it could not run."
    )
    example = """\
  manage.py doctor
  manage.py doctor --thorough
  manage.py doctor --only indexes --only plans
  manage.py doctor --json | jq -r '.findings[] | select(.severity == "error") | .message'"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--thorough",
            action="store_true",
            help="look at all projects and texts rather than at samples: reads everything",
        )
        parser.add_argument(
            "--only",
            action="append",
            default=[],
            choices=doctor.names(),
            help="only this check; may be given several times",
        )
        parser.add_argument("--json", action="store_true", help="print the findings as JSON")

    def handle(self, **options: Any) -> None:
        examined = doctor.examine(thorough=options["thorough"], only=options["only"])
        if options["json"]:
            self.show_json(_described(examined))
        else:
            for each in examined:
                self._show(each)
        if any(each.severity is Severity.ERROR for each in examined):
            sys.exit(FOUND_ERRORS)

    def _show(self, examined: Examined) -> None:
        self.stdout.write(f"{_MARKS[examined.severity]:8} {examined.title}")
        for finding in examined.findings:
            self.stdout.write(f"         {commands.one_line(finding.message)}")
            if finding.fix:
                self.stdout.write(f"         → {commands.one_line(finding.fix)}")


def _described(examined: list[Examined]) -> dict[str, Any]:
    return {
        "checks": [
            {"name": each.name, "title": each.title, "severity": each.severity} for each in examined
        ],
        "findings": [
            {
                "check": each.name,
                "severity": finding.severity,
                "message": finding.message,
                "fix": finding.fix or None,
                "project": finding.about or None,
            }
            for each in examined
            for finding in each.findings
        ],
    }

"""Looks for files whose bytes are gone or damaged, and for bytes that belong to no file."""

import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts.policy import BOOTSTRAP_ADMIN
from common import commands
from resources.content_check import Damaged, Orphan, Problem, Report, content_report
from resources.services import delete_orphans

FOUND_PROBLEMS = 1

_WORDS = {
    Problem.MISSING: "its bytes are missing",
    Problem.SIZE: "its bytes are fewer or more than were uploaded",
    Problem.HASH: "its bytes are not those that were uploaded",
}


class Command(commands.Command):
    help = (
        "Compare every uploaded file with the bytes in the storage: whether they are there and as "
        "many as there should be; and look for bytes that belong to no file, such as an "
        "interrupted upload leaves. Those younger than an hour may be an upload that is going on, "
        "and are passed over. Exit code 0: nothing found; 1: something was found; 2: it could not "
        "run."
    )
    example = """\
  manage.py checkfiles
  manage.py checkfiles --verify
  manage.py checkfiles --delete-orphans
  manage.py checkfiles --json | jq -r '.damaged[].id'"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--verify", action="store_true", help="read all bytes and compare their SHA-256, too"
        )
        parser.add_argument(
            "--delete-orphans", action="store_true", help="delete bytes that belong to no file"
        )
        parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def handle(self, **options: Any) -> None:
        deleted = 0
        with commands.Meter(
            "checkfiles", "files", stream=self.stderr, no_color=options["no_color"]
        ) as meter:
            try:
                report = content_report(
                    BOOTSTRAP_ADMIN, verify=options["verify"], on_progress=meter.show
                )
                if options["delete_orphans"]:
                    names = [orphan.name for orphan in report.orphans]
                    deleted = delete_orphans(actor=BOOTSTRAP_ADMIN, names=names)
            except OSError as error:
                raise CommandError(
                    f"The storage does not answer: {commands.one_line(str(error), limit=200)}",
                    returncode=commands.COULD_NOT_RUN,
                ) from error
        if options["json"]:
            self.show_json(_described(report, deleted))
        else:
            self._show(report, deleted)
        if not report.passed:
            sys.exit(FOUND_PROBLEMS)

    def _show(self, report: Report, deleted: int) -> None:
        for damaged in report.damaged:
            file = damaged.file
            name = commands.one_line(file.name, limit=80)
            self.stdout.write(
                f"{damaged.problem}: file {file.uuid} '{name}' of {file.project}: "
                f"{_WORDS[damaged.problem]}"
            )
        for orphan in report.orphans:
            day = orphan.modified_at.strftime("%Y-%m-%d")
            self.stdout.write(f"orphan: {orphan.name}, {orphan.size} bytes of {day}")
        self.stdout.write(
            f"{'passed' if report.passed else 'failed'}: {report.files} files, "
            f"{len(report.damaged)} damaged, {len(report.orphans)} orphans, {deleted} deleted"
        )


def _described(report: Report, deleted: int) -> dict[str, Any]:
    return {
        "status": "passed" if report.passed else "failed",
        "files": report.files,
        "damaged": [_damaged(each) for each in report.damaged],
        "orphans": [_orphan(each) for each in report.orphans],
        "deleted_orphans": deleted,
    }


def _damaged(damaged: Damaged) -> dict[str, Any]:
    file = damaged.file
    return {
        "problem": damaged.problem,
        "id": file.uuid,
        "name": file.name,
        "project": str(file.project),
        "stored_as": file.content.name,
    }


def _orphan(orphan: Orphan) -> dict[str, Any]:
    return {"stored_as": orphan.name, "size": orphan.size, "modified_at": orphan.modified_at}

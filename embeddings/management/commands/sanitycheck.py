"""Looks for stored data that would be refused today."""

import sys
from typing import Any

from django.core.management.base import CommandParser

from accounts.policy import BOOTSTRAP_ADMIN
from common import commands
from embeddings.selectors import sanity_report

FOUND_ISSUES = 1


class Command(commands.Command):
    help = (
        "Compare every stored embedding with its project's LLM service and metadata schema. Exit "
        "code 0: passed, perhaps with warnings; 1: there are issues; 2: it could not run."
    )
    example = """\
  manage.py sanitycheck
  manage.py sanitycheck --json | jq -r '.issues[]'"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def handle(self, **options: Any) -> None:
        report = sanity_report(BOOTSTRAP_ADMIN)
        if options["json"]:
            self.show_json(
                {
                    "status": report.status,
                    "total_projects": report.total_projects,
                    "issues_count": len(report.issues),
                    "warnings_count": len(report.warnings),
                    "issues": report.issues,
                    "warnings": report.warnings,
                }
            )
        else:
            for kind, sentences in (("issue", report.issues), ("warning", report.warnings)):
                for sentence in sentences:
                    self.stdout.write(f"{kind}: {commands.one_line(sentence)}")
            self.stdout.write(
                f"{report.status}: {report.total_projects} projects, {len(report.issues)} issues, "
                f"{len(report.warnings)} warnings"
            )
        if report.issues:
            sys.exit(FOUND_ISSUES)

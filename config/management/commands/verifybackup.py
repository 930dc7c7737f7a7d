"""Compares a backup with its checksums."""

from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from common import commands
from config.backup import Damaged, as_mapping, verify_backup

DAMAGED = 1
MB = 1024**2


class Command(commands.Command):
    help = (
        "Read a whole backup and compare it with the checksums that were written with it. Needs no "
        "database. Exit code 0: it is as it was written; 1: it is damaged, and where; 2: it is "
        "none, or one that this release cannot read."
    )
    example = """\
  manage.py verifybackup /backups/2026-03-01"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, metavar="DIR", help="what backup made")
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *, folder: Path, **options: Any) -> None:
        folder = folder.expanduser().resolve()
        try:
            with commands.Meter(
                "verifybackup", "MB", stream=self.stderr, no_color=options["no_color"]
            ) as meter:
                manifest = verify_backup(
                    folder,
                    on_progress=lambda done, fraction: meter.show(done // MB, fraction),
                )
        except Damaged as error:
            if options["json"]:
                self.show_json({"folder": str(folder), "status": "damaged", "why": error.detail})
            raise CommandError(commands.one_line(error.detail), returncode=DAMAGED) from error
        if options["json"]:
            self.show_json({"folder": str(folder), "status": "good", **as_mapping(manifest)})
        else:
            self.stdout.write(
                f"{folder}: good; {manifest.bytes / MB:.1f} MB of {manifest.made_at}, made by "
                f"Armarium {manifest.armarium} ({manifest.kind}, PostgreSQL {manifest.postgres})"
            )

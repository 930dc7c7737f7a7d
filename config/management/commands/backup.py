"""Saves the whole server while it serves."""

import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from common import commands
from config.backup import Kind, Made, as_mapping, make_backup

SOME_LACKING = 1
MB = 1024**2


class Command(commands.Command):
    help = (
        "Save the whole server into a new folder, while it serves: the database, the bytes of "
        "uploaded files, and the settings. The folder appears under its name when it is complete, "
        "verified and on the disk. The encryption keys, without which nobody reads the keys of "
        "providers, are left out unless --with-keys asks for them: keep them elsewhere. Exit code "
        "0: everything is saved; 1: it is, but bytes of some files were lost or damaged before; "
        "2: there is no backup."
    )
    example = """\
  manage.py backup /backups/2026-03-01
  manage.py backup /backups/2026-03-01 --with-keys
  manage.py backup /backups/for-another-postgres --format dump
  manage.py backup "/backups/$(date +%F)" --json | jq .bytes"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "folder", type=Path, metavar="DIR", help="the folder to make; it may be empty"
        )
        parser.add_argument(
            "--format",
            type=Kind,
            choices=list(Kind),
            help="physical (the database's own files, quick to restore; default) or dump (for "
            "other versions of PostgreSQL and other processors; default with DATABASE_URL)",
        )
        parser.add_argument(
            "--with-keys",
            action="store_true",
            help="save the encryption keys, too: whoever has the backup can then read the keys of "
            "providers",
        )
        parser.add_argument("--json", action="store_true", help="print the summary as JSON")

    def handle(self, *, folder: Path, **options: Any) -> None:
        usual = Kind.DUMP if settings.EMBEDDED_POSTGRES is None else Kind.PHYSICAL
        with commands.Meter(
            "backup", "MB", stream=self.stderr, no_color=options["no_color"]
        ) as meter:
            made = make_backup(
                folder,
                kind=options["format"] or usual,
                with_keys=options["with_keys"],
                on_progress=lambda done, fraction: meter.show(done // MB, fraction),
            )
        if options["json"]:
            self.show_json(
                {
                    "folder": str(folder.expanduser().resolve()),
                    **as_mapping(made.manifest),
                    "files": made.files,
                    "lacking_files": made.lacking,
                    "seconds": round(meter.seconds, 3),
                }
            )
        else:
            self._show(folder, made, meter.seconds)
        if made.lacking:
            sys.exit(SOME_LACKING)

    def _show(self, folder: Path, made: Made, seconds: float) -> None:
        manifest = made.manifest
        self.stdout.write(
            f"{folder}: {manifest.bytes / MB:.1f} MB, the database ({manifest.kind}, PostgreSQL "
            f"{manifest.postgres}) and {made.files} files; {seconds:.1f} s"
        )
        if manifest.with_keys:
            self.stdout.write(
                "The encryption keys are in it: keep it as safe as the keys of your providers."
            )
        else:
            self.stdout.write(
                f"The encryption key {manifest.encryption_keys[0]} is not in it. Keep a copy of "
                "<data dir>/secrets/encryption_key elsewhere: without it the stored keys of "
                "providers are lost, all else is restored."
            )
        for uuid in made.lacking:
            self.stdout.write(f"lacking: file {uuid}, whose bytes are lost or damaged (checkfiles)")

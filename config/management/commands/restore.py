"""Restores a backup where nothing is yet."""

import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.db import connections

from common import commands
from config.backup import Restored, as_mapping, restore_backup

SOME_DAMAGED = 1
MB = 1024**2


class Command(commands.Command):
    help = (
        "Restore what backup made into an empty data directory (--data-dir), or into an empty "
        "database (DATABASE_URL). The checksums are compared first; then the database is brought, "
        "started, upgraded to this release and looked through. Nothing is ever overwritten. Exit "
        "code 0: everything is back; 1: it is, but some files are damaged; 2: nothing can be used."
    )
    example = """\
  manage.py restore /backups/2026-03-01 --data-dir /var/lib/armarium
  manage.py up --data-dir /var/lib/armarium"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, metavar="DIR", help="what backup made")
        parser.add_argument(
            "--no-check",
            action="store_false",
            dest="check",
            help="do not look through all tables, indexes and files at the end",
        )
        parser.add_argument("--json", action="store_true", help="print the summary as JSON")

    def handle(self, *, folder: Path, **options: Any) -> None:
        database = settings.EMBEDDED_POSTGRES
        if database is not None:
            database.report = self._say
        style = {"stream": self.stderr, "no_color": options["no_color"]}
        try:
            with (
                commands.Meter("verifying", "MB", **style) as verifying,
                commands.Meter("restoring", "MB", **style) as restoring,
            ):
                restored = restore_backup(
                    folder,
                    say=restoring.say,
                    check=options["check"],
                    on_verified=lambda done, fraction: verifying.show(done // MB, fraction),
                    on_restored=lambda done, fraction: restoring.show(done // MB, fraction),
                )
        finally:
            connections.close_all()
            if database is not None and database.is_running():
                database.leave()
        if options["json"]:
            self.show_json(
                {
                    "data_dir": str(settings.DATA_DIR),
                    "backup": as_mapping(restored.manifest),
                    "accounts": restored.accounts,
                    "projects": restored.projects,
                    "embeddings": restored.embeddings,
                    "files": restored.files,
                    "upgraded": restored.upgraded,
                    "locked_keys": restored.locked_keys,
                    "damaged_files": restored.damaged_files,
                    "checked": restored.checked,
                    "seconds": round(restoring.seconds, 3),
                }
            )
        else:
            self._show(restored, restoring.seconds)
        if restored.damaged_files:
            sys.exit(SOME_DAMAGED)

    def _say(self, sentence: str) -> None:
        self.stderr.write(sentence)

    def _show(self, restored: Restored, seconds: float) -> None:
        manifest = restored.manifest
        self.stdout.write(
            f"{settings.DATA_DIR}: {restored.accounts} accounts, {restored.projects} projects, "
            f"{restored.embeddings} embeddings, {restored.files} files, as of "
            f"{manifest.made_at}; {seconds:.1f} s"
        )
        if restored.upgraded:
            self.stdout.write(
                f"Upgraded from Armarium {manifest.armarium} to {settings.VERSION}: "
                f"{len(restored.upgraded)} migrations."
            )
        if restored.locked_keys:
            self.stdout.write(
                f"{restored.locked_keys} keys of providers cannot be read: they were encrypted "
                f"with the key {manifest.encryption_keys[0]}. Before the next start put it into "
                f"{settings.DATA_DIR}/secrets/encryption_key, or into "
                "ARMARIUM_PREVIOUS_ENCRYPTION_KEYS. If it is lost for good, run "
                "`rotateencryptionkey --erase-unreadable`: all else works without."
            )
        for uuid in restored.damaged_files:
            self.stdout.write(f"damaged: file {uuid} (checkfiles)")
        if not restored.checked:
            self.stdout.write("Tables and indexes were not looked through.")
        self.stdout.write("Compare settings.env in the backup with this machine's settings.")

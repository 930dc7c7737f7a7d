"""Writes a project with all that is in it into one file."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from accounts.policy import BOOTSTRAP_ADMIN
from common import commands
from resources.archives import export_archive


class Command(commands.Command):
    help = (
        "Write a project into one file, as it is at one moment: settings, metadata schema, grants, "
        "a description of its LLM service, embeddings, agents, end users and files, with checksums "
        "and a fingerprint. No secrets: neither keys of providers nor API keys. importproject "
        "makes the same project of it, also on another server. The file appears when it is "
        "complete."
    )
    example = """\
  manage.py exportproject alice/letters letters.zip"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "project", type=commands.address, metavar="OWNER/HANDLE", help="the project"
        )
        parser.add_argument("file", type=Path, help="the ZIP file to write, or to replace")
        parser.add_argument("--json", action="store_true", help="print the summary as JSON")

    def handle(self, *, project: tuple[str, str], file: Path, **options: Any) -> None:
        title = "/".join(project)
        with commands.Meter(
            title, "rows", stream=self.stderr, no_color=options["no_color"]
        ) as meter:
            exported = export_archive(
                actor=BOOTSTRAP_ADMIN,
                owner=project[0],
                handle=project[1],
                target=file,
                on_progress=meter.show,
            )
        if options["json"]:
            self.show_json(
                {
                    "project": title,
                    "file": str(file),
                    **asdict(exported),
                    "seconds": round(meter.seconds, 3),
                }
            )
        else:
            self.stdout.write(
                f"{title}: {exported.embeddings} embeddings, {exported.agents} agents, "
                f"{exported.users} users, {exported.files} files in {file}; {meter.seconds:.1f} s"
            )
            for warning in exported.warnings:
                self.stdout.write(f"warning: {commands.one_line(warning)}")

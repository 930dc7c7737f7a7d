"""Makes a project of a file that exportproject wrote."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from accounts.policy import BOOTSTRAP_ADMIN
from common import commands
from resources.archives import Imported, import_archive


class Command(commands.Command):
    help = (
        "Make a project of a file that exportproject wrote, here or on another server: all of it, "
        "or nothing. Its owner must exist. Accounts that are not here get no role, and are named. "
        "Its LLM service is one of the owner's with the same model, or is made without a "
        "provider's key. What came of it is compared with the fingerprint in the file."
    )
    example = """\
  manage.py importproject letters.zip
  manage.py importproject letters.zip --as bob/letters-of-alice --no-grants
  manage.py importproject letters.zip --instance alice/my-model"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="what exportproject wrote")
        parser.add_argument(
            "--as",
            dest="place",
            type=commands.address,
            metavar="OWNER/HANDLE",
            help="the owner and the handle here; default: as they were",
        )
        parser.add_argument(
            "--instance",
            type=commands.address,
            metavar="OWNER/HANDLE",
            help="the LLM service to base it on; it must have the model that made the vectors",
        )
        parser.add_argument(
            "--no-grants",
            action="store_false",
            dest="grants",
            help="share it with nobody: accounts of the same handles may be other people here",
        )
        parser.add_argument("--json", action="store_true", help="print the summary as JSON")

    def handle(self, *, file: Path, **options: Any) -> None:
        name = commands.one_line(file.name, limit=40)
        with commands.Meter(
            name, "rows", stream=self.stderr, no_color=options["no_color"]
        ) as meter:
            imported = import_archive(
                actor=BOOTSTRAP_ADMIN,
                source=file,
                place=options["place"],
                instance=options["instance"],
                with_grants=options["grants"],
                on_progress=meter.show,
            )
        if options["json"]:
            self.show_json({**asdict(imported), "seconds": round(meter.seconds, 3)})
        else:
            self._show(imported, meter.seconds)

    def _show(self, imported: Imported, seconds: float) -> None:
        self.stdout.write(
            f"{imported.project}: {imported.embeddings} embeddings, {imported.agents} agents, "
            f"{imported.users} users, {imported.files} files; {seconds:.1f} s"
        )
        if imported.is_new_instance:
            self.stdout.write(
                f"Its LLM service '{imported.instance}' was made without a provider's key: set one "
                "before texts or words are embedded."
            )
        for grant in imported.not_granted:
            handle = commands.one_line(grant.user_handle, limit=40)
            self.stdout.write(f"not granted: {handle} as {grant.role}")

"""Moves what a project groups to another one."""

from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser

from accounts.policy import BOOTSTRAP_ADMIN
from accounts.selectors import user_named
from common import commands
from resources.selectors import KINDS_BY_NAME
from resources.services import move_contents, numbered


class Command(commands.Command):
    help = (
        "Move agents, end users and files from one project to another one of the same owner: all "
        "of them, those of one kind, or some by their ids. Either all of it moves or nothing."
    )
    example = """\
  manage.py moveresources alice/letters archive --dry-run
  manage.py moveresources alice/letters archive --kind files
  manage.py moveresources alice/letters archive --kind users \\
      --id 0198b5a4-2f6e-7cc1-9d53-6f0d4f9d2b10"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "source", type=commands.address, metavar="OWNER/HANDLE", help="the project to empty"
        )
        parser.add_argument("target", metavar="TARGET", help="handle of another project of OWNER")
        parser.add_argument(
            "--kind", choices=list(KINDS_BY_NAME), help="only these; default: all three"
        )
        parser.add_argument(
            "--id",
            dest="ids",
            nargs="+",
            type=UUID,
            metavar="UUID",
            help="only these, all of which must be there; with --kind",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would move, and move nothing"
        )
        parser.add_argument("--json", action="store_true", help="print the numbers as JSON")

    def handle(self, *, source: tuple[str, str], target: str, **options: Any) -> None:
        if options["ids"] and not options["kind"]:
            raise CommandError(
                "--id needs --kind: an agent and a file may have the same id.",
                returncode=commands.COULD_NOT_RUN,
            )
        owner, handle = source
        moved = move_contents(
            actor=BOOTSTRAP_ADMIN,
            owner=user_named(owner),
            source=handle,
            target=target,
            kinds=[options["kind"]] if options["kind"] else list(KINDS_BY_NAME),
            uuids=options["ids"],
            dry_run=options["dry_run"],
        )
        if options["json"]:
            self.show_json(
                {
                    "source": f"{owner}/{handle}",
                    "target": f"{owner}/{target}",
                    "moved": moved,
                    "dry_run": options["dry_run"],
                }
            )
            return
        numbers = ", ".join(numbered(name, number) for name, number in moved.items())
        verb = "would move" if options["dry_run"] else "moved"
        self.stdout.write(f"{numbers} {verb} from {owner}/{handle} to {owner}/{target}")

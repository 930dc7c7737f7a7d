"""Changes the key that provider keys are encrypted with."""

from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser

from common import commands
from llm_services import key_ring


class Command(commands.Command):
    help = (
        "Encrypt every stored provider key under the newest encryption key, while the server runs. "
        "First start the server with the new key in ARMARIUM_ENCRYPTION_KEY and the former one in "
        "ARMARIUM_PREVIOUS_ENCRYPTION_KEYS; afterwards the former one can go. What was interrupted "
        "is completed by running it again."
    )
    example = """\
  ARMARIUM_ENCRYPTION_KEY=NEW ARMARIUM_PREVIOUS_ENCRYPTION_KEYS=OLD manage.py rotateencryptionkey
  manage.py rotateencryptionkey --erase-unreadable"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--erase-unreadable",
            action="store_true",
            help="the former encryption key is lost: erase provider keys that cannot be read",
        )
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, **options: Any) -> None:
        try:
            done = key_ring.rotate(erase_unreadable=options["erase_unreadable"])
        except key_ring.WrongKeyRing as error:
            raise CommandError(str(error), returncode=1) from error
        if options["json"]:
            self.show_json(asdict(done))
            return
        self.stdout.write(
            f"{_keys(done.sealed_anew)} encrypted under the newest encryption key, "
            f"{done.newest_already} were already."
        )
        if done.unreadable:
            self.stdout.write(
                f"{_keys(len(done.unreadable))} erased, to be entered again: "
                f"{', '.join(done.unreadable)}."
            )
        self.stdout.write("Former encryption keys are not needed any more.")


def _keys(count: int) -> str:
    return "1 provider key" if count == 1 else f"{count} provider keys"

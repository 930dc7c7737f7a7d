"""Asks for a project's index to be built again."""

from typing import Any

from django.core.management.base import CommandParser

from accounts.policy import BOOTSTRAP_ADMIN
from common import commands
from embeddings.indexes import request_rebuild


class Command(commands.Command):
    help = (
        "Have the graph of a project's index built again by the worker; searches use the old one "
        "meanwhile. Without a worker, tendindexes does it."
    )
    example = """\
  manage.py rebuildindex alice/letters
  manage.py listindexes --watch"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project", type=commands.address, metavar="OWNER/PROJECT")

    def handle(self, *, project: tuple[str, str], **options: Any) -> None:
        report = request_rebuild(actor=BOOTSTRAP_ADMIN, owner=project[0], handle=project[1])
        self.stdout.write(
            f"The index of '{report.project}' ({report.sealed} rows) will be built again."
        )

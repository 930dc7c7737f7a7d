"""Django's `migrate`, as one of several releases and processes on a database that is in use."""

from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands import migrate

from config import startup
from config.processes import Failed


class Command(migrate.Command):
    help = (
        f"{migrate.Command.help} Of several processes at once one does it, and no table is waited "
        "for in the way of others for more than a moment."
    )

    def handle(self, *arguments: Any, **options: Any) -> None:
        try:
            startup.migrate(
                lambda: super(Command, self).handle(*arguments, **options), say=self._say
            )
        except Failed as error:
            raise CommandError(str(error)) from error

    def _say(self, sentence: str) -> None:
        self.stderr.write(sentence)
        self.stderr.flush()

"""Ends keys."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts.selectors import key_named, keys_of, user_named
from accounts.services import revoke_keys
from common import commands


class Command(commands.Command):
    help = (
        "Revoke an API key, or all keys of an account: at once, and for good. Find the ids with "
        "listkeys; a key that leaked may also be given itself."
    )
    example = """\
  manage.py revokekey 4vQz81LmN0aB
  manage.py revokekey alice --all"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("which", help="id of a key, or with --all the name of an account")
        parser.add_argument("--all", action="store_true", help="revoke all keys of an account")
        parser.add_argument("--json", action="store_true", help="print the number as JSON")

    def handle(self, *, which: str, **options: Any) -> None:
        if options["all"]:
            revoked = revoke_keys(keys_of(user_named(which)))
        else:
            key = key_named(which)
            if key.revoked_at is not None:
                raise CommandError(
                    f"The key {key.public_id} is revoked already.",
                    returncode=commands.COULD_NOT_RUN,
                )
            revoked = revoke_keys(keys_of(key.user).filter(pk=key.pk))
        if options["json"]:
            self.show_json({"revoked": revoked})
        else:
            self.stdout.write(f"{revoked} {'key' if revoked == 1 else 'keys'} revoked.")

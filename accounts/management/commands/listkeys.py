"""Shows an account's keys."""

from datetime import datetime
from typing import Any

from django.core.management.base import CommandParser

from accounts.models import ApiKey
from accounts.selectors import keys_of, user_named
from common import commands


class Command(commands.Command):
    help = (
        "List the API keys of an account: what they may do, and which still work. The keys "
        "themselves are not stored, so nobody can see them again."
    )
    example = """\
  manage.py listkeys alice
  manage.py listkeys alice --json | jq -r '.keys[] | select(.last_used_at == null) | .key_id'"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("handle", help="name of the account")
        parser.add_argument("--json", action="store_true", help="print the keys as JSON")

    def handle(self, *, handle: str, **options: Any) -> None:
        rows = list(keys_of(user_named(handle)))
        if options["json"]:
            self.show_json({"keys": [_described(key) for key in rows]})
            return
        if not rows:
            self.stdout.write(f"'{handle}' has no keys; make one with createkey.")
            return
        self.show_table(
            ["Id", "Name", "Role", "Project", "Created", "Last used", "State"],
            [
                (
                    key.public_id,
                    key.name,
                    key.role_cap or "any",
                    str(key.project) if key.project else "all",
                    _day(key.created_at),
                    _day(key.last_used_at) or "never",
                    _state(key),
                )
                for key in rows
            ],
        )


def _described(key: ApiKey) -> dict[str, Any]:
    return {
        "key_id": key.public_id,
        "name": key.name,
        "role": key.role_cap or None,
        "project": str(key.project) if key.project else None,
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "works": key.works,
    }


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {_day(key.revoked_at)}"
    if key.expires_at is None:
        return "works"
    return f"{'until' if key.works else 'expired'} {_day(key.expires_at)}"


def _day(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%d")

"""Makes a key for an account. It lives with the projects because a key may be for one of them."""

import re
from argparse import ArgumentTypeError
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from accounts.models import ApiKey, Role
from accounts.policy import Actor, Level
from accounts.selectors import user_named
from accounts.services import create_key
from common import commands
from projects.selectors import project_for

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_MAXIMUM_NAME = ApiKey._meta.get_field("name").max_length or 0


def expiry(text: str) -> datetime:
    """Return the moment that ``30d``, ``12h``, ``2w`` from now or a date means; for argparse."""
    if span := re.fullmatch(r"([0-9]{1,5})([hdw])", text, re.ASCII):
        moment = timezone.now() + int(span[1]) * _UNITS[span[2]]
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ArgumentTypeError(
                f"'{text[:40]}' is neither a time such as 30d, 12h or 2w nor a date such as "
                "2027-01-01."
            ) from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment <= timezone.now():
        raise ArgumentTypeError(f"'{text[:40]}' has passed already.")
    return moment


class Command(commands.Command):
    help = (
        "Make another API key for an account and print it, this once. A key may carry less than "
        "its account: a lower role, one project, a limited time."
    )
    example = """\
  manage.py createkey alice
  manage.py createkey alice --name dashboard --role reader --expires 30d
  manage.py createkey alice --project bob/letters --expires 2027-01-01
  export KEY=$(manage.py createkey alice --json | jq -r .api_key)"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("handle", help="name of the account that the key acts for")
        parser.add_argument("--name", default="", help="what the key is for")
        parser.add_argument(
            "--role", choices=Role.values, help="never more than this role, on any project"
        )
        parser.add_argument(
            "--project",
            type=commands.address,
            metavar="OWNER/HANDLE",
            help="only this project, which the account must be able to read",
        )
        parser.add_argument(
            "--expires",
            type=expiry,
            metavar="WHEN",
            help="30d, 12h, 2w, or a date such as 2027-01-01 (UTC); default: never",
        )
        parser.add_argument("--json", action="store_true", help="print the key as JSON")

    def handle(self, *, handle: str, name: str, **options: Any) -> None:
        if len(name) > _MAXIMUM_NAME:
            raise CommandError(
                f"--name: at most {_MAXIMUM_NAME} characters.", returncode=commands.COULD_NOT_RUN
            )
        user = user_named(handle)
        project = None
        if options["project"] is not None:
            owner, project_handle = options["project"]
            project = project_for(
                Actor(user=user), Level.READER, owner=owner, handle=project_handle
            )
        key = create_key(
            user=user,
            name=name,
            role_cap=Role(options["role"]) if options["role"] else None,
            project_id=project.pk if project else None,
            expires_at=options["expires"],
        )
        if options["json"]:
            self.show_json(
                {
                    "api_key": key,
                    "user_handle": user.handle,
                    "name": name,
                    "role": options["role"],
                    "project": str(project) if project else None,
                    "expires_at": options["expires"],
                }
            )
            return
        self.stdout.write(f"API key  {key}")
        self.stdout.write("Write the key down: it is not shown again.")

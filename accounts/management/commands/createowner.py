"""Makes an account."""

import getpass
import os
import sys
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from accounts.models import User
from accounts.policy import BOOTSTRAP_ADMIN
from accounts.services import create_user
from common import commands
from common.handles import RULE

_MAXIMUM_NAME = User._meta.get_field("name").max_length or 0


class Command(commands.Command):
    help = (
        "Make an account that owns projects, with its default project and its first API key. The "
        "key is printed this once. Without a password the account works through its key only."
    )
    example = """\
  manage.py createowner alice --name "Alice Doe" --email alice@example.org
  manage.py createowner ada --admin --password-prompt
  ARMARIUM_PASSWORD=… manage.py createowner bob --password-env ARMARIUM_PASSWORD
  manage.py createowner carol --json | jq -r .api_key"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("handle", help=f"name of the account: {RULE}")
        parser.add_argument("--name", default="", help="name of the person")
        parser.add_argument("--email", help="address of the person")
        parser.add_argument(
            "--admin", action="store_true", help="let the account administer the whole server"
        )
        password = parser.add_mutually_exclusive_group()
        password.add_argument(
            "--password-prompt", action="store_true", help="ask for a password on the terminal"
        )
        password.add_argument(
            "--password-env", metavar="VARIABLE", help="environment variable that holds a password"
        )
        parser.add_argument("--json", action="store_true", help="print the account as JSON")

    def handle(self, *, handle: str, name: str, email: str | None, **options: Any) -> None:
        if len(name) > _MAXIMUM_NAME:
            raise CommandError(
                f"--name: at most {_MAXIMUM_NAME} characters.", returncode=commands.COULD_NOT_RUN
            )
        account = create_user(
            actor=BOOTSTRAP_ADMIN,
            handle=handle,
            name=name,
            email=email,
            password=self._password(handle, **options),
            is_superuser=options["admin"],
        )
        if options["json"]:
            self.show_json(
                {
                    "user_handle": account.user.handle,
                    "name": account.user.name,
                    "email": account.user.email,
                    "is_admin": account.user.is_superuser,
                    "api_key": account.api_key,
                }
            )
            return
        what = "Administrator" if account.user.is_superuser else "Account"
        self.stdout.write(f"{what} '{account.user.handle}' created.")
        self.stdout.write(f"API key  {account.api_key}")
        self.stdout.write("Write the key down: it is not shown again.")

    def _password(
        self, handle: str, *, password_prompt: bool, password_env: str | None, **options: Any
    ) -> str | None:
        if password_prompt:
            password = _asked()
        elif password_env is not None:
            password = os.environ.get(password_env, "")
            if not password:
                raise CommandError(
                    f"The environment variable {password_env} is empty or not set.",
                    returncode=commands.COULD_NOT_RUN,
                )
        else:
            return None
        try:
            validate_password(password, User(handle=handle))
        except ValidationError as error:
            raise CommandError(
                " ".join(error.messages), returncode=commands.COULD_NOT_RUN
            ) from error
        return password


def _asked() -> str:
    if not sys.stdin.isatty():
        raise CommandError(
            "There is no terminal to ask for a password; use --password-env.",
            returncode=commands.COULD_NOT_RUN,
        )
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise CommandError("The passwords differ.", returncode=commands.COULD_NOT_RUN)
    return password

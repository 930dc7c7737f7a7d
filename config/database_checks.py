"""Whether the database is one that Armarium can trust with data."""

import re
import time
from collections.abc import Callable, Sequence

from django.conf import settings
from django.db import OperationalError, connection

MINIMUM_POSTGRES = 15
# Older releases of pgvector could corrupt HNSW indexes.
MINIMUM_PGVECTOR = (0, 8, 4)
# Of PostgreSQL's own "contrib" modules: searching by words needs them.
NEEDED_EXTENSIONS = ("unaccent", "pg_trgm")
_RETRY_S = 0.5
_SAY_EVERY_S = 2.0
_RISKY_WHEN_OFF = ("fsync", "full_page_writes", "synchronous_commit")


class UnsuitableDatabase(Exception):
    """The database cannot be used; the text says what was found and what to do."""


def wait_for_database(
    *, report: Callable[[str], None], timeout_s: float = 60.0, sleep: Callable[[float], None]
) -> None:
    """Wait until the database accepts a connection.

    Raises UnsuitableDatabase with the last refusal after the timeout.
    """
    began = said = time.monotonic()
    while True:
        try:
            connection.ensure_connection()
        except OperationalError as error:
            refusal = str(error).strip().splitlines()[0]
            now = time.monotonic()
            if now - began > timeout_s:
                raise UnsuitableDatabase(
                    f"The database at {_place()} cannot be reached: {refusal}"
                ) from error
            if now - said >= _SAY_EVERY_S:
                said = now
                report(f"Waiting for the database at {_place()}: {refusal}")
            sleep(_RETRY_S)
        else:
            return


def check_database() -> list[str]:
    """Return warnings about the connected database.

    Raises UnsuitableDatabase for a PostgreSQL or pgvector that is missing or too old, and for
    extensions that are neither there nor can be made.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version_num')::int, version()")
        number, version = cursor.fetchone()
        if number < MINIMUM_POSTGRES * 10_000:
            raise UnsuitableDatabase(
                f"The database at {_place()} is {version.split(' on ')[0]}; Armarium needs"
                f" PostgreSQL {MINIMUM_POSTGRES} or newer. Upgrade it, or unset DATABASE_URL to use"
                " the PostgreSQL that comes with Armarium."
            )
        cursor.execute(
            "SELECT a.default_version, e.extversion FROM pg_available_extensions a"
            " LEFT JOIN pg_extension e ON e.extname = a.name WHERE a.name = 'vector'"
        )
        _check_pgvector(cursor.fetchone())
        cursor.execute(
            "SELECT needed.name, a.name IS NOT NULL,"
            " has_database_privilege(current_database(), 'CREATE')"
            " FROM unnest(%s::text[]) AS needed (name)"
            " LEFT JOIN pg_available_extensions a ON a.name = needed.name"
            " WHERE NOT EXISTS (SELECT 1 FROM pg_extension WHERE extname = needed.name)",
            [list(NEEDED_EXTENSIONS)],
        )
        _check_missing_extensions(cursor.fetchall())
        cursor.execute(
            "SELECT name FROM pg_settings WHERE name = ANY(%s) AND setting = 'off' ORDER BY name",
            [list(_RISKY_WHEN_OFF)],
        )
        return [
            f"{name} is off in the database at {_place()}: writes that Armarium has acknowledged"
            " are lost when it crashes. Turn it on."
            for (name,) in cursor.fetchall()
        ]


def _check_pgvector(found: tuple[str | None, str | None] | None) -> None:
    needed = ".".join(map(str, MINIMUM_PGVECTOR))
    available, installed = found or (None, None)
    if installed is not None and _version(installed) >= MINIMUM_PGVECTOR:
        return
    if available is not None and _version(available) >= MINIMUM_PGVECTOR:
        if installed is None:
            return
        raise UnsuitableDatabase(
            f"The database at {_place()} still uses pgvector {installed}, and versions before"
            f" {needed} can corrupt their indexes; {available} is installed beside it. Run `ALTER"
            " EXTENSION vector UPDATE` there as its owner, then `REINDEX DATABASE`."
        )
    offered = f"offers only pgvector {available}" if available else "does not offer pgvector"
    raise UnsuitableDatabase(
        f"The database at {_place()} {offered}; Armarium needs {needed} or newer. Install it on the"
        " database server (https://github.com/pgvector/pgvector), or unset DATABASE_URL to use the"
        " PostgreSQL that comes with Armarium."
    )


def _check_missing_extensions(missing: Sequence[tuple[str, bool, bool]]) -> None:
    """Refuse a database where a migration could not make an extension.

    missing: the name of each, whether the server offers it, and whether our role may make it.
    """
    if absent := [name for name, is_offered, _ in missing if not is_offered]:
        raise UnsuitableDatabase(
            f"The database at {_place()} does not offer the extension {' and '.join(absent)}, which"
            " searching by words needs. Install PostgreSQL's contrib modules on the database server"
            " (the package postgresql-contrib), or unset DATABASE_URL to use the PostgreSQL that"
            " comes with Armarium."
        )
    if refused := [name for name, _, may_create in missing if not may_create]:
        commands = " ".join(f"CREATE EXTENSION {name};" for name in refused)
        raise UnsuitableDatabase(
            f"The database at {_place()} lacks the extension {' and '.join(refused)}, which"
            " searching by words needs, and Armarium's role may not create it. Run"
            f" `{commands}` there as the database's owner, or grant the role CREATE on the"
            " database."
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", text)[:3])


def _place() -> str:
    """Return where the database is, without the password."""
    database = settings.DATABASES["default"]
    return f"{database.get('HOST') or 'localhost'}:{database.get('PORT') or 5432}"

"""Examines the installation: database server, migrations, disk, settings."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.db import connection

from common.doctor import Finding, Severity, check
from config.database_checks import UnsuitableDatabase, check_database
from config.health import unapplied_migrations
from config.processes import is_loopback

_GIB = 1024**3
# Building an index takes as much again as its project.
_LITTLE_SHARE, _LITTLE_BYTES = 0.1, 5 * _GIB
_NOTHING_SHARE, _NOTHING_BYTES = 0.03, _GIB


@check("database", "Database server")
def database(thorough: bool) -> Iterator[Finding]:
    """Look at versions, extensions and the settings that keep what is acknowledged."""
    try:
        for warning in check_database():
            name = warning.partition(" ")[0]
            yield Finding(
                Severity.ERROR, warning, f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();"
            )
    except UnsuitableDatabase as error:
        yield Finding(Severity.ERROR, str(error))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extname, extversion, default_version FROM pg_extension"
            " JOIN pg_available_extensions ON name = extname WHERE extversion <> default_version"
        )
        for name, installed, available in cursor.fetchall():
            yield Finding(
                Severity.WARNING,
                f"The database uses {name} {installed}, and {available} is installed beside it.",
                f"ALTER EXTENSION {name} UPDATE;",
            )
        cursor.execute("SELECT current_setting('data_checksums')")
        if cursor.fetchone()[0] != "on":
            yield Finding(
                Severity.WARNING,
                "The database keeps no checksums: damage on the disk goes unnoticed.",
                "Stop the database, then: pg_checksums --enable -D <its data directory>",
            )


@check("migrations", "Migrations")
def migrations(thorough: bool) -> Iterator[Finding]:
    """Look whether the tables are those of this release."""
    missing = unapplied_migrations()
    if missing:
        yield Finding(
            Severity.ERROR,
            f"{len(missing)} migrations are still to be applied, the first is {missing[0]}.",
            "manage.py migrate",
        )


@check("disk", "Disk")
def disk(thorough: bool) -> Iterator[Finding]:
    """Look whether there is room for what is to come."""
    usage = shutil.disk_usage(_existing(settings.DATA_DIR))
    free = f"{usage.free / _GIB:.1f} GiB of {usage.total / _GIB:.0f} GiB are free"
    fix = "Add space, or delete what is not needed: manage.py listindexes tells the largest."
    if usage.free < min(_NOTHING_SHARE * usage.total, _NOTHING_BYTES):
        yield Finding(
            Severity.ERROR, f"The disk of {settings.DATA_DIR} is almost full: {free}.", fix
        )
    elif usage.free < min(_LITTLE_SHARE * usage.total, _LITTLE_BYTES):
        yield Finding(
            Severity.WARNING, f"The disk of {settings.DATA_DIR} is getting full: {free}.", fix
        )


@check("settings", "Settings")
def configuration(thorough: bool) -> Iterator[Finding]:
    """Look for settings that are for trying things out only."""
    if settings.DEBUG:
        yield Finding(
            Severity.ERROR,
            "Debugging is on: pages of errors show code and settings to everybody.",
            "ARMARIUM_DEBUG=false",
        )
    if settings.ALLOW_RESET:
        yield Finding(
            Severity.WARNING,
            "An administrator's key can delete everything by one request.",
            "ARMARIUM_ALLOW_RESET=false",
        )
    if not settings.BEHIND_TLS and not is_loopback(settings.HOST):
        yield Finding(
            Severity.WARNING,
            f"It listens on {settings.HOST} without TLS: keys and texts can be read on their way.",
            "Put a proxy with TLS in front, then ARMARIUM_BEHIND_TLS=true (docs/operations.md)",
        )
    if settings.ADMIN_KEY and len(settings.ADMIN_KEY) < settings.MINIMUM_SECRET_LENGTH:
        yield Finding(
            Severity.WARNING,
            f"The admin key has fewer than {settings.MINIMUM_SECRET_LENGTH} characters.",
            "ARMARIUM_ADMIN_KEY=$(openssl rand -hex 32)",
        )


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that there is."""
    return next(each for each in (path, *path.parents) if each.exists())

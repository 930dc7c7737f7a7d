"""The steps between a running database and a running web server."""

import http.client
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.conf import settings
from django.core.management import call_command
from django.db import OperationalError, connection

from config.database_checks import UnsuitableDatabase, check_database, wait_for_database
from config.health import unapplied_migrations
from config.processes import Failed, is_loopback
from llm_services import key_ring

# Any number will do, as long as every release uses the same one.
_MIGRATION_LOCK = 0x41524D41
_SAY_EVERY_S = 2.0
_ATTEMPTS = 5

Say = Callable[[str], None]


def check_exposure(host: str) -> None:
    """Raise Failed when a weak admin key would be reachable from other machines."""
    shortest = settings.MINIMUM_SECRET_LENGTH
    if settings.ADMIN_KEY and len(settings.ADMIN_KEY) < shortest and not is_loopback(host):
        raise Failed(
            f"The admin key has only {len(settings.ADMIN_KEY)} characters, and other machines can"
            f" reach {host}. Give ARMARIUM_ADMIN_KEY at least {shortest} characters, or"
            " listen on 127.0.0.1."
        )


def prepare_database(*, say: Say, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait for the database and look whether it will do. Raises Failed."""
    try:
        wait_for_database(report=say, sleep=sleep)
        for warning in check_database():
            say(f"Warning: {warning}")
    except UnsuitableDatabase as error:
        raise Failed(str(error)) from error


def apply_migrations(*, say: Say) -> None:
    """Apply what is missing; of several processes at once, one does it and the others wait.

    Raises Failed when a table stays locked by somebody else.
    """
    with _migration_lock(say):
        missing = unapplied_migrations()
        if missing:
            say(f"Applying {len(missing)} database migrations …")
            # The command takes the lock again, which whoever has it may.
            call_command("migrate", interactive=False, verbosity=0)


def migrate(run: Callable[[], object], *, say: Say) -> None:
    """Run what applies migrations: as the only process that does, and in nobody's way for long.

    Each migration is its own transaction, so a killed run goes on where it was. Raises Failed when
    a table stays locked by somebody else.
    """
    with _migration_lock(say), _long_statements():
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                run()
            except OperationalError as error:
                if getattr(error.__cause__, "sqlstate", None) != "55P03":
                    raise
                if attempt == _ATTEMPTS:
                    raise Failed(
                        "A migration waits for a table that another session keeps locked. End"
                        " long transactions on this database, then start again."
                    ) from error
                say("A table is locked by another session; trying again.")
                time.sleep(attempt)
            else:
                return


@contextmanager
def _long_statements() -> Iterator[None]:
    """Let statements take long: filling a column may.

    Waiting for a lock may not (settings: lock_timeout), since everybody else queues up behind the
    one who waits.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
    try:
        yield
    finally:
        if connection.is_usable():
            with connection.cursor() as cursor:
                cursor.execute("RESET statement_timeout")


def check_encryption_key() -> None:
    """Raise Failed unless the encryption keys are those of this database.

    Where migrations are missing, whoever applies them looks.
    """
    if unapplied_migrations():
        return
    try:
        key_ring.check()
    except key_ring.WrongKeyRing as error:
        raise Failed(str(error)) from error


@contextmanager
def _migration_lock(say: Say) -> Iterator[None]:
    began = said = time.monotonic()
    with connection.cursor() as cursor:
        # Asked for again and again: a waiting pg_advisory_lock would run into the timeouts.
        while True:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [_MIGRATION_LOCK])
            if cursor.fetchone()[0]:
                break
            now = time.monotonic()
            if now - said >= _SAY_EVERY_S:
                said = now
                say(f"Another process applies migrations; waiting ({now - began:.0f} s) …")
            time.sleep(0.3)
    try:
        yield
    finally:
        # A lost connection has given up the lock already.
        if connection.is_usable():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_MIGRATION_LOCK])


def answers(host: str, port: int, path: str) -> bool:
    """Tell whether the web server answers this address with 200."""
    connected = http.client.HTTPConnection(reachable(host), port, timeout=2)
    try:
        # Behind a TLS proxy, plain requests are sent away; we stand on the proxy's side.
        connected.request("GET", path, headers={"X-Forwarded-Proto": "https"})
        return connected.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connected.close()


def answers_ready(host: str, port: int) -> bool:
    """Tell whether the web server says that it can serve."""
    return answers(host, port, "/readyz")


def reachable(host: str) -> str:
    """Return an address at which this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104


def base_url(host: str, port: int) -> str:
    """Return the address to print for people."""
    shown = reachable(host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"

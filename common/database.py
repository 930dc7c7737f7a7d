"""What the database says when others are quicker: trying again, and naming what was violated."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import psycopg
from django.db import DatabaseError, IntegrityError, OperationalError, connection, transaction
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

ATTEMPTS = 5
# Classes of errors after which nobody knows: connections that broke, servers that stopped.
_GONE = ("08", "57P")

F = TypeVar("F", bound=Callable[..., Any])


def retry_conflicts(function: F) -> F:
    """Run a function again when PostgreSQL chose its transaction to end a deadlock.

    At most ATTEMPTS times, with growing random pauses; then the error goes on and becomes a 503.
    Inside a transaction of the caller it runs once: only the whole transaction can be repeated.
    """

    def run(*arguments: Any, **keywords: Any) -> Any:
        if connection.in_atomic_block:
            return function(*arguments, **keywords)
        attempts = Retrying(
            retry=retry_if_exception(_is_conflict),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.02, max=0.5),
            reraise=True,
        )
        return attempts(function, *arguments, **keywords)

    return wraps(function)(run)  # type: ignore[return-value]


def _is_conflict(error: BaseException) -> bool:
    return isinstance(error, OperationalError) and isinstance(
        error.__cause__, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure
    )


@contextmanager
def at_one_moment() -> Iterator[None]:
    """Have all that is read meanwhile be as it was at one moment, however long that takes.

    Inside a transaction of the caller, which has begun to read, each statement sees its own moment.
    """
    is_first = not connection.in_atomic_block
    with transaction.atomic():
        with connection.cursor() as cursor:
            if is_first:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield


def is_lost() -> bool:
    """Say whether the connection broke, and close it then: the next statement makes a new one.

    Asked after an error. Not inside a transaction, which went with the connection.
    """
    if connection.in_atomic_block or connection.is_usable():
        return False
    connection.close()
    return True


def was_refused(error: DatabaseError) -> bool:
    """Tell whether the database said no; else it went away, and may have done what it was asked."""
    state = getattr(error.__cause__, "sqlstate", None)
    return state is not None and not state.startswith(_GONE)


def violated(error: IntegrityError) -> str:
    """Return the name of the constraint that a statement violated, "" where it is not known."""
    cause = error.__cause__
    return (cause.diag.constraint_name or "") if isinstance(cause, psycopg.Error) else ""

"""Bounds how long the statements of a search take together.

Each is given what is left of the time, as PostgreSQL's own limit of a statement, in the round trip
in which it is sent.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import psycopg
from django.db import OperationalError, connection
from psycopg import sql

from common.errors import Unavailable
from embeddings.store._wire import open_cursor

_SHORTEST_MS = 1
_LIMIT = "SELECT set_config('statement_timeout', %s, true)"


class TookTooLong(Unavailable):
    """A search was stopped."""

    def __init__(self, allowed_s: float) -> None:
        super().__init__(
            f"The search was stopped after {allowed_s:g} s, which is as long as one may take. Ask "
            "for less: narrow it with a filter, use fewer words, candidates or projects, and leave "
            "`exact` out."
        )


class _Budget:
    """The time that the statements of a block may take; that of the blocks around it counts too."""

    def __init__(self, allowed_s: float, around: "_Budget | None") -> None:
        self.allowed_s, self.left_s, self.around = allowed_s, allowed_s, around

    def shortest(self) -> "_Budget":
        """Return the one of which least is left."""
        if self.around is None:
            return self
        around = self.around.shortest()
        return self if self.left_s <= around.left_s else around

    def spend(self, seconds: float) -> None:
        """Take what a statement took."""
        self.left_s -= seconds
        if self.around is not None:
            self.around.spend(seconds)


_budget: ContextVar[_Budget | None] = ContextVar("search_budget", default=None)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Stop the statements of a block that take longer than this together: raise TookTooLong.

    Time that the program or a provider takes does not count.
    """
    token = _budget.set(_Budget(seconds, _budget.get()))
    try:
        yield
    finally:
        _budget.reset(token)


def is_bounded() -> bool:
    """Say whether a block around this one has a bound."""
    return _budget.get() is not None


def run(
    statement: Any,
    parameters: Mapping[str, Any],
    settings: Mapping[str, str] | None = None,
    *,
    prepare: bool,
) -> list[tuple[Any, ...]]:
    """Run a statement, with settings of its own, in one transaction and one round trip.

    prepare: for statements whose text comes again and again.
    """
    budget = _budget.get()
    if budget is None:
        return _run(statement, parameters, settings or {}, prepare=prepare)
    budget = budget.shortest()
    left_ms = int(budget.left_s * 1_000)
    if left_ms < _SHORTEST_MS:
        raise TookTooLong(budget.allowed_s)
    began = time.monotonic()
    try:
        return _run(statement, parameters, settings or {}, prepare=prepare, limit_ms=left_ms)
    except OperationalError as error:
        if isinstance(error.__cause__, psycopg.errors.QueryCanceled):
            raise TookTooLong(budget.allowed_s) from error
        raise
    finally:
        _spend(time.monotonic() - began)


def _spend(seconds: float) -> None:
    budget = _budget.get()
    if budget is not None:
        budget.spend(seconds)


def _run(
    statement: Any,
    parameters: Mapping[str, Any],
    settings: Mapping[str, str],
    *,
    prepare: bool,
    limit_ms: int | None = None,
) -> list[tuple[Any, ...]]:
    if not settings and limit_ms is None:
        with open_cursor(prepare=prepare) as cursor:
            cursor.execute(statement, parameters)
            return list(cursor.fetchall())
    connection.ensure_connection()
    plain: psycopg.Connection[Any] = connection.connection
    with open_cursor(prepare=True) as setting, open_cursor(prepare=prepare) as cursor:
        # What the server says to each comes when the pipeline ends.
        with connection.wrap_database_errors, plain.pipeline():
            if limit_ms is not None:
                # Past what counts queries: it asks for nothing, and takes no round trip.
                plain.execute(_LIMIT, [str(limit_ms)], prepare=True)
            if settings:
                setting.execute(_setting(tuple(settings)), list(settings.values()))
            cursor.execute(statement, parameters)
        return list(cursor.fetchall())


@lru_cache
def _setting(names: tuple[str, ...]) -> sql.SQL:
    """Return the statement that changes settings until the transaction ends."""
    return sql.SQL(f"SELECT {', '.join(f'set_config({name!r}, %s, true)' for name in names)}")

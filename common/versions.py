"""Versions of rows: what tells a cached decision that something it rests on has changed.

PostgreSQL writes into each row which transaction made it (`xmin`). Every change of a row changes
that number, whoever makes it and by whatever way, and a lock does not. Whoever remembers something
that rests on rows remembers their versions too, and has the statement that uses it compare them: it
sees rows and versions of one moment.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import BigIntegerField, Func


@dataclass(frozen=True)
class RowVersion:
    """A row as somebody read it.

    table: its name; the row's key there is `id`.
    version: the number of the transaction that wrote the row.
    """

    table: str
    id: int
    version: int


class Stale(Exception):
    """Something that was remembered is true no longer."""


def unchanged(tables: Iterable[str]) -> str:
    """Return the SQL condition that rows of these tables have the versions they had.

    Its parameters are those of `as_parameters`, for rows of the same tables in the same order.
    """
    conditions = [
        f"EXISTS (SELECT 1 FROM {table}"  # noqa: S608 - names of our own tables
        f" WHERE id = %(guard_{number})s AND xmin = %(version_{number})s::text::xid)"
        for number, table in enumerate(tables)
    ]
    return " AND ".join(conditions) or "true"


def as_parameters(rows: Sequence[RowVersion]) -> dict[str, Any]:
    """Return the parameters of `unchanged`."""
    parameters: dict[str, Any] = {}
    for number, row in enumerate(rows):
        parameters[f"guard_{number}"] = row.id
        parameters[f"version_{number}"] = str(row.version)
    return parameters


class VersionOf(Func):
    """The version of the row that a field is in; name a field that only that table has."""

    arity = 1
    output_field: Any = BigIntegerField()

    def as_sql(self, compiler: Any, connection: Any, *args: Any, **context: Any) -> Any:
        """Return the SQL of the version."""
        [column] = self.get_source_expressions()
        alias = compiler.quote_name_unless_alias(column.alias)
        return f"{alias}.xmin::text::bigint", []

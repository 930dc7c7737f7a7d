"""Makes rows through the services once in a process, and puts them back when needed again.

What most tests begin with takes some ninety statements to make; putting it back takes two. The rows
get numbers of their own each time, as if they had been made anew: nothing that a process remembers
of a row by its number is taken for that of another test.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.apps import apps
from django.db import connection, models

T = TypeVar("T")
# As SQL text; whole numbers stand for rows that were made, and move with them.
_Cell = str | int


@dataclass(frozen=True)
class _Table:
    name: str
    columns: tuple[str, ...]
    number: str
    rows: tuple[tuple[_Cell, ...], ...]


class Replay(Generic[T]):
    """Makes something in the database; the second time on, by putting the same rows back.

    make: makes it in a database in which it is not yet, and returns what describes it.
    again: returns the same for rows whose numbers are greater by its second argument.
    """

    def __init__(self, make: Callable[[], T], again: Callable[[T, int], T]) -> None:
        self._make = make
        self._again = again
        self._made: T | None = None
        self._tables: list[_Table] = []
        self._lowest = self._highest = 0

    def __call__(self) -> T:
        """Return what is there now."""
        if self._made is not None:
            return self._again(self._made, self._put_back())
        before = {model: set(_numbers(model)) for model in _models()}
        self._made = self._make()
        self._keep({model: set(_numbers(model)) - before[model] for model in _models()})
        return self._made

    def _keep(self, made: dict[type[models.Model], set[int]]) -> None:
        made = {model: numbers for model, numbers in made.items() if numbers}
        for model, numbers in made.items():
            fields = list(model._meta.concrete_fields)
            own = model._meta.pk
            assert own is not None
            assert not any(isinstance(each, models.GeneratedField) for each in fields), model
            columns = [connection.ops.quote_name(str(each.column)) for each in fields]
            literals = ", ".join(f"quote_nullable({column}::text)" for column in columns)
            table = connection.ops.quote_name(model._meta.db_table)
            number = connection.ops.quote_name(str(own.column))
            with connection.cursor() as cursor:
                cursor.execute(
                    f"SELECT {literals} FROM {table} WHERE {number} = ANY(%s) ORDER BY {number}",
                    [list(numbers)],
                )
                rows = [
                    tuple(_cell(*each, made) for each in zip(fields, row, strict=True))
                    for row in cursor.fetchall()
                ]
            self._tables.append(_Table(table, tuple(columns), str(own.column), tuple(rows)))
        self._lowest = min(map(min, made.values()))
        self._highest = max(map(max, made.values()))

    def _put_back(self) -> int:
        """Insert the rows with numbers that no row had before; return how much greater they are."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT max(last_value) FROM pg_sequences")
            shift = int(cursor.fetchone()[0]) + 1 - self._lowest
            statements = []
            for table in self._tables:
                rows = ", ".join(
                    "("
                    + ", ".join(
                        str(cell + shift) if isinstance(cell, int) else cell for cell in row
                    )
                    + ")"
                    for row in table.rows
                )
                statements += [
                    f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES {rows}",
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', '{table.number}'),"
                    f" {self._highest + shift})",
                ]
            # No parameters, so all of them go in one message; keys between them may wait.
            cursor.execute("; ".join(statements))
        return shift


def _models() -> list[type[models.Model]]:
    """Return those whose rows have numbers: other tables hold nothing that is made by itself."""
    found = apps.get_models(include_auto_created=True)
    return [
        model
        for model in found
        if model._meta.managed and isinstance(model._meta.pk, models.AutoField)
    ]


def _numbers(model: type[models.Model]) -> Any:
    return model._base_manager.values_list("pk", flat=True)


def _cell(
    field: "models.Field[Any, Any]", literal: str, made: dict[type[models.Model], set[int]]
) -> _Cell:
    target = field.model if field.primary_key else field.related_model
    plain = literal.strip("'")
    is_number = isinstance(target, type) and plain.isdigit() and int(plain) in made.get(target, ())
    return int(plain) if is_number else literal

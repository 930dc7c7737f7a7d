"""What management commands have in common: refusals in one sentence, tables, progress."""

import io
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from django.core.management.base import (
    BaseCommand,
    CommandError,
    CommandParser,
    DjangoHelpFormatter,
    OutputWrapper,
)
from django.db import InterfaceError, OperationalError
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from common import json
from common.errors import DomainError

COULD_NOT_RUN = 2
# How often a log, which shows no bar, hears of a long command.
_SECONDS_BETWEEN_LINES = 5.0


class Command(BaseCommand):
    """A command that answers a refusal with one sentence and exit code 2, never a traceback.

    example: command lines that show how it is used; they end its help.
    """

    example = ""

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> CommandParser:
        """Return the parser, with the examples below the options as they are written here."""
        if self.example:
            options |= {"epilog": f"examples:\n{self.example}", "formatter_class": _Examples}
        return super().create_parser(prog_name, subcommand, **options)

    def execute(self, *arguments: Any, **options: Any) -> str | None:
        """Run the command."""
        try:
            return super().execute(*arguments, **options)
        except (DomainError, InterfaceError, OperationalError) as error:
            raise CommandError(sentence_of(error), returncode=COULD_NOT_RUN) from error

    def show_json(self, value: Any) -> None:
        """Print a value for scripts."""
        self.stdout.write(json.render(value).decode())

    def show_table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table: as wide as the terminal, or as wide as it needs where there is none."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for number, column in enumerate(columns):
            # The first names the row, so that it must be whole.
            table.add_column(column, no_wrap=number == 0, overflow="fold")
        for row in rows:
            table.add_row(*(one_line(cell) for cell in row))
        page = io.StringIO()
        width = None if self.stdout.isatty() else 10_000
        Console(file=page, width=width, markup=False, highlight=False).print(table)
        for line in page.getvalue().splitlines():
            self.stdout.write(line.rstrip())


class _Examples(DjangoHelpFormatter):
    """Help whose last part keeps its line breaks."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return "".join(f"{indent}{line}\n" for line in text.splitlines())
        return super()._fill_text(text, width, indent)


class Meter(AbstractContextManager["Meter"]):
    """Shows how far a long command is: a bar on a terminal, a line now and then elsewhere.

    what: what is counted, such as ``rows``.
    stream: where to write when it is no terminal.
    """

    def __init__(
        self, title: str, what: str, *, stream: OutputWrapper, no_color: bool = False
    ) -> None:
        self._title, self._what, self._stream = title, what, stream
        self._began = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        console = Console(stderr=True, no_color=no_color)
        if console.is_terminal and stream.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[count]:,} " + what),
                TextColumn("{task.fields[rate]:,}/s"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task(title, total=None, count=0, rate=0)

    def __enter__(self) -> "Meter":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self._began

    def show(self, count: int, fraction: float | None) -> None:
        """Say how many there are now, and what part of the work that is, where it is known."""
        rate = int(count / max(self.seconds, 0.001))
        if self._bar is not None:
            self._bar.update(self._task, count=count, rate=rate)
            if fraction is not None:
                self._bar.update(self._task, total=1.0, completed=fraction)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            part = "" if fraction is None else f", {fraction:.0%}"
            self._stream.write(f"{self._title}: {count} {self._what}, {rate}/s{part}")

    def say(self, line: str) -> None:
        """Print a line without breaking the bar."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            self._stream.write(line)


def sentence_of(error: DomainError | InterfaceError | OperationalError) -> str:
    """Return what to tell of an error, in one line."""
    if isinstance(error, DomainError):
        return one_line(error.detail)
    return f"The database does not answer: {one_line(str(error), limit=200)}"


def address(text: str) -> tuple[str, str]:
    """Return the two handles of ``owner/handle``; for argparse."""
    owner, slash, handle = text.partition("/")
    if not (owner and slash and handle) or "/" in handle:
        raise ArgumentTypeError(f"'{one_line(text, limit=60)}' is not of the form owner/handle.")
    return owner, handle


def whole_number(smallest: int, largest: int) -> Callable[[str], int]:
    """Return a reader of whole numbers within bounds; for argparse."""

    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and smallest <= int(text) <= largest):
            raise ArgumentTypeError(f"give a whole number from {smallest} to {largest}.")
        return int(text)

    return number


def one_line(text: str, *, limit: int = 500) -> str:
    """Return the text without line breaks and control characters, which could forge output."""
    joined = " ".join(text[: limit * 2].split())
    shown = "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in joined)
    return shown if len(shown) <= limit else f"{shown[:limit]}…"

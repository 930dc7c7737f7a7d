"""Fills a project from a file."""

import shlex
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import CommandError, CommandParser
from django.db import InterfaceError, OperationalError

from accounts.policy import BOOTSTRAP_ADMIN
from common import commands, json
from common.errors import DomainError
from embeddings import files
from embeddings.files import Rejected, Use, Uses
from embeddings.imports import MAXIMUM_ATOMIC_ROWS, Outcome, import_rows, project_to_fill

SOME_REJECTED = 1
INTERRUPTED = 130


class Command(commands.Command):
    help = (
        "Load texts, with their vectors or without, from a file into a project. JSON lines hold an "
        "object a line, Parquet a column each: text_id, vector, text, metadata. A vector is a list "
        "of numbers (in JSON lines also the base64 text of little-endian float32), metadata an "
        "object or a text that holds JSON; metadata may be left out, and so may either text or "
        "vector: texts without one are embedded by the project's LLM service. Columns with other "
        "names are told with --columns; those of CSV are guessed, and told on standard error, "
        "where they are not. Rows are committed "
        "in batches, and those whose text_id is stored already are skipped and not embedded: after "
        "an interruption run the same command again. Every row that cannot be stored is told on "
        "standard error. Exit code 0: every row is stored; 1: some were rejected; 2: it could not "
        "run or not finish."
    )
    example = """\
  manage.py loadembeddings letters.jsonl --project alice/letters
  manage.py loadembeddings letters.parquet --project alice/letters --create \\
      --instance alice/openai-small
  manage.py loadembeddings texts.jsonl --project alice/notes --create \\
      --instance _system/builtin
  manage.py loadembeddings letters.csv --project alice/letters \\
      --columns nr=id letter=text year=number author=string
  zcat letters.jsonl.gz | manage.py loadembeddings - --project alice/letters --replace

  {"text_id": "l-1", "vector": [0.1, -0.2], "text": "Dear Bob", "metadata": {"year": 1801}}
  {"text_id": "l-2", "text": "My dear Ann"}"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "file",
            help=".jsonl, .ndjson, .csv, .tsv (also with .gz), .parquet; - is JSON lines on stdin",
        )
        parser.add_argument(
            "--project",
            type=commands.address,
            required=True,
            metavar="OWNER/HANDLE",
            help="the project to fill",
        )
        parser.add_argument(
            "--create", action="store_true", help="make the project if it does not exist yet"
        )
        parser.add_argument(
            "--instance",
            type=commands.address,
            metavar="OWNER/HANDLE",
            help="with --create: the LLM service instance that made the vectors, or makes them",
        )
        parser.add_argument(
            "--format", choices=files.FORMATS, help="instead of what the file's name tells"
        )
        parser.add_argument(
            "--columns",
            nargs="+",
            type=_column,
            metavar="NAME=USE",
            help="what columns are for: id, text, vector, object (its keys are the metadata), or a "
            "key of the metadata: value (as it is), string, number, boolean; others are left out",
        )
        parser.add_argument(
            "--batch-size",
            type=commands.whole_number(1, 10_000),
            default=1_000,
            metavar="ROWS",
            help="rows committed at once, 1 to 10000 (%(default)s)",
        )
        parser.add_argument(
            "--replace", action="store_true", help="replace rows whose text_id is stored already"
        )
        parser.add_argument(
            "--atomic",
            action="store_true",
            help=f"store nothing unless every row can be; up to {MAXIMUM_ATOMIC_ROWS} rows",
        )
        parser.add_argument(
            "--errors",
            type=Path,
            metavar="FILE",
            help="write the rejected rows there as JSON lines",
        )
        parser.add_argument(
            "--max-errors",
            type=commands.whole_number(0, 10**9),
            metavar="N",
            help="stop when more than N rows were rejected (default: never)",
        )
        parser.add_argument("--json", action="store_true", help="print the summary as JSON")

    def handle(self, *, file: str, project: tuple[str, str], **options: Any) -> None:
        if options["create"] != (options["instance"] is not None):
            raise CommandError(
                "--create and --instance go together.", returncode=commands.COULD_NOT_RUN
            )
        source: Path | BinaryIO = sys.stdin.buffer if file == "-" else Path(file)
        chosen = options["format"] or ("jsonl" if file == "-" else files.format_of(file))
        uses = self._uses(source, chosen, options["columns"])
        self._outcome, self._interrupted = Outcome(), False
        with (
            _error_file(options["errors"]) as errors,
            self._meter(file, no_color=options["no_color"]) as meter,
        ):

            def on_progress(outcome: Outcome) -> None:
                self._outcome = outcome
                meter.show(outcome.rows, outcome.fraction)

            def on_rejected(row: Rejected) -> None:
                meter.say(_sentence(row))
                if errors is not None:
                    errors.write(json.render(row) + b"\n")

            filled, _ = project_to_fill(
                BOOTSTRAP_ADMIN,
                owner=project[0],
                handle=project[1],
                create=_new_project(options["instance"]),
            )
            try:
                self._outcome = import_rows(
                    filled,
                    lambda expected: files.read(
                        source,
                        chosen,
                        expected,
                        batch_size=options["batch_size"],
                        uses=uses,
                    ),
                    replacing=options["replace"],
                    atomic=options["atomic"],
                    max_rejected=options["max_errors"],
                    on_progress=on_progress,
                    on_rejected=on_rejected,
                )
            except KeyboardInterrupt:
                self._stop("Interrupted.", atomic=options["atomic"])
                self._interrupted = True
            except (DomainError, InterfaceError, OperationalError) as error:
                self._stop(commands.sentence_of(error), atomic=options["atomic"])
        self._conclude("/".join(project), meter.seconds, as_json=options["json"])

    def _uses(
        self, source: Path | BinaryIO, file_format: str, columns: list[tuple[str, Use]] | None
    ) -> Uses | None:
        """Return what the columns of the file are for; None where their names say it."""
        if columns is not None:
            return Uses(dict(columns))
        if file_format != "csv" or not isinstance(source, Path):
            return None
        found = {column.name: column.guess for column in files.columns_of(source, file_format)}
        told = (f"{commands.one_line(name, limit=60)}={use}" for name, use in found.items())
        self.stderr.write(f"--columns {' '.join(map(shlex.quote, told))}")
        return Uses(found)

    def _stop(self, reason: str, *, atomic: bool) -> None:
        """Remember why it ended after the last batch that was committed."""
        self._outcome.stopped, self._outcome.failed = reason, True
        if atomic:
            self._outcome.stored = self._outcome.replaced = 0

    def _meter(self, file: str, *, no_color: bool) -> commands.Meter:
        name = "stdin" if file == "-" else commands.one_line(Path(file).name, limit=40)
        return commands.Meter(name, "rows", stream=self.stderr, no_color=no_color)

    def _conclude(self, project: str, seconds: float, *, as_json: bool) -> None:
        outcome = self._outcome
        if as_json:
            self.show_json(
                {
                    "project": project,
                    "rows": outcome.rows,
                    "stored": outcome.stored,
                    "replaced": outcome.replaced,
                    "skipped": outcome.skipped,
                    "rejected": outcome.rejected,
                    "warnings": outcome.warnings,
                    "complete": not outcome.stopped,
                    "stopped": outcome.stopped or None,
                    "seconds": round(seconds, 3),
                }
            )
        else:
            rate = int(outcome.rows / max(seconds, 0.001))
            self.stdout.write(
                f"{project}: {outcome.rows} rows read, {outcome.stored} stored, "
                f"{outcome.replaced} replaced, {outcome.skipped} skipped (stored already), "
                f"{outcome.rejected} rejected; {seconds:.1f} s, {rate} rows/s"
            )
            for warning in outcome.warnings:
                self.stderr.write(f"Warning: {commands.one_line(warning)}")
        if self._interrupted:
            self.stderr.write("Interrupted; run the same command again to load the rest.")
            sys.exit(INTERRUPTED)
        if outcome.stopped:
            by_rows = outcome.rejected and not outcome.failed
            raise CommandError(
                commands.one_line(outcome.stopped),
                returncode=SOME_REJECTED if by_rows else commands.COULD_NOT_RUN,
            )
        if outcome.rejected:
            sys.exit(SOME_REJECTED)


def _new_project(instance: tuple[str, str] | None) -> dict[str, Any] | None:
    if instance is None:
        return None
    return {"instance_owner": instance[0], "instance_handle": instance[1]}


def _column(text: str) -> tuple[str, Use]:
    name, _, use = text.rpartition("=")
    if not name or use not in set(Use):
        raise ArgumentTypeError(f"'{text[:60]}' is not NAME=USE with one of: {', '.join(Use)}.")
    return name, Use(use)


def _sentence(row: Rejected) -> str:
    named = f" {commands.one_line(row.text_id, limit=80)!r}" if row.text_id else ""
    return f"row {row.row}{named}: {commands.one_line(row.reason)}"


@contextmanager
def _error_file(path: Path | None) -> Iterator[BinaryIO | None]:
    if path is None:
        yield None
        return
    try:
        file = path.open("wb")
    except OSError as error:
        raise CommandError(
            f"Cannot write '{path}': {error.strerror}.", returncode=commands.COULD_NOT_RUN
        ) from error
    with file:
        yield file

"""Writes a project into a file."""

import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import CommandError, CommandParser

from accounts.policy import BOOTSTRAP_ADMIN
from common import commands
from embeddings import files
from embeddings.exports import export_project


class Command(commands.Command):
    help = (
        "Write all embeddings of a project into a file that loadembeddings reads: exact float32 "
        "vectors, texts and metadata, in the order of their ids, as they are at one moment. A file "
        "appears under its name only when it is complete."
    )
    example = """\
  manage.py exportembeddings alice/letters letters.parquet
  manage.py exportembeddings alice/letters letters.jsonl.gz
  manage.py exportembeddings alice/letters | jq -r .text_id"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "project", type=commands.address, metavar="OWNER/HANDLE", help="the project"
        )
        parser.add_argument(
            "file",
            nargs="?",
            default="-",
            help=".jsonl, .ndjson (also with .gz) or .parquet; - is standard output (default)",
        )
        parser.add_argument(
            "--format", choices=files.WRITTEN_FORMATS, help="instead of what the file's name tells"
        )
        parser.add_argument(
            "--batch-size",
            type=commands.whole_number(1, 10_000),
            default=1_000,
            metavar="ROWS",
            help="rows read at once, 1 to 10000 (%(default)s)",
        )
        parser.add_argument(
            "--json",
            action="store_true",
            help="print the summary as JSON; not with standard output",
        )

    def handle(self, *, project: tuple[str, str], file: str, **options: Any) -> None:
        to_stdout = file == "-"
        if to_stdout and options["json"]:
            raise CommandError(
                "--json needs a file: standard output is the export.",
                returncode=commands.COULD_NOT_RUN,
            )
        target: Path | BinaryIO = sys.stdout.buffer if to_stdout else Path(file)
        chosen = options["format"] or (
            "jsonl" if to_stdout else files.format_of(file, files.WRITTEN_FORMATS)
        )
        title = "/".join(project)
        with commands.Meter(
            title, "rows", stream=self.stderr, no_color=options["no_color"]
        ) as meter:
            try:
                count = export_project(
                    actor=BOOTSTRAP_ADMIN,
                    owner=project[0],
                    handle=project[1],
                    target=target,
                    file_format=chosen,
                    batch_size=options["batch_size"],
                    on_progress=meter.show,
                )
            except BrokenPipeError as error:
                # Python would complain once more when it flushes at exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise CommandError(
                    "Nobody reads the output any more.", returncode=commands.COULD_NOT_RUN
                ) from error
        if options["json"]:
            self.show_json(
                {
                    "project": title,
                    "file": file,
                    "rows": count,
                    "seconds": round(meter.seconds, 3),
                }
            )
        elif not to_stdout:
            self.stdout.write(f"{title}: {count} rows in {file}; {meter.seconds:.1f} s")

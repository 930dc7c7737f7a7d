"""Reads and writes files of embeddings: JSON lines, CSV and Parquet. Knows no models.

Files come from strangers. Lines are bounded while they are read; CSV, Arrow, and Parquet, whose
declared sizes prove nothing, are decoded in a process of its own with a limit on its memory.
"""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import BinaryIO

from embeddings.batches import Expected
from embeddings.files._jsonl import JsonLinesWriter, read_json_lines
from embeddings.files._pages import TableWriter, compact
from embeddings.files._parquet import ParquetWriter, read_parquet
from embeddings.files._rows import Rejected, Rows, Unreadable, Writer
from embeddings.files._tables import columns_of, read_table
from embeddings.files._uploads import MAXIMUM_ROWS, MEDIA_TYPES, Part, opened, parts_of
from embeddings.files._uses import Column, Use, Uses, shown

__all__ = [
    "FORMATS",
    "MAXIMUM_ROWS",
    "MEDIA_TYPES",
    "WRITTEN_FORMATS",
    "Column",
    "Part",
    "Rejected",
    "Rows",
    "TableWriter",
    "Unreadable",
    "Use",
    "Uses",
    "Writer",
    "columns_of",
    "compact",
    "format_of",
    "opened",
    "parts_of",
    "read",
    "shown",
    "writer",
]

FORMATS = ("jsonl", "csv", "parquet")
WRITTEN_FORMATS = ("jsonl", "parquet")
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}


def format_of(name: str, formats: Sequence[str] = FORMATS) -> str:
    """Return the format that a file's name tells, compressed or not; raise Unreadable.

    formats: those that it may be of.
    """
    found = _SUFFIXES.get(Path(name.lower().removesuffix(".gz")).suffix)
    if found is None or found not in formats:
        csv = ", .csv, .tsv" if "csv" in formats else ""
        raise Unreadable(
            f"The name '{Path(name).name[:80]}' does not tell the format: .jsonl, .ndjson{csv} "
            "(also with .gz) or .parquet. Name it with --format."
        )
    return found


def read(
    source: Path | BinaryIO,
    file_format: str,
    expected: Expected,
    *,
    batch_size: int,
    uses: Uses | None = None,
) -> Generator[Rows, None, None]:
    """Return the rows of a file, some at a time, each with the reason why it cannot be stored.

    source: a path, or an open stream of JSON lines.
    uses: what its columns are for, where that is not what their names say; CSV needs it.
    Raises Unreadable where the file is missing, not of the format, or damaged: after the rows
    before that place.
    """
    if file_format == "jsonl":
        return read_json_lines(source, expected, batch_size=batch_size, uses=uses)
    if not isinstance(source, Path):
        raise Unreadable(f"A stream cannot be {file_format}; give the name of a file.")
    if uses is not None:
        return read_table(source, file_format, uses, expected, batch_size=batch_size)
    return read_parquet(source, expected, batch_size=batch_size)


def writer(file_format: str, stream: BinaryIO, about: dict[str, str]) -> Writer:
    """Return what writes rows to a stream; about: kept in the file where the format has a place."""
    return JsonLinesWriter(stream) if file_format == "jsonl" else ParquetWriter(stream, about)

"""Parquet: a column each for text_id, vector, text and metadata."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embeddings.batches import Expected
from embeddings.files._decoder import ENVIRONMENT
from embeddings.files._pages import compact
from embeddings.files._rows import Collector, Row, Rows, Unreadable

_CHILD = Path(__file__).parent / "_child.py"
# The reader alone takes 200 MB; 1000 rows of 1536 numbers add 12.
MEMORY_BYTES = 2 * 1024**3
_ROW_GROUP_BYTES = 32 * 1024**2
# A name for what was killed by a signal or by its own memory check without a word.
_NO_REASON = "it is damaged, of another format, or takes too long to decode"


def read_parquet(
    path: Path, expected: Expected, *, batch_size: int, memory: int = MEMORY_BYTES
) -> Generator[Rows, None, None]:
    """Return the rows of a Parquet file; as `files.read`."""
    collector = Collector(expected)
    number = 0
    with decoding(_CHILD, path, batch_size, memory) as reader:
        if reader is None:
            return
        declared = int((reader.schema.metadata or {}).get(b"rows", b"0"))
        for batch in reader:
            for given in rows_of(batch):
                number += 1
                collector.add(number, given)
            yield collector.take(min(1.0, number / declared) if declared else None)


@contextmanager
def decoding(script: Path, *arguments: object) -> Iterator[Any]:
    """Run a child as `running` does; return a reader of its stream, None where none comes."""
    with running(script, *arguments) as output:
        yield _reader(output)


@contextmanager
def running(script: Path, *arguments: object) -> Iterator[IO[bytes]]:
    """Run a child and return its standard output; raise Unreadable if it fails."""
    with tempfile.TemporaryFile() as words:
        child = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", str(script), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=words,
            env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        )
        output = cast("IO[bytes]", child.stdout)
        try:
            yield output
            # A child that dies ends its stream as if it were complete.
            if child.wait() != 0:
                raise Unreadable(f"Cannot read the file: {_last_words(words)}.")
        except (pa.ArrowInvalid, OSError) as error:
            child.wait()
            raise Unreadable(f"Cannot read the file: {_last_words(words)}.") from error
        finally:
            child.kill()
            child.wait()
            output.close()


def _reader(stream: Any) -> Any:
    try:
        return pa.ipc.open_stream(stream)
    except pa.ArrowInvalid:
        # Nothing came: the exit code and the last words tell why.
        return None


def _last_words(words: IO[bytes]) -> str:
    words.seek(0)
    said = words.read(2_000).decode("utf-8", "replace").strip()
    # What a crash of the interpreter writes is of no use to anybody here.
    return said.removeprefix("reason: ") if said.startswith("reason: ") else _NO_REASON


def rows_of(batch: Any) -> Iterator[dict[str, Any]]:
    """Return the fields of each row; vectors as float32 arrays or None, null numbers as NaN."""
    names = [name for name in batch.schema.names if name != "vector"]
    columns = [plain_values(batch[name]) for name in names]
    has_vectors = "vector" in batch.schema.names
    vectors = _vectors(batch["vector"]) if has_vectors else repeat(None, batch.num_rows)
    for vector, *others in zip(vectors, *columns, strict=True):
        yield {"vector": vector, **dict(zip(names, others, strict=True))}


def _vectors(column: Any) -> Iterator[npt.NDArray[np.float32] | None]:
    offsets = column.offsets.to_numpy().tolist()
    numbers = column.values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    missing = column.is_null().to_pylist()
    for row, is_missing in enumerate(missing):
        yield None if is_missing else numbers[offsets[row] : offsets[row + 1]]


def plain_values(column: Any) -> list[Any]:
    if pa.types.is_struct(column.type) or pa.types.is_map(column.type):
        return [_plain(scalar) for scalar in column]
    return list(column.to_pylist())


def _plain(scalar: Any) -> Any:
    """Return a struct or map as a dict; one that cannot be such comes as a text that is refused."""
    try:
        return scalar.as_py(maps_as_pydicts="strict")
    except (KeyError, ValueError) as error:
        return f"cannot be read: {error}"


class ParquetWriter:
    """Writes columns of text and float32 lists, compressed with zstd."""

    def __init__(self, stream: BinaryIO, about: dict[str, str]) -> None:
        self._schema = pa.schema(
            [
                pa.field("text_id", pa.string(), nullable=False),
                pa.field("text", pa.string(), nullable=False),
                pa.field("metadata", pa.string(), nullable=False),
                pa.field("vector", pa.list_(pa.float32()), nullable=False),
            ],
            metadata={name.encode(): value.encode() for name, value in about.items()},
        )
        # Numbers do not repeat: dictionaries of them only cost time.
        options: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["text", "metadata"]}
        self._file = pq.ParquetWriter(stream, self._schema, **options)
        self._waiting: list[Any] = []

    def write(self, rows: Iterable[Row]) -> None:
        """Write rows."""
        given = list(rows)
        vectors = [row.vector for row in given]
        offsets = np.cumsum([0, *(len(vector) for vector in vectors)], dtype=np.int32)
        numbers = np.concatenate(vectors) if vectors else np.empty(0, dtype=np.float32)
        columns: list[Any] = [
            pa.array([row.text_id for row in given], pa.string()),
            pa.array([row.text for row in given], pa.string()),
            pa.array([compact(row.metadata).decode() for row in given], pa.string()),
            pa.ListArray.from_arrays(
                pa.array(offsets, pa.int32()), pa.array(numbers, pa.float32())
            ),
        ]
        self._waiting.append(pa.record_batch(columns, schema=self._schema))
        if sum(batch.nbytes for batch in self._waiting) >= _ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what waits and the footer."""
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if self._waiting:
            self._file.write_table(pa.Table.from_batches(self._waiting, self._schema))
            self._waiting = []

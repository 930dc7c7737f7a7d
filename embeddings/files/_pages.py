"""Tables of embeddings as answers hold them: an Arrow stream or Parquet."""

from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import Conflict
from embeddings.files._rows import DatedRow

_TIME = pa.timestamp("us", "UTC")


class TableWriter:
    """Writes text_id, vector, text, metadata, created_at and updated_at.

    Vectors are fixed-size lists of float32, metadata JSON texts, times in microseconds of UTC.
    """

    def __init__(
        self, stream: BinaryIO, file_format: str, dimensions: int, about: dict[str, str]
    ) -> None:
        self._dimensions = dimensions
        self._schema = pa.schema(
            [
                pa.field("text_id", pa.string(), nullable=False),
                pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False),
                pa.field("text", pa.string(), nullable=False),
                pa.field("metadata", pa.string(), nullable=False),
                pa.field("created_at", _TIME, nullable=False),
                pa.field("updated_at", _TIME, nullable=False),
            ],
            metadata={name.encode(): value.encode() for name, value in about.items()},
        )
        self._writer = _opened(stream, file_format, self._schema)

    def write(self, rows: Sequence[DatedRow]) -> None:
        """Write rows; raise Conflict for vectors of other lengths."""
        vectors = [row.vector for row in rows]
        if any(len(each) != self._dimensions for each in vectors):
            raise Conflict(
                "The project holds vectors of other dimensions than its LLM service has; ask for "
                "JSON or JSON lines."
            )
        columns: list[Any] = [
            pa.array([row.text_id for row in rows], pa.string()),
            pa.FixedSizeListArray.from_arrays(
                pa.array(np.concatenate(vectors), pa.float32()), self._dimensions
            ),
            pa.array([row.text for row in rows], pa.string()),
            pa.array([compact(row.metadata).decode() for row in rows], pa.string()),
            pa.array([row.created_at for row in rows], _TIME),
            pa.array([row.updated_at for row in rows], _TIME),
        ]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))

    def close(self) -> None:
        """Write the end; the stream stays open."""
        self._writer.close()


def _opened(stream: Any, file_format: str, schema: pa.Schema) -> Any:
    if file_format == "arrow":
        return pa.ipc.new_stream(stream, schema)
    # Numbers do not repeat: dictionaries of them only cost time.
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["text", "metadata"]}
    return pq.ParquetWriter(stream, schema, **options)


def compact(metadata: bytes) -> bytes:
    """Return stored JSON as others can read it: PostgreSQL writes 1e300 as a 1 with 300 zeros."""
    return orjson.dumps(orjson.loads(metadata))

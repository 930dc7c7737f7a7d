"""Decodes a Parquet file in a process of its own, whose memory is limited.

    python -I _parquet_child.py FILE ROWS BYTES

Writes an Arrow IPC stream to standard output: at most ROWS rows a batch, texts as strings, vectors
as large lists of float32, and the declared number of rows in the metadata of its schema. On failure
it ends with exit code 1 and one line on standard error that begins with "reason:".
"""

import os
import sys
from contextlib import suppress
from typing import Any

# One arena for all threads, and no reserved address space: the limit counts both.
os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
os.environ["MALLOC_ARENA_MAX"] = "1"

import resource

import pyarrow as pa
import pyarrow.parquet as pq

_TEXTS = ("text_id", "text", "instance_handle", "instance_owner")
_WANTED = (*_TEXTS, "metadata", "vector", "vector_dim")
_BUFFER_BYTES = 1024**2
_LAST_WORDS_BYTES = 64 * 1024


class Refused(Exception):
    """The file is not what it should be; the message is the end of a sentence."""


def limit(memory: int) -> None:
    """Limit the memory of this process, and what it can write into files: some last words."""
    # macOS accepts no limit on memory.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LAST_WORDS_BYTES, _LAST_WORDS_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def target(field: Any) -> pa.DataType:
    """Return the type in which a column goes on; raise Refused for one that cannot."""
    kind = field.type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if field.name == "vector":
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        if not (lists or pa.types.is_fixed_size_list(kind)):
            raise Refused(f"the column vector must hold lists of numbers, not {kind}")
        number = kind.value_type
        if not (pa.types.is_floating(number) or pa.types.is_integer(number)):
            raise Refused(f"the column vector must hold lists of numbers, not {kind}")
        return pa.large_list(pa.float32())
    if field.name == "vector_dim":
        if pa.types.is_integer(kind) or pa.types.is_null(kind):
            return kind
        raise Refused(f"the column vector_dim must hold whole numbers, not {kind}")
    texts = pa.types.is_string(value) or pa.types.is_large_string(value)
    if texts or pa.types.is_string_view(value):
        return pa.string()
    if pa.types.is_null(kind):
        return kind
    if field.name == "metadata" and (pa.types.is_struct(kind) or pa.types.is_map(kind)):
        return kind
    wanted = "text" if field.name != "metadata" else "JSON texts, structs or maps"
    raise Refused(f"the column {field.name} must hold {wanted}, not {kind}")


def columns_of(schema: pa.Schema) -> list[str]:
    """Return which columns to read; raise Refused where needed ones are missing."""
    for name in ("text_id", "vector"):
        if schema.names.count(name) != 1:
            found = ", ".join(schema.names[:20])
            raise Refused(f"it needs one column {name}; its columns are: {found[:300]}")
    return [name for name in _WANTED if name in schema.names]


def decode(path: str, rows: int) -> None:
    """Write the stream."""
    # Column chunks are read through a buffer, not as a whole.
    file = pq.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    names = columns_of(file.schema_arrow)
    fields = [pa.field(name, target(file.schema_arrow.field(name))) for name in names]
    output: Any = sys.stdout.buffer
    schema = pa.schema(fields, metadata={"rows": str(file.metadata.num_rows)})
    with pa.ipc.new_stream(output, schema) as stream:
        for batch in file.iter_batches(batch_size=rows, columns=names, use_threads=False):
            columns = [batch[field.name].cast(field.type, safe=False) for field in fields]
            stream.write_batch(pa.record_batch(columns, schema=schema))


def main() -> int:
    """Run; return the exit code."""
    path, rows, memory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    limit(memory)
    try:
        decode(path, rows)
    except (MemoryError, pa.ArrowMemoryError):
        words = (
            f"{rows} rows of it need more than {memory >> 20} MB; it is damaged, or needs smaller "
            "batches"
        )
    except Refused as error:
        words = str(error)
    except FileNotFoundError:
        words = "there is no such file"
    except (pa.ArrowException, OSError, ValueError) as error:
        words = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
    else:
        return 0
    print(f"reason: {words}", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())

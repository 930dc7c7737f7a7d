"""Decodes Parquet files and Arrow streams in a process of its own, whose memory is limited.

    python -I _child.py FILE ROWS BYTES

writes an Arrow IPC stream to standard output: at most ROWS rows a batch, texts as strings, vectors
as large lists of float32, and the declared number of rows in the metadata of its schema. On failure
it ends with exit code 1 and one line on standard error that begins with "reason:".

    python -I _child.py --serve BYTES FILE_BYTES

is asked through the socket that is its standard input, time and again: a line of JSON comes with
two open files. The first is decoded into the second, as such a stream, and a line of JSON goes
back: {"rows": …} or {"reason": …, "kind": …}, with "kept": the bytes of memory that it still has.
It ends as soon as whoever asks is gone, or when a file takes more seconds of the processor than its
line allows.
"""

import errno
import json
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

# One arena for all threads, and no reserved address space: the limit counts both.
os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
os.environ["MALLOC_ARENA_MAX"] = "1"

import resource
import select
import socket
import threading

import pyarrow as pa
import pyarrow.parquet as pq

_TEXTS = ("text_id", "text", "instance_handle", "instance_owner")
_WANTED = (*_TEXTS, "metadata", "vector", "vector_dim")
_BUFFER_BYTES = 1024**2
_LAST_WORDS_BYTES = 64 * 1024
_MESSAGE_BYTES = 4096
_FULL = {errno.ENOSPC, errno.EDQUOT}
# Two files come with a message.
_DESCRIPTORS = 2


class Refused(Exception):
    """The file is not what it should be; the message is the end of a sentence."""


class TooMuch(Refused):
    """The file holds more than is allowed."""


def limit(memory: int, file_bytes: int) -> None:
    """Limit the memory of this process, and what it can write into files."""
    # macOS accepts no limit on memory.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
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
    # What has a text and no vector is embedded.
    has_only_texts = "text" in schema.names and "vector" not in schema.names
    for name in ("text_id", "text" if has_only_texts else "vector"):
        if schema.names.count(name) != 1:
            found = ", ".join(schema.names[:20])
            raise Refused(f"it needs one column {name}; its columns are: {found[:300]}")
    wanted = [name for name in _WANTED if name in schema.names]
    for name in wanted:
        if schema.names.count(name) != 1:
            raise Refused(f"it has several columns {name}")
    return wanted


def fields_of(schema: pa.Schema) -> list[Any]:
    """Return the columns that go on, with their types; raise Refused."""
    return [pa.field(name, target(schema.field(name))) for name in columns_of(schema)]


def converted(batch: pa.RecordBatch, fields: list[Any]) -> pa.RecordBatch:
    """Return the columns of a batch in their types."""
    columns = [batch[field.name].cast(field.type, safe=False) for field in fields]
    return pa.record_batch(columns, schema=pa.schema(fields))


def decode(path: str, rows: int) -> None:
    """Write the stream of a Parquet file to standard output."""
    # Column chunks are read through a buffer, not as a whole.
    file = pq.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    fields = fields_of(file.schema_arrow)
    names = [field.name for field in fields]
    output: Any = sys.stdout.buffer
    schema = pa.schema(fields, metadata={"rows": str(file.metadata.num_rows)})
    with pa.ipc.new_stream(output, schema) as stream:
        batches = file.iter_batches(batch_size=rows, columns=names, use_threads=False)
        for batch in _checked(batches, names):
            stream.write_batch(converted(batch, fields).replace_schema_metadata(schema.metadata))


# --- Serving --------------------------------------------------------------------------------------
def transcode(task: dict[str, Any], source: BinaryIO, output: Any) -> int:
    """Decode one file into another; return the number of rows. Raises Refused.

    task: format (parquet or arrow), rows and batch_bytes of a batch at most, maximum of rows, limit
    of bytes, and seconds of the processor altogether.
    """
    size = os.fstat(source.fileno()).st_size
    if size == 0:
        raise Refused("it is empty")
    # Unmapped when nothing refers to it any more.
    content = pa.py_buffer(mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ))
    fields, batches = _OPENED[task["format"]](content, task["rows"])
    rows = 0
    with pa.ipc.new_stream(output, pa.schema(fields)) as stream:
        for batch in batches:
            rows += batch.num_rows
            if rows > task["maximum"]:
                raise TooMuch(f"it has more than {task['maximum']} rows; send several")
            for part in _parts(batch, fields, task["rows"], task["batch_bytes"]):
                stream.write_batch(part)
                if output.tell() > task["limit"]:
                    megabytes = task["limit"] / 1024**2
                    raise TooMuch(f"it unpacks to more than {megabytes:g} MiB")
    return rows


def _parts(
    batch: pa.RecordBatch, fields: list[Any], rows: int, batch_bytes: int
) -> Iterator[pa.RecordBatch]:
    """Return a batch in parts of so many rows and bytes at most, converted."""
    for start in range(0, batch.num_rows, rows):
        yield from _halves(batch.slice(start, rows), fields, batch_bytes)


def _halves(batch: pa.RecordBatch, fields: list[Any], batch_bytes: int) -> Iterator[pa.RecordBatch]:
    done = _tried(batch, fields) if batch.nbytes <= batch_bytes else None
    if done is not None and done.nbytes <= batch_bytes:
        yield done
        return
    if batch.num_rows == 1:
        raise TooMuch(f"one of its rows has more than {batch_bytes >> 20} MiB")
    middle = batch.num_rows // 2
    yield from _halves(batch.slice(0, middle), fields, batch_bytes)
    yield from _halves(batch.slice(middle), fields, batch_bytes)


def _tried(batch: pa.RecordBatch, fields: list[Any]) -> pa.RecordBatch | None:
    """Return a batch converted, or None where dictionaries make too much out of it."""
    try:
        return converted(batch, fields)
    except (MemoryError, pa.ArrowMemoryError):
        return None


def _open_parquet(content: Any, rows: int) -> tuple[list[Any], Iterator[pa.RecordBatch]]:
    file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False, buffer_size=_BUFFER_BYTES)
    fields = fields_of(file.schema_arrow)
    names = [field.name for field in fields]
    batches = file.iter_batches(batch_size=rows, columns=names, use_threads=False)
    return fields, _checked(batches, names)


def _open_arrow(content: Any, rows: int) -> tuple[list[Any], Iterator[pa.RecordBatch]]:
    stream = pa.ipc.open_stream(pa.BufferReader(content))
    fields = fields_of(stream.schema)
    return fields, _checked(stream, [field.name for field in fields])


def _checked(batches: Any, names: list[str]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        wanted = batch.select(names)
        # Nothing else looks whether offsets lead outside, and whether texts are UTF-8.
        wanted.validate(full=True)
        yield wanted


_OPENED = {"parquet": _open_parquet, "arrow": _open_arrow}


def answer(task: dict[str, Any], source: BinaryIO, output: BinaryIO) -> dict[str, Any]:
    """Do a task; return what to say."""
    try:
        return {"rows": transcode(task, source, output)}
    except Exception as error:  # noqa: BLE001
        return {"reason": reason(error, task), "kind": _kind(error)}


def _kind(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in _FULL:
        return "full"
    return "large" if isinstance(error, TooMuch) else "bad"


def reason(error: Exception, task: dict[str, Any]) -> str:
    """Return the end of a sentence that says what is wrong with the file."""
    match error:
        case Refused():
            return str(error)
        case MemoryError() | pa.ArrowMemoryError():
            return f"{task['rows']} rows of it need too much memory; it is damaged, or too large"
        case FileNotFoundError():
            return "there is no such file"
        case pa.ArrowException() | OSError() | ValueError():
            return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        case _:
            return "it is damaged"


def serve() -> None:
    """Answer until whoever asks is gone."""
    asking = socket.socket(fileno=os.dup(0))
    threading.Thread(target=_end_with, args=(asking,), daemon=True).start()
    while True:
        message, descriptors, _, _ = socket.recv_fds(asking, _MESSAGE_BYTES, _DESCRIPTORS)
        if len(descriptors) != _DESCRIPTORS:
            return
        task = json.loads(message)
        _allow(task["seconds"])
        with open(descriptors[0], "rb") as source, open(descriptors[1], "wb") as output:  # noqa: PTH123
            said = answer(task, source, output)
        pa.default_memory_pool().release_unused()
        said["kept"] = _kept()
        asking.sendall(json.dumps(said).encode() + b"\n")


def _kept() -> int:
    """Return the bytes of memory that are this process's own, 0 where the system does not tell."""
    with suppress(OSError), open("/proc/self/statm") as file:  # noqa: PTH123
        _, resident, shared, *_ = map(int, file.read().split())
        return (resident - shared) * resource.getpagesize()
    return 0


def _allow(seconds: int) -> None:
    """Let the processor be used for so long from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime) + seconds
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (until, hard))


def _end_with(asking: socket.socket) -> None:
    """End this process when the other end of the socket is closed, whatever it is doing."""
    gone = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
    poll = select.poll()
    poll.register(asking, gone)
    poll.poll()
    os._exit(0)


def main() -> int:
    """Run; return the exit code."""
    if sys.argv[1] == "--serve":
        memory, file_bytes = map(int, sys.argv[2:])
        limit(memory, file_bytes)
        serve()
        return 0
    path, rows, memory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    limit(memory, _LAST_WORDS_BYTES)
    try:
        decode(path, rows)
    except (MemoryError, pa.ArrowMemoryError):
        words = (
            f"{rows} rows of it need more than {memory >> 20} MB; it is damaged, or needs smaller "
            "batches"
        )
    except (Refused, pa.ArrowException, OSError, ValueError) as error:
        words = reason(error, {})
    else:
        return 0
    print(f"reason: {words}", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())

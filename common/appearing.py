"""Files that are there only when they are complete."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from common.errors import Invalid


@contextmanager
def appearing(target: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Open a file that appears under its name when the block is left and it is on the disk.

    What was there under that name stays until then, and for good if the block raises.
    mode: the permissions, less those that the process's umask takes away.
    Raises Invalid where the file cannot be written, in the block too.
    """
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(target)
    except OSError as error:
        raise Invalid(f"Cannot write '{target}': {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)

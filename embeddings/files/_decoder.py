"""Has files of strangers decoded by a process that is kept warm: starting one takes half a second.

Each web worker has one, from its first such file on. It inherits no file but the socket it is asked
through, and no environment; it ends with the worker. One that dies, gets stuck or has grown is
replaced.
"""

import atexit
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from django.conf import settings

from common import bodies
from common.errors import TooLarge, Unavailable
from embeddings.files._rows import Unreadable

ROWS = 2_000
BATCH_BYTES = 16 * 1024**2

# On top of the mapped file: the reader alone takes 200 MB.
_MEMORY_BYTES = 1024**3
# A second decodes more than 100 MB; a machine that is busy with other things may take longer.
_SECONDS = 10
_BYTES_A_SECOND = 16 * 1024**2
_PATIENCE = 10
_WAIT_S = 60
# Starting one takes as long as decoding some thousand rows of a hundred requests.
_USES = 5_000
_GROWN_BYTES = 512 * 1024**2
_CHILD = Path(__file__).parent / "_child.py"
# What the interpreter may need to start; no secrets, and nothing that changes what it runs.
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "TZ")


_REFUSALS = {"bad": Unreadable, "large": TooLarge, "full": Unavailable}


class _Gone(Exception):
    """The process died, or had to be killed."""


@dataclass
class _Child:
    """One process."""

    process: subprocess.Popen[bytes]
    asking: socket.socket
    uses: int = 0

    @classmethod
    def start(cls) -> "_Child":
        """Start a process; it answers as soon as it can."""
        ours, theirs = socket.socketpair()
        limits = (
            settings.MAX_BULK_BYTES + _MEMORY_BYTES,
            settings.MAX_BULK_BYTES + 4 * BATCH_BYTES,
        )
        with theirs:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", str(_CHILD), "--serve", *(str(each) for each in limits)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
                cwd="/",
            )
        return cls(process, ours)

    def ask(self, task: dict[str, Any], source: BinaryIO, output: BinaryIO) -> dict[str, Any]:
        """Have one file decoded into another; raise _Gone."""
        self.uses += 1
        self.asking.settimeout(task["seconds"] * _PATIENCE)
        try:
            socket.send_fds(
                self.asking, [json.dumps(task).encode()], [source.fileno(), output.fileno()]
            )
            said = b""
            while not said.endswith(b"\n"):
                piece = self.asking.recv(4096)
                if not piece:
                    raise _Gone
                said += piece
        except OSError as error:
            raise _Gone from error
        return dict(json.loads(said))

    def end(self) -> None:
        """Kill it."""
        self.asking.close()
        self.process.kill()
        self.process.wait()


@dataclass
class _Keeper:
    """Lends the process to one file after another."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    child: _Child | None = None

    @contextmanager
    def lent(self) -> Iterator[_Child]:
        """Return a living process that nobody else uses; raise Unavailable."""
        if not self.lock.acquire(timeout=_WAIT_S):
            raise Unavailable("Other uploads are being decoded; try again in a moment.")
        try:
            child = self.child
            if child is None or child.process.poll() is not None:
                child = self.replace(_started())
            yield child
            if child.uses >= _USES:
                # It gets ready while nobody waits for it.
                self.replace(_started())
        except BaseException:
            # Whatever happened, it may be in the middle of something.
            self.end()
            raise
        finally:
            self.lock.release()

    def replace(self, child: _Child) -> _Child:
        """End the process and keep another."""
        self.end()
        self.child = child
        return child

    def end(self) -> None:
        """End the process."""
        if self.child is not None:
            self.child.end()
            self.child = None


def _started() -> _Child:
    try:
        return _Child.start()
    except OSError as error:
        raise Unavailable("The server cannot decode the file at the moment.") from error


_keeper = _Keeper()


def _forget() -> None:
    """Leave the process to the parent after a fork."""
    global _keeper
    _keeper = _Keeper()


os.register_at_fork(after_in_child=_forget)


@atexit.register
def end() -> None:
    """End the process; the next file starts another."""
    with suppress(OSError):
        _keeper.end()


def decode(source: BinaryIO, file_format: str, *, maximum: int) -> BinaryIO:
    """Return the rows of a Parquet file or an Arrow stream, as a stream in an unnamed file.

    source: a file on the disk. maximum: of rows.
    Raises Unreadable for what is not of the format, damaged or takes too much to decode, TooLarge
    for too many rows or bytes, and Unavailable.
    """
    size = os.fstat(source.fileno()).st_size
    task = {
        "format": file_format,
        "seconds": _SECONDS + size // _BYTES_A_SECOND,
        "rows": ROWS,
        "batch_bytes": BATCH_BYTES,
        "maximum": maximum,
        "limit": settings.MAX_BULK_BYTES,
    }
    output = bodies.unnamed_file()
    try:
        try:
            with _keeper.lent() as child:
                said = child.ask(task, source, output)
                if said["kept"] > _GROWN_BYTES:
                    child.uses = _USES
        except _Gone:
            raise Unreadable(
                "Cannot read the file: decoding it took too much memory or time. It is damaged, or "
                "needs smaller batches of rows."
            ) from None
        if "reason" in said:
            raise _REFUSALS[said["kind"]](f"Cannot read the file: {said['reason']}.")
        output.seek(0)
    except BaseException:
        output.close()
        raise
    return output

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
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from django.conf import settings

from common.errors import TooLarge, Unavailable
from embeddings.files._rows import Unreadable

ROWS = 2_000
BATCH_BYTES = 16 * 1024**2

# On top of the mapped file: the reader alone takes 200 MB.
_MEMORY_BYTES = 1024**3
_CPU_S = 120
_TIMEOUT_S = 300
_WAIT_S = 60
_USES = 200
_GROWN_BYTES = 512 * 1024**2
_CHILD = Path(__file__).parent / "_child.py"
# What the interpreter may need to start; no secrets, and nothing that changes what it runs.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "TZ")


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
            _CPU_S,
        )
        with theirs:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", str(_CHILD), "--serve", *(str(each) for each in limits)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                cwd="/",
            )
        ours.settimeout(_TIMEOUT_S)
        return cls(process, ours)

    def ask(self, task: dict[str, Any], source: BinaryIO, output: BinaryIO) -> dict[str, Any]:
        """Have one file decoded into another; raise _Gone."""
        self.uses += 1
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
    owner: int = 0

    @contextmanager
    def lent(self) -> Iterator[_Child]:
        """Return a living process that nobody else uses; raise Unavailable."""
        if not self.lock.acquire(timeout=_WAIT_S):
            raise Unavailable("Other uploads are being decoded; try again in a moment.")
        try:
            if self.child is None or self.child.process.poll() is not None:
                self.replace(_Child.start())
            child = self.child
            if child is None:
                raise _Gone
            yield child
            if child.uses >= _USES:
                self.replace(_Child.start())
        except BaseException:
            # Whatever happened, it may be in the middle of something.
            self.replace(None)
            raise
        finally:
            self.lock.release()

    def replace(self, child: _Child | None) -> None:
        """End the process and keep another."""
        if self.child is not None:
            self.child.end()
        self.child = child


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
        _keeper.replace(None)


def decode(source: BinaryIO, file_format: str, *, maximum: int) -> BinaryIO:
    """Return the rows of a Parquet file or an Arrow stream, as a stream in an unnamed file.

    source: a file on the disk. maximum: of rows.
    Raises Unreadable for what is not of the format, damaged or takes too much to decode, TooLarge
    for too many rows or bytes, and Unavailable.
    """
    task = {
        "format": file_format,
        "rows": ROWS,
        "batch_bytes": BATCH_BYTES,
        "maximum": maximum,
        "limit": settings.MAX_BULK_BYTES,
    }
    output = tempfile.TemporaryFile()  # noqa: SIM115
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
            refusal = TooLarge if said["large"] else Unreadable
            raise refusal(f"Cannot read the file: {said['reason']}.")
        output.seek(0)
    except BaseException:
        output.close()
        raise
    return output

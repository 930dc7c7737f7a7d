"""Starts servers, waits for them and stops them; each writes to a file."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class ServerFailed(Exception):
    """A server did not start, or ended; the text holds its last words."""


def free_port() -> int:
    """Return a port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(added: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without settings of Armarium, and with these."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ARMARIUM_", "SERVICE_", "DJANGO_", "DATABASE_URL"))
    }
    return {**kept, **added}


class Server:
    """One running program."""

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=clean_environment(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_until(self, ready: Callable[[], bool], *, timeout_s: float = 180) -> None:
        """Wait until it serves; raise ServerFailed when it ends or takes too long."""
        deadline = time.monotonic() + timeout_s
        while True:
            with suppress(OSError):
                if ready():
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed(f"{self.process.args!r} does not serve:\n{self.last_words()}")
            time.sleep(0.1)

    def last_words(self) -> str:
        """Return the end of what it has written."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def stop(self) -> None:
        """End it and wait."""
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

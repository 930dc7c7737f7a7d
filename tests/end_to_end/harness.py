"""Runs Armarium as its users do: `manage.py` as a real process on a data directory of its own."""

import fcntl
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

ROOT = Path(__file__).resolve().parents[2]
ADMIN_KEY = "end-to-end-admin-key-0123456789abcdef"


def free_port() -> int:
    """Return a port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> float:
    """Wait until the condition holds; return the seconds that took."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < timeout_s, f"{what}: not within {timeout_s} s"
        time.sleep(0.02)
    return time.monotonic() - began


class Armarium:
    """One installation: a data directory, a port, and at most one `manage.py up`."""

    def __init__(self, data_dir: Path, *, port: int | None = None, **environment: str) -> None:
        self.data_dir = data_dir
        self.port = port or free_port()
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ARMARIUM_", "SERVICE_", "DJANGO_", "DATABASE_URL"))
        }
        self.environment = {
            **kept,
            "ARMARIUM_DATA_DIR": str(data_dir),
            "ARMARIUM_ADMIN_KEY": ADMIN_KEY,
            **environment,
        }
        self.log = data_dir.with_name(f"{data_dir.name}.log")
        self.process: subprocess.Popen[bytes] | None = None

    def migrated(self) -> Self:
        """Give it a database with all its tables, for tests that are not about the first start.

        The first one who needs it makes it, and all processes of the test run copy it.
        """
        of_the_run = Path(os.environ["ARMARIUM_TEST_DATA_DIR"])
        # `tests.database` removes it at the end.
        folder = of_the_run.with_name(f"{of_the_run.name}-migrated")
        folder.mkdir(mode=0o700, exist_ok=True)
        made, draft = folder / "data", folder / "draft"
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                done = Armarium(draft).manage("migrate", "--verbosity", "0")
                assert done.returncode == 0, done.stderr
                draft.rename(made)
        shutil.copytree(made, self.data_dir)
        return self

    def launch(self, *options: str) -> subprocess.Popen[bytes]:
        """Start `up` and return at once."""
        command = [sys.executable, str(ROOT / "manage.py"), "up", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *(options or ("--no-demo",))],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                cwd="/",
                start_new_session=True,
            )
        return self.process

    def start(self, *options: str, timeout_s: float = 60) -> float:
        """Start `up` and wait until it serves; return the seconds that took."""
        process = self.launch(*options)

        def serves() -> bool:
            assert process.poll() is None, f"`up` ended:\n{self.output()}"
            return self.is_ready()

        return wait_for(serves, f"ready ({self.log})", timeout_s)

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command on the same data directory."""
        return subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd="/",
            timeout=60,
            check=False,
        )

    def output(self) -> str:
        """Return what all runs have written."""
        return self.log.read_text(errors="replace")

    def is_ready(self) -> bool:
        """Tell whether the web server says that it can serve."""
        with suppress(OSError, http.client.HTTPException, ValueError):
            return self.request("GET", "/readyz", timeout_s=2)[0] == 200
        return False

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = ADMIN_KEY,
        timeout_s: float = 30,
    ) -> tuple[int, Any]:
        """Send one request; return the status and the decoded body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            headers = {"Content-Type": "application/json"}
            if key is not None:
                headers["Authorization"] = f"Bearer {key}"
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, headers)
            response = connection.getresponse()
            answer = response.read()
            return response.status, json.loads(answer) if answer else None
        finally:
            connection.close()

    def postmaster(self) -> psutil.Process | None:
        """Return the database server of this data directory."""
        cluster = str(self.data_dir / "postgres")
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.name() == "postgres" and cluster in process.cmdline():
                    return process
        return None

    def processes(self) -> list[psutil.Process]:
        """Return every living process of this installation."""
        found = []
        cluster = self.data_dir / "postgres"
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                ours = process.environ().get("ARMARIUM_DATA_DIR") == str(self.data_dir)
                if ours or str(cluster) in process.cmdline() or Path(process.cwd()) == cluster:
                    found.append(process)
        return found

    def kill_everything(self) -> None:
        """SIGKILL the whole tree, the database included, as a power cut would."""
        # A process may start another one while the list is made.
        while victims := self.processes():
            for victim in victims:
                with suppress(psutil.NoSuchProcess):
                    victim.kill()
            psutil.wait_procs(victims, timeout=5)
        if self.process is not None:
            self.process.wait()

    def terminate(self, timeout_s: float = 25) -> tuple[int, float]:
        """SIGTERM `up`; return its exit code and how long it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.terminate()
        code = self.process.wait(timeout=timeout_s)
        return code, time.monotonic() - began

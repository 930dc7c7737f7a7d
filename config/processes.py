"""Keeps programs running, and stops them in order when the whole is asked to stop."""

import errno
import fcntl
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from config import worker
from config.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError

BASE_DIR = Path(__file__).resolve().parent.parent

# A service manager gives us 30 s at most; the database needs what is left of this at the end.
STOP_WITHIN_S = 23.0
_DATABASE_NEEDS_S = 12.0
_TICK_S = 0.2
_SAY_EVERY_S = 2.0
_PORT_PATIENCE_S = 1.5
# More restarts than this in the window, and the program is beyond help.
_RESTARTS = 5
_RESTART_WINDOW_S = 120.0
_LONGEST_PAUSE_S = 30.0
# There are as many processes as cores. Threads that a library for matrices starts in each of them
# spin while they wait for each other, and take the cores from everybody else.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopRequested(BaseException):
    """Somebody asked the program to stop while it was still starting."""


class Failed(Exception):
    """The program cannot go on; the text says why."""


class StopSignals:
    """Turns SIGTERM, SIGINT and SIGHUP into a wish to stop.

    While `interrupting` is true the first one raises StopRequested where the program is; otherwise
    it is only noted. `count` tells an impatient second one apart.
    """

    def __init__(self) -> None:
        self.count = 0
        self.interrupting = False
        self._arrived = threading.Event()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in _STOP_SIGNALS:
            # nohup ignores SIGHUP on purpose.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def wait(self, timeout_s: float) -> None:
        """Sleep, but not longer than until the first signal."""
        self._arrived.wait(timeout_s)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal raise StopRequested inside the block, and one that came before at once."""
        self.interrupting = True
        try:
            if self.count:
                raise StopRequested
            yield
        except Exception as error:
            # What was interrupted need not get over it: a database driver in the middle of a
            # statement says that it cannot go on, rather than why.
            if _was_interrupted(error):
                raise StopRequested from error
            raise
        finally:
            self.interrupting = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self._arrived.set()
        if self.interrupting:
            self.interrupting = False
            raise StopRequested


def _was_interrupted(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, StopRequested):
        error = error.__context__
    return error is not None


@dataclass
class Program:
    """One program to keep running.

    command: must end on SIGTERM after finishing its work, and die with its parent.
    is_essential: whether everything ends when it does not stay up; else it is started again and
    again.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    finish_within_s: float = 10.0
    is_essential: bool = True


def web_program(*, host: str, port: int, workers: int, threads: int) -> Program:
    """Return the web server as a program."""
    # Here, because the background worker imports this module, and has no use for granian's 15 MB.
    from config.metrics import FOLDER, empty_folder
    from config.web_server import FINISH_WITHIN_S

    options = {"host": host, "port": port, "workers": workers, "threads": threads}
    command = [sys.executable, "-m", "config.web_server", "--parent", str(os.getpid())]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    return Program(
        name="web server",
        command=command,
        # What the application itself reads must agree with what was given on the command line.
        environment={
            "ARMARIUM_HOST": host,
            "ARMARIUM_PORT": str(port),
            FOLDER: str(empty_folder(port)),
        },
        finish_within_s=FINISH_WITHIN_S + 1,
    )


def worker_program(*, concurrency: int) -> Program:
    """Return the background worker as a program."""
    command = [sys.executable, "-m", "config.worker", "--parent", str(os.getpid())]
    return Program(
        name="background worker",
        command=[*command, "--concurrency", str(concurrency)],
        finish_within_s=worker.FINISH_WITHIN_S + 1,
        # Pages and the API work without; a job may be what ends it.
        is_essential=False,
    )


@dataclass
class _Child:
    program: Program
    process: subprocess.Popen[bytes]
    restarts: deque[float] = field(default_factory=deque)
    not_before: float = 0.0


class Supervisor:
    """Runs programs beside each other, and the embedded database under them.

    say: is told, in whole sentences, what happens.
    database: is restarted when its server dies; None where somebody else looks after it.
    """

    def __init__(
        self,
        signals: StopSignals,
        *,
        say: Callable[[str], None],
        database: EmbeddedPostgres | None = None,
    ) -> None:
        self._signals = signals
        self._say = say
        self._database = database
        self._database_restarts: deque[float] = deque()
        self._children: list[_Child] = []

    def start(self, program: Program) -> None:
        """Start a program; it is looked after from now on."""
        self._children.append(_Child(program, _started(program)))

    def run(self, *, ready: Callable[[], bool], on_ready: Callable[[], None]) -> None:
        """Look after everything until a signal asks to stop.

        on_ready is called once, when `ready` first says yes.
        Raises Failed when a program or the database does not stay up.
        """
        is_ready = False
        began = said = time.monotonic()
        while not self._signals.count:
            self._look_after_database()
            for child in self._children:
                self._look_after(child)
            now = time.monotonic()
            if not is_ready and ready():
                is_ready = True
                on_ready()
            elif not is_ready and now - said >= _SAY_EVERY_S:
                said = now
                self._say(f"Waiting for the web server ({now - began:.0f} s) …")
            self._signals.wait(_TICK_S)

    def stop(self) -> None:
        """Stop the programs, then the database; raises nothing that would leave one running."""
        deadline = time.monotonic() + STOP_WITHIN_S
        patience = [child.program.finish_within_s for child in self._children]
        finish_by = min(
            time.monotonic() + max(patience, default=0),
            deadline - (_DATABASE_NEEDS_S if self._database else 0),
        )
        heard = self._signals.count
        for child in self._children:
            if child.process.poll() is None:
                child.process.terminate()
        for child in self._children:
            while child.process.poll() is None and time.monotonic() < finish_by:
                if self._signals.count > heard:
                    self._say("Stopping at once.")
                    finish_by = 0.0
                time.sleep(0.05)
            if child.process.poll() is None:
                self._say(f"The {child.program.name} did not finish in time; it is killed.")
                # The group, for its workers; it exists as long as its leader is not waited for.
                with suppress(ProcessLookupError):
                    os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait()
        self._children.clear()
        if self._database is not None:
            self._database.stop(patience_s=max(3.0, deadline - time.monotonic() - 3))

    def _look_after(self, child: _Child) -> None:
        code = child.process.poll()
        if code is None or self._signals.count or time.monotonic() < child.not_before:
            return
        if not child.program.is_essential:
            self._restart_after_pause(child, code)
            return
        if not _may_restart(child.restarts):
            raise Failed(f"The {child.program.name} does not stay up (last exit code {code}).")
        self._say(f"The {child.program.name} ended (exit code {code}); starting it again.")
        self._signals.wait(0.2 * len(child.restarts))
        child.process = _started(child.program)

    def _restart_after_pause(self, child: _Child, code: int) -> None:
        """Start it again, the later the more often that was needed; the others are not kept."""
        if child.not_before == 0.0:
            _may_restart(child.restarts)
            pause = min(_LONGEST_PAUSE_S, 0.2 * 2 ** len(child.restarts))
            child.not_before = time.monotonic() + pause
            self._say(f"The {child.program.name} ended (exit code {code}); starting it again.")
        else:
            child.not_before = 0.0
            child.process = _started(child.program)

    def _look_after_database(self) -> None:
        if self._database is None or self._database.is_running():
            return
        if not _may_restart(self._database_restarts):
            raise Failed(f"The database does not stay up; its log is in {self._database.logs}.")
        self._say("The database server has gone; starting it again.")
        try:
            with self._signals.interruptible():
                self._database.start()
        except StopRequested:
            return
        except EmbeddedPostgresError as error:
            self._say(str(error))


def _started(program: Program) -> subprocess.Popen[bytes]:
    # A variable called HTTP_… would pass for a request header: WSGI puts both in one dictionary.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HTTP_")}
    return subprocess.Popen(  # noqa: S603
        program.command,
        cwd=BASE_DIR,
        env={**_ONE_THREAD, **inherited, **program.environment},
        stdin=subprocess.DEVNULL,
        # Its own session: Ctrl-C is for us, and we stop things in order.
        start_new_session=True,
    )


def _may_restart(restarts: deque[float]) -> bool:
    now = time.monotonic()
    restarts.append(now)
    while restarts[0] < now - _RESTART_WINDOW_S:
        restarts.popleft()
    return len(restarts) <= _RESTARTS


@contextmanager
def only_one(lock_file: Path, *, what: str) -> Iterator[None]:
    """Hold a lock that dies with this process. Raises Failed, naming the file, when it is taken."""
    lock_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with lock_file.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Failed(
                f"{what} (process {file.read().strip() or 'unknown'} holds {lock_file})."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def is_loopback(host: str) -> bool:
    """Tell whether only programs on this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_port(host: str, port: int) -> None:
    """Raise Failed, in one sentence, when the server could not listen there.

    Granian's workers share their port on purpose (SO_REUSEPORT), so they would silently share it
    with another server of this account too.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise Failed(f"{host!r} is no address to listen on: {error.strerror}.") from error
    # Workers of a server that was killed a moment ago may still be on their way out.
    deadline = time.monotonic() + _PORT_PATIENCE_S
    while (
        refusal := _listening_refused(socket.socket(family, kind, protocol), address)
    ) is not None:
        if refusal != errno.EADDRINUSE:
            raise Failed(f"Cannot listen on {host}, port {port}: {os.strerror(refusal)}.")
        if time.monotonic() > deadline:
            raise Failed(
                f"Port {port} on {host} is in use by another program. Stop it, or choose another"
                " port with --port or ARMARIUM_PORT."
            )
        time.sleep(0.1)


def _listening_refused(probe: socket.socket, address: tuple[object, ...]) -> int | None:
    with probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            return error.errno
    return None

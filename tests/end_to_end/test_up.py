"""`manage.py up`, from the first start to the last SIGTERM, with everything killed in between."""

import os
import random
import signal
import socket
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

from config.embedded_postgres import EmbeddedPostgres
from tests.end_to_end.harness import ROOT, Armarium, free_port, wait_for

Make = Callable[..., Armarium]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Give installations that are gone when the test ends."""
    made: list[Armarium] = []

    def make_one(name: str = "data", *, fresh: bool = False, **options: Any) -> Armarium:
        one = Armarium(tmp_path / name, **options)
        made.append(one)
        return one if fresh else one.migrated()

    yield make_one
    for one in made:
        one.kill_everything()


def web_server(armarium: Armarium) -> psutil.Process:
    """Return granian's main process."""
    assert armarium.process is not None
    children = psutil.Process(armarium.process.pid).children()
    return next(child for child in children if "config.web_server" in child.cmdline())


def workers(armarium: Armarium) -> list[psutil.Process]:
    return list(web_server(armarium).children())


def background_worker(armarium: Armarium) -> list[psutil.Process]:
    assert armarium.process is not None
    children = psutil.Process(armarium.process.pid).children()
    return [child for child in children if "config.worker" in child.cmdline()]


def living_workers(armarium: Armarium) -> int:
    """Return how many background workers have given a sign of life of late."""
    parameters = asdict(EmbeddedPostgres(armarium.data_dir).connection_parameters())
    with psycopg.connect(**parameters) as connection:
        found = connection.execute(
            "SELECT count(*) FROM procrastinate_workers"
            " WHERE last_heartbeat > now() - interval '10 seconds'"
        ).fetchone()
    assert found is not None
    return int(found[0])


def test_first_start_second_start_and_a_clean_end(make: Make) -> None:
    armarium = make("a folder with spaces", fresh=True, ARMARIUM_ADMIN_KEY="")
    armarium.start()
    assert armarium.request("GET", "/healthz", key=None)[0] == 200
    wait_for(lambda: "Ctrl-C" in armarium.output(), "banner")
    first = armarium.output()
    assert f"http://127.0.0.1:{armarium.port}/docs" in first
    assert "administrator" in first
    key = next(line.split()[-1] for line in first.splitlines() if "API key " in line)
    status, answer = armarium.request("GET", "/v1/users", key=key)
    assert status == 200
    assert "administrator" in answer["users"]

    assert armarium.terminate()[0] == 0
    assert armarium.processes() == []
    assert not (armarium.data_dir / "postgres" / "postmaster.pid").exists()

    armarium.start()
    wait_for(lambda: armarium.output().count("Ctrl-C") == 2, "banner")
    second = armarium.output().removeprefix(first)
    assert "Password" not in second
    assert "createkey" in second
    assert armarium.request("GET", "/v1/users", key=key)[0] == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_while_starting_leaves_nothing(make: Make, number: int) -> None:
    armarium = make(fresh=True)
    process = armarium.launch()
    wait_for(lambda: "Starting the database" in armarium.output(), "the start")
    time.sleep(random.uniform(0, 2))
    process.send_signal(number)
    assert process.wait(timeout=25) == 0
    assert armarium.processes() == []


def test_start_after_the_tree_was_killed_at_any_moment(make: Make) -> None:
    armarium = make(fresh=True)
    for _ in range(4):
        armarium.launch()
        time.sleep(random.uniform(0.3, 4))
        armarium.kill_everything()
    armarium.start()
    assert armarium.terminate()[0] == 0
    assert armarium.processes() == []


def test_start_after_only_up_itself_was_killed(make: Make) -> None:
    armarium = make()
    armarium.start()
    database = armarium.postmaster()
    assert armarium.process is not None
    armarium.process.kill()
    armarium.process.wait()
    assert armarium.start() < 30
    assert armarium.postmaster() == database
    assert armarium.terminate()[0] == 0
    assert armarium.processes() == []


def test_service_is_back_after_a_part_was_killed(make: Make) -> None:
    armarium = make()
    armarium.start()
    parts: dict[str, Callable[[], list[psutil.Process]]] = {
        "postmaster": lambda: [server for server in [armarium.postmaster()] if server],
        "web server": lambda: [web_server(armarium)],
        "one worker": lambda: workers(armarium)[:1],
        "all workers": lambda: workers(armarium),
        "background worker": lambda: background_worker(armarium),
    }
    for name, find in parts.items():
        before = {process.pid for process in armarium.processes()}
        victims = find()
        assert victims
        for process in victims:
            process.kill()

        def replaced(before: set[int] = before, victims: Any = victims) -> bool:
            alive = {process.pid for process in armarium.processes()}
            return not alive & {process.pid for process in victims} and bool(alive - before)

        wait_for(replaced, f"{name} replaced")
        wait_for(armarium.is_ready, f"ready again after {name}", timeout_s=20)
    wait_for(lambda: living_workers(armarium) > 0, "a background worker")
    assert armarium.terminate()[0] == 0
    assert armarium.processes() == []


def test_second_up_names_the_lock(make: Make, tmp_path: Path) -> None:
    armarium = make()
    armarium.start()
    second = Armarium(armarium.data_dir)
    second.log = tmp_path / "second.log"
    assert second.launch().wait(timeout=30) == 1
    assert str(armarium.data_dir / "locks" / "up.lock") in second.output()
    assert armarium.is_ready()


def test_two_installations_side_by_side(make: Make) -> None:
    one, other = make("one"), make("other")
    one.launch()
    other.start()
    wait_for(one.is_ready, "ready", timeout_s=60)
    one.request("POST", "/v1/users", {"user_handle": "alice"})
    assert one.request("GET", "/v1/users/alice")[0] == 200
    assert other.request("GET", "/v1/users/alice")[0] == 404
    assert one.terminate()[0] == 0
    assert other.is_ready()


def test_port_of_another_program_is_one_clear_line(make: Make) -> None:
    armarium = make()
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", armarium.port))
        foreign.listen()
        assert armarium.launch().wait(timeout=30) == 1
    last = armarium.output().strip().splitlines()[-1]
    assert f"Port {armarium.port} on 127.0.0.1 is in use" in armarium.output()
    assert "Traceback" not in armarium.output(), last
    assert armarium.processes() == []


def test_port_of_another_armarium_is_not_shared(make: Make) -> None:
    one = make("one")
    one.start()
    other = make("other", port=one.port)
    assert other.launch().wait(timeout=30) == 1
    assert f"Port {one.port}" in other.output()


def test_weak_admin_key_is_refused_beyond_loopback(make: Make) -> None:
    armarium = make(ARMARIUM_ADMIN_KEY="short")
    assert armarium.launch("--no-demo", "--host", "0.0.0.0").wait(timeout=30) == 1
    assert "ARMARIUM_ADMIN_KEY" in armarium.output()


def test_commands_use_the_running_database_or_their_own(make: Make) -> None:
    armarium = make(fresh=True)
    done = armarium.manage("migrate", "--verbosity", "0")
    assert done.returncode == 0, done.stderr
    assert armarium.processes() == []

    armarium.start()
    database = armarium.postmaster()
    done = armarium.manage("migrate", "--check")
    assert done.returncode == 0, done.stderr
    assert armarium.postmaster() == database
    assert armarium.is_ready()


def test_data_dir_option_works_for_every_command(make: Make, tmp_path: Path) -> None:
    armarium = make(fresh=True)
    elsewhere = tmp_path / "elsewhere"
    done = armarium.manage("--data-dir", str(elsewhere), "migrate", "--verbosity", "0")
    done = armarium.manage("migrate", "--check", f"--data-dir={elsewhere}")
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "postgres" / "PG_VERSION").exists()
    assert not armarium.data_dir.exists()


def test_serve_runs_the_web_server_alone(make: Make) -> None:
    armarium = make()
    armarium.start()
    port = free_port()
    serve = Armarium(armarium.data_dir, port=port)
    serve.log = armarium.log.with_name("serve.log")
    with serve.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "serve", "--port", str(port)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=serve.environment,
            cwd="/",
        )
    wait_for(serve.is_ready, "serve is ready")
    process.terminate()
    assert process.wait(timeout=25) == 0
    assert armarium.is_ready()


def test_background_worker_runs_alone(make: Make) -> None:
    armarium = make()
    armarium.start("--no-demo", "--no-worker")
    assert background_worker(armarium) == []
    assert living_workers(armarium) == 0
    with armarium.log.with_name("worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "worker", "--concurrency", "1"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=armarium.environment,
            cwd="/",
        )
    wait_for(lambda: living_workers(armarium) == 1, "a background worker")
    process.terminate()
    assert process.wait(timeout=25) == 0
    assert living_workers(armarium) == 0


def test_request_in_flight_is_finished_before_the_end(make: Make) -> None:
    """A body that is still being sent when SIGTERM arrives gets its answer."""
    armarium = make()
    armarium.start()
    body = b'{"user_handle": "alice"}'
    with socket.create_connection(("127.0.0.1", armarium.port), timeout=15) as client:
        client.sendall(
            b"POST /v1/users HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\n"
            b"Authorization: Bearer "
            + armarium.environment["ARMARIUM_ADMIN_KEY"].encode()
            + b"\r\n"
            b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body[:5]
        )
        time.sleep(0.5)
        assert armarium.process is not None
        os.kill(armarium.process.pid, signal.SIGTERM)
        time.sleep(0.5)
        client.sendall(body[5:])
        assert client.recv(65536).startswith(b"HTTP/1.1 201")
    assert armarium.process.wait(timeout=25) == 0
    assert armarium.processes() == []

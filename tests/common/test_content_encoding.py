"""Bodies in gzip and zstd: unpacked within the limit, and refused where they are damaged."""

import gzip
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
import zstandard
from pytest_django import Settings

from tests.answers import assert_refused, nothing_changes
from tests.common.raw import ask_raw
from tests.factories import Answer, Cast, item

LISTED = "/v1/embeddings/alice/letters"
ROWS = {"embeddings": [item("a", [1, 2, 3], text="x" * 5000), item("b", [3, 2, 1])]}
BODY = orjson.dumps(ROWS)


def two_members(pack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda body: pack(body[:10]) + pack(b"") + pack(body[10:])


def zstd_stream(body: bytes) -> bytes:
    """Return a frame that does not tell its size, as a stream has to."""
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(body) + packer.flush()


SKIPPED = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "upper case": ("GZIP", gzip.compress),
    "gzip, several members": ("gzip", two_members(gzip.compress)),
    "zstd": ("zstd", zstandard.compress),
    "zstd, best": ("zstd", lambda body: zstandard.compress(body, 19)),
    "zstd, size unknown": ("zstd", zstd_stream),
    "zstd, several frames": ("zstd", two_members(zstandard.compress)),
    "zstd, a frame to skip": ("zstd", lambda body: zstandard.compress(body) + SKIPPED),
}


def send(cast: Cast, encoding: str, body: bytes, path: str = LISTED) -> Answer:
    return cast.alice.post(path, raw=body, headers={"Content-Encoding": encoding})


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_body_is_read(cast: Cast, name: str) -> None:
    encoding, pack = PACKED[name]
    assert send(cast, encoding, pack(BODY)).status == 201
    assert cast.alice.get(f"{LISTED}/a")["text"] == "x" * 5000


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstandard.compress)]
)
def test_every_route_and_chunks_take_it(
    cast: Cast, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    sent: dict[str, Any] = {
        "HTTP_CONTENT_ENCODING": encoding,
        "HTTP_TRANSFER_ENCODING": "chunked",
        "CONTENT_LENGTH": "",
    }
    assert ask_raw(cast.alice, "POST", LISTED, pack(BODY), **sent).status == 201
    one = pack(orjson.dumps({"vector": [1, 2, 3]}))
    found = send(cast, encoding, one, "/v1/similars/alice/letters")
    assert [hit["id"] for hit in found["results"]] == ["a", "b"]
    agent = send(cast, encoding, pack(b'{"name": "packed"}'), "/agents")
    assert agent.status == 201


@pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstandard.compress)]
)
def test_what_fills_whole_pieces_is_complete(
    cast: Cast, encoding: str, pack: Callable[[bytes], bytes], size: int
) -> None:
    for text in (b"x" * size, np.random.default_rng(0).bytes(size // 2).hex().encode()):
        body = orjson.dumps({"embeddings": [item("a", [1, 2, 3], text=text.decode())]})
        assert send(cast, encoding, pack(body)).status == 201
        assert len(cast.alice.get(f"{LISTED}/a")["text"]) == len(text)
        assert cast.alice.delete(f"{LISTED}/a").status == 200


DAMAGED: dict[str, tuple[str, bytes]] = {
    "no gzip": ("gzip", BODY),
    "no zstd": ("zstd", BODY),
    "the other one": ("zstd", gzip.compress(BODY)),
    "cut off gzip": ("gzip", gzip.compress(BODY)[:-9]),
    "no checksum": ("gzip", gzip.compress(BODY)[:-8]),
    "half a header": ("gzip", gzip.compress(BODY)[:5]),
    "a wrong checksum": ("gzip", gzip.compress(BODY)[:-8] + b"\0" * 8),
    "cut off zstd": ("zstd", zstandard.compress(BODY)[:-3]),
    "zlib": ("gzip", zlib.compress(BODY)),
    "garbage after gzip": ("gzip", gzip.compress(BODY) + b"garbage"),
    "garbage after zstd": ("zstd", zstandard.compress(BODY) + b"garbage"),
    "half a member after": ("gzip", gzip.compress(BODY) + gzip.compress(BODY)[:10]),
    "a window of 2 GiB": ("zstd", b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\x00\x00"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_or_cut_off_body_is_400(cast: Cast, name: str) -> None:
    encoding, body = DAMAGED[name]
    with nothing_changes():
        answer = send(cast, encoding, body)
        assert_refused(answer, 400)
        assert encoding in answer["detail"]
    assert send(cast, "identity", BODY).status == 201


def test_the_limit_counts_unpacked_bytes(cast: Cast, settings: Settings) -> None:
    settings.MAX_BODY_BYTES = 1024**2
    fits = BODY + b" " * (1024**2 - len(BODY))
    with nothing_changes():
        for encoding, pack in (("gzip", gzip.compress), ("zstd", zstandard.compress)):
            for body in (pack(fits + b" "), pack(b" " * 200 * 1024**2), pack(fits) + pack(b"  ")):
                assert len(body) < 1024**2
                assert_refused(send(cast, encoding, body), 413)
    assert send(cast, "gzip", gzip.compress(fits)).status == 201


def test_many_tiny_members_are_refused(cast: Cast) -> None:
    with nothing_changes():
        answer = send(cast, "gzip", gzip.compress(b"") * 70_000)
        assert_refused(answer, 400)
        assert "parts" in answer["detail"]

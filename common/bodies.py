"""Reads request bodies within limits: whole into memory or into a file, compressed or not.

A limit counts what was sent and what it unpacks to, while it arrives: neither a flood nor a
compressed bomb is ever held as a whole.
"""

import tempfile
import zlib
from collections.abc import Callable, Collection, Iterator
from email.message import Message
from functools import lru_cache
from typing import BinaryIO

import zstandard
from django.http import HttpRequest

from common.errors import (
    DomainError,
    LengthRequired,
    Malformed,
    TooLarge,
    Unavailable,
    UnsupportedMedia,
)

JSON = "application/json"
ENCODINGS = ("gzip", "zstd")

_NO_ROOM = "The server has no room for it at the moment."
_PIECE = 1024 * 1024
# A kilobyte of zstd can hold 32 MB, and its decoder returns all of it at once.
_ZSTD_PIECE = 1024
# What RFC 9659 lets a sender ask of a receiver.
_ZSTD_WINDOW = 8 * 1024**2
# Each costs some time, however short it is; tools that pack in parallel make one of every 64 KiB.
_MAXIMUM_MEMBERS = 65_536


def media_type_of(request: HttpRequest) -> str:
    """Return the media type of the body in lower case, JSON where the request names none.

    Raises UnsupportedMedia for text in another charset than UTF-8.
    """
    return _media_type(request.META.get("CONTENT_TYPE") or JSON)


@lru_cache(maxsize=1_000)
def _media_type(content_type: str) -> str:
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_charset("utf-8") not in {"utf-8", "utf8", "us-ascii"}:
        raise UnsupportedMedia("Send the body in UTF-8.")
    return header.get_content_type()


def check_json(request: HttpRequest, *, others: Collection[str] = ()) -> None:
    """Raise UnsupportedMedia for a body that is not JSON; others: what it may be besides."""
    media_type = media_type_of(request)
    if media_type != JSON and not media_type.endswith("+json"):
        or_else = f" Here it may also be: {', '.join(others)}." if others else ""
        raise UnsupportedMedia(
            f"Send the body as JSON, with the header Content-Type: {JSON}.{or_else}"
        )


def read(request: HttpRequest, *, limit: int) -> bytes:
    """Return the unpacked body.

    Raises UnsupportedMedia for a content or transfer encoding that is not supported, TooLarge,
    LengthRequired without a length or chunks, and Malformed for one that is damaged or ends early.
    """
    pieces = list(_unpacked(request, limit))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def once(read: Callable[[], bytes]) -> Callable[[], bytes]:
    """Return what reads a body at the first call, and then returns or refuses the same again."""
    answers: list[bytes | DomainError] = []

    def answer() -> bytes:
        if not answers:
            try:
                answers.append(read())
            except DomainError as refusal:
                answers.append(refusal)
        [known] = answers
        if isinstance(known, DomainError):
            raise known
        return known

    return answer


def spool(request: HttpRequest, *, limit: int) -> BinaryIO:
    """Return the unpacked body in an unnamed file, at its start; the caller closes it.

    Raises as `read`, and Unavailable where the disk takes no more.
    """
    file = unnamed_file()
    try:
        for piece in _unpacked(request, limit):
            _write(file, piece)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def unnamed_file() -> BinaryIO:
    """Return a file that nobody else can open, and that goes when it is closed.

    Raises Unavailable where there is no room for it.
    """
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise Unavailable(_NO_ROOM) from error


def _write(file: BinaryIO, piece: bytes) -> None:
    try:
        file.write(piece)
        file.flush()
    except OSError as error:
        raise Unavailable(_NO_ROOM) from error


def too_large(limit: int) -> TooLarge:
    """Return the refusal of a body over the limit, in bytes."""
    return TooLarge(f"The request body is larger than {limit / 1024**2:g} MiB; send less at once.")


def _unpacked(request: HttpRequest, limit: int) -> Iterator[bytes]:
    encoding = request.META.get("HTTP_CONTENT_ENCODING", "").strip().lower()
    if encoding not in _UNPACKING:
        raise UnsupportedMedia(
            "Send the body without a Content-Encoding, or with one of: " + ", ".join(ENCODINGS)
        )
    sent = _limited(_sent(request), limit)
    unpack = _UNPACKING[encoding]
    return sent if unpack is None else _limited(unpack(sent), limit)


def _limited(pieces: Iterator[bytes], limit: int) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > limit:
            raise too_large(limit)
        yield piece


def _sent(request: HttpRequest) -> Iterator[bytes]:
    environ = request.META
    transfer = environ.get("HTTP_TRANSFER_ENCODING", "").strip().lower()
    if transfer not in {"", "chunked"}:
        raise UnsupportedMedia("Send the body with no other Transfer-Encoding than chunked.")
    chunked = transfer == "chunked"
    if chunked and environ.get("CONTENT_LENGTH"):
        raise Malformed("Content-Length and Transfer-Encoding contradict each other.")
    if chunked:
        # Django takes a body without a length for an empty one, so read beneath it.
        stream = environ["wsgi.input"]
        while piece := stream.read(_PIECE):
            yield piece
        return
    if not environ.get("CONTENT_LENGTH"):
        raise LengthRequired("Send a body with its Content-Length, or in chunks.")
    left = int(environ["CONTENT_LENGTH"])
    while piece := request.read(_PIECE):
        left -= len(piece)
        yield piece
    if left:
        raise Malformed("The request body ended before its Content-Length.")


def _gunzip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack gzip, which may have several members one after another."""
    members = 0
    member = None
    for piece in pieces:
        left, more = piece, False
        while left or more:
            if member is None:
                members = _count(members)
                member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            try:
                found = member.decompress(left, _PIECE)
            except zlib.error as error:
                raise _damaged("gzip") from error
            if found:
                yield found
            left = member.unused_data if member.eof else member.unconsumed_tail
            # What did not fit may be inside of it, with nothing left to put in.
            more = not member.eof and len(found) == _PIECE
            if member.eof:
                member = None
    if member is not None or not members:
        raise _cut_off("gzip")


def _unzstd(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack Zstandard, which may have several frames one after another."""
    decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    frames = 0
    frame = None
    for piece in pieces:
        for start in range(0, len(piece), _ZSTD_PIECE):
            left = piece[start : start + _ZSTD_PIECE]
            while left:
                if frame is None:
                    frames = _count(frames)
                    frame = decoder.decompressobj()
                try:
                    found = frame.decompress(left)
                except zstandard.ZstdError as error:
                    raise _damaged("zstd", ", or asks for a window over 8 MiB") from error
                if found:
                    yield found
                left = frame.unused_data if frame.eof else b""
                if frame.eof:
                    frame = None
    if frame is not None or not frames:
        raise _cut_off("zstd")


def _count(members: int) -> int:
    if members >= _MAXIMUM_MEMBERS:
        raise Malformed(f"The request body is packed in more than {_MAXIMUM_MEMBERS} parts.")
    return members + 1


def _damaged(encoding: str, other: str = "") -> Malformed:
    return Malformed(f"The request body is not {encoding}, as its Content-Encoding says{other}.")


def _cut_off(encoding: str) -> Malformed:
    return Malformed(f"The request body ends in the middle of its {encoding} data.")


_UNPACKING: dict[str, Callable[[Iterator[bytes]], Iterator[bytes]] | None] = {
    "": None,
    "identity": None,
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "zstd": _unzstd,
}

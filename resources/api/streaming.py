"""Sends files: their bytes go from the storage to the client piece by piece, in base64."""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from typing import BinaryIO

from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from common import json
from common.entity_tags import entity_tag
from common.errors import NotFound
from resources.api.serializers import FileOut
from resources.models import File
from resources.selectors import ContentMissing, open_content

# A multiple of three, so that pieces of base64 can be joined; 768 KiB read, 1 MiB sent.
_PIECE = 3 * 256 * 1024
_JSON = "application/json"


def file_response(
    file: File,
    *,
    status: int = 200,
    content: BinaryIO | None = None,
    needs_content: bool = True,
) -> HttpResponseBase:
    """Return one file with its content; raise NotFound and ContentMissing as `open_content`.

    content: its bytes, where they are at hand.
    needs_content: False where a change was made, which is to be shown even if the bytes are lost.
    """
    before, after = _around(file)
    # The bytes of a file never change.
    tag = {"ETag": entity_tag(before + after)}
    try:
        content = content or open_content(file)
    except ContentMissing:
        if needs_content:
            raise
        return HttpResponse(before + after, status=status, content_type=_JSON, headers=tag)
    pieces = _Pieces(before, content, after)
    response = StreamingHttpResponse(pieces, status=status, content_type=_JSON, headers=tag)
    # A body that breaks off is told from a whole one.
    length = len(before) + 4 * -(-file.size // 3) + len(after)
    response.headers["Content-Length"] = str(length)
    return response


def files_response(files: Iterable[File], *, include_content: bool) -> StreamingHttpResponse:
    """Return a JSON array of files, each of which is opened when its turn comes."""
    return StreamingHttpResponse(_array(files, include_content), content_type=_JSON)


def _array(files: Iterable[File], include_content: bool) -> Iterator[bytes]:
    begin = b"["
    for file in files:
        before, after = _around(file)
        content = None
        if include_content:
            # One whose bytes are lost shows none; one deleted since the list was made is left out.
            try:
                with suppress(ContentMissing):
                    content = open_content(file)
            except NotFound:
                continue
        if content is None:
            yield begin + before + after
        else:
            with closing(_Pieces(begin + before, content, after)) as pieces:
                yield from pieces
        begin = b","
    yield b"[]" if begin == b"[" else b"]"


def _around(file: File) -> tuple[bytes, bytes]:
    """Return the JSON object up to the content, and from there on."""
    return json.render(FileOut(file).data)[:-1] + b',"content":"', b'"}'


class _Pieces(Iterator[bytes]):
    """The bytes of one file between what comes before and after.

    Closing it closes the file, also where nobody has asked for the first piece, as after HEAD.
    """

    def __init__(self, before: bytes, content: BinaryIO, after: bytes) -> None:
        self._content = content
        self._pieces = self._all(before, after)

    def _all(self, before: bytes, after: bytes) -> Iterator[bytes]:
        yield before
        while piece := self._content.read(_PIECE):
            yield b64encode(piece)
        yield after

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        """Close the file."""
        self._content.close()

"""Sends files: their bytes go from the storage to the client piece by piece, in base64."""

from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import BinaryIO

import structlog
from django.http import StreamingHttpResponse

from common import json
from resources.api.serializers import FileOut
from resources.models import File
from resources.selectors import ContentMissing, is_stored, open_content

# A multiple of three, so that pieces of base64 can be joined; 768 KiB read, 1 MiB sent.
_PIECE = 3 * 256 * 1024
_JSON = "application/json"

log = structlog.get_logger(__name__)


def file_response(file: File, *, status: int = 200) -> StreamingHttpResponse:
    """Return one file with its content; raise ContentMissing."""
    content = open_content(file)
    before, after = _around(file)
    length = len(before) + 4 * -(-file.size // 3) + len(after)
    response = StreamingHttpResponse(
        _pieces(before, content, after), status=status, content_type=_JSON
    )
    # A body that breaks off is told from a whole one.
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
            try:
                content = open_content(file)
            except ContentMissing:
                if not is_stored(file):
                    # It was deleted since the list was made.
                    continue
                log.error("content_missing", file=str(file.uuid))
        if content is None:
            yield begin + before + after
        else:
            yield from _pieces(begin + before, content, after)
        begin = b","
    yield b"[]" if begin == b"[" else b"]"


def _around(file: File) -> tuple[bytes, bytes]:
    """Return the JSON object up to the content, and from there on."""
    return json.render(FileOut(file).data)[:-1] + b',"content":"', b'"}'


def _pieces(before: bytes, content: BinaryIO, after: bytes) -> Iterator[bytes]:
    with closing(content):
        yield before
        while piece := content.read(_PIECE):
            yield b64encode(piece)
        yield after

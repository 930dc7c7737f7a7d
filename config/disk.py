"""Refuses writes before the disk is full: a database without a byte left cannot even be read.

PostgreSQL writes its log first; where the log finds no room the server stops, and starts again only
once there is some. So the last of the disk is kept for what goes on by itself: the log of small
things, checkpoints, recovery. Reading, searching, signing in and deleting go on.
"""

import os
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from common import problems
from common.errors import StorageFull

Handler = Callable[[HttpRequest], HttpResponseBase]

_WRITING = frozenset({"POST", "PUT", "PATCH"})
# These are sent with POST and store next to nothing.
_READING = ("/v1/similars/", "/sign-in", "/admin/login/")
# What is uploaded is written to the log, to tables and to their indexes.
_TIMES_WRITTEN = 3
_MB = 1024**2
_CHUNK = 1024**2


class DiskReserve:
    """Answers 503 to what would be written into the last of the disk (ARMARIUM_DISK_RESERVE_MB)."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response
        self._reserve = settings.DISK_RESERVE_MB * _MB

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.method in _WRITING and not request.path_info.startswith(_READING):
            length = request.META.get("CONTENT_LENGTH") or "0"
            needed = self._reserve + _TIMES_WRITTEN * int(length)
            if self._reserve and free_bytes(settings.DATA_DIR) < needed:
                # Who is still sending would see a broken connection instead of the reason.
                if int(length) <= settings.MAX_BODY_BYTES:
                    while request.read(_CHUNK):
                        pass
                refusal = StorageFull("The server's storage is full; nothing was stored.")
                return problems.response(refusal, request.path_info)
        return self.get_response(request)


def free_bytes(folder: Path) -> int:
    """Return how much an account without privileges may still write there."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize

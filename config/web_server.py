"""The web server's own process: granian with the settings Armarium needs.

Run as ``python -m config.web_server`` by `config.processes`.
"""

import argparse
import gc
import os
import signal
import sys
from typing import TYPE_CHECKING

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels

from config.parent import die_with

if TYPE_CHECKING:
    from django.core.handlers.wsgi import WSGIHandler

BACKLOG = 1024
# Requests in flight get this long when the server stops; then their workers are killed.
FINISH_WITHIN_S = 8

# A search beside an upload in the same process waits this long for its turn, several times over;
# Python's own 5 ms would be as long as all the rest of it.
_SWITCH_EVERY_S = 0.0005

_MAIN_PROCESS = "ARMARIUM_WEB_PROCESS"


def application() -> "WSGIHandler":
    """Load the application; granian calls this once in each worker."""
    die_with(int(os.environ[_MAIN_PROCESS]))
    # Until granian sets a worker's own handlers, it has those of the main process, which would
    # swallow the wish to stop.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    from config.wsgi import application

    # What is loaded stays, so nobody need look through it for garbage again; and requests make
    # little that only the collector could free.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    sys.setswitchinterval(_SWITCH_EVERY_S)
    return application


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="config.web_server")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args()
    die_with(options.parent)
    os.environ[_MAIN_PROCESS] = str(os.getpid())
    Granian(
        "config.web_server:application",
        factory=True,
        address=options.host,
        port=options.port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        workers=options.workers,
        blocking_threads=options.threads,
        backlog=BACKLOG,
        # A connection counts from the moment it is accepted, also while it dawdles over its
        # headers: a low figure would let a few slow clients shut everybody else out.
        backpressure=max(128, BACKLOG // options.workers),
        http1_settings=HTTP1Settings(
            header_read_timeout=10_000,
            # Bounds the headers of a request too: longer ones are answered with 431.
            max_buffer_size=32 * 1024,
        ),
        respawn_failed_workers=True,
        workers_kill_timeout=FINISH_WITHIN_S,
        # Requests are logged by django-structlog; granian only says what went wrong.
        log_level=LogLevels.warning,
        log_access=False,
    ).serve()


if __name__ == "__main__":
    main()

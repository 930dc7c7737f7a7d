"""How log lines look: structured, one event a line, without keys, bodies, texts or vectors."""

import sys
from http import HTTPStatus
from typing import Any

import structlog

_WATCHING = {"GET /healthz", "GET /readyz"}

_shared: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def _drop_noise(logger: Any, method: str, event: Any) -> Any:
    """Leave out that a request began, and the questions of whoever watches the server."""
    if event.get("event") == "request_started":
        raise structlog.DropEvent
    if event.get("request") in _WATCHING and event.get("code") == HTTPStatus.OK:
        raise structlog.DropEvent
    return event


def logging_settings(*, level: str, as_json: bool) -> dict[str, Any]:
    """Return Django's LOGGING and configure structlog to feed it.

    level: the lowest level written, such as ``INFO``.
    as_json: one JSON object a line for log collectors; otherwise words for people, aligned on a
        terminal and logfmt anywhere else.
    """
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            _drop_noise,
            *_shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    # Neither lets a newline in input forge a second line.
    renderer: Any
    if as_json:
        renderer = structlog.processors.JSONRenderer()
    elif sys.stderr.isatty():
        renderer = structlog.dev.ConsoleRenderer(colors=False, repr_native_str=True)
    else:
        # Nobody watches, so lines need not be aligned: that takes a tenth of a search's time.
        renderer = structlog.processors.LogfmtRenderer(
            key_order=["timestamp", "level", "event"], bool_as_flag=False
        )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    renderer,
                ],
                "foreign_pre_chain": _shared,
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Refusals are answers, not events; django-structlog already notes each request.
            "django.request": {"level": "ERROR"},
            "django.security": {"level": "ERROR"},
            # Its lines show the arguments of jobs; `common.jobs` notes each job without them.
            "procrastinate": {"level": "CRITICAL"},
            "procrastinate.worker.worker": {"level": "ERROR"},
        },
    }

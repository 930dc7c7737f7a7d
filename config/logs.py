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


def direct_logger(name: str, *, level: str, as_json: bool) -> Any:
    """Return a logger whose lines look like all others and skip the standard library on their way.

    For the line of each search: records, handlers and formatters would take a tenth of its time.
    """
    return structlog.wrap_logger(
        structlog.WriteLogger(sys.__stderr__),
        processors=[
            structlog.processors.add_log_level,
            _shared[-1],
            _renderer(as_json=as_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    ).bind(logger=name)


def _renderer(*, as_json: bool) -> Any:
    """Return what writes an event as a line; none lets a newline in input forge a second one."""
    if as_json:
        return structlog.processors.JSONRenderer()
    if sys.stderr.isatty():
        return structlog.dev.ConsoleRenderer(colors=False, repr_native_str=True)
    # Nobody watches, so lines need not be aligned: that takes a tenth of a search's time.
    return structlog.processors.LogfmtRenderer(
        key_order=["timestamp", "level", "event"], bool_as_flag=False
    )


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
    renderer = _renderer(as_json=as_json)
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
            # It tells of each session that begins or ends, and of what it did not have to clean up.
            "axes": {"level": "WARNING"},
            # Its lines show the arguments of jobs; `common.jobs` notes each job without them.
            "procrastinate": {"level": "CRITICAL"},
            "procrastinate.worker.worker": {"level": "ERROR"},
        },
    }

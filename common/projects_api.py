"""What sets the Projects API apart on the wire: where it lives, and the shape of its refusals.

`/v1` answers a refusal with RFC 9457 problem details; the clients of the Projects API look for an
error object, and know other statuses for the content of a request. `common.problems` asks here.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from common.errors import (
    Conflict,
    DomainError,
    FieldError,
    Invalid,
    Malformed,
    NotJson,
    Unprocessable,
)

# What an address starts with. Those after the first four are the client's too and not served yet:
# it shall read a refusal of the shape it knows.
_SEGMENTS = frozenset(
    {
        "projects",
        "agents",
        "users",
        "files",
        "sessions",
        "tasks",
        "executions",
        "jobs",
        "secrets",
        "embed",
    }
)
# Clients of this API try again after a 409 unless they are told not to.
_DO_NOT_RETRY = {"x-should-retry": "false"}

_CODES: dict[str, str] = {
    "unauthenticated": "unauthorized",
    "forbidden": "permission_denied",
    "too-large": "payload_too_large",
}
_TYPES: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.CONFLICT: "conflict_error",
}


def serves(path: str) -> bool:
    """Tell whether an address is one of the Projects API."""
    _, _, rest = path.partition("/")
    first, _, beneath = rest.partition("/")
    # `/docs` itself is a page about both APIs.
    return first in _SEGMENTS or (first == "docs" and beneath != "")


def status_of(error: DomainError) -> int:
    """Return the status of an error: what is wrong with a request's content is 422 here."""
    if isinstance(error, Invalid) and not isinstance(error, Malformed):
        return HTTPStatus.UNPROCESSABLE_ENTITY
    return error.status


def code_of(error: DomainError) -> str:
    """Return the error's stable name."""
    if isinstance(error, NotJson):
        return "invalid_json"
    if isinstance(error, Malformed):
        return "invalid_request"
    if isinstance(error, Invalid | Unprocessable):
        return "validation_error"
    return _CODES.get(error.code, error.code.replace("-", "_"))


def body(error: DomainError, *, message: str, fields: list[FieldError]) -> dict[str, Any]:
    """Return the error object.

    message, fields: what the error says, shortened for a body.
    """
    status = status_of(error)
    server = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else None
    shown: dict[str, Any] = {
        "message": message,
        "code": code_of(error),
        "type": server or _TYPES.get(status, "invalid_request_error"),
    }
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        shown["details"] = [
            {"loc": _place(each.location), "msg": each.message, "type": each.code}
            for each in fields or [FieldError("body", message)]
        ]
    elif error.details:
        shown["details"] = error.details
    return {"error": shown}


def headers(error: DomainError) -> Mapping[str, str]:
    """Return the headers that only this API's refusals carry."""
    return _DO_NOT_RETRY if isinstance(error, Conflict) else {}


def _place(location: str) -> str:
    return location.removeprefix("body.")

"""Turns every exception into one answer: RFC 9457 `application/problem+json`.

Addresses of the Projects API get the same in that API's own shape (`common.projects_api`).
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

import orjson
import psycopg
import structlog
from django.core.exceptions import (
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.core.exceptions import ValidationError as ModelValidationError
from django.db import IntegrityError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from rest_framework import exceptions as rest

from common import projects_api
from common.errors import (
    Conflict,
    DomainError,
    FieldError,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    StorageFull,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnsupportedMedia,
    kind_of,
)

CONTENT_TYPE = "application/problem+json"
# What `type` starts with; docs/errors.md explains each.
TYPE_PREFIX = "urn:armarium:problem:"
RETRY_AFTER_S = 2
# A refusal repeats parts of the request; these keep it under 64 KiB, whatever was sent.
_MAXIMUM_ERRORS = 20
_MAXIMUM_DETAIL = 6_000
_MAXIMUM_MESSAGE = 250
_MAXIMUM_LOCATION = 150

log = structlog.get_logger(__name__)


class MethodNotServed(DomainError):
    """The route exists, but not for this method."""

    status = 405
    code = "method-not-allowed"


def body(error: DomainError) -> dict[str, Any]:
    """Return the problem body of an error."""
    problem: dict[str, Any] = {
        "type": f"{TYPE_PREFIX}{error.code}",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": _shortened(error.detail, _MAXIMUM_DETAIL),
    }
    if error.errors:
        problem["errors"] = [
            {"location": each.location, "message": each.message} for each in _fields(error)
        ]
    if error.details:
        problem["details"] = error.details
    return problem


def _fields(error: DomainError) -> list[FieldError]:
    return [
        FieldError(
            _shortened(each.location, _MAXIMUM_LOCATION),
            _shortened(each.message, _MAXIMUM_MESSAGE),
            each.code,
        )
        for each in error.errors[:_MAXIMUM_ERRORS]
    ]


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def headers(error: DomainError) -> dict[str, str]:
    """Return the headers that belong to an error's status."""
    if error.status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": 'Bearer realm="armarium"'}
    if isinstance(error, TooManyRequests):
        return {"Retry-After": str(error.retry_after_s)}
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        return {"Retry-After": str(RETRY_AFTER_S)}
    return {}


def response(error: DomainError, path: str) -> HttpResponse:
    """Return the answer for an error.

    path: the address that was asked for; it decides on the shape of the body.
    """
    if projects_api.serves(path):
        message = _shortened(error.detail, _MAXIMUM_DETAIL)
        return HttpResponse(
            orjson.dumps(projects_api.body(error, message=message, fields=_fields(error))),
            status=projects_api.status_of(error),
            content_type="application/json",
            headers={**headers(error), **projects_api.headers(error)},
        )
    return HttpResponse(
        orjson.dumps(body(error)),
        status=error.status,
        content_type=CONTENT_TYPE,
        headers=headers(error),
    )


def answer(exception: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """Answer any exception of an API view (REST framework's EXCEPTION_HANDLER)."""
    error = as_domain_error(exception)
    if error is None:
        log.error("unexpected_error", exc_info=exception)
        error = DomainError("Something went wrong on our side; the log has the details.")
    request = context.get("request")
    return response(error, "" if request is None else request.path_info)


def as_domain_error(exception: Exception) -> DomainError | None:
    """Return what a known exception means, or None for one that nobody expected."""
    match exception:
        case DomainError():
            return exception
        case rest.ValidationError():
            return _invalid(list(_field_errors(exception.detail, "body")))
        case ModelValidationError():
            return Invalid(" ".join(exception.messages))
        case rest.NotAuthenticated() | rest.AuthenticationFailed():
            return Unauthenticated(str(exception.detail))
        case rest.MethodNotAllowed():
            return MethodNotServed(str(exception.detail))
        case rest.UnsupportedMediaType():
            return UnsupportedMedia(str(exception.detail))
        case rest.ParseError():
            return Malformed(str(exception.detail))
        case rest.PermissionDenied() | PermissionDenied():
            return Forbidden("Your account may not do this.")
        case rest.NotFound() | Http404():
            return NotFound("There is nothing at this address.")
        case RequestDataTooBig():
            return TooLarge("The request body is too large.")
        case SuspiciousOperation():
            return Malformed("The request is malformed.")
        case UnreadablePostError():
            return Malformed("The connection broke before the whole request body had arrived.")
        case OperationalError() if isinstance(exception.__cause__, psycopg.errors.DiskFull):
            log.error("storage_full")
            return StorageFull("The database's storage is full; nothing was stored.")
        case OperationalError() | InterfaceError():
            log.warning("database_unavailable", error=type(exception.__cause__).__name__)
            return Unavailable("The database did not answer in time; try again in a moment.")
        case IntegrityError():
            # Constraints guard what two requests may do to each other at the same moment.
            log.warning("integrity_error", error=type(exception.__cause__).__name__)
            return Conflict("Something this relies on changed at the same moment; try again.")
        case _:
            return None


def _invalid(errors: list[FieldError]) -> Invalid:
    detail = "; ".join(f"{each.location.removeprefix('body.')}: {each.message}" for each in errors)
    return Invalid(detail, errors=errors)


def _field_errors(detail: Any, location: str) -> Iterator[FieldError]:
    if isinstance(detail, Mapping):
        for key, value in detail.items():
            # REST framework keys the bad entries of a list by their numbers.
            place = f"[{key}]" if isinstance(key, int) else f".{key}"
            inner = location if key == "non_field_errors" else f"{location}{place}"
            yield from _field_errors(value, inner)
    elif isinstance(detail, list) and any(isinstance(each, Mapping | list) for each in detail):
        for index, value in enumerate(detail):
            yield from _field_errors(value, f"{location}[{index}]")
    elif isinstance(detail, list):
        for message in detail:
            yield FieldError(location, str(message), kind_of(message))
    else:
        yield FieldError(location, str(detail), kind_of(detail))


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer an address that no route has (Django's handler404)."""
    refusal = NotFound("There is nothing at this address; /docs lists what there is.")
    return response(refusal, request.path_info)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request that Django itself refused (handler400)."""
    if isinstance(exception, RequestDataTooBig):
        return response(TooLarge("The request body is too large."), request.path_info)
    refusal = Malformed("The request is malformed, or its Host is not one we serve.")
    return response(refusal, request.path_info)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a refusal outside of the API (handler403)."""
    return response(Forbidden("Your account may not do this."), request.path_info)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer an unexpected error outside of the API (handler500)."""
    refusal = DomainError("Something went wrong on our side; the log has the details.")
    return response(refusal, request.path_info)

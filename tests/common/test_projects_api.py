"""Refusals in the shape of the Projects API, and which addresses get them."""

import orjson
import pytest
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.http import Http404
from django.test import RequestFactory
from rest_framework import exceptions as rest

from common import errors, problems, projects_api
from common.canonical_names import IdTaken, NameTaken
from common.models import uuid7
from tests.answers import assert_error
from tests.common.test_problems import KNOWN
from tests.factories import Answer

CODES = {
    errors.Invalid: (422, "validation_error"),
    errors.Malformed: (400, "invalid_request"),
    errors.NotJson: (400, "invalid_json"),
    errors.Unauthenticated: (401, "unauthorized"),
    errors.Forbidden: (403, "permission_denied"),
    errors.NotFound: (404, "not_found"),
    errors.ProjectNotFound: (404, "project_not_found"),
    problems.MethodNotServed: (405, "method_not_allowed"),
    errors.Conflict: (409, "conflict"),
    errors.DefaultProjectProtected: (409, "default_project_protected"),
    errors.ProjectNotEmpty: (409, "project_not_empty"),
    errors.LengthRequired: (411, "length_required"),
    errors.TooLarge: (413, "payload_too_large"),
    errors.UnsupportedMedia: (415, "unsupported_media_type"),
    errors.Unprocessable: (422, "validation_error"),
    errors.Unavailable: (503, "unavailable"),
    errors.DomainError: (500, "internal_error"),
}


def answered(exception: Exception) -> Answer:
    """Return the answer to an exception of a view of the Projects API."""
    request = RequestFactory().get("/agents")
    response = problems.answer(exception, {"request": request})
    response.headers["Access-Control-Allow-Origin"] = "*"
    content = response.content
    return Answer(response.status_code, orjson.loads(content), response.headers, content)


@pytest.mark.parametrize("kind", CODES, ids=lambda kind: kind.__name__)
def test_each_kind_of_refusal_has_its_status_and_code(kind: type[errors.DomainError]) -> None:
    status, code = CODES[kind]
    fields = [errors.FieldError("body.metadata.team[0]", "Wrong.", "required")]
    answer = answered(kind("Something.", errors=fields))
    assert_error(answer, status, code, says="Something.")
    if status == 422:
        assert answer["error"]["details"] == [
            {"loc": "metadata.team[0]", "msg": "Wrong.", "type": "required"}
        ]
    else:
        assert "details" not in answer["error"]
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


def test_details_of_a_refusal_are_shown() -> None:
    counts = {"agents": 2, "users": 0, "files": 1}
    answer = answered(errors.ProjectNotEmpty("Full.", details=counts))
    assert_error(answer, 409, "project_not_empty")
    assert answer["error"]["details"] == counts


@pytest.mark.parametrize("error", [NameTaken("agent", "x"), IdTaken("agent", uuid7())])
def test_what_is_taken_is_a_conflict(error: errors.DomainError) -> None:
    assert_error(answered(error), 409, "conflict")


@pytest.mark.parametrize(("exception", "status"), KNOWN, ids=lambda each: repr(each))
def test_every_exception_becomes_an_error_object_without_insides(
    exception: Exception, status: int
) -> None:
    answer = answered(exception)
    assert answer.status in {status, 422}
    assert (answer.status == 422) == (answer["error"]["code"] == "validation_error")
    assert_error(answer, answer.status, answer["error"]["code"])
    assert b"secret" not in answer.content


def test_validation_errors_name_their_kind() -> None:
    error = rest.ValidationError({"name": [rest.ErrorDetail("Too long.", code="max_length")]})
    assert answered(error)["error"]["details"] == [
        {"loc": "name", "msg": "Too long.", "type": "max_length"}
    ]


def test_errors_outside_of_views_have_the_same_shape() -> None:
    request = RequestFactory().get("/files/x")
    for response, status in (
        (problems.bad_request(request, SuspiciousOperation("secret")), 400),
        (problems.bad_request(request, RequestDataTooBig()), 413),
        (problems.page_not_found(request, Http404()), 404),
        (problems.server_error(request), 500),
    ):
        assert response.status_code == status
        assert set(orjson.loads(response.content)) == {"error"}


@pytest.mark.parametrize(
    ("path", "own"),
    [
        *((path, True) for path in ("/projects", "/agents/x", "/users/", "/files/a/b")),
        *((path, True) for path in ("/sessions", "/jobs/x", "/docs/x", "/embed", "/secrets")),
        *((path, False) for path in ("/v1/projects", "/v1/users/x", "/docs", "/docs/", "/")),
        *((path, False) for path in ("/projectsx", "/admin/", "/healthz", "", "/Projects", "//x")),
    ],
)
def test_addresses_of_this_api_are_told_from_others(path: str, own: bool) -> None:
    assert projects_api.serves(path) is own

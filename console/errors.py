"""Refusals as pages, for whoever reads them in a browser; everybody else gets `common.problems`."""

from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import translation
from django.utils.translation import gettext, gettext_lazy

from common import problems, projects_api
from common.errors import DomainError, Forbidden, Malformed, NotFound, TooManyRequests
from console import site
from console.words import translated

_HTML = "text/html"
_TITLES = {
    HTTPStatus.BAD_REQUEST: gettext_lazy("This address does not make sense"),
    HTTPStatus.FORBIDDEN: gettext_lazy("You may not do this"),
    HTTPStatus.NOT_FOUND: gettext_lazy("There is nothing here"),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: gettext_lazy("This is too large"),
    HTTPStatus.TOO_MANY_REQUESTS: gettext_lazy("Too many failed attempts"),
    HTTPStatus.SERVICE_UNAVAILABLE: gettext_lazy("Not at this moment"),
}


def page(request: HttpRequest, error: DomainError, **context: Any) -> HttpResponse:
    """Return the page that tells of an error; asks the database nothing."""
    with translation.override(translation.get_language_from_request(request)):
        title = _TITLES.get(HTTPStatus(error.status), gettext_lazy("Something went wrong"))
        values = {"title": title, "detail": translated(error.detail), "status": error.status}
        response = render(
            request,
            "console/error.html",
            {**site.context(request), **values, **context},
            status=error.status,
        )
    for name, value in problems.headers(error).items():
        response.headers[name] = value
    response.headers["Cache-Control"] = "no-store"
    return response


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer an address that no route has (Django's handler404)."""
    if not _is_read_by_a_person(request):
        return problems.page_not_found(request, exception)
    return page(request, NotFound(_nothing_here(request)))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request that Django itself refused (handler400)."""
    if not _is_read_by_a_person(request):
        return problems.bad_request(request, exception)
    return page(request, problems.as_domain_error(exception) or Malformed(str(exception)))


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a refusal outside of the API (handler403)."""
    if not _is_read_by_a_person(request):
        return problems.permission_denied(request, exception)
    return page(request, Forbidden("Your account may not do this."))


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer an unexpected error outside of the API (handler500)."""
    if not _is_read_by_a_person(request):
        return problems.server_error(request)
    with translation.override(translation.get_language_from_request(request)):
        detail = gettext("Something went wrong on our side; the log of the server has the details.")
    return page(request, DomainError(detail))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a form that did not come from one of our pages, or came too late."""
    with translation.override(translation.get_language_from_request(request)):
        detail = gettext(
            "Nothing was changed: this form is out of date, or your browser sends no cookies. Go "
            "back, load the page again and send it once more."
        )
    return page(request, Forbidden(detail))


def locked_out(
    request: HttpRequest, response: HttpResponse, credentials: dict[str, Any]
) -> HttpResponse:
    """Answer whoever failed to sign in too often; the same for handles that there are and not."""
    cooloff = settings.AXES_COOLOFF_TIME
    with translation.override(translation.get_language_from_request(request)):
        detail = gettext(
            "Signing in failed too often from your address. Try again in %(minutes)d minutes."
        ) % {"minutes": cooloff.total_seconds() // 60}
    seconds = int(cooloff.total_seconds())
    answer = page(request, TooManyRequests(detail, retry_after_s=seconds))
    answer.headers["Retry-After"] = str(seconds)
    return answer


def _nothing_here(request: HttpRequest) -> str:
    with translation.override(translation.get_language_from_request(request)):
        return gettext("No page has this address. It may be misspelled, or the page may be gone.")


def _is_read_by_a_person(request: HttpRequest) -> bool:
    """Tell whether a browser asks for a page, by what it says it prefers."""
    if request.path_info.startswith("/v1/") or projects_api.serves(request.path_info):
        return False
    try:
        return request.get_preferred_type(["application/json", _HTML]) == _HTML
    except (LookupError, ValueError):
        return False

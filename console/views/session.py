"""Signing in and out; how pages look and which language they speak."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext

from accounts import sessions
from common.errors import Invalid
from console import site
from console.forms import KeyForm, PasswordForm
from console.pages import Page, refuse

_YEAR_S = 365 * 24 * 3600


class SignIn(Page):
    """Signing in by password or by key."""

    parameters = frozenset({"next"})

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the two forms, or lead on whoever is signed in."""
        if not self.actor.is_anonymous:
            return HttpResponseRedirect(_next(request))
        return self._forms(PasswordForm(), KeyForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        """Open a session."""
        by_key = "key" in request.POST
        password = PasswordForm(None if by_key else request.POST)
        key = KeyForm(request.POST if by_key else None)
        form: Any = key if by_key else password
        if form.is_valid():
            sign_in: Any = sessions.sign_in_with_key if by_key else sessions.sign_in_with_password
            try:
                sign_in(request, **form.cleaned_data)
            except Invalid as error:
                refuse(form, error)
            else:
                return HttpResponseRedirect(_next(request))
        return self._forms(password, key, status=400)

    def _forms(self, password: PasswordForm, key: KeyForm, *, status: int = 200) -> HttpResponse:
        context = {"password_form": password, "key_form": key, "next": _next(self.request)}
        return self.show("console/sign_in.html", context, status=status)


class SignOut(Page):
    """Signing out."""

    def post(self, request: HttpRequest) -> HttpResponse:
        """End the session."""
        sessions.sign_out(request)
        return HttpResponseRedirect(reverse("projects"))


class Appearance(Page):
    """The theme and the language, kept in cookies for a year."""

    def post(self, request: HttpRequest) -> HttpResponse:
        """Remember the choice, and go back to the page that it was made on."""
        response = HttpResponseRedirect(_next(request))
        theme, language = (request.POST.get(name) for name in ("theme", "language"))
        if theme in site.THEMES:
            _keep(response, site.THEME_COOKIE, theme)
        elif language in dict(settings.LANGUAGES):
            _keep(response, settings.LANGUAGE_COOKIE_NAME, language)
        else:
            raise Invalid(gettext("Choose one of the themes or languages that the page names."))
        return response


def _keep(response: HttpResponse, name: str, value: str) -> None:
    response.set_cookie(
        name,
        value,
        max_age=_YEAR_S,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def _next(request: HttpRequest) -> str:
    """Return where to go on: a page of ours, the dashboard if the request names none."""
    address = request.POST.get("next") or request.GET.get("next") or ""
    is_ours = url_has_allowed_host_and_scheme(address, allowed_hosts=None)
    return address if is_ours and address.startswith("/") else reverse("projects")

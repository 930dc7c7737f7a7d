"""The base of all pages: who asks, in which language, and what becomes of refusals."""

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import urlencode

from django import forms
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils import translation
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext, gettext_lazy
from django.views import View
from django_htmx.http import HttpResponseClientRedirect
from django_htmx.middleware import HtmxDetails

from accounts import sessions
from accounts.policy import ANONYMOUS, Actor, Level, level_of
from common import problems
from common.errors import DomainError, Forbidden, Invalid, NotFound, Unauthenticated
from console import errors, site
from console.words import translated
from projects.models import Project
from projects.selectors import count_embeddings, project_for


class Page(View):
    """A page; what domain code refuses becomes a page as well.

    parameters: what its query string may hold.
    needs_account: whether only those who are signed in see it.
    """

    http_method_names = ["get", "post", "head", "options"]
    parameters: ClassVar[frozenset[str]] = frozenset()
    needs_account = False
    actor: Actor = ANONYMOUS

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer in the language of whoever asks; never to be kept by the browser or a proxy."""
        with translation.override(translation.get_language_from_request(request)):
            try:
                self.actor = sessions.actor_of(request)
                if hasattr(request, "refusal"):
                    # Nothing of its body has been read.
                    raise request.refusal
                # The key's own record, and the log, know who asked.
                request.api_actor = self.actor  # type: ignore[attr-defined]
                if self.actor.user is not None:
                    request.user = self.actor.user
                self._check(request)
                response = super().dispatch(request, *args, **kwargs)
            except Unauthenticated:
                response = self._sign_in_first(request)
            except Exception as error:
                known = problems.as_domain_error(error)
                if known is None:
                    raise
                response = errors.page(request, known, **site.context(request, self.actor))
        response.headers["Cache-Control"] = "private, no-store"
        patch_vary_headers(response, ["Cookie", "Accept-Language", "HX-Request"])
        return response

    def _check(self, request: HttpRequest) -> None:
        unknown = sorted(set(request.GET) - self.parameters)
        if unknown and request.method in ("GET", "HEAD"):
            raise Invalid(
                gettext("This page knows no parameter “%(name)s”.") % {"name": unknown[0][:60]}
            )
        if self.needs_account and self.actor.is_anonymous:
            raise Unauthenticated("Sign in first.")

    def _sign_in_first(self, request: HttpRequest) -> HttpResponse:
        back = request.get_full_path() if request.method == "GET" else request.path
        address = f"{reverse('sign-in')}?{urlencode({'next': back})}"
        if HtmxDetails(request):
            return HttpResponseClientRedirect(address)
        return HttpResponseRedirect(address)

    def show(
        self, template: str, context: Mapping[str, Any] | None = None, *, status: int = 200
    ) -> HttpResponse:
        """Return a page made from a template."""
        values = {**site.context(self.request, self.actor), **(context or {})}
        return render(self.request, template, values, status=status)

    def is_partial(self, target: str) -> bool:
        """Tell whether only the part with this id is wanted."""
        return HtmxDetails(self.request).target == target


_TABS = (
    ("overview", gettext_lazy("Overview"), Level.READER),
    ("texts", gettext_lazy("Texts"), Level.READER),
    ("search", gettext_lazy("Search"), Level.READER),
    ("map", gettext_lazy("Map"), Level.READER),
    ("schema", gettext_lazy("Schema"), Level.READER),
    ("sharing", gettext_lazy("Sharing"), Level.OWNER),
    ("resources", gettext_lazy("Resources"), Level.OWNER),
    ("settings", gettext_lazy("Settings"), Level.OWNER),
)


class ProjectPage(Page):
    """A page of one project.

    tab: which of its pages. level: what is needed to see it.
    """

    tab: ClassVar[str] = "overview"
    level: ClassVar[Level] = Level.READER
    project: Project

    def dispatch(
        self, request: HttpRequest, *args: Any, owner: str = "", handle: str = "", **kwargs: Any
    ) -> HttpResponseBase:
        """Remember which project it is about."""
        self.owner, self.handle = owner, handle
        return super().dispatch(request, *args, **kwargs)

    def _check(self, request: HttpRequest) -> None:
        super()._check(request)
        self.project = self._readable()
        if level_of(self.project) < self.level:
            if self.level == Level.EDITOR:
                said = gettext("Only editors and the owner of %(project)s may do this.")
            else:
                said = gettext("Only the owner of %(project)s and administrators may do this.")
            raise Forbidden(said % {"project": self.project})

    def _readable(self) -> Project:
        """Return the project; what one may not see looks as if it were not there."""
        try:
            return project_for(self.actor, Level.READER, owner=self.owner, handle=self.handle)
        except (Forbidden, NotFound) as error:
            raise NotFound(
                gettext("There is no project %(project)s, or nobody has shared it with you.")
                % {"project": f"{self.owner[:40]}/{self.handle[:40]}"}
            ) from error

    @property
    def where(self) -> dict[str, Any]:
        """Return what selectors and services take to find the project."""
        return {"actor": self.actor, "owner": self.owner, "handle": self.handle}

    def to(self, page: str = "overview") -> HttpResponse:
        """Return the way to another page of the project, after a form was done."""
        return HttpResponseRedirect(reverse(page, args=[self.owner, self.handle]))

    def show(
        self, template: str, context: Mapping[str, Any] | None = None, *, status: int = 200
    ) -> HttpResponse:
        """Return a page of the project, with what stands above each."""
        level = level_of(self.project)
        count_embeddings(self.project)
        tabs = [
            {"name": name, "title": title, "address": reverse(name, args=[self.owner, self.handle])}
            for name, title, needed in _TABS
            if level >= needed
        ]
        values = {"project": self.project, "level": level.word, "tabs": tabs, "tab": self.tab}
        return super().show(template, {**values, **(context or {})}, status=status)


def refuse(form: forms.Form, error: DomainError, **fields: str) -> None:
    """Let a form say what domain code said against it.

    fields: the form's name for what the error calls `body.…`, where the two differ.
    """
    placed = False
    for each in error.errors:
        name = each.location.partition(".")[2].partition("[")[0]
        name = fields.get(name, name)
        if name in form.fields:
            form.add_error(name, translated(each.message))
            placed = True
    if not placed:
        form.add_error(None, translated(error.detail))

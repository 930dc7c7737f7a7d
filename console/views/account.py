"""One's own account: profile, password, keys, sessions."""

import re
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any, ClassVar, cast
from uuid import UUID

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext, gettext_lazy, ngettext

from accounts import selectors, services, sessions
from accounts.keys import PREFIX
from accounts.models import ApiKey, Session, User
from accounts.policy import Level, account_level, require_account
from common.errors import DomainError, Invalid
from console.account_forms import NewKeyForm, NewPasswordForm, ProfileForm
from console.pages import Page, refuse
from console.words import translated
from projects.models import Project
from projects.selectors import projects_of, shared_projects

# Offered for the scope of a key; the command createkey takes any.
_MOST_PROJECTS = 500
_TABS = (
    ("account", gettext_lazy("Profile"), Level.READER),
    ("account-keys", gettext_lazy("API keys"), Level.OWNER),
    ("account-sessions", gettext_lazy("Sessions"), Level.OWNER),
)
# In this order: most browsers also claim to be others.
_BROWSERS = (("Firefox", "Firefox"), ("Edg", "Edge"), ("Chrome", "Chrome"), ("Safari", "Safari"))
_SYSTEMS = (
    ("Windows", "Windows"),
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)


class AccountPage(Page):
    """A page of one's own account.

    level: what is needed on it: a key that carries less than its account sees the profile only.
    """

    needs_account = True
    tab: ClassVar[str] = "account"
    level: ClassVar[Level] = Level.OWNER

    def _check(self, request: HttpRequest) -> None:
        super()._check(request)
        require_account(self.actor, self.level, self.user)

    @property
    def user(self) -> User:
        """Return the account."""
        return cast("User", self.actor.user)

    def show(
        self, template: str, context: Mapping[str, Any] | None = None, *, status: int = 200
    ) -> HttpResponse:
        """Return a page of the account, with what stands above each."""
        level = account_level(self.actor, self.user)
        tabs = [
            {"name": name, "title": title, "address": reverse(name)}
            for name, title, needed in _TABS
            if level >= needed
        ]
        values = {"user": self.user, "tabs": tabs, "tab": self.tab, "key": self.actor.key}
        values["may_change"] = level >= Level.OWNER
        return super().show(template, {**values, **(context or {})}, status=status)


class Account(AccountPage):
    """Profile and password."""

    level = Level.READER

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return what the account says of itself."""
        return self._forms()

    def post(self, request: HttpRequest) -> HttpResponse:
        """Change name and email address."""
        require_account(self.actor, Level.OWNER, self.user)
        form = ProfileForm(request.POST)
        if form.is_valid():
            try:
                services.update_user(
                    actor=self.actor, handle=self.user.handle, changes=form.cleaned_data
                )
            except DomainError as error:
                refuse(form, error)
                if not form.has_error("email") and error.status == 409:
                    form.add_error("email", translated(error.detail))
            else:
                messages.success(request, gettext("Saved."))
                return HttpResponseRedirect(reverse("account"))
        return self._forms(profile=form)

    def _forms(self, **given: forms.Form) -> HttpResponse:
        """Return the page, with the forms that were filled in wrongly in place of new ones."""
        user = self.user
        has_password = user.has_usable_password()
        shown = {
            "profile": ProfileForm(initial={"name": user.name, "email": user.email}),
            "password": NewPasswordForm(needs_current=has_password),
            **given,
        }
        if account_level(self.actor, user) < Level.OWNER:
            for field in shown["profile"].fields.values():
                field.disabled = True
        context = {"forms": shown, "has_password": has_password}
        status = 400 if given else 200
        return self.show("console/account/profile.html", context, status=status)


class Password(Account):
    """Another password."""

    http_method_names = ["post", "options"]
    level = Level.OWNER

    def post(self, request: HttpRequest) -> HttpResponse:
        """Set it; whoever else is signed in with this account is signed out."""
        form = NewPasswordForm(request.POST, needs_current=self.user.has_usable_password())
        if form.is_valid():
            given = form.cleaned_data
            try:
                sessions.change_password(
                    request, self.actor, current=given.get("current", ""), new=given["new"]
                )
            except Invalid as error:
                refuse(form, error)
            else:
                said = gettext("The password is changed. All other sessions have ended.")
                messages.success(request, said)
                return HttpResponseRedirect(reverse("account"))
        return self._forms(password=form)


# --- Keys -----------------------------------------------------------------------------------------
class Keys(AccountPage):
    """The keys of the account."""

    tab = "account-keys"

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the keys, and a form for another one."""
        return self._page(NewKeyForm(projects=self._projects()))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Make a key, and show it: after a redirect it would have to be stored."""
        form = NewKeyForm(request.POST, projects=self._projects())
        if not form.is_valid():
            return self._page(form, status=400)
        try:
            key = services.create_own_key(actor=self.actor, **form.scope())
        except DomainError as error:
            refuse(form, error, expires_at="last_day")
            return self._page(form, status=400)
        context = {"new_key": key, "name": form.cleaned_data["name"]}
        return self.show("console/account/new_key.html", context)

    def _projects(self) -> list[Project]:
        rows: Iterator[Project] = chain(
            projects_of(self.actor, self.user.handle), shared_projects(self.actor)
        )
        return list(islice(rows, _MOST_PROJECTS))

    def _page(self, form: NewKeyForm, *, status: int = 200) -> HttpResponse:
        keys = list(selectors.keys_of(self.user))
        context = {
            "form": form,
            "keys": [key for key in keys if key.works],
            "former": [key for key in keys if not key.works],
            "prefix": PREFIX,
        }
        return self.show("console/account/keys.html", context, status=status)


class RevokeKey(AccountPage):
    """The end of a key."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest) -> HttpResponse:
        """Revoke it at once."""
        public_id = request.POST.get("key", "")
        services.revoke_own_key(actor=self.actor, public_id=public_id)
        name = ApiKey.objects.values_list("name", flat=True).get(public_id=public_id)
        said = gettext("The key %(name)s is revoked.")
        messages.success(request, said % {"name": name or f"{PREFIX}{public_id}…"})
        return HttpResponseRedirect(reverse("account-keys"))


# --- Sessions -------------------------------------------------------------------------------------
class Sessions(AccountPage):
    """Where the account is signed in."""

    tab = "account-sessions"

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the sessions."""
        found = list(sessions.sessions_of(self.actor))
        here = request.session.session_key
        rows = [
            {"session": row, "browser": browser_of(row), "is_here": row.session_key == here}
            for row in found
        ]
        return self.show("console/account/sessions.html", {"rows": rows})


class EndSession(AccountPage):
    """The end of a session, or of all but this one."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest) -> HttpResponse:
        """End it at once."""
        chosen = request.POST.get("session", "")
        if chosen == "others":
            ended = sessions.end_other_sessions(request, self.actor)
            said = ngettext(
                "%(number)d other session has ended.",
                "%(number)d other sessions have ended.",
                ended,
            )
            messages.success(request, said % {"number": ended})
        else:
            sessions.end_session(self.actor, _session_id(chosen))
            messages.success(request, gettext("The session has ended."))
        return HttpResponseRedirect(reverse("account-sessions"))


def _session_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise Invalid(gettext("Choose one of the sessions that the page lists.")) from error


def browser_of(session: Session) -> str:
    """Return which browser a session is in, as far as it says so, as people call it."""
    agent = session.agent
    browser = next((name for sign, name in _BROWSERS if re.search(rf"{sign}\w*/", agent)), "")
    system = next((name for sign, name in _SYSTEMS if sign in agent), "")
    if browser and system:
        return gettext("%(browser)s on %(system)s") % {"browser": browser, "system": system}
    return browser or system or agent[:60] or gettext("Unknown browser")

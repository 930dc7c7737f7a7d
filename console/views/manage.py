"""For administrators: accounts, the state of the server, what is wrong, who changed what."""

from datetime import datetime, time, timedelta
from typing import Any, ClassVar
from urllib.parse import urlencode

from django import forms
from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext, gettext_lazy

from accounts import selectors as accounts
from accounts import services
from accounts.audit import KINDS, Verb, Wanted
from accounts.models import User
from accounts.policy import Level, require_admin
from common import doctor
from common.doctor import Severity
from common.errors import DomainError, Forbidden, NotFound
from common.pagination import page_of
from console import system
from console.forms import (
    AccessForm,
    AccountForm,
    AuditForm,
    DeleteAccountForm,
    NewPasswordForm,
)
from console.pages import Page, ProjectPage, refuse
from console.words import translated
from embeddings.selectors import sanity_report
from projects.models import Project
from projects.selectors import audit_log_of, grouped_in, with_counts

_ON_A_PAGE = 50
# What is wrong in one way is mostly wrong in many rows.
_MOST_REMARKS = 500

_TABS = (
    ("manage", gettext_lazy("System")),
    ("manage-doctor", gettext_lazy("Doctor")),
    ("manage-accounts", gettext_lazy("Accounts")),
    ("manage-sanity", gettext_lazy("Sanity check")),
    ("manage-audit", gettext_lazy("Audit log")),
)


class AdminPage(Page):
    """A page for administrators; tab: which of them."""

    needs_account = True
    tab: ClassVar[str] = "manage"

    def _check(self, request: HttpRequest) -> None:
        super()._check(request)
        try:
            require_admin(self.actor)
        except Forbidden as refusal:
            raise Forbidden(gettext("Only administrators see this page.")) from refusal

    def show(self, template: str, context: Any = None, *, status: int = 200) -> HttpResponse:
        """Return a page with the names of the others above it."""
        tabs = [{"name": name, "title": title, "address": reverse(name)} for name, title in _TABS]
        values = {"tabs": tabs, "tab": self.tab, **(context or {})}
        return super().show(template, values, status=status)


class Manage(AdminPage):
    """What the server is and how large."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return versions, sizes, the worker and the keys."""
        return self.show("console/manage/system.html", {"system": system.look()})


class Doctor(AdminPage):
    """What is wrong with the server."""

    tab = "manage-doctor"
    parameters = frozenset({"run"})

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return what the examination is; examine when asked to, since it asks every part."""
        if request.GET.get("run") != "yes":
            return self.show("console/manage/doctor.html")
        examined = doctor.examine()
        counts = {each.value: sum(one.severity is each for one in examined) for each in Severity}
        return self.show("console/manage/doctor.html", {"examined": examined, "counts": counts})


class Sanity(AdminPage):
    """Stored data that would be refused today."""

    tab = "manage-sanity"
    parameters = frozenset({"run"})

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return what the check is; run it when asked to, since it reads all metadata."""
        report = sanity_report(self.actor) if request.GET.get("run") == "yes" else None
        context: dict[str, Any] = {"report": report, "most": _MOST_REMARKS}
        if report is not None:
            context |= {"wrong": report.wrong[:_MOST_REMARKS], "odd": report.odd[:_MOST_REMARKS]}
        return self.show("console/manage/sanity.html", context)


# --- Accounts -------------------------------------------------------------------------------------
class Accounts(AdminPage):
    """All accounts."""

    tab = "manage-accounts"
    parameters = frozenset({"q", "from"})

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the accounts in the order of their handles."""
        words = request.GET.get("q", "").replace("\x00", "").strip()[:100]
        working = Q(api_keys__revoked_at__isnull=True) & (
            Q(api_keys__expires_at__isnull=True) | Q(api_keys__expires_at__gt=timezone.now())
        )
        rows = accounts.all_users(self.actor)
        if words:
            rows = rows.filter(
                Q(handle__icontains=words) | Q(name__icontains=words) | Q(email__icontains=words)
            )
        counted = rows.annotate(
            number_of_projects=Count("projects", distinct=True),
            number_of_keys=Count("api_keys", filter=working, distinct=True),
        )
        page = page_of(counted, limit=_ON_A_PAGE, offset=_first(request))
        context = {"page": page, "found": words, **_paging(request, page)}
        return self.show("console/manage/accounts.html", context)


class NewAccount(AdminPage):
    """A form for a new account."""

    tab = "manage-accounts"

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the empty form."""
        return self._form(AccountForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        """Create the account, and show its first key, this once."""
        form = AccountForm(request.POST)
        if form.is_valid():
            given = form.cleaned_data
            try:
                made = services.create_user(
                    actor=self.actor,
                    handle=given["handle"],
                    name=given["name"],
                    email=given["email"] or None,
                    password=given["password"] or None,
                    is_superuser=given["is_admin"],
                )
            except DomainError as error:
                refuse(form, error, user_handle="handle")
                if not form.has_error("handle") and error.status == 409:
                    form.add_error("handle", translated(error.detail))
            else:
                context = {"about": made.user, "api_key": made.api_key}
                return self.show("console/manage/new_key.html", context)
        return self._form(form, status=400)

    def _form(self, form: AccountForm, *, status: int = 200) -> HttpResponse:
        return self.show("console/manage/new_account.html", {"form": form}, status=status)


class Account(AdminPage):
    """One account: its rights, its password, its end."""

    tab = "manage-accounts"
    user: User

    def dispatch(self, request: HttpRequest, *args: Any, user: str = "", **kwargs: Any) -> Any:
        """Remember whom it is about."""
        self.handle = user
        return super().dispatch(request, *args, **kwargs)

    def _check(self, request: HttpRequest) -> None:
        super()._check(request)
        self.user = accounts.user_named(self.handle)
        if self.user.is_system and request.method == "POST":
            raise Forbidden(gettext("The account of the program itself cannot be changed."))

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return what it has and may, and the forms."""
        return self._forms()

    def _forms(self, **given: forms.Form) -> HttpResponse:
        user = self.user
        owned = Project.objects.filter(owner=user)
        texts = sum(each.number_of_embeddings for each in with_counts(owned))  # type: ignore[attr-defined]
        resources = {
            str(model._meta.verbose_name_plural): count
            for model, count in grouped_in(owned).items()
            if count
        }
        shown: dict[str, Any] = {
            "password": NewPasswordForm(user=user),
            "delete": DeleteAccountForm(handle=user.handle),
            **given,
        }
        context = {
            "about": user,
            "is_self": self.actor.user is not None and self.actor.user.pk == user.pk,
            "forms": shown,
            "projects": owned.count(),
            "texts": texts,
            "services": user.instances.count(),
            "keys": sum(key.works for key in accounts.keys_of(user)),
            "resources": resources,
        }
        return self.show("console/manage/account.html", context, status=400 if given else 200)

    def _back(self, said: str) -> HttpResponse:
        messages.success(self.request, said)
        return HttpResponseRedirect(reverse("manage-account", args=[self.handle]))


class AccountAccess(Account):
    """What an account may do on this server."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest) -> HttpResponse:
        """Give or take rights."""
        form = AccessForm(request.POST)
        if not form.is_valid():
            raise NotFound(gettext("The page has no such button; load it again."))
        try:
            services.set_access(
                actor=self.actor, handle=self.handle, changes=form.cleaned_data["change"]
            )
        except DomainError as refusal:
            messages.error(request, translated(refusal.detail))
            return HttpResponseRedirect(reverse("manage-account", args=[self.handle]))
        return self._back(gettext("The rights of %(user)s are changed.") % {"user": self.handle})


class AccountPassword(Account):
    """What an account signs in with."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest) -> HttpResponse:
        """Set it, or none; sessions opened with the old one end."""
        if "none" in request.POST:
            services.set_password(actor=self.actor, handle=self.handle, password=None)
            return self._back(gettext("The account works through its keys only now."))
        form = NewPasswordForm(request.POST, user=self.user)
        if form.is_valid():
            password = form.cleaned_data["password"]
            services.set_password(actor=self.actor, handle=self.handle, password=password)
            return self._back(gettext("The password is set; its sessions have ended."))
        return self._forms(password=form)


class AccountDeletion(Account):
    """The end of an account."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest) -> HttpResponse:
        """Delete it with all it owns."""
        form = DeleteAccountForm(request.POST, handle=self.handle)
        if form.is_valid():
            if self.actor.user is not None and self.actor.user.pk == self.user.pk:
                form.add_error(None, gettext("Another administrator has to delete your account."))
                return self._forms(delete=form)
            try:
                services.delete_user(actor=self.actor, handle=self.handle)
            except DomainError as error:
                form.add_error(None, translated(error.detail))
            else:
                said = gettext("%(user)s is deleted.") % {"user": self.handle}
                messages.success(request, said)
                return HttpResponseRedirect(reverse("manage-accounts"))
        return self._forms(delete=form)


# --- The audit log --------------------------------------------------------------------------------
class AuditLog(AdminPage):
    """Who changed what on the server."""

    tab = "manage-audit"
    parameters = frozenset({"verb", "kind", "account", "since", "until", "from"})

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the entries that the form asks for, the newest first."""
        form, wanted = _wanted(request)
        page = page_of(
            accounts.audit_log(self.actor, wanted), limit=_ON_A_PAGE, offset=_first(request)
        )
        context = {"form": form, "entries": page.items, "page": page, **_paging(request, page)}
        status = 400 if form.errors else 200
        return self.show("console/manage/audit_log.html", context, status=status)


class ProjectAuditLog(ProjectPage):
    """Who changed what about a project; for its owners."""

    tab = "sharing"
    level = Level.OWNER
    parameters = frozenset({"verb", "account", "since", "until", "from"})

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the entries that the form asks for, the newest first."""
        form, wanted = _wanted(request)
        del form.fields["kind"]
        rows = audit_log_of(self.project, wanted)
        page = page_of(rows, limit=_ON_A_PAGE, offset=_first(request))
        context = {"form": form, "entries": page.items, "page": page, **_paging(request, page)}
        status = 400 if form.errors else 200
        return self.show("console/project/audit_log.html", context, status=status)


def _wanted(request: HttpRequest) -> tuple[AuditForm, Wanted]:
    """Return the form as it was filled in, and which entries it asks for."""
    form = AuditForm(
        request.GET,
        verbs=[each.value for each in Verb],
        kinds=sorted({*KINDS.values(), "embeddings", "reembedding", "search_index", "server"}),
    )
    form.is_valid()
    given = getattr(form, "cleaned_data", {})
    return form, Wanted(
        verb=given.get("verb") or None,
        kind=given.get("kind") or None,
        account=given.get("account") or None,
        since=_midnight(given.get("since")),
        until=_midnight(given.get("until"), days=1),
    )


def _midnight(day: Any, *, days: int = 0) -> datetime | None:
    """Return when a day begins, or how many days later, in the server's time."""
    if day is None:
        return None
    began = timezone.make_aware(datetime.combine(day, time.min))
    return began + timedelta(days=days)


# --- Parts of lists -------------------------------------------------------------------------------
def _first(request: HttpRequest) -> int:
    """Return from which entry on a list is shown; the first where the address makes no sense."""
    text = request.GET.get("from", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _paging(request: HttpRequest, page: Any) -> dict[str, str]:
    """Return the addresses of the parts before and after, "" where there is none."""
    kept = [(name, value) for name, value in request.GET.items() if name != "from" and value]
    before = max(0, page.offset - page.limit)
    return {
        "earlier": _query([*kept, ("from", before)] if before else kept) if page.offset else "",
        "later": _query([*kept, ("from", page.offset + page.limit)]) if page.has_more else "",
    }


def _query(pairs: list[tuple[str, Any]]) -> str:
    return f"?{urlencode(pairs)}"

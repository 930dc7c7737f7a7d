"""What a project is, who it is shared with, and its end."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext

from accounts.audit import Wanted
from accounts.models import Role
from accounts.policy import Level
from common.errors import DomainError, Invalid
from console.forms import DeleteForm, DescriptionForm, ShareForm, TransferForm
from console.pages import ProjectPage, refuse
from console.snippets import search_snippets, upload_snippets
from console.words import translated
from embeddings import indexes, selectors
from projects import services
from projects.models import ProjectShare
from projects.selectors import audit_log_of
from projects.services import EVERYBODY, OnResources
from resources.selectors import counts_of

# Of the audit log; all are on a page of their own.
_LAST_ENTRIES = 5


def to_overview(request: HttpRequest, owner: str, handle: str) -> HttpResponse:
    """Lead to the address of a project with the slash that its pages' addresses go on from."""
    return HttpResponseRedirect(reverse("overview", args=[owner, handle]))


class Overview(ProjectPage):
    """The first page of a project."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return what it is, how large, who sees it, whether it is well, and how to use it."""
        server = request.build_absolute_uri("/").rstrip("/")
        first = selectors.embeddings_of(**self.where, limit=1, after="").rows()
        if first:
            snippets = search_snippets(server, self.project, first[0].text_id)
        else:
            snippets = upload_snippets(server, self.project)
        context = {
            "report": indexes.report_of(self.project),
            "snippets": snippets,
            "first": first[0].text_id if first else None,
        }
        return self.show("console/project/overview.html", context)


class Sharing(ProjectPage):
    """Who may read and edit."""

    tab = "sharing"
    level = Level.OWNER

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the grants, and a form for another one."""
        return self._form(ShareForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        """Give somebody a role, or another one than they had."""
        form = ShareForm(request.POST)
        if form.is_valid():
            user, role = form.cleaned_data["user"], Role(form.cleaned_data["role"])
            try:
                services.share_project(**self.where, user=user, role=role)
            except DomainError as error:
                refuse(form, error, share_with_handle="user")
            else:
                said = gettext("%(user)s is now %(role)s of this project.")
                role_word = {Role.READER: gettext("reader"), Role.EDITOR: gettext("editor")}[role]
                messages.success(request, said % {"user": user, "role": role_word})
                return self.to("sharing")
        return self._form(form, status=400)

    def _form(self, form: ShareForm, *, status: int = 200) -> HttpResponse:
        entries = audit_log_of(self.project, Wanted())[:_LAST_ENTRIES]
        context = {"form": form, "shares": ProjectShare.of(self.project), "entries": entries}
        return self.show("console/project/sharing.html", context, status=status)


class Unshare(ProjectPage):
    """Taking a role back."""

    http_method_names = ["post", "options"]
    level = Level.OWNER

    def post(self, request: HttpRequest) -> HttpResponse:
        """Take it back at once."""
        user = request.POST.get("user", "")
        if user == EVERYBODY:
            raise Invalid("To stop sharing with everybody, make the project private.")
        services.unshare_project(**self.where, user=user)
        messages.success(request, gettext("%(user)s has no access any more.") % {"user": user})
        return self.to("sharing")


class Public(ProjectPage):
    """Whether everybody may read."""

    http_method_names = ["post", "options"]
    level = Level.OWNER

    def post(self, request: HttpRequest) -> HttpResponse:
        """Make the project public or private."""
        wanted = request.POST.get("public") == "yes"
        if wanted:
            services.share_project(**self.where, user=EVERYBODY, role=Role.READER)
            messages.success(request, gettext("Everybody can read and search this project now."))
        else:
            if self.project.public_read:
                services.unshare_project(**self.where, user=EVERYBODY)
            messages.success(request, gettext("This project is private now."))
        return self.to("sharing")


class Settings(ProjectPage):
    """What can be changed about a project."""

    tab = "settings"
    level = Level.OWNER

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the forms."""
        return self._forms()

    def post(self, request: HttpRequest) -> HttpResponse:
        """Change the description."""
        form = DescriptionForm(request.POST)
        if form.is_valid():
            services.update_project(**self.where, changes=form.cleaned_data)
            messages.success(request, gettext("Saved."))
            return self.to("settings")
        return self._forms(description=form)

    def _forms(self, **given: forms.Form) -> HttpResponse:
        """Return the page, with the forms that were filled in wrongly in place of new ones."""
        handle, project = self.handle, self.project
        resources = {name: count for name, count in counts_of(project).items() if count}
        shown: dict[str, Any] = {
            "description": DescriptionForm(initial={"description": project.description}),
            "transfer": TransferForm(handle=handle),
            "delete": DeleteForm(handle=handle, initial={"on_resources": OnResources.MOVE.value}),
            **given,
        }
        context = {
            "forms": shown,
            "resources": resources,
            "shares": ProjectShare.objects.filter(subject=project).count(),
            "keys": project.api_keys.count(),
        }
        status = 400 if given else 200
        return self.show("console/project/settings.html", context, status=status)


class Transfer(Settings):
    """Giving a project to somebody else."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest) -> HttpResponse:
        """Give it away; who did so has no access left."""
        form = TransferForm(request.POST, handle=self.handle)
        if form.is_valid():
            receiver = form.cleaned_data["new_owner"]
            try:
                services.transfer_project(**self.where, new_owner=receiver)
            except DomainError as error:
                if error.errors or error.status == 404:
                    form.add_error("new_owner", translated(error.detail))
                else:
                    form.add_error(None, translated(error.detail))
            else:
                said = gettext("%(project)s belongs to %(user)s now.")
                messages.success(request, said % {"project": self.handle, "user": receiver})
                return HttpResponseRedirect(reverse("projects"))
        return self._forms(transfer=form)


class Delete(Settings):
    """Deleting a project."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest) -> HttpResponse:
        """Delete it with all that is in it."""
        form = DeleteForm(request.POST, handle=self.handle)
        if form.is_valid():
            chosen = OnResources(form.cleaned_data["on_resources"] or OnResources.RESTRICT)
            try:
                services.delete_project(**self.where, on_resources=chosen)
            except DomainError as error:
                form.add_error(None, translated(error.detail))
            else:
                said = gettext("%(project)s is deleted.") % {"project": self.handle}
                messages.success(request, said)
                return HttpResponseRedirect(reverse("projects"))
        return self._forms(delete=form)

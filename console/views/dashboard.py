"""All projects of somebody, and a new one."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext

from accounts.policy import Level, require_account
from common.errors import DomainError
from console import selectors, work
from console.forms import ProjectForm
from console.pages import Page, refuse
from console.words import translated
from projects.services import create_project


class Projects(Page):
    """The dashboard."""

    parameters = frozenset({"q"})

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the projects: one's own, those shared with one, the public ones."""
        words = request.GET.get("q", "").replace("\x00", "").strip()[:200]
        context = {
            "shelves": selectors.shelves_of(self.actor, words),
            "words": words,
            "may_create": selectors.may_create_projects(self.actor),
            "most": selectors.MOST_PROJECTS,
        }
        if self.is_partial("shelves"):
            return self.show("console/parts/shelves.html", context)
        if not self.actor.is_anonymous:
            context["under_way"] = work.under_way_for(self.actor)
        return self.show("console/projects.html", context)


class NewProject(Page):
    """A form for a new project."""

    needs_account = True

    def _check(self, request: HttpRequest) -> None:
        super()._check(request)
        if self.actor.user is not None:
            require_account(self.actor, Level.OWNER, self.actor.user)

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the empty form."""
        return self._form(ProjectForm(instances=selectors.instances_for(self.actor)))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Create the project and go on to its first texts."""
        form = ProjectForm(request.POST, instances=selectors.instances_for(self.actor))
        if form.is_valid():
            given = form.cleaned_data
            instance = form.instances[given["instance"]]
            try:
                project = create_project(
                    actor=self.actor,
                    owner=self.owner,
                    handle=given["handle"],
                    values={
                        "description": given["description"],
                        "instance_owner": instance.owner.handle,
                        "instance_handle": instance.handle,
                        "metadataScheme": given["schema"] or None,
                    },
                )
            except DomainError as error:
                names = {"project_handle": "handle", "instance_handle": "instance"}
                refuse(form, error, metadataScheme="schema", **names)
                if not form.has_error("handle") and error.status == 409:
                    form.add_error("handle", translated(error.detail))
            else:
                messages.success(request, gettext("Project created. Now bring its first texts."))
                return HttpResponseRedirect(
                    reverse("upload", args=[project.owner.handle, project.handle])
                )
        return self._form(form, status=400)

    @property
    def owner(self) -> str:
        """Return who will own it."""
        return "" if self.actor.user is None else self.actor.user.handle

    def _form(self, form: ProjectForm, *, status: int = 200) -> HttpResponse:
        server = self.request.build_absolute_uri("/")
        context = {"form": form, "instances": form.instances, "address": f"{server}p/{self.owner}/"}
        return self.show("console/new_project.html", context, status=status)

"""What a project groups besides texts: agents, users and files.

They are the owner's, whoever the project is shared with.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.db.models import Q
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.translation import gettext, gettext_lazy

from accounts.policy import Level, Reach, reach_of
from common.errors import DomainError, Invalid, NotFound
from common.pagination import cursor_after, key_of
from console.pages import ProjectPage, refuse
from console.resource_forms import FORMS, NEW_FORMS, ResourceForm, initial_of
from projects.selectors import projects_of
from resources import services
from resources.models import Agent, EndUser, File, ProjectResource
from resources.selectors import KINDS_BY_NAME, counts_of, open_content, resources_of

PAGE = 50
_TITLES = {
    "agents": gettext_lazy("Agents"),
    "users": gettext_lazy("Users"),
    "files": gettext_lazy("Files"),
}
_NEW = {
    Agent: gettext_lazy("New agent"),
    EndUser: gettext_lazy("New user"),
    File: gettext_lazy("Upload a file"),
}


class ResourcePage(ProjectPage):
    """A page about what is in a project.

    needed: the level that is needed on it: a key that carries less than its account may only look.
    """

    tab = "resources"
    needed = Level.READER
    reach: Reach

    def _check(self, request: HttpRequest) -> None:
        super()._check(request)
        self.reach = reach_of(self.actor, self.project.owner)
        self.reach.require(self.needed, gettext("Changing this"))

    def show(
        self, template: str, context: Mapping[str, Any] | None = None, *, status: int = 200
    ) -> HttpResponse:
        """Return the page, with whether anything can be changed on it."""
        values = {"may_change": self.reach.level >= Level.EDITOR, **(context or {})}
        return super().show(template, values, status=status)

    def kind_of(self, name: str) -> type[ProjectResource]:
        """Return the kind that an address names; raise NotFound."""
        kind = KINDS_BY_NAME.get(name)
        if kind is None:
            raise NotFound(gettext("A project holds agents, users and files."))
        return kind

    def found(self, name: str, uuid: UUID) -> ProjectResource:
        """Return what an address names; raise NotFound for what is not in this project."""
        kind = self.kind_of(name)
        rows = resources_of(self.actor, kind, project=self.project.handle, owner=self.project.owner)
        row = rows.filter(uuid=uuid).first()
        if row is None:
            raise NotFound(
                gettext("Nothing of this id is in %(project)s: it may have been moved or deleted.")
                % {"project": self.project}
            )
        return row

    def to_list(self, name: str) -> HttpResponse:
        """Return the way back to the list of a kind."""
        address = reverse("resources", args=[self.owner, self.handle])
        return HttpResponseRedirect(f"{address}?{urlencode({'kind': name})}")


class Resources(ResourcePage):
    """The agents, users or files of a project, the newest first."""

    parameters = frozenset({"kind", "after"})

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return a page of one kind, and how many there are of each."""
        counts = counts_of(self.project)
        # The first kind of which there is something, unless the address names one.
        first = next((name for name, count in counts.items() if count), "agents")
        name = request.GET.get("kind") or first
        kind = self.kind_of(name)
        rows = resources_of(
            self.actor, kind, project=self.project.handle, owner=self.project.owner
        ).order_by("-created_at", "-uuid")
        cursor = request.GET.get("after")
        if cursor is not None:
            created_at, uuid = _place(cursor)
            rows = rows.filter(
                Q(created_at__lt=created_at) | Q(created_at=created_at, uuid__lt=uuid)
            )
        listed = list(rows[: PAGE + 1])
        following = None
        if len(listed) > PAGE:
            last = listed[PAGE - 1]
            place = cursor_after(f"{last.created_at.isoformat()} {last.uuid}")
            following = f"?{urlencode({'kind': name, 'after': place})}"
        context = {
            "kind": name,
            "kinds": [
                {"name": each, "title": title, "count": counts[each]}
                for each, title in _TITLES.items()
            ],
            "rows": listed[:PAGE],
            "next": following,
            "first": f"?{urlencode({'kind': name})}" if cursor is not None else None,
        }
        return self.show("console/project/resources/list.html", context)


def _place(cursor: str) -> tuple[datetime, UUID]:
    """Return where a page of a list ended; raise Invalid."""
    moment, _, uuid = key_of(cursor).partition(" ")
    try:
        return datetime.fromisoformat(moment), UUID(uuid)
    except ValueError as error:
        raise Invalid(gettext("This address leads nowhere; begin with the first page.")) from error


class NewResource(ResourcePage):
    """A new agent, user or file."""

    needed = Level.EDITOR

    def get(self, request: HttpRequest, kind: str) -> HttpResponse:
        """Return the empty form."""
        return self._page(kind, NEW_FORMS[self.kind_of(kind)]())

    def post(self, request: HttpRequest, kind: str) -> HttpResponse:
        """Create it in this project."""
        model = self.kind_of(kind)
        form = NEW_FORMS[model](request.POST, request.FILES)
        if form.is_valid():
            values = {**form.values(), "project": self.project.handle}
            content = values.pop("content", None)
            asked: dict[str, Any] = {"actor": self.actor, "owner": self.project.owner}
            try:
                if model is File:
                    services.create_file(**asked, values=values, content=content)
                else:
                    services.create_resource(model, **asked, values=values)
            except DomainError as error:
                refuse(form, error)
            else:
                messages.success(request, gettext("Created."))
                return self.to_list(kind)
        return self._page(kind, form, status=400)

    def _page(self, kind: str, form: ResourceForm, *, status: int = 200) -> HttpResponse:
        context = {
            "kind": kind,
            "title": _NEW[self.kind_of(kind)],
            "kind_title": _TITLES[kind],
            "form": form,
        }
        return self.show("console/project/resources/new.html", context, status=status)


class OneResource(ResourcePage):
    """One agent, user or file."""

    def get(self, request: HttpRequest, kind: str, uuid: UUID) -> HttpResponse:
        """Return all that is stored of it, as a form."""
        row = self.found(kind, uuid)
        return self._page(kind, row, self._form(row, initial=initial_of(row)))

    def post(self, request: HttpRequest, kind: str, uuid: UUID) -> HttpResponse:
        """Change it, or move it to another project of its owner."""
        self.reach.require(Level.EDITOR, gettext("Changing this"))
        row = self.found(kind, uuid)
        form = self._form(row, request.POST)
        if form.is_valid():
            changes = form.values()
            if changes["project"] == row.project.handle:
                del changes["project"]
            try:
                services.update_resource(
                    type(row),
                    actor=self.actor,
                    owner=self.project.owner,
                    uuid=uuid,
                    changes=changes,
                    merge=False,
                )
            except DomainError as error:
                refuse(form, error)
            else:
                messages.success(request, gettext("Saved."))
                return self.to_list(kind)
        return self._page(kind, row, form, status=400)

    def _form(self, row: ProjectResource, *given: Any, **options: Any) -> Any:
        reached = projects_of(self.actor, self.project.owner.handle)
        form = FORMS[type(row)](*given, projects=[each.handle for each in reached], **options)
        if self.reach.level < Level.EDITOR:
            for field in form.fields.values():
                field.disabled = True
        return form

    def _page(
        self, kind: str, row: ProjectResource, form: Any, *, status: int = 200
    ) -> HttpResponse:
        context = {"kind": kind, "kind_title": _TITLES[kind], "row": row, "form": form}
        return self.show("console/project/resources/one.html", context, status=status)


class DeleteResource(ResourcePage):
    """The end of an agent, user or file."""

    http_method_names = ["post", "options"]
    needed = Level.EDITOR

    def post(self, request: HttpRequest, kind: str, uuid: UUID) -> HttpResponse:
        """Delete it, a file with its bytes."""
        row = self.found(kind, uuid)
        services.delete_resource(
            type(row), actor=self.actor, owner=self.project.owner, uuid=row.uuid
        )
        name = getattr(row, "name", "") or row.uuid
        messages.success(request, gettext("%(name)s is deleted.") % {"name": name})
        return self.to_list(kind)


class Download(ResourcePage):
    """The bytes of a file, to be saved and never to be shown."""

    def get(self, request: HttpRequest, uuid: UUID) -> HttpResponseBase:
        """Send them, under the file's name."""
        file: Any = self.found("files", uuid)
        return FileResponse(
            open_content(file),
            as_attachment=True,
            filename=_file_name(file.name),
            content_type="application/octet-stream",
        )


def _file_name(name: str) -> str:
    """Return a file's name as a header can hold it and nobody is deceived by it."""
    return "".join(each if each.isprintable() and each not in "/\\" else "_" for each in name)

"""Administration of agents, end users and files: what projects group besides embeddings."""

from mimetypes import guess_type
from typing import Any, TypeVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import model_ngettext, unquote
from django.contrib.admin.widgets import AdminTextareaWidget
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path, reverse
from django.utils.formats import date_format
from django.views.decorators.http import require_safe

from accounts.admin import actor_of
from accounts.models import User
from common.admin import (
    CompletingFilter,
    JsonText,
    ServiceForm,
    Verbatim,
)
from common.errors import Conflict
from projects.admin import AboutProjectAdmin, ProjectFilter, ProjectOf
from projects.models import Project
from resources import services
from resources.api.serializers import AgentIn, EndUserIn, FileChangeIn
from resources.models import Agent, EndUser, File, ProjectResource
from resources.selectors import ContentMissing, open_content

R = TypeVar("R", bound=ProjectResource)

# The line may break before the time only.
_MOMENT = "j\N{NO-BREAK SPACE}M\N{NO-BREAK SPACE}Y H:i"
_IDENTITY = ("uuid", "owner", "created_at", "updated_at")


# --- What the three have in common ----------------------------------------------------------------
class ResourceForm(ServiceForm[R]):
    """Something that is in a project, and moves between those of its owner."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for field in self.fields.values():
            if isinstance(field, forms.CharField):
                # The API keeps texts as they are, so saving them again must not change them.
                field.strip = False
        if "project" in self.fields and self.instance.pk is not None:
            self.fields["project"] = ProjectOf(self.instance.owner)


class MoveForm(forms.Form):
    """Asks where to move rows of one owner."""

    def __init__(self, owner: User, data: Any = None) -> None:
        super().__init__(data)
        self.fields["project"] = ProjectOf(owner)


class ResourceAdmin(AboutProjectAdmin[R]):
    """Lists that agents, end users and files share. Owners follow from projects."""

    list_filter = [("project", ProjectFilter), ("owner", CompletingFilter)]
    list_select_related = ["owner", "project__owner"]
    # As they were created, by an index.
    ordering = ["-pk"]
    search_fields = ["name", "uuid", "owner__handle", "project__handle"]
    search_help_text = "A part of a name, an id, an owner's or a project's handle."
    date_hierarchy = "created_at"
    show_facets = admin.ShowFacets.NEVER
    autocomplete_fields = ["project"]
    readonly_fields = [*_IDENTITY]
    actions = ["move"]

    @admin.display(description="Project", ordering="project__handle")
    def in_project(self, row: R) -> str:
        """Return the project's own name: the owner has a column."""
        return row.project.handle

    @admin.display(description="Created", ordering="created_at")
    def created(self, row: R) -> str:
        """Return the moment, shorter than Django would."""
        return date_format(row.created_at, _MOMENT)

    @admin.display(description="Changed", ordering="updated_at")
    def changed(self, row: R) -> str:
        """Return the moment as `created` does."""
        return date_format(row.updated_at, _MOMENT)

    def get_fieldsets(self, request: HttpRequest, obj: R | None = None) -> Any:
        """Leave out the identity of what is not there yet."""
        fieldsets = super().get_fieldsets(request, obj)
        return [each for each in fieldsets if obj is not None or each[0] != "Identity"]

    def create(self, request: HttpRequest, form: Any) -> R:
        """Create it in the chosen project."""
        project: Project = form.cleaned_data["project"]
        return services.create_resource(
            self.model,
            actor=actor_of(request),
            owner=project.owner,
            values=_with_project_named(form.cleaned_data),
        )

    def change(self, request: HttpRequest, row: R, form: Any) -> R:
        """Change it; metadata becomes what the form shows."""
        changes = form.changes()
        if not changes:
            return row
        return services.update_resource(
            self.model,
            actor=actor_of(request),
            owner=row.owner,
            uuid=row.uuid,
            changes=_with_project_named(changes),
            merge=False,
        )

    def remove(self, request: HttpRequest, row: R) -> None:
        """Delete it."""
        services.delete_resource(
            self.model, actor=actor_of(request), owner=row.owner, uuid=row.uuid
        )

    @admin.action(
        description="Move selected %(verbose_name_plural)s to another project",
        permissions=["change"],
    )
    def move(self, request: HttpRequest, queryset: QuerySet[R]) -> HttpResponse | None:
        """Name the rows and ask for a project; then move them, all or none."""
        rows = self.chosen(queryset, "Move")
        owners = {row.owner for row in rows}
        if not owners:
            raise Conflict(f"These {self.opts.verbose_name_plural} are not there any more.")
        if len(owners) > 1:
            handles = ", ".join(sorted(owner.handle for owner in owners))
            raise Conflict(f"Choose rows of one owner; these belong to {handles}.")
        form = MoveForm(owners.pop(), request.POST if "post" in request.POST else None)
        if form.is_valid():
            self._move(request, rows, form.cleaned_data["project"])
            return None
        return self.ask(
            request,
            action="move",
            title=f"Move {model_ngettext(self.opts)}",
            question="Choose another project of the same owner. All of these move there, or none.",
            yes="Move",
            rows={row.pk: f"{row} in {row.project}" for row in rows},
            form=form,
        )

    def _move(self, request: HttpRequest, rows: list[R], target: Project) -> None:
        moving = [row for row in rows if row.project_id != target.pk]
        for source in {row.project for row in moving}:
            services.move_resources(
                self.model,
                actor=actor_of(request),
                owner=target.owner,
                source=source.handle,
                target=target.handle,
                uuids=[row.uuid for row in moving if row.project == source],
            )
        for row in moving:
            self.log_change(request, row, f"Moved from {row.project} to {target}.")
        moved = f"{len(moving)} {model_ngettext(self.opts, len(moving))} moved to {target}."
        self.message_user(request, moved, messages.SUCCESS)


def _with_project_named(given: dict[str, Any]) -> dict[str, Any]:
    """Return the values as the services take them."""
    return {
        name: value.handle if isinstance(value, Project) else value for name, value in given.items()
    }


def _of_one_line() -> AdminTextareaWidget:
    """Return a field that keeps line breaks, which the usual one would remove unasked."""
    return AdminTextareaWidget(attrs={"rows": 1})


# --- Agents ---------------------------------------------------------------------------------------
class AgentForm(ResourceForm[Agent]):
    """An agent."""

    shape = AgentIn

    instructions = JsonText(
        empty=list,
        help_text='A JSON list of texts, such as ["Be brief.", "Answer in English."].',
    )

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if "canonical_name" in self.fields and self.instance.pk is None:
            name = self.fields["canonical_name"]
            name.required, name.help_text = False, "Empty: made from the name."


@admin.register(Agent)
class AgentAdmin(ResourceAdmin[Agent]):
    """Agents."""

    form = AgentForm
    list_display = ["name", "canonical_name", "owner", "in_project", "created", "changed"]
    search_fields = ["canonical_name", *ResourceAdmin.search_fields]
    fieldsets = [
        (None, {"fields": ["project", "name", "canonical_name"]}),
        (
            "What it is told",
            {"fields": ["about", "instructions", "default_system_template"]},
        ),
        ("Model", {"fields": ["model", "default_settings"]}),
        ("Metadata", {"fields": ["metadata"]}),
        ("Identity", {"fields": _IDENTITY}),
    ]

    def create(self, request: HttpRequest, form: Any) -> Agent:
        """Create the agent; without a canonical name, it gets one."""
        form.cleaned_data["canonical_name"] = form.cleaned_data["canonical_name"] or None
        return super().create(request, form)


# --- End users ------------------------------------------------------------------------------------
class EndUserForm(ResourceForm[EndUser]):
    """An end user."""

    shape = EndUserIn

    name = Verbatim(max_length=120, required=False, widget=_of_one_line())


@admin.register(EndUser)
class EndUserAdmin(ResourceAdmin[EndUser]):
    """End users: who talks to agents, not who signs in here."""

    form = EndUserForm
    list_display = ["name_or_id", "owner", "in_project", "created", "changed"]
    fieldsets = [
        (None, {"fields": ["project", "name", "about"]}),
        ("Metadata", {"fields": ["metadata"]}),
        ("Identity", {"fields": _IDENTITY}),
    ]

    @admin.display(description="Name", ordering="name")
    def name_or_id(self, user: EndUser) -> str:
        """Return the name, which may be empty and still has to lead to the page."""
        return str(user)


# --- Files ----------------------------------------------------------------------------------------
class FileForm(ResourceForm[File]):
    """A file; its content never changes."""

    shape = FileChangeIn

    name = Verbatim(max_length=120, widget=_of_one_line())

    class Meta:
        labels = {"mime_type": "Media type"}


class NewFileForm(FileForm):
    """A file and its content."""

    upload = forms.FileField(label="File")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        name, media_type = self.fields["name"], self.fields["mime_type"]
        name.required, name.help_text = False, "Empty: as the file is called."
        media_type.help_text = "Empty: what the end of the name stands for."

    def clean(self) -> dict[str, Any]:
        """Return what was entered, completed by what the file tells."""
        given = super().clean()
        upload = given.get("upload")
        if upload is not None and not self.errors:
            given["name"] = given["name"] or upload.name
            given["mime_type"] = given["mime_type"] or guess_type(given["name"])[0]
        return given


@admin.register(File)
class FileAdmin(ResourceAdmin[File]):
    """Files. Their content is only ever downloaded: nothing that people upload is shown here."""

    form = FileForm
    list_display = [
        "name",
        "media_type",
        "shown_size",
        "owner",
        "in_project",
        "created",
        "changed",
    ]
    readonly_fields = ["shown_size", "sha256", *_IDENTITY]
    add_fieldsets = [
        (None, {"fields": ["project", "upload", "name", "description", "mime_type"]}),
    ]
    fieldsets = [
        (None, {"fields": ["project", "name", "description", "mime_type"]}),
        (
            "Content",
            {
                "fields": ["shown_size", "sha256"],
                "description": "It cannot be changed; upload a new file instead.",
            },
        ),
        ("Identity", {"fields": _IDENTITY}),
    ]

    @admin.display(description="Media type", ordering="mime_type", empty_value="")
    def media_type(self, file: File) -> str | None:
        """Return the media type under the name that people know."""
        return file.mime_type

    @admin.display(description="Size", ordering="size")
    def shown_size(self, file: File) -> str:
        """Return the size in a unit that people read."""
        return filesizeformat(file.size)

    def get_fieldsets(self, request: HttpRequest, obj: File | None = None) -> Any:
        """Return the fields of a new or a stored file."""
        return self.add_fieldsets if obj is None else self.fieldsets

    def get_form(
        self, request: HttpRequest, obj: File | None = None, change: bool = False, **options: Any
    ) -> Any:
        """Return the form for a new or a stored file."""
        if obj is None:
            options["form"] = NewFileForm
        return super().get_form(request, obj, change=change, **options)

    def get_urls(self) -> list[URLPattern]:
        """Return the addresses, among them where a file is downloaded."""
        download = self.admin_site.admin_view(require_safe(self.download))
        return [
            path("<path:object_id>/download/", download, name="resources_file_download"),
            *super().get_urls(),
        ]

    def download(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Send the content, to be saved and never to be shown."""
        file = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, file):
            raise PermissionDenied
        if file is None:
            raise Http404
        try:
            content = open_content(file)
        except ContentMissing as refusal:
            self.message_user(request, refusal.detail, messages.ERROR)
            return HttpResponseRedirect(reverse("admin:resources_file_change", args=[file.pk]))
        return FileResponse(
            content,
            as_attachment=True,
            filename=_file_name(file),
            content_type="application/octet-stream",
        )

    def create(self, request: HttpRequest, form: Any) -> File:
        """Store the file in the chosen project."""
        given = _with_project_named(form.cleaned_data)
        return services.create_file(
            actor=actor_of(request),
            owner=form.cleaned_data["project"].owner,
            content=given.pop("upload").read(),
            values=given,
        )


def _file_name(file: File) -> str:
    """Return the file's name as a header can hold it and nobody is deceived by it."""
    return "".join(each if each.isprintable() else "_" for each in file.name)

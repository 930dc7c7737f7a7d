"""Administration of projects and the grants on them."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import model_ngettext
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join

from accounts.admin import NewSharesInline, ShareAdmin, SharedAdmin, SharesInline, actor_of
from accounts.models import Role, User
from accounts.policy import Actor
from common.admin import (
    CompletingFilter,
    Completion,
    ServiceAdmin,
    ServiceForm,
    Verbatim,
    may,
    may_view,
)
from common.errors import DomainError
from projects import services
from projects.api.own_serializers import OwnProjectIn
from projects.models import Project, ProjectShare
from projects.selectors import count_embeddings, grouped_in
from projects.services import OnResources

M = TypeVar("M", bound=Model)

# How a field asks for the names of one owner's projects only.
_OWNER = "of_owner"
_key = re.compile(r"[0-9]{1,18}", re.ASCII)


class ProjectFilter(CompletingFilter):
    """Narrows a list down to one project."""

    label = "Owner or project"


class ProjectOf(forms.ModelChoiceField[Project]):
    """A project of one owner: completes the names of those, and refuses any other."""

    def __init__(self, owner: User) -> None:
        widget = Completion(ProjectShare._meta.get_field("subject"), admin.site)
        widget.among = {_OWNER: owner.pk}
        super().__init__(
            Project.objects.filter(owner=owner).select_related("owner"),
            label="Project",
            widget=widget,
            error_messages={"invalid_choice": f"Choose a project of '{owner.handle}'."},
        )


class AboutProjectAdmin(ServiceAdmin[M]):
    """What belongs to a project and is seen on its pages in the console."""

    def console_page(self, row: M) -> str | None:
        """Return the address of the project's page."""
        project: Project = row.project  # type: ignore[attr-defined]
        return page_of(project)


def page_of(project: Project) -> str:
    """Return the address of a project's page in the console."""
    return reverse("overview", args=[project.owner.handle, project.handle])


class ProjectForm(ServiceForm[Project]):
    """A project."""

    shape = OwnProjectIn

    metadata_schema = Verbatim(
        required=False,
        help_text="A JSON Schema (draft 7 or later) that checks the metadata of what is uploaded "
        "from now on. Empty: anything goes.",
    )


class TransferForm(forms.Form):
    """Asks who gets projects."""

    new_owner = forms.ModelChoiceField(
        User.objects.all(),
        widget=Completion(Project._meta.get_field("owner"), admin.site),
        label="New owner",
    )


class DeletionForm(forms.Form):
    """Asks what becomes of the agents, end users and files in projects that are deleted.

    Offers what whoever asks may do with each kind of them.
    """

    on_resources = forms.ChoiceField(
        label="What becomes of them", widget=forms.RadioSelect, initial=OnResources.RESTRICT
    )

    def __init__(self, request: HttpRequest, counts: Mapping[type[Model], int]) -> None:
        super().__init__(request.POST if "post" in request.POST else None)
        self.counts = counts
        needed = {OnResources.MOVE: "change", OnResources.DELETE: "delete"}
        field: Any = self.fields["on_resources"]
        field.choices = [
            (each.value, each.label)
            for each in OnResources
            if each not in needed or _may_all(request, needed[each], counts)
        ]

    def held(self) -> str:
        """Return what is there, in words."""
        return ", ".join(_counted(model, number) for model, number in self.counts.items() if number)

    def chosen(self) -> OnResources:
        """Return the choice; without a good one, what loses nothing."""
        if not self.is_valid():
            return OnResources.RESTRICT
        return OnResources(self.cleaned_data["on_resources"])


def _may_all(request: HttpRequest, action: str, counts: Mapping[type[Model], int]) -> bool:
    user: Any = request.user
    held = [model._meta for model, number in counts.items() if number]
    return all(user.has_perm(f"{each.app_label}.{action}_{each.model_name}") for each in held)


def _counted(model: type[Model], number: int) -> str:
    return f"{number} {model_ngettext(model._meta, number)}"


class ProjectSharesInline(SharesInline[ProjectShare]):
    """Who a project is shared with."""

    model = ProjectShare


class NewProjectSharesInline(NewSharesInline[ProjectShare]):
    """Who to share a project with."""

    model = ProjectShare


@admin.register(Project)
class ProjectAdmin(SharedAdmin[Project]):
    """Projects. What they hold is listed under embeddings, agents, end users and files."""

    form = ProjectForm
    refused_deletion_page = "delete"
    list_display = [
        "handle",
        "owner",
        "name",
        "instance",
        "public_read",
        "is_default",
        "created_at",
    ]
    list_filter = ["public_read", "is_default", ("owner", CompletingFilter), "created_at"]
    list_select_related = ["owner", "instance__owner"]
    search_fields = ["handle", "name", "owner__handle"]
    ordering = ["owner__handle", "handle"]
    date_hierarchy = "created_at"
    autocomplete_fields = ["owner", "instance"]
    error_fields = {
        "project_handle": "handle",
        "instance_handle": "instance",
        "instance_owner": "instance",
        "instance_id": "instance",
        "metadataScheme": "metadata_schema",
    }
    inlines = [ProjectSharesInline, NewProjectSharesInline]
    actions = ["make_public", "make_private", "transfer"]
    new_shares = NewProjectSharesInline
    add_fieldsets = [
        (
            None,
            {
                "fields": ["owner", "handle", "name", "description", "instance", "public_read"],
                "description": "The instance must be the owner's, shared with the owner, or the "
                "built-in one. Handles cannot be changed afterwards. Without a name, a project "
                "is called by its handle.",
            },
        ),
        ("Metadata", {"fields": ["metadata", "metadata_schema"]}),
    ]
    fieldsets = [
        (
            None,
            {
                "fields": [
                    "owner",
                    "handle",
                    "name",
                    "description",
                    "instance",
                    "public_read",
                    "embeddings",
                    "how_searched",
                    "grouped",
                ],
                "description": "While a project holds embeddings, its instance can only be "
                "replaced by one of as many dimensions.",
            },
        ),
        ("Metadata", {"fields": ["metadata", "metadata_schema"]}),
        ("Identity", {"fields": ["id", "uuid", "is_default", "created_at", "updated_at"]}),
    ]
    _kept = (
        "owner",
        "handle",
        "embeddings",
        "how_searched",
        "grouped",
        "id",
        "uuid",
        "is_default",
        "created_at",
        "updated_at",
    )

    @admin.display(description="Embeddings")
    def embeddings(self, project: Project) -> int:
        """Return how many embeddings the project holds."""
        count_embeddings(project)
        number: int = project.number_of_embeddings  # type: ignore[attr-defined]
        return number

    @admin.display(description="Search index")
    def how_searched(self, project: Project) -> str:
        """Return a link to the state and the settings of the project's index."""
        model: Any = _related("search_index")
        state = model.objects.filter(project=project).values_list("state", flat=True).first()
        page = f"admin:{model._meta.app_label}_{model._meta.model_name}_change"
        return format_html(
            '<a href="{}">{}</a>', reverse(page, args=[project.pk]), state or "exact"
        )

    @admin.display(description="Also holds")
    def grouped(self, project: Project) -> str:
        """Return how many agents, end users and files the project holds, with links to them."""
        return format_html_join(
            " · ",
            '<a href="{}?project={}">{}</a>',
            (
                (reverse(_list_of(model)), project.pk, _counted(model, number))
                for model, number in grouped_in([project]).items()
            ),
        )

    def console_page(self, row: Project) -> str:
        """Return the address of the project's page."""
        return page_of(row)

    def buttons(self, request: HttpRequest, row: Project) -> dict[str, str]:
        """Offer to make it public or private, and to give it to somebody else."""
        wanted = {"make_private": "Make private"} if row.public_read else {}
        if not row.public_read:
            wanted["make_public"] = "Make public…"
        if not row.is_default:
            wanted["transfer"] = "Transfer…"
        return wanted

    def get_fieldsets(self, request: HttpRequest, obj: Project | None = None) -> Any:
        """Return the fields of a new or a stored project, without what others count and show."""
        if obj is None:
            return self.add_fieldsets
        shows = {
            "embeddings": may_view(request, _related("embeddings")),
            "how_searched": may_view(request, _related("search_index")),
            "grouped": all(may_view(request, model) for model in grouped_in([obj])),
        }
        (_, about), *others = self.fieldsets or []
        fields = [name for name in about["fields"] if shows.get(str(name), True)]
        return [(None, {**about, "fields": fields}), *others]

    def get_readonly_fields(self, request: HttpRequest, obj: Project | None = None) -> list[str]:
        """Keep what addresses a project, and what no service changes."""
        return [] if obj is None else list(self._kept)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Project], search_term: str
    ) -> tuple[QuerySet[Project], bool]:
        """Find projects; for a field that takes those of one owner only, among them."""
        owner = request.GET.get(_OWNER, "")
        if _key.fullmatch(owner):
            queryset = queryset.filter(owner=int(owner))
        return super().get_search_results(request, queryset, search_term)

    def has_delete_permission(self, request: HttpRequest, obj: Project | None = None) -> bool:
        """Protect default projects."""
        if obj is not None and obj.is_default:
            return False
        return bool(super().has_delete_permission(request, obj))

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Return what a deletion takes along; the page asks about what need not go along."""
        found = super().get_deleted_objects(objs, request)
        request.deletion = DeletionForm(request, grouped_in(objs))  # type: ignore[attr-defined]
        return found

    def create(self, request: HttpRequest, form: Any) -> Project:
        """Create the project."""
        given = form.cleaned_data
        project = services.create_project(
            actor=actor_of(request),
            owner=given["owner"].handle,
            handle=given["handle"],
            values=_as_the_api_says(given),
        )
        return _describe(request, project, form.changes())

    def change(self, request: HttpRequest, row: Project, form: Any) -> Project:
        """Change the project."""
        actor, owner, changes = actor_of(request), row.owner.handle, form.changes()
        if values := _as_the_api_says(changes):
            services.update_project(actor=actor, owner=owner, handle=row.handle, changes=values)
        return _describe(request, row, changes)

    def remove(self, request: HttpRequest, row: Project) -> None:
        """Delete the project with its embeddings, and do as chosen with what it groups."""
        deletion: DeletionForm = request.deletion  # type: ignore[attr-defined]
        services.delete_project(
            actor=actor_of(request),
            owner=row.owner.handle,
            handle=row.handle,
            on_resources=deletion.chosen(),
        )

    # --- Actions ----------------------------------------------------------------------------------
    @admin.action(description="Make selected projects public", permissions=["change"])
    def make_public(self, request: HttpRequest, queryset: QuerySet[Project]) -> HttpResponse | None:
        """Say what it means and ask; then let everybody read the projects, all or none."""
        projects = self.chosen(queryset, "Change")
        if "post" in request.POST:
            self._publish(request, projects, public=True)
            return None
        return self.ask(
            request,
            action="make_public",
            title="Make projects public",
            question="Anybody who reaches this server can read and search these projects, without "
            "an account or a key.",
            yes="Make public",
            rows={project.pk: str(project) for project in projects},
        )

    @admin.action(description="Make selected projects private", permissions=["change"])
    def make_private(self, request: HttpRequest, queryset: QuerySet[Project]) -> None:
        """Leave the projects to their owners and those they are shared with, all or none."""
        self._publish(request, self.chosen(queryset, "Change"), public=False)

    def _publish(self, request: HttpRequest, projects: list[Project], *, public: bool) -> None:
        state = "public" if public else "private"
        changing = [project for project in projects if project.public_read != public]
        for project in changing:
            services.update_project(
                actor=actor_of(request),
                owner=project.owner.handle,
                handle=project.handle,
                changes={"public_read": public},
            )
            self.log_change(request, project, f"Made {state}.")
        made = f"{_counted(Project, len(changing))} made {state}."
        self.message_user(request, made, messages.SUCCESS)

    @admin.action(description="Transfer selected projects", permissions=["change"])
    def transfer(self, request: HttpRequest, queryset: QuerySet[Project]) -> HttpResponse | None:
        """Name the projects and ask who gets them; then give them away, all or none."""
        projects = self.chosen(queryset, "Transfer")
        form = TransferForm(request.POST if "post" in request.POST else None)
        if form.is_valid():
            new_owner: User = form.cleaned_data["new_owner"]
            try:
                with transaction.atomic():
                    self._transfer(request, projects, new_owner)
            except DomainError as refusal:
                form.add_error("new_owner", refusal.detail)
            else:
                transferred = f"{_counted(Project, len(projects))} transferred to {new_owner}."
                self.message_user(request, transferred, messages.SUCCESS)
                return None
        return self.ask(
            request,
            action="transfer",
            title="Transfer projects",
            question="The old owners lose all access. Grants to others stay; keys that were made "
            "for one of these projects only are deleted. All of them are transferred, or none.",
            yes="Transfer",
            rows={project.pk: str(project) for project in projects},
            form=form,
        )

    def _transfer(self, request: HttpRequest, projects: list[Project], new_owner: User) -> None:
        for project in projects:
            services.transfer_project(
                actor=actor_of(request),
                owner=project.owner.handle,
                handle=project.handle,
                new_owner=new_owner.handle,
            )
            self.log_change(request, project, f"Transferred from {project.owner} to {new_owner}.")

    def has_reindex_permission(self, request: HttpRequest) -> bool:
        """Tell whether whoever asks may change indexes, for an action that `embeddings` adds."""
        return may(request, "change", _related("search_index"))


def _related(name: str) -> type[Model]:
    """Return the model of what refers to projects, which is in an app that knows this one."""
    model: Any = Project._meta.get_field(name).related_model
    return model  # type: ignore[no-any-return]


def _list_of(model: type[Model]) -> str:
    return f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"


def _as_the_api_says(given: dict[str, Any]) -> dict[str, Any]:
    """Return the values that `/v1` knows, under its names."""
    values: dict[str, Any] = {
        name: given[name] for name in ("description", "public_read") if name in given
    }
    if "metadata_schema" in given:
        values["metadataScheme"] = given["metadata_schema"]
    if "instance" in given:
        values["instance_owner"] = given["instance"].owner.handle
        values["instance_handle"] = given["instance"].handle
    return values


def _describe(request: HttpRequest, project: Project, given: dict[str, Any]) -> Project:
    """Change what only the Projects API knows: it merges metadata, while a form shows all of it."""
    about: dict[str, Any] = {name: given[name] for name in ("name", "metadata") if name in given}
    if not about:
        return project
    return services.update_own_project(
        actor=actor_of(request),
        owner=project.owner,
        uuid=project.uuid,
        changes=about,
        merge=False,
    )


@admin.register(ProjectShare)
class ProjectShareAdmin(ShareAdmin[ProjectShare]):
    """Grants on projects."""

    def console_page(self, row: ProjectShare) -> str:
        """Return the address of the project's page."""
        return page_of(row.subject)

    def grant(self, actor: Actor, subject: Project, user: User, role: Role) -> None:
        """Give a role on the project."""
        services.share_project(
            actor=actor,
            owner=subject.owner.handle,
            handle=subject.handle,
            user=user.handle,
            role=role,
        )

    def revoke(self, actor: Actor, subject: Project, user: User) -> None:
        """Take it back."""
        services.unshare_project(
            actor=actor, owner=subject.owner.handle, handle=subject.handle, user=user.handle
        )

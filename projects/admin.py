"""Administration of projects and the grants on them."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest

from accounts.admin import NewSharesInline, ShareAdmin, SharedAdmin, SharesInline, actor_of
from accounts.models import Role, User
from accounts.policy import Actor
from common.admin import Completion, ServiceForm, Verbatim
from projects import services
from projects.models import Project, ProjectShare
from projects.selectors import count_embeddings


class ProjectForm(ServiceForm[Project]):
    """A project; `new_owner` is not a column but what to do with it."""

    metadata_schema = Verbatim(
        required=False,
        help_text="A JSON Schema (draft 7 or later) that checks the metadata of what is uploaded "
        "from now on. Empty: anything goes.",
    )
    new_owner = forms.ModelChoiceField(
        User.objects.all(),
        required=False,
        widget=Completion(Project._meta.get_field("owner"), admin.site),
        label="Transfer to",
        help_text="The old owner loses all access; grants to others stay, keys that were made for "
        "this project only are deleted.",
    )


class ProjectSharesInline(SharesInline[ProjectShare]):
    """Who a project is shared with."""

    model = ProjectShare


class NewProjectSharesInline(NewSharesInline[ProjectShare]):
    """Who to share a project with."""

    model = ProjectShare


@admin.register(Project)
class ProjectAdmin(SharedAdmin[Project]):
    """Projects. What they hold is listed under embeddings."""

    form = ProjectForm
    list_display = [
        "handle",
        "owner",
        "name",
        "instance",
        "public_read",
        "is_default",
        "created_at",
    ]
    list_filter = ["public_read", "is_default"]
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
        "new_owner_handle": "new_owner",
    }
    inlines = [ProjectSharesInline, NewProjectSharesInline]
    new_shares = NewProjectSharesInline
    add_fieldsets = [
        (
            None,
            {
                "fields": ["owner", "handle", "description", "instance", "public_read"],
                "description": "The instance must be the owner's, shared with the owner, or the "
                "built-in one. Handles cannot be changed afterwards.",
            },
        ),
        ("Metadata", {"fields": ["metadata_schema"]}),
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
                ],
                "description": "While a project holds embeddings, its instance can only be "
                "replaced by one of as many dimensions.",
            },
        ),
        ("Metadata", {"fields": ["metadata_schema", "metadata"]}),
        ("Ownership", {"fields": ["new_owner"], "classes": ["collapse"]}),
        ("Identity", {"fields": ["id", "uuid", "is_default", "created_at", "updated_at"]}),
    ]
    _kept = (
        "owner",
        "handle",
        "name",
        "embeddings",
        "metadata",
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

    def get_fieldsets(self, request: HttpRequest, obj: Project | None = None) -> Any:
        """Return the fields of a new or a stored project."""
        if obj is None:
            return self.add_fieldsets
        if not obj.is_default and self.has_change_permission(request, obj):
            return self.fieldsets
        return [each for each in self.fieldsets or [] if each[0] != "Ownership"]

    def get_readonly_fields(self, request: HttpRequest, obj: Project | None = None) -> list[str]:
        """Keep what addresses a project, and what no service changes."""
        return [] if obj is None else list(self._kept)

    def has_delete_permission(self, request: HttpRequest, obj: Project | None = None) -> bool:
        """Protect default projects."""
        if obj is not None and obj.is_default:
            return False
        return bool(super().has_delete_permission(request, obj))

    def create(self, request: HttpRequest, form: Any) -> Project:
        """Create the project."""
        given = form.cleaned_data
        return services.create_project(
            actor=actor_of(request),
            owner=given["owner"].handle,
            handle=given["handle"],
            values=_as_the_api_says(given),
        )

    def change(self, request: HttpRequest, row: Project, form: Any) -> Project:
        """Change the project, and then give it to its new owner if there is one."""
        actor, owner, changes = actor_of(request), row.owner.handle, form.changes()
        new_owner = changes.pop("new_owner", None)
        if changes:
            services.update_project(
                actor=actor, owner=owner, handle=row.handle, changes=_as_the_api_says(changes)
            )
        if new_owner is not None:
            services.transfer_project(
                actor=actor, owner=owner, handle=row.handle, new_owner=new_owner.handle
            )
        return row

    def remove(self, request: HttpRequest, row: Project) -> None:
        """Delete the project with its embeddings."""
        services.delete_project(actor=actor_of(request), owner=row.owner.handle, handle=row.handle)


def _as_the_api_says(given: dict[str, Any]) -> dict[str, Any]:
    """Return the values under the names that the services know."""
    values: dict[str, Any] = {
        name: given[name] for name in ("description", "public_read") if name in given
    }
    if "metadata_schema" in given:
        values["metadataScheme"] = given["metadata_schema"]
    if "instance" in given:
        values["instance_owner"] = given["instance"].owner.handle
        values["instance_handle"] = given["instance"].handle
    return values


@admin.register(ProjectShare)
class ProjectShareAdmin(ShareAdmin[ProjectShare]):
    """Grants on projects."""

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

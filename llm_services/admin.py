"""Administration of API standards, definitions, instances and the grants on them."""

from typing import Any, TypeVar

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters

from accounts.admin import NewSharesInline, ShareAdmin, SharedAdmin, SharesInline, actor_of
from accounts.models import Role, User
from accounts.policy import Actor
from common.admin import CappedPaginator, CompletingFilter, KeptAdmin, ServiceAdmin, ServiceForm
from llm_services import services
from llm_services.models import (
    ApiStandard,
    Definition,
    DefinitionShare,
    EmbeddedText,
    EmbeddingModel,
    Instance,
    InstanceShare,
    Service,
)
from llm_services.providers import Purpose

S = TypeVar("S", bound=Service)


@admin.register(ApiStandard)
class ApiStandardAdmin(ServiceAdmin[ApiStandard]):
    """Protocols that providers speak."""

    list_display = ["handle", "description", "key_method", "key_field", "updated_at"]
    list_filter = ["key_method"]
    search_fields = ["handle", "description"]
    ordering = ["handle"]
    error_fields = {"api_standard_handle": "handle"}
    fieldsets = [
        (None, {"fields": ["handle", "description"]}),
        (
            "The provider's key",
            {
                "fields": ["key_method", "key_field"],
                "description": "How a provider wants to receive it; the field names the header, "
                "query parameter or body field where the method needs one.",
            },
        ),
    ]

    def get_readonly_fields(
        self, request: HttpRequest, obj: ApiStandard | None = None
    ) -> list[str]:
        """Keep the handle."""
        return [] if obj is None else ["handle"]

    def create(self, request: HttpRequest, form: Any) -> ApiStandard:
        """Create the standard."""
        values = dict(form.cleaned_data)
        return services.create_standard(
            actor=actor_of(request), handle=values.pop("handle"), values=values
        )

    def change(self, request: HttpRequest, row: ApiStandard, form: Any) -> ApiStandard:
        """Change the standard."""
        return services.update_standard(
            actor=actor_of(request), handle=row.handle, changes=form.changes()
        )

    def remove(self, request: HttpRequest, row: ApiStandard) -> None:
        """Delete the standard unless something refers to it."""
        services.delete_standard(actor=actor_of(request), handle=row.handle)


class ServiceValuesForm(ServiceForm[S]):
    """What definitions and instances have in common. Which are required, the service decides."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for name in ("endpoint", "api_standard", "model", "dimensions"):
            if name in self.fields:
                self.fields[name].required = False


class ServicesAdmin(SharedAdmin[S]):
    """Lists that definitions and instances share."""

    list_select_related = ["owner", "api_standard"]
    list_filter = ["api_standard"]
    search_fields = ["handle", "owner__handle", "model", "endpoint"]
    ordering = ["owner__handle", "handle"]
    date_hierarchy = "created_at"
    form = ServiceValuesForm  # type: ignore[assignment]
    autocomplete_fields = ["owner", "api_standard"]

    def get_readonly_fields(self, request: HttpRequest, obj: S | None = None) -> list[str]:
        """Keep what addresses a service."""
        dates = ["created_at", "updated_at"]
        return dates if obj is None else ["owner", "handle", *dates]

    def get_fieldsets(self, request: HttpRequest, obj: S | None = None) -> Any:
        """Leave out the dates of what is not there yet."""
        fieldsets = super().get_fieldsets(request, obj)
        return [each for each in fieldsets if obj is not None or each[0] != "Dates"]


_SERVICE_FIELDS = ("endpoint", "api_standard", "model", "dimensions", "context_limit")


# --- Definitions ----------------------------------------------------------------------------------
class DefinitionSharesInline(SharesInline[DefinitionShare]):
    """Who may read a definition."""

    model = DefinitionShare
    fields = ["user"]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: everybody here is a reader."""
        return False


class NewDefinitionSharesInline(NewSharesInline[DefinitionShare]):
    """Who to let read a definition."""

    model = DefinitionShare
    fields = ["user"]


@admin.register(Definition)
class DefinitionAdmin(ServicesAdmin[Definition]):
    """Templates of services."""

    list_display = ["handle", "owner", "model", "dimensions", "api_standard", "is_public"]
    list_filter = ["is_public", "api_standard"]
    error_fields = {"definition_handle": "handle"}
    inlines = [DefinitionSharesInline, NewDefinitionSharesInline]
    new_shares = NewDefinitionSharesInline
    fieldsets = [
        (None, {"fields": ["owner", "handle", "description", "is_public"]}),
        (
            "Service",
            {
                "fields": _SERVICE_FIELDS,
                "description": "Instances copy these values; those that were made keep theirs.",
            },
        ),
        ("Dates", {"fields": ["created_at", "updated_at"]}),
    ]

    def create(self, request: HttpRequest, form: Any) -> Definition:
        """Create the definition."""
        values = dict(form.cleaned_data)
        return services.create_definition(
            actor=actor_of(request),
            owner=values.pop("owner").handle,
            handle=values.pop("handle"),
            values=values,
        )

    def change(self, request: HttpRequest, row: Definition, form: Any) -> Definition:
        """Change the definition."""
        return services.update_definition(
            actor=actor_of(request),
            owner=row.owner.handle,
            handle=row.handle,
            changes=form.changes(),
        )

    def remove(self, request: HttpRequest, row: Definition) -> None:
        """Delete the definition; its instances stay."""
        services.delete_definition(
            actor=actor_of(request), owner=row.owner.handle, handle=row.handle
        )


@admin.register(DefinitionShare)
class DefinitionShareAdmin(ShareAdmin[DefinitionShare]):
    """Grants on definitions; there is one role only."""

    list_display = ["subject", "user", "created_at"]
    list_filter = ["created_at"]
    fields = ["subject", "user", "created_at"]

    def has_change_permission(
        self, request: HttpRequest, obj: DefinitionShare | None = None
    ) -> bool:
        """Return False: there is no other role to change to."""
        return False

    def grant(self, actor: Actor, subject: Definition, user: User, role: Role) -> None:
        """Let the account read the definition."""
        services.share_definition(
            actor=actor, owner=subject.owner.handle, handle=subject.handle, user=user.handle
        )

    def revoke(self, actor: Actor, subject: Definition, user: User) -> None:
        """Take it back."""
        services.unshare_definition(
            actor=actor, owner=subject.owner.handle, handle=subject.handle, user=user.handle
        )


# --- Instances ------------------------------------------------------------------------------------
class InstanceForm(ServiceValuesForm[Instance]):
    """An instance; the provider's key goes in and never comes out."""

    api_key = forms.CharField(
        label="Provider API key",
        required=False,
        max_length=10_000,
        # Never rendered with a value, not even after an error.
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}, render_value=False),
        help_text="Stored encrypted and never shown. Empty: keep the stored key. Moving the "
        "endpoint to another server erases it unless a key is given.",
    )
    erase_key = forms.BooleanField(label="Erase the stored key", required=False)

    def clean(self) -> dict[str, Any]:
        """Refuse to set and erase at once."""
        given = super().clean() or self.cleaned_data
        if given.get("api_key") and given.get("erase_key"):
            self.add_error("erase_key", "Give a key or erase it, not both.")
        return given


class InstanceSharesInline(SharesInline[InstanceShare]):
    """Who may use an instance."""

    model = InstanceShare


class NewInstanceSharesInline(NewSharesInline[InstanceShare]):
    """Who to let use an instance."""

    model = InstanceShare


@method_decorator(sensitive_post_parameters("api_key"), name="changeform_view")
@admin.register(Instance)
class InstanceAdmin(ServicesAdmin[Instance]):
    """Services that somebody can use, with the provider's key, which no page shows."""

    form = InstanceForm  # type: ignore[assignment]
    list_display = ["handle", "owner", "model", "dimensions", "api_standard", "endpoint", "has_key"]
    list_select_related = ["owner", "api_standard", "definition__owner"]
    autocomplete_fields = ["owner", "api_standard", "definition"]
    secret_fields = ("sealed_key",)
    error_fields = {
        "instance_handle": "handle",
        "definition_handle": "definition",
        "definition_owner": "definition",
        "api_key_encrypted": "api_key",
    }
    inlines = [InstanceSharesInline, NewInstanceSharesInline]
    new_shares = NewInstanceSharesInline
    fieldsets = [
        (
            None,
            {
                "fields": ["owner", "handle", "description", "definition"],
                "description": "A new instance copies from the definition whatever is left empty "
                "below. Owner, handle and definition cannot be changed afterwards.",
            },
        ),
        (
            "Service",
            {
                "fields": _SERVICE_FIELDS,
                "description": "Dimensions cannot change while projects hold embeddings.",
            },
        ),
        ("Key", {"fields": ["has_key", "api_key", "erase_key"]}),
        ("Dates", {"fields": ["created_at", "updated_at"]}),
    ]

    @admin.display(description="Provider key is set", boolean=True)
    def has_key(self, instance: Instance) -> bool:
        """Say whether a provider's key is stored."""
        return instance.has_api_key

    def get_readonly_fields(self, request: HttpRequest, obj: Instance | None = None) -> list[str]:
        """Keep where an instance came from, too."""
        fields = [*super().get_readonly_fields(request, obj), "has_key"]
        return fields if obj is None else [*fields, "definition"]

    def get_fieldsets(self, request: HttpRequest, obj: Instance | None = None) -> Any:
        """Show the fields of the key to those who may set it."""
        fieldsets = super().get_fieldsets(request, obj)
        shown = ["has_key", "api_key", "erase_key"]
        if obj is None:
            shown = ["api_key"]
        elif not self.has_change_permission(request, obj):
            shown = ["has_key"]
        return [(name, {"fields": shown} if name == "Key" else each) for name, each in fieldsets]

    def has_change_permission(self, request: HttpRequest, obj: Instance | None = None) -> bool:
        """Protect the built-in instance."""
        if obj is not None and obj.is_builtin:
            return False
        return bool(super().has_change_permission(request, obj))

    def has_delete_permission(self, request: HttpRequest, obj: Instance | None = None) -> bool:
        """Protect the built-in instance."""
        if obj is not None and obj.is_builtin:
            return False
        return bool(super().has_delete_permission(request, obj))

    def create(self, request: HttpRequest, form: Any) -> Instance:
        """Create the instance; what was left empty comes from the definition."""
        # Empty means "as the definition says", which the services hear as absent.
        values = {name: value for name, value in form.cleaned_data.items() if value}
        definition = values.pop("definition", None)
        if definition is not None:
            values["definition_owner"] = definition.owner.handle
            values["definition_handle"] = definition.handle
        return services.create_instance(
            actor=actor_of(request),
            owner=values.pop("owner").handle,
            handle=values.pop("handle"),
            values=values,
        )

    def change(self, request: HttpRequest, row: Instance, form: Any) -> Instance:
        """Change the instance; say so if the provider's key went with its server."""
        changes = form.changes()
        erase = changes.pop("erase_key", False)
        if not changes.get("api_key"):
            changes.pop("api_key", None)
        if erase:
            changes["api_key"] = ""
        had_key = row.has_api_key
        changed = services.update_instance(
            actor=actor_of(request), owner=row.owner.handle, handle=row.handle, changes=changes
        )
        request.key_went = had_key and not erase and not changed.has_api_key  # type: ignore[attr-defined]
        return changed

    def response_change(self, request: HttpRequest, obj: Instance) -> HttpResponse:
        """Say so if the provider's key went with its server."""
        if request.key_went:  # type: ignore[attr-defined]
            self.message_user(
                request,
                "The stored provider key was erased: it was given for another server.",
                messages.WARNING,
            )
        return super().response_change(request, obj)

    def remove(self, request: HttpRequest, row: Instance) -> None:
        """Delete the instance unless projects use it."""
        services.delete_instance(actor=actor_of(request), owner=row.owner.handle, handle=row.handle)


@admin.register(InstanceShare)
class InstanceShareAdmin(ShareAdmin[InstanceShare]):
    """Grants on instances."""

    def grant(self, actor: Actor, subject: Instance, user: User, role: Role) -> None:
        """Let the account use the instance."""
        services.share_instance(
            actor=actor,
            owner=subject.owner.handle,
            handle=subject.handle,
            user=user.handle,
            role=role,
        )

    def revoke(self, actor: Actor, subject: Instance, user: User) -> None:
        """Take it back."""
        services.unshare_instance(
            actor=actor, owner=subject.owner.handle, handle=subject.handle, user=user.handle
        )


# --- What the program keeps by itself -------------------------------------------------------------
@admin.register(EmbeddingModel)
class EmbeddingModelAdmin(KeptAdmin[EmbeddingModel]):
    """Models that instances have used. Vectors of one can be compared with each other only."""

    list_display = ["model", "dimensions", "api_standard", "endpoint", "instances", "first_used_at"]
    list_filter = ["api_standard"]
    search_fields = ["model", "endpoint"]
    ordering = ["model", "pk"]
    date_hierarchy = "first_used_at"
    fields = [
        "model",
        "dimensions",
        "api_standard",
        "endpoint",
        "instances",
        "first_used_at",
        "identity",
    ]

    @admin.display(description="Instances", ordering="number_of_instances")
    def instances(self, model: EmbeddingModel) -> int:
        """Return how many instances use it now."""
        number: int = model.number_of_instances  # type: ignore[attr-defined]
        return number

    @admin.display(description="Fingerprint")
    def identity(self, model: EmbeddingModel) -> str:
        """Return what tells it from others: a hash of the other fields."""
        return bytes(model.fingerprint).hex()

    def get_queryset(self, request: HttpRequest) -> QuerySet[EmbeddingModel]:
        """Return the rows with the numbers of their instances."""
        return super().get_queryset(request).annotate(number_of_instances=Count("instances"))


class PurposeFilter(admin.SimpleListFilter):
    """What texts were embedded for; asking the table would read all of it."""

    title = "purpose"
    parameter_name = "purpose"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the purposes."""
        return [(each.value, each.value.capitalize()) for each in Purpose]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows for the chosen purpose."""
        return queryset.filter(purpose=self.value()) if self.value() else queryset


@admin.register(EmbeddedText)
class EmbeddedTextAdmin(KeptAdmin[EmbeddedText]):
    """Vectors that are kept so that no text is embedded twice. Texts are not kept."""

    list_display = ["digest", "owner", "purpose", "created_at"]
    list_filter = [PurposeFilter, ("owner", CompletingFilter)]
    list_select_related = ["owner"]
    ordering = ["-pk"]
    # Each would sort or search the whole table, and hashes are not looked for by a part.
    sortable_by = []
    paginator = CappedPaginator
    show_facets = admin.ShowFacets.NEVER
    secret_fields = ("vector",)
    fields = ["digest", "owner", "purpose", "model_identity", "created_at"]

    @admin.display(description="SHA-256 of the text")
    def digest(self, row: EmbeddedText) -> str:
        """Return the hash by which a text is found again."""
        return bytes(row.text_digest).hex()

    @admin.display(description="Fingerprint of the model")
    def model_identity(self, row: EmbeddedText) -> str:
        """Return what the embedding model has as its fingerprint."""
        return bytes(row.fingerprint).hex()

    def get_queryset(self, request: HttpRequest) -> QuerySet[EmbeddedText]:
        """Return the rows without vectors."""
        return super().get_queryset(request).defer("vector")

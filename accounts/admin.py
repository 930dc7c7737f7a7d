"""Administration of accounts and keys, and what the pages of all owned and shared things need."""

from typing import Any, TypeVar, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import AdminPasswordChangeForm
from django.contrib.auth.password_validation import (
    password_validators_help_text_html,
    validate_password,
)
from django.core.exceptions import ValidationError
from django.db.models import ForeignKey, ManyToManyField, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from accounts import keys, services
from accounts.models import ApiKey, AuditEntry, Owned, Role, Share, User
from accounts.policy import BOOTSTRAP_ADMIN, Actor
from common.admin import CompletesNames, KeptAdmin, NamesFields, ServiceAdmin, ServiceForm

T = TypeVar("T", bound=Owned)
S = TypeVar("S", bound=Share)


def actor_of(request: HttpRequest) -> Actor:
    """Return who a service acts for."""
    if isinstance(request.user, User) and request.user.is_superuser:
        return Actor(user=request.user)
    # Staff to whom a superuser gave some of Django's permissions, which the admin asked before it
    # came here. Those are about whole tables, while our policy knows owners and administrators, so
    # the system acts on their behalf. What would raise them above their permissions is refused by
    # `_is_above`: rights, passwords and keys of those who may sign in here.
    return BOOTSTRAP_ADMIN


def _is_administrator(request: HttpRequest) -> bool:
    return actor_of(request).user is not None


def _is_above(request: HttpRequest, user: User) -> bool:
    """Whether an account is out of reach for whoever asks."""
    return (user.is_staff or user.is_superuser) and not _is_administrator(request)


def show_key_once(
    request: HttpRequest, model_admin: ServiceAdmin[Any], key: str, *, of: User, next_url: str
) -> HttpResponse:
    """Answer with a page that shows a new key: after a redirect it would have to be stored.

    The admin marks its pages as not to be kept by any cache.
    """
    messages.success(request, f"This is the new key of {of.handle}. It is shown this once.")
    context = {
        **model_admin.admin_site.each_context(request),
        "title": "New API key",
        "opts": model_admin.opts,
        "api_key": key,
        "next_url": next_url,
    }
    return TemplateResponse(request, "admin/accounts/key_shown_once.html", context)


# --- Shares ---------------------------------------------------------------------------------------
class ShareAdmin(ServiceAdmin[S]):
    """Grants on owned things; subclasses say which services give and take them."""

    list_display = ["subject", "user", "role", "created_at"]
    list_filter = ["role"]
    list_select_related = ["subject__owner", "user"]
    search_fields = ["subject__handle", "subject__owner__handle", "user__handle"]
    ordering = ["subject__owner__handle", "subject__handle", "user__handle"]
    autocomplete_fields = ["subject", "user"]
    readonly_fields = ["created_at"]
    error_fields = {"share_with_handle": "user"}

    def grant(self, actor: Actor, subject: Any, user: User, role: Role) -> None:
        """Give a role on the subject, replacing any that the account had."""
        raise NotImplementedError

    def revoke(self, actor: Actor, subject: Any, user: User) -> None:
        """Take it back."""
        raise NotImplementedError

    def get_readonly_fields(self, request: HttpRequest, obj: S | None = None) -> list[str]:
        """Keep whom a grant is for and on what."""
        return ["created_at"] if obj is None else ["subject", "user", "created_at"]

    def create(self, request: HttpRequest, form: Any) -> S:
        """Give the role."""
        given = form.cleaned_data
        return self._granted(request, given["subject"], given["user"], given.get("role"))

    def change(self, request: HttpRequest, row: S, form: Any) -> S:
        """Give another role."""
        subject: Any = row.subject  # type: ignore[attr-defined]
        return self._granted(request, subject, row.user, form.cleaned_data["role"])

    def _granted(self, request: HttpRequest, subject: Any, user: User, role: str | None) -> S:
        self.grant(actor_of(request), subject, user, Role(role or Role.READER))
        return self.model._default_manager.get(subject=subject, user=user)

    def remove(self, request: HttpRequest, row: S) -> None:
        """Take the grant back."""
        self.revoke(actor_of(request), row.subject, row.user)  # type: ignore[attr-defined]


class SharesInline(NamesFields, admin.TabularInline[S, Any]):
    """The grants on one thing. Their accounts are text, not fields: one query for all rows."""

    extra = 0
    fields = ["user", "role"]
    readonly_fields = ["user"]
    verbose_name_plural = "Shared with"

    def get_queryset(self, request: HttpRequest) -> QuerySet[S]:
        """Return the grants in the order of handles."""
        return super().get_queryset(request).select_related("user").order_by("user__handle")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: `NewSharesInline` adds."""
        return False


class NewSharesInline(NamesFields, CompletesNames, admin.TabularInline[S, Any]):
    """Empty lines for new grants."""

    extra = 1
    fields = ["user", "role"]
    autocomplete_fields = ["user"]
    verbose_name = "account"
    verbose_name_plural = "Share with"

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: `SharesInline` shows what there is."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False as `has_view_permission` does."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False as `has_view_permission` does."""
        return False


class SharedAdmin(ServiceAdmin[T]):
    """Owned things with their grants.

    new_shares: the inline for a thing that is not there yet, which has no grants to show.
    """

    new_shares: type[NewSharesInline[Any]]

    def get_inlines(self, request: HttpRequest, obj: T | None) -> Any:
        """Return the inlines for a new or a stored thing."""
        return [self.new_shares] if obj is None else self.inlines

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Give and take grants by the services that their own pages use."""
        shares = cast(ShareAdmin[Any], self.admin_site.get_model_admin(formset.model))
        actor, subject = actor_of(request), form.instance
        # This sorts the lines into deleted, changed and new ones, which the log needs.
        formset.save(commit=False)
        for share in formset.deleted_objects:
            shares.revoke(actor, subject, share.user)
        for share in [each for each, _ in formset.changed_objects] + formset.new_objects:
            shares.grant(actor, subject, share.user, Role(share.role))


# --- Accounts -------------------------------------------------------------------------------------
class NewUserForm(ServiceForm[User]):
    """A new account; without a password it can only use keys."""

    password1 = forms.CharField(
        label="Password",
        required=False,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text=password_validators_help_text_html,
    )
    password2 = forms.CharField(
        label="Password again",
        required=False,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="Leave both empty for an account that only uses API keys.",
    )

    def _post_clean(self) -> None:
        super()._post_clean()
        password = self.cleaned_data.get("password1")
        if password != self.cleaned_data.get("password2"):
            self.add_error("password2", "The two passwords differ.")
        elif password:
            try:
                validate_password(password, self.instance)
            except ValidationError as error:
                self.add_error("password1", error)


class PasswordForm(AdminPasswordChangeForm):  # type: ignore[type-arg]
    """Sets an account's password, or none."""

    def save(self, commit: bool = True) -> User:
        """Set it by the service; Django's view has asked for the permission and logs it."""
        password = None
        if self.cleaned_data["set_usable_password"]:
            password = self.cleaned_data["password1"]
        stored = services.set_password(
            actor=BOOTSTRAP_ADMIN, handle=self.user.get_username(), password=password
        )
        # The view keeps the session of somebody who changes their own.
        self.user.password = stored.password
        return stored


class KeysInline(admin.TabularInline[ApiKey, User]):
    """The keys of an account, to look at."""

    model = ApiKey
    fields = ["public_id", "name", "role_cap", "expires_at", "revoked_at", "last_used_at"]
    readonly_fields = [
        "public_id",
        "name",
        "role_cap",
        "expires_at",
        "revoked_at",
        "last_used_at",
    ]
    show_change_link = True
    verbose_name_plural = "API keys"

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: a new key is shown on a page of its own."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: keys are renamed and revoked on their own pages."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False as `has_change_permission` does."""
        return False


@admin.register(User)
class UserAdmin(ServiceAdmin[User], DjangoUserAdmin[User]):
    """Accounts. Only administrators reach accounts that may sign in here, and give rights."""

    add_form_template = None
    form = ServiceForm  # type: ignore[assignment]
    add_form = NewUserForm
    change_password_form = PasswordForm
    list_display = [
        "handle",
        "name",
        "email",
        "is_active",
        "is_staff",
        "is_superuser",
        "last_login",
    ]
    list_filter = ["is_active", "is_staff", "is_superuser"]
    search_fields = ["handle", "name", "email"]
    ordering = ["handle"]
    date_hierarchy = "created_at"
    filter_horizontal = ["groups", "user_permissions"]
    readonly_fields = ["handle", "password_state", "last_login", "created_at", "updated_at"]
    secret_fields = ("password",)
    error_fields = {"user_handle": "handle"}
    inlines = [KeysInline]
    fieldsets = [
        (None, {"fields": ["handle", "name", "email", "password_state"]}),
        (
            "Rights",
            {
                "fields": ["is_active", "is_staff", "is_superuser", "groups", "user_permissions"],
                "description": (
                    "Superusers may do everything, through the API too. Staff may do on this site "
                    "what the permissions say, for the things of everybody. An account that is not "
                    "active can neither sign in nor use its keys."
                ),
            },
        ),
        ("Dates", {"fields": ["last_login", "created_at", "updated_at"]}),
    ]
    add_fieldsets = [
        (
            None,
            {
                "fields": ["handle", "name", "email", "is_superuser"],
                "description": "The account gets a default project and a first API key.",
            },
        ),
        ("Sign-in", {"fields": ["password1", "password2"]}),
    ]

    @admin.display(description="Password")
    def password_state(self, user: User) -> str:
        """Say whether there is a password, and lead to the form that sets one."""
        state = "set" if user.has_usable_password() else "not set"
        url = reverse("admin:auth_user_password_change", args=[user.pk])
        return format_html('{} · <a href="{}">set another</a>', state, url)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        """Keep handles, and from all but administrators the rights."""
        kept = [] if obj is None else list(self.readonly_fields)
        if not _is_administrator(request):
            kept += ["is_staff", "is_superuser", "groups", "user_permissions"]
        return kept

    def get_fieldsets(self, request: HttpRequest, obj: User | None = None) -> Any:
        """Leave out what a new account has nothing of yet, and the link that may not be used."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or self.has_change_permission(request, obj):
            return fieldsets
        (_, about), *others = fieldsets
        fields = [name for name in about["fields"] if name != "password_state"]
        return [(None, {**about, "fields": fields}), *others]

    def get_inlines(self, request: HttpRequest, obj: User | None) -> Any:
        """Show the keys of stored accounts."""
        return [] if obj is None else self.inlines

    def formfield_for_manytomany(
        self, db_field: ManyToManyField[Any, Any], request: Any, **options: Any
    ) -> Any:
        """Load the names of permissions in one query."""
        if db_field.name == "user_permissions":
            permissions = db_field.related_model._default_manager
            options["queryset"] = permissions.select_related("content_type")
        return super().formfield_for_manytomany(db_field, request, **options)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Protect `_system`, and administrators from staff."""
        if obj is not None and (obj.is_system or _is_above(request, obj)):
            return False
        return bool(super().has_change_permission(request, obj))

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Protect `_system`, administrators from staff, and everybody from themselves."""
        if obj is not None and (obj.is_system or _is_above(request, obj) or obj == request.user):
            return False
        return bool(super().has_delete_permission(request, obj))

    def create(self, request: HttpRequest, form: Any) -> User:
        """Create the account with its default project and first key."""
        given = form.cleaned_data
        account = services.create_user(
            actor=actor_of(request),
            handle=given["handle"],
            name=given["name"],
            email=given["email"],
            password=given["password1"] or None,
            is_superuser=given.get("is_superuser", False),
        )
        request.new_key = account.api_key  # type: ignore[attr-defined]
        return account.user

    def change(self, request: HttpRequest, row: User, form: Any) -> User:
        """Change the description and the rights; Django itself stores groups and permissions."""
        actor, changes = actor_of(request), form.changes()
        about = {name: changes[name] for name in ("name", "email") if name in changes}
        rights = ("is_active", "is_staff", "is_superuser")
        access = {name: changes[name] for name in rights if name in changes}
        if about:
            services.update_user(actor=actor, handle=row.handle, changes=about)
        if access:
            services.set_access(actor=actor, handle=row.handle, changes=access)
        return row

    def remove(self, request: HttpRequest, row: User) -> None:
        """Delete the account with everything it owns."""
        services.delete_user(actor=actor_of(request), handle=row.handle)

    def response_add(
        self, request: HttpRequest, obj: User, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the account's first key."""
        next_url = reverse("admin:accounts_user_change", args=[obj.pk])
        key: str = request.new_key  # type: ignore[attr-defined]
        return show_key_once(request, self, key, of=obj, next_url=next_url)


# --- Keys -----------------------------------------------------------------------------------------
class KeyState(admin.SimpleListFilter):
    """Which keys still work."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the states."""
        return [("usable", "Usable"), ("expired", "Expired"), ("revoked", "Revoked")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the keys in the chosen state."""
        expired = Q(expires_at__lte=timezone.now())
        match self.value():
            case "usable":
                return queryset.filter(revoked_at__isnull=True).exclude(expired)
            case "expired":
                return queryset.filter(expired, revoked_at__isnull=True)
            case "revoked":
                return queryset.filter(revoked_at__isnull=False)
        return queryset


@admin.register(ApiKey)
class ApiKeyAdmin(ServiceAdmin[ApiKey]):
    """Keys. One is shown when it is made, and afterwards only named and revoked."""

    list_display = [
        "public_id",
        "user",
        "name",
        "state",
        "role_cap",
        "project",
        "expires_at",
        "last_used_at",
        "created_at",
    ]
    list_filter = [KeyState, "role_cap"]
    list_select_related = ["user", "project__owner"]
    search_fields = ["public_id__startswith", "name", "user__handle"]
    search_help_text = "The start of a key's public part, its name, or its account."
    ordering = ["-created_at"]
    date_hierarchy = "created_at"
    autocomplete_fields = ["user", "project"]
    secret_fields = ("digest",)
    actions = ["revoke"]
    fieldsets = [
        (
            None,
            {
                "fields": ["user", "name"],
                "description": "The key itself is shown once, when it is made; only its hash is "
                "stored. A key cannot be changed afterwards: make another and revoke this one.",
            },
        ),
        ("Limits", {"fields": ["role_cap", "project", "expires_at"]}),
        (
            "State",
            {"fields": ["public_id", "state", "revoked_at", "last_used_at", "created_at"]},
        ),
    ]
    _state_fields = ("public_id", "state", "revoked_at", "last_used_at", "created_at")
    _limits = ("user", "role_cap", "project", "expires_at")

    @admin.display(description="State")
    def state(self, key: ApiKey) -> str:
        """Say whether the key still works."""
        if key.revoked_at is not None:
            return "revoked"
        if key.expires_at is not None and key.expires_at <= timezone.now():
            return "expired"
        return "usable"

    def buttons(self, request: HttpRequest, row: ApiKey) -> dict[str, str]:
        """Offer to revoke a key that is not revoked, to those who may."""
        may_be = row.revoked_at is None and self.has_change_permission(request, row)
        return {"revoke": "Revoke this key…"} if may_be else {}

    def get_fieldsets(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        """Leave out the state of a key that is not made yet."""
        return self.fieldsets[:2] if obj is None else self.fieldsets

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> list[str]:
        """Keep all but the name."""
        return [*self._state_fields, *self._limits] if obj is not None else []

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: Any, **options: Any
    ) -> Any:
        """Offer accounts that whoever asks may act as."""
        if db_field.name == "user" and request is not None and not _is_administrator(request):
            options["queryset"] = User.objects.filter(is_staff=False, is_superuser=False)
        return super().formfield_for_foreignkey(db_field, request, **options)

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """Protect the keys of administrators from staff."""
        if obj is not None and _is_above(request, obj.user):
            return False
        return bool(super().has_change_permission(request, obj))

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """Let administrators forget keys; others revoke them."""
        return _is_administrator(request) and bool(super().has_delete_permission(request, obj))

    def create(self, request: HttpRequest, form: Any) -> ApiKey:
        """Make a key and keep it for the page that shows it."""
        given = form.cleaned_data
        project = given["project"]
        key = services.create_key(
            user=given["user"],
            name=given["name"],
            role_cap=Role(given["role_cap"]) if given["role_cap"] else None,
            project_id=None if project is None else project.pk,
            expires_at=given["expires_at"],
        )
        request.new_key = key  # type: ignore[attr-defined]
        parts = keys.parts_of(key)
        return ApiKey.objects.get(public_id=parts.public_id if parts else None)

    def change(self, request: HttpRequest, row: ApiKey, form: Any) -> ApiKey:
        """Rename the key."""
        services.rename_key(key=row, name=form.cleaned_data["name"])
        return row

    def remove(self, request: HttpRequest, row: ApiKey) -> None:
        """Forget the key."""
        services.delete_keys(ApiKey.objects.filter(pk=row.pk))

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the key."""
        next_url = reverse("admin:accounts_apikey_changelist")
        key: str = request.new_key  # type: ignore[attr-defined]
        return show_key_once(request, self, key, of=obj.user, next_url=next_url)

    @admin.action(description="Revoke selected API keys", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        """Name the keys and ask; then revoke them for good."""
        rows = self.chosen(queryset, "Revoke")
        chosen = [key for key in rows if self.has_change_permission(request, key)]
        if request.POST.get("post"):
            for key in chosen:
                self.log_change(request, key, "Revoked.")
            revoked = services.revoke_keys(ApiKey.objects.filter(pk__in=[key.pk for key in chosen]))
            self.message_user(request, f"{revoked} API keys revoked.", messages.SUCCESS)
            return None
        return self.ask(
            request,
            action="revoke",
            title="Revoke API keys",
            question="Whoever uses these keys is refused from now on. This cannot be undone.",
            yes="Yes, revoke",
            rows={key.pk: _described(key) for key in chosen},
        )


def _described(key: ApiKey) -> str:
    name = f" ({key.name})" if key.name else ""
    return f"{key.public_id}{name} of {key.user}"


# --- The audit log --------------------------------------------------------------------------------
@admin.register(AuditEntry)
class AuditEntryAdmin(KeptAdmin[AuditEntry]):
    """What was changed, and by whom; to read."""

    list_display = ["at", "actor", "via", "as_admin", "verb", "kind", "subject"]
    list_filter = ["verb", "kind", "via", "as_admin"]
    search_fields = ["actor", "subject", "owner", "key_id", "request_id"]
    search_help_text = "An account, the name of what was changed, a key's public part, a request."
    date_hierarchy = "at"
    ordering = ["-id"]

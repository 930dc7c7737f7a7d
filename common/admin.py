"""What the pages of the administration site have in common: they write through services.

Django's admin saves and deletes rows itself. Here it hands what was entered to the services that
the API calls too, and shows a service's refusal where the person can do something about it.
"""

import json as stdlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.widgets import (
    AdminTextareaWidget,
    AutocompleteSelect,
    RelatedFieldWidgetWrapper,
)
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db import OperationalError, transaction
from django.db.models import (
    CASCADE,
    DO_NOTHING,
    Field,
    ForeignKey,
    JSONField,
    Model,
    Q,
    QuerySet,
    TextField,
)
from django.forms.models import construct_instance
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.text import capfirst
from rest_framework import serializers

from common import json
from common.errors import Conflict, DomainError, Invalid

admin.site.site_header = "Armarium administration"
admin.site.site_title = "Armarium administration"
admin.site.index_title = "Everything that is stored"

# An action runs one service call a row, within one request. The page that asks sends every row as a
# field, and Django reads a thousand.
MAXIMUM_CHOSEN = 900
# A page that asks "are you sure?" is read by nobody beyond this.
_NAMED_ON_DELETION = 50

M = TypeVar("M", bound=Model)


class Verbatim(forms.CharField):
    """Text of several lines, kept as it was given: browsers send its line ends as CR LF."""

    widget = AdminTextareaWidget

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "strip": False})

    def to_python(self, value: Any) -> Any:
        """Return the text with the line ends that everything else uses."""
        return super().to_python(_with_plain_line_ends(value))

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Say whether more than the line ends differ."""
        return super().has_changed(_with_plain_line_ends(initial), _with_plain_line_ends(data))


def _with_plain_line_ends(value: Any) -> Any:
    return value.replace("\r\n", "\n") if isinstance(value, str) else value


class JsonText(Verbatim):
    """A JSON document as text, read as the API reads it: all that passes can be stored.

    empty: what an empty text stands for.
    """

    def __init__(self, *, empty: type[Any] = dict, **options: Any) -> None:
        self.empty = empty
        # What a model's field would add to these is for Django's own field.
        for name in ("encoder", "decoder"):
            options.pop(name, None)
        fixed = {"initial": empty, "required": False, "show_hidden_initial": False}
        super().__init__(**{**options, **fixed})

    def prepare_value(self, value: Any) -> Any:
        """Return a stored document with a line an entry; what was entered, as it was entered."""
        if isinstance(value, str):
            return value
        return stdlib.dumps(value, indent=2, ensure_ascii=False)

    def to_python(self, value: Any) -> Any:
        """Return the document."""
        text = super().to_python(value)
        if not text.strip():
            return self.empty()
        try:
            document = json.parse(text.encode())
        except Invalid as refusal:
            problem = refusal.errors[0].message.replace("The request body", "The text")
            raise ValidationError(problem) from refusal
        if document is None:
            raise ValidationError("This may not be null; empty the field instead.")
        return document

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Say whether it is another document: 1, 1.0 and true are three, whatever Python says."""
        try:
            return _canonical(initial) != _canonical(self.to_python(data))
        except ValidationError:
            return True


def _canonical(document: Any) -> str:
    return stdlib.dumps(document, sort_keys=True)


class Completion(AutocompleteSelect):
    """Completes names, and bears with values that are no keys: Django's own answers 500.

    among: what the admin that completes is asked besides, in the query string.
    """

    among: Mapping[str, Any] = {}

    def get_url(self) -> str:
        """Return where names come from."""
        url: str = super().get_url()
        return f"{url}?{urlencode(self.among)}" if self.among else url

    def optgroups(self, name: str, value: Sequence[str], attr: dict[str, Any] | None = None) -> Any:
        """Return the options for the values that can be keys."""
        key: Any = self.field.remote_field.model._meta.pk
        return super().optgroups(name, [each for each in value if _fits(key, each)], attr)


def _fits(field: Any, value: str) -> bool:
    try:
        field.to_python(value)
    except ValidationError:
        return False
    return True


class CompletesNames:
    """Gives the fields that complete names our widget; for admins and their inlines."""

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: Any, **options: Any
    ) -> Any:
        """Return the field."""
        options_of: Any = super()
        if db_field.name in options_of.get_autocomplete_fields(request):
            options.setdefault("widget", Completion(db_field, admin.site))
        return options_of.formfield_for_foreignkey(db_field, request, **options)


class NamesFields:
    """Tells screen readers what the fields of an inline's lines are called: no label does."""

    def formfield_for_dbfield(self, db_field: Field[Any, Any], request: Any, **options: Any) -> Any:
        """Return the field."""
        field_of: Any = super()
        field = field_of.formfield_for_dbfield(db_field, request, **options)
        if field is not None:
            field.widget.attrs.setdefault("aria-label", capfirst(field.label))
        return field


class CompletingFilter(admin.FieldListFilter):
    """Narrows a list down to what refers to one row, which a field that completes names chooses.

    Django's own filter would list every row that can be chosen: a server may hold thousands.
    """

    template = "admin/completing_filter.html"
    label = "Name"

    def __init__(
        self,
        field: Any,
        request: HttpRequest,
        params: dict[str, Any],
        model: Any,
        model_admin: Any,
        field_path: str,
    ) -> None:
        super().__init__(field, request, params, model, model_admin, field_path)
        choices = model_admin.admin_site.get_model_admin(field.remote_field.model)
        # Whoever may not see those rows is not told their names by choosing one either.
        self.is_allowed = choices.has_view_permission(request)
        if self.used_parameters and not self.is_allowed:
            raise IncorrectLookupParameters
        given: Any = self.used_parameters.get(field_path, [""])
        self.form = forms.Form({field_path: given[-1]})
        self.form.fields[field_path] = forms.ModelChoiceField(
            choices.get_queryset(request) if self.is_allowed else choices.model.objects.none(),
            required=False,
            label=self.label,
            widget=Completion(field, model_admin.admin_site),
        )
        self.others = [
            (name, value)
            for name, value in request.GET.items()
            if name not in {field_path, "p", "e"}
        ]

    def has_output(self) -> bool:
        """Say whether there is something to choose from."""
        return bool(self.is_allowed)

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Return nothing: the template shows the form."""
        return iter(())

    def expected_parameters(self) -> list[str | None]:
        """Return the one parameter."""
        return [self.field_path]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows that refer to the chosen one, or all."""
        if not self.form.is_valid():
            raise IncorrectLookupParameters
        chosen = self.form.cleaned_data[self.field_path]
        return queryset if chosen is None else queryset.filter(**{self.field_path: chosen})


class ServiceForm(forms.ModelForm[M]):
    """A form whose rules are the services': it checks the shape of what was entered, and no more.

    refusal: what a service said to these very values.
    error_fields: the services' names of fields, where the form has others.
    shape: what the API checks of fields that have the same names there.
    """

    refusal: DomainError | None = None
    error_fields: Mapping[str, str] = {}
    shape: type[serializers.Serializer[Any]] | None = None

    def changes(self) -> dict[str, Any]:
        """Return what was entered and differs from what the form showed."""
        return {name: self.cleaned_data[name] for name in self.changed_data}

    def clean(self) -> dict[str, Any]:
        """Return what was entered, read as the API would read it."""
        given = super().clean() or self.cleaned_data
        if self.shape is None:
            return given
        entered = {name: given[name] for name in self.changed_data if name in given}
        read = self.shape(
            data={name: each for name, each in entered.items() if not isinstance(each, Model)},
            partial=True,
        )
        read.is_valid()
        for name, problems in read.errors.items():
            self.add_error(name, problems)
        return {**given, **read.validated_data}

    def _post_clean(self) -> None:
        # Django's own would also ask for uniqueness and constraints, in the words of the database.
        exclude = self._get_validation_exclusions()  # type: ignore[attr-defined]
        try:
            self.instance = construct_instance(
                self, self.instance, self._meta.fields, self._meta.exclude
            )
            self.instance.clean_fields(exclude=exclude)
        except ValidationError as error:
            self._update_errors(error)  # type: ignore[attr-defined]
        if self.refusal is not None:
            self._show(self.refusal)

    def _show(self, refusal: DomainError) -> None:
        if not refusal.errors:
            self.add_error(None, refusal.detail)
        for each in refusal.errors:
            name = each.location.removeprefix("body.").split(".")[0]
            name = self.error_fields.get(name, name)
            self.add_error(name if name in self.fields else None, each.message)


class CappedPaginator(Paginator[M]):
    """Counts no further than anybody pages: counting all of a big table reads all of it."""

    cap = 10_000

    @cached_property
    def count(self) -> int:
        """Return how many rows there are, or the cap."""
        rows: Any = self.object_list
        return int(rows.order_by().values("pk")[: self.cap].count())


class ServiceAdmin(CompletesNames, admin.ModelAdmin[M]):
    """Lists rows, and writes them through services: see `create`, `change` and `remove`.

    Django has asked its own permissions before it calls any of these.
    """

    form = ServiceForm  # type: ignore[assignment]
    formfield_overrides = {
        TextField: {"form_class": Verbatim},
        JSONField: {"form_class": JsonText},
    }
    show_full_result_count = False
    error_fields: Mapping[str, str] = {}
    # Where a refused deletion leads: the page on which something can be done about it.
    refused_deletion_page = "change"
    # Whether rows go with what they belong to without being counted, and nobody needs a permission.
    part_of_its_owner = False
    # Nobody may find out by filtering what no page shows.
    secret_fields: tuple[str, ...] = ()

    def create(self, request: HttpRequest, form: Any) -> M:
        """Make what was entered, by a service; return it."""
        raise NotImplementedError

    def change(self, request: HttpRequest, row: M, form: Any) -> M:
        """Change what was entered, by a service; return the row as it is now."""
        raise NotImplementedError

    def remove(self, request: HttpRequest, row: M) -> None:
        """Delete a row, by a service."""
        raise NotImplementedError

    def console_page(self, row: M) -> str | None:
        """Return the address of the page on which people see the row; None where there is none."""
        return None

    def buttons(self, request: HttpRequest, row: M) -> Mapping[str, str]:
        """Return the actions that the row's own page offers, too, with what their buttons say."""
        return {}

    # --- Reading ----------------------------------------------------------------------------------
    @property
    def media(self) -> forms.Media:
        """Return what filters that complete names need, too."""
        filters = [each[1] for each in self.list_filter if isinstance(each, tuple)]
        if not any(issubclass(each, CompletingFilter) for each in filters):
            return super().media
        return super().media + Completion(None, self.admin_site).media

    def get_queryset(self, request: HttpRequest) -> QuerySet[M]:
        """Return the rows with what their names need: fields that complete show names, too."""
        related = self.list_select_related
        rows = super().get_queryset(request)
        return rows.select_related(*related) if isinstance(related, list | tuple) else rows

    def get_list_display(self, request: HttpRequest) -> Any:
        """Add a way to the page of each row for superusers, who may see all of those."""
        columns = [*super().get_list_display(request)]
        has_pages = type(self).console_page is not ServiceAdmin.console_page
        return [*columns, "in_console"] if has_pages and _sees_all(request) else columns

    @admin.display(description="Console")
    def in_console(self, row: M) -> str:
        """Return a link to the page on which people see the row."""
        page = self.console_page(row)
        if page is None:
            return ""
        return format_html(
            '<a href="{}">Open<span class="visually-hidden"> {}</span></a>', page, row
        )

    def get_view_on_site_url(self, obj: M | None = None) -> str | None:
        """Return where the button leads that opens the row in the console."""
        return None if obj is None else self.console_page(obj)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Refuse to filter by secrets."""
        if lookup.startswith(self.secret_fields):
            return False
        return bool(super().lookup_allowed(lookup, value, request))  # type: ignore[arg-type]

    def formfield_for_dbfield(self, db_field: Field[Any, Any], request: Any, **options: Any) -> Any:
        """Link to related rows, but make, change and delete them on their own pages only."""
        field = super().formfield_for_dbfield(db_field, request, **options)
        if field is not None and isinstance(field.widget, RelatedFieldWidgetWrapper):
            field.widget.can_add_related = False
            field.widget.can_change_related = False
            field.widget.can_delete_related = False
        return field

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the list, or run an action on all chosen rows or none."""
        try:
            if request.method != "POST":
                return super().changelist_view(request, extra_context)
            with transaction.atomic():
                return super().changelist_view(request, extra_context)
        except DomainError as refusal:
            self.message_user(request, refusal.detail, messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())
        except OperationalError:
            if request.method == "POST" or not request.GET:
                raise
            self.message_user(request, "This search took too long; narrow it down.", messages.ERROR)
            return HttpResponseRedirect(request.path)

    # --- Actions ----------------------------------------------------------------------------------
    def chosen(self, rows: QuerySet[M], verb: str) -> list[M]:
        """Return the rows of an action; raise Conflict for more than one request can work at."""
        found = list(rows[: MAXIMUM_CHOSEN + 1])
        if len(found) > MAXIMUM_CHOSEN:
            raise Conflict(
                f"{verb} at most {MAXIMUM_CHOSEN} {self.opts.verbose_name_plural} at once."
            )
        return found

    def ask(
        self,
        request: HttpRequest,
        *,
        action: str,
        title: str,
        question: str,
        yes: str,
        rows: Mapping[Any, str],
        form: forms.Form | None = None,
    ) -> HttpResponse:
        """Return a page that asks before something is done; it sends the action again, with `post`.

        rows: what each is called, by its key. yes: what the button says that does it.
        form: what is to be chosen besides.
        """
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "opts": self.opts,
            "media": self.media if form is None else self.media + form.media,
            "action": action,
            "question": question,
            "yes": yes,
            "rows": rows,
            "form": form,
        }
        return TemplateResponse(request, "admin/confirmation.html", context)

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: M | None = None,
    ) -> HttpResponse:
        """Show the form, and below it the actions that the row's page offers."""
        if obj is not None and change:
            allowed = self.get_actions(request)
            wanted = self.buttons(request, obj).items()
            context["buttons"] = [(name, label) for name, label in wanted if name in allowed]
        return super().render_change_form(request, context, add, change, form_url, obj)

    # --- Writing ----------------------------------------------------------------------------------
    def get_form(
        self, request: HttpRequest, obj: M | None = None, change: bool = False, **options: Any
    ) -> Any:
        """Return the form; after a refusal, one that shows it."""
        form: Any = super().get_form(request, obj, change=change, **options)
        form.error_fields = self.error_fields
        form.refusal = getattr(request, "refusal", None)
        return form

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Save what was entered, or nothing of it: a refusal shows the form again."""
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except DomainError as refusal:
            # What was written so far is rolled back. A form that knows the refusal is invalid, so
            # the second time nothing is saved.
            request.refusal = refusal  # type: ignore[attr-defined]
            return super().changeform_view(request, object_id, form_url, extra_context)

    def save_model(self, request: HttpRequest, obj: M, form: Any, change: bool) -> None:
        """Hand the values to a service, and take over what it stored."""
        stored = self.change(request, obj, form) if change else self.create(request, form)
        obj.pk = stored.pk
        obj._state.adding = False
        obj.refresh_from_db()

    # --- Deleting ---------------------------------------------------------------------------------
    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Delete the row, or say why not."""
        try:
            return super().delete_view(request, object_id, extra_context)
        except DomainError as refusal:
            self.message_user(request, refusal.detail, messages.ERROR)
            row = f"admin:{self.opts.app_label}_{self.opts.model_name}"
            page = f"{row}_{self.refused_deletion_page}"
            return HttpResponseRedirect(reverse(page, args=[object_id]))

    def delete_model(self, request: HttpRequest, obj: M) -> None:
        """Delete the row by its service."""
        self.remove(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[M]) -> None:
        """Delete each row by its service; `changelist_view` makes it all or none."""
        for row in queryset:
            self.remove(request, row)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Return what a deletion takes along, in numbers, and which permissions it lacks.

        Django's own would load every row: a project may hold millions of embeddings.
        """
        rows = self.chosen(objs, "Delete")
        names = [f"{capfirst(self.opts.verbose_name)}: {row}" for row in rows[:_NAMED_ON_DELETION]]
        if len(rows) > _NAMED_ON_DELETION:
            names.append(f"… and {len(rows) - _NAMED_ON_DELETION} more")
        numbers = {str(self.opts.verbose_name_plural): len(rows)}
        lacking = set()
        if not all(self.has_delete_permission(request, row) for row in rows):
            lacking.add(str(self.opts.verbose_name))
        for model, condition in self._going_along([row.pk for row in rows]).items():
            number = model._default_manager.filter(condition).count()
            if not number:
                continue
            numbers[str(model._meta.verbose_name_plural)] = number
            if not may(request, "delete", model):
                lacking.add(str(model._meta.verbose_name))
        return names, numbers, lacking, []

    def _going_along(self, keys: list[Any]) -> dict[type[Model], Q]:
        conditions: dict[type[Model], Q] = {}
        for model, path in _cascades(self.model):
            if self.admin_site.is_registered(model) and not self._is_part(model):
                condition = Q(**{f"{path}__in": keys})
                conditions[model] = conditions.get(model, Q()) | condition
        return conditions

    def _is_part(self, model: type[Model]) -> bool:
        return bool(getattr(self.admin_site.get_model_admin(model), "part_of_its_owner", False))


class KeptAdmin(ServiceAdmin[M]):
    """Lists what the program keeps by itself: to look at, for whoever has the permission."""

    part_of_its_owner = True
    actions: Any = ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: the program makes these."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        """Return False as `has_add_permission` does."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        """Return False: these go with what they belong to."""
        return False


def may(request: HttpRequest, action: str, model: type[Model]) -> bool:
    """Tell whether whoever asks has one of Django's permissions: view, add, change or delete."""
    options = model._meta
    user: Any = request.user
    return bool(user.has_perm(f"{options.app_label}.{action}_{options.model_name}"))


def may_view(request: HttpRequest, model: type[Model]) -> bool:
    """Tell whether whoever asks may see rows of a model: who may change them, may see them."""
    return may(request, "view", model) or may(request, "change", model)


def _sees_all(request: HttpRequest) -> bool:
    user: Any = request.user
    return bool(user.is_superuser)


def _cascades(model: type[Model], path: str = "") -> Iterator[tuple[type[Model], str]]:
    """Yield each model whose rows go with rows of this one, and the lookup that leads back."""
    for relation in model._meta.related_objects:
        # Where Django is to do nothing, the database deletes.
        if getattr(relation, "on_delete", None) in {CASCADE, DO_NOTHING}:
            lookup = "__".join(filter(None, [relation.field.name, path]))
            yield relation.related_model, lookup
            yield from _cascades(relation.related_model, lookup)

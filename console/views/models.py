"""Models, as people call LLM services: instances, the templates they are made from, standards."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.translation import gettext

from accounts.models import Role, Share, User
from accounts.policy import Actor, Level, account_level, level_of, require_account
from common.errors import DomainError, Forbidden, Invalid, NotFound
from common.handles import SYSTEM
from console.model_forms import (
    BorrowerForm,
    DeleteServiceForm,
    ModelForm,
    NewModelForm,
    NewTemplateForm,
    ServiceForm,
    TemplateForm,
    TrialForm,
    values_of,
)
from console.pages import Page, refuse
from console.words import translated
from llm_services import embedding, selectors, services
from llm_services.models import Definition, DefinitionShare, Instance, InstanceShare
from projects.selectors import count_projects_on, projects_on

# Of a list at once; a person has a handful.
_MOST = 200
_MOST_PROJECTS = 50


def _share_instance(*, actor: Actor, owner: str, handle: str, user: str) -> Instance:
    # Both roles mean the same for an instance.
    return services.share_instance(
        actor=actor, owner=owner, handle=handle, user=user, role=Role.READER
    )


@dataclass(frozen=True)
class Kind:
    """What pages about models and about templates do not have in common.

    page: the name of the page that shows one, and a part of the names of the others.
    form, new_form: for a stored one, and for a new one.
    """

    page: str
    form: type[ServiceForm]
    new_form: type[ServiceForm]
    shares: type[Share]
    find: Callable[..., Instance | Definition]
    create: Callable[..., Instance | Definition]
    update: Callable[..., Instance | Definition]
    delete: Callable[..., None]
    share: Callable[..., Instance | Definition]
    unshare: Callable[..., Instance | Definition]


MODEL = Kind(
    page="model",
    form=ModelForm,
    new_form=NewModelForm,
    shares=InstanceShare,
    find=selectors.instance_for,
    create=services.create_instance,
    update=services.update_instance,
    delete=services.delete_instance,
    share=_share_instance,
    unshare=services.unshare_instance,
)
TEMPLATE = Kind(
    page="template",
    form=TemplateForm,
    new_form=NewTemplateForm,
    shares=DefinitionShare,
    find=selectors.definition_for,
    create=services.create_definition,
    update=services.update_definition,
    delete=services.delete_definition,
    share=services.share_definition,
    unshare=services.unshare_definition,
)


class _SignedIn(Page):
    """A page for everybody with an account."""

    needs_account = True

    @property
    def user(self) -> User:
        """Return whose page it is."""
        return cast("User", self.actor.user)

    @property
    def may_create(self) -> bool:
        """Tell whether the account may get new models and templates."""
        return account_level(self.actor, self.user) >= Level.OWNER


class Models(_SignedIn):
    """What the account can base projects on, and make models from."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return models, templates and standards."""
        handle = self.user.handle
        instances = list(selectors.instances_of(self.actor, handle)[:_MOST])
        definitions = list(selectors.definitions_of(self.actor, handle)[:_MOST])
        builtin = list(selectors.instances_of(self.actor, SYSTEM)[:_MOST])
        if handle == SYSTEM:
            builtin = []
        context = {
            "mine": [each for each in instances if each.owner_id == self.user.pk],
            "borrowed": [each for each in instances if each.owner_id != self.user.pk],
            "builtin": builtin,
            "templates": definitions,
            "standards": selectors.all_standards(),
            "may_create": self.may_create,
        }
        return self.show("console/models/models.html", context)


class New(_SignedIn):
    """A new model, from scratch or from a template; or a new template."""

    parameters = frozenset({"template"})
    kind: Kind = MODEL

    def _check(self, request: HttpRequest) -> None:
        super()._check(request)
        require_account(self.actor, Level.OWNER, self.user)

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the form, filled in as the template says."""
        return self._page(self._form(initial=self._template()))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Create it and go there."""
        form: Any = self._form(request.POST)
        if form.is_valid():
            values = form.changes()
            handle, owner = values.pop("handle"), self.user.handle
            try:
                self.kind.create(actor=self.actor, owner=owner, handle=handle, values=values)
            except DomainError as error:
                _refuse(form, error)
            else:
                return HttpResponseRedirect(reverse(self.kind.page, args=[owner, handle]))
        return self._page(form, status=400)

    def _template(self) -> dict[str, Any]:
        owner, _, handle = self.request.GET.get("template", "").partition("/")
        if not owner:
            return {}
        definition = selectors.definition_for(self.actor, Level.READER, owner=owner, handle=handle)
        named = {"definition_owner": owner, "definition_handle": handle}
        return {**values_of(definition), **named}

    def _form(self, *given: Any, **options: Any) -> ServiceForm:
        return self.kind.new_form(*given, standards=selectors.all_standards(), **options)

    def _page(self, form: ServiceForm, *, status: int = 200) -> HttpResponse:
        address = self.request.build_absolute_uri(reverse("models"))
        context = {"form": form, "kind": self.kind.page, "address": f"{address}{self.user.handle}/"}
        return self.show("console/models/new.html", context, status=status)


class ServicePage(_SignedIn):
    """A page about one model or one template.

    level: what is needed to see it.
    """

    kind: Kind = MODEL
    level: ClassVar[Level] = Level.READER
    service: Instance | Definition

    def dispatch(
        self, request: HttpRequest, *args: Any, owner: str = "", handle: str = "", **kwargs: Any
    ) -> HttpResponseBase:
        """Remember which one it is about."""
        self.owner, self.handle = owner, handle
        return super().dispatch(request, *args, **kwargs)

    def _check(self, request: HttpRequest) -> None:
        super()._check(request)
        try:
            self.service = self.kind.find(
                self.actor, Level.READER, owner=self.owner, handle=self.handle
            )
        except (Forbidden, NotFound) as error:
            raise NotFound(
                gettext("There is nothing called %(name)s here, or nobody has shared it with you.")
                % {"name": f"{self.owner[:40]}/{self.handle[:40]}"}
            ) from error
        if level_of(self.service) < self.level:
            raise Forbidden(
                gettext("Only the owner of %(name)s and administrators may do this.")
                % {"name": self.service}
            )

    @property
    def where(self) -> dict[str, Any]:
        """Return what selectors and services take to find it."""
        return {"actor": self.actor, "owner": self.owner, "handle": self.handle}

    def to(self) -> HttpResponse:
        """Return the way to the page of the service, after a form was done."""
        return HttpResponseRedirect(reverse(self.kind.page, args=[self.owner, self.handle]))


class Service(ServicePage):
    """One model or template: what it is, who uses it."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the page."""
        return self._page()

    def _page(self, *, status: int = 200, **given: Any) -> HttpResponse:
        """Return the page, with the forms that were filled in wrongly in place of new ones."""
        service = self.service
        # What the program brings along can only be used.
        is_fixed = isinstance(service, Instance) and service.is_builtin
        is_owner = level_of(service) >= Level.OWNER
        context: dict[str, Any] = {
            "service": service,
            "is_owner": is_owner,
            "may_change": is_owner and not is_fixed,
            "may_create": self.may_create,
            "share_form": BorrowerForm(),
            "delete_form": DeleteServiceForm(handle=self.handle),
            "trial_form": TrialForm(),
            **given,
        }
        if context["may_change"]:
            context["shares"] = self.kind.shares.of(service)
        if isinstance(service, Instance):
            context |= self._use(service, is_owner=is_owner)
        template = f"console/models/{self.kind.page}.html"
        return self.show(template, context, status=status)

    def _use(self, instance: Instance, *, is_owner: bool) -> dict[str, Any]:
        """Return which projects are on it: how many others there are is for its owner."""
        named = list(projects_on(self.actor, instance)[:_MOST_PROJECTS])
        total = count_projects_on(instance) if is_owner else len(named)
        return {
            "projects": named,
            "others": total - len(named),
            "in_use": total,
            "fingerprint": instance.fingerprint().hex(),
        }


class Edit(ServicePage):
    """Changing a model or a template."""

    level = Level.OWNER

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the form as it is stored, without the key."""
        return self._page(self._form(initial=values_of(self.service)))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Change it; say so if the provider's key went with its server."""
        form: Any = self._form(request.POST)
        if form.is_valid():
            before, changes = self.service, form.changes()
            try:
                after = self.kind.update(**self.where, changes=changes)
            except DomainError as error:
                _refuse(form, error)
            else:
                messages.success(request, gettext("Saved."))
                if "api_key" not in changes and _key_went(before, after):
                    messages.warning(
                        request,
                        gettext(
                            "The stored key was erased: it was given for another server. Type the "
                            "key of the new one."
                        ),
                    )
                return self.to()
        return self._page(form, status=400)

    def _form(self, *given: Any, **options: Any) -> ServiceForm:
        form = self.kind.form(*given, standards=selectors.all_standards(), **options)
        if isinstance(self.service, Instance):
            is_set = self.service.has_api_key
            state = (
                gettext("Provider's API key: set")
                if is_set
                else gettext("Provider's API key: not set")
            )
            form.fields["api_key"].label = state
        return form

    def _page(self, form: ServiceForm, *, status: int = 200) -> HttpResponse:
        context = {"form": form, "service": self.service, "kind": self.kind.page}
        return self.show("console/models/edit.html", context, status=status)


def _key_went(before: Instance | Definition, after: Instance | Definition) -> bool:
    had, has = (isinstance(each, Instance) and each.has_api_key for each in (before, after))
    return had and not has


class Test(Service):
    """Whether a model answers."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest) -> HttpResponse:
        """Embed a short text and tell how it went."""
        form = TrialForm(request.POST)
        context: dict[str, Any] = {"trial_form": form}
        if form.is_valid():
            try:
                instance = cast("Instance", self.service)
                context["trial"] = embedding.try_out(instance, form.cleaned_data["text"])
            except DomainError as error:
                # Its owner's to mend; nothing is wrong with this request.
                context["failure"] = translated(error.detail)
        status = 400 if form.errors else 200
        if self.is_partial("trial"):
            partial = {**context, "service": self.service}
            return self.show("console/models/trial.html", partial, status=status)
        return self._page(status=status, **context)


class ShareService(Service):
    """Letting somebody else use a model or a template."""

    http_method_names = ["post", "options"]
    level = Level.OWNER

    def post(self, request: HttpRequest) -> HttpResponse:
        """Share it."""
        form = BorrowerForm(request.POST)
        if form.is_valid():
            user = form.cleaned_data["user"]
            try:
                self.kind.share(**self.where, user=user)
            except DomainError as error:
                refuse(form, error, share_with_handle="user")
            else:
                messages.success(request, gettext("%(user)s may use it now.") % {"user": user})
                return self.to()
        return self._page(status=400, share_form=form)


class UnshareService(ServicePage):
    """Taking a model or a template back."""

    http_method_names = ["post", "options"]
    level = Level.OWNER

    def post(self, request: HttpRequest) -> HttpResponse:
        """Take it back at once."""
        user = request.POST.get("user", "")
        self.kind.unshare(**self.where, user=user)
        said = gettext("%(user)s may use it for new projects no more.")
        messages.success(request, said % {"user": user})
        return self.to()


class DeleteService(Service):
    """Deleting a model or a template."""

    http_method_names = ["post", "options"]
    level = Level.OWNER

    def post(self, request: HttpRequest) -> HttpResponse:
        """Delete it, unless projects use it."""
        form = DeleteServiceForm(request.POST, handle=self.handle)
        if form.is_valid():
            try:
                self.kind.delete(**self.where)
            except DomainError as error:
                form.add_error(None, translated(error.detail))
            else:
                messages.success(request, gettext("%(name)s is deleted.") % {"name": self.handle})
                return HttpResponseRedirect(reverse("models"))
        return self._page(status=400, delete_form=form)


def _refuse(form: forms.Form, error: DomainError) -> None:
    """Let a form say what a service said against it."""
    fields: Mapping[str, str] = {"instance_handle": "handle", "definition_handle": "handle"}
    refuse(form, error, **fields)
    if error.status == 409 and "handle" in form.fields and not isinstance(error, Invalid):
        form.errors.pop("__all__", None)
        form.add_error("handle", translated(error.detail))

"""The shapes of what people type about LLM services; what is allowed, the services say."""

from collections.abc import Iterable
from typing import Any, cast

from django import forms
from django.utils.translation import gettext, gettext_lazy

from common import handles
from console.forms import PlainForm, TypedForm
from llm_services.models import MAXIMUM_DIMENSIONS, ApiStandard, Definition, Instance

_PLAIN = {"autocapitalize": "none", "autocorrect": "off", "spellcheck": "false"}
_TYPED = {**_PLAIN, "autocomplete": "off"}
_LARGEST = 2_147_483_647
# As many as the API compares at once.
_MOST_COMPARED = 200


class ServiceForm(PlainForm):
    """What models and templates have in common: where a model is, and what it returns."""

    description = forms.CharField(
        label=gettext_lazy("Description"),
        required=False,
        max_length=10_000,
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    api_standard = forms.ChoiceField(
        label=gettext_lazy("API standard"),
        help_text=gettext_lazy("Which protocol the provider speaks; most speak OpenAI's."),
    )
    endpoint = forms.CharField(
        label=gettext_lazy("Endpoint"),
        max_length=2000,
        help_text=gettext_lazy("Such as https://api.openai.com/v1/embeddings."),
        widget=forms.TextInput(attrs={**_TYPED, "inputmode": "url"}),
        error_messages={"required": gettext_lazy("Type the address that makes vectors.")},
    )
    model = forms.CharField(
        label=gettext_lazy("Model"),
        max_length=255,
        help_text=gettext_lazy("As the provider calls it, such as text-embedding-3-small."),
        widget=forms.TextInput(attrs=_TYPED),
        error_messages={"required": gettext_lazy("Type the name of the model.")},
    )
    dimensions = forms.IntegerField(
        label=gettext_lazy("Dimensions"),
        min_value=1,
        max_value=MAXIMUM_DIMENSIONS,
        help_text=gettext_lazy("How many numbers its vectors have, such as 1536."),
        error_messages={"required": gettext_lazy("Type how many numbers the vectors have.")},
    )
    context_limit = forms.IntegerField(
        label=gettext_lazy("Longest text in tokens"),
        required=False,
        min_value=1,
        max_value=_LARGEST,
    )

    def __init__(self, *args: Any, standards: Iterable[ApiStandard], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = cast("forms.ChoiceField", self.fields["api_standard"])
        field.choices = [
            (each.handle, f"{each.handle}: {each.description}" if each.description else each.handle)
            for each in standards
        ]


def values_of(service: Instance | Definition) -> dict[str, Any]:
    """Return what a form shows of a stored service at first; never a key."""
    shown = ("description", "endpoint", "model", "dimensions", "context_limit")
    values = {name: getattr(service, name) for name in shown}
    values["api_standard"] = service.api_standard.handle
    if isinstance(service, Definition):
        values["is_public"] = service.is_public
    return values


def _handle() -> forms.CharField:
    return forms.CharField(
        label=gettext_lazy("Handle"),
        max_length=handles.MAXIMUM_LENGTH,
        help_text=gettext_lazy(
            "3 to 20 of the characters A–Z, a–z, 0–9, hyphen and underscore. It is a part of the "
            "address and stays as it is."
        ),
        widget=forms.TextInput(attrs=_TYPED),
        error_messages={"required": gettext_lazy("Give it a handle, such as my-openai.")},
    )


# --- Models ---------------------------------------------------------------------------------------
class ModelForm(ServiceForm):
    """A model that is there; the provider's key goes in and never comes out."""

    api_key = forms.CharField(
        label=gettext_lazy("Provider's API key"),
        required=False,
        max_length=10_000,
        help_text=gettext_lazy(
            "Empty: the stored key stays. It was given for one server: if scheme, host or port of "
            "the endpoint change and no key is typed here, the stored one is erased."
        ),
        # Never rendered with a value, not even after an error.
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}, render_value=False),
    )
    erase_key = forms.BooleanField(label=gettext_lazy("Remove the stored key"), required=False)

    def clean(self) -> dict[str, Any]:
        """Refuse to set and remove at once."""
        given: dict[str, Any] = super().clean() or {}
        if given.get("api_key") and given.get("erase_key"):
            self.add_error("erase_key", gettext("Type a key or remove it, not both."))
        return given

    def changes(self) -> dict[str, Any]:
        """Return what was typed, as the service takes it."""
        given = dict(self.cleaned_data)
        if given.pop("erase_key", False):
            given["api_key"] = ""
        elif not given.get("api_key"):
            given.pop("api_key", None)
        return given


class NewModelForm(ModelForm):
    """A new model."""

    handle = _handle()
    definition_owner = forms.CharField(required=False, widget=forms.HiddenInput)
    definition_handle = forms.CharField(required=False, widget=forms.HiddenInput)
    field_order = ["handle"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.fields["erase_key"]
        self.fields["api_key"].help_text = gettext_lazy(
            "Stored encrypted, and shown to nobody, not even to you."
        )

    def changes(self) -> dict[str, Any]:
        """Return what was typed; a template's values are in the form already."""
        given = super().changes()
        for name in ("definition_owner", "definition_handle"):
            given[name] = given[name] or None
        return given


# --- Templates ------------------------------------------------------------------------------------
class TemplateForm(ServiceForm):
    """A template, without secrets."""

    is_public = forms.BooleanField(
        label=gettext_lazy("Everybody with an account may read it and make models of it"),
        required=False,
    )

    def changes(self) -> dict[str, Any]:
        """Return what was typed."""
        return dict(self.cleaned_data)


class NewTemplateForm(TemplateForm):
    """A new template."""

    handle = _handle()
    field_order = ["handle"]


# --- Sharing, testing, deleting -------------------------------------------------------------------
class BorrowerForm(PlainForm):
    """Somebody who may use a model or a template."""

    user = forms.CharField(
        label=gettext_lazy("Handle"),
        max_length=handles.MAXIMUM_LENGTH,
        widget=forms.TextInput(attrs=_TYPED),
        error_messages={"required": gettext_lazy("Type the handle of an account.")},
    )


class TrialForm(PlainForm):
    """What to try a model with."""

    text = forms.CharField(
        label=gettext_lazy("Text to embed"),
        required=False,
        max_length=2_000,
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "placeholder": gettext_lazy("A short sentence of ours")}
        ),
    )


class DeleteServiceForm(TypedForm):
    """The end of a model or a template."""

    asking = gettext_lazy("Type the handle to confirm")
    missing = gettext_lazy("Type the handle.")
    other = gettext_lazy("This is not the handle; it is %(handle)s.")


# --- The model of a project -----------------------------------------------------------------------
class ChooseModelForm(PlainForm):
    """One of the models that the owner of a project may use."""

    instance = forms.ChoiceField(label=gettext_lazy("Model"), widget=forms.RadioSelect)

    def __init__(self, *args: Any, instances: Iterable[Instance], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.instances = {str(each): each for each in instances}
        field = cast("forms.ChoiceField", self.fields["instance"])
        field.choices = [(name, name) for name in self.instances]
        field.error_messages["required"] = gettext("Choose a model.")

    @property
    def chosen(self) -> Instance:
        """Return the model."""
        return self.instances[self.cleaned_data["instance"]]


class EstimateForm(PlainForm):
    """What is known of a provider's price."""

    price = forms.FloatField(
        label=gettext_lazy("Price of a million tokens"),
        required=False,
        min_value=0,
        max_value=1_000_000,
        help_text=gettext_lazy("In whatever currency; empty where you do not want to know."),
        widget=forms.NumberInput(attrs={"step": "any"}),
    )


class CompareForm(PlainForm):
    """How many texts to compare."""

    compare = forms.IntegerField(required=False, min_value=1, max_value=_MOST_COMPARED)

"""The shapes of what people type about agents, users and files: as the API reads them."""

from collections.abc import Iterable
from mimetypes import guess_type
from typing import Any, ClassVar, cast

from django import forms
from django.utils.translation import gettext, gettext_lazy
from rest_framework import serializers

from common.admin import JsonText, Verbatim
from console.forms import PlainForm
from resources.api.serializers import AgentIn, EndUserIn, FileChangeIn
from resources.models import (
    DEFAULT_SYSTEM_TEMPLATE,
    MAXIMUM_ABOUT_LENGTH,
    MAXIMUM_MEDIA_TYPE_LENGTH,
    Agent,
    EndUser,
    File,
    ProjectResource,
)

_TYPED = {"autocomplete": "off"}
_ADDRESS = {**_TYPED, "autocapitalize": "none", "autocorrect": "off", "spellcheck": "false"}


def _lines(rows: int) -> forms.Textarea:
    return forms.Textarea(attrs={"rows": rows})


def _json(rows: int) -> forms.Textarea:
    return forms.Textarea(attrs={"rows": rows, "spellcheck": "false"})


def _about() -> Verbatim:
    return Verbatim(
        label=gettext_lazy("About"),
        required=False,
        max_length=MAXIMUM_ABOUT_LENGTH,
        widget=_lines(3),
    )


def _metadata() -> JsonText:
    return JsonText(
        label=gettext_lazy("Metadata"),
        widget=_json(4),
        help_text=gettext_lazy('A JSON object, such as {"team": "history"}.'),
    )


class ResourceForm(PlainForm):
    """Something that is in a project.

    shape: what the API checks of fields that have the same names there.
    """

    shape: ClassVar[type[serializers.Serializer[Any]]]

    def clean(self) -> dict[str, Any]:
        """Return what was typed, read as the API would read it."""
        given: dict[str, Any] = super().clean() or {}
        read = self.shape(
            data={name: given[name] for name in self._shaped() if name in given}, partial=True
        )
        read.is_valid()
        for name, problems in read.errors.items():
            # A problem inside of a document has a place there.
            said = problems if isinstance(problems, list) else [str(problems)]
            self.add_error(name if name in self.fields else None, [str(each) for each in said])
        return {**given, **read.validated_data}

    def _shaped(self) -> Iterable[str]:
        shaped: Iterable[str] = self.shape().get_fields()
        return [name for name in shaped if name in self.fields]

    def values(self) -> dict[str, Any]:
        """Return what was typed, as the services take it."""
        return dict(self.cleaned_data)


class MovingForm(forms.Form):
    """What is added to the form of something that is there: in which project it is.

    projects: the handles of those that it can be in.
    """

    project = forms.ChoiceField(
        label=gettext_lazy("Project"),
        help_text=gettext_lazy("Choose another one of the same owner to move it there."),
    )

    def __init__(self, *args: Any, projects: Iterable[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = cast("forms.ChoiceField", self.fields["project"])
        field.choices = [(handle, handle) for handle in projects]


# --- Agents ---------------------------------------------------------------------------------------
class AgentForm(ResourceForm):
    """An agent: what a model is told to be, and with which settings."""

    shape = AgentIn

    name = forms.CharField(
        label=gettext_lazy("Name"),
        strip=False,
        max_length=255,
        widget=forms.TextInput(attrs=_TYPED),
        error_messages={"required": gettext_lazy("Give the agent a name.")},
    )
    canonical_name = forms.CharField(
        label=gettext_lazy("Canonical name"),
        required=False,
        max_length=255,
        help_text=gettext_lazy(
            "A letter, then letters, digits, hyphens and underscores. Empty: made from the name."
        ),
        widget=forms.TextInput(attrs=_ADDRESS),
    )
    about = _about()
    model = forms.CharField(
        label=gettext_lazy("Model"),
        required=False,
        max_length=255,
        widget=forms.TextInput(attrs=_ADDRESS),
    )
    instructions = JsonText(
        label=gettext_lazy("Instructions"),
        empty=list,
        widget=_json(3),
        help_text=gettext_lazy('A JSON list of texts, such as ["Be brief.", "Answer in Latin."].'),
    )
    default_settings = JsonText(
        label=gettext_lazy("Settings"),
        widget=_json(3),
        help_text=gettext_lazy(
            'What its model is called with: a JSON object, such as {"temperature": 0}.'
        ),
    )
    default_system_template = Verbatim(
        label=gettext_lazy("System template"),
        required=False,
        widget=_json(6),
        help_text=gettext_lazy("A Jinja template of its system message. Empty: the usual one."),
    )
    metadata = _metadata()

    def clean(self) -> dict[str, Any]:
        """Let what is empty stand for the default, and an empty name for none."""
        given = self.cleaned_data
        if not given.get("canonical_name"):
            given.pop("canonical_name", None)
        if given.get("default_system_template") == "":
            given["default_system_template"] = DEFAULT_SYSTEM_TEMPLATE
        return super().clean()


class MovingAgentForm(MovingForm, AgentForm):
    """An agent that is there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["canonical_name"].help_text = gettext(
            "A letter, then letters, digits, hyphens and underscores. Empty: it stays as it is."
        )


# --- End users ------------------------------------------------------------------------------------
class EndUserForm(ResourceForm):
    """Somebody who talks to an agent."""

    shape = EndUserIn

    # Names may have line breaks, which a field of one line would remove unasked.
    name = Verbatim(label=gettext_lazy("Name"), required=False, max_length=120, widget=_lines(1))
    about = _about()
    metadata = _metadata()


class MovingEndUserForm(MovingForm, EndUserForm):
    """An end user that is there."""


# --- Files ----------------------------------------------------------------------------------------
class FileForm(ResourceForm):
    """A file; its content never changes."""

    shape = FileChangeIn

    name = Verbatim(
        label=gettext_lazy("Name"),
        max_length=120,
        widget=_lines(1),
        error_messages={"required": gettext_lazy("Give the file a name.")},
    )
    description = Verbatim(
        label=gettext_lazy("Description"),
        required=False,
        max_length=MAXIMUM_ABOUT_LENGTH,
        widget=_lines(2),
    )
    mime_type = forms.CharField(
        label=gettext_lazy("Media type"),
        required=False,
        max_length=MAXIMUM_MEDIA_TYPE_LENGTH,
        help_text=gettext_lazy("Such as text/plain or application/pdf. Empty: not said."),
        widget=forms.TextInput(attrs=_ADDRESS),
    )

    def clean(self) -> dict[str, Any]:
        """Let an empty media type stand for none."""
        self._complete()
        if not self.cleaned_data.get("mime_type"):
            self.cleaned_data.pop("mime_type", None)
            return {**super().clean(), "mime_type": None}
        return super().clean()

    def _complete(self) -> None:
        """Add what is known otherwise."""


class MovingFileForm(MovingForm, FileForm):
    """A file that is there."""


class NewFileForm(FileForm):
    """A file and its content."""

    upload = forms.FileField(
        label=gettext_lazy("File"),
        error_messages={
            "required": gettext_lazy("Choose a file."),
            "empty": gettext_lazy("This file is empty; a file has at least one byte."),
        },
    )
    field_order = ["upload"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].required = False
        self.fields["name"].help_text = gettext("Empty: as the file is called.")
        self.fields["mime_type"].help_text = gettext("Empty: what the end of the name stands for.")

    def _complete(self) -> None:
        upload = self.cleaned_data.get("upload")
        if upload is None:
            return
        if "name" in self.cleaned_data:
            self.cleaned_data["name"] = self.cleaned_data["name"] or upload.name
        if "mime_type" in self.cleaned_data and not self.cleaned_data["mime_type"]:
            self.cleaned_data["mime_type"] = guess_type(self.cleaned_data.get("name") or "")[0]

    def values(self) -> dict[str, Any]:
        """Return what was typed, with the bytes as `content`."""
        given = super().values()
        given["content"] = given.pop("upload").read()
        return given


def initial_of(row: ProjectResource) -> dict[str, Any]:
    """Return what the form of something that is there shows at first."""
    names = [*row.settable, *(["canonical_name"] if isinstance(row, Agent) else [])]
    return {**{name: getattr(row, name) for name in names}, "project": row.project.handle}


NEW_FORMS: dict[type[ProjectResource], type[ResourceForm]] = {
    Agent: AgentForm,
    EndUser: EndUserForm,
    File: NewFileForm,
}
FORMS: dict[type[ProjectResource], type[Any]] = {
    Agent: MovingAgentForm,
    EndUser: MovingEndUserForm,
    File: MovingFileForm,
}

"""The shapes of what people type; what is allowed, the services say."""

import io
from collections.abc import Iterable
from typing import Any, ClassVar

import orjson
from django import forms
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.utils.translation import gettext, gettext_lazy

from accounts.models import Role, User
from common import handles
from common.errors import Invalid
from console.words import translated, word
from embeddings import filters
from embeddings.filters import Condition
from embeddings.hybrid import Mode
from embeddings.selectors import Order
from llm_services.models import Instance
from projects.services import OnResources

_FILTER = ("key", "value", "filter")
_HANDLE = {"autocapitalize": "none", "autocorrect": "off", "spellcheck": "false"}


class PlainForm(forms.Form):
    """A form whose labels need no colon; templates lay it out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"label_suffix": "", **kwargs})
        for field in self.fields.values():
            # Whoever sends the form reads all that is wrong beside the fields, in our words.
            field.widget.use_required_attribute = lambda initial: False


class PasswordForm(PlainForm):
    """Handle and password."""

    handle = forms.CharField(
        label=gettext_lazy("Handle"),
        max_length=handles.MAXIMUM_LENGTH,
        widget=forms.TextInput(attrs={**_HANDLE, "autocomplete": "username"}),
        error_messages={"required": gettext_lazy("Type your handle.")},
    )
    password = forms.CharField(
        label=gettext_lazy("Password"),
        strip=False,
        max_length=1000,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
        error_messages={"required": gettext_lazy("Type your password.")},
    )


class KeyForm(PlainForm):
    """An API key."""

    key = forms.CharField(
        label=gettext_lazy("API key"),
        max_length=1000,
        help_text=gettext_lazy("It begins with arm_. The session reaches as far as the key does."),
        # Browsers offer to keep what is typed into such a field, and nobody reads along.
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        error_messages={"required": gettext_lazy("Paste your API key.")},
    )


class SchemaForm(PlainForm):
    """A metadata schema."""

    schema = forms.CharField(
        label=gettext_lazy("Metadata schema"),
        required=False,
        # The service limits its bytes.
        max_length=100_000,
        help_text=gettext_lazy(
            "A JSON Schema that the metadata of every text must match. Empty: any metadata."
        ),
        widget=forms.Textarea(attrs={"rows": 12, "spellcheck": "false", "autocapitalize": "none"}),
    )
    after = forms.CharField(required=False, strip=False, max_length=300)


class ProjectForm(PlainForm):
    """A new project."""

    handle = forms.CharField(
        label=gettext_lazy("Handle"),
        max_length=handles.MAXIMUM_LENGTH,
        help_text=gettext_lazy(
            "3 to 20 of the characters A–Z, a–z, 0–9, hyphen and underscore. It is a part of the "
            "project's address and stays as it is."
        ),
        widget=forms.TextInput(attrs={**_HANDLE, "autocomplete": "off"}),
        error_messages={"required": gettext_lazy("Give the project a handle, such as letters.")},
    )
    description = forms.CharField(
        label=gettext_lazy("Description"),
        required=False,
        max_length=255,
        help_text=gettext_lazy("One sentence on what these texts are, for whoever finds them."),
    )
    instance = forms.ChoiceField(
        label=gettext_lazy("Model"),
        help_text=gettext_lazy("What makes the vectors. All vectors of a project come from one."),
        widget=forms.RadioSelect,
    )
    schema = SchemaForm.base_fields["schema"]

    def __init__(self, *args: Any, instances: Iterable[Instance], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(str(each), each) for each in instances]
        self.instances = dict(choices)
        field = self.fields["instance"]
        field.choices = [(name, name) for name, _ in choices]  # type: ignore[attr-defined]
        field.initial = choices[0][0]


class UploadForm(PlainForm):
    """A file, or what it would hold."""

    file = forms.FileField(
        label=gettext_lazy("File"),
        required=False,
        # Cut, not refused: it is for people to recognize the file by.
        allow_empty_file=True,
        help_text=gettext_lazy("JSON lines (.jsonl), a table (.csv) or Parquet (.parquet)."),
        widget=forms.FileInput(attrs={"accept": ".jsonl,.ndjson,.csv,.tsv,.parquet"}),
    )
    pasted = forms.CharField(
        label=gettext_lazy("Or paste them"),
        required=False,
        strip=False,
        max_length=2_000_000,
        help_text=gettext_lazy(
            "Lines of JSON, each an object; or a table copied out of a spreadsheet, with the names "
            "of the columns first."
        ),
        widget=forms.Textarea(
            attrs={
                "rows": 6,
                "spellcheck": "false",
                "placeholder": '{"text_id": "l-1", "text": "Dear Bob", "metadata": {"year": 1801}}',
            }
        ),
    )

    def clean(self) -> dict[str, Any]:
        """Return what is offered, in either way."""
        given: dict[str, Any] = super().clean() or {}
        file, pasted = given.get("file"), given.get("pasted") or ""
        if self.errors:
            return given
        if file and pasted.strip():
            raise forms.ValidationError(gettext("Choose a file or paste texts, not both."))
        if file:
            given["offered"] = {"name": file.name, "content": file, "size": file.size}
        elif pasted.strip():
            content = pasted.encode(errors="surrogatepass")
            is_json = pasted.lstrip("\ufeff \t\r\n").startswith("{")
            name = gettext("Pasted") + (".jsonl" if is_json else ".csv")
            stream = io.BytesIO(content)
            given["offered"] = {"name": name, "content": stream, "size": len(content)}
        else:
            self.add_error("file", gettext("Choose a file, or paste texts below."))
        return given


class DescriptionForm(PlainForm):
    """What a project says of itself."""

    description = forms.CharField(
        label=gettext_lazy("Description"),
        required=False,
        max_length=255,
        widget=forms.Textarea(attrs={"rows": 3}),
    )


class MapForm(PlainForm):
    """How a map is coloured."""

    key = forms.CharField(
        label=gettext_lazy("Colour by metadata key"),
        required=False,
        max_length=1000,
        widget=forms.TextInput(attrs={**_HANDLE, "list": "metadata-keys", "autocomplete": "off"}),
    )


class ShareForm(PlainForm):
    """Somebody who is given a role."""

    user = forms.CharField(
        label=gettext_lazy("Handle"),
        max_length=handles.MAXIMUM_LENGTH,
        widget=forms.TextInput(attrs={**_HANDLE, "autocomplete": "off"}),
        error_messages={"required": gettext_lazy("Type the handle of an account.")},
    )
    role = forms.ChoiceField(
        label=gettext_lazy("Role"),
        choices=[
            (Role.READER.value, gettext_lazy("Reader: reads and searches")),
            (
                Role.EDITOR.value,
                gettext_lazy("Editor: reads, searches, adds, changes and deletes texts"),
            ),
        ],
        initial=Role.READER.value,
    )

    def clean_user(self) -> str:
        """Refuse the sign for everybody, which has a switch of its own."""
        user: str = self.cleaned_data["user"]
        if user == "*":
            raise forms.ValidationError(
                gettext("To share with everybody, make the project public.")
            )
        return user


class TypedForm(PlainForm):
    """A form that asks for a handle to be typed, so that nobody does it by accident.

    asking, missing, other: its label, and what is said where nothing or something else was typed.
    """

    asking: ClassVar[Any] = gettext_lazy("Type the handle of the project to confirm")
    missing: ClassVar[Any] = gettext_lazy("Type the handle of the project.")
    other: ClassVar[Any] = gettext_lazy("This is not the handle of the project; it is %(handle)s.")

    typed = forms.CharField(widget=forms.TextInput(attrs={**_HANDLE, "autocomplete": "off"}))

    def __init__(self, *args: Any, handle: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._handle = handle
        self.fields["typed"].label = self.asking
        self.fields["typed"].error_messages["required"] = self.missing

    def clean_typed(self) -> str:
        """Compare."""
        typed: str = self.cleaned_data["typed"]
        if typed != self._handle:
            raise forms.ValidationError(self.other % {"handle": self._handle})
        return typed


class TransferForm(TypedForm):
    """Who becomes the owner."""

    new_owner = forms.CharField(
        label=gettext_lazy("Handle of the new owner"),
        max_length=handles.MAXIMUM_LENGTH,
        widget=forms.TextInput(attrs={**_HANDLE, "autocomplete": "off"}),
        error_messages={"required": gettext_lazy("Type the handle of an account.")},
    )
    field_order = ["new_owner", "typed"]


class DeleteForm(TypedForm):
    """What becomes of the agents, users and files in the project."""

    on_resources = forms.ChoiceField(
        label=gettext_lazy("Its agents, users and files"),
        required=False,
        choices=[
            (OnResources.MOVE.value, gettext_lazy("Move them to the default project")),
            (OnResources.DELETE.value, gettext_lazy("Delete them, too")),
        ],
        widget=forms.RadioSelect,
    )
    field_order = ["on_resources", "typed"]


class AccountForm(PlainForm):
    """A new account."""

    handle = forms.CharField(
        label=gettext_lazy("Handle"),
        max_length=handles.MAXIMUM_LENGTH,
        help_text=gettext_lazy(
            "3 to 20 of the characters A–Z, a–z, 0–9, hyphen and underscore. It is the login name "
            "and a part of every address, and stays as it is."
        ),
        widget=forms.TextInput(attrs={**_HANDLE, "autocomplete": "off"}),
        error_messages={"required": gettext_lazy("Give the account a handle, such as alice.")},
    )
    name = forms.CharField(
        label=gettext_lazy("Name"),
        required=False,
        max_length=50,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    email = forms.CharField(
        label=gettext_lazy("Email"),
        required=False,
        max_length=100,
        widget=forms.EmailInput(attrs={"autocomplete": "off"}),
    )
    password = forms.CharField(
        label=gettext_lazy("Password"),
        required=False,
        strip=False,
        max_length=1000,
        help_text=gettext_lazy("Leave it empty for an account that works through its keys only."),
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    is_admin = forms.BooleanField(
        label=gettext_lazy("Administrator: may do everything, with everybody’s things"),
        required=False,
    )

    def clean(self) -> dict[str, Any]:
        """Ask the rules for passwords, which compare it with the rest."""
        given: dict[str, Any] = super().clean() or {}
        if given.get("password"):
            names = ("handle", "name", "email")
            user = User(**{name: given.get(name) or "" for name in names})
            _check_password(self, given["password"], user)
        return given


class NewPasswordForm(PlainForm):
    """What an account signs in with from now on."""

    password = forms.CharField(
        label=gettext_lazy("New password"),
        strip=False,
        max_length=1000,
        help_text=gettext_lazy("At least 12 characters. Sessions opened with the old one end."),
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        error_messages={"required": gettext_lazy("Type a password.")},
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._user = user

    def clean(self) -> dict[str, Any]:
        """Ask the rules for passwords."""
        given: dict[str, Any] = super().clean() or {}
        if "password" in given:
            _check_password(self, given["password"], self._user)
        return given


def _check_password(form: forms.Form, password: str, user: User) -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        form.add_error("password", error)


class AccessForm(PlainForm):
    """Rights that are given to an account, or taken."""

    change = forms.TypedChoiceField(
        choices=[(each, each) for each in ("appoint", "dismiss", "activate", "deactivate")],
        coerce={
            "appoint": {"is_superuser": True, "is_staff": True},
            "dismiss": {"is_superuser": False, "is_staff": False},
            "activate": {"is_active": True},
            "deactivate": {"is_active": False},
        }.__getitem__,
    )


class DeleteAccountForm(TypedForm):
    """The end of an account."""

    asking = gettext_lazy("Type the handle of the account to confirm")
    missing = gettext_lazy("Type the handle of the account.")
    other = gettext_lazy("This is not the handle of the account; it is %(handle)s.")


class AuditForm(PlainForm):
    """Which entries of the audit log are wanted."""

    verb = forms.ChoiceField(label=gettext_lazy("What was done"), required=False)
    kind = forms.ChoiceField(label=gettext_lazy("To what"), required=False)
    account = forms.CharField(
        label=gettext_lazy("By whom"),
        required=False,
        max_length=handles.MAXIMUM_LENGTH,
        widget=forms.TextInput(attrs={**_HANDLE, "autocomplete": "off"}),
    )
    since = forms.DateField(
        label=gettext_lazy("From"),
        required=False,
        input_formats=["%Y-%m-%d"],
        widget=forms.DateInput(format="%Y-%m-%d", attrs={"type": "date"}),
    )
    until = forms.DateField(
        label=gettext_lazy("To"),
        required=False,
        input_formats=["%Y-%m-%d"],
        widget=forms.DateInput(format="%Y-%m-%d", attrs={"type": "date"}),
    )

    def __init__(
        self, *args: Any, verbs: Iterable[str], kinds: Iterable[str], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        for name, terms in (("verb", verbs), ("kind", kinds)):
            choices = [("", gettext("Everything")), *((each, word(each)) for each in terms)]
            self.fields[name].choices = choices  # type: ignore[attr-defined]


class FilterForm(PlainForm):
    """Which texts are meant, by their metadata."""

    key = forms.CharField(
        label=gettext_lazy("Metadata key"),
        required=False,
        max_length=1000,
        widget=forms.TextInput(attrs={**_HANDLE, "list": "metadata-keys", "autocomplete": "off"}),
    )
    value = forms.CharField(label=gettext_lazy("is"), required=False, max_length=10_000)
    filter = forms.CharField(
        label=gettext_lazy("Filter as JSON"),
        required=False,
        max_length=20_000,
        widget=forms.TextInput(attrs={**_HANDLE, "placeholder": '{"year": {"gte": 1790}}'}),
    )

    def clean(self) -> dict[str, Any]:
        """Read the filter that key, value and JSON make together."""
        given: dict[str, Any] = super().clean() or {}
        given["condition"] = None
        try:
            given["condition"] = self._condition(*(given.get(name, "") for name in _FILTER))
        except Invalid as error:
            place = error.errors[0].location if error.errors else ""
            self.add_error("key" if "key" in place else "filter", translated(error.detail))
        return given

    def _condition(self, key: str, value: str, text: str) -> Condition | None:
        parts: list[Condition] = []
        if key and value:
            filters.parse_path(key, "query.key")
            parts.append(filters.parse({key: {"in": _spelled(value)}}, "query.key"))
        elif value:
            self.add_error("key", gettext("Say which metadata key should have this value."))
        if text:
            parts.append(filters.parse_text(text, "query.filter"))
        if len(parts) < 2:
            return parts[0] if parts else None
        return filters.AllOf(tuple(parts))


def _spelled(value: str) -> list[Any]:
    """Return what somebody may mean who types a value: 1791 is a number, or a text."""
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError:
        return [value]
    return [value, parsed] if isinstance(parsed, bool | int | float) else [value]


class TextsForm(FilterForm):
    """Which texts are meant, and in which order."""

    sort = forms.CharField(
        label=gettext_lazy("Sort by metadata key"),
        required=False,
        max_length=1000,
        help_text=gettext_lazy("Empty: by the id. Texts without the key come last."),
        widget=forms.TextInput(attrs={**_HANDLE, "list": "metadata-keys", "autocomplete": "off"}),
    )
    order = forms.ChoiceField(
        label=gettext_lazy("Order"),
        required=False,
        choices=[("", gettext_lazy("Smallest first")), ("down", gettext_lazy("Greatest first"))],
    )

    def clean_sort(self) -> str:
        """Refuse what is no path of keys."""
        sort: str = self.cleaned_data["sort"]
        if sort:
            try:
                filters.parse_path(sort, "query.sort")
            except Invalid as error:
                raise forms.ValidationError(error.detail) from error
        return sort

    @property
    def order_of_texts(self) -> Order:
        """Return what the valid form asks for."""
        sort = self.cleaned_data["sort"]
        path = filters.parse_path(sort, "query.sort") if sort else None
        return Order(path, descending=self.cleaned_data["order"] == "down")


class SearchForm(FilterForm):
    """What to look for, and how."""

    q = forms.CharField(
        label=gettext_lazy("Find texts that mean something like this"),
        required=False,
        max_length=10_000,
    )
    mode = forms.TypedChoiceField(
        label=gettext_lazy("Look for"),
        required=False,
        coerce=Mode,
        empty_value=Mode.VECTOR,
        choices=[
            (Mode.VECTOR.value, gettext_lazy("The meaning")),
            (Mode.HYBRID.value, gettext_lazy("The meaning and the words")),
            (Mode.TEXT.value, gettext_lazy("The words alone")),
        ],
        initial=Mode.VECTOR.value,
    )
    text_id = forms.CharField(
        label=gettext_lazy("Find texts like the one with this id"),
        required=False,
        strip=False,
        max_length=300,
        widget=forms.TextInput(attrs={**_HANDLE, "autocomplete": "off"}),
    )
    threshold = forms.FloatField(
        label=gettext_lazy("Least similarity"),
        required=False,
        min_value=0,
        max_value=1,
        initial=0,
        widget=forms.NumberInput(attrs={"step": "0.05"}),
    )
    limit = forms.TypedChoiceField(
        label=gettext_lazy("Results"),
        required=False,
        coerce=int,
        empty_value=10,  # type: ignore[arg-type]
        choices=[(10, "10"), (25, "25"), (50, "50"), (100, "100")],
        initial=10,
    )
    unlike = forms.CharField(
        label=gettext_lazy("Leave out texts with the same"),
        required=False,
        max_length=1000,
        widget=forms.TextInput(
            attrs={
                **_HANDLE,
                "list": "metadata-keys",
                "autocomplete": "off",
                "placeholder": "author",
            }
        ),
    )

    def clean_threshold(self) -> float:
        """Return the least similarity; 0 where none is given: people see how similar texts are."""
        return float(self.cleaned_data["threshold"] or 0)


class VectorForm(SearchForm):
    """A search by a pasted vector."""

    vector = forms.CharField(
        label=gettext_lazy("Vector"),
        max_length=1_000_000,
        widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false", "placeholder": "[0.02, …]"}),
        error_messages={"required": gettext_lazy("Paste a vector.")},
    )

    def clean_vector(self) -> bytes:
        """Return the body of a search."""
        text = self.cleaned_data["vector"].strip()
        if not text.startswith(("[", '"', "{")):
            text = f"[{','.join(text.replace(',', ' ').split())}]"
        try:
            vector = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise forms.ValidationError(
                gettext("Paste numbers with commas between them, such as [0.02, -0.11, 0.31].")
            ) from error
        return orjson.dumps({"vector": vector})

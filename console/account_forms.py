"""The shapes of what people type about their own accounts; what is allowed, the services say."""

from collections.abc import Iterable
from datetime import UTC, datetime, time
from typing import Any, cast

from django import forms
from django.utils.translation import gettext_lazy

from accounts.models import Role
from console.forms import PlainForm
from projects.models import Project


class ProfileForm(PlainForm):
    """What an account says of itself."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        required=False,
        max_length=50,
        help_text=gettext_lazy("As you want to be called. The handle stays what it is."),
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )
    email = forms.CharField(
        label=gettext_lazy("Email address"),
        required=False,
        max_length=100,
        help_text=gettext_lazy("Only you and administrators see it."),
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )


def _password(autocomplete: str) -> forms.PasswordInput:
    return forms.PasswordInput(attrs={"autocomplete": autocomplete})


class NewPasswordForm(PlainForm):
    """Another password, twice.

    needs_current: whether there is one, which has to be given too.
    """

    current = forms.CharField(
        label=gettext_lazy("Password of now"),
        strip=False,
        max_length=1000,
        widget=_password("current-password"),
        error_messages={"required": gettext_lazy("Type your password of now.")},
    )
    new = forms.CharField(
        label=gettext_lazy("New password"),
        strip=False,
        max_length=1000,
        help_text=gettext_lazy(
            "At least 12 characters, and no common one: a short sentence will do."
        ),
        widget=_password("new-password"),
        error_messages={"required": gettext_lazy("Type a new password.")},
    )
    again = forms.CharField(
        label=gettext_lazy("New password once more"),
        strip=False,
        max_length=1000,
        widget=_password("new-password"),
        error_messages={"required": gettext_lazy("Type the new password once more.")},
    )

    def __init__(self, *args: Any, needs_current: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not needs_current:
            del self.fields["current"]

    def clean(self) -> dict[str, Any]:
        """Compare the two."""
        given: dict[str, Any] = super().clean() or {}
        new, again = given.get("new"), given.get("again")
        if new is not None and again is not None and new != again:
            self.add_error("again", gettext_lazy("This is not the same as the line above."))
        return given


class NewKeyForm(PlainForm):
    """An API key, and how far it reaches."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=255,
        help_text=gettext_lazy("What it is for, so that you know which one to revoke some day."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        error_messages={"required": gettext_lazy("Say what the key is for, such as notebook.")},
    )
    role = forms.ChoiceField(
        label=gettext_lazy("May"),
        required=False,
        choices=[
            ("", gettext_lazy("Everything that you may")),
            (Role.EDITOR.value, gettext_lazy("Read, search, add, change and delete texts")),
            (Role.READER.value, gettext_lazy("Read and search only")),
        ],
    )
    project = forms.ChoiceField(label=gettext_lazy("In"), required=False)
    last_day = forms.DateField(
        label=gettext_lazy("Last day"),
        required=False,
        help_text=gettext_lazy(
            "It works to the end of this day (UTC). Empty: until it is revoked."
        ),
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
        error_messages={"invalid": gettext_lazy("Write the day as 2027-12-31.")},
    )

    def __init__(self, *args: Any, projects: Iterable[Project], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._projects = {str(each): each for each in projects}
        everywhere = ("", gettext_lazy("All projects that you reach"))
        field = cast("forms.ChoiceField", self.fields["project"])
        field.choices = [everywhere, *((name, name) for name in self._projects)]

    def scope(self) -> dict[str, Any]:
        """Return what was chosen, as the service takes it."""
        given = self.cleaned_data
        project = self._projects.get(given["project"])
        last_day = given["last_day"]
        end = None
        if last_day is not None:
            end = datetime.combine(last_day, time.max, tzinfo=UTC)
        return {
            "name": given["name"],
            "role_cap": Role(given["role"]) if given["role"] else None,
            "project_id": None if project is None else project.pk,
            "expires_at": end,
        }

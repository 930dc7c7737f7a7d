"""Registers the app, and has failures to sign in noted."""

from typing import Any

from django.apps import AppConfig
from django.contrib.auth.signals import user_login_failed


class AccountsConfig(AppConfig):
    name = "accounts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Listen to Django's sign-in, which the administration site uses, too."""
        user_login_failed.connect(_note_failure)


def _note_failure(credentials: dict[str, Any], request: Any = None, **other: Any) -> None:
    from accounts import audit
    from accounts.models import User

    # Those whom too many failures keep out are not asked for their password any more.
    if request is None or getattr(request, "axes_locked_out", False):
        return
    # What is typed may be a password in the wrong field: only handles that there are are noted.
    user = User.objects.filter(handle=str(credentials.get("username", ""))[:100]).first()
    if user is not None:
        audit.note(None, audit.Verb.SIGN_IN_FAILED, user)

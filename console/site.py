"""What every page says: who is signed in, the theme, the languages."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from accounts.policy import ANONYMOUS, Actor

THEME_COOKIE = "theme"
# "auto" is what the system prefers, and needs no cookie.
THEMES = {
    "auto": gettext_lazy("Automatic"),
    "light": gettext_lazy("Light"),
    "dark": gettext_lazy("Dark"),
}


def context(request: HttpRequest, actor: Actor = ANONYMOUS) -> dict[str, Any]:
    """Return what the base template needs."""
    theme = request.COOKIES.get(THEME_COOKIE, "auto")
    return {
        "account": "" if actor.user is None else actor.user.handle,
        "is_staff": actor.key is None and actor.user is not None and actor.user.is_staff,
        "is_admin": actor.is_admin,
        "key_name": "" if actor.key is None else actor.key.name or actor.key.public_id,
        "theme": theme if theme in THEMES else "auto",
        "themes": THEMES.items(),
        "languages": settings.LANGUAGES,
        "version": settings.VERSION,
        "here": request.get_full_path() if request.method == "GET" else request.path,
    }

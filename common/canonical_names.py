"""What projects and agents are called in the Projects API: the one rule for canonical names."""

import re
import string
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from django.utils.crypto import get_random_string
from django.utils.text import slugify

from common.errors import Conflict, FieldError, Invalid

MAXIMUM_LENGTH = 255
PATTERN = r"[A-Za-z][A-Za-z0-9_-]*"
RULE = (
    f"a letter A–Z or a–z, then letters, digits, hyphens and underscores, at most {MAXIMUM_LENGTH}"
    " characters"
)

_whole_name = re.compile(PATTERN, re.ASCII)
# A project's is its handle in `/v1`, where new handles have at most 20 characters.
_LONGEST_STEM = 14
_SUFFIX_LENGTH = 5
# The first is free, as good as always.
_ATTEMPTS = 3
_SUFFIX = string.digits + string.ascii_lowercase


class NameTaken(Conflict):
    """The account has something of this kind and canonical name already."""

    def __init__(self, what: str, name: str) -> None:
        message = f"You already have the {what} '{name}'; choose another canonical name."
        super().__init__(message, errors=[FieldError("body.canonical_name", message)])


class IdTaken(Conflict):
    """The account has something of this kind and id already, though not where the key reaches."""

    def __init__(self, what: str, uuid: UUID) -> None:
        super().__init__(f"The id '{uuid}' is taken by another {what} of yours; choose another id.")


def check_canonical_name(name: str) -> str:
    """Return the name, or raise Invalid naming the field and the rule."""
    if len(name) > MAXIMUM_LENGTH or _whole_name.fullmatch(name) is None:
        shown = name if len(name) <= 40 else f"{name[:40]}…"
        message = f"'{shown}' is not a canonical name: use {RULE}."
        raise Invalid(message, errors=[FieldError("body.canonical_name", message, "pattern")])
    return name


def save_named(
    given: str | None, *, display_name: str, what: str, save: Callable[[str], object]
) -> None:
    """Save something new under the canonical name that was given, else under a generated one.

    what: the kind, such as ``agent``.
    save: saves it under a name, and raises NameTaken. Raises that for a given name, and Invalid.
    """
    if given is not None:
        save(check_canonical_name(given))
        return
    for _ in range(_ATTEMPTS):
        with suppress(NameTaken):
            save(generate_canonical_name(display_name, what=what))
            return
    raise Conflict("No free canonical name was found; choose one.")


def generate_canonical_name(name: str, *, what: str) -> str:
    """Return a canonical name that speaks of a display name and is most likely free.

    It has letters, digits and underscores only. Of 60 million endings one is chosen by chance.
    what: what stands for a name that has no letters in it, such as ``agent``.
    """
    stem = slugify(name).replace("-", "_").lstrip(f"{string.digits}_")[:_LONGEST_STEM].rstrip("_")
    return f"{stem or what}_{get_random_string(_SUFFIX_LENGTH, _SUFFIX)}"

"""The one rule for handles of accounts, projects, instances, definitions and standards."""

import re

from common.errors import FieldError, Invalid

MINIMUM_LENGTH = 3
MAXIMUM_LENGTH = 20
CHARACTERS = r"[A-Za-z0-9_-]"
RULE = (
    f"{MINIMUM_LENGTH} to {MAXIMUM_LENGTH} of the characters A–Z, a–z, 0–9, hyphen and underscore"
)

SYSTEM = "_system"
# Older servers used these as internal principals, so a copied access list could name them.
RESERVED_ACCOUNTS = frozenset({SYSTEM, "admin", "public", "*"})
# Path segments that follow an owner's handle in the URLs of instances and definitions.
RESERVED_SERVICES = frozenset({"from-definition", "share", "shared-with"})

_whole_handle = re.compile(rf"{CHARACTERS}{{{MINIMUM_LENGTH},{MAXIMUM_LENGTH}}}", re.ASCII)


def check_handle(
    handle: str, *, field: str, reserved: frozenset[str] = frozenset(), what: str = "handle"
) -> str:
    """Return the handle, or raise Invalid naming the field and the rule."""
    if _whole_handle.fullmatch(handle) is None:
        raise _refused(field, f"'{_short(handle)}' is not a valid {what}: use {RULE}.")
    if handle.lower() in reserved:
        raise _refused(field, f"'{handle}' is reserved; choose another {what}.")
    return handle


def same_as_address(given: str | None, address: str, *, field: str) -> None:
    """Raise Invalid when a body names another handle than the URL; handles cannot be changed."""
    if given is not None and given != address:
        raise _refused(
            field,
            f"{field} '{_short(given)}' does not match '{address}' in the URL; a handle cannot be "
            "changed. Leave the field out or send the same handle.",
        )


def _refused(field: str, message: str) -> Invalid:
    return Invalid(message, errors=[FieldError(f"body.{field}", message)])


def _short(value: str) -> str:
    return value if len(value) <= 40 else f"{value[:40]}…"

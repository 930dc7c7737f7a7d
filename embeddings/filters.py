"""Filters on metadata: which rows a search may return. Knows no models.

A filter is a JSON object of paths and values, all of which must be there:
``{"author": "Ann", "source.year": 1791}``.
"""

import math
from dataclasses import dataclass
from typing import Any

from common import json
from common.errors import FieldError, Invalid

MAXIMUM_FIELDS = 32
MAXIMUM_DEPTH = 32
MAXIMUM_PATH_LENGTH = 1_000
MAXIMUM_VALUE_LENGTH = 10_000
_LARGEST_WHOLE = 2**63

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Equality:
    """Keeps rows whose metadata has this value at this path, split at its dots.

    A key that holds the dots itself counts too. Where the metadata has a list, one of its elements
    has to be the value.
    """

    path: tuple[str, ...]
    value: Scalar


def parse(given: Any, location: str) -> tuple[Equality, ...]:
    """Return the conditions of a filter; raise Invalid naming the field.

    given: what JSON says.
    """
    if not isinstance(given, dict):
        raise _refused(location, 'filter must be a JSON object such as {"author": "Ann"}.')
    if not 1 <= len(given) <= MAXIMUM_FIELDS:
        raise _refused(
            location, f"filter must name 1 to {MAXIMUM_FIELDS} fields; this one names {len(given)}."
        )
    return tuple(
        Equality(_path(path, location), _value(value, f"{location}.{path[:80]}"))
        for path, value in given.items()
    )


def parse_text(given: str, location: str) -> tuple[Equality, ...]:
    """Return the conditions of a filter in a query string; raise Invalid."""
    try:
        value = json.parse(given.encode(), location=location)
    except Invalid as error:
        raise _refused(location, f"filter is not a JSON object: {error.detail}") from error
    return parse(value, location)


def _path(path: str, location: str) -> tuple[str, ...]:
    keys = tuple(json.checked_text(path, location).split("."))
    if len(path) > MAXIMUM_PATH_LENGTH or "" in keys or len(keys) > MAXIMUM_DEPTH:
        raise _refused(
            location,
            f"filter names '{path[:80]}'; a path is 1 to {MAXIMUM_DEPTH} keys with dots between "
            f"them, {MAXIMUM_PATH_LENGTH} characters at most.",
        )
    return keys


def _value(value: Any, location: str) -> Scalar:
    if isinstance(value, str):
        if len(value) > MAXIMUM_VALUE_LENGTH:
            raise _refused(
                location, f"A value has at most {MAXIMUM_VALUE_LENGTH} characters in a filter."
            )
        return json.checked_text(value, location)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int) and -_LARGEST_WHOLE <= value < _LARGEST_WHOLE:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise _refused(
        location,
        "A filter compares with a string, a number, true, false or null: no lists, no "
        "objects. For what lies deeper, write the path with dots.",
    )


def _refused(location: str, message: str) -> Invalid:
    return Invalid(message, errors=[FieldError(location, message)])

"""`metadata_filter` of the Projects API: from a query string to conditions on a jsonb column.

Keys and values are data from beginning to end: they become JSON documents, bound as parameters,
which the column must contain. Containment (`@>`) is what a GIN index with `jsonb_path_ops` serves.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from operator import and_, or_
from typing import Any

from django.db.models import Q

from common import json
from common.errors import FieldError, Invalid

PARAMETER = "metadata_filter"
PREFIX = f"{PARAMETER}."
MAXIMUM_VALUES = 100

# RFC 8259; longer ones are text in anybody's book.
_number = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_LONGEST_NUMBER = 40
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None}


def condition(given: Iterable[tuple[str, Sequence[str]]]) -> Q:
    """Return what the `metadata` of rows must fulfil for parameters named `metadata_filter…`.

    given: the names and values of such parameters. `metadata_filter.a.b=v` asks for the value v at
    {"a": {"b": …}} or at the key "a.b", as text or as the JSON scalar that it spells; given several
    times, for an array that holds all the values. `metadata_filter={…}` asks for containment.
    Raises Invalid naming a parameter that is neither.
    """
    parts: list[Q] = []
    left = MAXIMUM_VALUES
    for name, values in given:
        left -= len(values)
        if left < 0:
            raise _invalid(f"At most {MAXIMUM_VALUES} values of {PARAMETER} can be combined.")
        for value in values:
            json.checked_text(value, f"query.{name[:80]}")
        if name == PARAMETER:
            parts.append(_contains(_object(values)))
        else:
            path = json.checked_text(name.removeprefix(PREFIX), "query (a name)")
            parts.append(_leaf(path, values))
    return _all(parts)


def _leaf(path: str, values: Sequence[str]) -> Q:
    """Ask for all the values at one of the places that a path means."""
    many = len(values) > 1
    return _any(
        _all(
            _any(_contains(place([each] if many else each)) for each in _meanings(value))
            for value in values
        )
        for place in _places(path)
    )


def _places(path: str) -> list[Callable[[Any], dict[str, Any]]]:
    """Return what puts a value where a path leads: the key with the dots in it, or key by key."""
    keys = path.split(".")

    def nested(value: Any) -> dict[str, Any]:
        inner: dict[str, Any] = reduce(lambda within, key: {key: within}, reversed(keys), value)
        return inner

    # What would be nested any deeper was never stored.
    return [lambda value: {path: value}, *([nested] if 1 < len(keys) < json.MAX_DEPTH else [])]


def _any(conditions: Iterable[Q]) -> Q:
    return reduce(or_, conditions)


def _all(conditions: Iterable[Q]) -> Q:
    return reduce(and_, conditions, Q())


def _meanings(text: str) -> list[Any]:
    """Return the text, and the JSON scalar it spells if it spells one."""
    if text in _WORDS:
        return [text, _WORDS[text]]
    if len(text) <= _LONGEST_NUMBER and _number.fullmatch(text):
        number = int(text) if text.lstrip("-").isdigit() else float(text)
        if math.isfinite(number):
            return [text, number]
    return [text]


def _object(values: Sequence[str]) -> dict[str, Any]:
    if len(values) > 1:
        raise _invalid(f"The query parameter '{PARAMETER}' may be given only once.")
    try:
        value = json.parse(values[0].encode(), location=f"query.{PARAMETER}")
    except Invalid as error:
        raise _invalid(f"{PARAMETER} is not a JSON object: {error.detail}") from error
    if not isinstance(value, dict):
        raise _invalid(
            f'{PARAMETER} must be a JSON object such as {{"team":"cs"}}; for one value, send '
            f"{PREFIX}team=cs."
        )
    return value


def _contains(wanted: Any) -> Q:
    return Q(metadata__contains=wanted)


def _invalid(message: str) -> Invalid:
    return Invalid(message, errors=[FieldError(f"query.{PARAMETER}", message)])

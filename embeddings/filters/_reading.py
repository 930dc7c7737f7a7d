"""Reads filters from JSON, and refuses what is none."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from common import json
from common.errors import FieldError, Invalid
from embeddings.filters._conditions import (
    AllOf,
    AnyOf,
    Comparison,
    Condition,
    Negation,
    Operator,
    Path,
    Scalar,
)

MAXIMUM_CONDITIONS = 100
MAXIMUM_NESTING = 16
MAXIMUM_OPERANDS = 1_000
MAXIMUM_DEPTH = 32
MAXIMUM_PATH_LENGTH = 1_000
MAXIMUM_VALUE_LENGTH = 10_000
# What a regular expression may have, literal though it is.
MAXIMUM_SUBSTRING_LENGTH = 1_000

_LARGEST_WHOLE = 2**63
_LOGIC = ("and", "or", "not")
_NEGATED = {"ne": Operator.EQUAL, "nin": Operator.IN}
OPERATORS = (*(each.value for each in Operator), *_NEGATED)
# A key of a path: of anything but dots, where a backslash takes its meaning from a dot, from a
# backslash, and from the first character of a name that would mean something else.
_KEY = re.compile(r"(?:\\[.\\]|[^.])*")
_ESCAPED = re.compile(r"\\([.\\])")
_RESERVED = re.compile(rf"\\(?=\$|(?:{'|'.join(_LOGIC)})\Z)")


def parse(given: Any, location: str) -> Condition:
    """Return what a filter means; raise Invalid naming the place.

    given: what JSON says.
    """
    return _Reader().filter(given, location, 1)


def parse_text(given: str, location: str) -> Condition:
    """Return what a filter in a query string means; raise Invalid."""
    try:
        value = json.parse(given.encode(), location=location)
    except Invalid as error:
        raise _refused(location, f"filter is not a JSON object: {error.detail}") from error
    return parse(value, location)


def parse_values(given: Any, location: str) -> tuple[Scalar, ...]:
    """Return the values of a list, as `in` takes them; raise Invalid."""
    return _Reader()._scalars(given, location)


def parse_path(text: str, location: str) -> Path:
    """Return the place that a path names; raise Invalid.

    Dots separate keys. A backslash before a dot or a backslash makes it a part of the key, and so
    does one before a path that begins with `$` or is `and`, `or` or `not`.
    """
    json.checked_text(text, location)
    plain = _RESERVED.sub("", text, count=1) if _RESERVED.match(text) else text
    parts = _split(plain)
    if len(text) > MAXIMUM_PATH_LENGTH or "" in parts or len(parts) > MAXIMUM_DEPTH:
        raise _refused(
            location,
            f"'{text[:80]}' is no path: that is 1 to {MAXIMUM_DEPTH} keys with dots between them, "
            f"{MAXIMUM_PATH_LENGTH} characters at most.",
        )
    keys = tuple(_ESCAPED.sub(r"\1", part) for part in parts)
    # Whoever escapes says what is meant.
    is_plain = len(keys) > 1 and keys == tuple(parts)
    return Path(keys, plain if is_plain else None)


def _split(text: str) -> list[str]:
    parts, start = [], 0
    while True:
        found = _KEY.match(text, start)
        end = len(text) if found is None else found.end()
        parts.append(text[start:end])
        if end >= len(text):
            return parts
        start = end + 1


@dataclass
class _Reader:
    """Reads one filter, and counts what it asks for.

    conditions, operands: how many more it may hold.
    """

    conditions: int = MAXIMUM_CONDITIONS
    operands: int = MAXIMUM_OPERANDS

    def filter(self, given: Any, location: str, depth: int) -> Condition:
        """Return what an object of paths and logic means."""
        if not isinstance(given, dict):
            raise _refused(location, 'A filter must be a JSON object such as {"author": "Ann"}.')
        if not given:
            raise _refused(location, "A filter must hold a condition; this one is empty.")
        self._check_nesting(location, depth)
        return _all(
            [
                self._member(name, value, f"{location}.{name[:80]}", depth)
                for name, value in given.items()
            ]
        )

    def _member(self, name: str, value: Any, location: str, depth: int) -> Condition:
        word = name.removeprefix("$")
        if word in _LOGIC:
            return self._logic(word, value, location, depth)
        if name.startswith("$"):
            raise _refused(
                location,
                f"'{name[:80]}' is unknown here: $and, $or and $not are known, or a path. Of a key "
                f"that begins with a dollar sign, write '\\{name[:80]}'.",
            )
        path = parse_path(name, location)
        if isinstance(value, dict):
            return self._operators(path, value, location, depth)
        return self._comparison(path, Operator.EQUAL, value, location)

    def _logic(self, word: str, value: Any, location: str, depth: int) -> Condition:
        if word == "not":
            return Negation(self.filter(value, location, depth + 1))
        if not isinstance(value, list) or not value:
            raise _refused(
                location,
                f"'{word}' takes a list of filters, at least one. Of a key of that name, write "
                f"'\\{word}'.",
            )
        self._check_nesting(location, depth)
        parts = [
            self.filter(each, f"{location}[{number}]", depth + 1)
            for number, each in enumerate(value)
        ]
        return _all(parts) if word == "and" else _any(parts)

    def _operators(
        self, path: Path, given: Mapping[str, Any], location: str, depth: int
    ) -> Condition:
        """Return what an object of operators and operands means at a path."""
        if not given:
            raise _refused(location, 'It holds no operator; write one, such as {"eq": "Ann"}.')
        self._check_nesting(location, depth)
        parts: list[Condition] = []
        for name, operand in given.items():
            here, word = f"{location}.{name[:80]}", name.removeprefix("$")
            if word == "not":
                if not isinstance(operand, dict):
                    raise _refused(here, 'not takes operators here, such as {"gte": 1790}.')
                parts.append(Negation(self._operators(path, operand, here, depth + 1)))
            elif word in _NEGATED:
                parts.append(Negation(self._comparison(path, _NEGATED[word], operand, here)))
            elif word in OPERATORS:
                parts.append(self._comparison(path, Operator(word), operand, here))
            else:
                raise _refused(
                    here,
                    f"'{name[:80]}' is no operator; these are: {', '.join(OPERATORS)}, not. For "
                    "what lies deeper in the metadata, write the path with dots.",
                )
        return _all(parts)

    def _comparison(self, path: Path, operator: Operator, given: Any, location: str) -> Comparison:
        self.conditions -= 1
        if self.conditions < 0:
            raise _refused(location, f"A filter holds at most {MAXIMUM_CONDITIONS} conditions.")
        read: Callable[[Any, str], Any] = {
            Operator.EQUAL: self._scalar,
            Operator.IN: self._scalars,
            Operator.CONTAINS: self._contained,
            Operator.EXISTS: self._flag,
            Operator.PREFIX: self._text,
            Operator.BETWEEN: self._bounds,
        }.get(operator, self._ordered)
        return Comparison(path, operator, read(given, location))

    def _scalar(self, given: Any, location: str) -> Scalar:
        self._spend(1, location)
        if isinstance(given, str):
            return self._text(given, location)
        if isinstance(given, bool) or given is None:
            return given
        if isinstance(given, int) and -_LARGEST_WHOLE <= given < _LARGEST_WHOLE:
            return given
        if isinstance(given, float) and math.isfinite(given):
            return given
        raise _refused(
            location,
            "Compare with a string, a number, true, false or null; for one of several values, "
            'write {"in": [ … ]}, for what lies deeper the path with dots.',
        )

    def _scalars(self, given: Any, location: str) -> tuple[Scalar, ...]:
        if not isinstance(given, list):
            raise _refused(location, "This takes a list of values.")
        self._spend(len(given), location)
        self.operands += len(given)
        return tuple(
            self._scalar(each, f"{location}[{number}]") for number, each in enumerate(given)
        )

    def _contained(self, given: Any, location: str) -> tuple[Scalar, ...]:
        values = self._scalars(given if isinstance(given, list) else [given], location)
        if not values:
            raise _refused(location, "contains takes a value, or a list of at least one.")
        for value in values:
            if value is None:
                raise _refused(location, "contains takes strings, numbers, true and false.")
            if isinstance(value, str) and not 1 <= len(value) <= MAXIMUM_SUBSTRING_LENGTH:
                raise _refused(
                    location,
                    f"A string to be contained has 1 to {MAXIMUM_SUBSTRING_LENGTH} characters.",
                )
        return values

    def _flag(self, given: Any, location: str) -> bool:
        if not isinstance(given, bool):
            raise _refused(location, "exists takes true or false.")
        return given

    def _text(self, given: Any, location: str) -> str:
        if not isinstance(given, str):
            raise _refused(location, "This takes a string.")
        if len(given) > MAXIMUM_VALUE_LENGTH:
            raise _refused(
                location, f"A value has at most {MAXIMUM_VALUE_LENGTH} characters in a filter."
            )
        return json.checked_text(given, location)

    def _ordered(self, given: Any, location: str) -> Scalar:
        value = self._scalar(given, location)
        if value is None or isinstance(value, bool):
            raise _refused(
                location,
                "Only numbers and strings have an order; true, false and null have none.",
            )
        return value

    def _bounds(self, given: Any, location: str) -> tuple[Scalar, Scalar]:
        if not isinstance(given, list) or len(given) != 2:
            raise _refused(location, "between takes a list of two: the least and the most.")
        least, most = (
            self._ordered(each, f"{location}[{number}]") for number, each in enumerate(given)
        )
        if isinstance(least, str) != isinstance(most, str):
            raise _refused(location, "between takes two numbers or two strings.")
        return least, most

    def _spend(self, count: int, location: str) -> None:
        self.operands -= count
        if self.operands < 0:
            raise _refused(location, f"A filter holds at most {MAXIMUM_OPERANDS} values in all.")

    def _check_nesting(self, location: str, depth: int) -> None:
        if depth > MAXIMUM_NESTING:
            raise _refused(location, f"A filter nests at most {MAXIMUM_NESTING} levels deep.")


def _all(conditions: list[Condition]) -> Condition:
    return conditions[0] if len(conditions) == 1 else AllOf(tuple(conditions))


def _any(conditions: list[Condition]) -> Condition:
    return conditions[0] if len(conditions) == 1 else AnyOf(tuple(conditions))


def _refused(location: str, message: str) -> Invalid:
    return Invalid(message, errors=[FieldError(location, message)])

"""What the keywords of one part of a schema cost, and what there is to check in a document.

A step is about 20 ns of jsonschema-rs 0.60; all figures are measured, and the worst that was seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import jsonschema_rs

from projects.metadata._reading import InvalidSchema, echo, levels

MAX_DOCUMENT_DEPTH: Final = 64
MAX_DOCUMENT_VALUES: Final = 100_000

# Size of the compiled pattern: the most steps that a character costs. "^.{1,255}$" needs half a MiB.
_PATTERN_STEPS: Final[Mapping[int, int]] = {1 << 12: 1, 1 << 14: 5, 1 << 16: 130, 1 << 19: 7500}
# The steps for comparing with a number that is far from 1.
_EXTREME = 1000

_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_CONTENT = ("contentMediaType", "contentEncoding")


class Size(NamedTuple):
    """What there is to check in a document.

    ``digits`` are what its numbers count: those that are not small integers are compared as exact
    fractions, which takes 2 µs, and 20 µs for those far from 1.
    """

    values: int
    characters: int
    digits: int
    depth: int


class Load(NamedTuple):
    """The steps that one value can cost, and besides each character and each digit of it; and the
    errors that it can raise, as far as it is about 50 µs to build one."""

    values: int
    characters: int
    digits: int
    errors: int


NOTHING: Final = Load(0, 0, 0, 0)


class Weight(NamedTuple):
    """The load of a part by itself: on its value, and on each member or item of that value."""

    here: Load
    member: Load
    item: Load


class PatternCost(NamedTuple):
    """The most bytes that a compiled pattern takes, and steps that a character costs."""

    size: int
    steps: int


def size_of(document: object) -> Size | str:
    """Return the size of a document, or why it is too large to check."""
    values = characters = digits = depth = 0
    for depth, level in enumerate(levels(document)):
        values += len(level)
        if depth > MAX_DOCUMENT_DEPTH:
            return f"is nested deeper than {MAX_DOCUMENT_DEPTH} levels"
        if values > MAX_DOCUMENT_VALUES:
            return f"has more than {MAX_DOCUMENT_VALUES} values"
        for value in level:
            if isinstance(value, str):
                characters += len(value)
            elif isinstance(value, dict):
                characters += sum(map(len, value))
            elif isinstance(value, int | float):
                digits += _digits(value)
    return Size(values, characters, digits, depth + 1)


def weight_of(schema: Mapping[str, Any]) -> Weight:
    """Return what a part costs without the parts that it applies."""
    constants = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else ())]
    # Texts are looked up by hash; a mixed list is compared one by one, at 0.2 to 1 µs an element.
    compared = [] if all(isinstance(each, str) for each in constants) else constants
    numbers = [schema[keyword] for keyword in _LIMITS if keyword in schema]
    numbers += [
        each for level in levels(compared) for each in level if isinstance(each, int | float)
    ]
    extreme = [number for number in numbers if _digits(number) >= _EXTREME]
    names = _listed(schema)
    here = Load(
        values=1 + len(schema) + 2 * names + 20 * _nodes(compared) + _EXTREME * len(extreme),
        characters=sum(keyword in schema for keyword in ("minLength", "maxLength"))
        + 20 * sum(keyword in schema for keyword in ("format", *_CONTENT))
        + (pattern_cost(schema["pattern"]).steps if "pattern" in schema else 0),
        digits=len(numbers) + ("multipleOf" in schema),
        # Some hold a copy of the value of their keyword.
        errors=len(schema) + names + (_nodes(constants) + _nodes(schema.get("not"))) // 20,
    )
    # Each pattern is tried on each name of the object, whether its schema is then applied or not.
    tried = [pattern_cost(pattern).steps for pattern in schema.get("patternProperties", ())]
    # What is below a list of unique items is hashed, or compared with its neighbours.
    unique = Load(20, 2, 2, 0) if schema.get("uniqueItems") is True else NOTHING
    return Weight(here, Load(4 * len(tried), sum(tried), 0, 0), unique)


@lru_cache(maxsize=1024)
def pattern_cost(pattern: str) -> PatternCost:
    """Return what a pattern costs.

    Raises:
        InvalidSchema: the linear-time engine does not take the pattern.
    """
    for size, steps in _PATTERN_STEPS.items():
        options = jsonschema_rs.RegexOptions(size_limit=size)
        try:
            jsonschema_rs.Draft7Validator(
                {"pattern": pattern}, offline=True, pattern_options=options
            )
        except ValueError:
            continue
        return PatternCost(size, steps)
    raise InvalidSchema(
        f"The metadata schema holds the pattern {echo(pattern)}, which is not a regular "
        "expression that runs in linear time: look-around, back-references and large repetitions "
        "are not available; simplify it."
    )


def pattern_options() -> jsonschema_rs.RegexOptions:
    return jsonschema_rs.RegexOptions(size_limit=max(_PATTERN_STEPS))


def _listed(schema: Mapping[str, Any]) -> int:
    """Return how many names are looked up in an object, apart from those of properties."""
    dependencies = [
        names
        for keyword in ("dependencies", "dependentRequired")
        if isinstance(schema.get(keyword), dict)
        for names in schema[keyword].values()
    ]
    lists = [schema.get("required"), *dependencies]
    return len(dependencies) + sum(len(names) for names in lists if isinstance(names, list))


def _nodes(value: object) -> int:
    """Return how many values and names a JSON value holds."""
    return sum(
        1 + (len(each) if isinstance(each, dict) else 0)
        for level in levels(value)
        for each in level
    )


def _digits(number: float) -> int:
    if isinstance(number, int):
        return 1 if -(2**53) < number < 2**53 else 200
    return 100 if number == 0 or 1e-15 < abs(number) < 1e15 else _EXTREME

"""Bounds what checking documents can cost, from the schema alone.

The bound is the most work that the parts of a schema can cause together at a single value, in any
document. A document then costs at most that, times its size. A step is about 20 ns of jsonschema-rs
0.60; figures are measured, and the worst that was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import jsonschema_rs

from projects.metadata._parts import EVERY_ITEM, EVERY_MEMBER, ONE_ITEM, ONE_MEMBER, Part
from projects.metadata._reading import InvalidSchema, echo, levels

MAX_DOCUMENT_DEPTH: Final = 64
MAX_DOCUMENT_VALUES: Final = 100_000

# Some 0.4 s.
_MAX_STEPS = 20_000_000
# jsonschema-rs recurses on the C stack, and a stack overflow ends the process: 64 parts one inside
# the other, on each of 64 levels of a document, ran in a thread with 1 MiB of stack.
_MAX_CHAIN = 64
# A recursive schema is walked once for each level of a document.
_MAX_RECURSIVE_PARTS = 500

# Numbers are compared as exact fractions, in up to 3 µs; see _times().
_NUMBER = 150
_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_LISTS_OF_NAMES = ("required", "dependencies", "dependentRequired", "dependentSchemas")
# Large integers have equal hashes, so that a list of them is compared each with each: 1000 of them
# take 0.3 s, and with this figure there cannot be more in a document.
_UNIQUE = 20_000
# Bytes of the compiled pattern: steps for a character. "^.{1,255}$" needs half a MiB.
_PATTERN_STEPS: Final[Mapping[int, int]] = {1 << 12: 2, 1 << 14: 20, 1 << 17: 1000, 1 << 19: 8000}
# Compiling 1 MiB takes 5 ms, and the validator keeps it in memory.
_MAX_PATTERN_BYTES = 4 << 20

# jsonschema-rs builds all errors of a document at once, in up to 50 µs each, and those of anyOf and
# oneOf one inside the other: 1024 levels of them overflowed 1 MiB of stack.
_MAX_ERRORS = 10_000
_MAX_NESTED_ERRORS = 1000


class Size(NamedTuple):
    """What there is to check in a document. The names in its objects are values, too."""

    values: int
    characters: int
    depth: int


class Load(NamedTuple):
    """The most steps that one value can cost, and that each character of it adds to them, and the
    most errors that it can raise."""

    values: int
    characters: int
    errors: int

    def allows(self, size: Size, times: int = 1) -> bool:
        """Tell whether a document of that size can be checked, so many times, in half a second."""
        steps = self.values * size.values + self.characters * size.characters
        return times * steps <= _MAX_STEPS

    def allows_errors(self, size: Size) -> bool:
        """Tell whether the errors of a document of that size can be built."""
        # They hold copies of the values around them, hence also the characters.
        errors = self.errors * (size.values + size.characters // 100)
        return (
            errors <= _MAX_ERRORS
            and self.errors * size.depth <= _MAX_NESTED_ERRORS
            # After the check, what fails is run once to find that out and once more to say why.
            and self.allows(size, times=2)
        )


_NOTHING = Load(0, 0, 0)
# A schema is refused if it is too costly for a document as small as this.
_SMALL_DOCUMENT = Size(values=300, characters=1000, depth=1)


def size_of(document: object) -> Size | str:
    """Return the size of a document, or why it is too large to check."""
    values = more = characters = depth = 0
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
                more += len(value)
                characters += sum(map(len, value))
            elif isinstance(value, float):
                more += _times(value) - 1
    return Size(values + more, characters, depth + 1)


def _times(number: float) -> int:
    """Return how many ordinary numbers it is as slow to compare as: far from 1 it takes 30 µs."""
    return 1 if isinstance(number, int) or number == 0 or 1e-15 < abs(number) < 1e15 else 10


def load_of(parts: Sequence[Part]) -> Load:
    """Return the bound for a schema, given its parts, itself first.

    Raises:
        InvalidSchema: it could take too long to check, or never end.
    """
    in_place, circle = _children_first(parts, Part.here)
    if circle:
        raise InvalidSchema(
            "The metadata schema refers to itself without going into a property or an item at "
            f"{echo(circle.schema)}, which never ends; break the circle."
        )
    order, circle = _children_first(parts, Part.everywhere)
    if circle and len(parts) > _MAX_RECURSIVE_PARTS:
        raise _too_costly(f"refers to itself and has more than {_MAX_RECURSIVE_PARTS} parts")
    _check_patterns(parts)
    # With children first one round is enough, except in a circle, where each adds a level.
    rounds = MAX_DOCUMENT_DEPTH + 1 if circle else 1
    load = _load(parts[0], in_place if circle else order, rounds)
    if not load.allows(_SMALL_DOCUMENT):
        raise _too_costly("has parts that multiply with each other or with the depth of a document")
    return load


def _too_costly(reason: str) -> InvalidSchema:
    return InvalidSchema(
        f"The metadata schema could take too long to check: it {reason}; use fewer references, "
        "shorter lists of alternatives and fewer nested allOf, anyOf and oneOf."
    )


def _children_first(
    parts: Iterable[Part], children: Callable[[Part], list[Part]]
) -> tuple[list[Part], Part | None]:
    """Return the parts, each after its children, and one that leads back to itself if any does."""
    chains: dict[Part, int] = {}
    circle = None
    for start in parts:
        # What we are inside of, innermost last. Not by recursion: references make long chains.
        path = {} if start in chains else {start: iter(children(start))}
        while path:
            part = next(reversed(path))
            child = next(path[part], None)
            if child is None:
                del path[part]
                chains[part] = 1 + max((chains.get(each, 0) for each in children(part)), default=0)
                if chains[part] > _MAX_CHAIN:
                    raise _too_costly(f"has a chain of more than {_MAX_CHAIN} parts")
            elif child in path:
                circle = child
            elif child not in chains:
                path[child] = iter(children(child))
    return list(chains), circle


def _load(root: Part, order: Sequence[Part], rounds: int) -> Load:
    own = {part: _own_load(part.schema) for part in order}
    # On its value, and the most on a single value inside of that if it is an object, or a list.
    loads = dict.fromkeys(order, (_NOTHING, _NOTHING, _NOTHING))

    def most(part: Part) -> Load:
        return _most(loads[part])

    for _ in range(rounds):
        before = dict(loads)
        for part in order:
            # To know what others have evaluated, they are run again (2.7 times, measured).
            again = {"unevaluatedItems", "unevaluatedProperties"} & part.schema.keys()
            times = 3 if again else 1
            here, member, item = ([loads[child][n] for child in part.here()] for n in range(3))
            member += [_most(map(most, part.applied[ONE_MEMBER]))]
            member += map(most, part.applied[EVERY_MEMBER])
            item += [_most(map(most, part.applied[ONE_ITEM]))]
            item += map(most, part.applied[EVERY_ITEM])
            loads[part] = (
                _sum([own[part], *here * times]),
                _sum(member * times),
                _sum(item * times),
            )
        if loads == before or not most(root).allows(_SMALL_DOCUMENT):
            break
    return most(root)


def _sum(loads: Iterable[Load]) -> Load:
    return Load(*map(sum, zip(_NOTHING, *loads, strict=True)))


def _most(loads: Iterable[Load]) -> Load:
    return Load(*map(max, zip(_NOTHING, _NOTHING, *loads, strict=True)))


def _own_load(schema: Mapping[str, Any]) -> Load:
    """Return what the keywords of a part cost without the parts that it applies."""
    listed = sum(_nodes(schema.get(keyword)) for keyword in _LISTS_OF_NAMES)
    constants = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else ())]
    # Texts are looked up by hash; a mixed list is compared one by one, in 0.2 to 1 µs an element.
    compared = [] if all(isinstance(each, str) for each in constants) else constants
    numbers = [schema[keyword] for keyword in _LIMITS if keyword in schema]
    numbers += [each for level in levels(compared) for each in level]
    compare = sum(_times(each) for each in numbers if isinstance(each, int | float))
    patterns = _patterns(schema)
    return Load(
        values=1
        + len(schema)
        + 4 * listed
        + sum(len(schema.get(keyword, ())) for keyword in ("allOf", "anyOf", "oneOf"))
        + 20 * _nodes(compared)
        # A remainder takes longer than a comparison.
        + _NUMBER * (compare + 10 * ("multipleOf" in schema))
        + 4 * len(patterns)
        + _UNIQUE * (schema.get("uniqueItems") is True),
        characters=sum(keyword in schema for keyword in ("minLength", "maxLength"))
        + 20 * sum(name in schema for name in ("format", "contentMediaType", "contentEncoding"))
        + sum(_pattern_cost(pattern)[1] for pattern in patterns),
        # Some hold a copy of the value of their keyword.
        errors=1 + len(schema) + listed + (_nodes(constants) + _nodes(schema.get("not"))) // 20,
    )


def _nodes(value: object) -> int:
    """Return how many values and names there are inside a JSON value."""
    inside = (each for level in levels(value) for each in level)
    return sum(
        len(each) * (1 + isinstance(each, dict)) for each in inside if isinstance(each, dict | list)
    )


def _patterns(schema: Mapping[str, Any]) -> list[str]:
    """Return the patterns that are tried on a value: those of names on each, matching or not."""
    return [
        *schema.get("patternProperties", ()),
        *([schema["pattern"]] if "pattern" in schema else ()),
    ]


def _check_patterns(parts: Iterable[Part]) -> None:
    room = _MAX_PATTERN_BYTES
    for pattern in (pattern for part in parts for pattern in _patterns(part.schema)):
        room -= _pattern_cost(pattern)[0]
        # Inside of the loop, as it is compiling them that takes the time.
        if room < 0:
            raise InvalidSchema(
                "The patterns of the metadata schema are too large together; use fewer of them, or "
                "replace repetitions such as .{1,255} by minLength and maxLength."
            )


@lru_cache(maxsize=1024)
def _pattern_cost(pattern: str) -> tuple[int, int]:
    """Return the most bytes a compiled pattern takes, and the most steps a character costs.

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
        return size, steps
    raise InvalidSchema(
        f"The metadata schema holds the pattern {echo(pattern)}, which is not a regular "
        "expression that runs in linear time: look-around, back-references and large repetitions "
        "are not available; simplify it."
    )


def pattern_options() -> jsonschema_rs.RegexOptions:
    """Return the options that hold every pattern which load_of() accepts, and no larger one."""
    return jsonschema_rs.RegexOptions(size_limit=max(_PATTERN_STEPS))

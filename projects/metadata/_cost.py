"""Bounds what checking documents can cost, from the schema alone.

The bound is the most work that the parts of the schema can cause together at a single value, in any
document. A document then costs at most that, times its size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from projects.metadata._parts import MAX_SCHEMA_NODES, Part, Place
from projects.metadata._reading import InvalidSchema, echo
from projects.metadata._weights import (
    MAX_DOCUMENT_DEPTH,
    NOTHING,
    Load,
    Size,
    Weight,
    pattern_cost,
    weight_of,
)

# Some 0.6 s.
_MAX_STEPS = 30_000_000
# A schema is refused if it is too costly for a document as small as this.
_SMALL_DOCUMENT = Size(values=100, characters=1000, digits=1000, depth=1)
# jsonschema-rs recurses on the C stack, and a stack overflow ends the process: 64 parts one inside
# the other, on each of 64 levels of a document, ran in a thread with 1 MiB of stack.
_MAX_CHAIN = 64
# A recursive schema is walked once for each level of a document.
_MAX_RECURSIVE_PARTS = 500
# Compiling 1 MiB takes 5 ms, and the validator keeps it in memory.
_MAX_PATTERN_BYTES = 4 << 20
# jsonschema-rs builds all errors of a document at once, those of anyOf and oneOf one inside the
# other: 1024 levels of them overflowed 1 MiB of stack.
_MAX_ERRORS = 10_000
_MAX_ERROR_NESTING = 200


class Bound(NamedTuple):
    """The most work at a single value, and the most parts that apply to it one inside the other."""

    load: Load
    chain: int

    def allows(self, size: Size) -> bool:
        """Tell whether a document of that size takes well below a second to check."""
        return _is_affordable(self.load, size)

    def allows_errors(self, size: Size) -> bool:
        """Tell whether the errors of a document of that size can be built."""
        # They hold copies of the values around them, hence also the characters.
        errors = self.load.errors * (size.values + size.characters // 100)
        return errors <= _MAX_ERRORS and self.chain * size.depth <= _MAX_ERROR_NESTING


def bound_of(parts: Sequence[Part]) -> Bound:
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
        raise InvalidSchema(
            f"The metadata schema refers to itself and has {len(parts)} parts; with more than "
            f"{_MAX_RECURSIVE_PARTS} it could take too long to check. Simplify it."
        )
    chain = _longest(in_place, Part.here)
    if max(chain, _longest(order, Part.everywhere)) > _MAX_CHAIN:
        raise _too_costly(f"a chain of more than {_MAX_CHAIN} parts")
    _check_expansion(order)
    _check_patterns(parts)
    # Parts that are used by nothing cost nothing, and the root is the first.
    load = _load(parts[0], in_place if circle else order, MAX_DOCUMENT_DEPTH if circle else 1)
    if not _is_affordable(load, _SMALL_DOCUMENT):
        raise _too_costly("parts that multiply with each other or with the depth of a document")
    return Bound(load, chain)


def _is_affordable(load: Load, size: Size) -> bool:
    steps = (
        load.values * size.values + load.characters * size.characters + load.digits * size.digits
    )
    return steps <= _MAX_STEPS


def _too_costly(reason: str) -> InvalidSchema:
    return InvalidSchema(
        f"The metadata schema could take too long to check: after following its references it has "
        f"{reason}; use fewer references and fewer nested allOf, anyOf and oneOf."
    )


def _children_first(
    parts: Iterable[Part], children: Callable[[Part], list[Part]]
) -> tuple[list[Part], Part | None]:
    """Return the parts, each after its children, and one that leads back to itself if any does."""
    done: dict[Part, None] = {}
    circle = None
    for start in parts:
        # What we are inside of, innermost last. Not by recursion: references make long chains.
        path = {} if start in done else {start: iter(children(start))}
        while path:
            part = next(reversed(path))
            child = next(path[part], None)
            if child is None:
                del path[part]
                done[part] = None
            elif child in path:
                circle = child
            elif child not in done:
                path[child] = iter(children(child))
    return list(done), circle


def _longest(order: Iterable[Part], children: Callable[[Part], list[Part]]) -> int:
    length: dict[Part, int] = {}
    for part in order:
        # A child without a length is one that we are inside of: a circle.
        length[part] = 1 + max((length.get(child, 0) for child in children(part)), default=0)
    return max(length.values())


def _check_expansion(order: Iterable[Part]) -> None:
    expanded: dict[Part, int] = {}
    for part in order:
        expanded[part] = 1 + sum(expanded.get(child, 1) for child in part.everywhere())
        if expanded[part] > MAX_SCHEMA_NODES:
            raise _too_costly(f"more than {MAX_SCHEMA_NODES} parts")


def _check_patterns(parts: Iterable[Part]) -> None:
    patterns = [
        pattern
        for part in parts
        for pattern in (
            *part.schema.get("patternProperties", ()),
            *([part.schema["pattern"]] if "pattern" in part.schema else ()),
        )
    ]
    if sum(pattern_cost(pattern).size for pattern in patterns) > _MAX_PATTERN_BYTES:
        raise InvalidSchema(
            "The patterns of the metadata schema are too large together; use fewer of them, or "
            "replace repetitions such as .{1,255} by minLength and maxLength."
        )


class _Met(NamedTuple):
    """The load of a part with all that it applies: on its value, and the most on any one value
    inside of it when that is an object or a list."""

    here: Load
    member: Load
    item: Load

    def most(self) -> Load:
        return _most(self)


def _load(root: Part, order: Sequence[Part], rounds: int) -> Load:
    weights = {part: weight_of(part.schema) for part in order}
    met = {part: _Met(NOTHING, NOTHING, NOTHING) for part in order}
    # The children of a circle are one level of a document behind, so each round adds a level.
    for _ in range(rounds):
        before = met[root]
        for part in order:
            met[part] = _met(part, weights[part], met)
        if met[root] == before or not _is_affordable(met[root].most(), _SMALL_DOCUMENT):
            break
    return met[root].most()


def _met(part: Part, weight: Weight, met: dict[Part, _Met]) -> _Met:
    # To know what others have evaluated, unevaluated… runs them again (2.7 times, measured).
    times = 3 if {"unevaluatedItems", "unevaluatedProperties"} & part.schema.keys() else 1
    here = [met[child] for child in part.here()] * times

    def inside(one: Place, every: Place) -> list[Load]:
        shared_out = _most(met[child].most() for child in part.applied[one])
        return [shared_out, *(met[child].most() for child in part.applied[every])] * times

    return _Met(
        _sum([weight.here, *(each.here for each in here)]),
        _sum(
            [
                weight.member,
                *(each.member for each in here),
                *inside(Place.ONE_MEMBER, Place.EVERY_MEMBER),
            ]
        ),
        _sum(
            [weight.item, *(each.item for each in here), *inside(Place.ONE_ITEM, Place.EVERY_ITEM)]
        ),
    )


def _sum(loads: Iterable[Load]) -> Load:
    return Load(*map(sum, zip(*loads, strict=True)))


def _most(loads: Iterable[Load]) -> Load:
    return Load(*map(max, zip(NOTHING, *loads, strict=True)))

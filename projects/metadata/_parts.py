"""Takes a schema apart into its subschemas and follows the references between them.

Keywords of all dialects count in each: what a dialect ignores can at worst make us refuse it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final
from urllib.parse import unquote

import jsonschema_rs

from projects.metadata._reading import InvalidSchema, echo

MAX_SCHEMA_NODES: Final = 10_000

# Where the subschemas of a keyword apply, seen from the value that their parent applies to. Those
# in ONE_… share out the names and the indexes: at most one of them meets a member or an item.
HERE, ONE_MEMBER, EVERY_MEMBER, ONE_ITEM, EVERY_ITEM, NOWHERE = range(6)
_PLACES: Final[Mapping[int, tuple[str, ...]]] = {
    HERE: (
        *("allOf", "anyOf", "oneOf", "not", "if", "then", "else"),
        # A name is checked as if it were the object.
        *("dependencies", "dependentSchemas", "propertyNames"),
    ),
    ONE_MEMBER: ("properties", "additionalProperties"),
    EVERY_MEMBER: ("patternProperties", "unevaluatedProperties"),
    ONE_ITEM: ("prefixItems", "items", "additionalItems"),
    EVERY_ITEM: ("contains", "unevaluatedItems"),
    NOWHERE: ("contentSchema", "definitions", "$defs"),
}
_MAPS = (
    *("properties", "patternProperties", "dependencies", "dependentSchemas"),
    *("definitions", "$defs"),
)
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
# No schema has room for a list that needs more digits.
_INDEX = re.compile("0|[1-9][0-9]{0,5}")


@dataclass(eq=False, slots=True)
class Part:
    """A subschema and those that it applies, by place."""

    schema: dict[str, Any]
    applied: list[list[Part]] = field(default_factory=lambda: [[] for _ in _PLACES])

    def here(self) -> list[Part]:
        """Return the parts that apply to the same value."""
        return self.applied[HERE]

    def everywhere(self) -> list[Part]:
        """Return the parts that apply to the same value or to what is in it."""
        return [part for place in self.applied[:NOWHERE] for part in place]


def parts_of(root: dict[str, Any], dialect: str) -> list[Part]:
    """Return the subschemas of a schema, itself first.

    Raises:
        InvalidSchema: one is not of the dialect, or a reference leads outside or nowhere.
    """
    return _Reader(root, dialect).parts()


class _Reader:
    def __init__(self, root: dict[str, Any], dialect: str) -> None:
        self._root = root
        self._dialect = dialect
        self._ignored = _ignored_by(dialect)
        self._known: dict[int, Part] = {}
        self._references: list[tuple[Part, str]] = []

    def parts(self) -> list[Part]:
        self._add(self._root)
        # The list grows: what is reached under a keyword of no draft is read only then.
        for part, reference in self._references:
            target = self._target(reference)
            if isinstance(target, dict):
                part.here().append(self._known.get(id(target)) or self._add(target))
        return list(self._known.values())

    def _add(self, schema: dict[str, Any]) -> Part:
        before = len(self._known)
        part = self._read(schema)
        # Only yes or no, as an error of the meta-schema would copy what is around it.
        if not self._is_of_dialect(schema):
            raise self._against_its_dialect(list(self._known.values())[before:])
        return part

    def _read(self, schema: dict[str, Any]) -> Part:
        if len(self._known) == MAX_SCHEMA_NODES:
            raise InvalidSchema(
                f"Checking the metadata schema takes too long: more than {MAX_SCHEMA_NODES} parts."
            )
        if schema is not self._root:
            _refuse_base(schema)
        part = self._known[id(schema)] = Part(schema)
        for keyword in _REFERENCES:
            if isinstance(schema.get(keyword), str):
                self._references.append((part, schema[keyword]))
        for place, keywords in _PLACES.items():
            for keyword in keywords:
                # The meta-schema does not look below a keyword that its dialect ignores.
                read = self._add if keyword in self._ignored else self._read
                for child in _subschemas(schema, keyword):
                    part.applied[place].append(self._known.get(id(child)) or read(child))
        return part

    def _target(self, reference: str) -> object:
        if not reference.startswith("#"):
            raise InvalidSchema(
                f"The metadata schema refers to {echo(reference)}, outside itself; copy what it "
                "needs into its definitions and refer to it with #/definitions/…"
            )
        target: Any = self._root
        first, *steps = unquote(reference[1:]).split("/")
        for step in steps:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict):
                target = target.get(name)
            elif isinstance(target, list) and _INDEX.fullmatch(name) and int(name) < len(target):
                target = target[int(name)]
            else:
                target = None
            if isinstance(target, dict):
                # Also on the way: it would move the base of what lies below.
                _refuse_base(target)
        if first or not isinstance(target, dict | bool):
            raise InvalidSchema(
                f"The metadata schema refers to {echo(reference)}, which does not exist; add it or "
                "correct the reference. It must be a path such as #/definitions/name."
            )
        return target

    def _is_of_dialect(self, schema: dict[str, Any]) -> bool:
        return jsonschema_rs.meta.is_valid({**schema, "$schema": self._dialect})

    def _against_its_dialect(self, parts: list[Part]) -> InvalidSchema:
        """Return the refusal of what the meta-schema refuses, naming the innermost cause."""
        name, value = next(
            (
                (keyword, value)
                for part in reversed(parts)
                for keyword, value in part.schema.items()
                if not self._is_of_dialect({keyword: value})
            ),
            ("$schema", self._dialect),
        )
        return InvalidSchema(
            f"The metadata schema is not valid JSON Schema of {self._dialect}: the keyword "
            f"{echo(name)} cannot be {echo(value)}; correct it."
        )


@cache
def _ignored_by(dialect: str) -> frozenset[str]:
    """Return the keywords of other dialects: no keyword with subschemas takes a number."""
    return frozenset(
        keyword
        for keywords in _PLACES.values()
        for keyword in keywords
        if jsonschema_rs.meta.is_valid({keyword: 5, "$schema": dialect})
    )


def _subschemas(schema: Mapping[str, Any], keyword: str) -> list[dict[str, Any]]:
    value = schema.get(keyword)
    found = [value]
    if isinstance(value, list):
        found = value
    elif keyword in _MAPS and isinstance(value, dict):
        found = list(value.values())
    return [child for child in found if isinstance(child, dict)]


def _refuse_base(schema: Mapping[str, Any]) -> None:
    for keyword in ("$id", "id", "$schema"):
        if isinstance(schema.get(keyword), str):
            raise InvalidSchema(
                f"The metadata schema holds {keyword} {echo(schema[keyword])} below its root, "
                "which changes what the parts around it mean; remove it."
            )

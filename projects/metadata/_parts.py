"""Takes a schema apart into its subschemas and follows every reference between them.

Keywords of all dialects count in each: what a dialect ignores can at worst make us refuse it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final
from urllib.parse import unquote

import jsonschema_rs

from projects.metadata._reading import InvalidSchema, echo

MAX_SCHEMA_NODES: Final = 10_000


class Place(Enum):
    """Where a subschema applies, seen from the value that its parent applies to."""

    HERE = auto()
    # At most one of these meets a member or an item, as they share out the names and the indexes.
    ONE_MEMBER = auto()
    EVERY_MEMBER = auto()
    ONE_ITEM = auto()
    EVERY_ITEM = auto()
    NOWHERE = auto()


_PLACES: Final[Mapping[str, Place]] = {
    "allOf": Place.HERE,
    "anyOf": Place.HERE,
    "oneOf": Place.HERE,
    "not": Place.HERE,
    "if": Place.HERE,
    "then": Place.HERE,
    "else": Place.HERE,
    "dependencies": Place.HERE,
    "dependentSchemas": Place.HERE,
    "properties": Place.ONE_MEMBER,
    "additionalProperties": Place.ONE_MEMBER,
    "patternProperties": Place.EVERY_MEMBER,
    "propertyNames": Place.EVERY_MEMBER,
    "unevaluatedProperties": Place.EVERY_MEMBER,
    "prefixItems": Place.ONE_ITEM,
    "items": Place.ONE_ITEM,
    "additionalItems": Place.ONE_ITEM,
    "contains": Place.EVERY_ITEM,
    "unevaluatedItems": Place.EVERY_ITEM,
    "contentSchema": Place.NOWHERE,
    "definitions": Place.NOWHERE,
    "$defs": Place.NOWHERE,
}
_MAPS = frozenset(
    {
        "dependencies",
        "dependentSchemas",
        "properties",
        "patternProperties",
        "definitions",
        "$defs",
    }
)
# No schema has room for a list that needs more digits.
_INDEX = re.compile("0|[1-9][0-9]{0,5}")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


@dataclass(eq=False, slots=True)
class Part:
    """A subschema and the subschemas that it applies."""

    schema: dict[str, Any]
    applied: dict[Place, list[Part]] = field(default_factory=lambda: {place: [] for place in Place})

    def here(self) -> list[Part]:
        """Return the parts that apply to the same value."""
        return self.applied[Place.HERE]

    def everywhere(self) -> list[Part]:
        """Return the parts that apply to the same value or to what it holds."""
        return [
            part
            for place, parts in self.applied.items()
            if place is not Place.NOWHERE
            for part in parts
        ]


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
        self._parts: dict[int, Part] = {}
        self._anchors: dict[str, dict[str, Any]] = {}
        self._references: list[tuple[Part, str, str]] = []

    def parts(self) -> list[Part]:
        self._add(self._root)
        # The list grows: what is reached under a keyword of no draft is read only then.
        for part, keyword, reference in self._references:
            target = self._target(reference, keyword)
            if isinstance(target, dict):
                part.here().append(self._parts.get(id(target)) or self._add(target))
        return list(self._parts.values())

    def _add(self, schema: dict[str, Any]) -> Part:
        before = len(self._parts)
        part = self._read(schema)
        # Only yes or no, as an error of the meta-schema would copy what is around it.
        if not jsonschema_rs.meta.is_valid({**schema, "$schema": self._dialect}):
            raise InvalidSchema(self._against_its_draft(list(self._parts.values())[before:]))
        return part

    def _read(self, schema: dict[str, Any]) -> Part:
        if len(self._parts) >= MAX_SCHEMA_NODES:
            raise InvalidSchema(
                f"The metadata schema has more than {MAX_SCHEMA_NODES} parts, which takes too long "
                "to check; simplify it."
            )
        if schema is not self._root:
            _refuse_base(schema)
        part = self._parts[id(schema)] = Part(schema)
        self._read_anchors(schema)
        for keyword in _REFERENCES:
            if isinstance(schema.get(keyword), str):
                self._references.append((part, keyword, schema[keyword]))
        for keyword, place in _PLACES.items():
            for child in _subschemas(schema, keyword):
                part.applied[place].append(self._parts.get(id(child)) or self._read(child))
        return part

    def _read_anchors(self, schema: dict[str, Any]) -> None:
        for keyword in ("$anchor", "$dynamicAnchor", "$id"):
            name = schema.get(keyword)
            if not isinstance(name, str):
                continue
            # Up to draft 07 an anchor is written as a $id that starts with #; no other $id is left.
            name = name.removeprefix("#")
            if name and self._anchors.setdefault(name, schema) is not schema:
                raise InvalidSchema(
                    f"The metadata schema gives the anchor {echo(name)} twice; rename one."
                )

    def _target(self, reference: str, keyword: str) -> object:
        if not reference.startswith("#"):
            raise InvalidSchema(
                f"The metadata schema refers to {echo(reference)} in {keyword}, outside itself; "
                "copy what it needs into its definitions and refer to it with #/definitions/…"
            )
        fragment = unquote(reference[1:])
        if fragment and not fragment.startswith("/"):
            target: object = self._anchors.get(fragment)
        else:
            target = self._pointed(fragment)
        if not isinstance(target, dict | bool):
            raise InvalidSchema(
                f"The metadata schema refers to {echo(reference)} in {keyword}, which does not "
                "exist; add it or correct the reference."
            )
        return target

    def _pointed(self, pointer: str) -> object:
        target: Any = self._root
        for step in pointer.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict):
                target = target.get(name)
            elif isinstance(target, list) and _INDEX.fullmatch(name) and int(name) < len(target):
                target = target[int(name)]
            else:
                return None
            if isinstance(target, dict):
                # Also on the way: it would move the base of what lies below.
                _refuse_base(target)
        return target

    def _against_its_draft(self, parts: list[Part]) -> str:
        """Return the sentence for what the meta-schema refuses, naming the innermost cause."""
        for part in reversed(parts):
            for keyword, value in part.schema.items():
                alone = {keyword: value, "$schema": self._dialect}
                if keyword != "$schema" and not jsonschema_rs.meta.is_valid(alone):
                    return (
                        f"The metadata schema is not valid JSON Schema of {self._dialect}: the "
                        f"keyword {echo(keyword)} cannot be {echo(value)}; correct it."
                    )
        return f"The metadata schema is not valid JSON Schema of {self._dialect}; correct it."


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
        given = schema.get(keyword)
        if isinstance(given, str) and not given.startswith("#"):
            raise InvalidSchema(
                f"The metadata schema holds {keyword} {echo(given)} below its root, which changes "
                "what the parts around it mean; remove it."
            )

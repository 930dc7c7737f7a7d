"""Says what is wrong with a document, from the errors of jsonschema-rs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import jsonschema_rs

from projects.metadata._reading import echo

MAX_VIOLATIONS: Final = 20

# By keyword; the names in braces are those of jsonschema_rs.ValidationErrorKind.
_SENTENCES: Final[Mapping[str, str]] = {
    "anyOf": "Must validate at least one schema (anyOf)",
    "const": "does not match: {expected_value}",
    "contains": "has too few or too many items that match the schema of contains",
    "enum": "must be one of the following: {options}",
    "exclusiveMaximum": "Must be less than {limit}",
    "exclusiveMinimum": "Must be greater than {limit}",
    "falseSchema": "is not allowed",
    "format": "Does not match format '{format}'",
    "maxItems": "Array must have at most {limit} items",
    "maxLength": "String length must be less than or equal to {limit}",
    "maxProperties": "Must have at most {limit} properties",
    "maximum": "Must be less than or equal to {limit}",
    "minItems": "Array must have at least {limit} items",
    "minLength": "String length must be greater than or equal to {limit}",
    "minProperties": "Must have at least {limit} properties",
    "minimum": "Must be greater than or equal to {limit}",
    "multipleOf": "Must be a multiple of {multiple_of}",
    "not": "Must not validate the schema (not)",
    "oneOf": "Must validate one and only one schema (oneOf)",
    "pattern": "Does not match pattern '{pattern}'",
    "uniqueItems": "array items must be unique",
}


@dataclass(frozen=True, slots=True)
class Violation:
    """One way in which a document breaks its schema.

    ``field`` is the dotted path of the value: ``author``, ``author.name``, ``tags.0`` for the first
    item of a list, ``(root)`` for the document itself. A missing property is named, not its parent.
    """

    field: str
    reason: str


def explained(errors: Iterable[jsonschema_rs.ValidationError]) -> list[Violation]:
    """Return the first MAX_VIOLATIONS of what the errors say, each once."""
    found: dict[Violation, None] = {}
    for error in errors:
        for path, reason in _reasons(error):
            if len(found) == MAX_VIOLATIONS:
                return [
                    *found,
                    Violation("(root)", f"only the first {MAX_VIOLATIONS} violations are listed"),
                ]
            field = ".".join(map(str, path))
            found[Violation(echo(field, limit=200) or "(root)", reason)] = None
    return list(found)


def _reasons(error: jsonschema_rs.ValidationError) -> Iterator[tuple[list[str | int], str]]:
    path, keyword = error.instance_path, error.kind.name
    given = error.kind.as_dict()
    if keyword == "required":
        yield [*path, given["property"]], f"{echo(given['property'])} is required"
    elif keyword == "type":
        expected = "/".join(given["types"])
        yield path, f"Invalid type. Expected: {expected}, given: {_type_of(error.instance)}"
    elif keyword in {"additionalProperties", "unevaluatedProperties"}:
        for name in given["unexpected"]:
            yield [*path, name], f"Additional property {echo(name)} is not allowed"
    elif keyword == "propertyNames":
        name = given["error"].instance
        yield [*path, name], f"{echo(name)} is not an allowed property name"
    elif keyword in _SENTENCES:
        sentence = _SENTENCES[keyword]
        shown = {name: echo(value) for name, value in given.items() if f"{{{name}}}" in sentence}
        yield path, sentence.format(**shown)
    else:
        yield path, "does not match the schema"


def _type_of(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return names.get(type(value), "object")

"""Reads the text of a metadata schema: strict JSON, of a known dialect, with nothing to resolve."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import jsonschema_rs

MAX_SCHEMA_BYTES: Final = 64 * 1024
MAX_SCHEMA_DEPTH: Final = 32

_DRAFT_7 = "http://json-schema.org/draft-07/schema"
DIALECTS: Final[Mapping[str, type[jsonschema_rs.Validator]]] = {
    "http://json-schema.org/draft-06/schema": jsonschema_rs.Draft6Validator,
    _DRAFT_7: jsonschema_rs.Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema_rs.Draft201909Validator,
    "https://json-schema.org/draft/2020-12/schema": jsonschema_rs.Draft202012Validator,
}

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_NOT_AN_OBJECT = (
    'The metadata schema must be a JSON object such as {"type": "object"}; '
    "use {} to accept every document."
)
_TOO_DEEP = (
    f"The metadata schema is nested deeper than {MAX_SCHEMA_DEPTH} levels; "
    "move inner parts to definitions and refer to them with $ref."
)
_BAD_CHARACTER = (
    "The metadata schema holds U+0000 or half of a surrogate pair, which cannot be stored; "
    "remove the character."
)


class InvalidSchema(ValueError):
    """A text that cannot be a metadata schema; the message is a sentence for who sent it."""


def echo(value: object, *, limit: int = 80) -> str:
    """Return a value for a message: short, and on one line, as each line is one violation."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    short = _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text[: limit + 1])
    return short if len(short) <= limit else short[: limit - 1] + "…"


def levels(value: object) -> Iterator[list[Any]]:
    """Yield the values of a JSON document level by level, without recursing."""
    level = [value]
    while level:
        yield level
        inner: list[object] = []
        for each in level:
            if isinstance(each, dict):
                inner.extend(each.values())
            elif isinstance(each, list):
                inner.extend(each)
        level = inner


def written(source: object) -> str:
    """Return parsed JSON as text; raise InvalidSchema when JSON cannot express it."""
    if not isinstance(source, dict):
        raise InvalidSchema(_NOT_AN_OBJECT)
    try:
        return json.dumps(source, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise InvalidSchema(_TOO_DEEP) from None
    except (TypeError, ValueError):
        raise InvalidSchema(
            "The metadata schema holds a value that JSON cannot express, such as NaN or Infinity; "
            "use plain JSON values."
        ) from None


def read(text: str) -> tuple[dict[str, Any], str]:
    """Return the schema of a text, and its dialect; raise InvalidSchema when it is not one.

    A ``$id`` at the root only names the document. It is taken out: the validator sees no address.
    """
    root = _parsed(text)
    _check_levels(root)
    for name in ("$id", "id"):
        given = root.get(name)
        if isinstance(given, str) and not given.startswith("#"):
            del root[name]
    dialect = root["$schema"] = _dialect_of(root)
    return root, dialect


def _parsed(text: str) -> dict[str, Any]:
    if _UNSTORABLE.search(text):
        raise InvalidSchema(_BAD_CHARACTER)
    size = len(text.encode())
    if size > MAX_SCHEMA_BYTES:
        raise InvalidSchema(
            f"The metadata schema has {size} bytes; at most {MAX_SCHEMA_BYTES} are allowed."
        )
    try:
        root = json.loads(
            text,
            parse_constant=_number,
            parse_float=_number,
            parse_int=_integer,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise InvalidSchema(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise InvalidSchema(
            f"The metadata schema is not valid JSON: {error.msg} at line {error.lineno}, "
            f"column {error.colno}."
        ) from None
    if not isinstance(root, dict):
        raise InvalidSchema(_NOT_AN_OBJECT)
    return root


def _number(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        raise _out_of_range(literal)
    return number


def _integer(literal: str) -> int:
    # int() of thousands of digits raises by itself, so the length goes first.
    if len(literal) > 20 or not -(2**63) <= int(literal) < 2**63:
        raise _out_of_range(literal)
    return int(literal)


def _out_of_range(literal: str) -> InvalidSchema:
    return InvalidSchema(
        f"The metadata schema holds the number {echo(literal)}, which is out of range; "
        "use finite numbers, and integers of at most 64 bits."
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidSchema(
                f"The metadata schema names the key {echo(name)} twice in one object; remove one."
            )
        found[name] = value
    return found


def _check_levels(root: dict[str, Any]) -> None:
    for depth, level in enumerate(levels(root)):
        if depth >= MAX_SCHEMA_DEPTH and any(isinstance(value, dict | list) for value in level):
            raise InvalidSchema(_TOO_DEEP)
        for value in level:
            texts = [value] if isinstance(value, str) else value if isinstance(value, dict) else ()
            # An escape such as \u0000 shows up only now.
            if any(_UNSTORABLE.search(text) for text in texts):
                raise InvalidSchema(_BAD_CHARACTER)


def _dialect_of(root: Mapping[str, Any]) -> str:
    given = root.get("$schema", _DRAFT_7)
    name = given.removesuffix("#") if isinstance(given, str) else ""
    for dialect in DIALECTS:
        # Both schemes are common in the wild; the address is only ever compared.
        if name.partition("://")[2] == dialect.partition("://")[2]:
            return dialect
    raise InvalidSchema(
        f"The metadata schema names the dialect {echo(given)} in $schema; "
        f"supported are {', '.join(DIALECTS)}."
    )

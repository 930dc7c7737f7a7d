"""Reads the text of a metadata schema: strict JSON of a known dialect."""

from __future__ import annotations

import json as stdlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import jsonschema_rs

from common import json
from common.errors import Invalid

MAX_SCHEMA_BYTES: Final = 64 * 1024
MAX_SCHEMA_DEPTH: Final = 32

_DRAFT_7 = "http://json-schema.org/draft-07/schema"
DIALECTS: Final[Mapping[str, type[jsonschema_rs.Validator]]] = {
    "http://json-schema.org/draft-06/schema": jsonschema_rs.Draft6Validator,
    _DRAFT_7: jsonschema_rs.Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema_rs.Draft201909Validator,
    "https://json-schema.org/draft/2020-12/schema": jsonschema_rs.Draft202012Validator,
}
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NOT_AN_OBJECT = (
    'The metadata schema must be a JSON object such as {"type": "object"}; '
    "use {} to accept every document."
)


class InvalidSchema(ValueError):
    """A text that cannot be a metadata schema; the message is a sentence for who sent it."""


def echo(value: object, *, limit: int = 80) -> str:
    """Return a value for a message: short, and on one line, as each line is one violation."""
    text = value if isinstance(value, str) else stdlib.dumps(value, ensure_ascii=False)
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
        return stdlib.dumps(source, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (RecursionError, TypeError, ValueError):
        raise InvalidSchema(
            "The metadata schema holds a value that JSON cannot express, such as NaN or Infinity; "
            "use plain JSON values."
        ) from None


def read(text: str) -> tuple[dict[str, Any], str]:
    """Return the schema of a text, and its dialect; raise InvalidSchema when it is not one.

    A ``$id`` at the root only names the document. It is taken out: the validator sees no address.
    """
    if not text.strip():
        raise InvalidSchema(_NOT_AN_OBJECT)
    encoded = text.encode(errors="surrogatepass")
    if len(encoded) > MAX_SCHEMA_BYTES:
        raise InvalidSchema(
            f"The metadata schema has {len(encoded)} bytes; at most {MAX_SCHEMA_BYTES} are allowed."
        )
    try:
        root = json.plain(json.document(encoded), "The metadata schema")
    except Invalid as error:
        problem = str(error).removeprefix("body: ")
        problem = problem.replace("The request body", "The metadata schema")
        raise InvalidSchema(echo(problem, limit=300)) from None
    if not isinstance(root, dict):
        raise InvalidSchema(_NOT_AN_OBJECT)
    for depth, level in enumerate(levels(root)):
        if depth >= MAX_SCHEMA_DEPTH and any(isinstance(each, dict | list) for each in level):
            raise InvalidSchema(
                f"The metadata schema is nested deeper than {MAX_SCHEMA_DEPTH} levels; "
                "move inner parts to definitions and refer to them with $ref."
            )
    for name in ("$id", "id"):
        if isinstance(root.get(name), str):
            del root[name]
    dialect = root["$schema"] = _dialect_of(root)
    return root, dialect


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

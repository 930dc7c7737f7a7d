"""Metadata schemas: what a project may store as one, and whether a document matches it.

A schema comes from a stranger and runs on every upload, so saving one is where the work is: nothing
in it may lead outside the document, and what it can cost is bounded before it is ever compiled.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache

import jsonschema_rs

from projects.metadata._cost import (
    MAX_DOCUMENT_DEPTH,
    MAX_DOCUMENT_VALUES,
    Load,
    load_of,
    pattern_options,
    size_of,
)
from projects.metadata._explanation import MAX_VIOLATIONS, Violation, explained
from projects.metadata._inference import infer_schema
from projects.metadata._parts import MAX_SCHEMA_NODES, parts_of
from projects.metadata._reading import (
    DIALECTS,
    MAX_SCHEMA_BYTES,
    MAX_SCHEMA_DEPTH,
    InvalidSchema,
    echo,
    read,
    written,
)

__all__ = [
    "MAX_DOCUMENT_DEPTH",
    "MAX_DOCUMENT_VALUES",
    "MAX_SCHEMA_BYTES",
    "MAX_SCHEMA_DEPTH",
    "MAX_SCHEMA_NODES",
    "MAX_VIOLATIONS",
    "Budget",
    "InvalidSchema",
    "MetadataValidator",
    "Violation",
    "check_schema",
    "describe",
    "infer_schema",
    "validator_for",
]

_DOCUMENT_TOO_COSTLY = (
    "checking this document against the schema of the project could take too long; make the "
    "document smaller, or simplify uniqueItems, number limits and patterns such as .{1,255}"
)
_UPLOAD_TOO_COSTLY = (
    "checking the documents of this upload against the schema of the project takes too long; "
    "upload fewer of them at once"
)


class Budget:
    """The time that checking the documents of one upload may take together.

    It is what the thread really computed, not a bound as for one document: bounds are far too high
    for ordinary documents, and thousands of them add up.
    """

    def __init__(self, seconds: float = 3.0) -> None:
        self.seconds = seconds


def check_schema(source: object) -> str:
    """Return the text to store for a metadata schema, given as text or as parsed JSON.

    A text is returned as it came; a parsed object is written compactly, in its own key order.

    * It is an object of draft 06, 07 (when there is no ``$schema``), 2019-09 or 2020-12.
    * References are ``#`` or paths such as ``#/definitions/name``; those to anchors are refused. A
      ``$id`` at the root only names the schema; below, it would change where references lead.
    * Recursion must go into a property or an item, and meet each value of a document once.

    Raises:
        InvalidSchema: not JSON, not a schema, too large, too costly, or pointing outside itself.
    """
    text = source if isinstance(source, str) else written(source)
    _compiled(text)
    return text


@lru_cache(maxsize=64)
def validator_for(schema_text: str) -> MetadataValidator:
    """Return the compiled validator of a stored schema; the most recent ones are kept.

    Raises:
        InvalidSchema: the text would not pass check_schema().
    """
    return MetadataValidator(schema_text)


def describe(text_id: str, violations: Sequence[Violation]) -> str:
    """Return the detail text that v1 clients parse."""
    lines = "".join(f"\n  - {each.field}: {each.reason}" for each in violations)
    return f"metadata validation failed for text_id '{text_id}': metadata validation failed:{lines}"


class MetadataValidator:
    """Checks documents against one schema. Use validator_for() to get one."""

    def __init__(self, schema_text: str) -> None:
        self._validator, self._load = _compiled(schema_text)

    def violations(self, metadata: object, budget: Budget | None = None) -> list[Violation]:
        """Return how the document breaks the schema; empty when it is valid.

        Formats (``date``, ``email``, ``uri`` …) are asserted, as upstream does; unknown ones are
        not. Of a large document we only say that it does not match. One whose check could take too
        long is itself a violation; so is the one at which the budget of the upload runs out.
        """
        budget = budget or Budget()
        if budget.seconds <= 0:
            return [Violation("(root)", _UPLOAD_TOO_COSTLY)]
        began = time.thread_time()
        found = self._violations(metadata)
        budget.seconds -= time.thread_time() - began
        return found

    def _violations(self, metadata: object) -> list[Violation]:
        size = size_of(metadata)
        if isinstance(size, str):
            return [Violation("(root)", size)]
        if not self._load.allows(size):
            return [Violation("(root)", _DOCUMENT_TOO_COSTLY)]
        if self._validator.is_valid(metadata):
            return []
        if not self._load.allows_errors(size):
            return [Violation("(root)", "does not match the schema")]
        return explained(self._validator.iter_errors(metadata))


def _compiled(text: str) -> tuple[jsonschema_rs.Validator, Load]:
    root, dialect = read(text)
    load = load_of(parts_of(root, dialect))
    try:
        validator = DIALECTS[dialect](
            root,
            offline=True,
            validate_formats=True,
            pattern_options=pattern_options(),
            # Errors would otherwise hold the values as texts, too.
            mask="…",
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        raise InvalidSchema(
            f"The metadata schema cannot be used: {echo(str(error).partition(chr(10))[0])}."
        ) from None
    return validator, load

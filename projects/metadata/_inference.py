"""Drafts a metadata schema from documents that there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

# A few values that come again and again are a vocabulary; many, or rare ones, are free text.
MAX_ENUM_VALUES: Final = 12
_REPETITIONS: Final = 5
_LONGEST_VALUE: Final = 60
_DEEPEST: Final = 6
_MOST_KEYS: Final = 300
_NAMES: Final[Mapping[type, str]] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}


@dataclass
class _Seen:
    """What was seen at one place of the documents."""

    count: int = 0
    types: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)
    members: dict[str, _Seen] = field(default_factory=dict)
    items: _Seen | None = None

    def add(self, value: Any, depth: int) -> None:
        self.count += 1
        self.types[_NAMES[type(value)]] += 1
        if isinstance(value, str):
            # One more than is allowed tells that there are too many.
            if value in self.values or len(self.values) <= MAX_ENUM_VALUES:
                self.values[value] += 1
        elif depth == _DEEPEST:
            return
        elif isinstance(value, dict):
            for key, inner in value.items():
                if key in self.members or len(self.members) < _MOST_KEYS:
                    self.members.setdefault(key, _Seen()).add(inner, depth + 1)
        elif isinstance(value, list):
            self.items = self.items or _Seen()
            for inner in value:
                self.items.add(inner, depth + 1)

    def schema(self) -> dict[str, Any]:
        types = set(self.types)
        if "number" in types:
            types.discard("integer")
        schema: dict[str, Any] = {}
        if types:
            named = sorted(types, key=lambda name: (name == "null", name))
            schema["type"] = named[0] if len(named) == 1 else named
        if types == {"string"} and self._is_vocabulary():
            schema["enum"] = sorted(self.values)
        if self.members:
            schema["properties"] = {key: self.members[key].schema() for key in sorted(self.members)}
            objects = self.types["object"]
            required = [key for key, each in self.members.items() if each.count == objects]
            if required:
                schema["required"] = sorted(required)
        if self.items is not None and self.items.count:
            schema["items"] = self.items.schema()
        return schema

    def _is_vocabulary(self) -> bool:
        return (
            len(self.values) <= MAX_ENUM_VALUES
            and min(self.values.values()) >= _REPETITIONS
            and max(map(len, self.values)) <= _LONGEST_VALUE
        )


def infer_schema(documents: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return a schema that all of these documents match: the same for the same documents.

    It has the types of all values, the keys that every document has as required ones, and the
    values of keys with few of them. Keys that none of the documents has stay allowed.
    """
    seen = _Seen()
    for document in documents:
        seen.add(document, 0)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        **seen.schema(),
    }

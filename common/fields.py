"""Serializer fields that take JSON at its word: no number from a string, no text from a number."""

import re
import unicodedata
from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from common.handles import CHARACTERS, MAXIMUM_LENGTH, MINIMUM_LENGTH

_digits = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_decimal = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", re.ASCII)


class Text(serializers.CharField):
    """A string, kept as it is: not trimmed, and never made from a number."""

    default_error_messages = {
        "invalid": "This must be a string.",
        "required": "This field is required.",
        "null": "This must be a string, not null.",
        "blank": "This may not be empty.",
    }

    def __init__(self, **options: Any) -> None:
        options.setdefault("trim_whitespace", False)
        super().__init__(**options)

    def to_internal_value(self, data: Any) -> str:
        """Return the string; numbers and booleans are refused."""
        if not isinstance(data, str):
            self.fail("invalid")
        return str(super().to_internal_value(data))


@extend_schema_field(
    {"type": "string", "pattern": f"^{CHARACTERS}{{{MINIMUM_LENGTH},{MAXIMUM_LENGTH}}}$"}
)
class Handle(Text):
    """The handle of something new. The rule is described here and checked by the domain."""


class Printable(Text):
    """A string of one line: no control characters."""

    default_error_messages = {"control": "This may hold no control characters."}
    allowed = ""

    def to_internal_value(self, data: Any) -> str:
        """Return the string."""
        value = super().to_internal_value(data)
        # Cc: C0, DEL and C1.
        if any(unicodedata.category(each) == "Cc" and each not in self.allowed for each in value):
            self.fail("control")
        return value


class PrintableLines(Printable):
    """A string without control characters other than tab, carriage return and line feed."""

    default_error_messages = {
        "control": "This may hold no control characters but tab and line breaks."
    }
    allowed = "\t\r\n"


@extend_schema_field({"type": "object", "additionalProperties": True})
class JsonObject(serializers.DictField):
    """A JSON object, whatever it holds."""

    default_error_messages = {
        "not_a_dict": "This must be a JSON object.",
        "null": "This must be a JSON object, not null.",
    }


class NullsAsAbsent(serializers.Serializer[Any]):
    """A body in which null means "not given" for some fields.

    absent_when_null: their names.
    absent_when_null_in_part: those of which it is true in a partial update only.
    """

    absent_when_null: ClassVar[frozenset[str]] = frozenset()
    absent_when_null_in_part: ClassVar[frozenset[str]] = frozenset()

    def to_internal_value(self, data: Any) -> Any:
        """Return the values without such nulls."""
        absent = self.absent_when_null
        if self.partial:
            absent |= self.absent_when_null_in_part
        return super().to_internal_value(
            {name: value for name, value in data.items() if value is not None or name not in absent}
        )


class Flag(serializers.BooleanField):
    """true or false; not "true", not 1."""

    default_error_messages = {"invalid": "This must be true or false."}

    def to_internal_value(self, data: Any) -> bool:
        """Return the boolean."""
        if not isinstance(data, bool):
            self.fail("invalid")
        return data


class WholeNumber(serializers.IntegerField):
    """A whole JSON number; not a string, not a boolean, not 1.5."""

    default_error_messages = {"invalid": "This must be a whole number."}

    def to_internal_value(self, data: Any) -> int:
        """Return the number."""
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return data


class Choice(serializers.ChoiceField):
    """One of some words; nothing is coerced to a string first."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the word."""
        if not isinstance(data, str):
            self.fail("invalid_choice", input=data)
        return super().to_internal_value(data)


class QueryNumber(serializers.IntegerField):
    """A whole number in a query string, in ASCII digits."""

    default_error_messages = {"invalid": "This must be a whole number, in the digits 0 to 9."}

    def to_internal_value(self, data: Any) -> int:
        """Return the number."""
        if not isinstance(data, str) or _digits.fullmatch(data) is None:
            self.fail("invalid")
        return int(data)


@extend_schema_field({"type": "boolean"})
class QueryFlag(serializers.ChoiceField):
    """true or false in a query string."""

    default_error_messages = {"invalid_choice": "This must be true or false."}

    def __init__(self, **options: Any) -> None:
        super().__init__(choices=["true", "false"], **options)

    def to_internal_value(self, data: Any) -> Any:
        """Return the boolean."""
        return super().to_internal_value(data) == "true"


class QueryDecimal(serializers.FloatField):
    """A decimal number in a query string, in ASCII digits; never nan or inf."""

    default_error_messages = {"invalid": "This must be a decimal number such as 0.75."}

    def to_internal_value(self, data: Any) -> float:
        """Return the number."""
        if not isinstance(data, str) or _decimal.fullmatch(data) is None:
            self.fail("invalid")
        return float(data)

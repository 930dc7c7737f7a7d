"""Filters on metadata: which rows an answer may hold. Knows no models and no SQL.

A filter is a JSON object of paths and what their values must be, all of which must hold:
``{"author": "Ann", "source.year": {"gte": 1790}}``. `docs/filters.md` says what matches.
"""

from embeddings.filters._conditions import (
    AllOf,
    AnyOf,
    Comparison,
    Condition,
    Negation,
    Operator,
    Path,
    Scalar,
)
from embeddings.filters._reading import (
    MAXIMUM_CONDITIONS,
    MAXIMUM_NESTING,
    MAXIMUM_OPERANDS,
    parse,
    parse_path,
    parse_text,
    parse_values,
)

__all__ = [
    "MAXIMUM_CONDITIONS",
    "MAXIMUM_NESTING",
    "MAXIMUM_OPERANDS",
    "AllOf",
    "AnyOf",
    "Comparison",
    "Condition",
    "Negation",
    "Operator",
    "Path",
    "Scalar",
    "parse",
    "parse_path",
    "parse_text",
    "parse_values",
]

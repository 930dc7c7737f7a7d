"""Shapes the results of searches: which are shown, in which order, and with what.

`docs/results.md` says what each option does.
"""

from embeddings.shaping._fields import dressed
from embeddings.shaping._searching import Shaped, answer, answer_stored
from embeddings.shaping._shape import (
    DEEPEST,
    MAXIMUM_EXAMPLES,
    MAXIMUM_GROUP_SIZE,
    MAXIMUM_NEIGHBOURS,
    MAXIMUM_PATHS,
    MOST_CANDIDATES,
    Context,
    Fields,
    Grouping,
    Passage,
    Question,
    Result,
    Shape,
    check_size,
)

__all__ = [
    "DEEPEST",
    "MAXIMUM_EXAMPLES",
    "MAXIMUM_GROUP_SIZE",
    "MAXIMUM_NEIGHBOURS",
    "MAXIMUM_PATHS",
    "MOST_CANDIDATES",
    "Context",
    "Fields",
    "Grouping",
    "Passage",
    "Question",
    "Result",
    "Shape",
    "Shaped",
    "answer",
    "answer_stored",
    "check_size",
    "dressed",
]

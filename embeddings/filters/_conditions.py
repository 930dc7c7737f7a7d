"""What a filter means, as a tree."""

from dataclasses import dataclass
from enum import StrEnum

Scalar = str | int | float | bool | None
Operand = Scalar | tuple[Scalar, ...]


class Operator(StrEnum):
    """How a value in the metadata is compared with the operand.

    `ne` and `nin` are negations of EQUAL and IN.
    """

    EQUAL = "eq"
    GREATER = "gt"
    GREATER_OR_EQUAL = "gte"
    LESS = "lt"
    LESS_OR_EQUAL = "lte"
    IN = "in"
    CONTAINS = "contains"
    EXISTS = "exists"
    PREFIX = "prefix"
    BETWEEN = "between"


@dataclass(frozen=True)
class Path:
    """Where a value is in the metadata.

    keys: lead from object to object, and into the objects of lists.
    whole: the key with the dots in it that the path may mean as well, None for none.
    """

    keys: tuple[str, ...]
    whole: str | None = None

    @property
    def places(self) -> tuple[tuple[str, ...], ...]:
        """Return the one or two chains of keys that the path means."""
        return (self.keys,) if self.whole is None else (self.keys, (self.whole,))


@dataclass(frozen=True)
class Comparison:
    """Keeps rows with a value at the path that compares with the operand.

    operand: a scalar; True or False for EXISTS; (least, most) for BETWEEN; the scalars for IN;
    those that must all be contained for CONTAINS.
    """

    path: Path
    operator: Operator
    operand: Operand


@dataclass(frozen=True)
class Negation:
    """Keeps the rows that the condition does not keep."""

    condition: "Condition"


@dataclass(frozen=True)
class AllOf:
    """Keeps the rows that each of the conditions keeps."""

    conditions: "tuple[Condition, ...]"


@dataclass(frozen=True)
class AnyOf:
    """Keeps the rows that some of the conditions keeps."""

    conditions: "tuple[Condition, ...]"


Condition = Comparison | Negation | AllOf | AnyOf

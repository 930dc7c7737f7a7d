"""Colours a map's points by what the metadata holds at a key."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson

from embeddings import store
from embeddings.filters import Path
from embeddings.projections._parts import Map
from projects.models import Project

# Colours that can be told apart; rarer values share another one.
_MOST_GROUPS = 10
OTHER, NO_VALUE = 10, 11
# From so many different numbers on they are a scale, unless other values are among them.
_SCALE_FROM = 11
_NEARLY_ALL = 0.95


@dataclass(frozen=True)
class Group:
    """Points of one colour. value: as text; "" for OTHER and NO_VALUE."""

    code: int
    value: str
    count: int


@dataclass(frozen=True)
class Colouring:
    """How a map is coloured.

    codes: of each point's group, uint8; all NO_VALUE where numbers are a scale and there is none.
    numbers: float32 where it is a scale, NaN for points without a number; else None.
    groups: in the order of the legend. least, most: the ends of the scale.
    """

    codes: npt.NDArray[np.uint8]
    groups: Sequence[Group]
    numbers: npt.NDArray[np.float32] | None = None
    least: float = 0
    most: float = 0


def colour(project: Project, drawn: Map, path: Path) -> Colouring:
    """Return the colours of a map by what is at a path of the metadata now: one query.

    Of a list, its first value counts.
    """
    # Of a sample, only those are looked up.
    is_sample = drawn.projection.rows > len(drawn.text_ids)
    found = store.first_values(project.pk, path, drawn.text_ids if is_sample else None)
    values = [found.get(text_id) for text_id in drawn.text_ids]
    counts = Counter(value for value in values if value is not None)
    numbers = {value: number for value in counts if (number := _number(value)) is not None}
    with_number = sum(counts[value] for value in numbers)
    if len(numbers) >= _SCALE_FROM and with_number >= _NEARLY_ALL * counts.total():
        return _scale(values, numbers, with_number)
    return _groups(values, counts)


def _number(value: str) -> float | None:
    """Return a number in JSON; None for other values, and for those that no float32 holds."""
    if value[0] in '"tf':
        return None
    with np.errstate(over="ignore"):
        number = float(np.float32(orjson.loads(value)))
    return number if np.isfinite(number) else None


def _scale(values: Sequence[str | None], numbers: dict[str, float], with_number: int) -> Colouring:
    scaled = np.array(
        [np.nan if value is None else numbers.get(value, np.nan) for value in values],
        dtype=np.float32,
    )
    without = len(values) - with_number
    codes = np.where(np.isnan(scaled), NO_VALUE, 0).astype(np.uint8)
    groups = [Group(NO_VALUE, "", without)] if without else []
    return Colouring(codes, groups, scaled, min(numbers.values()), max(numbers.values()))


def _groups(values: Sequence[str | None], counts: "Counter[str]") -> Colouring:
    # The most frequent first; equally frequent ones by their text, so that colours stay.
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    code_of: dict[str | None, int] = {None: NO_VALUE}
    code_of |= {value: code for code, value in enumerate(ranked[:_MOST_GROUPS])}
    codes = np.array([code_of.get(value, OTHER) for value in values], dtype=np.uint8)
    groups = [
        Group(code, _as_text(value), counts[value])
        for code, value in enumerate(ranked[:_MOST_GROUPS])
    ]
    other = sum(counts[value] for value in ranked[_MOST_GROUPS:])
    without = len(values) - counts.total()
    rest = [(OTHER, other), (NO_VALUE, without)]
    return Colouring(codes, [*groups, *(Group(code, "", count) for code, count in rest if count)])


def _as_text(value: str) -> str:
    found = orjson.loads(value)
    return found if isinstance(found, str) else value

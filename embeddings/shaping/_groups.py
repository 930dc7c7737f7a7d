"""Groups a ranking by a value of the metadata."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from embeddings import store
from embeddings.filters import AllOf, AnyOf, Comparison, Condition, Negation, Operator, Scalar
from embeddings.shaping._shape import Grouping
from embeddings.store import Hit, Ranking, Wanted

# Searches for one answer. Each leaves out the groups that are full, so one is enough where texts
# are spread, and a value that most texts have costs one more.
_MOST_ROUNDS = 10
_FEWEST_AT_ONCE = 64

# 1, 1.0 and true are equal to Python; a boolean is another group.
Key = tuple[bool, Scalar]


@dataclass
class _Group:
    value: Scalar
    hits: list[Hit] = field(default_factory=list)


@dataclass(frozen=True)
class Grouped:
    """Groups by their best hit.

    complete: whether no text is missing in them, and no group.
    ranking: of the first search, for how it was answered.
    """

    groups: Sequence[tuple[Scalar, Sequence[Hit]]]
    complete: bool
    ranking: Ranking


def grouped(
    project_id: int, search: Callable[[Wanted], Ranking], wanted: Wanted, grouping: Grouping
) -> Grouped:
    """Return the groups of the texts most similar to a query.

    search: ranks the project's texts. wanted: limit and offset count groups.
    Texts without a value belong to no group; one with several, to that which is first in the
    answer. Where full groups fill the ranking, the search is repeated without them.
    """
    count = wanted.last
    at_once = max(_FEWEST_AT_ONCE, 2 * count * grouping.size)
    asked = replace(wanted, limit=at_once, offset=0)
    groups: dict[Key, _Group] = {}
    seen: set[str] = set()
    ranking = first = search(asked)
    complete = False
    for _ in range(_MOST_ROUNDS):
        new = [hit for hit in ranking.hits if hit.text_id not in seen]
        seen.update(hit.text_id for hit in new)
        described = store.describe(project_id, [hit.text_id for hit in new], paths=[grouping.path])
        for hit in new:
            if hit.text_id in described:
                _place(groups, hit, described[hit.text_id].values[0], grouping.size, count)
        complete = _is_full(groups, grouping.size, count) or len(ranking.hits) < at_once
        if complete or not new:
            break
        has_room = _with_room(groups, grouping, count)
        ranking = search(replace(asked, filter=_both(wanted.filter, has_room)))
    chosen = list(groups.values())[wanted.offset :]
    return Grouped([(each.value, each.hits) for each in chosen], complete, first)


def _is_full(groups: dict[Key, _Group], size: int, count: int) -> bool:
    return len(groups) == count and all(len(each.hits) == size for each in groups.values())


def _place(
    groups: dict[Key, _Group], hit: Hit, values: Sequence[Scalar], size: int, count: int
) -> None:
    keys = {(isinstance(value, bool), value): value for value in values}
    known = next((group for key, group in groups.items() if key in keys), None)
    if known is None and keys and len(groups) < count:
        key, value = next(iter(keys.items()))
        known = groups[key] = _Group(value)
    if known is not None and len(known.hits) < size:
        known.hits.append(hit)


def _with_room(groups: dict[Key, _Group], grouping: Grouping, count: int) -> Condition:
    """Return the condition of texts that there is still room for."""
    full = [each.value for each in groups.values() if len(each.hits) == grouping.size]
    partly = [each.value for each in groups.values() if len(each.hits) < grouping.size]
    has_room = Comparison(grouping.path, Operator.IN, tuple(partly))
    if len(groups) == count:
        return has_room
    is_new = AllOf(
        (
            Negation(Comparison(grouping.path, Operator.IN, tuple(full))),
            Comparison(grouping.path, Operator.EXISTS, True),
        )
    )
    return AnyOf((has_room, is_new)) if partly else is_new


def _both(one: Condition | None, other: Condition) -> Condition:
    return other if one is None else AllOf((one, other))

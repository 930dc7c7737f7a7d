"""Answers questions about one project."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.errors import FieldError, Invalid, NotFound
from common.versions import RowVersion
from embeddings import store
from embeddings.columns import Matrix
from embeddings.filters import AnyOf, Comparison, Condition, Operator, Path, Scalar
from embeddings.shaping._diversity import diverse
from embeddings.shaping._fields import dressed
from embeddings.shaping._groups import grouped
from embeddings.shaping._shape import (
    MOST_CANDIDATES,
    Question,
    Result,
    Shape,
)
from embeddings.store import Described, Hit, Ranking, Wanted
from projects.models import Project

# Vectors that are compared with one another: 16 MB.
_NUMBERS = 4 * 1024**2
_MOST_VALUES = 1_000
# Shorter than this, an average of unit vectors is what rounding has left of it.
_SHORTEST = 1e-6


@dataclass(frozen=True)
class Shaped:
    """What a question was answered with.

    results: in their order; those of a group one after the other, the best group first.
    ranking: what was searched first, for how it was answered.
    complete: of groups, whether no text is missing in them; None without groups.
    """

    results: Sequence[Result]
    ranking: Ranking
    complete: bool | None = None


def answer(project: Project, question: Question, rests_on: Sequence[RowVersion] = ()) -> Shaped:
    """Return what a project holds for a question.

    rests_on: what must still be as the caller knows it; else `Stale` is raised.
    Raises NotFound for examples that the project does not have, Invalid for those that cancel each
    other out.
    """
    wanted, vector = question.wanted, question.vector
    examples = _examples(project, question)
    if vector is None:
        vector = _like(project, question, examples)
        wanted = replace(wanted, without=(*question.positive, *question.negative))
    positive = [examples[text_id] for text_id in question.positive]
    return _shaped(project, vector, wanted, question.shape, positive, rests_on)


def answer_stored(
    project: Project,
    text_ids: Sequence[str],
    wanted: Wanted,
    shape: Shape,
    rests_on: Sequence[RowVersion] = (),
) -> Shaped | None:
    """Return what is most similar to a stored text, without it; None where there is none.

    text_ids: of these, the first that is stored is meant.
    """
    found = store.describe(project.pk, text_ids, vector=True, paths=shape.exclude_same)
    text_id = next((each for each in text_ids if each in found), None)
    if text_id is None:
        return None
    one = found[text_id]
    wanted = replace(wanted, without=(text_id,))
    return _shaped(project, one.vector, wanted, shape, [one], rests_on)


def _shaped(
    project: Project,
    vector: Matrix,
    wanted: Wanted,
    shape: Shape,
    documents: Sequence[Described],
    rests_on: Sequence[RowVersion],
) -> Shaped:
    wanted = replace(wanted, left_out=_left_out(shape, documents))

    def search(asked: Wanted) -> Ranking:
        return store.nearest(project.pk, vector, asked, rests_on)

    complete = None
    if shape.grouping is not None:
        found = grouped(project.pk, search, wanted, shape.grouping)
        ranking, complete = found.ranking, found.complete
        results = [
            Result(hit.text_id, hit.similarity, value)
            for value, hits in found.groups
            for hit in hits
        ]
    elif shape.diversity:
        ranking = search(replace(wanted, limit=_candidates(project), offset=0))
        hits = _diverse(project, ranking.hits, shape.diversity, wanted)
        results = [Result(hit.text_id, hit.similarity) for hit in hits]
    else:
        ranking = search(wanted)
        results = [Result(hit.text_id, hit.similarity) for hit in ranking.hits]
    return Shaped(dressed(project.pk, results, shape.fields, shape.context), ranking, complete)


# --- Examples -------------------------------------------------------------------------------------
def _examples(project: Project, question: Question) -> dict[str, Described]:
    """Return the texts that results should be like or unlike; raise NotFound."""
    text_ids = (*question.positive, *question.negative)
    found = store.describe(project.pk, text_ids, vector=True, paths=question.shape.exclude_same)
    for kind in ("positive", "negative"):
        for number, text_id in enumerate(getattr(question, kind)):
            if text_id not in found:
                problem = f"Project '{project}' has no embedding with text_id '{text_id[:300]}'."
                place = f"{question.location}.{kind}[{number}]"
                raise NotFound(problem, errors=[FieldError(place, problem)])
            if len(found[text_id].vector) != project.instance.dimensions:
                problem = f"'{text_id[:300]}' has another length than the project's vectors."
                raise _refused(question, kind, problem)
    return found


def _like(project: Project, question: Question, examples: dict[str, Described]) -> Matrix:
    """Return twice the mean of the positive examples less that of the negative ones.

    Each is brought to length 1 first. Without negative ones, their mean alone: the same direction.
    """
    positive, negative = (
        [examples[text_id].vector for text_id in text_ids]
        for text_ids in (question.positive, question.negative)
    )
    if len(positive) == 1 and not negative:
        return positive[0]
    mean = _mean(positive)
    if negative:
        mean = 2 * mean - _mean(negative)
    if np.linalg.norm(mean) < _SHORTEST:
        problem = "These examples cancel each other out: their average points in no direction."
        raise _refused(question, "positive", problem)
    vector: Matrix = mean.astype(np.float32)
    return vector


def _mean(vectors: Sequence[Matrix]) -> NDArray[np.float64]:
    rows = np.array(vectors, dtype=np.float64)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    mean: NDArray[np.float64] = units.mean(axis=0)
    return mean


def _refused(question: Question, name: str, problem: str) -> Invalid:
    return Invalid(problem, errors=[FieldError(f"{question.location}.{name}", problem)])


# --- What is left out -----------------------------------------------------------------------------
def _left_out(shape: Shape, documents: Iterable[Described]) -> Condition | None:
    """Return the condition of texts that have a value of the query document's, or a given one."""
    values: dict[Path, list[Scalar]] = {
        path: list(given) for path, given in shape.exclude_values.items()
    }
    for document in documents:
        for path, held in zip(shape.exclude_same, document.values, strict=True):
            values.setdefault(path, []).extend(held)
    if sum(map(len, values.values())) > _MOST_VALUES:
        problem = f"The query has more than {_MOST_VALUES} values at the paths of exclude_same."
        raise Invalid(problem)
    conditions = tuple(
        Comparison(path, Operator.IN, tuple(held)) for path, held in values.items() if held
    )
    if not conditions:
        return None
    return conditions[0] if len(conditions) == 1 else AnyOf(conditions)


# --- Diversity ------------------------------------------------------------------------------------
def _candidates(project: Project) -> int:
    """Return how many of the nearest diverse results are chosen from."""
    return min(MOST_CANDIDATES, _NUMBERS // project.instance.dimensions)


def _diverse(project: Project, hits: Sequence[Hit], diversity: float, wanted: Wanted) -> list[Hit]:
    found = store.describe(project.pk, [hit.text_id for hit in hits], vector=True)
    # Some may have been deleted meanwhile.
    there = [hit for hit in hits if hit.text_id in found]
    if not there:
        return []
    chosen = diverse(
        np.array([hit.similarity for hit in there]),
        np.array([found[hit.text_id].vector for hit in there]),
        diversity=diversity,
        count=wanted.last,
    )
    return [there[row] for row in chosen[wanted.offset :]]

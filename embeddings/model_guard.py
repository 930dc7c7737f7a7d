"""Notices when vectors of different models come together in a project.

Every embedding says which model made it, as far as its instance knew then: an instance may be given
another model later, and a project another instance. And whoever uploads vectors may have made them
otherwise than the instance says; that only the vectors tell.

Vectors of one model share directions, whatever the texts are about and in whatever language. How
much two sets do is measured by d · E[cos²(x, y)] over pairs from both, in d dimensions: exactly 1
for sets of which one was turned at random, as unrelated models are to each other. See decision 0012
for what real models give.
"""

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from cachetools import LRUCache

from embeddings import store
from embeddings.models import ProjectModel
from embeddings.store import Matrix
from llm_services.models import EmbeddingModel
from projects.models import Project
from projects.selectors import Locked

# Fewer vectors, or fewer dimensions, say too little.
FEWEST = 20
_FEWEST_DIMENSIONS = 32
_SAMPLE = 200
# Sets of one model have 2.1 at least, however far their texts are from each other; 15 as a rule.
_UNRELATED = 1.5
# Vectors that point everywhere resemble those of other models as much as each other.
_CONCENTRATED = 2.5
# Lengths beyond those of all that are stored, by this factor.
_OTHER_LENGTH = 2.0
_KNOWN_FOR_S = 600.0
_MOST_BYTES = 32 * 1024**2


@dataclass(frozen=True)
class _Sample:
    """Some stored vectors of a project.

    unit: float32 of shape (n, dimensions), of length 1. shortest, longest: what they had before.
    concentration: their relatedness within.
    since: when this process read them, in seconds of the monotonic clock.
    """

    unit: Matrix
    shortest: float
    longest: float
    concentration: float
    since: float


_samples: LRUCache[int, _Sample] = LRUCache(_MOST_BYTES, getsizeof=lambda known: known.unit.nbytes)
_lock = threading.Lock()


def forget_all() -> None:
    """Look again at the vectors of every project."""
    with _lock:
        _samples.clear()


def notice(project: Project, locked: Locked, vectors: Matrix) -> list[str]:
    """Note which model makes new vectors of a project; return what is odd about them.

    locked: the project, which the caller holds. vectors: float32 of shape (n, dimensions), not
    stored yet. Asks the database when a model is new to the project, and once in some minutes.
    """
    if locked.model_id not in locked.models_used:
        row = ProjectModel(project=project, model_id=locked.model_id)
        ProjectModel.objects.bulk_create([row], ignore_conflicts=True)
    warnings = _other_models(project, set(locked.models_used) - {locked.model_id})
    if _tell_anything(vectors):
        sample = _sample_of(project)
        if sample is not None:
            warnings += _oddities(project, vectors, sample)
    return warnings


def warnings_about(project: Project) -> list[str]:
    """Return what is to be said about the models of a project's vectors."""
    noted = ProjectModel.objects.filter(project=project).values_list("model_id", flat=True)
    return _other_models(project, set(noted) - {project.instance.embedding_model_id})


def sanity_warnings(project: Project) -> list[str]:
    """Return the same with numbers, and whether vectors of unrelated models are mixed."""
    current = project.instance.embedding_model_id
    rows = store.rows_by_model(project.pk)
    names = EmbeddingModel.objects.in_bulk([each for each in rows if each is not None])
    warnings = [
        f"{rows[each]} embeddings were made by the model {names[each].model}, its LLM service has "
        f"{project.instance.model} now"
        for each in sorted(names)
        if each != current
    ]
    found = least_related(store.sample_vectors(project.pk, project.instance.dimensions, _SAMPLE))
    if found is not None and found < _UNRELATED:
        warnings.append(
            "its vectors seem to be of unrelated models: those stored earlier resemble those "
            f"stored later no more than chance ({found:.2f}, where 1 is chance)"
        )
    return warnings


# --- What is known --------------------------------------------------------------------------------
def _sample_of(project: Project) -> _Sample | None:
    """Return some vectors of the project, or None where they would tell nothing."""
    with _lock:
        known = _samples.get(project.pk)
    dimensions = project.instance.dimensions
    now = time.monotonic()
    if known is not None and now - known.since < _KNOWN_FOR_S and known.unit.shape[1] == dimensions:
        return known
    vectors = store.sample_vectors(project.pk, dimensions, _SAMPLE)
    if not _tell_anything(vectors):
        # A few vectors will be more soon.
        return None
    unit, lengths = _unit(vectors)
    shortest, longest = float(lengths.min()), float(lengths.max())
    sample = _Sample(unit, shortest, longest, _relatedness_within(unit), now)
    with _lock:
        _samples[project.pk] = sample
    return sample


def _other_models(project: Project, noted: Collection[int]) -> list[str]:
    """Return a sentence on each of the models that are noted and have made stored vectors."""
    if not noted:
        return []
    models = EmbeddingModel.objects.filter(pk__in=noted).order_by("pk")
    return [
        _other_model(project, model) for model in models if store.has_model(project.pk, model.pk)
    ]


def _other_model(project: Project, model: EmbeddingModel) -> str:
    instance = project.instance
    where = ""
    if (model.model, model.dimensions) == (instance.model, instance.dimensions):
        where = " at another address"
    return (
        f"Some embeddings of project '{project}' were made by the model {model.model}{where}, not "
        f"by that of its LLM service now, {instance.model}. Vectors of different models cannot be "
        "compared: upload them anew, or re-embed the project."
    )


# --- What the vectors tell ------------------------------------------------------------------------
def _tell_anything(vectors: Matrix) -> bool:
    return len(vectors) >= FEWEST and vectors.shape[1] >= _FEWEST_DIMENSIONS


def _oddities(project: Project, vectors: Matrix, sample: _Sample) -> list[str]:
    step = max(1, len(vectors) // _SAMPLE)
    given, lengths = _unit(vectors[::step])
    warnings = []
    found = relatedness(given, sample.unit)
    if sample.concentration >= _CONCENTRATED and found < _UNRELATED:
        warnings.append(
            f"These vectors resemble those stored in project '{project}' no more than chance "
            f"({found:.2f}, where 1 is chance and those stored have {sample.concentration:.1f} "
            "among each other). Were they made by another model?"
        )
    length = float(lengths.mean())
    if not sample.shortest / _OTHER_LENGTH <= length <= sample.longest * _OTHER_LENGTH:
        warnings.append(
            f"These vectors have a mean length of {length:.3g}, those stored in project "
            f"'{project}' {sample.shortest:.3g} to {sample.longest:.3g}. Were they made in another "
            "way?"
        )
    return warnings


def relatedness(one: Matrix, other: Matrix) -> float:
    """Return d · E[cos²] over pairs from two sets of unit vectors, of shape (n, d) and (m, d)."""
    return float(one.shape[1] * np.mean((one @ other.T) ** 2))


def _relatedness_within(unit: Matrix) -> float:
    count, dimensions = unit.shape
    # No vector is a pair with itself.
    squares = float(np.sum((unit @ unit.T) ** 2)) - count
    return float(dimensions * squares / (count * (count - 1)))


def least_related(vectors: Matrix) -> float | None:
    """Return the least relatedness of what came earlier and what came later, at whatever moment.

    vectors: in the order in which they came. None where they tell nothing.
    """
    if len(vectors) < 2 * FEWEST or vectors.shape[1] < _FEWEST_DIMENSIONS:
        return None
    unit, _ = _unit(vectors)
    count = len(unit)
    # Squares summed over all pairs up to a row and a column: each split is four corners of it.
    sums = ((unit @ unit.T).astype(np.float64) ** 2).cumsum(axis=0).cumsum(axis=1)
    places = np.arange(FEWEST, count - FEWEST + 1)
    before = sums[places - 1, count - 1] - sums[places - 1, places - 1]
    related = unit.shape[1] * before / (places * (count - places))
    least = int(related.argmin())
    place = int(places[least])
    concentrations = (_relatedness_within(unit[:place]), _relatedness_within(unit[place:]))
    return float(related[least]) if max(concentrations) >= _CONCENTRATED else None


def _unit(vectors: Matrix) -> tuple[Matrix, Matrix]:
    """Return vectors of length 1, and the lengths."""
    lengths = np.linalg.norm(vectors, axis=1)
    return vectors / lengths[:, None], lengths

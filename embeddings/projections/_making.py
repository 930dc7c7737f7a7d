"""Makes the maps of projects: small ones at once, others and those by UMAP in the background."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import orjson
import structlog
import zstandard
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from accounts.policy import Actor, Level
from common import jobs
from common.errors import Conflict
from embeddings import store
from embeddings.models import Projection, ProjectionMethod, ProjectionState
from embeddings.projections._axes import Axes, Matrix, laid_out
from embeddings.projections._umap import Failed, has_umap, neighbourly
from projects.models import Project
from projects.selectors import project_for

MAKE = "embeddings.make_projection"
# Of larger projects a sample is drawn.
MOST_TEXTS = 50_000
# Fewer have not enough neighbours each.
LEAST_FOR_UMAP = 16
# Rows times dimensions of maps that are made while somebody waits: a tenth of a second.
_AT_ONCE = 1024**2
# UMAP works on so many principal components: what is left out is mostly noise, and it is bounded.
_COMPONENTS = 64
_READING, _LAYING = 0.2, 0.8
# Whether data has changed is told by reading all rows up to here, 0.1 s; else by their number.
_MOST_FINGERPRINTED = 100_000
_BLOCK_NUMBERS = 1024**2
_TELL_EVERY_S = 0.5
_LOST_AFTER = timedelta(minutes=2)
_LOST = "It failed for a reason that the server's log tells."
_LONGEST_ERROR = 500
_HEAVY = ("text_ids", "points")

log = structlog.get_logger("armarium.projections")


@dataclass(frozen=True)
class _Made:
    """Where texts lie: ids in their order, float32 points of shape (n, 2), and PCA's axes."""

    text_ids: list[str]
    points: Matrix
    axes: Axes | None


# --- Asking for one -------------------------------------------------------------------------------
def projection_of(project: Project, method: ProjectionMethod) -> Projection | None:
    """Return how far a project's map is, without its points; None where nobody asked for it."""
    return project.projections.defer(*_HEAVY).filter(method=method).first()


def show(project: Project, rows: int, method: ProjectionMethod) -> Projection | None:
    """Return a project's map for whoever may read it; the first PCA is made where there is none.

    rows: how many embeddings the project has. Small projects' maps are made at once. None for
    those of which nobody has made a map by UMAP.
    """
    found = projection_of(project, method)
    if found is not None or method != ProjectionMethod.PCA or not rows:
        return found
    if rows * project.instance.dimensions <= _AT_ONCE:
        found, _ = Projection.objects.get_or_create(project=project, method=method)
        _make(project, found, lambda share: None)
    else:
        _ask(project, method)
    return projection_of(project, method)


def ask(actor: Actor, *, owner: str, handle: str, method: ProjectionMethod) -> Projection:
    """Have a project's map made anew in the background; its editors' to ask for.

    Raises as `project_for`, and Conflict where it cannot be made.
    """
    project = project_for(actor, Level.EDITOR, owner=owner, handle=handle)
    rows = store.count(project.pk)
    if not rows:
        raise Conflict(f"Project '{project}' has no texts to draw a map of.")
    if method == ProjectionMethod.UMAP:
        if not has_umap():
            raise Conflict(
                "UMAP is not installed on this server: pip install -r requirements-umap.txt"
            )
        if rows < LEAST_FOR_UMAP:
            raise Conflict(f"UMAP needs {LEAST_FOR_UMAP} texts or more.")
    return _ask(project, method)


@transaction.atomic
def _ask(project: Project, method: ProjectionMethod) -> Projection:
    projection, _ = Projection.objects.get_or_create(project=project, method=method)
    waiting = {"state": ProjectionState.WAITING, "progress": 0, "error": ""}
    rows = Projection.objects.filter(pk=projection.pk)
    if rows.exclude(state=ProjectionState.RUNNING).update(updated_at=timezone.now(), **waiting):
        name = f"map {projection.pk}"
        jobs.defer(MAKE, lock=name, queueing_lock=name, projection_id=projection.pk)
    return rows.defer(*_HEAVY).get()


def is_outdated(projection: Projection, project: Project, rows: int) -> bool:
    """Say whether the project's data has changed since its map was made.

    rows: how many embeddings it has now. Of very large projects only the number is compared.
    """
    if projection.rows != rows or projection.instance_id != project.instance_id:
        return True
    if projection.fingerprint is None:
        return False
    return projection.fingerprint != _fingerprint(project, rows)


def _fingerprint(project: Project, rows: int) -> int | None:
    return store.fingerprint(project.pk) if rows <= _MOST_FINGERPRINTED else None


# --- Making it ------------------------------------------------------------------------------------
def make(projection_id: int) -> None:
    """Make a map, and keep it; the one before is shown until then.

    Raises jobs.Interrupted, and whatever fails for the moment, so that the job is tried again.
    """
    projections = Projection.objects.select_related("project__instance").defer(*_HEAVY)
    projection = projections.filter(pk=projection_id).first()
    if projection is None or not projection.is_active:
        return
    rows = Projection.objects.filter(pk=projection_id)
    rows.update(state=ProjectionState.RUNNING, progress=0, updated_at=timezone.now())
    told_at = time.monotonic()

    def tell(share: float) -> None:
        nonlocal told_at
        jobs.checkpoint()
        if time.monotonic() - told_at >= _TELL_EVERY_S:
            told_at = time.monotonic()
            rows.update(progress=share, updated_at=timezone.now())

    try:
        _make(projection.project, projection, tell)
    except Failed as error:
        log.warning("projection_failed", projection=projection_id, reason=str(error))
        rows.update(state=ProjectionState.FAILED, error=str(error)[:_LONGEST_ERROR])


def _make(project: Project, projection: Projection, tell: Callable[[float], object]) -> None:
    # What changes while it is made is told from what it shows by the state before.
    rows = store.count(project.pk)
    fingerprint = _fingerprint(project, rows)
    lay_out = _by_umap if projection.method == ProjectionMethod.UMAP else _by_pca
    made = lay_out(project, tell)
    explained = (None, None) if made.axes is None else made.axes.explained
    Projection.objects.filter(pk=projection.pk).update(
        state=ProjectionState.READY,
        progress=1,
        error="",
        number=F("number") + 1,
        rows=rows,
        count=len(made.text_ids),
        fingerprint=fingerprint,
        instance_id=project.instance_id,
        explained_x=explained[0],
        explained_y=explained[1],
        text_ids=zstandard.compress(orjson.dumps(made.text_ids)),
        points=made.points.astype("<f4").tobytes(),
        made_at=timezone.now(),
        updated_at=timezone.now(),
    )


def _by_pca(project: Project, tell: Callable[[float], object]) -> _Made:
    return _laid(project, 2, tell)


def _by_umap(project: Project, tell: Callable[[float], object]) -> _Made:
    components = min(_COMPONENTS, project.instance.dimensions)
    laid = _laid(project, components, lambda share: tell(_READING * share))
    if len(laid.text_ids) < LEAST_FOR_UMAP:
        raise Failed(f"UMAP needs {LEAST_FOR_UMAP} texts or more.")
    points = neighbourly(laid.points, lambda share: tell(_READING + _LAYING * share))
    return _Made(laid.text_ids, points, None)


def _laid(project: Project, count: int, tell: Callable[[float], object]) -> _Made:
    """Lay the project's texts, or its sample, along principal axes."""
    text_ids: list[str] = []
    points: list[Matrix] = []
    axes = None
    for some, laid, axes in laid_out(_parts(project, tell), count):  # noqa: B007
        text_ids += some
        points.append(laid)
    if axes is None:
        return _Made([], np.empty((0, count), dtype=np.float32), None)
    order = sorted(range(len(text_ids)), key=text_ids.__getitem__)
    return _Made([text_ids[place] for place in order], np.concatenate(points)[order], axes)


def _parts(project: Project, tell: Callable[[float], object]) -> Iterator[tuple[list[str], Matrix]]:
    chosen = store.stable_sample(project.pk, MOST_TEXTS)
    dimensions = project.instance.dimensions
    size = max(1, min(2_000, _BLOCK_NUMBERS // dimensions))
    for start in range(0, len(chosen), size):
        yield store.vectors_of(project.pk, chosen[start : start + size], dimensions)
        tell(min(1.0, (start + size) / len(chosen)))


def sweep() -> None:
    """End those that no worker takes up again: they failed in a way that `make` did not expect."""
    before = timezone.now() - _LOST_AFTER
    active = [ProjectionState.WAITING, ProjectionState.RUNNING]
    lost = Projection.objects.filter(state__in=active, updated_at__lt=before)
    unfinished = jobs.arguments_of_unfinished(MAKE, "projection_id")
    for pk in lost.values_list("pk", flat=True):
        if str(pk) not in unfinished:
            lost.filter(pk=pk).update(state=ProjectionState.FAILED, error=_LOST)

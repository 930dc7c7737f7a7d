"""Vectors laid out in a plane: what PCA finds, what is kept, how jobs begin and end."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from django.utils import timezone

from accounts.policy import Actor
from common.errors import Conflict, Forbidden
from embeddings import projections, store
from embeddings.models import Projection, ProjectionMethod, ProjectionState
from embeddings.projections import _axes, _making, _umap
from embeddings.projections._axes import laid_out, of_length_one, principal_axes
from tests.factories import Cast, item, stored
from tests.jobs import run_jobs

PCA, UMAP = ProjectionMethod.PCA, ProjectionMethod.UMAP
WHERE = {"owner": "alice", "handle": "letters"}


def cloud(rows: int, dimensions: int) -> Any:
    """Return vectors that differ less and less from direction to direction."""
    random = np.random.default_rng(7)
    spread = 1 / (1 + np.arange(dimensions))
    turn, _ = np.linalg.qr(random.standard_normal((dimensions, dimensions)))
    vectors = random.standard_normal((rows, dimensions)) * spread @ turn + 0.5
    return vectors.astype(np.float32)


def fill(cast: Cast, rows: int = 40) -> None:
    """Store texts in `alice/letters`."""
    vectors = cloud(rows, 3).tolist()
    items = [item(f"t{each:03}", vector) for each, vector in enumerate(vectors)]
    assert cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": items}).status == 201


def alice() -> Actor:
    """Return the owner of the project."""
    return Actor(user=stored("alice"))


# --- Axes -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("rows", "dimensions"), [(500, 40), (30, 200), (2, 5), (1, 4), (7, 1)])
def test_axes_are_those_of_an_exact_decomposition(rows: int, dimensions: int) -> None:
    vectors = cloud(rows, dimensions)
    axes = principal_axes(vectors, 2)
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, strengths, exact = np.linalg.svd(centred, full_matrices=False)
    shares = strengths**2 / max(np.sum(strengths**2), 1e-12)
    for place in range(min(2, rows - 1, dimensions)):
        assert axes.explained[place] == pytest.approx(shares[place], abs=1e-3)
        assert abs(axes.directions[:, place] @ exact[place]) == pytest.approx(1, abs=1e-2)
    assert axes.lay(vectors).shape == (rows, 2)
    assert np.isfinite(axes.lay(vectors)).all()


def test_vectors_beyond_the_fitted_ones_are_laid_along_the_same_axes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = cloud(900, 20)
    ids = [str(each) for each in range(len(vectors))]
    parts = [
        (ids[start : start + 100], vectors[start : start + 100]) for start in range(0, 900, 100)
    ]
    whole = np.concatenate([laid for _, laid, _ in laid_out(parts, 2)])
    monkeypatch.setattr(_axes, "FITTED_NUMBERS", 400 * 20)
    found = list(laid_out(parts, 2))
    assert [text_id for some, _, _ in found for text_id in some] == ids
    assert len({id(axes) for _, _, axes in found}) == 1
    laid = np.concatenate([each for _, each, _ in found])
    likeness = [abs(np.corrcoef(laid[:, axis], whole[:, axis])[0, 1]) for axis in range(2)]
    assert min(likeness) > 0.95


def test_very_large_and_small_vectors_have_directions() -> None:
    vectors = np.array([[3e38, 3e38], [1e-38, 0], [3, 4]], dtype=np.float32)
    lengths = np.linalg.norm(of_length_one(vectors), axis=1)
    assert lengths == pytest.approx([1, 1, 1], abs=1e-6)


# --- What is kept ---------------------------------------------------------------------------------
def test_a_large_project_is_drawn_in_the_background(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(cast)
    monkeypatch.setattr(_making, "_AT_ONCE", 10)
    waiting = projections.show(cast.project, 40, PCA)
    assert waiting is not None
    assert (waiting.state, waiting.number) == (ProjectionState.WAITING, 0)
    assert run_jobs() == [projections.MAKE]
    ready = projections.show(cast.project, 40, PCA)
    assert ready is not None
    assert (ready.state, ready.number, ready.count) == (ProjectionState.READY, 1, 40)
    assert 0 < (ready.explained_y or 0) <= (ready.explained_x or 0) <= 1


def test_a_sample_is_stable(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cast)
    monkeypatch.setattr(_making, "MOST_TEXTS", 10)
    first = projections.show(cast.project, 40, PCA)
    assert first is not None
    assert (first.count, first.rows) == (10, 40)
    ids = projections.map_of(first).text_ids
    assert ids == sorted(store.stable_sample(cast.project.pk, 10))
    assert set(ids) <= set(store.stable_sample(cast.project.pk, 20))
    projections.ask(alice(), **WHERE, method=PCA)
    run_jobs()
    second = projections.projection_of(cast.project, PCA)
    assert second is not None
    assert projections.map_of(second).text_ids == ids


@pytest.mark.parametrize("change", ["put", "delete", "post"])
def test_any_change_of_the_data_is_noticed(change: str, cast: Cast) -> None:
    fill(cast)
    drawn = projections.show(cast.project, 40, PCA)
    assert drawn is not None
    assert not projections.is_outdated(drawn, cast.project, 40)
    path = "/v1/embeddings/alice/letters"
    if change == "put":
        cast.alice.put(f"{path}/t001", item("t001", [9, 9, 9]))
    elif change == "delete":
        cast.alice.delete(f"{path}/t001")
    else:
        cast.alice.post(path, {"embeddings": [item("new", [1, 2, 3])]})
    assert projections.is_outdated(drawn, cast.project, store.count(cast.project.pk))


def test_maps_go_with_their_project(cast: Cast) -> None:
    fill(cast)
    projections.show(cast.project, 40, PCA)
    assert cast.alice.delete("/v1/projects/alice/letters").status < 300
    assert not Projection.objects.exists()


# --- Jobs -----------------------------------------------------------------------------------------
def test_asking_twice_makes_one_job(cast: Cast) -> None:
    fill(cast)
    for _ in range(2):
        projections.ask(alice(), **WHERE, method=PCA)
    assert run_jobs() == [projections.MAKE]
    assert Projection.objects.get().number == 1


def test_a_job_that_was_killed_is_done_from_the_start(cast: Cast) -> None:
    fill(cast)
    projection = projections.ask(alice(), **WHERE, method=PCA)
    Projection.objects.update(state=ProjectionState.RUNNING, progress=0.5)
    run_jobs()
    projection.refresh_from_db()
    assert (projection.state, projection.number) == (ProjectionState.READY, 1)


def test_one_that_nobody_works_at_is_given_up(cast: Cast) -> None:
    fill(cast)
    lost = Projection.objects.create(
        project=cast.project, method=UMAP, state=ProjectionState.RUNNING
    )
    projections.sweep()
    lost.refresh_from_db()
    assert lost.state == ProjectionState.RUNNING
    Projection.objects.update(updated_at=timezone.now() - 2 * _making._LOST_AFTER)
    projections.sweep()
    lost.refresh_from_db()
    assert lost.state == ProjectionState.FAILED


def test_readers_cannot_ask(cast: Cast) -> None:
    fill(cast)
    with pytest.raises(Forbidden):
        projections.ask(Actor(user=stored("rita")), **WHERE, method=PCA)


def test_nothing_is_drawn_of_nothing(cast: Cast) -> None:
    assert projections.show(cast.project, 0, PCA) is None
    with pytest.raises(Conflict):
        projections.ask(alice(), **WHERE, method=PCA)


# --- UMAP -----------------------------------------------------------------------------------------
def test_umap_needs_some_texts(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_making, "has_umap", lambda: True)
    fill(cast, 5)
    with pytest.raises(Conflict, match="16"):
        projections.ask(alice(), **WHERE, method=UMAP)


def test_a_failure_of_umap_is_kept(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    child = tmp_path / "child.py"
    child.write_text("import sys; print(0.5, flush=True); sys.exit('no memory')")
    monkeypatch.setattr(_umap, "_CHILD", child)
    monkeypatch.setattr(_making, "has_umap", lambda: True)
    fill(cast)
    projection = projections.ask(alice(), **WHERE, method=UMAP)
    run_jobs()
    projection.refresh_from_db()
    assert (projection.state, projection.error) == (ProjectionState.FAILED, "no memory")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("umap") is None, reason="UMAP is an extra: requirements-umap.txt")
def test_umap_keeps_neighbours_together() -> None:
    centres = np.repeat(np.eye(3, 10, dtype=np.float32) * 20, 30, axis=0)
    vectors = centres + np.random.default_rng(1).standard_normal(centres.shape, dtype=np.float32)
    told: list[float] = []
    points = _umap.neighbourly(vectors, told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)
    groups = points.reshape(3, 30, 2)
    within = max(float(group.std(axis=0).max()) for group in groups)
    between = np.linalg.norm(groups.mean(axis=1) - groups.mean(axis=1)[[1, 2, 0]], axis=1)
    assert between.min() > 3 * within

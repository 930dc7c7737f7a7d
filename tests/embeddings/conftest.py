"""What tests of large projects share."""

from collections.abc import Callable, Iterator

import pytest
from pytest_django import Settings

from embeddings import indexes
from tests.embeddings import large
from tests.factories import Cast
from tests.jobs import forget_jobs


@pytest.fixture
def small_indexes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Index projects from 300 texts of 64 dimensions on, and seal from 50 on, 25 at once.

    Whether uploads have ended is looked at as much more often as they are smaller here.
    """
    settings.INDEX_THRESHOLD = 300 * 64
    monkeypatch.setattr(indexes, "SEAL_FROM", 50)
    monkeypatch.setattr(indexes, "SEAL_CHUNK", 25)
    monkeypatch.setattr(indexes, "_LOOK_EVERY_S", 0.02)


@pytest.fixture
def real_segments(transactional_db: None) -> Iterator[None]:
    """Find and leave no segments and jobs in tests with `transaction=True`."""
    large.drop_segments()
    yield
    large.drop_segments()
    forget_jobs()


@pytest.fixture
def shelf(cast: Cast, small_indexes: None) -> large.Shelf:
    """Return an empty project of Alice's, of 64 dimensions."""
    return large.Shelf(cast.alice).make(readers=["rita"], editors=["erin"])


@pytest.fixture
def indexed(shelf: large.Shelf) -> Callable[[int], large.Shelf]:
    """Return a function that fills the project with so many texts and has them indexed."""

    def fill(rows: int) -> large.Shelf:
        shelf.upload(range(rows))
        assert shelf.tended()["state"] == "indexed"
        return shelf

    return fill

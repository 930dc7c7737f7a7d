"""The cast that most tests play with."""

import pytest
from hypothesis import settings

from embeddings import model_guard, store
from tests.factories import Cast, make_cast

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("armarium", deadline=None)
settings.load_profile("armarium")


@pytest.fixture(autouse=True)
def new_places() -> None:
    """Forget where embeddings are: what a test does is undone, which happens nowhere else."""
    store.forget_all()
    model_guard.forget_all()


@pytest.fixture
def cast(db: None) -> Cast:
    """Alice owns, Erin edits, Rita reads, Sam is a stranger, Ada administers."""
    return make_cast()

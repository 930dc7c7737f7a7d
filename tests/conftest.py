"""The cast that most tests play with."""

import pytest

from tests.factories import Cast, make_cast


@pytest.fixture
def cast(db: None) -> Cast:
    """Alice owns, Erin edits, Rita reads, Sam is a stranger, Ada administers."""
    return make_cast()

"""Alice's project with some texts in it."""

import pytest

from tests.factories import Cast, item

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>{{7*7}}\u202egnp'


@pytest.fixture
def texts(cast: Cast) -> Cast:
    """The cast, and four texts in `alice/letters`; one is full of what must stay text."""
    rows = [
        item("a/1", [1, 0, 0], text="My dear friend", metadata={"author": "Ann", "year": 1791}),
        item("b 2?", [0.9, 0.1, 0], text="Dear Sir", metadata={"author": "Ben", "year": 1792}),
        item("c\n3", [0, 1, 0], text="", metadata={"author": "Ann", "tags": ["x", "y"]}),
        item(HOSTILE, [0, 0.9, 0.1], text=HOSTILE, metadata={HOSTILE: HOSTILE, "title": HOSTILE}),
    ]
    answer = cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": rows})
    assert answer.status == 201, answer.body
    return cast

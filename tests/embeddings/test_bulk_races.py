"""Bulk uploads at the same moment, and what is open while a body arrives."""

from typing import Any

import pytest
from django.db import connection

from common import bodies
from tests.embeddings.bulk import ARROW, NDJSON, PROJECT, Rows, in_arrow, in_lines
from tests.factories import Caller, Cast, vectors
from tests.races import at_once, statuses

pytestmark = [
    pytest.mark.django_db(transaction=True, serialized_rollback=True),
    pytest.mark.slow,
]


def rows_of(prefix: str, count: int = 2_000) -> Rows:
    return [
        {"text_id": f"{prefix}{row}", "vector": vector}
        for row, vector in enumerate(vectors(count, 3).tolist())
    ]


@pytest.mark.parametrize(("media_type", "written"), [(ARROW, in_arrow), (NDJSON, in_lines)])
def test_uploads_that_cross_end_in_one_of_them(cast: Cast, media_type: str, written: Any) -> None:
    # Each stores first what the other stores last, which PostgreSQL ends as a deadlock.
    first, second = list(rows_of("a")), list(rows_of("b"))
    crossing = [written(first + second), written(second + first)]
    answers = at_once(
        [
            lambda body=body: Caller(cast.erin.key).post(  # type: ignore[misc]
                PROJECT, raw=body, content_type=media_type
            )
            for body in crossing
        ]
    )
    assert statuses(answers) == {201: 1, 409: 1}
    assert cast.alice.get(PROJECT)["total_count"] == 4_000


def test_no_transaction_is_open_while_the_body_arrives(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[bool] = []
    spool = bodies.spool

    def watched(*arguments: Any, **options: Any) -> Any:
        states.append(connection.in_atomic_block)
        return spool(*arguments, **options)

    monkeypatch.setattr(bodies, "spool", watched)
    for media_type, body in ((ARROW, in_arrow(rows_of("a"))), (NDJSON, in_lines(rows_of("b")))):
        assert cast.erin.post(PROJECT, raw=body, content_type=media_type).status == 201
    assert states == [False, False]
    assert connection.in_atomic_block is False

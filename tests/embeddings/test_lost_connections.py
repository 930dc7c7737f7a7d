"""Searches after the database was restarted, or an idle connection was cut."""

from collections.abc import Callable

import pytest

from tests.embeddings.large import elsewhere, facts
from tests.factories import Answer, Cast, item

LETTERS = "/v1/similars/alice/letters"


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
@pytest.mark.parametrize("body", [{}, {"filter": {"n": 1}}])
def test_a_connection_that_was_cut_meanwhile_fails_no_search(
    cast: Cast, body: dict[str, object]
) -> None:
    items = [item("a", [1, 0, 0], metadata={"n": 1}), item("b", [1, 1, 0], metadata={"n": 1})]
    assert cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": items}).status == 201
    asked = {"vector": [1, 0, 0], **body}
    expected = cast.rita.post(LETTERS, asked).body
    assert len(expected["results"]) == 2
    asks: list[Callable[[], Answer]] = [
        lambda: cast.rita.post(LETTERS, asked),
        lambda: cast.rita.get(f"{LETTERS}/a"),
    ]
    for ask in asks:
        ask()
        (pid,) = facts("SELECT pg_backend_pid()")
        with elsewhere(f"SELECT pg_terminate_backend({pid}, 5000)"):
            answer = ask()
        assert answer.status == 200, answer.body
        assert answer["results"][-1]["id"] == "b"

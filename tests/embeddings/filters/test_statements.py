"""No word of a filter is in the text of a statement, and filters of one kind share their texts."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from psycopg.sql import Composable

from embeddings import filters, store
from embeddings.store._conditions import conditions_of
from tests.embeddings.large import Shelf, vectors

pytestmark = pytest.mark.django_db

WORD = "canary'; DROP TABLE embeddings_embedding; -- %s %(x)s {0} \" \\ $"


def statements(shelf: Shelf, condition: Any) -> tuple[list[str], str]:
    """Ask every address with a filter; return the statements' texts, and all that was bound."""
    texts, bound = [], []

    def note(execute: Any, statement: Any, params: Any, many: bool, context: Any) -> Any:
        text = statement.as_string() if isinstance(statement, Composable) else statement
        texts.append(text.decode() if isinstance(text, bytes) else str(text))
        bound.append(repr(params))
        return execute(statement, params, many, context)

    query, body = quote(json.dumps(condition)), {"filter": condition, "metadata": {"seen": 1}}
    vector = vectors(64)[0].astype(float).tolist()
    with connection.execute_wrapper(note):
        answers = [
            shelf.owner.get(f"{shelf.embeddings}?filter={query}"),
            shelf.owner.get(f"{shelf.embeddings}/count?filter={query}"),
            shelf.owner.get(f"{shelf.embeddings}/facets?path={quote(WORD)}&filter={query}"),
            shelf.owner.post(f"{shelf.similars}?threshold=0", {"vector": vector, **body}),
            shelf.owner.get(f"{shelf.similars}/t0001?filter={query}"),
            shelf.owner.post(f"{shelf.embeddings}/update", body),
            shelf.owner.post(f"{shelf.embeddings}/delete", body),
        ]
    assert [each.status for each in answers] == [200] * len(answers)
    return texts, " ".join(bound)


def test_filters_are_bound_and_share_their_statements(shelf: Shelf, indexed: Any) -> None:
    indexed(300)
    shelf.upload(range(300, 305))
    # Who may search is remembered, and checked by the statement, from the second time on.
    statements(shelf, {"row": 0})
    one: dict[str, Any] = {f"{WORD}.{WORD}": WORD}
    another = {"author": {"in": ["Ann", "Bob"]}, "year": {"gte": 1790}}
    texts, bound = statements(shelf, one)
    assert "canary" not in " ".join(texts)
    assert "canary" in bound
    kinds = {each for each in texts if "@@" in each}
    assert kinds == {each for each in statements(shelf, another)[0] if "@@" in each}
    scanned, bound = statements(shelf, {"not": {"or": [one, {WORD: {"contains": WORD}}]}})
    assert "canary" not in " ".join(scanned)
    assert "canary" in bound


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ({"row": 7}, 1),
        ({"row": {"in": [7, 8, 1e9]}}, 2),
        ({"deep.er": 7}, 1),
        ({"list": {"contains": [7, True]}}, 1),
        ({"row": {"in": [7, 8]}, "title": {"prefix": "t"}}, 2),
        ({"or": [{"row": 7}, {"and": [{"deep.er": 8}, {"row": {"gt": 0}}]}]}, 2),
    ],
)
def test_the_index_of_the_metadata_finds_what_is_equal(
    shelf: Shelf, indexed: Any, condition: Any, rows: int
) -> None:
    shelf.metadata = lambda row: {
        "row": row,
        "deep": {"er": row},
        "list": [row, True],
        "title": f"t{row}",
    }
    indexed(300)
    conditions = conditions_of(filters.parse(condition, "filter"))
    table = f"embeddings_embedding_{store.look(shelf.row.pk).segment}"
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(
            "EXPLAIN (ANALYZE, FORMAT JSON) SELECT text_id FROM"
            f" {table} AS embedding WHERE true{conditions.text}",
            conditions.parameters,
        )
        plan: Any = cursor.fetchone()[0]
    plan = json.loads(plan) if isinstance(plan, str) else plan
    [scan] = plan[0]["Plan"]["Plans"]
    assert (scan["Index Name"], scan["Actual Rows"]) == (f"{table}_metadata", rows)

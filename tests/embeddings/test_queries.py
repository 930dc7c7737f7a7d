"""How many statements each request takes, whatever it carries: no loop asks the database."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import ApiKey
from embeddings import store
from tests.factories import Answer, Cast, item, make_instance, make_project, make_user

LETTERS = "/v1/embeddings/alice/letters"
SIMILARS = "/v1/similars/alice/letters"
BIG = "/v1/embeddings/alice/big"


def statements(ask: Callable[[], Answer], status: int = 200) -> list[str]:
    """Return the statements of a request but those that only mark a transaction."""
    with CaptureQueriesContext(connection) as captured:
        answer = ask()
    assert answer.status == status, answer.body
    return [
        query["sql"]
        for query in captured.captured_queries
        if not query["sql"].startswith(("SAVEPOINT", "RELEASE", "ROLLBACK TO"))
    ]


def upload(cast: Cast, count: int, *, start: int = 0, project: str = "letters") -> Answer:
    items = [item(f"t{start + n:05}", [1, n, 3]) for n in range(count)]
    return cast.alice.post(f"/v1/embeddings/alice/{project}", {"embeddings": items})


@pytest.fixture
def warm(cast: Cast) -> Cast:
    """Let everybody use their key once, for the first use may be written down.

    Let this process look, too, where the rows of Alice's project are.
    """
    for role in ("owner", "editor", "reader", "admin", "stranger"):
        cast.with_role(role).get("/v1/users/nobody-there")
    assert cast.alice.get(f"{LETTERS}?limit=1").status == 200
    # Which model a project's vectors are made by is noted once.
    assert upload(cast, 1).status == 201
    assert cast.alice.delete(f"{LETTERS}/t00000").status == 200
    return cast


SEARCHES: list[Callable[[Cast], Answer]] = [
    lambda cast: cast.rita.get(f"{SIMILARS}/t00500?count=200"),
    lambda cast: cast.rita.get(f"{SIMILARS}/t00500?metadata_path=a&metadata_value=c&offset=50"),
    lambda cast: cast.rita.get(f'{SIMILARS}/t00500?filter={{"a":1}}'),
    lambda cast: cast.rita.post(f"{SIMILARS}?count=200", {"vector": [1, 2, 3]}),
    lambda cast: cast.rita.post(SIMILARS, {"vector": [1, 2, 3], "filter": {"a": 1}}),
]


def test_a_warm_search_among_1000_is_one_statement(warm: Cast) -> None:
    assert upload(warm, 1000).status == 201
    for search in SEARCHES:
        search(warm)
        (ranking,) = statements(lambda search=search: search(warm))  # type: ignore[misc]
        # The capture sees the store's own cursor too.
        assert "<=>" in ranking
        assert "embeddings_embedding_growing" in ranking
        # Who may search is a condition of the very statement.
        for table in ("accounts_apikey", "accounts_user", "projects_project"):
            assert f"FROM {table} WHERE id" in ranking


def test_somebodys_first_search_looks_up_key_and_project(warm: Cast) -> None:
    assert upload(warm, 2).status == 201
    key, project, ranking = statements(lambda: warm.rita.get(f"{SIMILARS}/t00001"))
    assert 'FROM "accounts_apikey"' in key
    assert 'FROM "projects_project"' in project
    assert "<=>" in ranking


def test_a_process_looks_once_where_a_projects_rows_are(warm: Cast) -> None:
    assert upload(warm, 2).status == 201
    store.forget(warm.project.pk)
    made = statements(lambda: warm.rita.get(f"{SIMILARS}/t00001"))
    assert len(made) == 4, made
    assert "embeddings_searchindex" in made[2]
    # Another's first search in the same project.
    assert len(statements(lambda: warm.erin.get(f"{SIMILARS}/t00001"))) == 3


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        # Key, project, lock, copy, and which segment may hold an id already.
        (1, 5),
        (498, 5),
        # And whether so much has grown that an index is due: once each 500 rows.
        (1000, 6),
    ],
)
def test_an_upload_takes_the_same_statements_whatever_its_size(
    warm: Cast, count: int, expected: int
) -> None:
    body = {"embeddings": [item(f"t{n:05}", [1, n, 3]) for n in range(count)]}
    with CaptureQueriesContext(connection) as captured:
        assert warm.erin.post(LETTERS, body).status == 201
    made = [query["sql"] for query in captured.captured_queries]
    real = [each for each in made if not each.startswith(("SAVEPOINT", "RELEASE"))]
    assert len(real) == expected, real
    # The outer savepoint stands for BEGIN of a request of its own, the inner one for the insert.
    assert len(made) - len(real) == 4, made
    assert sum("COPY" in each for each in real) == 1


def test_a_schema_does_not_add_statements(warm: Cast) -> None:
    schema = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
    make_project("alice", "checked", metadataScheme=schema)
    items = [item(f"t{n}", [1, 2, 3], metadata={"n": n}) for n in range(301)]
    path = "/v1/embeddings/alice/checked"
    assert warm.alice.post(path, {"embeddings": [items.pop()]}).status == 201
    body = {"embeddings": items}
    assert len(statements(lambda: warm.alice.post(path, body), 201)) == 3


BUDGETS: dict[str, tuple[int, str, str, Any, int]] = {
    "one embedding": (3, "GET", f"{LETTERS}/t00001", None, 200),
    "replacing one": (5, "PUT", f"{LETTERS}/t00001", item("t00001", [3, 2, 1]), 200),
    "a page of embeddings": (4, "GET", f"{LETTERS}?limit=200", None, 200),
    "a page past the end": (3, "GET", f"{LETTERS}?offset=5000", None, 200),
    # One of them asks for the models that made its embeddings.
    "a project": (5, "GET", "/v1/projects/alice/letters", None, 200),
    "sharees": (3, "GET", "/v1/projects/alice/letters/shared-with", None, 200),
    # One of them looks for the default project, which the list of an owner always holds.
    "a page of projects": (5, "GET", "/v1/projects/alice?limit=200", None, 200),
    # A lock against what moves rows, a look where the row is, and the deletion.
    "deleting one": (5, "DELETE", f"{LETTERS}/t00001", None, 200),
    # Uploads and whatever moves rows are waited for.
    "deleting all": (6, "DELETE", LETTERS, None, 200),
}


def test_two_rows_and_twenty_take_the_same_statements(warm: Cast) -> None:
    grown = 0
    for rows in (2, 20):
        for number in range(grown, rows):
            make_project("alice", f"more-{number}", readers=["rita"])
            sharee = make_user(f"sharee-{number}")
            share = {"share_with_handle": sharee.handle, "role": "reader"}
            assert warm.alice.post("/v1/projects/alice/letters/share", share).status == 201
        grown = rows
        assert upload(warm, rows).status == 201
        # Deleting all forgot where the rows are.
        store.look(warm.project.pk)
        for name, (budget, method, path, body, status) in BUDGETS.items():
            made = statements(lambda ask=(method, path, body): warm.alice.ask(*ask), status)  # type: ignore[misc]
            assert len(made) == budget, f"{name}: {json.dumps(made, indent=1)}"


def test_refusals_take_no_more_than_answers(warm: Cast) -> None:
    assert upload(warm, 2).status == 201
    for ask, status, budget in [
        (lambda: warm.sam.get(f"{SIMILARS}/t00001"), 403, 2),
        (lambda: warm.sam.get(f"{LETTERS}/t00001"), 403, 2),
        (lambda: warm.rita.delete(LETTERS), 403, 2),
        (lambda: warm.nobody.delete(LETTERS), 401, 0),
        (lambda: warm.alice.post(LETTERS, {"embeddings": []}), 400, 2),
        (lambda: upload(warm, 2), 409, 5),
    ]:
        made = statements(ask, status)
        assert len(made) <= budget, made


def test_a_keys_first_use_costs_at_most_one_more_statement(warm: Cast) -> None:
    assert upload(warm, 2).status == 201
    ApiKey.objects.update(last_used_at=None)
    first = statements(lambda: warm.rita.get(f"{SIMILARS}/t00001"))
    assert len(first) == 3 + 1
    assert first[-1].startswith('UPDATE "accounts_apikey"')


def test_projects_of_other_instances_do_not_slow_a_search(warm: Cast) -> None:
    assert upload(warm, 2).status == 201
    make_instance("alice", "other", dimensions=2)
    for number in range(5):
        make_project("alice", f"big-{number}", instance="other")
    warm.alice.get(f"{SIMILARS}/t00001")
    assert len(statements(lambda: warm.alice.get(f"{SIMILARS}/t00001"))) == 1

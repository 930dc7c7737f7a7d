"""What each request of the Projects API costs in statements."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.factories import Cast

# Savepoints stand for the transaction that a request outside of a test would have, and for the one
# around each write, whose violations are told.
BUDGETS: list[tuple[str, str, Any, int]] = [
    ("GET", "/projects/{project}", None, 2),
    ("GET", "/agents/{agent}", None, 2),
    ("GET", "/users/{user}", None, 2),
    ("GET", "/files/{file}", None, 2),
    ("POST", "/projects", {"name": "x"}, 6),
    ("POST", "/agents", {"name": "x"}, 3),
    ("POST", "/agents", {"name": "x", "project": "letters"}, 3),
    ("POST", "/users", {"name": "x", "project": "letters"}, 3),
    ("POST", "/files", {"name": "x", "content": "SGVsbG8h"}, 3),
    ("PATCH", "/agents/{agent}", {"about": "x"}, 4),
    ("PATCH", "/agents/{agent}", {"project": "letters"}, 4),
    ("PUT", "/users/{user}", {"name": "x"}, 4),
    ("POST", "/users/{user}", {"name": "x"}, 4),
    ("DELETE", "/users/{user}", None, 3),
    ("DELETE", "/files/{file}", None, 3),
    ("DELETE", "/projects/{project}", None, 17),
]


@pytest.mark.parametrize(("method", "template", "body", "budget"), BUDGETS)
def test_a_request_keeps_to_its_budget(
    cast: Cast, method: str, template: str, body: Any, budget: int
) -> None:
    new = {"name": "known", "content": "SGVsbG8h"}
    known = {kind: cast.alice.post(f"/{kind}s", new)["id"] for kind in ("agent", "user", "file")}
    path = template.format(project=cast.project.uuid, **known)
    # The first request of a key notes that it was used.
    cast.alice.get("/agents/models")
    with CaptureQueriesContext(connection) as captured:
        answer = cast.alice.ask(method, path, body)
    assert answer.status in {200, 201, 202}, answer.body
    statements = [each["sql"] for each in captured if "SAVEPOINT" not in each["sql"]]
    assert len(statements) == budget, "\n".join(statements)

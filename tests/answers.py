"""What tests say about answers: values that vary, refusals, and what must not change."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from django.apps import apps
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from accounts import keys
from accounts.models import FailedAttempts
from tests.factories import Answer

LONGEST_REFUSAL = 64 * 1024
_APPS = ("accounts", "llm_services", "projects", "embeddings", "resources")
# What nobody outside may read in a refusal.
_INSIDES = re.compile(rb"Traceback|psycopg|SELECT |INSERT |django|site-packages|\.py\b")


class Like:
    """Equals whatever a test accepts in its place."""

    def __init__(self, name: str, accepts: Callable[[Any], object]) -> None:
        self.name = name
        self.accepts = accepts

    def __eq__(self, other: object) -> bool:
        return bool(self.accepts(other))

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<{self.name}>"


_rfc3339_utc = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")

_uuid7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

A_TIME = Like("a time", lambda it: isinstance(it, str) and _rfc3339_utc.fullmatch(it))
A_KEY = Like("a key", lambda it: isinstance(it, str) and re.fullmatch(keys.PATTERN, it))
A_UUID = Like("a version 7 UUID", lambda it: isinstance(it, str) and _uuid7.fullmatch(it))
AN_ID = Like("an id", lambda it: type(it) is int and it > 0)
TIMES = {"created_at": A_TIME, "updated_at": A_TIME}


def page(key: str, items: Any, *, total: int, limit: int = 10, offset: int = 0) -> dict[str, Any]:
    """Return the whole body of a list."""
    return {
        key: items,
        "total_count": total,
        "limit": limit,
        "offset": offset,
        "has_more": offset + len(items) < total,
    }


def assert_refused(
    answer: Answer, status: int, *, location: str | None = None, says: str = ""
) -> None:
    """Check that an answer is a problem body of the status.

    location: of the field that `errors` must name.
    says: a part of the detail.
    """
    assert answer.status == status, answer.content[:500]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert set(answer.body) - {"errors"} == {"type", "title", "status", "detail"}
    assert answer["title"] == HTTPStatus(status).phrase
    assert answer["status"] == status
    assert answer["detail"]
    assert says in answer["detail"]
    assert len(answer.content) <= LONGEST_REFUSAL
    assert not _INSIDES.search(answer.content)
    if location is not None:
        assert location in [each["location"] for each in answer["errors"]], answer.body
        assert all(each["message"] for each in answer["errors"])
    if status == HTTPStatus.UNAUTHORIZED:
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def assert_error(
    answer: Answer, status: int, code: str, *, loc: str | None = None, says: str = ""
) -> None:
    """Check that an answer is an error object of the Projects API.

    loc: of the value that `details` must name.
    says: a part of the message.
    """
    assert answer.status == status, answer.content[:500]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert set(answer.body) == {"error"}
    error = answer["error"]
    assert set(error) - {"details"} == {"message", "code", "type"}
    assert error["code"] == code
    assert error["message"]
    assert error["type"].endswith("_error")
    assert says in error["message"]
    assert len(answer.content) <= LONGEST_REFUSAL
    assert not _INSIDES.search(answer.content)
    assert (status == HTTPStatus.CONFLICT) == (answer.headers.get("x-should-retry") == "false")
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        assert error["details"]
        assert all(set(each) == {"loc", "msg", "type"} for each in error["details"])
    if loc is not None:
        assert loc in [each["loc"] for each in error["details"]], error


def state() -> dict[str, Any]:
    """Return every row of ours but what is noted of the requests themselves.

    That is when a key was last used, and how many requests came with one that is none.
    """
    rows: dict[str, Any] = {}
    for app in _APPS:
        for model in apps.get_app_config(app).get_models():
            if model is FailedAttempts:
                continue
            names = [f.attname for f in model._meta.concrete_fields if f.name != "last_used_at"]
            found = model._default_manager.order_by("pk").values_list(*names)
            rows[model._meta.label] = [tuple(map(_plain, row)) for row in found]
    return rows


def _plain(value: Any) -> Any:
    if isinstance(value, memoryview):
        return bytes(value)
    return value if value is None or isinstance(value, str | int | bool) else str(value)


@contextmanager
def nothing_changes() -> Iterator[None]:
    """Check that what happens inside leaves every row as it was."""
    before = state()
    yield
    assert state() == before


@contextmanager
def rolled_back() -> Iterator[None]:
    """Undo what happens inside, so that one setup serves several successes."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def queries_of(ask: Callable[[], Answer]) -> int:
    """Return how many queries a successful request takes, once its key's use has been noted."""
    ask()
    with CaptureQueriesContext(connection) as captured:
        answer = ask()
    assert answer.status == HTTPStatus.OK
    return len(captured)

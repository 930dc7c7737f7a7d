"""Generated requests, good and bad, against the document that is served."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connection
from django.test import override_settings
from hypothesis import HealthCheck, settings
from pytest_django import DjangoDbBlocker, Settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from config.wsgi import application
from resources.models import File
from tests.contract.world import ADMIN_KEY, TEXT_ID, World, make_world, undone

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

EXAMPLES = 15
CHECKS: list[Callable[..., Any]] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

api = schemathesis.openapi.from_wsgi(
    "/openapi.json",
    application,
    config=schemathesis.Config.from_dict(
        {
            "generation": {"max-examples": EXAMPLES, "deterministic": True, "no-shrink": True},
            "phases": {"coverage": {"enabled": False}},
        }
    ),
)

# Left to chance, no generated address or name would ever meet something that exists.
AN_ID = "0198b5a4-2f6e-7cc1-9d53-6f0d4f9d2b10"
_KNOWN = {
    "id": AN_ID,
    "content": "SGVsbG8h",
    "owner": "alice",
    "project": "letters",
    "user": "rita",
    "standard": "spare",
    "text_id": TEXT_ID,
    "instance_owner": "alice",
    "instance_handle": "model",
    "share_with_handle": "sam",
    "new_owner_handle": "sam",
    "api_standard": "openai",
    "definition_owner": "alice",
    "definition_handle": "template",
    "vector": [1, 0.5, 0],
    "vector_dim": 3,
}


def _often_known(name: str, value: Any) -> Any:
    """Return what exists under this name three times out of four, by the value that was made up."""
    known = _KNOWN.get(name, value)
    return known if hashlib.sha256(repr(value).encode()).digest()[0] % 4 else value


@api.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> Any:
    """Send most requests to what exists."""
    known = {
        name: _often_known(name, value)
        for name, value in (path_parameters or {}).items()
        if name != "handle"
    }
    if "handle" in (path_parameters or {}):
        known["handle"] = "template" if "definitions" in context.operation.path else "model"
    if context.operation.path.endswith("/test"):
        # The one that answers without a network.
        return {"owner": "_system", "handle": "builtin"}
    return known if path_parameters else path_parameters


@api.hook
def map_body(context: Any, body: Any) -> Any:
    """Let most bodies speak of what exists."""
    if isinstance(body, dict):
        return {name: _often_known(name, map_body(context, each)) for name, each in body.items()}
    if isinstance(body, list):
        return [map_body(context, each) for each in body]
    return body


@pytest.fixture(scope="module")
def _whole_world(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[World]:
    with django_db_blocker.unblock(), undone():
        with override_settings(ADMIN_KEY=ADMIN_KEY):
            made = make_world()
        _fill_own(made)
        # A server may close its connection between requests; here a transaction is open on it.
        for signal in (request_started, request_finished):
            signal.disconnect(close_old_connections)
        yield made
        for signal in (request_started, request_finished):
            signal.connect(close_old_connections)


def _fill_own(world: World) -> None:
    """Give Alice one of each kind of the Projects API, all of the same id."""
    alice = world["owner"].caller
    for kind in ("projects", "agents", "users"):
        assert alice.post(f"/{kind}/{AN_ID}", {"name": "known"}).status == 201
    assert alice.post("/files", {"name": "known", "content": "SGVsbG8h"}).status == 201
    File.objects.update(uuid=AN_ID)


@pytest.fixture
def world(_whole_world: World, db: None, settings: Settings) -> World:
    """Return the world, whose requests are undone one by one."""
    settings.ADMIN_KEY = ADMIN_KEY
    return _whole_world


@api.parametrize()
@settings(suppress_health_check=list(HealthCheck), deadline=None, database=None)
@pytest.mark.parametrize("actor", ["admin key", "owner"])
def test_answers_are_as_described(case: Case[Any], actor: str, world: World) -> None:
    headers = {"Authorization": f"Bearer {world[actor].caller.key}"}
    with undone():
        response = case.call(headers=headers)
        case.validate_response(response, checks=CHECKS)
        # What the request broke, PostgreSQL would refuse to go on with.
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")

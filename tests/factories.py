"""Plain functions that make what tests need, and the client that asks like anybody else."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import orjson
from django.test import Client
from django.test.client import ClientHandler

from accounts import services as accounts
from accounts.models import Role, User
from accounts.policy import BOOTSTRAP_ADMIN
from llm_services import services as llm_services
from llm_services.models import EmbeddedText, Instance
from llm_services.providers import Purpose
from projects import services as projects
from projects.models import Project


@dataclass
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: Mapping[str, str]
    content: bytes = b""

    def __getitem__(self, name: str) -> Any:
        return self.body[name]


@cache
def _handler() -> ClientHandler:
    """Return the middleware and views that all callers ask: loading them looks for static files."""
    return ClientHandler(enforce_csrf_checks=False)


def _client() -> Client:
    client = Client(raise_request_exception=False)
    client.handler = _handler()
    return client


@dataclass
class Caller:
    """Asks the API over HTTP as one person; without a key, as nobody."""

    key: str | None = None
    handle: str = ""
    client: Client = field(default_factory=_client)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request; `body` goes out as JSON, `raw` as it is."""
        data = raw if raw is not None else b"" if body is None else orjson.dumps(body)
        sent = dict(headers or {})
        if self.key is not None:
            sent.setdefault("Authorization", f"Bearer {self.key}")
        # Any: the stubs know responses of the test client only without streaming.
        response: Any = self.client.generic(
            method, path, data, content_type=content_type, headers=sent
        )
        content = b"".join(response.streaming_content) if response.streaming else response.content
        # Lines of JSON are no JSON.
        media_type = response.headers.get("Content-Type", "").partition(";")[0]
        is_json = media_type.endswith(("/json", "+json")) and content
        parsed = orjson.loads(content) if is_json else None
        return Answer(response.status_code, parsed, response.headers, content)

    def get(self, path: str, **options: Any) -> Answer:
        """GET."""
        return self.ask("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        """POST."""
        return self.ask("POST", path, body, **options)

    def put(self, path: str, body: Any = None, **options: Any) -> Answer:
        """PUT."""
        return self.ask("PUT", path, body, **options)

    def patch(self, path: str, body: Any = None, **options: Any) -> Answer:
        """PATCH."""
        return self.ask("PATCH", path, body, **options)

    def delete(self, path: str, **options: Any) -> Answer:
        """DELETE."""
        return self.ask("DELETE", path, **options)


def make_user(handle: str, **fields: Any) -> Caller:
    """Make an account and return somebody who asks with its key."""
    account = accounts.create_user(actor=BOOTSTRAP_ADMIN, handle=handle, **fields)
    return Caller(account.api_key, handle)


def make_instance(
    owner: str = "alice", handle: str = "model", *, dimensions: int = 3, **fields: Any
) -> Instance:
    """Make a standalone LLM service instance."""
    values = {
        "endpoint": "https://api.example.org/v1/embeddings",
        "api_standard": "openai",
        "model": "test-embedding",
        "dimensions": dimensions,
        **fields,
    }
    return llm_services.create_instance(
        actor=BOOTSTRAP_ADMIN, owner=owner, handle=handle, values=values
    )


def make_embedded(instance: Instance, *texts: str) -> None:
    """Keep vectors of texts as if the instance's provider had been asked for them before."""
    rows = np.eye(len(texts), instance.dimensions, dtype="<f4") + np.float32(0.1)
    EmbeddedText.objects.bulk_create(
        EmbeddedText(
            owner=instance.owner,
            fingerprint=instance.fingerprint(),
            purpose=Purpose.DOCUMENT.value,
            text_digest=hashlib.sha256(text.encode()).digest(),
            vector=row.tobytes(),
        )
        for text, row in zip(texts, rows, strict=True)
    )


def make_project(
    owner: str = "alice",
    handle: str = "letters",
    *,
    instance: str = "model",
    readers: Sequence[str] = (),
    editors: Sequence[str] = (),
    **fields: Any,
) -> Project:
    """Make a project on an instance of its owner, shared with readers and editors."""
    grants = [projects.Grant(each, Role.READER) for each in readers]
    grants += [projects.Grant(each, Role.EDITOR) for each in editors]
    values = {
        "instance_owner": owner,
        "instance_handle": instance,
        "shared_with": grants,
        **fields,
    }
    return projects.create_project(actor=BOOTSTRAP_ADMIN, owner=owner, handle=handle, values=values)


def item(text_id: str, vector: Sequence[float], **fields: Any) -> dict[str, Any]:
    """Return one embedding as an upload holds it."""
    return {
        "text_id": text_id,
        "instance_handle": "model",
        "vector": list(vector),
        "vector_dim": len(vector),
        **fields,
    }


def vectors(count: int, dimensions: int, *, seed: int = 0) -> np.ndarray[Any, Any]:
    """Return float32 of shape (count, dimensions), for tests that ask nothing of what they mean."""
    return np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)


@dataclass
class Cast:
    """The people of the tests. Alice's project `letters` is shared with Erin and Rita."""

    alice: Caller
    erin: Caller
    rita: Caller
    sam: Caller
    ada: Caller
    nobody: Caller
    project: Project

    def with_role(self, role: str) -> Caller:
        """Return who has a role: owner, editor, reader, stranger, admin or anonymous."""
        return {
            "owner": self.alice,
            "editor": self.erin,
            "reader": self.rita,
            "stranger": self.sam,
            "admin": self.ada,
            "anonymous": self.nobody,
        }[role]


def make_cast() -> Cast:
    """Make everybody, and Alice's instance `model` (3 dimensions) with her project `letters`."""
    alice, erin, rita, sam = (make_user(each) for each in ("alice", "erin", "rita", "sam"))
    ada = make_user("ada", is_superuser=True)
    make_instance("alice", "model")
    project = make_project("alice", "letters", readers=["rita"], editors=["erin"])
    return Cast(alice, erin, rita, sam, ada, Caller(), project)


def stored(user: str) -> User:
    """Return an account by its handle."""
    return User.objects.get(handle=user)

"""The single things of both APIs: where each is, and how it is changed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.factories import Caller, Cast, item

MODEL = {
    "endpoint": "https://api.example.org/v1",
    "api_standard": "openai",
    "model": "test-embedding",
    "dimensions": 3,
}


@dataclass(frozen=True)
class Kind:
    """One kind of single things.

    template: its address, as the URL configuration has it.
    make: makes one as who may change it; returns its address.
    who: the member of the cast who may.
    change: bodies for PATCH, or None where there is none.
    whole: a body for PUT, or None where there is none.
    vary: the field of both that makes a difference.
    """

    template: str
    make: Callable[[Caller], str]
    vary: str
    change: dict[str, Any] | None = None
    whole: dict[str, Any] | None = None
    who: str = "owner"

    def asker(self, cast: Cast) -> Caller:
        """Return who may change it."""
        return cast.with_role(self.who)

    def variant(self, number: int) -> tuple[str, dict[str, Any]]:
        """Return the method and body of a change that makes it different for each number."""
        method, body = ("PATCH", self.change) if self.change is not None else ("PUT", self.whole)
        return method, {**(body or {}), self.vary: f"variant {number}"}


def _at(address: str, *before: tuple[str, str, Any]) -> Callable[[Caller], str]:
    def make(caller: Caller) -> str:
        for method, path, body in before:
            answer = caller.ask(method, path, body)
            assert answer.status in {200, 201}, answer.body
        return address

    return make


def _own(path: str, body: dict[str, Any]) -> Callable[[Caller], str]:
    def make(caller: Caller) -> str:
        answer = caller.post(path, body)
        assert answer.status == 201, answer.body
        return f"{path}/{answer['id']}"

    return make


def _standard(caller: Caller) -> str:
    return _at("/v1/api-standards/mine", ("PUT", "/v1/api-standards/mine", _STANDARD))(caller)


_STANDARD = {"key_method": "auth_bearer", "key_field": "Authorization"}
_EMBEDDING = {name: each for name, each in item("x", [0, 1, 0]).items() if name != "text_id"}
_LETTER = "/v1/embeddings/alice/letters/a%2Fb"

KINDS = {
    "embedding": Kind(
        "/v1/embeddings/{owner}/{project}/{text_id}",
        _at(_LETTER, ("PUT", _LETTER, _EMBEDDING)),
        whole=_EMBEDDING,
        vary="text",
    ),
    "user": Kind("/v1/users/{user}", _at("/v1/users/alice"), change={}, vary="name"),
    "standard": Kind(
        "/v1/api-standards/{standard}",
        _standard,
        change={},
        whole=_STANDARD,
        vary="description",
        who="admin",
    ),
    "definition": Kind(
        "/v1/llm-service-definitions/{owner}/{handle}",
        _at(
            "/v1/llm-service-definitions/alice/mine",
            ("PUT", "/v1/llm-service-definitions/alice/mine", MODEL),
        ),
        change={},
        whole=MODEL,
        vary="description",
    ),
    "instance": Kind(
        "/v1/llm-services/{owner}/{handle}",
        _at("/v1/llm-services/alice/mine", ("PUT", "/v1/llm-services/alice/mine", MODEL)),
        change={},
        whole=MODEL,
        vary="description",
    ),
    "project": Kind(
        "/v1/projects/{owner}/{project}",
        _at("/v1/projects/alice/letters"),
        change={},
        whole={"instance_handle": "model"},
        vary="description",
    ),
    "own project": Kind(
        "/projects/{id}",
        _own("/projects", {"name": "Mine"}),
        change={},
        whole={"name": "Mine"},
        vary="name",
    ),
    "agent": Kind(
        "/agents/{id}", _own("/agents", {"name": "x"}), change={}, whole={"name": "x"}, vary="name"
    ),
    "end user": Kind(
        "/users/{id}", _own("/users", {"name": "x"}), change={}, whole={"name": "x"}, vary="name"
    ),
    "file": Kind(
        "/files/{id}",
        _own("/files", {"name": "x", "content": "SGVsbG8h"}),
        change={},
        vary="name",
    ),
}

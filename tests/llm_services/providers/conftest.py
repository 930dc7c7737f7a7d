"""Servers of every protocol, which the administrator of the tests allows to be called."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from llm_services.models import Instance
from tests.factories import Cast, make_instance
from tests.llm_services.providers.servers import DIALECTS, DIMENSIONS, KEY, Server, serving

Serve = Callable[..., Server]


@pytest.fixture
def serve(settings: Any) -> Iterator[Serve]:
    """Return a function that starts a server of a protocol and lists it in the settings."""
    with ExitStack() as running:

        def start(protocol: str = "openai") -> Server:
            server = running.enter_context(serving(Server(DIALECTS[protocol])))
            settings.ALLOWED_PRIVATE_ENDPOINTS = [*settings.ALLOWED_PRIVATE_ENDPOINTS, server.host]
            if protocol == "gemini":
                server.place, server.scheme = ("query", "key"), ""
            return server

        yield start


@pytest.fixture
def server(serve: Serve) -> Server:
    """Return a server that speaks OpenAI's protocol."""
    return serve()


def instance_of(server: Server, standard: str = "openai", **fields: Any) -> Instance:
    """Return Alice's instance on a server."""
    values: dict[str, Any] = {"endpoint": server.url, "api_standard": standard, "model": "small"}
    values |= {"api_key": KEY, "dimensions": DIMENSIONS, **fields}
    return make_instance("alice", values.pop("handle", "small"), **values)


@pytest.fixture
def instance(cast: Cast, server: Server) -> Instance:
    """Return Alice's instance on `server`."""
    return instance_of(server)

"""What each provider is sent, and what becomes of its answers, over real connections."""

import json
import time
from typing import Any

import numpy as np
import pytest

from accounts.policy import BOOTSTRAP_ADMIN
from common.errors import BadGateway, DomainError
from llm_services import services
from llm_services.models import Instance
from llm_services.providers import (
    Embedded,
    Misconfigured,
    Purpose,
    TextRefused,
    provider_for,
)
from tests.factories import Cast
from tests.llm_services.providers.conftest import Serve, instance_of
from tests.llm_services.providers.servers import (
    DIALECTS,
    DIMENSIONS,
    KEY,
    SAYS,
    Reply,
    Server,
    vector_of,
)

TEXTS = [f"text {number}" for number in range(7)]


def embed(
    instance: Instance, texts: list[str], purpose: Purpose = Purpose.DOCUMENT, *, key: str = KEY
) -> Embedded:
    """Embed texts as the program does."""
    return provider_for(instance, key).embed(texts, purpose=purpose)


def refusal_of(instance: Instance, texts: list[str], **options: Any) -> DomainError:
    """Return the refusal, which must hold nothing of the server's words, its address or the key."""
    with pytest.raises(DomainError) as caught:
        embed(instance, texts, Purpose.QUERY, **options)
    error = caught.value
    said = json.dumps([error.detail, error.details, [each.message for each in error.errors]])
    for secret in (SAYS, KEY, "127.0.0.1", "embeddings", "Traceback"):
        assert secret not in said.replace("something else than embeddings", "").replace(
            "what makes embeddings", ""
        )
    assert "alice/small" in error.detail or isinstance(error, TextRefused)
    return error


# --- Every protocol -------------------------------------------------------------------------------
@pytest.mark.parametrize("protocol", DIALECTS)
@pytest.mark.parametrize("purpose", Purpose)
def test_a_provider_gets_what_its_protocol_says(
    protocol: str, purpose: Purpose, serve: Serve, cast: Cast
) -> None:
    server = serve(protocol)
    made = embed(instance_of(server, protocol), TEXTS, purpose)
    assert server.complaints == []
    assert made.vectors.dtype.name == "float32"
    assert np.array_equal(made.vectors, [vector_of(text) for text in TEXTS])
    per_text = server.dialect.tokens_per_text
    assert made.tokens == (None if per_text is None else per_text * len(TEXTS))
    [request] = server.received
    said = json.dumps(request.body).lower()
    if protocol in {"cohere", "gemini", "voyage"}:
        assert (purpose.value in said, "document" in said) == (True, purpose == Purpose.DOCUMENT)


@pytest.mark.parametrize("protocol", DIALECTS)
def test_many_texts_go_in_batches_and_come_back_in_order(
    protocol: str, serve: Serve, cast: Cast
) -> None:
    server = serve(protocol)
    server.delay_s = 0.03
    texts = [f"text {number}" for number in range(700)]
    made = embed(instance_of(server, protocol), texts)
    assert server.complaints == []
    assert np.array_equal(made.vectors, [vector_of(text) for text in texts])
    batches = server.texts()
    assert sum(map(len, batches)) == 700
    assert max(map(len, batches)) <= server.dialect.limit
    assert 1 < server.most_at_once <= 4


def test_a_batch_holds_no_more_characters_than_the_provider_takes(
    server: Server, instance: Instance
) -> None:
    server.longest = 1_000_000
    texts = [letter * 200_000 for letter in "abc"] + ["d"]
    assert embed(instance, texts).vectors.shape == (4, DIMENSIONS)
    assert sorted(len(batch) for batch in server.texts()) == [1, 1, 2]
    assert embed(instance, []).vectors.shape == (0, DIMENSIONS)


def test_dimensions_are_asked_for_where_the_model_can_shorten(
    server: Server, instance: Instance
) -> None:
    instance.model = "text-embedding-3-small"
    server.faults.append(Reply(server.dialect.answer([[1, 2, 3, 4]])))
    embed(instance, ["a"])
    assert server.received[0].body["dimensions"] == DIMENSIONS


def test_gemini_may_be_named_by_its_address_for_one_text(serve: Serve, cast: Cast) -> None:
    server = serve("gemini")
    endpoint = f"http://{server.host}/v1beta/models/small:embedContent"
    embed(instance_of(server, "gemini", endpoint=endpoint), TEXTS)
    assert server.complaints == []


# --- The key --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "name", "place", "scheme"),
    [
        ("auth_bearer", "Authorization", ("header", "authorization"), "Bearer "),
        ("auth_bearer", "", ("header", "authorization"), "Bearer "),
        ("auth_apikey", "Authorization", ("header", "authorization"), "ApiKey "),
        ("query_param", "key", ("query", "key"), ""),
        ("body_form", "api_key", ("body", "api_key"), ""),
        ("custom_header", "X-Api-Key", ("header", "x-api-key"), ""),
        ("none", "", None, ""),
    ],
)
def test_the_key_comes_where_the_standard_says(
    method: str,
    name: str,
    place: tuple[str, str] | None,
    scheme: str,
    server: Server,
    cast: Cast,
) -> None:
    server.place, server.scheme, server.key = place, scheme, "sk-ä&=/ key"
    if place is not None and place[0] == "header":
        server.key = KEY
    values = {"key_method": method, "key_field": name}
    services.create_standard(actor=BOOTSTRAP_ADMIN, handle="own-standard", values=values)
    instance = instance_of(server, "own-standard", endpoint=f"{server.url}?version=1#top")
    embed(instance, TEXTS, key=server.key)
    assert server.complaints == []
    assert server.received[0].query["version"] == "1"


def test_without_a_key_none_is_sent(server: Server, instance: Instance) -> None:
    server.place, server.key = None, "Bearer"
    embed(instance, TEXTS, key="")
    assert server.complaints == []


@pytest.mark.parametrize("key", ["sk-1\r\nX-Injected: 1", "sk-\u20ac", "sk-\n"])
def test_a_key_that_no_header_can_hold_is_not_sent(
    key: str, server: Server, instance: Instance
) -> None:
    error = refusal_of(instance, TEXTS, key=key)
    assert (error.status, server.received) == (409, [])
    assert key not in error.detail


# --- Trying again ---------------------------------------------------------------------------------
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_tried_again(status: int, server: Server, instance: Instance) -> None:
    server.faults += [Reply({"error": SAYS}, status, {"Retry-After": "0"})] * 2
    assert embed(instance, TEXTS).vectors.shape == (len(TEXTS), DIMENSIONS)
    assert len(server.received) == 3


def test_the_pause_is_the_one_that_the_provider_asks_for(
    server: Server, instance: Instance
) -> None:
    server.faults.append(Reply({}, 429, {"Retry-After": "1"}))
    began = time.monotonic()
    embed(instance, TEXTS)
    assert 1 <= time.monotonic() - began < 3


def test_nobody_waits_for_longer_than_there_is_patience(server: Server, instance: Instance) -> None:
    for header in ("3600", "Fri, 31 Dec 2099 23:59:59 GMT"):
        server.faults.append(Reply({"error": SAYS}, 429, {"Retry-After": header}))
        error = refusal_of(instance, TEXTS)
        assert (error.status, error.details["provider_status"]) == (502, 429)
        assert error.details["retry_after_s"] >= 3600
    assert len(server.received) == 2


def test_after_some_tries_the_failure_is_told(server: Server, instance: Instance) -> None:
    server.faults += [Reply({"error": SAYS}, 500, {"Retry-After": "0"})] * 9
    error = refusal_of(instance, TEXTS)
    assert (error.status, error.details) == (502, {"provider_status": 500})
    assert len(server.received) == 4


# --- Refusals -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("status", "key", "ours", "word"),
    [
        (401, KEY, 409, "refuses the stored key"),
        (403, KEY, 409, "refuses the stored key"),
        (401, "", 409, "none is stored"),
        (402, KEY, 409, "paid"),
        (404, KEY, 409, "does not know the endpoint or the model"),
        (405, KEY, 409, "does not know the endpoint or the model"),
        (302, KEY, 409, "redirects"),
        (418, KEY, 502, "failed"),
        (501, KEY, 502, "failed"),
    ],
)
def test_a_refusal_says_what_to_mend(
    status: int, key: str, ours: int, word: str, server: Server, instance: Instance, serve: Serve
) -> None:
    elsewhere = serve()
    server.faults.append(Reply({"error": SAYS}, status, {"Location": elsewhere.url}))
    error = refusal_of(instance, TEXTS, key=key)
    assert (error.status, error.details) == (ours, {"provider_status": status})
    assert word in error.detail
    assert (len(server.received), elsewhere.received) == (1, [])


def test_the_text_that_is_too_long_is_found(server: Server, instance: Instance) -> None:
    instance.context_limit = 250
    texts = [*TEXTS, "x" * 1_001, *TEXTS]
    error = refusal_of(instance, texts)
    assert isinstance(error, TextRefused)
    assert (error.status, error.index) == (400, 7)
    assert "Text 7" in error.detail
    assert "250 tokens" in error.detail
    assert [each.location for each in error.errors] == ["texts[7]"]


def test_a_server_that_takes_less_at_once_gets_less(server: Server, instance: Instance) -> None:
    server.most = 32
    texts = [f"text {number}" for number in range(100)]
    assert np.array_equal(embed(instance, texts).vectors, [vector_of(text) for text in texts])


def test_where_no_text_is_taken_the_instance_is_wrong(server: Server, instance: Instance) -> None:
    server.longest = 0
    error = refusal_of(instance, TEXTS)
    assert isinstance(error, Misconfigured)
    assert "refuses every text" in error.detail


# --- Answers that are none ------------------------------------------------------------------------
def _data(*vectors: Any) -> dict[str, Any]:
    return {"data": [{"index": index, "embedding": each} for index, each in enumerate(vectors)]}


GOOD = [1.0, 2.0, 3.0, 4.0]
NONSENSE: dict[str, Any] = {
    "not JSON": b"<html>canary-of-the-provider's-own-words</html>",
    "empty": b"",
    "not UTF-8": b'{"data": "\xff"}',
    "another type": [1, 2],
    "no data": {"object": "list"},
    "null": _data(None, GOOD),
    "strings": _data(["1", "2", "3", "4"], GOOD),
    "booleans": _data([True, True, True, True], GOOD),
    "NaN": b'{"data": [{"index": 0, "embedding": [NaN, 1, 1, 1]}, {"index": 1, "embedding": [1]}]}',
    "past float64": b'{"data": [{"embedding": [1e999, 1, 1, 1]}, {"embedding": [1, 1, 1, 1]}]}',
    "past float32": _data([1e39, 1, 1, 1], GOOD),
    "zero": _data([0, 0, 0, 0], GOOD),
    "vanishing": _data([1e-60] * 4, GOOD),
    "too few": _data(GOOD),
    "too many": _data(GOOD, GOOD, GOOD),
    "none": _data(),
    "of two sizes": _data(GOOD, [1.0]),
    "without numbers": _data([], []),
    "an index twice": {"data": [{"index": 0, "embedding": GOOD}] * 2},
    "an index too high": {"data": [{"index": each, "embedding": GOOD} for each in (1, 2)]},
    "an index missing": {"data": [{"index": 0, "embedding": GOOD}, {"embedding": GOOD}]},
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused(name: str, server: Server, instance: Instance) -> None:
    server.faults.append(Reply(NONSENSE[name]))
    error = refusal_of(instance, ["a", "b"])
    assert isinstance(error, BadGateway)
    assert len(server.received) == 1


@pytest.mark.parametrize("protocol", DIALECTS)
def test_other_dimensions_than_the_instance_says_are_its_mistake(
    protocol: str, serve: Serve, cast: Cast
) -> None:
    server = serve(protocol)
    server.faults.append(Reply(server.dialect.answer([[1.0, 2.0]])))
    error = refusal_of(instance_of(server, protocol), ["a"])
    assert (error.status, error.code) == (409, "llm-service-misconfigured")
    assert "vectors of 2 dimensions where the LLM service says 4" in error.detail


def test_token_counts_that_are_none_are_left_out(server: Server, instance: Instance) -> None:
    for usage in ({}, {"total_tokens": -1}, {"total_tokens": "3"}, {"total_tokens": True}, None, 5):
        server.faults.append(Reply({**_data(GOOD), "usage": usage}))
        assert embed(instance, ["a"]).tokens is None
    server.faults.append(Reply({**_data(GOOD), "usage": {"prompt_tokens": 5}}))
    assert embed(instance, ["a"]).tokens == 5


# --- No answer ------------------------------------------------------------------------------------
def test_an_unlisted_server_in_a_private_network_hears_nothing(
    server: Server, instance: Instance, settings: Any
) -> None:
    settings.ALLOWED_PRIVATE_ENDPOINTS = []
    error = refusal_of(instance, TEXTS)
    assert (error.status, server.received) == (409, [])
    assert "private network" in error.detail


def test_nobody_there_is_said(instance: Instance, settings: Any) -> None:
    settings.ALLOWED_PRIVATE_ENDPOINTS = ["127.0.0.1:9"]
    instance.endpoint = "http://127.0.0.1:9/v1/embeddings"
    error = refusal_of(instance, TEXTS)
    assert error.status == 502
    assert "cannot be reached" in error.detail

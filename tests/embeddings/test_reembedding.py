"""A project's model is changed: its texts are embedded anew aside, and all vectors exchanged."""

from typing import Any

import numpy as np
import pytest
from django.utils import timezone

from embeddings import reembedding
from embeddings.models import Reembedding
from llm_services.embedding import embed_documents
from llm_services.models import Instance
from tests.answers import assert_refused, nothing_changes
from tests.embeddings import large
from tests.factories import Answer, Cast, item, make_embedded, make_instance, make_project
from tests.jobs import run_jobs
from tests.llm_services.providers.conftest import Serve, instance, serve, server
from tests.llm_services.providers.servers import DIMENSIONS, Reply, Server, vector_of

__all__ = ["instance", "serve", "server"]
LETTERS = "/v1/embeddings/alice/letters"
REEMBEDDING = "/v1/projects/alice/letters/reembedding"


def upload(cast: Cast, *texts: str, start: int = 0) -> None:
    items = [
        item(f"t{number:02}", [1, number, 3], text=text, metadata={"n": number})
        for number, text in enumerate(texts, start)
    ]
    answer = cast.alice.post(LETTERS, {"embeddings": items})
    assert answer.status == 201, answer.body


def begin(cast: Cast, handle: str = "small") -> Answer:
    answer = cast.alice.post(REEMBEDDING, {"instance_handle": handle})
    assert answer.status == 202, answer.body
    return answer


def step(cast: Cast, name: str) -> dict[str, Any]:
    """Take a step, and let the jobs do what it asks for; return what became of it."""
    answer = cast.alice.post(f"{REEMBEDDING}/{name}")
    assert answer.status == 202, answer.body
    run_jobs()
    return state(cast)


def state(cast: Cast) -> dict[str, Any]:
    answer = cast.alice.get(REEMBEDDING)
    assert answer.status == 200, answer.body
    return dict(answer.body)


def stored(cast: Cast) -> dict[str, list[float]]:
    page = cast.alice.get(f"{LETTERS}?limit=200")
    return {each["text_id"]: each["vector"] for each in page["embeddings"]}


def sent(server: Server) -> list[str]:
    return sorted(text for batch in server.texts() for text in batch)


@pytest.fixture
def ready(cast: Cast, server: Server, instance: Instance) -> Cast:
    """Let Alice's project have three texts that are embedded anew already, and aside."""
    upload(cast, "a", "b", "c")
    begin(cast)
    run_jobs()
    assert state(cast)["state"] == "ready"
    return cast


# --- Filling --------------------------------------------------------------------------------------
def test_texts_are_embedded_aside_each_once(cast: Cast, server: Server, instance: Instance) -> None:
    upload(cast, "a", "b", "a")
    before = stored(cast)
    begun = begin(cast)
    assert (begun["state"], begun["progress"]["remaining"]) == ("filling", 3)
    run_jobs()
    found = state(cast)
    assert found["state"] == "ready"
    assert found["progress"] == {"total": 3, "embedded": 3, "remaining": 0, "without_text": 0}
    assert found["aside"] == {
        "instance_owner": "alice",
        "instance_handle": "small",
        "model": "small",
        "dimensions": DIMENSIONS,
    }
    assert (found["tokens"], found["last_error"], found["switched_at"]) == (6, None, None)
    assert sent(server) == ["a", "b"]
    # Nothing of it is to be seen yet.
    assert stored(cast) == before


def test_the_switch_changes_vectors_and_instance_at_once(ready: Cast) -> None:
    before = ready.alice.get(f"{LETTERS}/t01").body
    search = {"vector": [1, 2, 3]}
    assert ready.rita.post("/v1/similars/alice/letters", search).status == 200
    assert step(ready, "switch")["state"] == "switched"
    assert stored(ready) == {
        f"t{n:02}": pytest.approx(vector_of(text).tolist()) for n, text in enumerate("abc")
    }
    after = ready.alice.get(f"{LETTERS}/t01").body
    assert after["instance_handle"] == "small"
    assert after["metadata"] == before["metadata"]
    project = ready.alice.get("/v1/projects/alice/letters")
    assert project["instance_handle"] == "small"
    assert project["number_of_embeddings"] == 3
    # Searches and uploads are by the new model now.
    query = {"vector": vector_of("b").tolist()}
    hits = ready.rita.post("/v1/similars/alice/letters", query)["results"]
    assert (hits[0]["id"], hits[0]["similarity"]) == ("t01", pytest.approx(1, abs=1e-6))
    assert ready.rita.post("/v1/similars/alice/letters", search).status == 400
    new = item("t09", [1, 2, 3, 4], instance_handle="small")
    assert ready.alice.post(LETTERS, {"embeddings": [new]}).status == 201


def test_what_is_uploaded_meanwhile_is_embedded_before_the_switch(
    ready: Cast, server: Server
) -> None:
    ready.alice.put(f"{LETTERS}/t00", item("t00", [9, 9, 9], text="A"))
    ready.alice.delete(f"{LETTERS}/t01")
    # Only its metadata.
    body = {"filter": {"n": 2}, "metadata": {"n": 3}}
    assert ready.alice.post(f"{LETTERS}/update", body).status == 200
    upload(ready, "d", start=3)
    assert state(ready)["progress"]["remaining"] == 2
    server.received.clear()
    assert step(ready, "switch")["state"] == "switched"
    assert sent(server) == ["A", "d"]
    expected = {"t00": "A", "t02": "c", "t03": "d"}
    assert stored(ready) == {
        text_id: pytest.approx(vector_of(text).tolist()) for text_id, text in expected.items()
    }


def test_a_rollback_restores_what_was_there(ready: Cast) -> None:
    before = stored(ready)
    assert step(ready, "switch")["aside"]["instance_handle"] == "model"
    assert step(ready, "rollback")["state"] == "ready"
    assert stored(ready) == before
    assert ready.alice.get("/v1/projects/alice/letters")["instance_handle"] == "model"
    # The new vectors are still there.
    assert step(ready, "switch")["state"] == "switched"
    assert stored(ready)["t00"] == pytest.approx(vector_of("a").tolist())


def test_a_rollback_that_would_lose_texts_is_given_up(ready: Cast) -> None:
    step(ready, "switch")
    ready.alice.put(
        f"{LETTERS}/t09", item("t09", [1, 2, 3, 4], instance_handle="small", text="new")
    )
    after = stored(ready)
    # The former instance is at an address that may not be called.
    found = step(ready, "rollback")
    assert found["state"] in {"rolling_back", "switched"}
    assert found["last_error"]
    assert stored(ready) == after
    assert ready.alice.get("/v1/projects/alice/letters")["instance_handle"] == "small"


def test_cancelling_and_confirming_delete_the_vectors_aside(ready: Cast) -> None:
    before = stored(ready)
    answer = ready.alice.delete(REEMBEDDING)
    assert (answer.status, "cancelled" in answer["message"]) == (200, True)
    assert large.facts("SELECT count(*) FROM embeddings_vectoraside") == [0]
    assert_refused(ready.alice.get(REEMBEDDING), 404)
    assert stored(ready) == before
    begin(ready)
    run_jobs()
    step(ready, "switch")
    answer = ready.alice.delete(REEMBEDDING)
    assert "confirmed" in answer["message"]
    assert large.facts("SELECT count(*) FROM embeddings_vectoraside") == [0]
    assert stored(ready)["t00"] == pytest.approx(vector_of("a").tolist())


def test_former_vectors_are_kept_for_a_week(ready: Cast) -> None:
    step(ready, "switch")
    reembedding.sweep()
    assert state(ready)["state"] == "switched"
    Reembedding.objects.update(switched_at=timezone.now() - reembedding.KEPT_FOR)
    reembedding.sweep()
    assert ready.alice.get(REEMBEDDING).status == 404
    assert large.facts("SELECT count(*) FROM embeddings_vectoraside") == [0]


def test_pausing_and_resuming(
    cast: Cast, server: Server, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(cast, *(f"text {n}" for n in range(9)))
    monkeypatch.setattr(reembedding, "_PIECE", 4)
    begin(cast)
    real = embed_documents
    pieces: list[int] = []

    def pausing(instance: Instance, texts: list[str]) -> Any:
        pieces.append(len(texts))
        if len(pieces) == 2:
            assert cast.alice.post(f"{REEMBEDDING}/pause").status == 202
        return real(instance, texts)

    monkeypatch.setattr(reembedding, "embed_documents", pausing)
    run_jobs()
    found = state(cast)
    assert (found["state"], found["progress"]["embedded"]) == ("paused", 4)
    assert_refused(cast.alice.post(f"{REEMBEDDING}/pause"), 409)
    assert_refused(cast.alice.post(f"{REEMBEDDING}/switch"), 409)
    assert step(cast, "resume")["state"] == "ready"
    assert len(sent(server)) == len(set(sent(server))) == 9


def test_a_provider_that_fails_is_asked_again(
    cast: Cast, server: Server, instance: Instance
) -> None:
    upload(cast, "a", "b")
    server.faults += [Reply({}, status=401)] * 4
    begin(cast)
    run_jobs()
    found = state(cast)
    assert found["state"] == "failed"
    assert "key" in found["last_error"]
    server.faults.clear()
    assert step(cast, "resume")["state"] == "ready"


def test_a_text_that_cannot_be_embedded_is_named(
    cast: Cast, server: Server, instance: Instance
) -> None:
    upload(cast, "a", "x" * 1_001)
    begin(cast)
    run_jobs()
    found = state(cast)
    assert found["state"] == "failed"
    assert "'t01'" in found["last_error"]


def test_the_built_in_model_embeds_too(cast: Cast) -> None:
    upload(cast, "The cat sat on the mat.", "Interest rates rose.")
    body = {"instance_owner": "_system", "instance_handle": "builtin"}
    assert cast.alice.post(REEMBEDDING, body).status == 202
    run_jobs()
    assert step(cast, "switch")["state"] == "switched"
    [first] = cast.alice.get("/v1/similars/alice/letters/t00?threshold=0")["results"]
    assert first["id"] == "t01"
    assert len(stored(cast)["t00"]) == 512


# --- Refusals -------------------------------------------------------------------------------------
def test_texts_are_needed(cast: Cast, instance: Instance) -> None:
    wanted = {"instance_handle": "small"}
    assert_refused(cast.alice.post(REEMBEDDING, wanted), 409)
    upload(cast, "a", "", " \n")
    answer = cast.alice.post(REEMBEDDING, wanted)
    assert (answer.status, answer["details"]) == (409, {"without_text": 2})
    assert not Reembedding.objects.exists()


def test_one_at_a_time(ready: Cast) -> None:
    answer = ready.alice.post(REEMBEDDING, {"instance_handle": "small"})
    assert_refused(answer, 409)
    assert_refused(ready.alice.post(f"{REEMBEDDING}/resume"), 409)
    assert_refused(ready.alice.post(f"{REEMBEDDING}/rollback"), 409)


def test_a_text_without_words_keeps_it_from_being_switched(ready: Cast) -> None:
    ready.alice.put(f"{LETTERS}/t00", item("t00", [9, 9, 9], text=""))
    answer = ready.alice.post(f"{REEMBEDDING}/switch")
    assert (answer.status, answer["details"]) == (409, {"without_text": 1})
    assert state(ready)["progress"]["without_text"] == 1


def test_an_instance_that_the_owner_may_not_use(cast: Cast) -> None:
    upload(cast, "a")
    make_instance("sam", "secret", dimensions=4)
    for body in (
        {"instance_owner": "sam", "instance_handle": "secret"},
        {"instance_handle": "nothing"},
        {"instance_handle": None},
        {},
    ):
        assert_refused(cast.alice.post(REEMBEDDING, body), 400)


def test_a_model_that_changes_underway_stops_it(ready: Cast, serve: Serve) -> None:
    assert ready.alice.patch("/v1/llm-services/alice/small", {"model": "other"}).status == 200
    found = step(ready, "switch")
    assert found["state"] == "ready"
    assert "another model" in found["last_error"]


def test_only_owners_change_and_editors_look(ready: Cast) -> None:
    for caller, looks, changes in ((ready.erin, 200, 403), (ready.rita, 403, 403)):
        assert caller.get(REEMBEDDING).status == looks
        assert caller.get(f"{REEMBEDDING}/estimate").status == looks
        assert caller.get(f"{REEMBEDDING}/comparison").status == looks
        for name in ("pause", "resume", "switch", "rollback"):
            assert caller.post(f"{REEMBEDDING}/{name}").status == changes
        assert caller.delete(REEMBEDDING).status == changes


# --- Estimate and comparison ----------------------------------------------------------------------
def test_the_estimate_counts_each_text_once(cast: Cast) -> None:
    upload(cast, "abcd" * 10, "abcd" * 10, "", "漢字")
    path = f"{REEMBEDDING}/estimate"
    answer = cast.erin.get(f"{path}?price_per_million_tokens=100000")
    assert answer.body == {
        "user_handle": "alice",
        "project_handle": "letters",
        "embeddings": 4,
        "without_text": 1,
        "texts": 2,
        "characters": 42,
        "tokens": 12,
        "price": pytest.approx(1.2),
    }
    assert cast.erin.get(path)["price"] is None
    assert_refused(cast.erin.get(f"{path}?price_per_million_tokens=-1"), 400)


def test_the_comparison_tells_how_much_changes(ready: Cast) -> None:
    answer = ready.erin.get(f"{REEMBEDDING}/comparison?k=1&queries=3")
    assert (answer.status, answer["k"], answer["queries"]) == (200, 1, 3)
    expected = []
    for aside, used in zip(
        _nearest(np.array([vector_of(text) for text in "abc"])),
        _nearest(np.array([[1, n, 3] for n in range(3)], dtype=np.float32)),
        strict=True,
    ):
        expected.append(aside == used)
    assert answer["overlap"] == answer["same_first"] == pytest.approx(sum(expected) / 3)


def test_models_are_compared_by_questions_that_people_ask(ready: Cast) -> None:
    path = f"{REEMBEDDING}/comparison"
    asked: dict[str, Any] = {"questions": ["a", "an unusual question"], "k": 3}
    in_use = Instance.objects.get(handle="model", owner__handle="alice")
    make_embedded(in_use, *asked["questions"])
    answer = ready.erin.post(path, asked)
    assert (answer.status, answer["k"], answer["queries"]) == (200, 3, 2)
    assert 0 <= answer["overlap"] <= 1
    assert {each["question"] for each in answer["least_alike"]} == set(asked["questions"])
    assert {each["text_id"] for each in answer["least_alike"]} == {None}
    with nothing_changes():
        for body, place in (
            ({}, "body.questions"),
            ({"questions": []}, "body.questions"),
            ({"questions": ["a"], "k": 0}, "body.k"),
            ({"questions": ["a", 5]}, "body.questions[1]"),
        ):
            assert_refused(ready.erin.post(path, body), 400, location=place)
        assert ready.rita.post(path, asked).status == 403


def _nearest(matrix: Any) -> list[int]:
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    similarities = unit @ unit.T - 2 * np.eye(len(unit))
    return [int(each) for each in similarities.argmax(axis=1)]


def test_the_comparison_waits_until_all_is_embedded(cast: Cast, instance: Instance) -> None:
    upload(cast, "a")
    begin(cast)
    assert_refused(cast.erin.get(f"{REEMBEDDING}/comparison"), 409)


# --- Going away -----------------------------------------------------------------------------------
def test_all_goes_with_the_project_and_the_instance(ready: Cast) -> None:
    assert ready.alice.delete("/v1/llm-services/alice/small").status == 200
    assert ready.alice.get(REEMBEDDING).status == 404
    assert large.facts("SELECT count(*) FROM embeddings_vectoraside") == [0]


def test_deleting_the_project_deletes_the_vectors_aside(ready: Cast) -> None:
    assert ready.alice.delete("/v1/projects/alice/letters").status == 200
    assert large.facts("SELECT count(*) FROM embeddings_vectoraside") == [0]
    assert not Reembedding.objects.exists()


def test_projects_of_others_are_left_alone(ready: Cast) -> None:
    make_project("alice", "other")
    body = {"embeddings": [item("t00", [1, 2, 3], text="a")]}
    assert ready.alice.post("/v1/embeddings/alice/other", body).status == 201
    step(ready, "switch")
    assert ready.alice.get("/v1/embeddings/alice/other/t00")["vector"] == [1, 2, 3]

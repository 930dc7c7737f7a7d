"""Texts without vectors are embedded: in the request, as a job, from files; and found by words."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from procrastinate.contrib.django.models import ProcrastinateJob

from accounts import services as accounts
from accounts.policy import BOOTSTRAP_ADMIN
from embeddings import embedding_jobs, tasks
from embeddings.embedding_jobs import WORK
from embeddings.models import EmbeddingJob, EmbeddingJobItem
from llm_services import embedding
from projects.models import Project
from projects.services import delete_project
from tests.admin_site import accepted, act, address, page, sign_in
from tests.answers import A_TIME, A_UUID, assert_refused, nothing_changes
from tests.embeddings import bulk
from tests.factories import Answer, Caller, Cast, item, make_project
from tests.jobs import rows, run_jobs
from tests.llm_services.providers.conftest import Serve, instance_of, serve
from tests.llm_services.providers.servers import DIMENSIONS, Reply, Server, vector_of

__all__ = ["serve"]
NOTES = "/v1/embeddings/alice/notes"
SIMILARS = "/v1/similars/alice/notes"
JOBS = "/v1/projects/alice/notes/embedding-jobs"
ASYNC = {"Prefer": "respond-async"}
LONGEST = 1_000


@pytest.fixture(autouse=True)
def no_queries() -> Iterator[None]:
    """Forget the queries of other tests, whose accounts may have had the same numbers."""
    embedding.forget_queries()
    yield
    embedding.forget_queries()


@pytest.fixture
def server(serve: Serve, cast: Cast) -> Server:
    """Return a provider; Alice's project `notes` is on it, shared with Erin and Rita."""
    made = serve()
    instance_of(made)
    make_project("alice", "notes", instance="small", readers=["rita"], editors=["erin"])
    return made


def text(text_id: str, words: str = "", **fields: Any) -> dict[str, Any]:
    return {"text_id": text_id, "text": words or f"The text {text_id}", **fields}


def texts(count: int) -> list[dict[str, Any]]:
    return [text(f"t{number}") for number in range(count)]


def send(caller: Caller, items: list[dict[str, Any]], **headers: str) -> Answer:
    return caller.post(NOTES, {"embeddings": items}, headers=headers)


def asked(server: Server) -> list[str]:
    """Return the texts that a server was sent."""
    return [each for batch in server.texts() for each in batch]


def job_of(answer: Answer) -> str:
    """Return the address of the job that an upload became."""
    assert answer.status == 202, answer.body
    location = answer.headers["Location"]
    assert location == f"{JOBS}/{answer['id']}"
    return location


# --- In the request -------------------------------------------------------------------------------
def test_texts_are_embedded_and_stored(cast: Cast, server: Server) -> None:
    given = item("given", [1, 2, 3, 4], instance_handle="small", text="Not sent anywhere")
    sent = [text("a", "Once"), given, text("b", "Twice", metadata={"n": 1}), text("c", "Once")]
    answer = send(cast.erin, sent)
    assert (answer.status, answer["uploaded"]) == (201, ["a", "given", "b", "c"])
    assert asked(server) == ["Once", "Twice"]
    stored = {each["text_id"]: each for each in cast.rita.get(NOTES)["embeddings"]}
    for text_id, words in {"a": "Once", "b": "Twice", "c": "Once"}.items():
        assert np.array_equal(np.float32(stored[text_id]["vector"]), vector_of(words))
        assert (stored[text_id]["text"], stored[text_id]["vector_dim"]) == (words, DIMENSIONS)
    assert (stored["given"]["vector"], stored["b"]["metadata"]) == ([1, 2, 3, 4], {"n": 1})


@pytest.mark.parametrize(
    ("items", "status", "location"),
    [
        ([text("a"), text("b", " \n")], 400, "body.embeddings[1].text"),
        ([text("a"), text("a")], 409, "body.embeddings[1].text_id"),
        ([text("a"), text("known")], 409, "body.embeddings[1].text_id"),
        ([text("a"), text("b", metadata={"n": "x"})], 400, "body.embeddings[1].metadata.n"),
        ([text("a"), text("b", instance_handle="x")], 400, "body.embeddings[1].instance_handle"),
        ([text("a"), text("b", vector_dim=4)], 400, "body.embeddings[1].vector"),
        ([text("a"), {"text_id": "b"}], 400, "body.embeddings[1].instance_handle"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("headers", [{}, ASYNC])
def test_what_is_refused_is_not_sent_to_the_provider(
    cast: Cast,
    server: Server,
    items: list[dict[str, Any]],
    status: int,
    location: str,
    headers: dict[str, str],
) -> None:
    known = item("known", [1, 2, 3, 4], instance_handle="small", metadata={})
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    assert send(cast.erin, [known]).status == 201
    items = [{"metadata": {}, **each} for each in items]
    cast.alice.patch("/v1/projects/alice/notes", {"metadataScheme": json.dumps(schema)})
    with nothing_changes():
        assert_refused(send(cast.erin, items, **headers), status, location=location)
    assert server.received == []


def test_a_text_that_the_provider_refuses_refuses_all(cast: Cast, server: Server) -> None:
    answer = send(cast.erin, [text("a"), text("b", "x" * (LONGEST + 1))])
    assert (answer.status, answer["errors"][0]["location"]) == (400, "body.embeddings[1].text")
    assert "text_id 'b' cannot be embedded" in answer["detail"]
    assert cast.rita.get(NOTES)["total_count"] == 0


def test_a_provider_that_fails_is_a_502(cast: Cast, server: Server) -> None:
    server.faults.append(Reply({"error": "no"}, 501))
    answer = send(cast.erin, [text("a")])
    assert (answer.status, answer["details"]) == (502, {"provider_status": 501})
    assert cast.rita.get(NOTES)["total_count"] == 0


def test_replacing_by_a_text(cast: Cast, server: Server) -> None:
    assert cast.erin.put(f"{NOTES}/a", {"text": "First"}).status == 201
    answer = cast.erin.put(f"{NOTES}/a", {"text": "Second", "instance_handle": "small"})
    assert (answer.status, answer["text"]) == (200, "Second")
    assert np.array_equal(np.float32(answer["vector"]), vector_of("Second"))
    refused = cast.erin.put(f"{NOTES}/a", {"text": ""})
    assert_refused(refused, 400, location="body.text")
    assert_refused(cast.erin.put(f"{NOTES}/a", {}), 400, location="body.instance_handle")


def test_the_builtin_model_does_many_short_texts_at_once(cast: Cast, settings: Any) -> None:
    make_project("alice", "notes", instance_owner="_system", instance="builtin", editors=["erin"])
    settings.TEXTS_PER_REQUEST = 1
    assert send(cast.erin, texts(3)).status == 201
    found = cast.alice.get(f"{SIMILARS}?q=The%20text%20t1&count=1")["results"]
    assert found == [{"id": "t1", "similarity": pytest.approx(1, abs=1e-4)}]
    long = [text("long", "word " * 20_001)]
    assert send(cast.erin, long).status == 202


# --- As a job -------------------------------------------------------------------------------------
def test_more_texts_than_a_request_waits_for_become_a_job(
    cast: Cast, server: Server, settings: Any
) -> None:
    settings.TEXTS_PER_REQUEST = 2
    given = item("given", [1, 2, 3, 4], instance_handle="small")
    answer = send(cast.erin, [text("a", metadata={"n": 1}), given, text("b"), text("c")])
    path = job_of(answer)
    assert "Preference-Applied" not in answer.headers
    waiting = {
        "id": A_UUID,
        "user_handle": "alice",
        "project_handle": "notes",
        "state": "waiting",
        "total": 4,
        "done": 0,
        "failed": 0,
        "tokens": 0,
        "seconds_left": None,
        "error": None,
        "warnings": [],
        "created_at": A_TIME,
        "started_at": None,
        "finished_at": None,
    }
    assert answer.body == waiting
    assert cast.alice.get(path).body == {**waiting, "errors": []}
    assert (server.received, cast.rita.get(NOTES)["total_count"]) == ([], 0)
    assert run_jobs() == [WORK]
    done = cast.erin.get(path)
    assert done.body == {
        **waiting,
        "state": "finished",
        "done": 4,
        "tokens": 9,
        "started_at": A_TIME,
        "finished_at": A_TIME,
        "errors": [],
    }
    stored = {each["text_id"]: each for each in cast.rita.get(NOTES)["embeddings"]}
    assert np.array_equal(np.float32(stored["c"]["vector"]), vector_of("The text c"))
    assert (stored["a"]["metadata"], stored["given"]["vector"]) == ({"n": 1}, [1, 2, 3, 4])
    assert EmbeddingJobItem.objects.count() == 0
    listed = cast.erin.get(JOBS)
    assert (listed["total_count"], listed["jobs"][0]["id"]) == (1, answer["id"])


def test_whoever_wants_a_job_gets_one(cast: Cast, server: Server) -> None:
    answer = send(cast.erin, [text("a")], Prefer="wait=5, Respond-Async")
    job_of(answer)
    assert answer.headers["Preference-Applied"] == "respond-async"
    vector = item("v", [1, 2, 3, 4], instance_handle="small")
    assert send(cast.erin, [vector], **ASYNC).status == 201


def test_texts_that_fail_are_told_and_tried_again(cast: Cast, server: Server) -> None:
    items = [text("a"), text("long", "x" * (LONGEST + 1)), text("b"), text("late")]
    path = job_of(send(cast.erin, items, **ASYNC))
    late = item("late", [1, 2, 3, 4], instance_handle="small")
    assert send(cast.erin, [late]).status == 201
    run_jobs()
    job = cast.erin.get(path)
    assert (job["state"], job["done"], job["failed"]) == ("finished", 2, 2)
    assert [(each["index"], each["text_id"]) for each in job["errors"]] == [
        (1, "long"),
        (3, "late"),
    ]
    assert "HTTP 400" in job["errors"][0]["message"]
    assert "stored by somebody else" in job["errors"][1]["message"]
    assert [each["text_id"] for each in cast.erin.get(f"{path}?limit=1&offset=1")["errors"]] == [
        "late"
    ]
    assert cast.erin.get(f"{path}?offset=2")["errors"] == []
    server.longest += 1
    server.received.clear()
    again = cast.alice.post(f"{path}/retry")
    assert (again.status, again["state"], again["failed"]) == (202, "waiting", 0)
    run_jobs()
    job = cast.erin.get(path)
    assert (job["state"], job["done"], job["failed"]) == ("finished", 3, 1)
    # The vector of `late` is known since the first time.
    assert asked(server) == ["x" * (LONGEST + 1)]
    assert cast.erin.delete(f"{NOTES}/late").status == 200
    cast.erin.post(f"{path}/retry")
    run_jobs()
    assert cast.erin.get(path)["done"] == 4
    assert_refused(cast.erin.post(f"{path}/retry"), 409, says="nothing to try again")


def test_ids_that_wait_in_a_job_are_taken(cast: Cast, server: Server) -> None:
    job_of(send(cast.erin, texts(3), **ASYNC))
    with nothing_changes():
        assert_refused(send(cast.erin, texts(2), **ASYNC), 409, says="waits to be embedded")
    run_jobs()
    assert_refused(send(cast.erin, texts(2), **ASYNC), 409, says="already exists")


def test_a_cancelled_job_stops_and_can_go_on(cast: Cast, server: Server) -> None:
    path = job_of(send(cast.erin, texts(3), **ASYNC))
    assert_refused(cast.erin.delete(path), 409, says="cancel it first")
    assert_refused(cast.erin.post(f"{path}/retry"), 409, says="not ended yet")
    assert cast.alice.post(f"{path}/cancel")["state"] == "cancelled"
    assert_refused(cast.erin.post(f"{path}/cancel"), 409, says="ended already")
    run_jobs()
    assert (cast.erin.get(path)["done"], server.received) == (0, [])
    cast.erin.post(f"{path}/retry")
    run_jobs()
    assert cast.erin.get(path)["state"] == "finished"
    assert cast.erin.delete(path).status == 200
    assert_refused(cast.erin.get(path), 404)
    assert cast.rita.get(NOTES)["total_count"] == 3


def test_a_job_has_the_rights_that_its_account_has_now(cast: Cast, server: Server) -> None:
    path = job_of(send(cast.erin, texts(2), **ASYNC))
    assert cast.alice.delete("/v1/projects/alice/notes/share/erin").status == 200
    run_jobs()
    job = cast.alice.get(path)
    assert (job["state"], job["done"], server.received) == ("cancelled", 0, [])
    assert "may not edit it now" in job["error"]
    cast.alice.post(f"{path}/retry")
    run_jobs()
    assert cast.alice.get(path)["state"] == "finished"


def test_a_job_goes_with_its_account_or_project(cast: Cast, server: Server) -> None:
    path = job_of(send(cast.erin, texts(2), **ASYNC))
    accounts.delete_user(actor=BOOTSTRAP_ADMIN, handle="erin")
    run_jobs()
    assert cast.alice.get(path)["state"] == "cancelled"
    job_of(send(cast.alice, texts(2), **ASYNC))
    delete_project(actor=BOOTSTRAP_ADMIN, owner="alice", handle="notes")
    run_jobs()
    assert (EmbeddingJob.objects.count(), server.received) == (0, [])
    assert rows(task_name=WORK, status="failed") == []


def test_a_wrong_key_stops_a_job_until_it_is_mended(cast: Cast, server: Server) -> None:
    path = job_of(send(cast.erin, texts(2), **ASYNC))
    server.faults.append(Reply({}, 401))
    run_jobs()
    job = cast.erin.get(path)
    assert (job["state"], job["done"], job["failed"]) == ("failed", 0, 0)
    assert "refuses the stored key" in job["error"]
    cast.erin.post(f"{path}/retry")
    run_jobs()
    assert (cast.erin.get(path)["done"], cast.erin.get(path)["error"]) == (2, None)


def test_a_provider_that_fails_is_asked_again_later(cast: Cast, server: Server) -> None:
    path = job_of(send(cast.erin, texts(2), **ASYNC))
    server.faults.append(Reply({}, 501))
    run_jobs()
    job = cast.erin.get(path)
    assert (job["state"], "HTTP 501" in job["error"]) == ("running", True)
    (later,) = rows(task_name=WORK, status="todo")
    assert later.scheduled_at is not None
    for _ in range(4):
        server.faults.append(Reply({}, 501))
        tasks.work_embedding_job(job_id=job["id"])
    assert cast.erin.get(path)["state"] == "failed"
    cast.erin.post(f"{path}/retry")
    tasks.work_embedding_job(job_id=job["id"])
    assert cast.erin.get(path)["state"] == "finished"


def test_long_jobs_let_others_have_their_turn(
    cast: Cast, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = job_of(send(cast.erin, texts(30), **ASYNC))
    monkeypatch.setattr(embedding_jobs, "_TURN_S", 0.0)
    job = EmbeddingJob.objects.get()
    tasks.work_embedding_job(job_id=str(job.pk))
    assert len(rows(task_name=WORK, status="todo")) == 1
    monkeypatch.undo()
    run_jobs()
    assert cast.erin.get(path)["done"] == 30


def test_a_job_goes_on_with_the_instance_that_the_project_has_then(
    cast: Cast, server: Server, serve: Serve
) -> None:
    given = item("given", [1, 2, 3, 4], instance_handle="small")
    path = job_of(send(cast.erin, [text("a"), given], **ASYNC))
    wide = {"instance_owner": "_system", "instance_handle": "builtin"}
    assert cast.alice.patch("/v1/projects/alice/notes", wide).status == 200
    run_jobs()
    job = cast.erin.get(path)
    assert (job["state"], job["done"], job["failed"]) == ("finished", 1, 1)
    assert "has 4 elements" in job["errors"][0]["message"]
    assert cast.rita.get(f"{NOTES}/a")["vector_dim"] == 512


def test_jobs_that_got_lost_are_failed_and_old_ones_forgotten(cast: Cast, server: Server) -> None:
    path = job_of(send(cast.erin, texts(1), **ASYNC))
    EmbeddingJob.objects.update(created_at="2026-01-01T00:00:00Z")
    tasks.sweep_embedding_jobs()
    assert cast.erin.get(path)["state"] == "waiting"
    ProcrastinateJob.objects.filter(task_name=WORK).delete()
    tasks.sweep_embedding_jobs()
    assert cast.erin.get(path)["state"] == "failed"
    tasks.forget_embedding_jobs()
    assert cast.erin.get(path).status == 200
    EmbeddingJob.objects.update(finished_at="2026-01-01T00:00:00Z")
    tasks.forget_embedding_jobs()
    assert cast.erin.get(path).status == 404


def test_administrators_watch_cancel_and_retry(cast: Cast, server: Server) -> None:
    items = [text("a"), text("long", "x" * (LONGEST + 1))]
    path = job_of(send(cast.erin, items, **ASYNC))
    job = EmbeddingJob.objects.get()
    ada = sign_in()
    accepted(act(ada, EmbeddingJob, "cancel", [job]))
    assert cast.erin.get(path)["state"] == "cancelled"
    accepted(act(ada, EmbeddingJob, "retry", [job]))
    run_jobs()
    assert cast.erin.get(path)["done"] == 1
    assert "alice/notes" in page(ada.get(address(EmbeddingJob)))
    shown = page(ada.get(address(job, "change")))
    assert "long: text cannot be embedded" in shown
    assert 'name="state"' not in shown


# --- Files ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["lines", "arrow", "parquet"])
def test_files_of_texts_become_a_job(cast: Cast, server: Server, name: str) -> None:
    items = [text(f"t{number}", metadata={"n": number}) for number in range(3)]
    table = pa.table(
        {
            "text_id": [each["text_id"] for each in items],
            "text": [each["text"] for each in items],
            "metadata": [json.dumps(each["metadata"]) for each in items],
        }
    )
    media_type, content = {
        "lines": ("application/x-ndjson", bulk.in_lines(items)),
        "arrow": ("application/vnd.apache.arrow.stream", bulk.stream_of(table)),
        "parquet": ("application/vnd.apache.parquet", bulk.parquet_of(table)),
    }[name]
    path = job_of(cast.erin.post(NOTES, raw=content, content_type=media_type))
    run_jobs()
    assert cast.erin.get(path)["done"] == 3
    assert cast.rita.get(f"{NOTES}/t2")["metadata"] == {"n": 2}
    again = cast.erin.post(NOTES, raw=content, content_type=media_type)
    assert_refused(again, 409, location="body.rows[0].text_id")


def load(path: Path, capsys: Any, *options: str) -> tuple[dict[str, Any], str]:
    call_command("loadembeddings", str(path), "--project", "alice/notes", "--json", *options)
    printed = capsys.readouterr()
    return json.loads(printed.out), printed.err


def test_loading_a_file_of_texts(
    cast: Cast, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_bytes(bulk.in_lines(texts(5)))
    counts, _ = load(path, capsys)
    assert (counts["stored"], counts["complete"], len(asked(server))) == (5, True, 5)
    path.write_bytes(bulk.in_lines([*texts(6), text("long", "x" * (LONGEST + 1))]))
    with pytest.raises(SystemExit):
        load(path, capsys)
    printed = capsys.readouterr()
    counts = json.loads(printed.out)
    assert [counts[name] for name in ("stored", "skipped", "rejected")] == [1, 5, 1]
    assert "row 7 'long': text cannot be embedded" in printed.err
    assert cast.rita.get(NOTES)["total_count"] == 6
    with pytest.raises(CommandError, match="every row has a vector"):
        load(path, capsys, "--atomic")


# --- Searching by words ---------------------------------------------------------------------------
@pytest.fixture
def filled(cast: Cast, server: Server) -> Cast:
    items = [text(each, each, metadata={"name": each}) for each in ("apple", "pear", "plum")]
    assert send(cast.erin, items).status == 201
    server.received.clear()
    return cast


def by_words(caller: Caller, words: str, parameters: str = "", **body: Any) -> Answer:
    """Search in both ways, which must say the same."""
    got = caller.get(f"{SIMILARS}?q={quote(words)}{parameters}")
    if not body:
        posted = caller.post(
            f"{SIMILARS}?{parameters.removeprefix('&')}" if parameters else SIMILARS,
            {"text": words},
        )
        assert (posted.status, posted.body) == (got.status, got.body)
    return got


def test_words_find_texts(filled: Cast, server: Server) -> None:
    answer = by_words(filled.rita, "pear", "&count=1")
    assert answer.body == {
        "user_handle": "alice",
        "project_handle": "notes",
        "results": [{"id": "pear", "similarity": pytest.approx(1, abs=1e-6)}],
    }
    # The words were known, as a text.
    assert server.received == []
    expected = [float(_cosine("Fruit?", each)) for each in ("apple", "pear", "plum")]
    found = by_words(filled.rita, "Fruit?")["results"]
    assert len(asked(server)) == 1
    assert [each["similarity"] for each in found] == pytest.approx(
        sorted((each for each in expected if each >= 0), reverse=True), abs=1e-5
    )
    filtered = filled.rita.post(SIMILARS, {"text": "pear", "filter": {"name": "plum"}})
    assert {each["id"] for each in filtered["results"]} <= {"plum"}
    assert by_words(filled.rita, "pear", "&threshold=0.99&explain=true")["explain"]["plan"]


def _cosine(one: str, other: str) -> float:
    a, b = vector_of(one), vector_of(other)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ({"text": ""}, "body.text"),
        ({"text": " \n"}, "body.text"),
        ({"text": 5}, "body.text"),
        ({"text": "x" * 10_001}, "body.text"),
        ({"text": "a\0"}, "body.text"),
        ({"text": "a", "vector": [1, 2, 3, 4]}, "body.text"),
        ({"text": None}, "body.vector"),
        ({}, "body.vector"),
        ({"text": "a", "filter": 5}, "body.filter"),
    ],
)
def test_bad_words_are_refused(
    filled: Cast, server: Server, body: dict[str, Any], location: str
) -> None:
    assert_refused(filled.rita.post(SIMILARS, body), 400, location=location)
    assert server.received == []


@pytest.mark.parametrize("query", ["", "?q=", "?q=%20", f"?q={'x' * 10_001}", "?q=a&q=b", "?q=%00"])
def test_bad_queries_are_refused(filled: Cast, server: Server, query: str) -> None:
    assert_refused(filled.rita.get(f"{SIMILARS}{query}"), 400, location="query.q")
    assert server.received == []


def test_only_those_a_project_is_shared_with_search_by_words_that_cost(
    filled: Cast, server: Server
) -> None:
    Project.objects.filter(handle="notes").update(public_read=True)
    for caller, status in ((filled.sam, 403), (filled.nobody, 401)):
        assert_refused(by_words(caller, "melon"), status, says="whom its owner pays")
        assert caller.post(SIMILARS, {"vector": [1, 2, 3, 4]}).status == 200
    assert server.received == []
    for caller in (filled.rita, filled.erin, filled.alice, filled.ada):
        assert by_words(caller, "melon").status == 200
    builtin = {"instance_owner": "_system", "instance_handle": "builtin", "public_read": True}
    filled.alice.post("/v1/projects/alice", {"project_handle": "free", **builtin})
    for caller in (filled.sam, filled.nobody):
        assert caller.get("/v1/similars/alice/free?q=melon").status == 200


def test_who_may_not_read_costs_nothing(filled: Cast, server: Server) -> None:
    assert by_words(filled.rita, "melon").status == 200
    server.received.clear()
    filled.alice.delete("/v1/projects/alice/notes/share/rita")
    assert_refused(by_words(filled.rita, "another"), 403)
    assert_refused(by_words(filled.nobody, "another"), 401)
    assert server.received == []


def test_a_failing_provider_is_told(filled: Cast, server: Server) -> None:
    server.faults.append(Reply({}, 501))
    assert filled.rita.get(f"{SIMILARS}?q=melon").status == 502
    server.faults.append(Reply({}, 401))
    assert filled.rita.post(SIMILARS, {"text": "melon"}).status == 409


def test_the_command_searches(filled: Cast, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("search", "alice/notes", "pear", "--count", "1")
    printed = capsys.readouterr().out
    assert "1.000" in printed
    assert printed.count("pear") == 2
    call_command("search", "alice/notes", "pear", "--json", "--filter", '{"name": "plum"}')
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["id"], found["text"]) == ("plum", "plum")
    call_command("search", "alice/notes", "pear", "--mode", "hybrid", "--limit", "2")
    printed = capsys.readouterr().out
    assert "Score" in printed
    assert "<mark>" not in printed
    call_command("search", "alice/notes", "pear", "--mode", "text", "--json")
    (found,) = json.loads(capsys.readouterr().out)
    assert found == {
        "id": "pear",
        "similarity": None,
        "score": found["score"],
        "ranks": {"vector": None, "text": 1},
        "highlight": "<mark>pear</mark>",
        "text": "pear",
    }
    call_command("search", "alice/notes", "pear", "--filter", '{"name": "none"}')
    assert "no text that matches" in capsys.readouterr().out
    for arguments in (
        ("alice/none", "pear"),
        ("alice/notes", " "),
        ("alice/notes", "a", "--filter", "{"),
    ):
        with pytest.raises(CommandError) as caught:
            call_command("search", *arguments)
        assert caught.value.returncode == 2

"""Large projects change their model by a new segment, while people upload and workers die."""

import threading
from typing import Any

import pytest
from django.db import connections

from embeddings import indexes, reembedding, store
from projects import access
from projects.models import Project
from tests.answers import assert_refused
from tests.embeddings import large
from tests.jobs import run_jobs
from tests.llm_services.providers.conftest import Serve, instance_of, serve, server
from tests.llm_services.providers.servers import DIMENSIONS, Server, vector_of

__all__ = ["Serve", "serve", "server"]
PATH = "/v1/projects/alice/shelf/reembedding"
pytestmark = [
    pytest.mark.django_db(transaction=True, serialized_rollback=True),
    pytest.mark.usefixtures("real_segments"),
]


@pytest.fixture
def indexed_shelf(shelf: large.Shelf, server: Server) -> large.Shelf:
    """Return a project with an index, and an instance of four dimensions beside it."""
    items = [shelf.item(row, text=f"text {row}") for row in range(320)]
    assert shelf.owner.post(shelf.embeddings, {"embeddings": items}).status == 201
    assert shelf.tended()["state"] == "indexed"
    instance_of(server)
    return shelf


def test_a_large_project_is_switched_by_a_new_segment(
    indexed_shelf: large.Shelf, settings: Any
) -> None:
    shelf, path = indexed_shelf, PATH
    # By the new dimensions, too, it is worth an index.
    settings.INDEX_THRESHOLD = 300 * DIMENSIONS
    before = shelf.everything()
    assert shelf.owner.post(path, {"instance_handle": "small"}).status == 202
    run_jobs()
    assert shelf.owner.post(f"{path}/switch").status == 202
    run_jobs()
    assert shelf.owner.get(path)["state"] == "switched"
    index = shelf.index()
    assert (index["state"], index["rows"]["indexed"]) == ("indexed", 320)
    after = shelf.everything()
    assert after.keys() == before.keys()
    for text_id, row in after.items():
        assert row["vector"] == pytest.approx(vector_of(before[text_id]["text"]).tolist())
        assert row["metadata"] == before[text_id]["metadata"]
    assert shelf.owner.post(f"{path}/rollback").status == 202
    run_jobs()
    assert shelf.owner.get(path)["state"] == "ready"
    restored = shelf.everything()
    assert {each: row["vector"] for each, row in restored.items()} == {
        each: row["vector"] for each, row in before.items()
    }
    indexes.drop_retired()
    assert large.invalid_indexes() == []


def test_a_large_project_may_become_a_small_one(indexed_shelf: large.Shelf) -> None:
    shelf, path = indexed_shelf, PATH
    before = shelf.everything()
    assert shelf.owner.post(path, {"instance_handle": "small"}).status == 202
    run_jobs()
    assert shelf.owner.post(f"{path}/switch").status == 202
    run_jobs()
    assert shelf.owner.get(path)["state"] == "switched"
    assert shelf.index()["state"] == "exact"
    after = shelf.everything()
    assert after.keys() == before.keys()
    assert after["t0001"]["vector"] == pytest.approx(vector_of(before["t0001"]["text"]).tolist())


def test_what_changes_while_the_segment_is_built_is_switched_too(
    indexed_shelf: large.Shelf, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, path = indexed_shelf, PATH
    settings.INDEX_THRESHOLD = 300 * DIMENSIONS
    assert shelf.owner.post(path, {"instance_handle": "small"}).status == 202
    run_jobs()

    def meanwhile() -> None:
        assert shelf.put(1, text="another text").status == 200
        assert shelf.delete(2).status == 200
        shelf.upload([400], text="late")
        # As if the index had been looked after between two tries of the job.
        segment = store.look(shelf.row.pk).segment
        assert segment is not None
        store.seal(shelf.row.pk, segment, rows=100)

    large.after_step(monkeypatch, "copy_exchanged", meanwhile)
    assert shelf.owner.post(f"{path}/switch").status == 202
    run_jobs()
    assert shelf.owner.get(path)["state"] == "switched"
    after = shelf.everything()
    assert len(after) == 320
    assert "t0002" not in after
    for row in after.values():
        assert row["vector"] == pytest.approx(vector_of(row["text"]).tolist())
    assert after["t0001"]["text"] == "another text"
    # And back: what replaced a text since is what the former model made, or makes, of it.
    assert Project.objects.get(pk=shelf.row.pk).instance.handle == "small"


def test_a_job_that_was_killed_goes_on(
    indexed_shelf: large.Shelf, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, path = indexed_shelf, PATH
    settings.INDEX_THRESHOLD = 300 * DIMENSIONS
    assert shelf.owner.post(path, {"instance_handle": "small"}).status == 202
    run_jobs()

    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    assert shelf.owner.post(f"{path}/switch").status == 202
    large.after_step(monkeypatch, "copy_exchanged", kill)
    with pytest.raises(Killed):
        reembedding.advance(shelf.row.pk)
    assert shelf.owner.get(path)["state"] == "switching"
    reembedding.advance(shelf.row.pk)
    assert shelf.owner.get(path)["state"] == "switched"
    row = shelf.get(5)
    assert row["vector"] == pytest.approx(vector_of(row["text"]).tolist())


def test_cancelling_while_it_is_built(
    indexed_shelf: large.Shelf, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, path = indexed_shelf, PATH
    settings.INDEX_THRESHOLD = 300 * DIMENSIONS
    assert shelf.owner.post(path, {"instance_handle": "small"}).status == 202
    run_jobs()
    before = shelf.everything()
    large.after_step(monkeypatch, "copy_exchanged", lambda: shelf.owner.delete(path))
    assert shelf.owner.post(f"{path}/switch").status == 202
    run_jobs()
    assert shelf.owner.get(path).status == 404
    assert shelf.everything() == before
    monkeypatch.setattr(indexes, "GRACE_S", 0.0)
    indexes.drop_retired()
    assert len(large.segments()) == 1


def test_a_search_that_begins_before_the_switch(
    indexed_shelf: large.Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = indexed_shelf
    assert shelf.owner.post(PATH, {"instance_handle": "small"}).status == 202
    run_jobs()
    real, calls = access.look_up, []

    def look_up(*arguments: Any, **keywords: Any) -> access.Access:
        found = real(*arguments, **keywords)
        calls.append(found.project.instance.dimensions)
        if len(calls) == 1:
            assert shelf.owner.post(f"{PATH}/switch").status == 202
            run_jobs()
        return found

    monkeypatch.setattr(access, "look_up", look_up)
    answer = shelf.owner.post(shelf.similars, {"vector": large.vectors(64)[0].tolist()})
    assert_refused(answer, 400, says="4")
    assert calls == [64, DIMENSIONS]


def test_readers_see_all_old_vectors_or_all_new_ones(
    indexed_shelf: large.Shelf, settings: Any
) -> None:
    shelf = indexed_shelf
    settings.INDEX_THRESHOLD = 300 * DIMENSIONS
    assert shelf.owner.post(PATH, {"instance_handle": "small"}).status == 202
    run_jobs()
    assert shelf.owner.post(f"{PATH}/switch").status == 202
    seen: list[set[int]] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                page = shelf.owner.get(f"{shelf.embeddings}?limit=200")
                assert page.status == 200, page.body
                seen.append({len(each["vector"]) for each in page["embeddings"]})
        finally:
            connections.close_all()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        reembedding.advance(shelf.row.pk)
    finally:
        done.set()
        reader.join()
    assert shelf.owner.get(PATH)["state"] == "switched"
    assert len(seen) > 1
    assert all(each in ({64}, {DIMENSIONS}) for each in seen)

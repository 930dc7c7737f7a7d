"""Large projects change their model by a new segment, while people upload and workers die."""

from typing import Any

import pytest

from embeddings import indexes, reembedding, store
from projects.models import Project
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
    for row in range(320):
        shelf.upload([row], text=f"text {row}")
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

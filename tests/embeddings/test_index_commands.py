"""listindexes, rebuildindex and tendindexes."""

import json
import time
from typing import Any

import pytest

from embeddings import indexes, store
from embeddings.models import IndexState, RetiredSegment, SearchIndex
from tests.embeddings.test_commands import run
from tests.factories import Cast, item, make_project

ROWS = {"embeddings": [item(name, [1, 2, len(name)]) for name in ("a", "bb", "ccc", "dddd")]}


@pytest.fixture
def filled(cast: Cast, settings: Any) -> Cast:
    """Return the cast; Alice's `letters` is large enough for an index, `small` is not."""
    settings.INDEX_THRESHOLD = 12
    make_project("alice", "small")
    assert cast.alice.post("/v1/embeddings/alice/letters", ROWS).status == 201
    one = {"embeddings": ROWS["embeddings"][:1]}
    assert cast.alice.post("/v1/embeddings/alice/small", one).status == 201
    return cast


def test_tending_builds_what_a_worker_would_build(filled: Cast) -> None:
    ran = run("tendindexes")
    assert (ran.code, ran.refusal) == (0, "")
    assert ran.out == "1 indexes looked after, 0 not, 0 retired segments dropped\n"
    assert "alice/letters" in ran.err
    assert SearchIndex.objects.get().state == IndexState.INDEXED
    again = run("tendindexes", "--json")
    assert json.loads(again.out) == {"tended": [], "failed": {}, "dropped_segments": 0}


def test_tending_says_what_it_could_not_do(filled: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(project_id: int) -> None:
        raise indexes.Busy

    monkeypatch.setattr(indexes, "tend", busy)
    ran = run("tendindexes", "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["failed"] == {"alice/letters": "another process is at it"}


def test_tending_drops_retired_segments(filled: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("tendindexes").code == 0
    assert filled.alice.delete("/v1/projects/alice/letters").status == 200
    assert RetiredSegment.objects.count() == 1
    monkeypatch.setattr(indexes, "GRACE_S", -1.0)
    ran = run("tendindexes", "--json")
    assert json.loads(ran.out)["dropped_segments"] == 1
    assert not RetiredSegment.objects.exists()


def test_the_list_tells_what_is_indexed_and_what_will_be(filled: Cast) -> None:
    before = run("listindexes").out
    assert "alice/letters" in before
    assert "index from 4 rows" in before
    assert "alice/small" not in before
    assert run("tendindexes").code == 0
    after = run("listindexes").out
    assert "indexed" in after
    assert "1.000" in after
    (shown,) = json.loads(run("listindexes", "--json").out)["indexes"]
    assert shown.pop("project") == "alice/letters"
    assert shown == json.loads(filled.rita.get("/v1/projects/alice/letters/index").content)


def test_the_list_of_nothing_says_so(cast: Cast) -> None:
    assert run("listindexes").out == "Every project is searched exactly, and none is large.\n"
    assert json.loads(run("listindexes", "--json").out) == {"indexes": []}


def test_the_list_tells_of_failures(filled: Cast) -> None:
    SearchIndex.objects.create(project=filled.project, last_error="OutOfMemory: no\nspace")
    assert "failed: OutOfMemory: no space" in run("listindexes").out


def test_watching_ends_once_nothing_is_being_built(
    filled: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    SearchIndex.objects.create(project=filled.project, state=IndexState.BUILDING, phase="copying")
    naps = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            SearchIndex.objects.update(state=IndexState.INDEXED, phase="")

    monkeypatch.setattr(time, "sleep", nap)
    ran = run("listindexes", "--watch")
    assert ran.code == 0
    assert len(naps) == 2
    assert ran.out.count("copying") == 2


def test_rebuilding_is_asked_for_or_refused(filled: Cast) -> None:
    refused = run("rebuildindex", "alice/letters")
    assert refused.code == 2
    assert "has no index to rebuild" in refused.refusal
    assert run("tendindexes").code == 0
    ran = run("rebuildindex", "alice/letters")
    assert ran.out == "The index of 'alice/letters' (4 rows) will be built again.\n"
    assert SearchIndex.objects.get().rebuild_requested
    assert indexes.wanting() == [filled.project.pk]
    assert run("rebuildindex", "alice/nothing").code == 2
    assert store.parts_of(filled.project.pk).segment is not None


@pytest.mark.slow
@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_tending_builds_again_what_was_asked_for(filled: Cast) -> None:
    assert run("tendindexes").code == 0
    first = SearchIndex.objects.get()
    assert filled.alice.patch("/v1/projects/alice/letters/index", {"m": 8}).status == 200
    assert run("rebuildindex", "alice/letters").code == 0
    ran = run("tendindexes", "--json")
    assert json.loads(ran.out)["tended"] == ["alice/letters"]
    index = SearchIndex.objects.get()
    assert (index.state, index.built_m, index.rebuild_requested) == ("indexed", 8, False)
    assert index.segment == first.segment
    assert index.built_at is not None
    assert first.built_at is not None
    assert index.built_at > first.built_at
    assert json.loads(run("tendindexes", "--json").out)["tended"] == []

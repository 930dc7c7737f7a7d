"""The life of an index: exact, building, indexed, and back; settings; what readers see."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from django.core.management import call_command
from django.db import connection
from pytest_django import Settings

from common import jobs
from embeddings import indexes, store
from embeddings.models import RetiredSegment, SearchIndex
from tests.answers import A_TIME
from tests.embeddings.large import (
    Shelf,
    after_step,
    assert_first,
    assert_ranked,
    brute_force,
    elsewhere,
    execute,
    facts,
    hits,
    invalid_indexes,
    name,
    plan,
    recall,
    sample,
    segments,
    vectors,
)
from tests.factories import Cast
from tests.jobs import rows as job_rows
from tests.jobs import run_jobs
from tests.races import asking, at_once

pytestmark = pytest.mark.django_db
# CREATE INDEX CONCURRENTLY and VACUUM do not run inside a transaction.
real = [
    pytest.mark.django_db(transaction=True, serialized_rollback=True),
    pytest.mark.usefixtures("real_segments"),
]

Fill = Callable[[int], Shelf]
EXACT = {"state": "exact", "ef_search": None, "measured_recall": None, "progress": None}
QUERIES = (3, 77, 204)


def assert_searched_right(shelf: Shelf, rows: Any, *, plans: set[str]) -> None:
    """Search for some texts, exactly and as the project is searched."""
    rows = list(rows)
    found = []
    for row in rows[:: max(1, len(rows) // 8)]:
        query = vectors(shelf.dimensions)[row]
        expected = brute_force(query, rows)[:10]
        expected = [each for each in expected if each[1] > 1e-5]
        answer = shelf.search(query)
        assert plan(answer) in plans, answer["explain"]
        assert len(hits(answer)) >= len(expected)
        found.append(recall(hits(answer), expected))
        exactly = shelf.search(query, exact="true")
        assert plan(exactly) == "exact"
        assert_ranked(hits(exactly), expected)
    assert np.mean(found) >= 0.95


def invalidate(index: str) -> None:
    """Leave an index as a CREATE INDEX CONCURRENTLY does that does not finish."""
    execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", index)


# --- Growing and shrinking ------------------------------------------------------------------------
def test_a_project_is_searched_exactly_until_it_is_large(shelf: Shelf) -> None:
    shelf.upload(range(299))
    index = shelf.tended()
    assert index | EXACT == index
    assert index["rows"] == {"total": 299, "indexed": 0, "growing": 299}
    assert index["threshold_rows"] == 300
    assert segments() == {}
    assert job_rows() == []
    assert_searched_right(shelf, range(299), plans={"exact"})

    shelf.upload([299])
    index = shelf.tended()
    assert index["state"] == "indexed"
    assert index["rows"] == {"total": 300, "indexed": 300, "growing": 0}
    assert (index["progress"], index["last_error"]) == (None, None)
    assert index["built_at"] == A_TIME
    assert index["measured_recall"] >= 0.98
    assert index["ef_search"] >= 20
    assert min(index["table_bytes"], index["index_bytes"]) > 0
    assert list(segments().values()) == [300]
    assert_searched_right(shelf, range(300), plans={"hnsw"})


def test_enough_uploads_ask_for_the_job_themselves(shelf: Shelf) -> None:
    shelf.upload(range(499))
    assert job_rows() == []
    shelf.upload([499])
    (job,) = job_rows()
    assert (job.task_name, job.status) == (indexes.TEND, "todo")
    assert run_jobs() == [indexes.TEND]
    assert shelf.index()["state"] == "indexed"


def test_a_project_that_is_being_built_is_searched_exactly(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.upload(range(300))
    seen = []

    def look() -> None:
        seen.append(shelf.index())
        assert_searched_right(shelf, range(300), plans={"exact"})
        assert len(shelf.everything()) == 300

    after_step(monkeypatch, "copy", look)
    after_step(monkeypatch, "index", look)
    assert shelf.tended()["state"] == "indexed"
    assert [each["state"] for each in seen] == ["building"] * 2
    assert [each["progress"]["phase"] for each in seen] == ["copying", "indexing"]
    assert [each["rows"]["indexed"] for each in seen] == [0, 0]


@pytest.mark.parametrize("left", [29, 1, 0])
def test_a_project_that_shrinks_is_searched_exactly_again(
    indexed: Fill, settings: Settings, left: int
) -> None:
    settings.INDEX_THRESHOLD = 60 * 64
    shelf = indexed(60)
    for row in range(left, 60):
        assert shelf.delete(row).status == 200
        if row == left:
            assert shelf.tended()["state"] == "indexed"
    (table,) = segments()
    # As autovacuum does after so many deletions.
    execute(f"ANALYZE {table}")
    index = shelf.tended()
    assert index | EXACT == index
    assert index["rows"] == {"total": left, "indexed": 0, "growing": left}
    assert list(shelf.everything()) == [name(row) for row in range(left)]
    assert segments() == {table: 0}
    if left > 1:
        assert_searched_right(shelf, range(left), plans={"exact"})
    shelf.upload(range(60, 160))
    assert shelf.tended()["state"] == "indexed"
    assert len(shelf.everything()) == left + 100


def test_a_project_that_was_emptied_row_by_row_may_change_its_dimensions(
    cast: Cast, indexed: Fill, settings: Settings
) -> None:
    settings.INDEX_THRESHOLD = 60 * 64
    shelf = indexed(60)
    for row in range(60):
        shelf.delete(row)
    other = Shelf(cast.alice, "other", dimensions=32).make()
    changes = {"instance_owner": "alice", "instance_handle": "dim32"}
    assert cast.alice.patch(f"/v1/projects/{shelf.name}", changes).status == 200
    shelf.dimensions = other.dimensions
    assert hits(shelf.search(vectors(32)[0])) == []
    shelf.upload(range(20))
    assert_searched_right(shelf, range(20), plans={"exact"})
    shelf.upload(range(20, 300))
    assert shelf.tended()["state"] == "indexed"
    assert shelf.index()["last_error"] is None
    assert_searched_right(shelf, range(300), plans={"hnsw"})


def test_the_dimensions_of_an_instance_may_change_once_its_projects_are_empty(
    cast: Cast, indexed: Fill, settings: Settings
) -> None:
    settings.INDEX_THRESHOLD = 60 * 64
    shelf = indexed(60)
    for row in range(60):
        shelf.delete(row)
    path = "/v1/llm-services/alice/dim64"
    assert cast.alice.patch(path, {"dimensions": 32}).status == 200
    assert shelf.search(vectors(32)[0])["results"] == []


@pytest.mark.parametrize("what", ["embeddings", "project", "account"])
def test_a_large_project_is_deleted_in_one_step(
    cast: Cast, indexed: Fill, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = indexed(300)
    shelf.upload(range(300, 320))
    (table,) = segments()
    number = shelf.row.pk
    if what == "embeddings":
        assert cast.alice.delete(shelf.embeddings).status == 200
        index = shelf.index()
        assert index | EXACT == index
        assert index["rows"] == {"total": 0, "indexed": 0, "growing": 0}
        assert shelf.search(vectors(64)[0])["results"] == []
    elif what == "project":
        assert cast.alice.delete(f"/v1/projects/{shelf.name}").status == 200
    else:
        assert cast.ada.delete("/v1/users/alice").status in (200, 204)
    assert segments() == {table: 0}
    assert facts("SELECT count(*) FROM embeddings_embedding") == [0]
    assert facts("SELECT count(*) FROM embeddings_embedding WHERE project_id = %s", number) == [0]
    # Statements that still name it find an empty table, for a while.
    indexes.sweep()
    assert segments() == {table: 0}
    monkeypatch.setattr(indexes, "GRACE_S", -1.0)
    indexes.sweep()
    run_jobs()
    assert segments() == {}
    assert not RetiredSegment.objects.exists()
    if what == "embeddings":
        shelf.upload(range(300))
        assert shelf.tended()["state"] == "indexed"


# --- Building -------------------------------------------------------------------------------------
@pytest.mark.parametrize("step", ["copy", "index"])
@pytest.mark.parametrize("what", ["embeddings", "project"])
def test_a_build_whose_project_went_away_leaves_nothing(
    cast: Cast, shelf: Shelf, step: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.upload(range(300))
    path = shelf.embeddings if what == "embeddings" else f"/v1/projects/{shelf.name}"
    calls = after_step(monkeypatch, step, lambda: statuses.append(cast.alice.delete(path).status))
    statuses: list[int] = []
    indexes.sweep()
    run_jobs()
    assert (len(calls), statuses) == (1, [200])
    assert [job.status for job in job_rows()] == ["succeeded"]
    assert set(segments().values()) <= {0}
    assert facts("SELECT count(*) FROM embeddings_embedding") == [0]
    assert invalid_indexes() == []
    if what == "embeddings":
        index = shelf.index()
        assert index | EXACT == index
        shelf.upload(range(300))
        assert shelf.tended()["state"] == "indexed"
        assert_searched_right(shelf, range(300), plans={"hnsw"})
    monkeypatch.setattr(indexes, "GRACE_S", -1.0)
    indexes.sweep()
    assert len(segments()) == (what == "embeddings")


def test_what_changes_between_copy_and_swap_is_carried_over(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.upload(range(300))
    made = {row: shelf.get(row)["created_at"] for row in (1, 2, 3, 4)}

    def change() -> None:
        new: dict[str, Any] = {"text": "new"}
        assert shelf.put(1, vectors(64)[601], **new).status == 200
        for _ in range(2):
            assert shelf.put(2, vectors(64)[602], **new).status == 200
        assert shelf.delete(3).status == 200
        assert shelf.post([3], vector=vectors(64)[603], **new).status == 201
        assert shelf.delete(4).status == 200
        assert shelf.put(4, vectors(64)[604], **new).status == 201
        assert shelf.delete(5).status == 200
        assert shelf.put(6).status == 200
        assert shelf.put(300, **new).status == 201
        shelf.upload([301, 302])
        assert shelf.delete(302).status == 200

    after_step(monkeypatch, "copy", change)
    index = shelf.tended()
    assert index["state"] == "indexed"
    rows = shelf.everything()
    assert set(rows) == {name(row) for row in range(302)} - {name(5)}
    assert {each for each, row in rows.items() if row["text"] == "new"} == {
        name(row) for row in (1, 2, 3, 4, 300)
    }
    assert shelf.get(1)["created_at"] == made[1]
    assert shelf.get(2)["created_at"] == made[2]
    assert index["rows"]["total"] == 301
    for row in (1, 2, 3, 4):
        assert_first(shelf.search(vectors(64)[600 + row]), row)
        gone = hits(shelf.search(vectors(64)[row], exact="true"))
        assert gone[0][0] != name(row)


def test_changes_while_a_segment_is_built_anew_are_carried_over(
    indexed: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = indexed(300)
    (old,) = segments()
    monkeypatch.setattr(indexes, "_REBUILD_SHARE", 0.0)
    shelf.upload(range(300, 600))

    def change() -> None:
        for row in (1, 301):
            assert shelf.put(row, text="new").status == 200
        for row in (2, 302):
            assert shelf.delete(row).status == 200
        for row in (3, 303):
            assert shelf.delete(row).status == 200
            assert shelf.put(row, text="new").status == 201
        assert shelf.post([2, 302]).status == 201
        assert shelf.post([4]).status == 409
        assert shelf.delete(5).status == 200
        assert len(shelf.everything()) == 599
        assert_searched_right(shelf, sorted({*range(600)} - {5}), plans={"hnsw"})

    calls = after_step(monkeypatch, "copy", change)
    index = shelf.tended()
    assert (index["state"], calls) == ("indexed", [0])
    assert index["rows"]["total"] == 599
    assert segments()[old] == 0
    rows = shelf.everything()
    assert set(rows) == {name(row) for row in range(600)} - {name(5)}
    new = {name(row) for row in (1, 301, 3, 303)}
    assert {each for each, row in rows.items() if row["text"] == "new"} == new
    assert_searched_right(shelf, sorted({*range(600)} - {5}), plans={"hnsw"})


def test_a_segment_that_is_built_anew_does_not_wait_for_uploads_that_nobody_makes(
    indexed: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = indexed(300)
    SearchIndex.objects.update(building_segment=1_000_000)
    monkeypatch.setattr(indexes, "_LOOK_EVERY_S", 0.5)
    began = time.monotonic()
    indexes.tend(shelf.row.pk)
    assert time.monotonic() - began < indexes._LOOKS * 0.5 / 2
    assert SearchIndex.objects.get().segment == 1_000_000


def test_both_parts_are_seen_as_one(cast: Cast, indexed: Fill, tmp_path: Path) -> None:
    shelf = indexed(300)
    shelf.upload([*range(500, 520)])
    assert shelf.put(7, text="new").status == 200
    index = shelf.index()
    assert index["rows"] == {"total": 320, "indexed": 299, "growing": 21}
    names = [name(row) for row in [*range(300), *range(500, 520)]]
    assert list(shelf.everything()) == names
    number = shelf.row.pk
    assert [row.text_id for part in store.snapshot(number, size=7) for row in part] == names
    walked: list[str] = []
    while part := store.after(number, walked[-1] if walked else "", limit=33):
        walked += [row.text_id for row in part]
    assert walked == names
    assert store.existing(number, [name(7), name(8), name(510), name(600)]) == {
        name(7),
        name(8),
        name(510),
    }
    for row in (7, 8, 510):
        assert np.array_equal(np.array(shelf.get(row)["vector"], np.float32), vectors(64)[row])
    report = cast.ada.get("/v1/admin/sanity-check")
    assert report.status == 200
    assert "alice/shelf has 320 embeddings" in str(report.body)

    file = tmp_path / "shelf.jsonl"
    call_command("exportembeddings", shelf.name, str(file), "--json")
    lines = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    assert [line["text_id"] for line in lines] == names

    answer = cast.alice.post(
        f"/v1/projects/{shelf.name}/transfer-ownership", {"new_owner_handle": "erin"}
    )
    assert answer.status == 200, answer.body
    moved = Shelf(cast.erin, "shelf")
    assert list(moved.everything()) == names
    assert moved.index()["rows"] == {"total": 320, "indexed": 299, "growing": 21}


# --- Failures -------------------------------------------------------------------------------------
class TestFailures:
    pytestmark = real

    def test_a_build_that_fails_says_why_and_is_tried_again(
        self, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shelf.upload(range(300))

        def fail() -> None:
            raise RuntimeError("no space left\non the device")

        after_step(monkeypatch, "index", fail)
        index = shelf.tended()
        assert (index["state"], index["progress"]) == ("building", None)
        assert index["last_error"] == "RuntimeError: no space left"
        assert_searched_right(shelf, range(300), plans={"exact"})
        assert [(job.status, job.attempts) for job in job_rows()] == [("todo", 1)]
        shelf.upload(range(300, 310))
        execute("UPDATE procrastinate_jobs SET scheduled_at = NULL")
        assert run_jobs() == [indexes.TEND]
        index = shelf.index()
        assert (index["state"], index["last_error"]) == ("indexed", None)
        assert list(segments().values()) == [300]
        assert_searched_right(shelf, range(310), plans={"hnsw"})

    def test_a_failure_of_sealing_is_forgotten_once_it_succeeds(
        self, indexed: Fill, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shelf = indexed(300)
        shelf.upload(range(300, 380))

        def fail() -> None:
            raise RuntimeError("try again")

        after_step(monkeypatch, "seal", fail)
        assert shelf.tended()["last_error"] == "RuntimeError: try again"
        execute("UPDATE procrastinate_jobs SET scheduled_at = NULL")
        run_jobs()
        index = shelf.index()
        assert (index["state"], index["last_error"]) == ("indexed", None)
        assert index["rows"] == {"total": 380, "indexed": 380, "growing": 0}

    @pytest.mark.parametrize("broken", ["dropped", "invalid"])
    def test_a_graph_that_is_lost_is_built_again(self, indexed: Fill, broken: str) -> None:
        shelf = indexed(300)
        (table,) = segments()
        if broken == "dropped":
            execute(f"DROP INDEX {table}_graph")
        else:
            invalidate(f"{table}_graph")
        assert_searched_right(shelf, range(300), plans={"exact", "hnsw"})
        assert shelf.put(1, text="new").status == 200
        index = shelf.tended()
        assert (index["state"], index["last_error"]) == ("indexed", None)
        assert index["index_bytes"] > 0
        assert invalid_indexes() == []
        assert facts("SELECT to_regclass(%s) IS NOT NULL", f"{table}_graph") == [True]
        assert_searched_right(shelf, range(300), plans={"hnsw"})

    def test_a_half_built_graph_is_finished(self, indexed: Fill) -> None:
        shelf = indexed(300)
        (table,) = segments()
        execute(f"CREATE INDEX {table}_graph_new ON {table} (text_id)")
        invalidate(f"{table}_graph_new")
        answer = shelf.owner.post(f"/v1/projects/{shelf.name}/index/rebuild")
        assert answer.status == 202
        run_jobs()
        assert shelf.index()["state"] == "indexed"
        assert invalid_indexes() == []
        definition = facts("SELECT pg_get_indexdef(%s::regclass)", f"{table}_graph")
        assert "hnsw" in definition[0]

    def test_deleting_everything_does_not_wait_for_a_build(
        self, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shelf.upload(range(300))
        answers = []

        def delete() -> None:
            (table,) = segments()
            # What CREATE INDEX holds.
            with elsewhere(f"LOCK TABLE {table} IN SHARE MODE"):
                answers.append(shelf.owner.delete(shelf.embeddings))

        after_step(monkeypatch, "copy", delete)
        index = shelf.tended()
        assert [each.status for each in answers] == [200], answers[0].body
        assert index | EXACT == index
        assert set(segments().values()) == {0}

    def test_long_transactions_do_not_spoil_a_new_graph(self, indexed: Fill) -> None:
        shelf = indexed(300)
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '100ms'")
        try:
            slow = (
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*), pg_sleep(0)"
                " FROM accounts_user; SET LOCAL idle_in_transaction_session_timeout = '1500ms'"
            )
            with elsewhere(slow):
                assert shelf.owner.patch(f"/v1/projects/{shelf.name}/index", {"m": 8}).status == 200
                run_jobs()
            index = shelf.index()
        finally:
            with connection.cursor() as cursor:
                cursor.execute("RESET lock_timeout")
        assert (index["state"], index["last_error"]) == ("indexed", None)
        assert invalid_indexes() == []

    def test_an_export_neither_waits_nor_loses_rows_when_everything_is_deleted(
        self, indexed: Fill, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shelf = indexed(300)
        shelf.upload(range(300, 320))
        (table,) = segments()
        export = store.snapshot(shelf.row.pk, size=50)
        exported = [row.text_id for row in next(export)]
        # Whoever cannot empty the table in one step deletes its rows.
        (answer,) = at_once([asking(shelf.owner, "DELETE", shelf.embeddings)])
        assert answer.status == 200, answer.body
        exported += [row.text_id for part in export for row in part]
        assert exported == [name(row) for row in range(320)]
        assert segments() == {table: 0}
        assert shelf.everything() == {}
        monkeypatch.setattr(indexes, "GRACE_S", -1.0)
        with elsewhere(f"SELECT count(*) FROM {table}"):
            indexes.sweep()
            assert segments() == {table: 0}
        indexes.sweep()
        assert segments() == {}


# --- Settings -------------------------------------------------------------------------------------
class TestSettings:
    pytestmark = real

    def test_other_settings_have_the_graph_built_anew_beside_the_old_one(
        self, indexed: Fill
    ) -> None:
        shelf = indexed(300)
        (table,) = segments()
        path = f"/v1/projects/{shelf.name}/index"
        before = shelf.index()
        assert shelf.owner.patch(path, {"m": 24, "ef_construction": 100}).status == 200
        statements: list[str] = []

        def note(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
            text = sql if isinstance(sql, str) else repr(sql)
            statements.append(text)
            return execute(sql, params, many, context)

        with connection.execute_wrapper(note):
            run_jobs()
        assert [each for each in statements if "CREATE INDEX CONCURRENTLY" in each]
        (options,) = facts("SELECT reloptions FROM pg_class WHERE relname = %s", f"{table}_graph")
        assert options == ["m=24", "ef_construction=100"]
        assert invalid_indexes() == []
        index = shelf.index()
        assert index["state"] == "indexed"
        assert index["built_at"] > before["built_at"]
        assert index["settings"] == {
            "m": 24,
            "ef_construction": 100,
            "ef_search": None,
            "target_recall": 0.98,
            "search_language": None,
        }
        assert list(segments().values()) == [300]
        assert_searched_right(shelf, range(300), plans={"hnsw"})

    def test_the_old_graph_answers_while_the_new_one_is_built(
        self, indexed: Fill, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shelf = indexed(300)
        seen = []

        def look() -> None:
            seen.append(shelf.index()["state"])
            assert_searched_right(shelf, range(300), plans={"hnsw"})

        real_rebuild = store.rebuild_graph

        def rebuild(*arguments: Any) -> None:
            look()
            real_rebuild(*arguments)

        monkeypatch.setattr(store, "rebuild_graph", rebuild)
        shelf.owner.patch(f"/v1/projects/{shelf.name}/index", {"ef_construction": 80})
        run_jobs()
        assert seen == ["building"]
        assert shelf.index()["state"] == "indexed"

    def test_nobody_queues_up_behind_a_reader_of_long_standing(self, indexed: Fill) -> None:
        """An export holds its lock for as long as somebody reads it."""
        shelf = indexed(300)
        (table,) = segments()
        path = f"/v1/projects/{shelf.name}/index/rebuild"
        assert shelf.owner.post(path).status == 202
        number = shelf.row.pk
        is_over = threading.Event()
        queued: list[str] = []

        def tend() -> None:
            try:
                indexes.tend(number)
            finally:
                is_over.set()

        def watch() -> None:
            while not is_over.is_set():
                queued.extend(
                    facts(
                        "SELECT mode FROM pg_locks WHERE NOT granted AND relation = %s::regclass",
                        table,
                    )
                )
                time.sleep(0.002)

        def search() -> None:
            while not is_over.is_set():
                assert plan(shelf.search(vectors(64)[0])) == "hnsw"

        limit = "SET LOCAL idle_in_transaction_session_timeout = '1500ms'"
        with elsewhere(f"{limit}; SELECT count(*) FROM {table}"):
            at_once([tend, watch, search])
        assert queued == []
        run_jobs()
        index = shelf.index()
        assert (index["state"], index["last_error"]) == ("indexed", None)
        assert invalid_indexes() == []


def test_candidates_are_measured_unless_they_are_chosen(indexed: Fill) -> None:
    shelf = indexed(600)
    path = f"/v1/projects/{shelf.name}/index"
    measured = shelf.index()["ef_search"]

    changed = shelf.owner.patch(path, {"ef_search": 321})
    assert (changed.status, changed["ef_search"]) == (200, 321)
    assert shelf.search(vectors(64)[0])["explain"]["ef_search"] == 321

    changed = shelf.owner.patch(path, {"ef_search": None})
    assert (changed["ef_search"], changed["settings"]["ef_search"]) == (measured, None)
    assert shelf.search(vectors(64)[0])["explain"]["ef_search"] == measured

    changed = shelf.owner.patch(path, {"target_recall": 0.999})
    assert changed["measured_recall"] is None
    run_jobs()
    index = shelf.index()
    assert index["measured_recall"] >= 0.999 or index["ef_search"] == 1000
    assert index["ef_search"] >= measured


def test_settings_are_checked_and_are_the_owners(cast: Cast, indexed: Fill) -> None:
    shelf = indexed(300)
    path = f"/v1/projects/{shelf.name}/index"
    before = shelf.index()
    for changes in (
        {"m": 1},
        {"m": 101},
        {"m": "16"},
        {"m": 33},
        {"ef_construction": 3},
        {"ef_construction": 31},
        {"ef_search": 9},
        {"ef_search": 1001},
        {"target_recall": 1},
        {"target_recall": "0.9"},
        {"target_recall": True},
    ):
        answer = cast.alice.patch(path, changes)
        assert answer.status == 400, (changes, answer.body)
    for caller in (cast.rita, cast.erin, cast.sam, cast.nobody):
        assert caller.patch(path, {"m": 8}).status in (401, 403, 404)
        assert caller.post(f"{path}/rebuild").status in (401, 403, 404)
    assert cast.rita.get(path).body == before
    assert shelf.index() == before


def test_a_project_without_an_index_has_none_to_rebuild(shelf: Shelf) -> None:
    shelf.upload(range(3))
    answer = shelf.owner.post(f"/v1/projects/{shelf.name}/index/rebuild")
    assert answer.status == 409
    assert "300" in answer["detail"]
    assert job_rows() == []


def test_settings_of_an_exact_project_are_those_it_is_built_with(shelf: Shelf) -> None:
    shelf.upload(range(300))
    path = f"/v1/projects/{shelf.name}/index"
    changed = shelf.owner.patch(path, {"m": 5, "ef_search": 50})
    assert (changed.status, changed["state"], changed["ef_search"]) == (200, "exact", None)
    index = shelf.tended()
    assert (index["state"], index["ef_search"]) == ("indexed", 50)
    (table,) = segments()
    (options,) = facts("SELECT reloptions FROM pg_class WHERE relname = %s", f"{table}_graph")
    assert options == ["m=5", "ef_construction=64"]


# --- Stopping -------------------------------------------------------------------------------------
@pytest.mark.timeout(30)
def test_a_job_ends_when_the_worker_is_to_stop(
    indexed: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = indexed(300)
    shelf.upload(range(300, 400))
    project = shelf.row.pk
    token = jobs._running.set(object())  # type: ignore[arg-type]
    after_step(monkeypatch, "seal", jobs.stopping.set)
    try:
        with pytest.raises(jobs.Interrupted):
            indexes.tend(project)
    finally:
        jobs.stopping.clear()
        jobs._running.reset(token)
    index = shelf.index()
    assert index["rows"] == {"total": 400, "indexed": 325, "growing": 75}
    assert index["last_error"] is None
    assert shelf.tended()["rows"]["growing"] < 50


# --- Vectors of every kind ------------------------------------------------------------------------
@pytest.mark.parametrize("dimensions", [1, 2, 3, 2000, 4000, 4001, 16000])
def test_any_number_of_dimensions_can_be_indexed(
    cast: Cast, settings: Settings, small_indexes: None, dimensions: int
) -> None:
    rows = 300 if dimensions < 10 else 60 if dimensions <= 4000 else 330
    settings.INDEX_THRESHOLD = rows * dimensions
    shelf = Shelf(cast.alice, dimensions=dimensions).make()
    for start in range(0, rows, 30):
        shelf.upload(range(start, min(start + 30, rows)))
    index = shelf.tended()
    assert (index["state"], index["last_error"]) == ("indexed", None)
    assert index["rows"]["indexed"] == rows
    shelf.upload(range(rows, rows + 5))
    assert_searched_right(shelf, range(rows + 5), plans={"hnsw", "exact"})
    for row in (0, rows + 2):
        answer = shelf.like(name(row), limit=5)
        expected = brute_force(vectors(dimensions)[row], {*range(rows + 5)} - {row})
        assert hits(answer)[0][1] == pytest.approx(max(expected[0][1], 0), abs=2e-6)
        stored = shelf.get(row)["vector"]
        assert np.array_equal(np.array(stored, np.float32), vectors(dimensions)[row])


@pytest.mark.parametrize("dimensions", [64, 4001])
@pytest.mark.parametrize("scale", [1e17, 1e-17])
def test_vectors_of_any_length_can_be_indexed(
    cast: Cast, settings: Settings, small_indexes: None, scale: float, dimensions: int
) -> None:
    rows = 330
    settings.INDEX_THRESHOLD = rows * dimensions
    shelf = Shelf(cast.alice, dimensions=dimensions).make()
    scaled = (vectors(dimensions)[:rows] * np.float32(scale)).astype(np.float32)
    items = [shelf.item(row, scaled[row] if row % 2 else None) for row in range(rows)]
    body = orjson.dumps({"embeddings": items})
    assert shelf.owner.post(shelf.embeddings, raw=body).status == 201
    assert shelf.tended()["state"] == "indexed"
    for row in sample(8, rows):
        expected = brute_force(vectors(dimensions)[row], range(rows))[:10]
        for query in (vectors(dimensions)[row], scaled[row]):
            found = shelf.search(query)
            assert plan(found) == "hnsw"
            assert recall(hits(found), expected) >= 0.9
            assert_first(found, row)
            assert_ranked(hits(shelf.search(query, exact="true")), expected)

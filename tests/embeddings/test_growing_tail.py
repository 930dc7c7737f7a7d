"""What is uploaded to an indexed project: found at once, moved into the graph, never seen twice."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from django.db import connection

from embeddings import indexes, store
from tests.answers import assert_refused, nothing_changes
from tests.embeddings.large import (
    Shelf,
    assert_first,
    brute_force,
    execute,
    hits,
    name,
    plan,
    recall,
    segments,
    vectors,
)
from tests.factories import Answer, Caller
from tests.jobs import run_jobs
from tests.races import ROUNDS, THREADS, asking, at_once, statuses

Fill = Callable[[int], Shelf]
real = [
    pytest.mark.django_db(transaction=True, serialized_rollback=True),
    pytest.mark.usefixtures("real_segments"),
    pytest.mark.slow,
]
quick = pytest.mark.django_db


def parts(shelf: Shelf) -> tuple[int, int]:
    """Return how many rows are in the graph, and beside it."""
    rows = shelf.index()["rows"]
    return rows["indexed"], rows["growing"]


# --- One after the other --------------------------------------------------------------------------
@quick
def test_an_id_that_is_sealed_cannot_be_uploaded_again(indexed: Fill) -> None:
    shelf = indexed(300)
    shelf.upload([400])
    for rows in ([7], [301, 7], [7, 301], [400, 301], [400, 7, 8, 301]):
        with nothing_changes():
            answer = shelf.post(rows, text="again")
            assert_refused(answer, 409, says="already exists")
            known = {f"body.embeddings[{n}].text_id" for n, row in enumerate(rows) if row != 301}
            assert {each["location"] for each in answer["errors"]} == known
    assert parts(shelf) == (300, 1)


@quick
def test_put_replaces_in_both_parts(indexed: Fill) -> None:
    shelf = indexed(300)
    shelf.upload([400])
    assert shelf.put(500).status == 201
    for row in (7, 400, 500):
        before = shelf.get(row).body
        answers = [shelf.put(row, vectors(64)[600 + row], text="new", metadata={"n": 1})]
        answers += [shelf.put(row, vectors(64)[600 + row], text="newer", metadata={"n": 2})]
        assert [each.status for each in answers] == [200, 200]
        for answer in (answers[-1], shelf.get(row)):
            assert (answer["text"], answer["metadata"]) == ("newer", {"n": 2})
            assert answer["created_at"] == before["created_at"]
            assert answer["updated_at"] > before["updated_at"]
        assert_first(shelf.search(vectors(64)[600 + row]), row)
        old = shelf.search(vectors(64)[row], limit=200)
        assert hits(old)[0][0] != name(row)
        assert len(dict(hits(old))) == len(hits(old))
    assert parts(shelf) == (299, 3)
    assert len(shelf.everything()) == 302


@quick
def test_delete_deletes_in_both_parts(indexed: Fill) -> None:
    shelf = indexed(300)
    shelf.upload([400])
    shelf.put(8, text="new")
    for row in (7, 8, 400):
        assert shelf.delete(row).status == 200
        assert shelf.get(row).status == 404
        assert shelf.delete(row).status == 404
        assert name(row) not in dict(hits(shelf.search(vectors(64)[row], limit=200)))
        assert shelf.owner.get(f"{shelf.similars}/{name(row)}").status == 404
    assert len(shelf.everything()) == 298
    assert shelf.post([7, 8, 400]).status == 201
    assert parts(shelf) == (298, 3)


@quick
def test_each_upload_is_found_at_once(indexed: Fill) -> None:
    shelf = indexed(300)
    for row in range(300, 345):
        assert (shelf.put if row % 2 else lambda row: shelf.post([row]))(row).status == 201
        answer = shelf.search(vectors(64)[row])
        assert plan(answer) == "hnsw"
        assert_first(answer, row)
        expected = brute_force(vectors(64)[row], range(row + 1))[:10]
        assert recall(hits(answer), expected) >= 0.9
    assert answer["explain"]["growing"] == 45


@quick
def test_what_grew_is_sealed_by_the_job(indexed: Fill) -> None:
    shelf = indexed(300)
    before = shelf.everything()
    shelf.upload(range(300, 349))
    assert shelf.tended()["rows"] == {"total": 349, "indexed": 300, "growing": 49}
    shelf.put(7, text="new")
    before = shelf.everything()
    index = shelf.tended()
    assert index["rows"] == {"total": 349, "indexed": 349, "growing": 0}
    assert shelf.everything() == before
    assert list(segments().values()) == [349]
    for row in (7, 300, 348):
        assert hits(shelf.search(vectors(64)[row]))[0][0] == name(row)
    assert shelf.put(7).status == 200
    assert shelf.delete(348).status == 200
    assert shelf.post([300]).status == 409


@quick
def test_much_growth_builds_a_new_graph(indexed: Fill) -> None:
    shelf = indexed(300)
    (old,) = segments()
    shelf.upload(range(300, 600))
    assert shelf.tended()["rows"] == {"total": 600, "indexed": 600, "growing": 0}
    assert segments()[old] == 0
    assert sorted(segments().values()) == [0, 600]


@quick
def test_imports_skip_and_replace_what_is_sealed(indexed: Fill, tmp_path: Any) -> None:
    from django.core.management import call_command

    shelf = indexed(300)
    shelf.upload([400])
    lines = [
        {**shelf.item(row), "vector": vectors(64)[row].tolist(), "text": "imported"}
        for row in (7, 400, 401)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join(orjson.dumps(line) for line in lines))
    before = shelf.everything()
    call_command("loadembeddings", str(file), "--project", shelf.name, "--json")
    after = shelf.everything()
    assert after.keys() - before.keys() == {name(401)}
    assert {key: after[key] for key in before} == before
    call_command("loadembeddings", str(file), "--project", shelf.name, "--replace", "--json")
    assert [shelf.get(row)["text"] for row in (7, 400, 401)] == ["imported"] * 3
    assert len(shelf.everything()) == 302


# --- At once --------------------------------------------------------------------------------------
@contextmanager
def sealing(shelf: Shelf) -> Iterator[None]:
    """Move rows into the graph, a few at a time, for as long as the block takes."""
    project, is_over = shelf.row.pk, threading.Event()
    errors: list[BaseException] = []

    def seal() -> None:
        try:
            while not is_over.is_set():
                segment = store.look(project).segment
                if segment is None or not store.seal(project, segment, rows=3):
                    time.sleep(0.001)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=seal)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(20)
    assert not errors, errors


@contextmanager
def watching(shelf: Shelf, check: Callable[[Shelf], None], readers: int = 2) -> Iterator[list[int]]:
    """Have readers check something again and again for as long as the block takes."""
    is_over = threading.Event()
    errors: list[BaseException] = []
    looked: list[int] = []

    def read() -> None:
        own = Shelf(Caller(shelf.owner.key, shelf.owner.handle), shelf.handle, shelf.dimensions)
        try:
            while not is_over.is_set() and not errors:
                check(own)
                looked.append(1)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=read) for _ in range(readers)]
    for thread in threads:
        thread.start()
    try:
        yield looked
    finally:
        is_over.set()
        for thread in threads:
            thread.join(30)
    if errors:
        raise errors[0]
    assert looked


def whole(*, total: int) -> Callable[[Shelf], None]:
    """Return a check that a project is seen with all of its rows, each once, in every way."""
    names = [name(row) for row in range(total)]

    def check(shelf: Shelf) -> None:
        listed = shelf.owner.get(f"{shelf.embeddings}?limit=200")
        assert listed["total_count"] == total
        assert [row["text_id"] for row in listed["embeddings"]] == names[:200]
        last = shelf.owner.get(f"{shelf.embeddings}?limit=200&offset={total - 50}")
        assert [row["text_id"] for row in last["embeddings"]] == names[-50:]
        for row in (0, total - 1):
            assert shelf.get(row).status == 200
            found = [text_id for text_id, _ in hits(shelf.search(vectors(64)[row], limit=200))]
            assert found[0] == name(row)
            assert len(set(found)) == len(found)
            assert len(found) == 200
            filtered = shelf.search(vectors(64)[row], {"filter": {"row": row}})
            assert [text_id for text_id, _ in hits(filtered)] == [name(row)]
        number = shelf.row.pk
        exported = [row.text_id for part in store.snapshot(number, size=100) for row in part]
        assert exported == names

    return check


class TestAtOnce:
    pytestmark = real

    def test_readers_see_each_row_once_while_it_is_indexed_and_sealed(self, shelf: Shelf) -> None:
        total = 420
        shelf.upload(range(total))
        project = shelf.row.pk
        with watching(shelf, whole(total=total)) as looked:
            for _ in range(2):
                indexes.tend(project)
                assert shelf.index()["state"] == "indexed"
                # Some rows into the growing part again.
                for row in range(0, total, 7):
                    assert shelf.put(row).status == 200
                assert parts(shelf)[1] >= 60
                indexes.tend(project)
                indexes.rebuild(shelf.row)
                indexes.tend(project)
                with connection.cursor() as cursor:
                    cursor.execute(
                        "UPDATE embeddings_searchindex SET building_segment ="
                        " nextval('embeddings_segment_number')"
                    )
                # A new segment takes the old one's place.
                indexes.tend(project)
            count = len(looked)
        assert count >= 3
        assert parts(shelf)[0] == total

    def test_of_many_uploads_of_one_id_exactly_one_wins_while_rows_move(
        self, indexed: Fill
    ) -> None:
        shelf = indexed(300)
        for turn in range(2 * ROUNDS):
            row = 1000 + turn
            bodies = [
                {"embeddings": [shelf.item(row, text=str(n)), shelf.item(2000 + 20 * turn + n)]}
                for n in range(THREADS)
            ]
            with sealing(shelf):
                answers = at_once(
                    [asking(shelf.owner, "POST", shelf.embeddings, body) for body in bodies]
                )
                time.sleep(0.02)
                late = at_once(
                    [asking(shelf.owner, "POST", shelf.embeddings, body) for body in bodies]
                )
            assert statuses(answers) == {201: 1, 409: THREADS - 1}
            assert statuses(late) == {409: THREADS}
            (winner,) = [n for n, answer in enumerate(answers) if answer.status == 201]
            assert shelf.get(row)["text"] == str(winner)
            assert len(shelf.everything()) == 300 + 2 * (turn + 1)

    def test_puts_and_deletes_of_one_id_while_it_moves(self, indexed: Fill) -> None:
        shelf = indexed(300)
        path = f"{shelf.embeddings}/{name(7)}"
        for turn in range(2 * ROUNDS):

            def put(n: int) -> Callable[[], Answer]:
                body = shelf.item(7, vectors(64)[500 + n], text=str(n), metadata={"n": n})
                return asking(shelf.owner, "PUT", path, body)

            with sealing(shelf):
                answers = at_once([put(n) for n in range(THREADS)])
                assert statuses(answers) == {200: THREADS}
                for answer in [*answers, shelf.get(7)]:
                    n = answer["metadata"]["n"]
                    assert answer["text"] == str(n)
                mixed = [
                    put(n) if n % 2 else asking(shelf.owner, "DELETE", path) for n in range(12)
                ]
                answers = at_once(mixed)
                found = statuses(answers)
                assert found.keys() <= {200, 201, 404}
                # As many come as go, and one is left or not.
                created = sum(answer.status == 201 for answer in answers)
                deleted = sum(
                    answer.status == 200 for n, answer in enumerate(answers) if n % 2 == 0
                )
                left = shelf.get(7).status == 200
                assert 1 + created - deleted == left, (turn, found)
                rows = shelf.everything()
                assert (name(7) in rows) is left
                assert len(rows) == 299 + left
                shelf.put(7)
        indexes.tend(shelf.row.pk)
        assert len(shelf.everything()) == 300

    def test_deletes_of_many_rows_while_they_move(self, indexed: Fill) -> None:
        shelf = indexed(300)
        for turn in range(ROUNDS):
            first = 1000 + 100 * turn
            shelf.upload(range(first, first + THREADS * 3))
            with sealing(shelf):
                answers = at_once(
                    [
                        asking(shelf.owner, "DELETE", f"{shelf.embeddings}/{name(first + n)}")
                        for n in range(THREADS * 3)
                    ]
                )
            assert statuses(answers) == {200: THREADS * 3}
        assert len(shelf.everything()) == 300

    def test_updates_by_filter_reach_every_row_while_rows_move(self, indexed: Fill) -> None:
        shelf = indexed(300)
        update = f"{shelf.embeddings}/update"
        total = 300
        for turn in range(ROUNDS):
            shelf.upload(range(1000 + 100 * turn, 1060 + 100 * turn))
            total += 60
            bodies = [
                {"filter": {"row": {"gte": 0}}, "metadata": {"turn": turn, "by": n, "too": n}}
                for n in range(THREADS // 2)
            ]
            with sealing(shelf):
                answers = at_once([asking(shelf.owner, "POST", update, body) for body in bodies])
            assert statuses(answers) == {200: len(bodies)}
            assert {answer["updated_count"] for answer in answers} == {total}
            rows = [shelf.get(row)["metadata"] for row in (0, 7, 299, 1000, 1059 + 100 * turn)]
            for metadata in rows:
                assert metadata["turn"] == turn
                assert metadata["by"] == metadata["too"]
            changed = [row["metadata"]["turn"] for row in shelf.everything().values()]
            assert changed == [turn] * total

    def test_what_is_deleted_by_filter_stays_away_while_rows_move(self, indexed: Fill) -> None:
        shelf = indexed(300)
        delete = f"{shelf.embeddings}/delete"
        left = set(range(300))
        for turn in range(ROUNDS):
            first = 1000 + 100 * turn
            shelf.upload(range(first, first + 60))
            left |= set(range(first, first + 60))
            # Of both parts; several ask for each.
            gone = [row for row in sorted(left) if row % 3 == turn]
            lots = [gone[n::4] for n in range(4)]
            bodies = [{"filter": {"row": {"in": lot}}} for lot in lots for _ in range(3)]
            with sealing(shelf):
                answers = at_once([asking(shelf.owner, "POST", delete, body) for body in bodies])
            assert statuses(answers) == {200: len(bodies)}
            assert sum(answer["deleted_count"] for answer in answers) == len(gone)
            left -= set(gone)
            assert set(shelf.everything()) == {name(row) for row in left}
        indexes.tend(shelf.row.pk)
        assert set(shelf.everything()) == {name(row) for row in left}
        found = hits(shelf.search(vectors(64)[0], limit=200))
        assert {text_id for text_id, _ in found} <= {name(row) for row in left}

    def test_delete_all_against_uploads_and_a_build(self, shelf: Shelf) -> None:
        for turn in range(ROUNDS):
            shelf.upload(range(320))
            project = shelf.row.pk

            def tend(project: int = project) -> int:
                try:
                    indexes.tend(project)
                except indexes.Busy:
                    return 1
                return 0

            def upload(n: int, turn: int = turn) -> Callable[[], Answer]:
                items = [shelf.item(1000 + 100 * turn + 3 * n + each) for each in range(3)]
                return asking(shelf.owner, "POST", shelf.embeddings, {"embeddings": items})

            def late(ask: Callable[[], Answer], after_s: float) -> Callable[[], Answer]:
                def run() -> Answer:
                    time.sleep(after_s)
                    return ask()

                return run

            work: list[Callable[[], Any]] = [tend]
            work += [late(upload(n), 0.03 * n) for n in range(10)]
            work += [late(asking(shelf.owner, "DELETE", shelf.embeddings), 0.1 * (turn + 1))]
            answers = at_once(work)[1:]
            assert statuses(answers) == {201: 10, 200: 1}
            rows = shelf.everything()
            assert len(rows) % 3 == 0
            assert len(rows) <= 30
            # What was acknowledged after the deletion is there.
            shelf.upload([5000])
            assert hits(shelf.search(vectors(64)[5000]))[0][0] == name(5000)
            indexes.tend(project)
            index = shelf.index()
            assert (index["state"], index["last_error"], index["progress"]) == ("exact", None, None)
            assert len(shelf.everything()) == len(rows) + 1
            assert set(segments().values()) <= {0}
            shelf.owner.delete(shelf.embeddings)

    def test_of_two_who_tend_one_is_told_to_come_again(self, shelf: Shelf) -> None:
        shelf.upload(range(320))
        project = shelf.row.pk

        def tend() -> str:
            try:
                indexes.tend(project)
            except indexes.Busy:
                return "busy"
            return "done"

        found = Counter(at_once([tend] * 4))
        assert found["done"] >= 1
        assert found["busy"] >= 1
        assert shelf.index()["state"] == "indexed"
        assert list(segments().values()) == [320]
        assert len(shelf.everything()) == 320

    def test_uploads_and_changes_during_builds_are_kept(self, shelf: Shelf) -> None:
        shelf.upload(range(320))
        project = shelf.row.pk
        is_over = threading.Event()
        kept: dict[str, str] = {name(row): "" for row in range(320)}
        lock = threading.Lock()

        def write(number: int) -> list[int]:
            own = Shelf(Caller(shelf.owner.key, shelf.owner.handle), shelf.handle, 64)
            seen, turn = [], 0
            while not is_over.is_set() and turn < 40:
                new = 1000 + 100 * number + turn
                changed = 100 * number + turn % 50
                gone = 100 * number + 50 + turn
                text = f"version {turn}"
                first = own.post([new], text=text)
                second = own.put(changed, text=text)
                third = own.delete(gone) if turn < 30 else own.get(new)
                seen += [first.status, second.status, third.status]
                with lock:
                    kept[name(new)] = kept[name(changed)] = text
                    if turn < 30:
                        del kept[name(gone)]
                turn += 1
            return seen

        def build() -> list[int]:
            try:
                indexes.tend(project)
                for _ in range(2):
                    execute(
                        "UPDATE embeddings_searchindex SET building_segment ="
                        " nextval('embeddings_segment_number')"
                    )
                    indexes.tend(project)
            finally:
                is_over.set()
            return []

        jobs: list[Callable[[], list[int]]] = [build]
        jobs += [lambda number=number: write(number) for number in range(3)]  # type: ignore[misc]
        results = at_once(jobs)
        assert {status for each in results[1:] for status in each} <= {200, 201}
        rows = shelf.everything()
        assert rows.keys() == kept.keys()
        assert {each: row["text"] for each, row in rows.items() if kept[each]} == {
            each: text for each, text in kept.items() if text
        }
        indexes.tend(project)
        run_jobs()
        assert shelf.everything().keys() == kept.keys()
        assert shelf.index()["last_error"] is None

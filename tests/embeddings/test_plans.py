"""What PostgreSQL does for each statement of the store, and how it keeps the rows."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from django.db import IntegrityError, connection, transaction
from psycopg.sql import Composable

from common.errors import NotFound
from embeddings import services, store, words
from embeddings.batches import Batch
from embeddings.filters import Comparison, Negation, Operator, Path
from embeddings.models import Embedding
from embeddings.store import Exclusion, Wanted
from projects.models import Project
from tests.factories import Cast, item, make_instance, make_project, vectors

PROJECTS, ROWS, DIMENSIONS = 200, 50, 16
BTREE = "embeddings_embedding_growing_project_id_text_id_segment_key"
STATE = "embeddings_searchindex"
IDS = [f"t{number:03}" for number in range(ROWS)]
QUERY = vectors(1, DIMENSIONS, seed=1)[0]
AUTHOR = Exclusion(("source", "author"), "Ann")
ANN = Comparison(Path(("source", "author"), "source.author"), Operator.EQUAL, "Ann")
OTHERS = Negation(ANN)


@pytest.fixture
def crowd(cast: Cast) -> Project:
    """Fill 200 small projects with 50 rows each and analyse the table; return one of them."""
    make_instance("alice", "small", dimensions=DIMENSIONS)
    first = make_project("alice", "crowd-000", instance="small")
    others = [
        Project(owner=first.owner, handle=f"crowd-{number:03}", instance=first.instance)
        for number in range(1, PROJECTS)
    ]
    Project.objects.bulk_create(others)
    for number, project in enumerate([first, *others]):
        store.insert(
            project.pk,
            first.instance_id,
            text_ids=IDS,
            vectors=vectors(ROWS, DIMENSIONS, seed=number),
            texts=["some words"] * ROWS,
            metadata=[b'{"source": {"author": "Ann"}}'] * ROWS,
        )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE embeddings_embedding")
    return others[77]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for each in plan.get("Plans", []):
        yield from nodes(each)


def explained(call: Callable[[], object]) -> list[list[dict[str, Any]]]:
    """Run the call; return the nodes of the plan of each statement that touches embeddings."""
    plans = []

    def explain(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        text = sql.as_string() if isinstance(sql, Composable) else sql
        text = text.decode() if isinstance(text, bytes) else text
        # Looking where a project's rows are names the tables only.
        if "embeddings_embedding" in text and "to_regclass" not in text:
            cursor = context["cursor"].cursor
            cursor.execute("EXPLAIN (FORMAT JSON) " + text, params)
            (plan,) = cursor.fetchone()
            plan = json.loads(plan) if isinstance(plan, str) else plan
            plans.append(list(nodes(plan[0]["Plan"])))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        call()
    assert plans
    return plans


def wanted(**changes: Any) -> Wanted:
    return Wanted(**{"limit": 10, "offset": 0, "threshold": 0.5, **changes})


def by_words(project: int) -> object:
    analysed = store.analyse(project, words.read("some -other"))
    store.resembling(project, analysed, wanted(filter=ANN), limit=10)
    found = store.matching(project, analysed, wanted(filter=ANN), least_share=0.3, limit=10)
    ids = [each.text_id for each in found]
    return store.details(project, ids, analysed, vector=QUERY, excerpts=True)


SHAPES: dict[str, Callable[[int], object]] = {
    "count": store.count,
    "page": lambda project: store.page(project, limit=10, offset=0),
    "deep page": lambda project: store.page(project, limit=10, offset=40),
    "after": lambda project: store.after(project, "t010", limit=10),
    "get": lambda project: store.get(project, ["t010"]),
    "get, two spellings": lambda project: store.get(project, ["a/b", "a%2Fb"]),
    "existing": lambda project: store.existing(project, IDS[:20]),
    "nearest": lambda project: store.nearest(project, QUERY, wanted()),
    "nearest, many": lambda project: store.nearest(project, QUERY, wanted(limit=200, offset=20)),
    "nearest, exclusion": lambda project: store.nearest(project, QUERY, wanted(exclusion=AUTHOR)),
    "nearest to stored": lambda project: store.nearest_to_stored(project, ["t010"], wanted()),
    "nearest to stored, exclusion": lambda project: store.nearest_to_stored(
        project, ["a/b", "t010"], wanted(exclusion=AUTHOR, limit=200)
    ),
    "count, filter": lambda project: store.count(project, ANN),
    "page, filter": lambda project: store.page(project, limit=10, offset=9, condition=ANN),
    "after, filter": lambda project: store.after(project, "t010", limit=10, condition=OTHERS),
    "nearest, filter": lambda project: store.nearest(project, QUERY, wanted(filter=ANN)),
    "by words": by_words,
    "facets": lambda project: store.facets(project, ANN.path, OTHERS, limit=5),
    "change metadata": lambda project: store.change_metadata(
        project, text_ids=["t010", "t020"], metadata=[b"{}", b"{}"]
    ),
    "remove matching": lambda project: store.remove_matching(project, OTHERS),
    "remove": lambda project: store.remove(project, ["a/b", "t010"]),
    "remove all": store.remove_all,
    "other dimensions": lambda project: store.of_other_dimensions(project, DIMENSIONS),
    "metadata after": lambda project: store.metadata_after(project, "", limit=1000),
}


@pytest.mark.slow
def test_every_statement_finds_a_small_project_through_the_btree(crowd: Project) -> None:
    for name, call in SHAPES.items():
        for plan in explained(lambda call=call: call(crowd.pk)):  # type: ignore[misc]
            shown = f"{name}: {[(node['Node Type'], node.get('Index Name')) for node in plan]}"
            # One row tells which version of the project's state the statement saw.
            plan = [node for node in plan if node.get("Relation Name") != STATE]
            scans = [node for node in plan if "Scan" in node["Node Type"]]
            tables = {node["Relation Name"] for node in scans if "Relation Name" in node}
            assert tables == {"embeddings_embedding_growing"}, shown
            kinds = {node["Node Type"] for node in scans if "Relation Name" in node}
            assert kinds <= {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}, shown
            indexes = {node["Index Name"] for node in plan if "Index Name" in node}
            assert indexes == {BTREE}, shown
            for node in plan:
                assert "Gather" not in node["Node Type"], shown
                if "Index Name" in node:
                    assert "project_id" in node["Index Cond"], shown


@pytest.mark.slow
def test_counts_of_a_list_of_projects_do_not_look_through_everybodys_rows(crowd: Project) -> None:
    # The statement of the function that counts, which plans of the list do not show.
    counted = "SELECT count(*) FROM embeddings_embedding_growing WHERE project_id = %s"
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {counted}", [crowd.pk])
        plan = str(cursor.fetchall())
    assert "Seq Scan" not in plan
    assert "Index" in plan


def facts(statement: str, *parameters: int) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows = cursor.fetchall()
    return [row[0] if len(row) == 1 else tuple(row) for row in rows]


def test_the_table_is_partitioned_and_segment_0_takes_every_upload(cast: Cast) -> None:
    assert facts(
        "SELECT partstrat FROM pg_partitioned_table JOIN pg_class ON oid = partrelid"
        " WHERE relname = 'embeddings_embedding'"
    ) == ["l"]
    bounds = facts(
        "SELECT relname, pg_get_expr(relpartbound, pg_class.oid) FROM pg_class"
        " JOIN pg_inherits ON inhrelid = pg_class.oid"
        " WHERE inhparent = 'embeddings_embedding'::regclass"
    )
    assert bounds == [("embeddings_embedding_growing", "FOR VALUES IN (0)")]
    path = "/v1/embeddings/alice/letters"
    assert cast.alice.post(path, {"embeddings": [item("a", [1, 2, 3])]}).status == 201
    assert cast.alice.put(f"{path}/b", item("b", [1, 2, 3])).status == 201
    found = facts("SELECT tableoid::regclass::text, segment FROM embeddings_embedding")
    assert found == [("embeddings_embedding_growing", 0)] * 2
    # No part for everything else: attaching a new one beside it would scan it under a lock.
    with pytest.raises(IntegrityError), transaction.atomic():
        Embedding.objects.update(segment=1)


def test_vectors_stay_in_line_while_a_page_holds_them(cast: Cast) -> None:
    assert facts(
        "SELECT reloptions FROM pg_class WHERE relname = 'embeddings_embedding_growing'"
    ) == [["toast_tuple_target=8160"]]
    # e: EXTERNAL, so never compressed; floats do not shrink, and reading would cost time.
    assert facts(
        "SELECT attstorage FROM pg_attribute WHERE attname = 'vector'"
        " AND attrelid = 'embeddings_embedding_growing'::regclass"
    ) == ["e"]
    for dimensions, is_in_line in [(384, True), (1536, True), (1900, True), (4096, False)]:
        make_instance("alice", f"d{dimensions}", dimensions=dimensions)
        project = make_project("alice", f"d{dimensions}", instance=f"d{dimensions}")
        store.insert(
            project.pk,
            project.instance_id,
            text_ids=["a"],
            vectors=vectors(1, dimensions),
            texts=["some words"],
            metadata=[b"{}"],
        )
        (chunk,) = facts(
            "SELECT pg_column_toast_chunk_id(vector) FROM embeddings_embedding_growing"
            " WHERE project_id = %s",
            project.pk,
        )
        assert (chunk is None) is is_in_line, dimensions


def test_nothing_is_unlogged_and_every_unique_key_holds_the_project(cast: Cast) -> None:
    assert facts("SELECT relname::text FROM pg_class WHERE relpersistence = 'u'") == []
    keys = facts(
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index"
        " WHERE indrelid = 'embeddings_embedding_growing'::regclass AND indisunique"
    )
    assert len(keys) == 2
    assert all("project_id" in key for key in keys)


def test_an_id_is_unique_in_its_project_for_the_database_too(cast: Cast) -> None:
    def insert(project: Project) -> None:
        store.insert(
            project.pk,
            project.instance_id,
            text_ids=["b", "a"],
            vectors=np.eye(2, 3, dtype=np.float32),
            texts=["", ""],
            metadata=[b"{}", b"{}"],
        )

    insert(cast.project)
    insert(make_project("alice", "diaries"))
    with pytest.raises(store.TextIdExists) as raised:
        insert(cast.project)
    assert raised.value.text_ids == ("a", "b")
    row = Embedding.objects.filter(project=cast.project, text_id="a").values().get()
    with pytest.raises(IntegrityError), transaction.atomic():
        Embedding.objects.create(**{**row, "id": None, "segment": 0} | {"id": cast.project.uuid})


def test_the_database_itself_lets_no_embedding_outlive_its_project(cast: Cast) -> None:
    body = {"embeddings": [item("a", [1, 2, 3])]}
    other = make_project("alice", "diaries")
    for path in ("letters", "diaries"):
        assert cast.alice.post(f"/v1/embeddings/alice/{path}", body).status == 201
    # No foreign key: a table that has one cannot join the others without locking projects.
    assert (
        facts(
            "SELECT conname FROM pg_constraint WHERE contype = 'f'"
            " AND conrelid = 'embeddings_embedding_growing'::regclass"
        )
        == []
    )
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM projects_projectshare")
        cursor.execute("DELETE FROM projects_project WHERE id = %s", [cast.project.pk])
    assert set(Embedding.objects.values_list("project_id", flat=True)) == {other.pk}


def test_an_upload_to_a_project_that_is_gone_stores_nothing(cast: Cast) -> None:
    # Somebody who read the project before it was deleted goes on with the upload.
    gone = Project.objects.select_related("owner", "instance__owner").get(pk=cast.project.pk)
    assert cast.alice.delete("/v1/projects/alice/letters").status == 200
    batch = Batch(vectors(1, 3), ["a"], [""], [None], [b"{}"])
    with pytest.raises(NotFound):
        services.store_batch(gone, batch)
    assert not Embedding.objects.exists()


def test_the_orm_sees_what_the_store_wrote(cast: Cast) -> None:
    body = {"embeddings": [item("a", [1, 2, 3], text="words", metadata={"n": 1})]}
    assert cast.alice.post("/v1/embeddings/alice/letters", body).status == 201
    row = Embedding.objects.get()
    assert (row.project_id, row.instance_id) == (cast.project.pk, cast.project.instance_id)
    assert (row.text_id, row.text, row.metadata, row.segment) == ("a", "words", {"n": 1}, 0)
    assert np.array_equal(row.vector, np.array([1, 2, 3], dtype=np.float32))
    assert row.id.version == 7

"""Generated filters keep what plain Python says they keep, in both parts of a project.

ARMARIUM_FILTERS says how many filters are generated (1000 unless it is set).
"""

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pytest_django import DjangoDbBlocker

from embeddings import filters, indexes, store
from embeddings.store._conditions import conditions_of
from tests.embeddings.filters.reference import keeps
from tests.factories import make_instance, make_project, make_user

FILTERS = int(os.environ.get("ARMARIUM_FILTERS", "1000"))
AT_ONCE = 20
DOCUMENTS, SEALED = 150, 120

KEYS = ["a", "b", "c", "a.b", "and", "$in", "0", 'q"\\', "ünï", "{0} %s %(x)s"]
NUMBERS = [0, 1, -1, 1.0, 2, 0.1, -2.5, 1e22, 2**63 - 1, -(2**63), 1e-7, 1791]
TEXTS = ["", "a", "b", "ab", "abc", "A", "1", "true", "null", "ä", "日本", "a.b", "a|b", ".*"]
TEXTS += ['"', "\\", "\\d", "%", "'; --", "\n", "{0}", "😀", "[a]"]
TEXTS += ["1791", "1791-01-02", "1791-01-10"]
SCALARS = [None, True, False, *NUMBERS, *TEXTS]


def documents() -> list[dict[str, Any]]:
    """Return documents of few keys and values, so that filters meet them; nested, with lists."""
    chance = random.Random(1791)

    def value(depth: int) -> Any:
        kind = chance.random()
        if depth < 4 and kind < 0.2:
            return [value(depth + 1) for _ in range(chance.randrange(4))]
        if depth < 4 and kind < 0.4:
            return some(depth + 1)
        return chance.choice(SCALARS)

    def some(depth: int) -> dict[str, Any]:
        return {key: value(depth) for key in chance.sample(KEYS, chance.randrange(5))}

    return [some(1) for _ in range(DOCUMENTS)]


DATA = [json.loads(orjson.dumps(each)) for each in documents()]


def escaped(key: str) -> str:
    return key.replace("\\", "\\\\").replace(".", "\\.")


def path(keys: list[str], is_escaped: bool) -> str:
    text = ".".join(map(escaped, keys)) if is_escaped else ".".join(keys)
    return f"\\{text}" if text in ("and", "or", "not") or text.startswith("$") else text


paths = st.builds(path, st.lists(st.sampled_from(KEYS), min_size=1, max_size=3), st.booleans())
scalars = st.sampled_from(SCALARS)
numbers, texts = st.sampled_from(NUMBERS), st.sampled_from(TEXTS)
ordered = numbers | texts


def operator(name: str, operands: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, Any]]:
    return st.tuples(st.sampled_from([name, f"${name}"]), operands)


contained = st.sampled_from([each for each in SCALARS if each not in (None, "")])
operators = st.one_of(
    *(operator(name, scalars) for name in ("eq", "ne")),
    *(operator(name, ordered) for name in ("gt", "gte", "lt", "lte")),
    *(operator(name, st.lists(scalars, max_size=4)) for name in ("in", "nin")),
    operator("contains", contained | st.lists(contained, min_size=1, max_size=3)),
    operator("exists", st.booleans()),
    operator("prefix", texts),
    operator("between", st.lists(numbers, min_size=2, max_size=2)),
    operator("between", st.lists(texts, min_size=2, max_size=2)),
)
compared = st.lists(operators, min_size=1, max_size=2).map(dict)
compared |= compared.map(lambda each: {"not": each})
simple = st.dictionaries(paths, scalars | compared, min_size=1, max_size=2)


def combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        *(st.fixed_dictionaries({name: several}) for name in ("and", "$or", "or", "$and")),
        *(st.fixed_dictionaries({name: inner}) for name in ("not", "$not")),
    )


conditions = st.recursive(simple, combined, max_leaves=4)


@pytest.fixture(scope="module")
def tables(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[list[str]]:
    """Store the documents, most of them in a sealed segment; return where they are."""
    from django.conf import settings as configured

    before = configured.INDEX_THRESHOLD
    with django_db_blocker.unblock(), transaction.atomic():
        owner = make_user("logician")
        make_instance(owner.handle, "small", dimensions=3)
        project = make_project(owner.handle, "documents", instance="small")

        def insert(rows: range) -> None:
            store.insert(
                project.pk,
                project.instance_id,
                text_ids=[str(row) for row in rows],
                vectors=np.random.default_rng(1).random((len(rows), 3), dtype=np.float32),
                texts=[""] * len(rows),
                metadata=[orjson.dumps(DATA[row]) for row in rows],
            )

        insert(range(SEALED))
        try:
            configured.INDEX_THRESHOLD = SEALED * 3
            indexes.tend(project.pk)
        finally:
            configured.INDEX_THRESHOLD = before
        insert(range(SEALED, DOCUMENTS))
        segment = store.look(project.pk).segment
        assert segment is not None
        yield ["embeddings_embedding_growing", f"embeddings_embedding_{segment}"]
        transaction.set_rollback(True)


def kept(asked: list[Any], tables: list[str]) -> list[set[int]]:
    """Return which documents the database keeps, by many filters in one statement."""
    found: list[set[int]] = [set() for _ in asked]
    parts, parameters = [], {}
    for number, each in enumerate(asked):
        condition = conditions_of(filters.parse(each, "filter"))
        text = condition.text.replace("%(filter)s", f"%(filter_{number})s")
        parameters[f"filter_{number}"] = condition.parameters["filter"]
        parts += [
            f"SELECT {number}, text_id FROM {table} AS embedding WHERE true {text}"
            for table in tables
        ]
    with connection.cursor() as cursor:
        # Where the index can be used, it is.
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(" UNION ALL ".join(parts), parameters)
        for number, text_id in cursor.fetchall():
            found[number].add(int(text_id))
    return found


def test_generated_filters_keep_what_python_keeps(tables: list[str], db: None) -> None:
    seen: Counter[str] = Counter()

    @given(st.lists(conditions, min_size=AT_ONCE, max_size=AT_ONCE))
    @settings(
        max_examples=max(1, FILTERS // AT_ONCE),
        deadline=None,
        database=None,
        # A filter is small enough to be read as it is.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def compare(asked: list[Any]) -> None:
        for each, found in zip(asked, kept(asked, tables), strict=True):
            expected = {row for row, document in enumerate(DATA) if keeps(each, document)}
            assert found == expected, json.dumps(each)
            seen["filters"] += 1
            seen["selective"] += 0 < len(expected) < DOCUMENTS

    compare()
    assert seen["filters"] >= FILTERS
    # Filters that keep all or nothing say little.
    assert seen["selective"] > 0.25 * seen["filters"]

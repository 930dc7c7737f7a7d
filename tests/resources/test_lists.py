"""Lists of the Projects API: pages, order, projects, metadata; and what they cost."""

from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import connection

from resources.models import Agent, EndUser, File
from tests.answers import assert_error, nothing_changes, queries_of
from tests.factories import Caller, Cast

KINDS = ["projects", "agents", "users", "files"]
MODELS: dict[str, Any] = {"agents": Agent, "users": EndUser, "files": File}
every = pytest.mark.parametrize("kind", KINDS)


def fill(caller: Caller, kind: str, number: int, **body: Any) -> list[str]:
    """Make some of a kind; return their ids, the oldest first."""
    made = []
    for n in range(number):
        new = {"name": f"n{n}", **({"content": "SGVsbG8h"} if kind == "files" else {}), **body}
        answer = caller.post(f"/{kind}", new)
        assert answer.status == 201, answer.body
        made.append(str(answer["id"]))
    return made


def ids(caller: Caller, kind: str, query: str = "") -> list[str]:
    """Return the ids in a list, without the default project."""
    body = caller.get(f"/{kind}?{query}").body
    entries = body if kind == "files" else body["items"]
    return [each["id"] for each in entries if each.get("canonical_name") != "default"]


def copy_row(row: Any, number: int) -> None:
    """Store copies of an agent, an end user or a file, of other ids and canonical names."""
    model = type(row)
    values = {field.attname: getattr(row, field.attname) for field in model._meta.concrete_fields}
    copies = []
    for n in range(number):
        values |= {"id": None, "uuid": model.default_of("uuid")}
        if model is Agent:
            values["canonical_name"] = f"copy_{n}"
        copies.append(model(**values))
    model.objects.bulk_create(copies)


# --- Pages and order ------------------------------------------------------------------------------
@every
def test_the_newest_come_first_unless_asked_otherwise(cast: Cast, kind: str) -> None:
    made = fill(cast.sam, kind, 5)
    assert ids(cast.sam, kind) == made[::-1]
    assert ids(cast.sam, kind, "direction=asc") == made
    assert cast.sam.patch(f"/{kind}/{made[0]}", {"name": "changed"}).status == 200
    assert ids(cast.sam, kind, "sort_by=updated_at") == [made[0], *made[:0:-1]]
    assert ids(cast.sam, kind, "sort_by=updated_at&direction=asc") == [*made[1:], made[0]]
    assert ids(cast.sam, kind, "sort_by=created_at&direction=desc") == made[::-1]


@every
def test_pages_neither_overlap_nor_leave_out_where_times_are_equal(cast: Cast, kind: str) -> None:
    made = fill(cast.sam, kind, 7)
    with connection.cursor() as cursor:
        tables = ("projects_project", "resources_agent", "resources_enduser", "resources_file")
        for table in tables:
            cursor.execute(f"UPDATE {table} SET created_at = now(), updated_at = now()")
    for direction, expected in (("asc", sorted(made)), ("desc", sorted(made)[::-1])):
        pages = [
            ids(cast.sam, kind, f"limit=3&offset={offset}&direction={direction}")
            for offset in (0, 3, 6)
        ]
        assert [each for page in pages for each in page] == expected


@every
def test_past_the_end_a_list_is_empty(cast: Cast, kind: str) -> None:
    fill(cast.sam, kind, 2)
    for offset in (5, 10**9, 2**63 - 1):
        assert ids(cast.sam, kind, f"offset={offset}&limit=999") == []


@every
@pytest.mark.parametrize(
    ("query", "loc"),
    [
        ("limit=0", "limit"),
        ("limit=1000", "limit"),
        ("limit=-1", "limit"),
        ("limit=abc", "limit"),
        ("limit=", "limit"),
        ("limit=1.5", "limit"),
        ("limit=%D9%A3", "limit"),
        ("limit=5&limit=6", "limit"),
        ("offset=-1", "offset"),
        (f"offset={2**63}", "offset"),
        (f"offset={'9' * 50}", "offset"),
        ("sort_by=name", "sort_by"),
        ("sort_by=owner__password", "sort_by"),
        ("direction=up", "direction"),
        ("direction=DESC", "direction"),
        ("nothing=1", "nothing"),
        ("owner=alice", "owner"),
        ("metadata__contains=1", "metadata__contains"),
        ("metadatafilter.a=1", "metadatafilter.a"),
    ],
)
def test_a_bad_parameter_is_named(cast: Cast, kind: str, query: str, loc: str) -> None:
    with nothing_changes():
        answer = cast.sam.get(f"/{kind}?{query}")
        assert_error(answer, 422, "validation_error", loc=f"query.{loc}")


@every
def test_the_largest_limit_is_999(cast: Cast, kind: str) -> None:
    assert cast.sam.get(f"/{kind}?limit=999").status == 200


# --- Of a project ---------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["agents", "users", "files"])
def test_a_list_is_narrowed_to_a_project(cast: Cast, kind: str) -> None:
    inside = fill(cast.alice, kind, 2, project="letters")
    outside = fill(cast.alice, kind, 2)
    for name in ("letters", "LETTERS"):
        assert ids(cast.alice, kind, f"project={name}") == inside[::-1]
    assert ids(cast.alice, kind, "project=default") == outside[::-1]
    assert ids(cast.alice, kind, "project=letters&limit=1&offset=1") == inside[:1]
    for name in ("nothing", "", "%27", "x" * 3_000, "letters%0A"):
        answer = cast.alice.get(f"/{kind}?project={name}")
        if name == "":
            assert_error(answer, 422, "validation_error", loc="query.project")
        else:
            assert answer.body == ([] if kind == "files" else {"items": []})
    assert_error(cast.alice.get(f"/{kind}?project=%00"), 422, "validation_error")


def test_projects_are_not_narrowed_by_project(cast: Cast) -> None:
    answer = cast.alice.get("/projects?project=letters")
    assert_error(answer, 422, "validation_error", loc="query.project")


# --- By metadata ----------------------------------------------------------------------------------
METADATA: dict[str, dict[str, Any]] = {
    "nested": {"team": {"lead": "ann", "size": 3}, "on": True, "tags": ["a", "b", 1]},
    "flat": {"team.lead": "ann", "n": "1", "on": "true"},
    "numbers": {"n": 1, "price": 1.5, "big": 2**62, "nothing": None},
    "odd": {"": "empty", "a'b\"c\\d{}%s": "'; --", "deep": {"a": {"b.c": "x"}}},
    "apart": {"x": {"y": ["a"]}, "x.y": ["b", "c"]},
    "bare": {},
}
FOUND: list[tuple[list[tuple[str, str]], set[str]]] = [
    ([], set(METADATA)),
    ([("metadata_filter.team.lead", "ann")], {"nested", "flat"}),
    ([("metadata_filter.team.size", "3")], {"nested"}),
    ([("metadata_filter.team.lead", "ann"), ("metadata_filter.team.size", "3")], {"nested"}),
    ([("metadata_filter.team", "ann")], set()),
    ([("metadata_filter.n", "1")], {"flat", "numbers"}),
    ([("metadata_filter.n", "1.0")], {"numbers"}),
    ([("metadata_filter.n", "01")], set()),
    ([("metadata_filter.price", "1.5")], {"numbers"}),
    ([("metadata_filter.price", "15e-1")], {"numbers"}),
    ([("metadata_filter.big", str(2**62))], {"numbers"}),
    ([("metadata_filter.big", "9" * 3_000)], set()),
    ([("metadata_filter.n", "1e400")], set()),
    ([("metadata_filter.n", "NaN")], set()),
    ([("metadata_filter.on", "true")], {"nested", "flat"}),
    ([("metadata_filter.on", "True")], set()),
    ([("metadata_filter.nothing", "null")], {"numbers"}),
    ([("metadata_filter.tags", "a"), ("metadata_filter.tags", "b")], {"nested"}),
    ([("metadata_filter.tags", "1"), ("metadata_filter.tags", "a")], {"nested"}),
    ([("metadata_filter.tags", "a"), ("metadata_filter.tags", "c")], set()),
    ([("metadata_filter.tags", "a")], set()),
    ([("metadata_filter.team.lead", "ann"), ("metadata_filter.team.lead", "ann")], set()),
    ([("metadata_filter.x.y", "b"), ("metadata_filter.x.y", "c")], {"apart"}),
    ([("metadata_filter.x.y", "a"), ("metadata_filter.x.y", "b")], set()),
    ([("metadata_filter.", "empty")], {"odd"}),
    ([("metadata_filter.a'b\"c\\d{}%s", "'; --")], {"odd"}),
    ([("metadata_filter.deep.a.b.c", "x")], set()),
    ([("metadata_filter." + ".".join("a" * 5_000), "x")], set()),
    ([("metadata_filter.team__lead", "ann")], set()),
    ([("metadata_filter", '{"team": {"lead": "ann"}}')], {"nested"}),
    ([("metadata_filter", '{"n": 1}')], {"numbers"}),
    ([("metadata_filter", '{"tags": ["b"]}')], {"nested"}),
    ([("metadata_filter", "{}")], set(METADATA)),
    ([("metadata_filter", '{"n": 1}'), ("metadata_filter.price", "1.5")], {"numbers"}),
]


@pytest.fixture
def described(cast: Cast) -> Cast:
    """Give Sam one of each kind for each metadata."""
    for kind in ("projects", "agents", "users"):
        for name, metadata in METADATA.items():
            fill(cast.sam, kind, 1, name=name, metadata=metadata)
            fill(cast.rita, kind, 1, name=name, metadata=metadata)
    return cast


@pytest.mark.parametrize("kind", ["projects", "agents", "users"])
def test_metadata_narrows_a_list_as_the_contract_says(described: Cast, kind: str) -> None:
    for parameters, expected in FOUND:
        items = described.sam.get(f"/{kind}?{urlencode(parameters)}")["items"]
        found = {each["name"] for each in items if each["name"] != "Default Project"}
        assert found == expected, parameters
        assert len(items) - ("Default Project" in {each["name"] for each in items}) == len(found)


@pytest.mark.parametrize(
    "query",
    [
        *("metadata_filter=5", "metadata_filter=[]", "metadata_filter=team", "metadata_filter="),
        *("metadata_filter=%7B%7D&metadata_filter=%7B%7D", "metadata_filter=%7B%22a%22:NaN%7D"),
        "metadata_filter=%7B%22a%22:1e400%7D",
        "metadata_filter=" + "%5B" * 3_000,
        "metadata_filter=%7B%22a%22:%22%5Cu0000%22%7D",
        "metadata_filter=%7B%22a%22:1,%22a%22:2%7D",
        "metadata_filter.a=%00",
        "metadata_filter.%00=a",
        "&".join(f"metadata_filter.k{n}=1" for n in range(101)),
        "&".join("metadata_filter.k=1" for _ in range(101)),
    ],
)
def test_a_filter_that_means_nothing_is_422(cast: Cast, query: str) -> None:
    for kind in ("projects", "agents", "users"):
        assert_error(cast.sam.get(f"/{kind}?{query}"), 422, "validation_error")


def test_files_have_no_metadata_to_filter_by(cast: Cast) -> None:
    for query in ("metadata_filter.a=1", "metadata_filter=%7B%7D"):
        assert_error(cast.sam.get(f"/files?{query}"), 422, "validation_error")


def test_a_query_string_that_is_not_utf8_is_422(cast: Cast) -> None:
    for query in ("metadata_filter.a=%FF", "metadata_filter.%FF=a", "project=%ED%A0%80"):
        assert_error(cast.sam.get(f"/agents?{query}"), 422, "validation_error", loc="query")


def test_floods_of_parameters_get_a_short_answer(cast: Cast) -> None:
    many = "&".join(f"metadata_filter.k{number}=1" for number in range(2_000))
    assert_error(cast.sam.get(f"/agents?{many}"), 400, "invalid_request")


# --- What it costs --------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["agents", "users", "files"])
@pytest.mark.parametrize("query", ["", "&project=letters", "&direction=asc&sort_by=updated_at"])
def test_a_list_costs_the_same_for_2_and_for_200(cast: Cast, kind: str, query: str) -> None:
    fill(cast.alice, kind, 2, project="letters")
    path = f"/{kind}?limit=999{query}"
    few = queries_of(lambda: cast.alice.get(path))
    model = MODELS[kind]
    copy_row(model.objects.first(), 198)
    assert len(ids(cast.alice, kind, f"limit=999{query}")) == 200
    assert queries_of(lambda: cast.alice.get(path)) == few == 2


@pytest.mark.parametrize("kind", ["agents", "users"])
@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("", "by_creation"),
        ("sort_by=updated_at&direction=asc", "by_change"),
        ("project=letters", "of_project"),
        ("metadata_filter.team.lead=ann", "metadata"),
    ],
)
def test_a_page_is_read_off_an_index(cast: Cast, kind: str, query: str, index: str) -> None:
    """Among thousands of the same owner, in another project and with other metadata."""
    fill(cast.alice, kind, 1, about="x" * 1_000)
    model = MODELS[kind]
    copy_row(model.objects.get(), 3_000)
    fill(cast.alice, kind, 1, project="letters", metadata={"team": {"lead": "ann"}})
    captured: list[str] = []

    def keep(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if f'FROM "{model._meta.db_table}"' in sql:
            captured.append(context["cursor"].mogrify(sql, params))
        return execute(sql, params, many, context)

    with connection.cursor() as cursor:
        # Rows that wait to be sorted into it make the index dear; a server sorts them in by itself.
        cursor.execute("SELECT gin_clean_pending_list(%s)", [f"{model._meta.model_name}_metadata"])
        cursor.execute(f"ANALYZE {model._meta.db_table}, projects_project")
        with connection.execute_wrapper(keep):
            assert cast.alice.get(f"/{kind}?{query}")["items"]
        (asked,) = captured
        cursor.execute(f"EXPLAIN {asked}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert f"{model._meta.model_name}_{index}" in plan, plan

"""The administrators' check of stored data against what its project demands today."""

from typing import Any

import pytest
from django.db import connection

from tests.factories import Cast, item, make_instance, make_project

CHECK = "/v1/admin/sanity-check"
LETTERS = "/v1/embeddings/alice/letters"
SCHEMA = {"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"]}


def report(cast: Cast) -> dict[str, Any]:
    answer = cast.ada.get(CHECK)
    assert answer.status == 200
    assert answer["issues_count"] == len(answer["issues"])
    assert answer["warnings_count"] == len(answer["warnings"])
    assert answer["total_projects"] == 6  # five default projects and Alice's letters
    return {name: answer[name] for name in ("status", "issues", "warnings")}


def fill(cast: Cast, *items: dict[str, Any]) -> None:
    assert cast.alice.post(LETTERS, {"embeddings": list(items)}).status == 201


def set_schema(cast: Cast, schema: Any) -> None:
    assert cast.alice.patch("/v1/projects/alice/letters", {"metadataScheme": schema}).status == 200


@pytest.mark.parametrize(
    ("role", "status"),
    [("owner", 403), ("editor", 403), ("reader", 403), ("stranger", 403), ("anonymous", 401)],
)
def test_only_administrators_may_check(cast: Cast, role: str, status: int) -> None:
    fill(cast, item("secret-id", [1, 2, 3]))
    answer = cast.with_role(role).get(CHECK)
    assert (answer.status, answer["status"]) == (status, status)
    assert b"secret-id" not in answer.content
    assert b"letters" not in answer.content


def test_empty_projects_pass(cast: Cast) -> None:
    assert report(cast) == {"status": "PASSED", "issues": [], "warnings": []}


def test_embeddings_without_a_schema_are_a_warning(cast: Cast) -> None:
    fill(cast, item("a", [1, 2, 3]), item("b", [1, 2, 3]))
    assert report(cast) == {
        "status": "WARNING",
        "issues": [],
        "warnings": [
            "Project alice/letters has 2 embeddings but no metadata schema defined",
        ],
    }


def test_metadata_that_fits_the_schema_passes(cast: Cast) -> None:
    set_schema(cast, SCHEMA)
    fill(cast, item("a", [1, 2, 3], metadata={"year": 1791}))
    assert report(cast) == {"status": "PASSED", "issues": [], "warnings": []}


def test_metadata_against_a_later_schema_is_an_issue(cast: Cast) -> None:
    fill(
        cast,
        item("a", [1, 2, 3], metadata={"year": "1791"}),
        item("b", [1, 2, 3]),
        item("c", [1, 2, 3], metadata={"year": 1791}),
    )
    set_schema(cast, SCHEMA)
    assert report(cast) == {
        "status": "FAILED",
        "issues": [
            "Project alice/letters: metadata validation failed for text_id 'a': metadata "
            "validation failed:\n  - year: Invalid type. Expected: integer, given: string",
            "Project alice/letters: metadata validation failed for text_id 'b': metadata "
            "validation failed:\n  - year: year is required",
        ],
        "warnings": [],
    }


def test_a_wrong_dimension_is_an_issue(cast: Cast) -> None:
    # No request can bring this about, but a restore or a hand in the database can.
    fill(cast, item("a", [1, 2, 3]), item("b", [1, 2, 3]))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE embeddings_embedding SET vector = '[1,2]' WHERE text_id = 'b'")
    assert report(cast) == {
        "status": "FAILED",
        "issues": [
            "Project alice/letters: embedding 'b' has 2 dimensions, its LLM service expects 3"
        ],
        "warnings": ["Project alice/letters has 2 embeddings but no metadata schema defined"],
    }
    # Such a row is no result, and asking for what is like it breaks nothing.
    found = cast.alice.post("/v1/similars/alice/letters", {"vector": [1, 2, 3]})
    assert [hit["id"] for hit in found["results"]] == ["a"]
    assert cast.alice.get("/v1/similars/alice/letters/b")["results"] == []
    assert cast.alice.get("/v1/similars/alice/letters/a")["results"] == []


def test_every_project_of_everybody_is_checked_in_order(cast: Cast) -> None:
    make_instance("sam", "model")
    make_project("sam", "notes")
    note = item("n", [1, 2, 3])
    assert cast.sam.post("/v1/embeddings/sam/notes", {"embeddings": [note]}).status == 201
    fill(cast, item("a", [1, 2, 3]))
    answer = cast.ada.get(CHECK)
    assert answer["total_projects"] == 7
    assert [each.split(" has ")[0] for each in answer["warnings"]] == [
        "Project alice/letters",
        "Project sam/notes",
    ]


def test_more_rows_than_a_page_are_all_checked(cast: Cast) -> None:
    fill(cast, *(item(f"t{n:04}", [1, 2, 3], metadata={"year": None}) for n in range(2_005)))
    set_schema(cast, SCHEMA)
    assert len(report(cast)["issues"]) == 2_005


def test_checking_changes_nothing(cast: Cast) -> None:
    fill(cast, item("a", [1, 2, 3], metadata={"year": "1791"}))
    set_schema(cast, SCHEMA)
    before = cast.alice.get(LETTERS).body, cast.alice.get("/v1/projects/alice/letters").body
    report(cast)
    after = cast.alice.get(LETTERS).body, cast.alice.get("/v1/projects/alice/letters").body
    assert after == before

"""Searching several projects together."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from projects.models import Project
from tests.answers import assert_refused, nothing_changes
from tests.embeddings.large import Shelf, brute_force, name, vectors
from tests.factories import Answer, Caller, Cast, item, make_instance, make_project, make_user

SIMILARS = "/v1/similars"
V = {"vector": [1, 0, 0]}

pytestmark = pytest.mark.django_db


def fill(caller: Caller, project: str, **vectors: list[float]) -> None:
    items = [
        item(text_id, numbers, text=f"{text_id} of {project}", metadata={"in": project})
        for text_id, numbers in vectors.items()
    ]
    answer = caller.post(f"/v1/embeddings/{project}", {"embeddings": items})
    assert answer.status == 201, answer.body


@pytest.fixture
def shared(cast: Cast) -> Cast:
    """Give Alice diaries, too, and Sam letters of the same model; Rita reads Alice's."""
    make_project("alice", "diaries", readers=["rita"])
    make_instance("sam", "model")
    make_project("sam", "letters")
    fill(cast.alice, "alice/letters", a=[1, 0, 0], b=[1, 1, 0], same=[1, 0.5, 0])
    fill(cast.alice, "alice/diaries", c=[1, 0.2, 0], d=[0, 1, 0], same=[1, 0.5, 0])
    fill(cast.sam, "sam/letters", a=[1, 0.1, 0])
    return cast


def found(answer: Answer) -> list[tuple[str, str]]:
    assert answer.status == 200, answer.body
    return [(each["project"], each["id"]) for each in answer["results"]]


def test_results_are_merged_by_similarity_and_name_their_projects(shared: Cast) -> None:
    body: dict[str, Any] = {**V, "projects": ["alice/letters", "alice/diaries"]}
    answer = shared.rita.post(SIMILARS, body)
    assert found(answer) == [
        ("alice/letters", "a"),
        ("alice/diaries", "c"),
        ("alice/diaries", "same"),
        ("alice/letters", "same"),
        ("alice/letters", "b"),
    ]
    similarities = [each["similarity"] for each in answer["results"]]
    assert similarities == sorted(similarities, reverse=True)
    assert set(answer["results"][0]) == {"project", "id", "similarity"}
    # The order of the projects makes no difference, and pages fit together.
    turned = {**body, "projects": body["projects"][::-1]}
    assert found(shared.rita.post(SIMILARS, turned)) == found(answer)
    pages = [
        each
        for offset in (0, 2, 4)
        for each in found(shared.rita.post(SIMILARS, {**body, "count": 2, "offset": offset}))
    ]
    assert pages == found(answer)


def test_options_are_those_of_a_search_in_one(shared: Cast) -> None:
    body = {**V, "projects": ["alice/letters", "alice/diaries"]}
    diaries = {**body, "filter": {"in": "alice/diaries"}, "threshold": 0, "exact": True}
    assert [each for each, _ in found(shared.rita.post(SIMILARS, diaries))] == ["alice/diaries"] * 3
    near = shared.rita.post(SIMILARS, {**body, "threshold": 0.95})
    assert found(near) == [("alice/letters", "a"), ("alice/diaries", "c")]
    left = {**body, "exclude_values": {"in": "alice/diaries"}}
    assert {each for each, _ in found(shared.rita.post(SIMILARS, left))} == {"alice/letters"}
    context = {"path": "n"}
    full = {**body, "count": 3, "fields": ["text", "metadata.in"], "context": context}
    for each in shared.rita.post(SIMILARS, full)["results"]:
        assert each["text"] == f"{each['id']} of {each['project']}"
        assert each["metadata"] == {"in": each["project"]}
        assert each["context"] == {"before": [], "after": []}


def test_rankings_are_those_of_all_the_texts_together(
    shelf: Shelf, indexed: Callable[[int], Shelf]
) -> None:
    indexed(300)
    other = Shelf(shelf.owner, handle="other")
    make_project("alice", "other", instance="dim64")
    other.upload(range(300, 340))
    query = vectors(64)[12]
    body = {"projects": [shelf.name, other.name], "vector": query.astype(float).tolist()}
    answer = shelf.owner.post(SIMILARS, {**body, "count": 200, "threshold": 0})
    expected = brute_force(query, range(340))[:200]
    assert sorted(each["id"] for each in answer["results"]) == sorted(each for each, _ in expected)
    assert all(
        (each["project"] == shelf.name) == (each["id"] < name(300)) for each in answer["results"]
    )


def test_projects_of_several_owners_with_one_model(shared: Cast) -> None:
    Project.objects.update(public_read=True)
    body = {**V, "projects": ["alice/letters", "sam/letters"]}
    for caller in (shared.nobody, shared.rita, shared.ada):
        assert found(caller.post(SIMILARS, body))[:2] == [
            ("alice/letters", "a"),
            ("sam/letters", "a"),
        ]


def test_all_projects_must_be_readable(shared: Cast) -> None:
    both = {**V, "projects": ["alice/letters", "sam/letters"]}
    answer = shared.rita.post(SIMILARS, both)
    assert_refused(answer, 403, says="'sam/letters'")
    assert "results" not in answer.body
    assert_refused(shared.sam.post(SIMILARS, both), 403, says="'alice/letters'")
    missing = {**V, "projects": ["alice/letters", "alice/Letters"]}
    assert_refused(shared.rita.post(SIMILARS, missing), 404, says="'alice/Letters'")
    assert_refused(shared.nobody.post(SIMILARS, both), 401)
    wrong = Caller("arm_wrong")
    assert_refused(wrong.post(SIMILARS, both), 401)


def test_vectors_of_different_models_are_not_compared(shared: Cast) -> None:
    make_instance("alice", "twin", endpoint="https://other.example.org/v1/embeddings")
    make_project("alice", "twins", instance="twin", readers=["rita"])
    make_instance("alice", "wide", dimensions=4)
    make_project("alice", "wides", instance="wide", readers=["rita"])
    names = ["alice/letters", "alice/twins", "alice/diaries", "alice/wides"]
    answer = shared.rita.post(SIMILARS, {**V, "projects": names})
    assert_conflict(answer)
    assert "'alice/twins' (as many dimensions, but another model)" in answer["detail"]
    assert "'alice/wides' (4 dimensions instead of 3)" in answer["detail"]
    assert answer["details"] == {"other_models": ["alice/twins", "alice/wides"]}
    # Readers of a project do not learn where its model is.
    assert "example.org" not in answer.content.decode()


def assert_conflict(answer: Answer) -> None:
    assert answer.status == 409
    assert answer["type"] == "urn:armarium:problem:conflict"


ONE = {"projects": ["alice/letters"]}
BAD: list[tuple[Any, str]] = [
    (V, "body.projects"),
    ({**V, "projects": []}, "body.projects"),
    ({**V, "projects": "alice/letters"}, "body.projects"),
    ({**V, "projects": [f"alice/p{n}" for n in range(51)]}, "body.projects"),
    ({**V, "projects": ["alice"]}, "body.projects[0]"),
    ({**V, "projects": ["alice/letters", "alice/letters/a"]}, "body.projects[1]"),
    ({**V, "projects": ["alice/letters", 5]}, "body.projects[1]"),
    ({**V, "projects": ["alice/letters", "alice/letters"]}, "body.projects[1]"),
    (ONE, "body.vector"),
    ({**ONE, "vector": [1, 0]}, "body.vector"),
    ({**ONE, **V, "count": 201}, "body.count"),
    ({**ONE, **V, "offset": 999}, "body.offset"),
    ({**ONE, **V, "group_by": "author"}, "body.group_by"),
    ({**ONE, "positive": ["a"]}, "body.positive"),
    ({**ONE, **V, "filters": {}}, "body.filters"),
    ({**ONE, **V, "fields": ["project"]}, "body.fields[0]"),
]


def test_malformed_searches_are_refused_and_named(cast: Cast) -> None:
    with nothing_changes():
        for body, place in BAD:
            assert_refused(cast.rita.post(SIMILARS, body), 400, location=place)
    answer = cast.rita.post(f"{SIMILARS}?count=5", {**ONE, **V})
    assert_refused(answer, 400, location="query.count")


def test_statements_grow_with_the_projects_only(shared: Cast) -> None:
    def statements(names: list[str], **options: Any) -> int:
        with CaptureQueriesContext(connection) as captured:
            answer = shared.rita.post(SIMILARS, {**V, "projects": names, **options})
        assert answer.status == 200
        return len(captured)

    one, two = ["alice/letters"], ["alice/letters", "alice/diaries"]
    # Where rows are is remembered, and the key's use noted.
    statements(two)
    # The key, the projects, and a ranking of each.
    assert statements(one) == 3
    assert statements(two) == 4
    # And what their results carry.
    assert statements(two, fields=["text"]) == 6


def test_revoked_and_unshared_is_refused_at_once(shared: Cast) -> None:
    body = {**V, "projects": ["alice/letters", "alice/diaries"]}
    assert shared.rita.post(SIMILARS, body).status == 200
    gone = "/v1/projects/alice/diaries/share/rita"
    assert shared.alice.delete(gone).status == 200
    assert_refused(shared.rita.post(SIMILARS, body), 403, says="'alice/diaries'")
    newcomer = make_user("newcomer")
    assert_refused(newcomer.post(SIMILARS, body), 403)

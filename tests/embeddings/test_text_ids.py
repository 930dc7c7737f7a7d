"""Ids of texts: any string of 1 to 300 characters goes through every address unharmed."""

from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from tests.factories import Caller, Cast, item, make_project

PROJECT = "/v1/embeddings/alice/letters"
SIMILARS = "/v1/similars/alice/letters"

IDS = [
    pytest.param(each, id=ascii(each)[1:40])
    for each in [
        "a/b",
        "a%2Fb",
        "https://id.example.org/texts/W0011:1.3?x=1#y",
        "über/日本 ",
        "..",
        ".",
        "../../users/alice",
        "a//b/",
        "/leading/and/trailing/",
        "//",
        "line\nbreak\r\n",
        "\n",
        "tab\tand\x7fcontrol\x01",
        "🦊👩‍👩‍👧",
        "'single' \"double\" `back`",
        "back\\slash",
        "'; DROP TABLE embeddings_embedding; --",
        "<script>alert(1)</script>&amp;",
        "{curly} [square] $1 %s %(id)s :name",
        "%",
        "%%41",
        "100%25",
        "?",
        "#",
        "a+b c",
        ";a=1",
        " ",
        "share",
        "e\u0301 and \u00e9",
        "\u202eright to left",
        "x" * 300,
        "語" * 300,
        "🦊" * 300,
    ]
]


def address(text_id: str, below: str = PROJECT) -> str:
    return f"{below}/{quote(text_id, safe='')}"


def upload(caller: Caller, *items: dict[str, Any], project: str = PROJECT) -> None:
    answer = caller.post(project, {"embeddings": list(items)})
    assert answer.status == 201, answer.body
    assert answer["uploaded"] == [each["text_id"] for each in items]


@pytest.mark.parametrize("text_id", IDS)
def test_an_id_goes_through_every_address_unharmed(cast: Cast, text_id: str) -> None:
    alice, neighbour = cast.alice, "neighbour"
    upload(alice, item(text_id, [1, 0, 0], text="first"), item(neighbour, [1, 1, 0]))

    found = alice.get(address(text_id))
    assert (found.status, found["text_id"], found["text"]) == (200, text_id, "first")

    similar = alice.get(address(text_id, SIMILARS))
    assert (similar.status, [hit["id"] for hit in similar["results"]]) == (200, [neighbour])
    similar = alice.get(address(neighbour, SIMILARS))
    assert [hit["id"] for hit in similar["results"]] == [text_id]
    similar = alice.post(SIMILARS, {"vector": [1, 0, 0]})
    assert [hit["id"] for hit in similar["results"]] == [text_id, neighbour]

    listed = alice.get(PROJECT)
    assert [row["text_id"] for row in listed["embeddings"]] == sorted([text_id, neighbour])

    put = alice.put(address(text_id), item(text_id, [0, 1, 0], text="second"))
    assert (put.status, put["text_id"], put["text"]) == (200, text_id, "second")
    again = alice.post(PROJECT, {"embeddings": [item(text_id, [1, 0, 0])]})
    assert again.status == 409
    assert f"text_id '{text_id}' already exists" in again["detail"]

    deleted = alice.delete(address(text_id))
    assert (deleted.status, deleted["message"]) == (200, f"Embedding '{text_id}' deleted.")
    assert alice.get(address(text_id)).status == 404
    assert alice.get(address(text_id, SIMILARS)).status == 404
    assert alice.delete(address(text_id)).status == 404
    assert [row["text_id"] for row in alice.get(PROJECT)["embeddings"]] == [neighbour]

    # Without an id in the body, the address says it.
    third = item("", [0, 0, 1], text="third")
    del third["text_id"]
    created = alice.put(address(text_id), third)
    assert (created.status, created["text_id"]) == (201, text_id)
    assert alice.get(address(text_id))["text"] == "third"


def test_a_slash_and_an_encoded_slash_are_two_ids(cast: Cast) -> None:
    upload(cast.alice, item("a/b", [1, 0, 0], text="slash"))
    upload(cast.alice, item("a%2Fb", [0, 1, 0], text="encoded"))
    assert cast.alice.get(f"{PROJECT}/a%2Fb")["text"] == "slash"
    assert cast.alice.get(f"{PROJECT}/a%252Fb")["text"] == "encoded"
    assert cast.alice.delete(f"{PROJECT}/a%252Fb").status == 200
    assert cast.alice.get(f"{PROJECT}/a%2Fb")["text"] == "slash"
    assert cast.alice.get(f"{PROJECT}/a%252Fb").status == 404


def test_slashes_of_an_id_may_stand_in_the_address_as_they_are(cast: Cast) -> None:
    upload(cast.alice, item("a/b//c/", [1, 0, 0]), item("d", [1, 0, 0]))
    assert cast.alice.get(f"{PROJECT}/a/b//c/")["text_id"] == "a/b//c/"
    assert cast.alice.get(f"{SIMILARS}/a/b//c/")["results"] == [{"id": "d", "similarity": 1.0}]
    assert cast.alice.delete(f"{PROJECT}/a/b//c/").status == 200


LEGACY = ["a/b", "https://id.example.org/texts/W0011:1.3?x=1#y", "über/日本 ", "a b+c", "50%"]


@pytest.mark.parametrize("text_id", LEGACY)
def test_an_id_that_an_older_client_stored_encoded_is_found_by_its_plain_form(
    cast: Cast, text_id: str
) -> None:
    encoded = quote_plus(text_id)
    upload(cast.alice, item(encoded, [1, 0, 0], text="old"), item("other", [1, 0, 0]))
    found = cast.alice.get(address(text_id))
    assert (found.status, found["text_id"], found["text"]) == (200, encoded, "old")
    similar = cast.alice.get(address(text_id, SIMILARS))
    assert similar["results"] == [{"id": "other", "similarity": 1.0}]
    assert cast.alice.delete(address(text_id)).status == 200
    assert [row["text_id"] for row in cast.alice.get(PROJECT)["embeddings"]] == ["other"]


@pytest.mark.parametrize("text_id", LEGACY)
def test_the_exact_id_comes_before_the_encoded_one(cast: Cast, text_id: str) -> None:
    upload(cast.alice, item(quote_plus(text_id), [1, 0, 0], text="old"))
    upload(cast.alice, item(text_id, [0, 1, 0], text="new"), item("other", [0, 1, 0]))
    assert cast.alice.get(address(text_id))["text"] == "new"
    similar = cast.alice.get(address(text_id, SIMILARS))
    assert similar["results"] == [{"id": "other", "similarity": 1.0}]
    assert cast.alice.delete(address(text_id)).status == 200
    # The retry is for look-ups of ids that are not stored; the older row is the one left.
    assert cast.alice.get(address(text_id))["text"] == "old"


def test_put_creates_the_exact_id_beside_an_encoded_one(cast: Cast) -> None:
    upload(cast.alice, item("a%2Fb", [1, 0, 0], text="old"))
    assert cast.alice.put(address("a/b"), item("a/b", [1, 0, 0], text="new")).status == 201
    assert [row["text"] for row in cast.alice.get(PROJECT)["embeddings"]] == ["old", "new"]


def test_an_encoded_id_has_no_second_retry(cast: Cast) -> None:
    upload(cast.alice, item("a%252Fb", [1, 0, 0]))
    assert cast.alice.get(address("a/b")).status == 404
    assert cast.alice.get(address("a%2Fb"))["text_id"] == "a%252Fb"


def test_the_same_id_in_two_projects_is_two_embeddings(cast: Cast) -> None:
    make_project("alice", "diaries")
    other = "/v1/embeddings/alice/diaries"
    upload(cast.alice, item("t", [1, 0, 0], text="letter"))
    upload(cast.alice, item("t", [0, 1, 0], text="diary"), project=other)
    assert cast.alice.get(f"{PROJECT}/t")["text"] == "letter"
    assert cast.alice.get(f"{other}/t")["text"] == "diary"
    assert cast.alice.delete(f"{PROJECT}/t").status == 200
    assert cast.alice.get(f"{other}/t")["text"] == "diary"
    assert cast.alice.get("/v1/similars/alice/diaries/t")["results"] == []


def test_ids_are_listed_by_code_point_whatever_the_language(cast: Cast) -> None:
    ids = [
        "a",
        "B",
        "b",
        "A",
        "é",
        "z",
        "10",
        "9",
        "ß",
        "日",
        "🦊",
        " ",
        "_",
        "a/b",
        "a b",
        "\uffee",
    ]
    upload(cast.alice, *(item(each, [1, 0, 0]) for each in ids))
    pages = [cast.rita.get(f"{PROJECT}?limit=5&offset={offset}") for offset in (0, 5, 10, 15)]
    listed = [row["text_id"] for page in pages for row in page["embeddings"]]
    assert listed == sorted(ids)


def test_ids_are_compared_character_by_character(cast: Cast) -> None:
    upload(cast.alice, item("\u00e9", [1, 0, 0]), item("e\u0301", [0, 1, 0]), item("A", [0, 0, 1]))
    assert cast.alice.get(address("e\u0301"))["vector"] == [0, 1, 0]
    assert cast.alice.get(address("a")).status == 404
    assert cast.alice.get(address("A ")).status == 404


@pytest.mark.parametrize("ending", ["%00", "a%00b", "%FF", "%ED%A0%80", "a/%C0%AF"])
def test_what_cannot_be_an_id_is_not_found(cast: Cast, ending: str) -> None:
    for method, below in [("GET", PROJECT), ("DELETE", PROJECT), ("GET", SIMILARS)]:
        answer = cast.alice.ask(method, f"{below}/{ending}")
        assert (answer.status, answer["status"], answer["title"]) == (404, 404, "Not Found")


def test_the_address_without_an_id_but_with_a_slash_does_not_exist(cast: Cast) -> None:
    for path in (f"{PROJECT}/", f"{SIMILARS}/"):
        answer = cast.alice.get(path)
        assert (answer.status, answer["title"]) == (404, "Not Found")


def test_an_id_longer_than_any_stored_one_is_not_found(cast: Cast) -> None:
    answer = cast.alice.get(f"{PROJECT}/{'x' * 5_000}")
    assert answer.status == 404
    assert len(answer.content) < 1_000

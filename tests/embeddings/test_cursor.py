"""Cursors: a list goes on where it ended, whatever came or went meanwhile."""

import base64
import random
from urllib.parse import quote, urlsplit

import pytest

from tests.answers import assert_refused, nothing_changes
from tests.embeddings.bulk import ARROW, NDJSON, PARQUET, PROJECT
from tests.factories import Answer, Caller, Cast, item, make_instance, make_project

AWKWARD = [
    "a",
    "a b",
    "a/b",
    "A",
    "Z",
    "~",
    "%",
    "%2F",
    "ü",
    "日本",
    "🦊",
    "\n",
    " ",
    "x" * 300,
    "'",
]


def ids_of(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    return [row["text_id"] for row in answer["embeddings"]]


def upload(caller: Caller, *ids: str) -> None:
    body = {"embeddings": [item(each, [1, 2, 3]) for each in ids]}
    assert caller.post(PROJECT, body).status == 201


@pytest.mark.parametrize("limit", [1, 4, 7, 200])
def test_cursors_lead_through_the_whole_list(cast: Cast, limit: int) -> None:
    upload(cast.erin, *AWKWARD)
    whole = ids_of(cast.rita.get(f"{PROJECT}?limit=200"))
    assert sorted(whole) == sorted(AWKWARD)
    answer = cast.rita.get(f"{PROJECT}?limit={limit}")
    seen = ids_of(answer)
    while answer["has_more"]:
        answer = cast.rita.get(f"{PROJECT}?limit={limit}&cursor={answer['next_cursor']}")
        assert ids_of(answer)
        # Nobody counts after a cursor.
        expected = {"embeddings", "limit", "has_more"}
        assert set(answer.body) - {"next_cursor"} == expected
        assert ("next_cursor" in answer.body) == answer["has_more"]
        seen += ids_of(answer)
    assert seen == whole


def test_a_page_at_an_offset_has_a_cursor_too(cast: Cast) -> None:
    upload(cast.erin, *"abcdef")
    page = cast.rita.get(f"{PROJECT}?limit=2&offset=2")
    assert (ids_of(page), page["total_count"], page["offset"]) == (["c", "d"], 6, 2)
    assert ids_of(cast.rita.get(f"{PROJECT}?cursor={page['next_cursor']}")) == ["e", "f"]
    assert "next_cursor" not in cast.rita.get(f"{PROJECT}?limit=2&offset=4").body


def test_what_exists_throughout_is_seen_exactly_once(cast: Cast) -> None:
    chance = random.Random(3)
    staying = [f"s{number:03}" for number in range(60)]
    upload(cast.erin, *staying, *(f"g{number:03}" for number in range(40)))
    going = [f"g{number:03}" for number in range(40)]
    answer = cast.rita.get(f"{PROJECT}?limit=7")
    seen = ids_of(answer)
    made = 0
    while answer["has_more"]:
        last = seen[-1]
        for gone in chance.sample(going, min(3, len(going))):
            going.remove(gone)
            assert cast.erin.delete(f"{PROJECT}/{gone}").status == 200
        # Before, at, and after where the list stands; the last one itself may go.
        upload(cast.erin, f"{last}-{made}", f"a{made}", f"s{chance.randrange(60):03}-{made}")
        made += 1
        answer = cast.rita.get(f"{PROJECT}?limit=7&cursor={answer['next_cursor']}")
        seen += ids_of(answer)
    assert len(seen) == len(set(seen))
    assert [each for each in seen if each in set(staying)] == staying
    assert seen == sorted(seen)


def test_the_row_of_a_cursor_may_be_gone(cast: Cast) -> None:
    upload(cast.erin, *"abcd")
    cursor = cast.rita.get(f"{PROJECT}?limit=2")["next_cursor"]
    for gone in "ab":
        assert cast.erin.delete(f"{PROJECT}/{gone}").status == 200
    assert ids_of(cast.rita.get(f"{PROJECT}?cursor={cursor}")) == ["c", "d"]
    assert cast.erin.delete(PROJECT).status == 200
    empty = cast.rita.get(f"{PROJECT}?cursor={cursor}")
    assert empty.body == {"embeddings": [], "limit": 10, "has_more": False}


def made(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


MALFORMED = {
    "empty": "",
    "no base64": "a*b",
    "a space": "YWI ",
    "not ASCII": "ü",
    "padded": "YWI=",
    "one letter": "Y",
    "another kind": made(b"zab"),
    "no key": made(b"a"),
    "not UTF-8": made(b"a\xff\xfe"),
    "U+0000": made(b"ab\0c"),
    "trailing bits": made(b"ab")[:-1] + "J",
    "an id": "letter-1",
    "very long": "Y" * 2_001,
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_cursor_is_400(cast: Cast, case: str) -> None:
    upload(cast.erin, *"abc")
    with nothing_changes():
        for accept in ("application/json", NDJSON, ARROW):
            answer = cast.rita.get(
                f"{PROJECT}?cursor={quote(MALFORMED[case])}", headers={"Accept": accept}
            )
            assert_refused(answer, 400, location="query.cursor")


def test_cursor_and_offset_exclude_each_other(cast: Cast) -> None:
    upload(cast.erin, *"abc")
    cursor = cast.rita.get(f"{PROJECT}?limit=1")["next_cursor"]
    for query in (f"cursor={cursor}&offset=1", f"cursor={cursor}&offset=0"):
        assert_refused(cast.rita.get(f"{PROJECT}?{query}"), 400, location="query.cursor")
    twice = cast.rita.get(f"{PROJECT}?cursor={cursor}&cursor={cursor}")
    assert_refused(twice, 400, location="query.cursor")
    # Other lists have none.
    assert_refused(cast.alice.get(f"/v1/projects/alice?cursor={cursor}"), 400)


def test_a_cursor_of_another_project_shows_nothing_of_it(cast: Cast) -> None:
    make_instance("sam", "model")
    make_project("sam", "letters")
    upload(cast.erin, *"abc")
    cursor = cast.rita.get(f"{PROJECT}?limit=1")["next_cursor"]
    answer = cast.sam.get(f"/v1/embeddings/sam/letters?cursor={cursor}")
    assert answer.body == {"embeddings": [], "limit": 10, "has_more": False}
    assert_refused(cast.sam.get(f"{PROJECT}?cursor={cursor}"), 403)


@pytest.mark.parametrize("accept", ["application/json", NDJSON, ARROW, PARQUET])
def test_the_header_link_leads_on(cast: Cast, accept: str) -> None:
    upload(cast.erin, *AWKWARD)
    path, pages = f"{PROJECT}?limit=4", 0
    while path:
        answer = cast.rita.get(path, headers={"Accept": accept})
        assert answer.status == 200
        assert answer.headers["Vary"] == "Accept"
        pages += 1
        link = answer.headers.get("Link", "")
        if not link:
            break
        assert link.endswith('>; rel="next"')
        address = urlsplit(link[1:].partition(">")[0])
        assert (address.scheme, address.netloc, address.path) == ("http", "testserver", PROJECT)
        path = f"{address.path}?{address.query}"
    assert pages == 4

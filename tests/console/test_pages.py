"""What the pages show, what their forms refuse, and how many queries they take."""

import re
from html import unescape
from typing import Any
from urllib.parse import quote, unquote, urlencode

import pytest
from django.test import Client

from common.pagination import cursor_after
from embeddings.models import EmbeddingJob
from projects.models import Project
from tests.console.browser import PROJECT, browser, page, queries
from tests.console.conftest import HOSTILE
from tests.factories import Cast, item, make_instance, make_project, vectors

HTMX = {"HX-Request": "true"}


@pytest.fixture
def alice(texts: Cast) -> Client:
    """A browser of Alice's."""
    return browser("alice")


def search(client: Client, status: int = 200, **query: Any) -> str:
    """Return the page that a search leads to."""
    return page(client.get(f"{PROJECT}/search?{urlencode(query)}"), status)


# --- Projects -------------------------------------------------------------------------------------
def test_the_dashboard_has_three_shelves(texts: Cast) -> None:
    make_instance("sam", "model")
    make_project("sam", "papers", public_read=True, description="Papers of Sam")
    text = page(browser("rita").get("/"))
    mine, shared, public = text.split("<section")[1:4]
    assert "/p/rita/default/" in mine
    assert "/p/alice/letters/" in shared
    assert "<dd>4</dd>" in shared
    assert "/p/sam/papers/" in public
    assert "Papers of Sam" in public


def test_projects_are_found_by_handle_owner_or_description(alice: Client) -> None:
    assert "/p/alice/letters/" in page(alice.get("/?q=alice+LETT"))
    assert "/p/alice/letters/" not in page(alice.get("/?q=nothing"))
    part = page(alice.get("/?q=letters", headers={**HTMX, "HX-Target": "shelves"}))
    assert "<html" not in part
    assert "/p/alice/letters/" in part


def test_a_project_is_created_on_the_built_in_model(texts: Cast) -> None:
    client = browser("sam")
    text = page(client.get("/new-project"))
    assert 'value="_system/builtin" checked' in text
    sent = {"handle": "diaries", "description": "Of 1791", "instance": "_system/builtin"}
    created: Any = client.post("/new-project", sent)
    # Its first texts are next.
    assert created.headers["Location"] == "/p/sam/diaries/upload"
    assert "Project created." in page(client.get("/p/sam/diaries/upload"))
    text = page(client.get("/p/sam/diaries/"))
    for word in ("Of 1791", "No texts yet", "Upload texts", "ARMARIUM_KEY"):
        assert word in text


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        ({"handle": ""}, "Give the project a handle"),
        ({"handle": "no spaces"}, "is not a valid handle"),
        ({"handle": "Letters"}, "already exists"),
        ({"handle": "new", "instance": "bob/secret"}, "Select a valid choice"),
        ({"handle": "new", "description": "x" * 256}, "at most 255 characters"),
    ],
)
def test_what_is_wrong_stands_beside_the_field(
    sent: dict[str, str], problem: str, alice: Client
) -> None:
    given = {"instance": "alice/model", "description": "Kept", **sent}
    text = page(alice.post("/new-project", given), 400)
    assert problem in text
    assert f'value="{given["description"]}"' in text
    assert Project.objects.filter(owner__handle="alice").count() == 2


# --- Texts ----------------------------------------------------------------------------------------
def test_the_overview_has_code_with_real_names(alice: Client) -> None:
    text = page(alice.get(f"{PROJECT}/"))
    assert "http://testserver/v1/similars/alice/letters/" in text
    assert "<b>4</b> texts" in text


def test_texts_are_filtered_by_key_and_value_with_facets(alice: Client) -> None:
    text = page(alice.get(f"{PROJECT}/texts?key=author&value=Ann"))
    assert "2 texts match the filter" in text
    assert "My dear friend" in text
    assert "Dear Sir" not in text
    assert 'href="?key=author&amp;value=Ben"' in text
    # What is typed may be a number, or a text.
    assert "1 text match" in page(alice.get(f"{PROJECT}/texts?key=year&value=1791"))


def test_texts_are_filtered_by_json(alice: Client) -> None:
    query = urlencode({"filter": '{"year": {"gte": 1792}}'})
    part = page(alice.get(f"{PROJECT}/texts?{query}", headers={**HTMX, "HX-Target": "texts"}))
    assert "<html" not in part
    assert "Dear Sir" in part
    wrong = page(alice.get(f"{PROJECT}/texts?filter=nonsense"), 400)
    assert 'value="nonsense"' in wrong
    assert "not a JSON object" in wrong


def test_pages_of_texts_follow_each_other(cast: Cast) -> None:
    rows = [
        item(f"t{number:02}", vector, text=f"Text {number:02}.")
        for number, vector in enumerate(vectors(30, 3).tolist())
    ]
    cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": rows})
    client = browser("rita")
    first = page(client.get(f"{PROJECT}/texts"))
    following = first.split('rel="next"')[0].rpartition('href="')[2].partition('"')[0]
    # What is stored meanwhile before the place moves nothing.
    cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": [item("a", [1, 1, 1])]})
    second = page(client.get(f"{PROJECT}/texts{following}"))
    assert "Text 24." in first
    assert "Text 25." not in first
    assert "Text 24." not in second
    assert all(f"Text {number}." in second for number in range(25, 30))
    page(client.get(f"{PROJECT}/texts?after=nonsense"), 400)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"sort": "year"}, ["a/1", "b 2?", HOSTILE, "c\n3"]),
        ({"sort": "year", "order": "down"}, ["b 2?", "a/1", "c\n3", HOSTILE]),
        ({"sort": "author"}, ["a/1", "c\n3", "b 2?", HOSTILE]),
        ({"sort": "tags"}, [HOSTILE, "a/1", "b 2?", "c\n3"]),
        ({"order": "down"}, ["c\n3", "b 2?", "a/1", HOSTILE]),
        ({"sort": "year", "key": "author", "value": "Ann"}, ["a/1", "c\n3"]),
    ],
)
def test_texts_are_sorted_page_by_page(
    query: dict[str, str], expected: list[str], alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.views.texts.PAGE", 1)
    address, seen = f"?{urlencode(query)}", []
    while address:
        text = page(alice.get(f"{PROJECT}/texts{address}"))
        (shown,) = re.findall('<h3><a href="[^"]*/texts/([^"]+)"', text)
        seen.append(unquote(unescape(shown)))
        following = re.search('href="([^"]*)" rel="next"', text)
        address = unescape(following[1]) if following else ""
    assert seen == expected


@pytest.mark.parametrize(
    "place",
    ["x", "[]", '["1"]', '["[1]", "a"]', '["1e999999", "a"]', '["1", "\\u0000"]', '[1, "a"]'],
)
def test_a_place_that_no_list_returned_is_refused(place: str, alice: Client) -> None:
    query = {"sort": "year", "after": cursor_after(place)}
    assert "none that a list returned" in page(
        alice.get(f"{PROJECT}/texts?{urlencode(query)}"), 400
    )
    page(alice.get(f"{PROJECT}/texts?sort=a..b"), 400)
    page(alice.get(f"{PROJECT}/texts?order=sideways"), 400)


@pytest.mark.parametrize("text_id", ["a/1", "b 2?", "c\n3", HOSTILE])
def test_any_text_can_be_opened(text_id: str, alice: Client) -> None:
    text = page(alice.get(f"{PROJECT}/texts/{quote(text_id)}"))
    assert "Nearest texts" in text
    assert text.count("<meter") == 3


def test_a_text_shows_its_metadata_and_those_beside_it(alice: Client) -> None:
    text = page(alice.get(f"{PROJECT}/texts/{quote('b 2?')}"))
    assert "?key=author&amp;value=Ben" in text
    assert f'rel="prev" href="{PROJECT}/texts/a/1"' in text
    assert "Dear Sir" in text
    missing = page(alice.get(f"{PROJECT}/texts/nothing"), 404)
    assert "has no text" in missing


def test_what_people_store_stays_text(texts: Cast, alice: Client) -> None:
    texts.alice.patch("/v1/projects/alice/letters", {"description": HOSTILE[:255]})
    addresses = [
        "/",
        f"{PROJECT}/",
        f"{PROJECT}/texts?{urlencode({'key': HOSTILE, 'value': HOSTILE})}",
        f"{PROJECT}/texts/{quote(HOSTILE)}",
        f"{PROJECT}/search?text_id=c%0A3",
        f"{PROJECT}/settings",
    ]
    for address in addresses:
        text = page(alice.get(address))
        assert "&lt;script&gt;" in text
        assert "{{7*7}}" in text
    page(alice.get(f"/?{urlencode({'q': HOSTILE})}"))
    page(alice.get(f"/{quote(HOSTILE)}"), 404)


# --- Searching ------------------------------------------------------------------------------------
def test_searching_by_a_stored_text_says_why(alice: Client) -> None:
    text = search(alice, text_id="a/1")
    for word in ("3 nearest texts", "of 4 in", "Searched exactly.", "No better one can be missing"):
        assert word in text
    assert text.index("Dear Sir") < text.index("c\n3")


def test_searching_takes_filter_threshold_and_exclusion(alice: Client) -> None:
    assert "1 nearest text" in search(alice, text_id="a/1", threshold="0.9")
    assert "1 nearest text" in search(alice, text_id="a/1", key="author", value="Ben")
    text = search(alice, text_id="a/1", unlike="author")
    assert "c\n3" not in text.split("Why these?")[1].split("<footer")[0]
    none = search(alice, text_id="a/1", threshold="1")
    assert "No text has a similarity of 1.000 or more." in none
    assert "threshold=0" in none


def test_searching_by_a_vector(alice: Client) -> None:
    for vector in ("[1, 0, 0]", "1 0 0", "1, 0,0"):
        text = page(alice.post(f"{PROJECT}/search", {"vector": vector}))
        assert "4 nearest texts" in text
    part = page(
        alice.post(
            f"{PROJECT}/search", {"vector": "1 0 0"}, headers={**HTMX, "HX-Target": "results"}
        )
    )
    assert "<html" not in part


@pytest.mark.parametrize(
    ("vector", "problem"),
    [
        ("", "Paste a vector."),
        ("[1, 0]", "expected 3 dimensions, got 2"),
        ("one two", "Paste numbers with commas"),
        ("[0, 0, 0]", "vector"),
        ('{"a": 1}', "vector"),
    ],
)
def test_a_wrong_vector_is_refused_and_kept(vector: str, problem: str, alice: Client) -> None:
    text = page(alice.post(f"{PROJECT}/search", {"vector": vector}), 400)
    assert problem in text
    assert vector.replace('"', "&quot;") in text


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ({"text_id": "nothing"}, "This project has no text with this id."),
        ({"text_id": "a/1", "threshold": "2"}, "less than or equal to 1"),
        ({"text_id": "a/1", "value": "Ann"}, "Say which metadata key"),
        ({"text_id": "a/1", "filter": "{"}, "not a JSON object"),
        ({"colour": "red"}, "knows no parameter"),
    ],
)
def test_what_cannot_be_searched_for_is_said(
    query: dict[str, str], problem: str, alice: Client
) -> None:
    assert problem in search(alice, 400, **query)


def test_searching_by_words_with_the_built_in_model(texts: Cast) -> None:
    client = browser("sam")
    client.post("/new-project", {"handle": "notes", "instance": "_system/builtin"})
    rows = [
        {"text_id": "1", "text": "The cat sleeps on the sofa."},
        {"text_id": "2", "text": "Interest rates rose again in March."},
    ]
    answer = texts.sam.post("/v1/embeddings/sam/notes", {"embeddings": rows})
    assert answer.status == 201, answer.body
    text = page(client.get("/p/sam/notes/search?q=a+kitten+taking+a+nap"))
    results = text.split("Why these?")[1]
    assert "The cat sleeps" in results
    assert results.find("Interest rates") in {-1, *range(results.index("The cat"), len(results))}


def test_words_alone_are_found_and_marked(alice: Client) -> None:
    text = search(alice, q="dear friend", mode="text")
    assert "Only the words were looked for." in text
    assert "My <mark>dear</mark> <mark>friend</mark>" in text
    assert "1. by words" in text
    assert "&lt;script&gt;" in search(alice, q="alert", mode="text")
    none = search(alice, q="xylophone", mode="text")
    assert "No text holds these words." in none
    assert "mode=vector" in none
    assert "Select a valid choice" in search(alice, 400, q="dear", mode="guess")


def test_meaning_and_words_are_joined(texts: Cast) -> None:
    client = browser("sam")
    client.post("/new-project", {"handle": "both", "instance": "_system/builtin"})
    rows = [
        {"text_id": "1", "text": "The cat sleeps on the sofa."},
        {"text_id": "2", "text": "Interest rates rose again in March."},
    ]
    assert texts.sam.post("/v1/embeddings/sam/both", {"embeddings": rows}).status == 201
    text = page(client.get("/p/sam/both/search?q=cat&mode=hybrid"))
    assert "1. by meaning, 1. by words" in text
    assert "The <mark>cat</mark> sleeps" in text
    assert "Two lists" in text


def test_the_dashboard_tells_what_is_worked_at(texts: Cast) -> None:
    project = Project.objects.get(owner__handle="alice", handle="letters")
    EmbeddingJob.objects.create(project=project, user=project.owner, total=10, done=4)
    text = page(browser("erin").get("/"))
    assert "Worked at now" in text
    assert 'value="0.400"' in text
    assert "Worked at now" not in page(browser("rita").get("/"))


# --- Sharing and settings -------------------------------------------------------------------------
def test_sharing_changing_and_removing(alice: Client) -> None:
    sharing = f"{PROJECT}/sharing"
    alice.post(sharing, {"user": "sam", "role": "reader"})
    assert "sam is now reader of this project." in page(alice.get(sharing))
    page(browser("sam").get(f"{PROJECT}/"))
    alice.post(sharing, {"user": "sam", "role": "editor"})
    alice.post(f"{sharing}/remove", {"user": "sam"})
    assert browser("sam").get(f"{PROJECT}/").status_code == 404
    page(alice.post(f"{sharing}/remove", {"user": "sam"}), 404)


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        ("", "Type the handle"),
        ("nobody-here", "does not exist"),
        ("alice", "is the owner"),
        ("*", "make the project public"),
    ],
)
def test_nobody_can_be_shared_with_who_is_not_there(user: str, problem: str, alice: Client) -> None:
    text = page(alice.post(f"{PROJECT}/sharing", {"user": user, "role": "reader"}), 400)
    assert problem in text


def test_publishing_and_back(alice: Client) -> None:
    alice.post(f"{PROJECT}/sharing/public", {"public": "yes"})
    page(browser().get(f"{PROJECT}/"))
    alice.post(f"{PROJECT}/sharing/public", {"public": "no"})
    assert browser().get(f"{PROJECT}/").status_code == 302


def test_deleting_asks_for_the_handle_and_says_what_goes(alice: Client) -> None:
    text = page(alice.get(f"{PROJECT}/settings"))
    assert "<b>4</b> texts" in text
    assert "<b>2</b> shares" in text
    text = page(alice.post(f"{PROJECT}/settings/delete", {"typed": "Letters"}), 400)
    assert "This is not the handle of the project; it is letters." in text
    assert alice.post(f"{PROJECT}/settings/delete", {"typed": "letters"}).status_code == 302
    assert "letters is deleted." in page(alice.get("/"))


def test_a_project_with_agents_asks_what_becomes_of_them(texts: Cast, alice: Client) -> None:
    texts.alice.post("/agents", {"name": "Ann", "project": "letters"})
    assert "1 agents" in page(alice.get(f"{PROJECT}/settings"))
    refused = page(alice.post(f"{PROJECT}/settings/delete", {"typed": "letters"}), 400)
    assert "agent" in refused
    sent = {"typed": "letters", "on_resources": "move"}
    assert alice.post(f"{PROJECT}/settings/delete", sent).status_code == 302


def test_transferring_gives_the_project_away(alice: Client) -> None:
    transfer = f"{PROJECT}/settings/transfer"
    text = page(alice.post(transfer, {"typed": "letters", "new_owner": "nobody-here"}), 400)
    assert "does not exist" in text
    alice.post(transfer, {"typed": "letters", "new_owner": "sam"})
    assert alice.get("/p/sam/letters/").status_code == 404
    page(browser("sam").get("/p/sam/letters/"))


def test_the_default_project_can_be_neither_deleted_nor_given_away(alice: Client) -> None:
    page(alice.get("/"))
    assert "cannot be transferred or deleted" in page(alice.get("/p/alice/default/settings"))
    refused = alice.post("/p/alice/default/settings/delete", {"typed": "default"})
    page(refused, 400)


# --- Errors and budgets ---------------------------------------------------------------------------
def test_people_get_pages_and_programs_get_problems(db: None) -> None:
    assert "No page has this address" in page(browser().get("/nowhere"), 404)
    program: Any = Client().get("/nowhere")
    assert program.headers["Content-Type"] == "application/problem+json"
    for address in ("/v1/nowhere", "/agents/nowhere"):
        assert "json" in browser().get(address).headers["Content-Type"]


@pytest.mark.parametrize(
    ("address", "most"),
    [
        ("/", 11),
        ("/new-project", 6),
        (f"{PROJECT}/", 12),
        (f"{PROJECT}/texts?key=author", 9),
        (f"{PROJECT}/texts/a/1", 12),
        (f"{PROJECT}/search?text_id=a/1", 11),
        (f"{PROJECT}/sharing", 6),
        (f"{PROJECT}/settings", 10),
    ],
)
def test_pages_take_few_queries(address: str, most: int, texts: Cast, alice: Client) -> None:
    before = queries(alice, address)
    for number in range(5):
        make_project("alice", f"project{number}", public_read=True)
    rows = [item(f"d{number}", [0.5, 0.5, number], metadata={"author": "D"}) for number in range(9)]
    texts.alice.post("/v1/embeddings/alice/letters", {"embeddings": rows})
    assert queries(alice, address) == before
    assert before <= most

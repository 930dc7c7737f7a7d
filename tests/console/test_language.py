"""German is as good as English: a whole catalogue, and no page that mixes the two."""

import ast
import html
import re
from collections import deque
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urljoin, urlparse

import pytest
from django.test import Client
from django.urls import resolve

from accounts.audit import KINDS, Verb
from accounts.policy import Actor
from common import doctor
from console import words
from embeddings.models import (
    ImportJob,
    ImportProblem,
    IndexState,
    JobState,
    ReembeddingState,
)
from resources.models import Agent
from resources.services import create_resource
from tests import catalogue
from tests.console.browser import PROJECT, browser, page
from tests.factories import Cast, make_project, stored

_GERMAN = {"Accept-Language": "de-CH, de;q=0.9, en;q=0.5"}
_PLACE = re.compile(r"%\(\w+\)[sd]|%%|</?[a-z]+>|manage\.py [a-z]+|arm_|https?://\S+|#/\S+")
_LINK = re.compile(r'href="([^"]*)"')
# What is about something that looks like words of ours, or is meant to be English.
_NO_PAGES = re.compile(r"/(v1|admin|docs|static)\b|/map/(points|export)|download$|rejected\.csv$")


# --- The catalogue --------------------------------------------------------------------------------
def test_the_catalogue_holds_what_the_console_says() -> None:
    there = {catalogue.key_of(each) for each in catalogue.read() if each.id}
    said = set(catalogue.spoken())
    assert said - there == set(), "make messages adds them; then translate them"
    assert there - said == set(), "make messages removes them"


def test_everything_is_translated() -> None:
    assert [each.id for each in catalogue.untranslated(catalogue.read())] == []


def test_the_compiled_catalogue_is_that_of_the_written_one() -> None:
    assert catalogue.MO.read_bytes() == catalogue.compiled(catalogue.read()), "run make messages"


def test_translations_keep_names_and_tags() -> None:
    messages: Any = catalogue.read()
    for message in messages:
        if not message.id:
            continue
        english = [message.id] if isinstance(message.id, str) else list(message.id)
        german = [message.string] if isinstance(message.string, str) else list(message.string)
        assert len(english) == len(german), message.id
        for one, other in zip(english, german, strict=True):
            assert sorted(_PLACE.findall(one)) == sorted(_PLACE.findall(other)), (one, other)
            assert one.isspace() is other.isspace()
            assert (one[:1] == " ", one[-1:] == " ") == (other[:1] == " ", other[-1:] == " ")
            assert (other.count("„"), other.count("”")) == (other.count("“"), 0), other


# --- What domain code says ------------------------------------------------------------------------
def test_sentences_with_translations_are_still_said() -> None:
    said = set(_sentences())
    gone = [each for each in words.SENTENCES if _blank(each) not in said]
    assert gone == []


def _sentences() -> Iterator[str]:
    """Yield every text of the code, with a sign in place of what varies."""
    for path in sorted(catalogue.ROOT.glob("[a-z]*/**/*.py")):
        if path.relative_to(catalogue.ROOT).parts[0] == "tests":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else _variable(part)
                    for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def _variable(part: Any) -> str:
    rule = "3 to 20 of the characters A–Z, a–z, 0–9, hyphen and underscore"
    return rule if ast.unparse(part.value) == "RULE" else "◌"


def _blank(message: str) -> str:
    return re.sub(r"%\(\w+\)s", "◌", message)


def test_words_of_domain_code_are_translated() -> None:
    terms = {
        *(each.value for each in Verb),
        *KINDS.values(),
        *JobState.values,
        *ReembeddingState.values,
        *IndexState.values,
        *(each.title for each in doctor.examine(only=["none"])),
    } - {"exact", "indexed"}
    assert {each for each in terms if each not in words.TERMS} == set()


def test_sentences_are_translated_with_what_they_name(texts: Cast) -> None:
    answer = _german("alice").get("/p/alice/nothing/")
    text = page(answer, 404)
    assert "Es gibt kein Projekt alice/nothing, oder niemand hat es mit Ihnen geteilt." in text
    text = page(_german("alice").post(f"{PROJECT}/sharing", {"user": "zoe", "role": "reader"}), 400)
    assert "Das Konto „zoe“ gibt es nicht" in html.unescape(text)
    text = page(_german("alice").post("/new-project", {"handle": "a b", "instance": ""}), 400)
    assert "Dieses Feld ist zwingend erforderlich." in text


def test_sentences_without_a_translation_stay_as_they_are(texts: Cast) -> None:
    sent = {"schema": '{"pattern": "(?=x)"}', "save": "1"}
    assert "look-around" in page(_german("alice").post(f"{PROJECT}/schema", sent), 400)


# --- Which language -------------------------------------------------------------------------------
def test_the_browser_says_which_language(texts: Cast) -> None:
    answer: Any = _german("alice").get("/")
    assert '<html lang="de"' in page(answer)
    assert "Accept-Language" in answer.headers["Vary"]
    assert '<html lang="en"' in page(browser("alice").get("/", headers={"Accept-Language": "fr"}))


def test_a_choice_is_kept_in_a_cookie(texts: Cast) -> None:
    client = browser("alice")
    text = page(client.get("/"))
    assert '<button class="link" name="language" value="de" lang="de" aria-pressed="false">' in text
    answer = client.post("/appearance", {"language": "de", "next": f"{PROJECT}/"})
    assert (answer.status_code, answer.headers["Location"]) == (302, f"{PROJECT}/")
    text = page(client.get(f"{PROJECT}/", headers={"Accept-Language": "en"}))
    assert '<html lang="de"' in text
    assert "Überblick" in text
    page(client.post("/appearance", {"language": "fr"}), 400)
    page(client.post("/appearance", {"language": "xx"}), 400)


def test_the_api_and_the_administration_site_speak_english(texts: Cast) -> None:
    answer = texts.alice.get("/v1/projects/alice/nothing", headers=_GERMAN)
    assert answer.body["detail"] == "Project 'alice/nothing' does not exist."
    client = Client(headers={"Accept": "text/html", **_GERMAN})
    assert "Log in" in client.get("/admin/login/").content.decode()


def test_numbers_times_and_plurals_are_german(texts: Cast) -> None:
    client = _german("alice")
    text = page(client.get(f"{PROJECT}/search?text_id=a/1&threshold=0"))
    assert re.search(r"\b0,\d{3}\b", text)
    assert not re.search(r">\s*0\.\d{3}\b", text)
    assert '<meter min="0" max="1" value="0.' in text
    assert "<b>4</b> Texte" in page(client.get(f"{PROJECT}/"))
    text = page(client.get("/account/"))
    assert re.search(r'title="\d{1,2}\. \w+ \d{4} \d\d:\d\d UTC">(jetzt|vor )', text)


# --- The pages ------------------------------------------------------------------------------------
@pytest.fixture
def full(texts: Cast, settings: Any, tmp_path: Any) -> Cast:
    """The cast, and something on every page: uploads, keys, resources, shares, an empty project."""
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {**settings.STORAGES["default"], "OPTIONS": {"location": tmp_path}},
    }
    make_project("alice", "empty")
    create_resource(
        Agent, actor=Actor(user=stored("alice")), values={"project": "letters", "name": "Ann"}
    )
    column = {"name": "text", "kind": "text", "length": 0, "guess": "text", "examples": ["New"]}
    upload: dict[str, Any] = {"project": texts.project, "size": 1, "format": "csv"}
    upload["columns"] = [column]
    ImportJob.objects.create(name="new.csv", **upload)
    failed = ImportJob.objects.create(
        name="old.csv", state="failed", uses={"text": "text"}, error="The file is empty.", **upload
    )
    ImportProblem.objects.create(
        job=failed, row=2, text_id="x", reason="The line is not a JSON object."
    )
    alice = browser("alice")
    alice.post("/models/alice/model/share", {"user": "erin"})
    alice.post("/account/keys", {"name": "notebook"})
    return texts


def _german(handle: str | None = None) -> Client:
    client = browser(handle)
    client.defaults.update({"HTTP_ACCEPT_LANGUAGE": _GERMAN["Accept-Language"]})
    return client


def _pages(client: Client, first: list[str]) -> Iterator[tuple[str, str]]:
    """Yield address and text of every page that links lead to, one of each kind."""
    waiting, seen = deque(first), set()
    while waiting:
        address = waiting.popleft()
        parts = urlparse(address)
        if parts.netloc or not parts.path.startswith("/") or _NO_PAGES.search(parts.path):
            continue
        match = resolve(parts.path)
        empty = "/empty" in parts.path
        kind = (match.view_name, match.kwargs.get("kind"), empty, *sorted(parse_qs(parts.query)))
        if kind in seen:
            continue
        seen.add(kind)
        answer: Any = client.get(address)
        if answer.status_code in (301, 302):
            waiting.append(answer.headers["Location"])
            continue
        assert answer.status_code == 200, (address, answer.status_code)
        if not answer.headers["Content-Type"].startswith("text/html"):
            continue
        text = answer.content.decode()
        yield address, text
        waiting.extend(urljoin(address, html.unescape(each)) for each in _LINK.findall(text))


def _english(text: str) -> list[str]:
    """Return what of the catalogue a page says in English."""
    shown = " ".join(html.unescape(text).split())
    return [piece for piece in _PIECES if piece in shown]


def _pieces() -> list[str]:
    """Return the longer parts, between names and tags, of what German says otherwise."""
    found = set()
    messages: Any = catalogue.read()
    for message in messages:
        english = [message.id] if isinstance(message.id, str) else list(message.id)
        german = [message.string] if isinstance(message.string, str) else list(message.string)
        if not message.id or english == german or message.context == "word":
            continue
        for each in english:
            pieces = (piece.strip(" .,:;") for piece in re.split(r"%\(\w+\)[sd]|%%|<[^>]+>", each))
            found |= {piece for piece in pieces if len(piece) > 12}
    german_text = " ".join(str(each.string) for each in catalogue.read())
    return sorted(piece for piece in found if piece not in german_text)


_PIECES = _pieces()
_ALONE = ["/models/new", "/manage/sanity-check?run=yes", "/sign-in"]


@pytest.mark.parametrize("handle", ["alice", "ada", "erin", None])
def test_no_page_speaks_english(handle: str | None, full: Cast) -> None:
    client = _german(handle)
    first = ["/", f"{PROJECT}/", f"{PROJECT}/map?key=author", "/p/alice/empty/", *_ALONE]
    if handle is None:
        full.alice.patch("/v1/projects/alice/letters", {"public_read": True})
        first = ["/", "/sign-in", f"{PROJECT}/"]
    elif handle == "erin":
        first = ["/", f"{PROJECT}/"]
    elif handle == "alice":
        first = [each for each in first if not each.startswith(("/manage", "/sign-in"))]
    mixed, names = {}, set()
    for address, text in _pages(client, first):
        names.add(resolve(urlparse(address).path).view_name)
        if found := _english(text):
            mixed[address] = found
    assert mixed == {}
    assert len(names) >= {"alice": 25, "ada": 30, "erin": 10, None: 5}[handle], sorted(names)


_WRONG: list[tuple[str, dict[str, str], int]] = [
    ("/sign-in", {"handle": "", "password": ""}, 400),
    ("/sign-in", {"key": "nonsense"}, 400),
    ("/new-project", {"handle": ""}, 400),
    ("/account/", {"name": "x", "email": "nonsense"}, 400),
    ("/account/password", {"new": "x"}, 400),
    ("/account/keys", {"name": ""}, 400),
    ("/models/new", {"handle": "x"}, 400),
    ("/models/alice/model/delete", {"typed": "x"}, 400),
    (f"{PROJECT}/upload", {}, 400),
    (f"{PROJECT}/sharing", {"user": "", "role": "king"}, 400),
    (f"{PROJECT}/settings/transfer", {"new_owner": "", "typed": ""}, 400),
    (f"{PROJECT}/settings/delete", {"typed": "other"}, 400),
    (f"{PROJECT}/schema", {"schema": "{", "save": "1"}, 400),
    (f"{PROJECT}/resources/agents/new", {"name": ""}, 400),
    (f"{PROJECT}/search", {"vector": "x"}, 400),
]


def test_no_error_of_a_form_is_english(full: Cast) -> None:
    mixed = {}
    for address, sent, status in _WRONG:
        client = _german(None if address == "/sign-in" else "alice")
        if found := _english(page(client.post(address, sent), status)):
            mixed[address] = found
    for address, status in (("/nothing", 404), ("/?x=1", 400), ("/manage/", 403)):
        if found := _english(page(_german("alice").get(address), status)):
            mixed[address] = found
    assert mixed == {}

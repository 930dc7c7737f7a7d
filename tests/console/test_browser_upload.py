"""A project from a file to its end in a real browser, as somebody does it who has read nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.console import test_browser
from tests.console.test_browser import Person
from tests.end_to_end.harness import ROOT, Armarium

pytestmark = test_browser.pytestmark
server = test_browser.server
key = test_browser.key
chromium = test_browser.chromium
person = test_browser.person

TEXTS = {
    "cats": "The cat sleeps on the sofa.",
    "dogs": "A dog barks at the postman.",
    "rates": "Interest rates rose again in March.",
    "bank": "The central bank warns of inflation.",
    "rain": "It will rain in the north tomorrow.",
    "snow": "Snow fell on the mountains last night.",
}


@pytest.fixture(scope="module")
def _worker(server: Armarium) -> Iterator[None]:
    """A background worker of the server's."""
    with server.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "worker", "--concurrency", "1"],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=server.environment,
            cwd="/",
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.usefixtures("_worker")
def test_a_project_from_a_file_to_its_end(person: Person, key: str, tmp_path: Path) -> None:
    file = tmp_path / "news.jsonl"
    rows = [
        {"text_id": text_id, "text": text, "metadata": {"letters": len(text), "kind": text_id[0]}}
        for text_id, text in TEXTS.items()
    ]
    file.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    page = person.page
    person.sign_in(key)

    page.get_by_role("link", name="New project").first.click()
    page.get_by_label("Handle").fill("news")
    page.get_by_role("button", name="Create project").click()
    page.get_by_label("File").set_input_files(file)
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("heading", name="What is what?").wait_for()
    page.get_by_text("These can be stored as they are.").wait_for()
    page.get_by_role("button", name="Store the texts").click()
    # The page asks by itself how far it is.
    page.get_by_text("Done: every row is stored.").wait_for(timeout=30_000)

    page.get_by_role("link", name="Search them").click()
    page.get_by_label("Find texts that mean something like this").fill("a kitten takes a nap")
    page.keyboard.press("Enter")
    page.locator(".hit").first.get_by_text(TEXTS["cats"]).wait_for()
    page.get_by_label("Look for").select_option("text")
    page.get_by_label("Find texts that mean something like this").fill("snow")
    page.get_by_role("button", name="Search", exact=True).click()
    page.locator(".hit mark", has_text="Snow").wait_for()

    page.get_by_role("link", name="Map", exact=True).click()
    page.get_by_role("button", name="Draw the map").or_(page.locator("#map")).first.wait_for()
    page.goto("/p/alice/news/map?key=kind")
    page.locator("#map[data-painted]").wait_for()

    page.get_by_role("link", name="Sharing").click()
    page.get_by_label("Handle").fill("sam")
    page.get_by_role("button", name="Share", exact=True).click()
    page.get_by_text("sam is now reader of this project.").wait_for()
    page.get_by_role("button", name="Make it public").click()
    page.get_by_text("This project is public.").wait_for()
    page.get_by_role("link", name="Settings").click()
    page.get_by_label("Handle of the new owner").fill("sam")
    page.locator("#transfer_typed").fill("news")
    page.get_by_role("button", name="Transfer the project").click()
    page.get_by_text("news belongs to sam now.").wait_for()


def test_its_new_owner_deletes_it(person: Person, server: Armarium, key: str) -> None:
    _, account = server.request("POST", "/v1/users", {"user_handle": "olga"})
    hers = str(account["api_key"])
    builtin = {"instance_owner": "_system", "instance_handle": "builtin"}
    made = server.request(
        "POST", "/v1/projects/alice", {"project_handle": "gift", **builtin}, key=key
    )
    assert made[0] == 201
    page = person.page
    person.sign_in(key)
    page.goto("/p/alice/gift/settings")
    page.get_by_label("Handle of the new owner").fill("olga")
    page.locator("#transfer_typed").fill("gift")
    page.get_by_role("button", name="Transfer the project").click()
    page.get_by_text("gift belongs to olga now.").wait_for()
    page.get_by_role("button", name="Sign out").click()
    person.sign_in(hers)
    page.goto("/p/olga/gift/settings")
    page.locator("#delete_typed").fill("gift")
    page.get_by_role("button", name="Delete the project").click()
    page.get_by_text("gift is deleted.").wait_for()


def test_with_the_keyboard_alone(person: Person, key: str) -> None:
    """Sign in, search, open a text and come back: no click."""
    page = person.page
    page.goto("/sign-in")
    page.get_by_label("API key", exact=True).focus()
    page.keyboard.type(key)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Projects", exact=True).wait_for()
    page.keyboard.press("/")
    page.keyboard.type("notes")
    page.locator(".projects a", has_text="notes").wait_for()
    _tab_to(page, "/p/alice/notes/")
    page.keyboard.press("Enter")
    page.wait_for_url("**/p/alice/notes/")
    _tab_to(page, "/p/alice/notes/search")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search")
    page.keyboard.press("/")
    page.keyboard.type("a barking animal")
    page.keyboard.press("Enter")
    page.locator(".hit").first.wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Nearest texts").wait_for()
    assert page.url.endswith("/texts/n1")


def _tab_to(page: Any, address: str) -> None:
    """Press Tab until the link to an address has the focus, and can be seen to have it."""
    for _ in range(60):
        page.keyboard.press("Tab")
        where = page.evaluate("document.activeElement.getAttribute('href')")
        if where == address:
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none"
            return
    raise AssertionError(address)

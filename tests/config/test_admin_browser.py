"""The administration site in a real browser, on a real server: it fits, reads well, breaks no rule.

Whatever people have entered is there, and stays text.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.console.test_browser import CHROMIUM, Person, axe, chromium
from tests.end_to_end.harness import Armarium

__all__ = ["chromium"]
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
    pytest.mark.xdist_group("console-browser"),
]
PASSWORD = "correct-horse-battery"
_POPULATE = (
    "from tests.admin_world import populate; from tests.factories import make_user;"
    "make_user('sam'); make_user('ada', is_superuser=True, password='correct-horse-battery');"
    "[populate(number) for number in (1, 2)]"
)
_FIRST = "table#result_list tbody th a, table#result_list tbody td a"
LISTS = [
    "accounts/user",
    "accounts/apikey",
    "embeddings/embedding",
    "embeddings/reembedding",
    "embeddings/searchindex",
    "llm_services/instance",
    "llm_services/embeddedtext",
    "procrastinate/procrastinatejob",
    "projects/project",
    "resources/file",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Armarium]:
    """A server with two rows of everything, and Ada, who administers it."""
    running = Armarium(tmp_path_factory.mktemp("admin") / "data")
    running.start("--no-demo", "--no-worker")
    try:
        done = running.manage("shell", "-c", _POPULATE)
        assert done.returncode == 0, done.stderr
        yield running
    finally:
        running.kill_everything()


def sign_in(person: Person, width: int = 1200) -> None:
    page = person.page
    page.goto("/admin/")
    page.locator("[name=username]").fill("ada")
    page.locator("[name=password]").fill(PASSWORD)
    check(person, width)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Everything that is stored").wait_for()


def check(person: Person, width: int) -> None:
    """Fail where a page is too wide, or is hard to read or to use."""
    page = person.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width, page.url
    # Otherwise it loads what style sheets import once more, and puts it into the page.
    found = axe.Axe().run(page, options={"preload": False}).response["violations"]
    serious = [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == [], page.url
    assert person.complaints == [], page.url


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 390), ("dark", 1200)], ids=["narrow", "dark"]
)
def test_pages_fit_are_accessible_and_break_no_rule(
    scheme: str, width: int, chromium: Any, server: Armarium
) -> None:
    viewport = {"width": width, "height": 844}
    someone = Person(chromium, server, color_scheme=scheme, viewport=viewport)
    page = someone.page
    sign_in(someone, width)
    check(someone, width)
    for each in LISTS:
        page.goto(f"/admin/{each}/")
        check(someone, width)
        page.goto(page.locator(_FIRST).first.get_attribute("href"))
        page.locator("#content > h1").wait_for()
        check(someone, width)
    page.goto("/admin/projects/project/add/")
    check(someone, width)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(22, 24, 29)") is (scheme == "dark")
    someone.context.close()


def test_a_project_is_transferred_and_the_theme_is_that_of_the_console(
    chromium: Any, server: Armarium
) -> None:
    someone = Person(chromium, server)
    page = someone.page
    sign_in(someone)
    page.goto("/admin/projects/project/?q=papers")
    page.get_by_role("link", name="papers", exact=True).first.click()
    page.get_by_role("button", name="Transfer…").click()
    page.get_by_text("The old owners lose all access.").wait_for()
    check(someone, 1200)
    page.locator(".select2-selection").click()
    page.locator(".select2-search__field").fill("ada")
    page.locator(".select2-results__option", has_text="ada").click()
    page.get_by_role("button", name="Transfer", exact=True).click()
    page.get_by_text("1 project transferred to ada.").wait_for()
    page.get_by_role("link", name="Open ada/papers").click()
    page.get_by_role("heading", name="papers").first.wait_for()
    page.get_by_role("button", name="Dark").click()
    page.wait_for_load_state()
    page.goto("/admin/")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(22, 24, 29)"
    page.get_by_role("button", name="Light").click()
    page.get_by_role("heading", name="Everything that is stored").wait_for()
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(251, 250, 247)"
    assert someone.complaints == []
    someone.context.close()

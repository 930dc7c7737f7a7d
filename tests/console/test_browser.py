"""The console in a real browser, on a real server: no violation, no error, no foreign request."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.harness import Armarium

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
sync_api = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
    pytest.mark.xdist_group("console-browser"),
]
_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_LISTEN = (
    "addEventListener('securitypolicyviolation',"
    " event => console.error('CSP: ' + event.violatedDirective + ' ' + event.blockedURI))"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Armarium]:
    """A server with Alice, Sam, and Alice's project `notes` with three texts."""
    running = Armarium(tmp_path_factory.mktemp("console") / "data").migrated()
    running.start("--no-demo", "--no-worker")
    try:
        yield running
    finally:
        running.kill_everything()


@pytest.fixture(scope="module")
def key(server: Armarium) -> str:
    """Alice's key."""
    server.request("POST", "/v1/users", {"user_handle": "sam"})
    _, account = server.request("POST", "/v1/users", {"user_handle": "alice"})
    key = str(account["api_key"])
    builtin = {"instance_owner": "_system", "instance_handle": "builtin"}
    server.request("POST", "/v1/projects/alice", {"project_handle": "notes", **builtin}, key=key)
    texts = ["The cat sleeps on the sofa.", "A dog barks.", "Interest rates rose in March."]
    rows = [
        {"text_id": f"n{number}", "text": text, "metadata": {"language": "en"}}
        for number, text in enumerate(texts)
    ]
    status, _ = server.request("POST", "/v1/embeddings/alice/notes", {"embeddings": rows}, key=key)
    assert status == 201
    return key


@pytest.fixture(scope="module")
def admin_key(server: Armarium) -> str:
    """The key of an administrator."""
    made = server.manage("createowner", "ada", "--admin", "--json")
    return str(json.loads(made.stdout)["api_key"])


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium."""
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=_OPTIONS)
        yield found
        found.close()


class Person:
    """Somebody who uses the console; whatever the browser complains of fails the test."""

    def __init__(self, chromium: Any, server: Armarium, **options: Any) -> None:
        self.base = f"http://127.0.0.1:{server.port}"
        self.context = chromium.new_context(
            base_url=self.base, **{"viewport": {"width": 1200, "height": 900}, **options}
        )
        self.context.set_default_timeout(8_000)
        self.context.add_init_script(_LISTEN)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._look_at)

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _look_at(self, request: Any) -> None:
        if not request.url.startswith((self.base, "data:")):
            self.complaints.append(f"asked {request.url}")

    def sign_in(self, key: str) -> None:
        """Sign in with a key."""
        self.page.goto("/sign-in")
        self.page.get_by_label("API key", exact=True).fill(key)
        self.page.get_by_role("button", name="Sign in with the key").click()
        self.page.get_by_role("heading", name="Projects", exact=True).wait_for()


@pytest.fixture
def person(chromium: Any, server: Armarium) -> Iterator[Person]:
    """Somebody with a wide window."""
    someone = Person(chromium, server)
    yield someone
    assert someone.complaints == []
    someone.context.close()


def test_from_signing_in_to_deleting(person: Person, key: str) -> None:
    page = person.page
    person.sign_in(key)
    page.get_by_role("link", name="New project").first.click()
    page.get_by_label("Handle").fill("diaries")
    page.get_by_text("/p/alice/diaries/").wait_for()
    page.get_by_role("button", name="Create project").click()
    page.get_by_text("Project created.").wait_for()
    page.get_by_role("heading", name="Upload texts").wait_for()

    page.goto("/p/alice/notes/")
    page.get_by_label("Search this project").fill("a kitten taking a nap")
    page.keyboard.press("Enter")
    page.locator(".hit").first.get_by_text("The cat sleeps").wait_for()
    # Only the results change, and the address says what was searched for.
    page.evaluate("document.body.dataset.kept = 'yes'")
    page.get_by_label("Find texts that mean something like this").fill("the economy")
    page.keyboard.press("Enter")
    page.locator(".hit").first.get_by_text("Interest rates").wait_for()
    assert page.evaluate("document.body.dataset.kept") == "yes"
    assert page.url.endswith("/search?q=the%20economy&mode=vector&limit=10")

    page.goto("/p/alice/diaries/sharing")
    page.get_by_label("Handle").fill("sam")
    page.get_by_role("button", name="Share", exact=True).click()
    page.get_by_text("sam is now reader of this project.").wait_for()
    page.get_by_role("button", name="Make it public").click()
    page.get_by_text("This project is public.").wait_for()
    page.get_by_role("link", name="Settings").click()
    page.locator("#delete_typed").fill("diaries")
    page.get_by_role("button", name="Delete the project").click()
    page.get_by_text("diaries is deleted.").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("link", name="Sign in", exact=True).first.wait_for()


def test_keys_lead_through_the_pages(person: Person, key: str) -> None:
    page = person.page
    person.sign_in(key)
    page.goto("/p/alice/notes/search?q=cat")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    second = page.locator(".hit h3 a").nth(1)
    assert second.evaluate("link => link === document.activeElement")
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")
    page.keyboard.press("g")
    page.keyboard.press("p")
    page.get_by_role("heading", name="Projects", exact=True).wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"


PAGES = [
    "/",
    "/new-project",
    "/p/alice/notes/",
    "/p/alice/notes/texts?key=language",
    "/p/alice/notes/texts/n0",
    "/p/alice/notes/search?text_id=n0",
    "/p/alice/notes/map?key=language",
    "/p/alice/notes/sharing",
    "/p/alice/notes/settings",
    "/p/alice/notes/audit-log",
    "/jobs/",
]
ADMIN_PAGES = [
    "/manage/",
    "/manage/doctor?run=yes",
    "/manage/accounts",
    "/manage/accounts/sam",
    "/manage/new-account",
    "/manage/sanity-check?run=yes",
    "/manage/audit-log",
    "/jobs/",
]


def _check(page: Any, address: str, width: int) -> None:
    """Check that a page fits its window, and that axe finds nothing serious."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width, address
    found = axe.Axe().run(page).response["violations"]
    serious = [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == [], address


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 390), ("dark", 1200)], ids=["narrow", "dark"]
)
def test_pages_for_administrators_fit_and_are_accessible(
    scheme: str, width: int, chromium: Any, server: Armarium, key: str, admin_key: str
) -> None:
    viewport = {"width": width, "height": 844}
    someone = Person(chromium, server, color_scheme=scheme, viewport=viewport)
    page = someone.page
    someone.sign_in(admin_key)
    page.keyboard.press("g")
    page.keyboard.press("j")
    page.get_by_role("heading", name="Jobs", exact=True).wait_for()
    for address in ADMIN_PAGES:
        page.goto(address)
        _check(page, address, width)
    page.goto("/manage/new-account")
    page.get_by_label("Handle").fill(f"new-{scheme}")
    page.get_by_role("button", name="Create the account").click()
    page.get_by_role("button", name="Copy").wait_for()
    _check(page, "/manage/new-account (made)", width)
    assert someone.complaints == []
    someone.context.close()


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 390), ("dark", 1200)], ids=["narrow", "dark"]
)
def test_pages_fit_and_are_accessible(
    scheme: str, width: int, chromium: Any, server: Armarium, key: str
) -> None:
    viewport = {"width": width, "height": 844}
    someone = Person(chromium, server, color_scheme=scheme, viewport=viewport)
    page = someone.page
    someone.sign_in(key)
    for address in PAGES:
        page.goto(address)
        _check(page, address, width)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(22, 24, 29)") is (scheme == "dark")
    assert someone.complaints == []
    someone.context.close()


def test_without_javascript(chromium: Any, server: Armarium, key: str) -> None:
    someone = Person(chromium, server, java_script_enabled=False)
    page = someone.page
    someone.sign_in(key)
    page.goto("/p/alice/notes/search")
    page.get_by_label("Find texts that mean something like this").fill("a kitten")
    page.get_by_role("button", name="Search", exact=True).click()
    page.locator(".hit").first.get_by_text("The cat sleeps").wait_for()
    page.get_by_role("button", name="Dark").click()
    page.wait_for_load_state()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    someone.context.close()


def test_sources_are_ours() -> None:
    """Nothing in the page's own files names another server."""
    static = Path(__file__).parents[2] / "static" / "console"
    for file in static.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http" not in text.replace("addEventListener", ""), file.name

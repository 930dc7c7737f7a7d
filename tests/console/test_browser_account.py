"""Accounts, models and resources in a real browser, as `test_browser` does it."""

from pathlib import Path
from typing import Any

import pytest

from tests.console import test_browser
from tests.console.test_browser import Person, axe
from tests.end_to_end.harness import Armarium

pytestmark = test_browser.pytestmark
server = test_browser.server
key = test_browser.key
chromium = test_browser.chromium
person = test_browser.person

PASSWORD = "a quiet reading room"
PRIVATE = {
    "instance_handle": "private",
    "endpoint": "http://127.0.0.1:9/v1/embeddings",
    "api_standard": "openai",
    "model": "small",
    "dimensions": 3,
    "api_key": "sk-canary",
}


@pytest.fixture(scope="module", autouse=True)
def things(server: Armarium, key: str) -> None:
    """Alice has a model whose address may not be called, and an agent in `notes`."""
    for path, body in (
        ("/v1/llm-services/alice", PRIVATE),
        ("/agents", {"name": "Ann", "project": "notes"}),
    ):
        status, answer = server.request("POST", path, body, key=key)
        assert status == 201, answer


def test_password_keys_and_sessions(person: Person, server: Armarium) -> None:
    _, account = server.request("POST", "/v1/users", {"user_handle": "nora"})
    page = person.page
    person.sign_in(str(account["api_key"]))
    page.keyboard.press("g")
    page.keyboard.press("a")
    page.get_by_text("This account has no password yet").wait_for()
    page.get_by_label("New password", exact=True).fill(PASSWORD)
    page.get_by_label("New password once more").fill(PASSWORD)
    page.get_by_role("button", name="Set the password").click()
    page.get_by_text("The password is changed.").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.goto("/sign-in")
    page.get_by_label("Handle").fill("nora")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_role("heading", name="Projects", exact=True).wait_for()

    page.goto("/account/keys")
    page.get_by_label("Name").fill("notebook")
    page.get_by_label("May").select_option("reader")
    page.get_by_role("button", name="Make the key").click()
    made = page.locator("#new-key").inner_text()
    assert made.startswith("arm_")
    assert server.request("GET", "/v1/projects/nora", key=made)[0] == 200
    person.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == made
    page.get_by_role("link", name="I have kept it").click()
    assert made not in page.content()
    page.get_by_text("Revoke notebook").click()
    page.get_by_role("button", name="Revoke this key").locator("visible=true").click()
    page.get_by_text("The key notebook is revoked.").wait_for()
    assert server.request("GET", "/v1/projects/nora", key=made)[0] == 401

    page.get_by_role("link", name="Sessions").click()
    page.get_by_text("Chrome on Linux").wait_for()
    page.get_by_text("this browser").wait_for()


def test_a_model_from_template_to_deletion(person: Person, key: str) -> None:
    page = person.page
    person.sign_in(key)
    page.keyboard.press("g")
    page.keyboard.press("m")
    page.get_by_role("link", name="Use it openai-small").click()
    page.get_by_label("Handle").fill("cheap")
    page.get_by_label("Provider's API key").fill("sk-canary")
    page.get_by_role("button", name="Create the model").click()
    page.get_by_text("Set. It is stored encrypted").wait_for()
    page.get_by_role("link", name="Edit", exact=True).click()
    page.get_by_label("Endpoint").fill("https://other.example.org/v1/embeddings")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("The stored key was erased").wait_for()
    page.locator("#delete_typed").fill("cheap")
    page.get_by_role("button", name="Delete the model").click()
    page.get_by_text("cheap is deleted.").wait_for()

    page.goto("/models/_system/builtin")
    page.evaluate("document.body.dataset.kept = 'yes'")
    page.get_by_role("button", name="Test the connection").click()
    page.get_by_text("a vector of 512 dimensions came back").wait_for()
    assert page.evaluate("document.body.dataset.kept") == "yes"
    page.goto("/models/alice/private")
    page.get_by_role("button", name="Test the connection").click()
    page.get_by_text("It does not work.").wait_for()
    assert "sk-canary" not in page.content()


def test_the_model_of_a_project(person: Person, key: str) -> None:
    page = person.page
    person.sign_in(key)
    page.goto("/p/alice/notes/settings")
    page.get_by_role("link", name="Change the model").click()
    page.get_by_label("Price of a million tokens").fill("0.02")
    page.get_by_role("button", name="Estimate what it takes").click()
    page.get_by_text("Price, about").wait_for()
    page.get_by_label("alice/private").check()
    page.get_by_role("button", name="Begin").click()
    # No worker runs here: it waits, and the page asks how far it is.
    page.get_by_text("0 of 3 texts have a vector aside").wait_for()
    with page.expect_response("**/settings/model"):
        pass
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("What was embedded is kept.").wait_for()
    page.get_by_text("Cancel", exact=True).click()
    page.get_by_role("button", name="Delete the vectors aside").click()
    page.get_by_text("Embed all texts with another model").wait_for()


def test_agents_and_files(person: Person, key: str, tmp_path: Path) -> None:
    page = person.page
    person.sign_in(key)
    page.goto("/p/alice/notes/")
    page.get_by_role("link", name="Resources").click()
    page.get_by_role("link", name="New agent").click()
    page.get_by_label("Name", exact=True).fill("Clio")
    page.get_by_label("Metadata").fill('{"muse": true}')
    page.get_by_role("button", name="Create").click()
    page.get_by_role("link", name="Clio").click()
    page.get_by_text("Delete", exact=True).click()
    page.get_by_role("button", name="Delete Clio").click()
    page.get_by_text("Clio is deleted.").wait_for()

    page.get_by_role("link", name="Files").click()
    page.get_by_role("link", name="Upload a file").click()
    (tmp_path / "page.html").write_text("<script>alert(1)</script>")
    page.get_by_label("File", exact=True).set_input_files(tmp_path / "page.html")
    page.get_by_role("button", name="Upload").click()
    with page.expect_download() as coming:
        page.get_by_role("link", name="Download page.html").click()
    assert coming.value.suggested_filename == "page.html"
    assert Path(coming.value.path()).read_text() == "<script>alert(1)</script>"


PAGES = [
    "/account/",
    "/account/keys",
    "/account/sessions",
    "/models/",
    "/models/new?template=_system/openai-small",
    "/models/new-template",
    "/models/alice/private",
    "/models/alice/private/edit",
    "/models/t/_system/openai-small",
    "/p/alice/notes/settings/model",
    "/p/alice/notes/resources",
    "/p/alice/notes/resources/agents/new",
    "/p/alice/notes/resources/files/new",
]


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 390), ("dark", 1200)], ids=["narrow", "dark"]
)
def test_pages_fit_and_are_accessible(
    scheme: str, width: int, chromium: Any, server: Armarium, key: str
) -> None:
    viewport = {"width": width, "height": 844}
    someone = Person(chromium, server, color_scheme=scheme, viewport=viewport)
    someone.sign_in(key)
    for address in PAGES:
        someone.page.goto(address)
        assert someone.page.evaluate("document.documentElement.scrollWidth") <= width, address
        found = axe.Axe().run(someone.page).response["violations"]
        serious = [
            (each["id"], [node["html"] for node in each["nodes"]])
            for each in found
            if each["impact"] in ("serious", "critical")
        ]
        assert serious == [], address
    assert someone.complaints == []
    someone.context.close()


def test_without_javascript(chromium: Any, server: Armarium, key: str) -> None:
    someone = Person(chromium, server, java_script_enabled=False)
    page = someone.page
    someone.sign_in(key)
    page.goto("/models/_system/builtin")
    page.get_by_role("button", name="Test the connection").click()
    page.get_by_text("a vector of 512 dimensions came back").wait_for()
    page.goto("/account/keys")
    page.get_by_label("Name").fill("plain")
    page.get_by_role("button", name="Make the key").click()
    page.get_by_role("link", name="I have kept it").click()
    page.get_by_text("Revoke plain").click()
    page.get_by_role("button", name="Revoke this key").locator("visible=true").click()
    page.get_by_text("The key plain is revoked.").wait_for()
    someone.context.close()

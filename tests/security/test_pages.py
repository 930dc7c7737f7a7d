"""Headers of every page, and hostile text on every page; both over the URL configuration."""

import re
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from config.settings import BASE_DIR
from tests.admin_site import SCRIPT, sign_in
from tests.admin_world import HOSTILE, populate
from tests.console.browser import browser
from tests.factories import Cast, item, make_project
from tests.security.walk import (
    Things,
    admin_addresses,
    api_addresses,
    console_addresses,
    text_of,
)

POLICY = {
    "default-src": "'self'",
    "script-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
    "form-action": "'self'",
}
_APPS = ["accounts", "common", "config", "console", "embeddings", "llm_services", "projects"]
_APPS += ["resources"]
_DRAWN = re.compile(r"\A/p/[^/]+/[^/]+/map(\?|\Z)")
_IS_DATA = re.compile(r"application/(json|problem\+json|x-ndjson|octet-stream)|text/csv")
_INLINE = re.compile(
    r"<script(?![^>]*\bsrc=)(?![^>]*type=\"application/json\")|<style|\sstyle=|\son[a-z]+=\"|"
    r"javascript:",
    re.IGNORECASE,
)


@pytest.fixture
def hostile(cast: Cast, settings: Settings, tmp_path: Any) -> Things:
    """Markup in every field of everything, that belongs to `owner1`; and in Alice's project."""
    kept = settings.STORAGES["default"]
    there = {**kept, "OPTIONS": {**kept["OPTIONS"], "location": tmp_path / "files"}}
    settings.STORAGES = {**settings.STORAGES, "default": there}
    populate(1)
    row = item("x", [1, 0, 0], text=HOSTILE, metadata={HOSTILE: HOSTILE, "note": HOSTILE})
    row["text_id"] = SCRIPT
    cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": [row]})
    cast.alice.patch("/v1/projects/alice/letters", {"description": HOSTILE})
    make_project("alice", "empty", description=HOSTILE)
    things = Things()
    things.values["text_id"] = "%3Cscript%3Ealert(1)%3C%2Fscript%3E"
    return things


def check_headers(response: Any, address: str) -> None:
    """Check the headers that every answer of the server has."""
    sent = response.headers
    policy = dict(
        each.strip().partition(" ")[::2] for each in sent["Content-Security-Policy"].split(";")
    )
    assert POLICY.items() <= policy.items(), (address, policy)
    if _DRAWN.search(address) and "style-src" in policy:
        # What draws the map makes style elements; nothing else may.
        policy["style-src"] = policy["style-src"].replace("'unsafe-inline'", "")
    assert not re.search(r"unsafe|\*|http:", " ".join(policy.values())), address
    assert sent["X-Content-Type-Options"] == "nosniff", address
    assert sent["Referrer-Policy"] == "same-origin", address
    assert sent["X-Frame-Options"] == "DENY", address
    assert "camera=()" in sent["Permissions-Policy"], address


def visitors() -> dict[str, Client]:
    """Return browsers of those who see much, little and nothing."""
    return {each or "nobody": browser(each) for each in ("alice", "owner1", "sam", "ada", None)}


def test_every_page_has_the_headers(hostile: Things) -> None:
    statuses = set()
    addresses = [*console_addresses(hostile), *api_addresses(hostile), "/nothing", "/p/no/no/"]
    for visitor in (browser("alice"), browser(None)):
        for address in [*addresses, "/admin/login/", "/docs", "/openapi.json"]:
            response: Any = visitor.get(address)
            check_headers(response, address)
            statuses.add(response.status_code)
        check_headers(visitor.put("/docs"), "refused")
    administrator = sign_in("ada")
    for address in [*admin_addresses(), "/admin/nothing/"]:
        check_headers(administrator.get(address), address)
    assert {200, 302, 401, 404} <= statuses


def test_what_is_stored_stays_text_on_every_page(hostile: Things) -> None:
    shown = 0
    for owner, handle in (("alice", "letters"), ("owner1", "papers")):
        for visitor, client in visitors().items():
            for address in console_addresses(hostile):
                there = address.replace("/alice/letters", f"/{owner}/{handle}")
                response: Any = client.get(there)
                text = text_of(response)
                if not response.headers["Content-Type"].startswith("text/html"):
                    # What is not a page must not become one.
                    assert _IS_DATA.match(response.headers["Content-Type"]), there
                    assert response.headers["X-Content-Type-Options"] == "nosniff"
                    continue
                assert SCRIPT not in text, (visitor, there)
                assert "<img src=x" not in text, (visitor, there)
                assert _INLINE.search(text) is None, (visitor, there, _INLINE.search(text))
                assert "{{49}}" not in text
                shown += "&lt;script&gt;alert(1)" in text
    assert shown > 10


def test_no_template_and_no_view_trusts_what_is_stored() -> None:
    trusting = re.compile(r"\|\s*safe\b|mark_safe\(|autoescape off|SafeString\(|html_safe\b")
    found = [
        f"{path.relative_to(BASE_DIR)}:{number}"
        for folder in ["templates", *_APPS]
        for pattern in ("*.html", "*.py")
        for path in (BASE_DIR / folder).rglob(pattern)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if trusting.search(line)
    ]
    assert found == []

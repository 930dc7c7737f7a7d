"""Somebody with a browser but without JavaScript: signed in, reads pages, fills in forms."""

from html.parser import HTMLParser
from typing import Any

from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.factories import stored

PROJECT = "/p/alice/letters"


class _Elements(HTMLParser):
    """Fails at what the policy forbids, and at what only somebody else's text could have made."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name for name, _ in attrs}
        assert tag not in {"img", "style", "iframe"}, (tag, attrs)
        assert tag != "script" or "src" in names, attrs
        assert not any(name == "style" or name.startswith("on") for name in names), attrs


def browser(handle: str | None = None) -> Client:
    """Return a browser, in which the account is signed in if one is named."""
    client = Client(raise_request_exception=True, headers={"Accept": "text/html"})
    if handle is not None:
        client.force_login(stored(handle), backend="django.contrib.auth.backends.ModelBackend")
    return client


def page(response: Any, status: int = 200) -> str:
    """Return a page's text after checking what holds for all of them."""
    text = str(response.content.decode())
    assert response.status_code == status, (response.status_code, text[:3000])
    assert response.headers["Content-Type"].startswith("text/html")
    _Elements().feed(text)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    # BokehJS makes style elements; nothing of ours does.
    relaxed = "style-src 'self' 'unsafe-inline'"
    assert (relaxed in policy) is ('class="map-plot"' in text and "<html" in text)
    assert "unsafe" not in policy.replace(relaxed, "")
    assert "no-store" in response.headers["Cache-Control"]
    return text


def queries(client: Client, url: str) -> int:
    """Return how many queries a page takes once the server is warm."""
    client.get(url)
    with CaptureQueriesContext(connection) as captured:
        page(client.get(url))
    return len(captured)

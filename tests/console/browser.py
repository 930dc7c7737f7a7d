"""Somebody with a browser but without JavaScript: signed in, reads pages, fills in forms."""

import re
from typing import Any

from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.factories import stored

# Nothing may stand in the page itself: the policy forbids it.
_INLINE = re.compile(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", re.IGNORECASE)
PROJECT = "/p/alice/letters"


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
    assert _INLINE.search(text) is None, _INLINE.search(text)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "no-store" in response.headers["Cache-Control"]
    return text


def queries(client: Client, url: str) -> int:
    """Return how many queries a page takes once the server is warm."""
    client.get(url)
    with CaptureQueriesContext(connection) as captured:
        page(client.get(url))
    return len(captured)

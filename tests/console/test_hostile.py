"""Every address of the console, with hostile strings in every field that people fill in."""

import re
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client
from django.urls import URLPattern, reverse

from console.urls import urlpatterns
from embeddings.models import ImportJob
from resources.models import Agent, File
from tests.admin_world import HOSTILE, SECRET, populate
from tests.console.browser import browser, page
from tests.factories import make_instance, make_user, stored

OWNER = "owner1"
PROJECT = f"/p/{OWNER}/papers"
QUERIES = [
    f"/?{urlencode({'q': HOSTILE})}",
    f"{PROJECT}/texts?{urlencode({'key': HOSTILE, 'value': HOSTILE})}",
    f"{PROJECT}/texts?{urlencode({'key': HOSTILE, 'sort': HOSTILE, 'order': 'down'})}",
    f"{PROJECT}/search?{urlencode({'q': 'alert', 'mode': 'text'})}",
    f"{PROJECT}/search?{urlencode({'q': HOSTILE, 'mode': 'text', 'threshold': '1'})}",
    f"{PROJECT}/map?{urlencode({'key': HOSTILE})}",
    f"{PROJECT}/map/colours?{urlencode({'key': HOSTILE})}",
    f"{PROJECT}/map/export?format=csv",
    f"{PROJECT}/map/export?format=jsonl",
    f"{PROJECT}/resources?kind=files",
    "/manage/doctor?run=yes",
    "/manage/sanity-check?run=yes",
    f"/manage/accounts?{urlencode({'q': HOSTILE[:20]})}",
    f"/sign-in?{urlencode({'next': HOSTILE})}",
]


@pytest.fixture
def ada(db: None) -> Client:
    """A browser of an administrator's, on a server full of what must stay text."""
    make_user("sam")
    make_user("ada", is_superuser=True)
    make_instance("ada", "mine", description=HOSTILE)
    populate(1)
    client = browser("ada")
    assert client.post(f"{PROJECT}/map", {"method": "pca"}).status_code in {200, 302}
    return client


def test_hostile_strings_stay_text_at_every_address(ada: Client) -> None:
    agent, file = Agent.objects.filter(owner=stored(OWNER))[0], File.objects.all()[0]
    text_id = f"{HOSTILE}/{stored(OWNER).pk}"
    values: dict[str, Any] = {
        "owner": OWNER,
        "user": OWNER,
        "job_id": ImportJob.objects.get().pk,
        "text_id": text_id,
    }
    seen = 0
    for each in _with_names():
        names = set(each.pattern.converters)
        given = {name: values[name] for name in names & set(values)}
        if "uuid" in names:
            given["uuid"] = file.uuid if each.name == "download" else agent.uuid
        if "kind" in names:
            given["kind"] = "agents"
        if "handle" in names:
            given["handle"] = _handle(str(each.pattern))
        seen += _is_harmless(ada, reverse(str(each.name), kwargs=given))
    for address in QUERIES:
        seen += _is_harmless(ada, address)
    # Most pages show some of it.
    assert seen > 20


def _with_names() -> list[URLPattern]:
    return [each for each in urlpatterns if isinstance(each, URLPattern) and each.name]


def _handle(route: str) -> str:
    if route.startswith("models/t/"):
        return "template"
    return "model" if route.startswith("models/") else "papers"


def _is_harmless(client: Client, address: str) -> bool:
    """Check what an address answers; tell whether it shows something hostile, as text."""
    response: Any = client.get(address)
    assert response.status_code in {200, 302, 400, 404, 405}, (address, response.status_code)
    assert "onerror" not in response.headers.get("Location", ""), address
    if response.status_code in {302, 405}:
        return False
    body = response.getvalue().decode(errors="replace")
    assert SECRET not in body, address
    kind = response.headers["Content-Type"]
    if not kind.startswith("text/html"):
        # No browser takes these for a page.
        assert response.headers["X-Content-Type-Options"] == "nosniff", address
        assert re.match("application/(json|x-ndjson|jsonl|octet-stream)|text/csv", kind), kind
        return False
    if "<html" in body:
        page(response, response.status_code)
    assert "<script>alert" not in body, address
    assert "<img" not in body, address
    return "&lt;script&gt;" in body or "&lt;img" in body

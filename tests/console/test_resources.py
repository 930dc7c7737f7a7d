"""Agents, users and files of a project."""

from base64 import b64encode
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from resources.models import Agent, EndUser, File
from resources.services import create_file, create_resource
from tests.console import matrices, test_matrix
from tests.console.browser import PROJECT, browser, page, queries
from tests.console.conftest import HOSTILE
from tests.factories import Cast, make_project

RESOURCES = f"{PROJECT}/resources"
AGENT = f"{RESOURCES}/agents/{matrices.AGENT}"
FILE = f"{RESOURCES}/files/{matrices.FILE}"
CONTENT = b"a,b\n1,2\n"

browsers = test_matrix.browsers


@pytest.fixture(autouse=True)
def files(settings: Any, tmp_path: Any) -> None:
    """Keep the bytes of files in a folder of the test."""
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {**settings.STORAGES["default"], "OPTIONS": {"location": tmp_path}},
    }


@pytest.fixture
def filled(texts: Cast) -> Cast:
    """The cast; in Alice's project are an agent, a user and a file."""
    from accounts.policy import Actor
    from tests.factories import stored

    actor = Actor(user=stored("alice"))
    values: dict[str, Any] = {"project": "letters"}
    agent = create_resource(Agent, actor=actor, values={**values, "name": "Ann"})
    create_resource(EndUser, actor=actor, values={**values, "name": "Bob"})
    file = create_file(actor=actor, values={**values, "name": "table.csv"}, content=CONTENT)
    Agent.objects.filter(pk=agent.pk).update(uuid=matrices.AGENT)
    File.objects.filter(pk=file.pk).update(uuid=matrices.FILE)
    return texts


@pytest.fixture
def alice(filled: Cast) -> Client:
    """A browser of Alice's."""
    return browser("alice")


@pytest.mark.parametrize("name", matrices.RESOURCES)
def test_everybody_gets_what_the_policy_says(
    name: str, filled: Cast, browsers: dict[str, Client]
) -> None:
    matrices.check(matrices.RESOURCES[name], browsers)


def test_a_key_that_only_reads_is_shown_no_buttons(
    filled: Cast, browsers: dict[str, Client]
) -> None:
    for address in (RESOURCES, AGENT):
        text = page(browsers["owner as reader"].get(address))
        assert "Ann" in text
        for word in ("New agent", "Save", "Delete"):
            assert word not in text.split("<main")[1].split("</main>")[0]


def test_lists_have_counts_and_what_is_in_them(alice: Client) -> None:
    text = page(alice.get(RESOURCES))
    assert "Agents <span>1</span>" in text
    assert AGENT in text
    assert "Bob" in page(alice.get(f"{RESOURCES}?kind=users"))
    text = page(alice.get(f"{RESOURCES}?kind=files"))
    assert f"{FILE}/download" in text
    page(alice.get(f"{RESOURCES}?kind=projects"), 404)
    page(alice.get(f"{RESOURCES}?colour=red"), 400)
    page(alice.get(f"{RESOURCES}?after=nonsense"), 400)


def test_pages_of_a_list_follow_each_other(filled: Cast, alice: Client) -> None:
    for number in range(60):
        filled.alice.post("/users", {"name": f"User {number:02}", "project": "letters"})
    first = page(alice.get(f"{RESOURCES}?kind=users"))
    following = first.split('rel="next"')[0].rpartition('href="')[2].partition('"')[0]
    filled.alice.post("/users", {"name": "Newer", "project": "letters"})
    second = page(alice.get(RESOURCES + following.replace("&amp;", "&")))
    names = {f"User {number:02}" for number in range(60)} | {"Bob"}
    assert {name for name in names if name in first} | {
        name for name in names if name in second
    } == names
    assert "User 59" in first
    assert "User 59" not in second
    assert "Newer" not in second


def test_an_agent_is_made_changed_and_deleted(filled: Cast, alice: Client) -> None:
    sent = {
        "name": "Clio",
        "canonical_name": "clio",
        "about": "Line one\r\nline two",
        "model": "gpt-4o",
        "instructions": '["Be brief."]',
        "default_settings": '{"temperature": 0}',
        "metadata": '{"team": "history"}',
        "default_system_template": "",
    }
    assert alice.post(f"{RESOURCES}/agents/new", sent).status_code == 302
    row = Agent.objects.get(canonical_name="clio")
    assert (row.about, row.instructions) == ("Line one\nline two", ["Be brief."])
    assert (row.default_settings, row.project.handle) == ({"temperature": 0}, "letters")
    assert "Your name is" in row.default_system_template
    address = f"{RESOURCES}/agents/{row.uuid}"
    text = page(alice.get(address))
    assert "&quot;team&quot;: &quot;history&quot;" in text
    changed = {**sent, "name": "Erato", "metadata": "{}", "project": "letters"}
    assert alice.post(address, changed).status_code == 302
    row.refresh_from_db()
    assert (row.name, row.metadata, row.canonical_name) == ("Erato", {}, "clio")
    assert alice.post(f"{address}/delete").status_code == 302
    assert "Erato is deleted." in page(alice.get(RESOURCES))
    page(alice.get(address), 404)
    assert not Agent.objects.filter(canonical_name="clio").exists()


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        ({"name": ""}, "Give the agent a name."),
        ({"name": "a\tb"}, "may hold no control characters"),
        ({"name": "x" * 256}, "at most 255 characters"),
        ({"canonical_name": "1st"}, "is not a canonical name"),
        ({"canonical_name": "ANN_2"}, "already have the agent"),
        ({"instructions": '{"a": 1}'}, "must be a string or a list of strings"),
        ({"instructions": "[1]"}, "must be a string or a list of strings"),
        ({"metadata": "[]"}, "must be a JSON object"),
        ({"metadata": '{"a": NaN}'}, "not valid JSON"),
        ({"metadata": "nonsense"}, "not valid JSON"),
        ({"about": "x" * 16_001}, "at most 16000 characters"),
        ({"default_system_template": "  "}, "may not be empty"),
    ],
)
def test_what_is_wrong_stands_beside_the_field(
    sent: dict[str, str], problem: str, filled: Cast, alice: Client
) -> None:
    filled.alice.post("/agents", {"name": "x", "canonical_name": "ann_2"})
    given = {"name": "Kept", "model": "kept-model", **sent}
    text = page(alice.post(f"{RESOURCES}/agents/new", given), 400)
    assert problem in text
    assert 'value="kept-model"' in text
    assert Agent.objects.count() == 2


def test_a_user_moves_to_another_project_of_the_owner(filled: Cast, alice: Client) -> None:
    make_project("alice", "other")
    row = EndUser.objects.get()
    address = f"{RESOURCES}/users/{row.uuid}"
    assert '<option value="other">' in page(alice.get(address))
    sent = {"name": "Bob", "about": "", "metadata": "{}", "project": "other"}
    page(alice.post(address, {**sent, "project": "secret"}), 400)
    assert alice.post(address, sent).status_code == 302
    row.refresh_from_db()
    assert row.project.handle == "other"
    page(alice.get(address), 404)
    page(alice.get(f"/p/alice/other/resources/users/{row.uuid}"))


def test_a_file_goes_up_and_comes_down_as_an_attachment(alice: Client) -> None:
    name = 'übung "1".html'
    upload = SimpleUploadedFile(name, b"<script>alert(1)</script>", "text/html")
    sent = {"upload": upload, "name": "", "description": HOSTILE, "mime_type": ""}
    assert alice.post(f"{RESOURCES}/files/new", sent).status_code == 302
    row = File.objects.get(mime_type="text/html")
    assert row.name == name
    response: Any = alice.get(f"{RESOURCES}/files/{row.uuid}/download")
    assert b"".join(response.streaming_content) == b"<script>alert(1)</script>"
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert response.headers["Content-Disposition"].startswith("attachment; filename*=utf-8''")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "&lt;script&gt;" in page(alice.get(f"{RESOURCES}?kind=files"))


def test_x4_no_file_name_deceives_anybody(filled: Cast, alice: Client) -> None:
    name = "../a\u202egnp.exe\n"
    File.objects.update(name=name)
    response: Any = alice.get(f"{FILE}/download")
    header = response.headers["Content-Disposition"]
    assert header == 'attachment; filename=".._a_gnp.exe_"'
    response.close()


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        ({}, "Choose a file."),
        ({"upload": SimpleUploadedFile("empty", b"")}, "This file is empty"),
        ({"upload": SimpleUploadedFile("a", b"a"), "mime_type": "nonsense"}, "must be a media"),
        ({"upload": SimpleUploadedFile("a", b"a"), "name": "x" * 121}, "at most 120"),
    ],
)
def test_a_wrong_file_is_refused(sent: dict[str, Any], problem: str, alice: Client) -> None:
    text = page(alice.post(f"{RESOURCES}/files/new", {"description": "Kept", **sent}), 400)
    assert problem in text
    assert "Kept</textarea>" in text
    assert File.objects.count() == 1


def test_a_file_is_described_and_deleted_with_its_bytes(
    alice: Client, django_capture_on_commit_callbacks: Any, tmp_path: Any
) -> None:
    sent = {"name": "list.csv", "description": "A list", "mime_type": "", "project": "letters"}
    assert alice.post(FILE, sent).status_code == 302
    row = File.objects.get()
    assert (row.name, row.mime_type, row.size) == ("list.csv", None, len(CONTENT))
    with django_capture_on_commit_callbacks(execute=True):
        assert alice.post(f"{FILE}/delete").status_code == 302
    assert not File.objects.exists()
    assert not [each for each in tmp_path.rglob("*") if each.is_file()]


def test_lost_bytes_are_said(alice: Client, tmp_path: Any) -> None:
    for each in tmp_path.rglob("*"):
        if each.is_file():
            each.unlink()
    assert "missing from the server" in page(alice.get(f"{FILE}/download"), 500)


def test_administrators_manage_what_others_own(filled: Cast) -> None:
    ada = browser("ada")
    assert "Ann" in page(ada.get(RESOURCES))
    assert ada.post(f"{RESOURCES}/agents/new", {"name": "Bea"}).status_code == 302
    assert Agent.objects.get(name="Bea").owner.handle == "alice"
    assert ada.post(f"{AGENT}/delete").status_code == 302


def test_what_is_in_other_projects_is_not_here(filled: Cast, alice: Client) -> None:
    make_project("alice", "other")
    for address in (f"agents/{matrices.AGENT}", f"files/{matrices.FILE}/download"):
        page(alice.get(f"/p/alice/other/resources/{address}"), 404)
    page(alice.post(f"/p/alice/other/resources/agents/{matrices.AGENT}/delete"), 404)
    assert Agent.objects.exists()


def test_what_people_write_stays_text(filled: Cast, alice: Client) -> None:
    Agent.objects.update(name=HOSTILE, about=HOSTILE, model=HOSTILE, metadata={HOSTILE: HOSTILE})
    for address in (RESOURCES, AGENT):
        assert "&lt;script&gt;" in page(alice.get(address))


def test_forms_need_a_token(alice: Client) -> None:
    alice.handler.enforce_csrf_checks = True
    for address in (f"{RESOURCES}/agents/new", AGENT, f"{AGENT}/delete", f"{FILE}/delete"):
        page(alice.post(address, {"name": "x"}), 403)
    assert (Agent.objects.get().name, File.objects.count()) == ("Ann", 1)


@pytest.mark.parametrize(
    ("address", "most"),
    [(RESOURCES, 9), (f"{RESOURCES}?kind=files", 9), (AGENT, 8), (f"{RESOURCES}/agents/new", 4)],
)
def test_pages_take_few_queries(address: str, most: int, filled: Cast, alice: Client) -> None:
    before = queries(alice, address)
    content = b64encode(b"a").decode()
    for number in range(4):
        make_project("alice", f"project{number}")
        filled.alice.post("/agents", {"name": f"Agent {number}", "project": "letters"})
        filled.alice.post("/files", {"name": "f", "content": content, "project": "letters"})
    assert queries(alice, address) == before
    assert before <= most

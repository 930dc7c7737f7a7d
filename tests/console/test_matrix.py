"""Every page and form of the console, and every kind of actor."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.test import Client
from django.utils import timezone

from accounts import services as accounts
from accounts.models import Role
from console.urls import urlpatterns
from embeddings.models import ImportJob
from projects.models import Project
from tests.console import matrices
from tests.console.browser import PROJECT, browser, page
from tests.factories import Cast, make_project, stored

ROLES = ["owner", "editor", "reader", "stranger", "admin", "anonymous"]
KEYS = ["owner as reader", "letters only", "other only", "revoked", "expired"]
READERS = {"owner", "editor", "reader", "admin", "owner as reader", "letters only"}
EDITORS = {"owner", "editor", "admin", "letters only"}
OWNERS = {"owner", "admin", "letters only"}
ACCOUNTS = {*ROLES} - {"anonymous"}
SIGNED_IN = {*ACCOUNTS, "owner as reader", "letters only", "other only"}
ADMINS = {"admin"}
ACCOUNT = "/manage/accounts/sam"
_TYPED = {"typed": "letters"}
# An upload that waits for its columns.
_UPLOAD = UUID("01980000-0000-7000-8000-000000000001")

# name: (method, address, what is sent, who may, what they get)
PAGES: dict[str, tuple[str, str, Any, set[str], int]] = {
    "projects": ("GET", "/", None, {*ROLES, *KEYS}, 200),
    "new-project": ("GET", "/new-project", None, ACCOUNTS, 200),
    "overview": ("GET", f"{PROJECT}/", None, READERS, 200),
    "texts": ("GET", f"{PROJECT}/texts", None, READERS, 200),
    "text": ("GET", f"{PROJECT}/texts/a/1", None, READERS, 200),
    "search": ("GET", f"{PROJECT}/search?text_id=a/1", None, READERS, 200),
    "map": ("GET", f"{PROJECT}/map", None, READERS, 200),
    "map-progress": ("GET", f"{PROJECT}/map/progress", None, READERS, 302),
    "map-points": ("GET", f"{PROJECT}/map/points", None, READERS, 200),
    "map-colours": ("GET", f"{PROJECT}/map/colours?key=author", None, READERS, 200),
    "map-text": ("GET", f"{PROJECT}/map/text?place=0", None, READERS, 200),
    "map-export": ("GET", f"{PROJECT}/map/export", None, READERS, 200),
    "draw": ("POST", f"{PROJECT}/map", {"method": "pca"}, EDITORS, 302),
    "schema": ("GET", f"{PROJECT}/schema", None, READERS, 200),
    "upload": ("GET", f"{PROJECT}/upload", None, EDITORS, 200),
    "upload-file": ("GET", f"{PROJECT}/upload/{_UPLOAD}", None, EDITORS, 200),
    "upload-errors": ("GET", f"{PROJECT}/upload/{_UPLOAD}/rejected.csv", None, EDITORS, 200),
    "upload-store": ("POST", f"{PROJECT}/upload/{_UPLOAD}", {"use-0": "text"}, EDITORS, 302),
    "upload-cancel": ("POST", f"{PROJECT}/upload/{_UPLOAD}/cancel", {}, EDITORS, 302),
    "upload-retry": ("POST", f"{PROJECT}/upload/{_UPLOAD}/retry", {}, EDITORS, 409),
    "save-schema": ("POST", f"{PROJECT}/schema", {"schema": "", "save": "1"}, OWNERS, 302),
    "sharing": ("GET", f"{PROJECT}/sharing", None, OWNERS, 200),
    "settings": ("GET", f"{PROJECT}/settings", None, OWNERS, 200),
    "audit-log": ("GET", f"{PROJECT}/audit-log", None, OWNERS, 200),
    "share": ("POST", f"{PROJECT}/sharing", {"user": "sam", "role": "reader"}, OWNERS, 302),
    "unshare": ("POST", f"{PROJECT}/sharing/remove", {"user": "rita"}, OWNERS, 302),
    "public": ("POST", f"{PROJECT}/sharing/public", {"public": "yes"}, OWNERS, 302),
    "describe": ("POST", f"{PROJECT}/settings", {"description": "New"}, OWNERS, 302),
    "transfer": (
        "POST",
        f"{PROJECT}/settings/transfer",
        {**_TYPED, "new_owner": "sam"},
        OWNERS,
        302,
    ),
    "delete": ("POST", f"{PROJECT}/settings/delete", _TYPED, OWNERS, 302),
    "jobs": ("GET", "/jobs/", None, SIGNED_IN, 200),
    "manage": ("GET", "/manage/", None, ADMINS, 200),
    "manage-doctor": ("GET", "/manage/doctor", None, ADMINS, 200),
    "manage-sanity": ("GET", "/manage/sanity-check?run=yes", None, ADMINS, 200),
    "manage-audit": ("GET", "/manage/audit-log", None, ADMINS, 200),
    "manage-accounts": ("GET", "/manage/accounts", None, ADMINS, 200),
    "manage-new-account": ("GET", "/manage/new-account", None, ADMINS, 200),
    "manage-account": ("GET", f"{ACCOUNT}", None, ADMINS, 200),
    "manage-access": ("POST", f"{ACCOUNT}/access", {"change": "appoint"}, ADMINS, 302),
    "manage-password": ("POST", f"{ACCOUNT}/password", {"none": "yes"}, ADMINS, 302),
    "manage-delete": ("POST", f"{ACCOUNT}/delete", {"typed": "sam"}, ADMINS, 302),
}
LISTS = {"texts", "text", "map"}
# What is no page: data of one.
PARTS = {"map-points", "map-colours", "map-text", "map-export"}
# Those that everybody may use, and the address without its slash.
FREE = {"sign-in", "sign-out", "appearance", None}
# Asks the policy of each project; test_jobs.
ELSEWHERE = {"job-action"}


def with_key(key: str) -> Client:
    """Return a browser in which somebody signed in with a key."""
    client = browser()
    assert client.post("/sign-in", {"key": key}).status_code == 302
    return client


@pytest.fixture
def browsers(texts: Cast) -> dict[str, Client]:
    """A browser for every kind of actor."""
    alice = stored("alice")
    other = make_project("alice", "other")
    ImportJob.objects.create(
        pk=_UPLOAD,
        project=texts.project,
        name="new.csv",
        size=1,
        format="csv",
        columns=[
            {"name": "text", "kind": "text", "length": 0, "guess": "text", "examples": ["New"]}
        ],
    )
    keys = {
        "owner as reader": accounts.create_key(user=alice, role_cap=Role.READER),
        "letters only": accounts.create_key(user=alice, project_id=texts.project.pk),
        "other only": accounts.create_key(user=alice, project_id=other.pk),
        "revoked": accounts.create_key(user=alice, name="revoked"),
        "expired": accounts.create_key(user=alice, name="expired"),
    }
    # The first visit draws the map.
    page(browser("alice").get(f"{PROJECT}/map"))
    found = {role: browser(texts.with_role(role).handle or None) for role in ROLES}
    found |= {name: with_key(key) for name, key in keys.items()}
    accounts.revoke_keys(alice.api_keys.filter(name="revoked"))
    alice.api_keys.filter(name="expired").update(expires_at=timezone.now() - timedelta(days=1))
    return found


def expected(actor: str, name: str) -> int:
    """Return the status that an actor gets."""
    _, address, _, who, status = PAGES[name]
    if actor in who:
        return status
    if actor in {"anonymous", "revoked", "expired"}:
        return 302
    if not address.startswith(PROJECT):
        return 403
    # What one may not even read does not exist.
    return 403 if actor in READERS else 404


@pytest.mark.parametrize("name", PAGES)
def test_everybody_gets_what_the_policy_says(name: str, browsers: dict[str, Client]) -> None:
    method, address, sent, who, _ = PAGES[name]
    # Those who are refused first: they must change nothing.
    for actor in sorted(browsers, key=lambda each: each in who):
        if actor in who and method == "POST" and actor != "owner" and who is not ADMINS:
            continue
        response: Any = browsers[actor].generic(
            method,
            address,
            "" if sent is None else "&".join(f"{key}={value}" for key, value in sent.items()),
            content_type="application/x-www-form-urlencoded",
        )
        status = expected(actor, name)
        assert response.status_code == status, (actor, response.content[:500])
        if status == 302 and actor not in who:
            assert response.headers["Location"].startswith("/sign-in?next=%2F"), actor
        elif name in PARTS and actor in who:
            assert response.headers["Content-Type"] != "text/html"
        elif status != 302 and name != "upload-errors":
            text = page(response, status)
            assert ("My dear friend" in text) is (actor in who and name in LISTS), actor
        if actor not in who:
            project = Project.objects.get(owner__handle="alice", handle="letters")
            assert (project.public_read, project.description) == (False, "")
            assert project.shares.count() == 2


def test_every_address_is_in_the_matrix() -> None:
    named = {getattr(pattern, "name", None) for pattern in urlpatterns}
    elsewhere = {name for name in matrices.ALL if " " not in name} | ELSEWHERE
    posted = {"share", "describe", "draw", "upload-store", "save-schema"}
    assert named == {*(set(PAGES) - posted), *elsewhere, *FREE}


def _owner_only() -> Iterator[str]:
    yield from (f"{PROJECT}/sharing", f"{PROJECT}/settings")


@pytest.mark.parametrize("actor", ["reader", "editor"])
def test_those_who_read_are_not_shown_what_only_owners_use(
    actor: str, browsers: dict[str, Client]
) -> None:
    text = page(browsers[actor].get(f"{PROJECT}/"))
    assert not any(f'href="{address}"' in text for address in _owner_only())
    assert {"reader": "erin", "editor": "rita"}[actor] not in text


def test_strangers_do_not_learn_whether_a_project_exists(browsers: dict[str, Client]) -> None:
    there = page(browsers["stranger"].get(f"{PROJECT}/"), 404)
    nothing = page(browsers["stranger"].get("/p/alice/nothing/"), 404)
    plain = [
        text.replace("letters", "nothing").split("<main")[1].split("</main>")[0]
        for text in (there, nothing)
    ]
    assert plain[0] == plain[1]


def test_public_projects_need_no_account(texts: Cast) -> None:
    texts.alice.patch("/v1/projects/alice/letters", {"public_read": True})
    for address in ("/", "/texts", "/texts/a/1", "/search?text_id=a/1"):
        page(browser().get(f"{PROJECT}{address}"))
    assert "letters" in page(browser().get("/"))

"""Signing in and out, the limit on failures, themes."""

from typing import Any

import pytest
from django.test import Client

from accounts import services as accounts
from accounts.models import Role, Session
from accounts.policy import BOOTSTRAP_ADMIN
from tests.console.browser import PROJECT, browser, page
from tests.factories import Cast, stored

PASSWORD = "a quiet reading room"


@pytest.fixture
def alice(cast: Cast) -> Cast:
    """The cast; Alice has a password."""
    accounts.set_password(actor=BOOTSTRAP_ADMIN, handle="alice", password=PASSWORD)
    return cast


def sign_in(client: Client, **sent: str) -> Any:
    """Send one of the forms."""
    return client.post("/sign-in", sent)


def test_a_password_opens_a_session_and_leads_back(alice: Cast) -> None:
    client = browser()
    asked: Any = client.get(f"{PROJECT}/settings")
    assert asked.headers["Location"] == "/sign-in?next=%2Fp%2Falice%2Fletters%2Fsettings"
    page(client.get(asked.headers["Location"]))
    done = sign_in(client, handle="alice", password=PASSWORD, next=f"{PROJECT}/settings")
    assert done.headers["Location"] == f"{PROJECT}/settings"
    page(client.get(f"{PROJECT}/settings"))
    assert client.get("/sign-in").headers["Location"] == "/"


@pytest.mark.parametrize("address", ["https://evil.example", "//evil.example", "javascript:x"])
def test_nobody_is_led_to_another_server(address: str, alice: Cast) -> None:
    done = sign_in(browser(), handle="alice", password=PASSWORD, next=address)
    assert done.headers["Location"] == "/"


def test_a_wrong_password_is_refused_like_an_unknown_handle(alice: Cast) -> None:
    wrong = page(sign_in(browser(), handle="alice", password="wrong"), 400)
    unknown = page(sign_in(browser(), handle="nobody-here", password="wrong"), 400)
    for text in (wrong, unknown):
        assert "This handle and this password do not belong together" in text
        assert 'value="wrong"' not in text
    assert 'value="alice"' in wrong


def test_empty_fields_are_named(db: None) -> None:
    text = page(sign_in(browser(), handle="", password=""), 400)
    assert "Type your handle." in text
    assert "Type your password." in text
    assert "Paste your API key." in page(sign_in(browser(), key=""), 400)


def test_signing_out_ends_the_session(alice: Cast) -> None:
    client = browser()
    sign_in(client, handle="alice", password=PASSWORD)
    kept = client.cookies["sessionid"].value
    assert client.post("/sign-out").status_code == 302
    again = browser()
    again.cookies["sessionid"] = kept
    assert again.get(f"{PROJECT}/").status_code == 302
    assert client.get("/sign-out").status_code == 405


def test_signing_in_again_goes_on_with_one_session(alice: Cast) -> None:
    client = browser()
    for _ in range(3):
        assert sign_in(client, handle="alice", password=PASSWORD).status_code == 302
        page(client.get(f"{PROJECT}/"))
    assert Session.objects.filter(user__handle="alice").count() == 1


def test_a_new_password_ends_other_sessions(alice: Cast) -> None:
    client = browser()
    sign_in(client, handle="alice", password=PASSWORD)
    accounts.set_password(actor=BOOTSTRAP_ADMIN, handle="alice", password="another one, longer")
    assert client.get(f"{PROJECT}/").status_code == 302


def test_a_key_opens_a_session_that_ends_with_the_key(alice: Cast) -> None:
    client = browser()
    sign_in(client, handle="alice", password=PASSWORD)
    before = client.cookies["sessionid"].value
    assert sign_in(client, key=str(alice.rita.key)).status_code == 302
    assert client.cookies["sessionid"].value != before
    assert "rita" in page(client.get("/"))
    accounts.revoke_keys(stored("rita").api_keys.all())
    assert client.get(f"{PROJECT}/").status_code == 302
    assert "rita" not in page(client.get("/"))


def test_a_capped_key_opens_no_door_to_the_administration_site(alice: Cast) -> None:
    key = accounts.create_key(user=stored("ada"), role_cap=Role.READER)
    client = browser()
    sign_in(client, key=key)
    text = page(client.get("/"))
    assert "/admin/" not in text
    assert client.get("/admin/").status_code == 302
    assert client.get(f"{PROJECT}/").status_code == 404


@pytest.mark.parametrize("key", ["arm_wrong", "x" * 64, "a" * 64, "Schlüssel"])
def test_a_wrong_key_is_refused_without_being_repeated(key: str, alice: Cast) -> None:
    text = page(sign_in(browser(), key=key), 400)
    assert "This API key is unknown, expired or revoked." in text
    assert key not in text


def test_failures_are_limited_by_handle_and_address(alice: Cast, settings: Any) -> None:
    settings.AXES_FAILURE_LIMIT = 3
    client = browser()
    for _ in range(2):
        page(sign_in(client, handle="alice", password="wrong"), 400)
    refused = sign_in(client, handle="alice", password="wrong")
    assert "Signing in failed too often" in page(refused, 429)
    assert refused.headers["Retry-After"] == "900"
    page(sign_in(client, handle="alice", password=PASSWORD), 429)
    # Others, and Alice elsewhere, are let in.
    elsewhere: Any = browser().post(
        "/sign-in", {"handle": "alice", "password": PASSWORD}, REMOTE_ADDR="203.0.113.7"
    )
    assert elsewhere.status_code == 302


def test_wrong_keys_are_limited_but_a_good_one_is_let_in(alice: Cast, settings: Any) -> None:
    settings.AXES_FAILURE_LIMIT = 3
    client = browser()
    answers = [sign_in(client, key="arm_wrong").status_code for _ in range(4)]
    assert answers == [400, 400, 429, 429]
    assert sign_in(client, key=str(alice.alice.key)).status_code == 302


def test_forms_need_a_token(alice: Cast) -> None:
    client = Client(enforce_csrf_checks=True, headers={"Accept": "text/html"})
    for address in ("/sign-in", "/sign-out", "/appearance", f"{PROJECT}/settings/delete"):
        text = page_of_refusal(client.post(address, {"handle": "alice", "password": PASSWORD}))
        assert "Nothing was changed" in text


def page_of_refusal(response: Any) -> str:
    """Return a page that Django shows before any of ours."""
    return page(response, 403)


def test_the_theme_is_kept_in_a_cookie(db: None) -> None:
    client = browser()
    assert "data-theme" not in page(client.get("/"))
    done: Any = client.post("/appearance", {"theme": "dark", "next": "/sign-in"})
    assert done.headers["Location"] == "/sign-in"
    assert 'data-theme="dark"' in page(client.get("/"))
    page(client.post("/appearance", {"theme": "pink"}), 400)

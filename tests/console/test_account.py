"""One's own account: profile, password, keys, sessions."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts import services as accounts
from accounts.models import ApiKey, Role, Session
from accounts.policy import BOOTSTRAP_ADMIN
from accounts.sessions import USE_RESOLUTION
from tests.console import matrices, test_matrix
from tests.console.browser import browser, page, queries
from tests.console.conftest import HOSTILE
from tests.factories import Caller, Cast, make_project, stored
from tests.jobs import run_jobs

PASSWORD = "a quiet reading room"
NEW = "an even quieter reading room"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/128.0.0.0 Safari/537.36"
)

browsers = test_matrix.browsers


@pytest.fixture
def alice(cast: Cast) -> Client:
    """A browser in which Alice signed in with her password."""
    accounts.set_password(actor=BOOTSTRAP_ADMIN, handle="alice", password=PASSWORD)
    return signed_in()


def signed_in(agent: str = FIREFOX) -> Client:
    """Return another browser in which Alice signed in with her password."""
    client = Client(headers={"Accept": "text/html", "User-Agent": agent})
    done: Any = client.post("/sign-in", {"handle": "alice", "password": PASSWORD})
    assert done.status_code == 302
    return client


def with_key(**limits: Any) -> Client:
    """Return a browser in which Alice signed in with a key."""
    return test_matrix.with_key(accounts.create_key(user=stored("alice"), **limits))


@pytest.mark.parametrize("name", matrices.ACCOUNT)
def test_everybody_gets_what_the_policy_says(name: str, browsers: dict[str, Client]) -> None:
    matrices.check(matrices.ACCOUNT[name], browsers)


# --- Profile and password -------------------------------------------------------------------------
def test_name_and_address_are_changed(alice: Client) -> None:
    sent = {"name": HOSTILE[:50], "email": "alice@example.org"}
    assert alice.post("/account/", sent).status_code == 302
    text = page(alice.get("/account/"))
    assert "Saved." in text
    assert 'value="alice@example.org"' in text
    assert "&lt;script&gt;" in text
    # Nothing but these can be changed by sending more.
    alice.post("/account/", {**sent, "is_superuser": "on", "handle": "root"})
    assert not stored("alice").is_superuser


@pytest.mark.parametrize(
    ("email", "problem"),
    [
        ("nonsense", "is not an email address"),
        ("taken@example.org", "already has this email address"),
        ("x" * 101, "at most 100 characters"),
    ],
)
def test_a_wrong_address_is_refused_beside_the_field(
    email: str, problem: str, alice: Client
) -> None:
    accounts.update_user(
        actor=BOOTSTRAP_ADMIN, handle="sam", changes={"email": "taken@example.org"}
    )
    text = page(alice.post("/account/", {"name": "Kept", "email": email}), 400)
    assert problem in text
    assert 'value="Kept"' in text
    assert stored("alice").email is None


def test_x3_a_new_password_signs_out_all_others(alice: Client) -> None:
    other, by_key = signed_in(), with_key()
    before = alice.cookies["sessionid"].value
    sent = {"current": PASSWORD, "new": NEW, "again": NEW}
    assert alice.post("/account/password", sent).status_code == 302
    assert "The password is changed." in page(alice.get("/account/"))
    assert alice.cookies["sessionid"].value != before
    for client in (other, by_key):
        assert client.get("/account/").status_code == 302
    stolen = browser()
    stolen.cookies["sessionid"] = before
    assert stolen.get("/account/").status_code == 302
    done: Any = browser().post("/sign-in", {"handle": "alice", "password": NEW})
    assert done.status_code == 302


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        ({"current": "wrong"}, "This is not your password of now."),
        ({"current": ""}, "Type your password of now."),
        ({"new": "short", "again": "short"}, "too short"),
        ({"new": "alice@example.org", "again": "alice@example.org"}, "too similar"),
        ({"again": "another"}, "not the same as the line above"),
    ],
)
def test_a_password_is_refused_beside_its_field(
    sent: dict[str, str], problem: str, alice: Client
) -> None:
    accounts.update_user(
        actor=BOOTSTRAP_ADMIN, handle="alice", changes={"email": "alice@example.org"}
    )
    given = {"current": PASSWORD, "new": NEW, "again": NEW, **sent}
    text = page(alice.post("/account/password", given), 400)
    assert problem in text
    assert not any(f'value="{secret}"' in text for secret in (PASSWORD, NEW, "wrong", "short"))
    # The session and the old password go on.
    page(alice.get("/account/"))
    signed_in()


def test_guessing_the_password_in_a_stolen_session_is_limited(alice: Client, settings: Any) -> None:
    settings.AXES_FAILURE_LIMIT = 3
    sent = {"current": "wrong", "new": NEW, "again": NEW}
    answers = [alice.post("/account/password", sent).status_code for _ in range(4)]
    assert answers == [400, 400, 429, 429]


def test_an_account_without_a_password_sets_its_first_by_an_uncapped_key(cast: Cast) -> None:
    client = with_key()
    text = page(client.get("/account/"))
    assert "has no password yet" in text
    assert 'name="current"' not in text
    assert client.post("/account/password", {"new": NEW, "again": NEW}).status_code == 302
    page(client.get("/account/"))
    assert 'name="current"' in page(client.get("/account/"))


# --- Keys -----------------------------------------------------------------------------------------
def made(response: Any) -> str:
    """Return the key on the page that shows it."""
    found = re.search(r'id="new-key">([^<]+)<', page(response))
    assert found is not None
    return found[1]


def test_a2_a_key_is_made_shown_once_and_works(alice: Client) -> None:
    make_project("alice", "other")
    day = (timezone.now() + timedelta(days=10)).date()
    sent = {"name": HOSTILE, "role": "reader", "project": "alice/letters", "last_day": str(day)}
    key = made(alice.post("/account/keys", sent))
    caller = Caller(key)
    assert caller.get("/v1/projects/alice/letters").status == 200
    assert caller.patch("/v1/projects/alice/letters", {"description": "x"}).status == 403
    assert caller.get("/v1/projects/alice/other").status == 403
    stored_key = ApiKey.objects.get(name=HOSTILE)
    assert stored_key.expires_at is not None
    assert stored_key.expires_at.date() == day
    made(alice.post("/account/keys", {"name": "long", "last_day": "9999-12-31"}))
    page(alice.get("/account/keys"))
    text = page(alice.get("/account/keys"))
    for word in ("reads and searches only", "in alice/letters only", stored_key.public_id):
        assert word in text
    for address in ("/account/", "/account/keys", "/account/sessions", "/"):
        assert key not in page(alice.get(address))


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        ({"name": ""}, "Say what the key is for"),
        ({"name": "x" * 256}, "at most 255 characters"),
        ({"role": "owner"}, "Select a valid choice"),
        ({"project": "bob/secret"}, "Select a valid choice"),
        ({"last_day": "2020-01-01"}, "has passed already"),
        ({"last_day": "soon"}, "Write the day as"),
    ],
)
def test_a_wrong_key_is_refused_beside_its_field(
    sent: dict[str, str], problem: str, alice: Client
) -> None:
    before = ApiKey.objects.count()
    assert problem in page(alice.post("/account/keys", {"name": "Kept", **sent}), 400)
    assert ApiKey.objects.count() == before


def test_a_key_that_ends_makes_none_that_outlives_it(cast: Cast) -> None:
    client = with_key(expires_at=timezone.now() + timedelta(days=5))
    text = page(client.post("/account/keys", {"name": "for ever"}), 400)
    assert "a key made with it must end by then" in text
    day = (timezone.now() + timedelta(days=2)).date()
    made(client.post("/account/keys", {"name": "short", "last_day": str(day)}))


def test_a_key_is_revoked_with_the_session_that_it_opened(alice: Client) -> None:
    key = made(alice.post("/account/keys", {"name": "notebook"}))
    by_key = test_matrix.with_key(key)
    page(by_key.get("/account/keys"))
    public_id = ApiKey.objects.get(name="notebook").public_id
    assert alice.post("/account/keys/revoke", {"key": public_id}).status_code == 302
    text = page(alice.get("/account/keys"))
    assert "The key notebook is revoked." in text
    assert "1 former key" in text
    assert Caller(key).get("/v1/projects/alice").status == 401
    assert by_key.get("/account/").status_code == 302
    page(alice.post("/account/keys/revoke", {"key": public_id}), 404)


def test_nobody_revokes_the_keys_of_others(alice: Client, cast: Cast) -> None:
    key = stored("sam").api_keys.get()
    page(alice.post("/account/keys/revoke", {"key": key.public_id}), 404)
    assert cast.sam.get("/v1/projects/sam").status == 200


# --- Sessions -------------------------------------------------------------------------------------
def test_sessions_are_listed_and_ended(alice: Client) -> None:
    other, by_key = signed_in(CHROME), with_key(name="laptop")
    text = page(alice.get("/account/sessions"))
    for word in ("Firefox on Linux", "Chrome on Windows", "with the key laptop", "this browser"):
        assert word in text
    # Whoever reads the page cannot take a session over.
    keys = list(Session.objects.values_list("session_key", flat=True))
    assert not any(key in text for key in keys)
    chosen = Session.objects.get(agent=CHROME).public_id
    assert alice.post("/account/sessions/end", {"session": str(chosen)}).status_code == 302
    assert other.get("/account/").status_code == 302
    page(by_key.get("/account/"))
    page(alice.post("/account/sessions/end", {"session": str(chosen)}), 404)
    page(alice.post("/account/sessions/end", {"session": "nonsense"}), 400)
    alice.post("/account/sessions/end", {"session": "others"})
    assert "1 other session has ended." in page(alice.get("/account/sessions"))
    assert by_key.get("/account/").status_code == 302


def test_nobody_ends_the_sessions_of_others(alice: Client) -> None:
    sam = browser("sam")
    page(sam.get("/account/"))
    chosen = Session.objects.get(user__handle="sam").public_id
    page(alice.post("/account/sessions/end", {"session": str(chosen)}), 404)
    alice.post("/account/sessions/end", {"session": "others"})
    page(sam.get("/account/"))


def test_the_last_use_of_a_session_is_noted_once_a_minute(alice: Client) -> None:
    [row] = Session.objects.filter(user__handle="alice")
    page(alice.get("/account/"))
    assert Session.objects.get(pk=row.pk).last_used_at == row.last_used_at
    long_ago = timezone.now() - 2 * USE_RESOLUTION
    Session.objects.update(last_used_at=long_ago)
    page(alice.get("/account/"))
    noted = Session.objects.get(pk=row.pk)
    assert noted.last_used_at > long_ago
    assert (noted.started_at, noted.public_id) == (row.started_at, row.public_id)


def test_expired_sessions_are_deleted_by_a_job(alice: Client) -> None:
    from accounts.tasks import forget_sessions

    signed_in()
    Session.objects.filter(user__handle="alice").update(
        expire_date=timezone.now() - timedelta(days=1)
    )
    sam = browser("sam")
    forget_sessions()
    assert [each.user and each.user.handle for each in Session.objects.all()] == ["sam"]
    page(sam.get("/account/"))
    assert run_jobs() == []


# --- All of them ----------------------------------------------------------------------------------
def test_a_capped_key_sees_the_profile_and_changes_nothing(cast: Cast) -> None:
    text = page(with_key(role_cap=Role.READER).get("/account/"))
    assert "carries less than the account" in text
    assert "/account/keys" not in text
    assert "disabled" in text


def test_forms_need_a_token(alice: Client) -> None:
    alice.handler.enforce_csrf_checks = True
    before = (ApiKey.objects.count(), Session.objects.count(), stored("alice").password)
    for address in (
        "/account/",
        "/account/password",
        "/account/keys",
        "/account/keys/revoke",
        "/account/sessions/end",
    ):
        page(alice.post(address, {"name": "x", "session": "others"}), 403)
    assert before == (ApiKey.objects.count(), Session.objects.count(), stored("alice").password)


@pytest.mark.parametrize(
    ("address", "most"), [("/account/", 3), ("/account/keys", 7), ("/account/sessions", 4)]
)
def test_pages_take_few_queries(address: str, most: int, alice: Client) -> None:
    before = queries(alice, address)
    for number in range(4):
        accounts.create_key(user=stored("alice"), name=f"key {number}")
        signed_in()
    assert queries(alice, address) == before
    assert before <= most

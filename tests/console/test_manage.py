"""The pages for administrators: accounts, system, doctor, sanity check, audit log."""

from typing import Any

import pytest
from django.test import Client

from accounts.models import User
from embeddings.doctor import _SOME_PROJECTS
from projects.models import Project
from tests.console.browser import browser, page, queries
from tests.console.conftest import HOSTILE
from tests.console.test_matrix import with_key
from tests.factories import Cast, make_project, make_user, stored

SAM = "/manage/accounts/sam"
PAGES = [
    "/manage/",
    "/manage/sanity-check",
    "/manage/accounts",
    "/manage/new-account",
    SAM,
    "/manage/audit-log",
    "/p/alice/letters/audit-log",
    "/p/alice/letters/sharing",
]


@pytest.fixture(autouse=True)
def _fast_passwords(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def ada(texts: Cast) -> Client:
    """A browser of an administrator's."""
    return browser("ada")


@pytest.mark.parametrize("address", PAGES)
def test_pages_take_few_queries(address: str, ada: Client) -> None:
    assert queries(ada, address) <= 15


def test_the_doctor_asks_no_more_of_a_server_with_many_projects(ada: Client, texts: Cast) -> None:
    """It is an examination, so that it asks something of each of the projects it looks at."""
    for number in range(_SOME_PROJECTS):
        make_project("alice", f"more-{number}")
    first = queries(ada, "/manage/doctor?run=yes")
    for number in range(5):
        make_project("alice", f"others-{number}")
    assert queries(ada, "/manage/doctor?run=yes") <= first <= 30 + 6 * _SOME_PROJECTS


def test_the_way_there_is_shown_to_administrators_only(ada: Client) -> None:
    assert 'href="/manage/"' in page(ada.get("/"))
    for handle in ("alice", None):
        assert 'href="/manage/"' not in page(browser(handle).get("/"))
    assert 'href="/jobs/"' in page(browser("alice").get("/"))
    assert 'href="/jobs/"' not in page(browser().get("/"))


# --- Accounts -------------------------------------------------------------------------------------
def test_accounts_are_listed_and_found(ada: Client) -> None:
    text = page(ada.get("/manage/accounts"))
    for handle in ("ada", "alice", "erin", "rita", "sam"):
        assert f'href="/manage/accounts/{handle}"' in text
    text = page(ada.get("/manage/accounts?q=ALI"))
    assert 'href="/manage/accounts/alice"' in text
    assert 'href="/manage/accounts/sam"' not in text
    assert "None matches" in page(ada.get("/manage/accounts?q=nobody"))


def test_long_lists_have_parts(ada: Client) -> None:
    User.objects.bulk_create(User(handle=f"many-{number:03}") for number in range(60))
    first = page(ada.get("/manage/accounts?q=many"))
    assert 'href="?q=many&amp;from=50"' in first
    second = page(ada.get("/manage/accounts?q=many&from=50"))
    assert "many-059" in second
    assert "many-000" not in second
    assert 'href="?q=many" rel="prev"' in second
    assert "many-000" in page(ada.get("/manage/accounts?q=many&from=nonsense"))


def test_a_new_account_has_a_key_that_is_shown_once(ada: Client) -> None:
    sent = {"handle": "newcomer", "name": "New Comer", "email": "n@example.org"}
    text = page(ada.post("/manage/new-account", sent))
    key = text.partition('id="new-key">')[2].partition("<")[0]
    assert key.startswith("arm_")
    assert "newcomer" in page(with_key(key).get("/"))
    assert key not in page(ada.get("/manage/accounts/newcomer"))
    assert not stored("newcomer").has_usable_password()


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        ({"handle": ""}, "Give the account a handle"),
        ({"handle": "no spaces"}, "is not a valid user handle"),
        ({"handle": "ALICE"}, "already exists"),
        ({"email": "nonsense"}, "is not an email address"),
        ({"password": "short"}, "too short"),
    ],
)
def test_what_is_wrong_with_an_account_stands_beside_the_field(
    sent: dict[str, str], problem: str, ada: Client
) -> None:
    before = User.objects.count()
    text = page(ada.post("/manage/new-account", {"handle": "newcomer", **sent}), 400)
    assert problem in text
    assert User.objects.count() == before


def test_rights_are_given_and_taken(ada: Client) -> None:
    for change, field, value in (
        ("appoint", "is_superuser", True),
        ("dismiss", "is_superuser", False),
        ("deactivate", "is_active", False),
        ("activate", "is_active", True),
    ):
        response: Any = ada.post(f"{SAM}/access", {"change": change})
        assert response.headers["Location"] == SAM
        assert getattr(stored("sam"), field) is value
    assert ada.post(f"{SAM}/access", {"change": "nonsense"}).status_code == 404


def test_the_last_administrator_stays_one(ada: Client) -> None:
    ada.post("/manage/accounts/ada/access", {"change": "dismiss"})
    text = page(ada.get("/manage/accounts/ada"))
    assert "last active administrator" in text
    assert stored("ada").is_superuser


def test_a_password_is_set_and_removed(ada: Client) -> None:
    assert "too short" in page(ada.post(f"{SAM}/password", {"password": "short"}), 400)
    ada.post(f"{SAM}/password", {"password": "correct horse battery"})
    assert stored("sam").check_password("correct horse battery")
    ada.post(f"{SAM}/password", {"none": "yes"})
    assert not stored("sam").has_usable_password()


def test_deleting_names_what_goes_and_asks_for_the_handle(ada: Client) -> None:
    address = "/manage/accounts/alice"
    text = page(ada.get(address))
    for words in ("<b>2</b> projects", "<b>4</b> texts", "<b>1</b> LLM service", "<b>1</b> key"):
        assert words in text, words
    text = page(ada.post(f"{address}/delete", {"typed": "Alice"}), 400)
    assert "This is not the handle of the account" in text
    assert User.objects.filter(handle="alice").exists()
    response: Any = ada.post(f"{address}/delete", {"typed": "alice"})
    assert response.headers["Location"] == "/manage/accounts"
    assert not User.objects.filter(handle="alice").exists()
    assert not Project.objects.filter(owner__handle="alice").exists()


def test_nobody_deletes_themselves_or_the_program(ada: Client) -> None:
    text = page(ada.post("/manage/accounts/ada/delete", {"typed": "ada"}), 400)
    assert "another administrator can delete it" in text
    assert "cannot be changed" in page(
        ada.post("/manage/accounts/_system/delete", {"typed": "_system"}), 403
    )
    page(ada.get("/manage/accounts/_system"))
    page(ada.get("/manage/accounts/nobody"), 404)


def test_what_people_call_themselves_stays_text(ada: Client) -> None:
    make_user("mallory", name=HOSTILE[:50])
    for address in ("/manage/accounts", "/manage/accounts/mallory"):
        assert "<script>alert" not in page(ada.get(address))


# --- The server -----------------------------------------------------------------------------------
def test_the_system_page_tells_versions_sizes_and_the_worker(ada: Client) -> None:
    text = page(ada.get("/manage/"))
    for words in ("PostgreSQL", "vector", "None runs", "manage.py worker", "Encryption keys"):
        assert words in text, words


def test_the_doctor_tells_what_mends_what_it_finds(ada: Client, texts: Cast) -> None:
    before = page(ada.get("/manage/doctor"))
    assert "Examine the server" in before
    assert "No background worker runs" not in before
    text = page(ada.get("/manage/doctor?run=yes"))
    assert "No background worker runs" in text
    assert "manage.py worker" in text


def test_the_sanity_check_runs_when_asked_and_leads_to_the_texts(ada: Client, texts: Cast) -> None:
    assert "Check everything" in page(ada.get("/manage/sanity-check"))
    texts.alice.patch(
        "/v1/projects/alice/letters",
        {"metadataScheme": '{"type": "object", "required": ["author"]}'},
    )
    text = page(ada.get("/manage/sanity-check?run=yes"))
    assert "<b>1</b> text is wrong" in text
    assert 'href="/p/alice/letters/texts/%3Cscript%3E' in text
    page(ada.get("/manage/sanity-check?run=yes&x=1"), 400)


# --- The audit log --------------------------------------------------------------------------------
def test_the_audit_log_is_filtered(ada: Client, texts: Cast) -> None:
    texts.alice.delete("/v1/projects/alice/letters/share/rita")
    text = page(ada.get("/manage/audit-log?verb=unshare&account=alice"))
    assert "1 entry" in text
    assert "user: <bdi>rita</bdi>" in text
    assert "0 entries" in page(ada.get("/manage/audit-log?verb=unshare&until=2020-01-01"))
    assert "Select a valid choice" in page(ada.get("/manage/audit-log?verb=nothing"), 400)
    assert "Enter a valid date" in page(ada.get("/manage/audit-log?since=yesterday"), 400)


def test_owners_see_the_last_entries_where_they_share(texts: Cast) -> None:
    texts.ada.patch("/v1/projects/alice/letters", {"description": "By Ada"})
    alice = browser("alice")
    for address in ("/p/alice/letters/sharing", "/p/alice/letters/audit-log"):
        text = page(alice.get(address))
        assert "as administrator" in text
        assert stored("ada").api_keys.get().public_id not in text
    assert stored("ada").api_keys.get().public_id in page(browser("ada").get("/manage/audit-log"))

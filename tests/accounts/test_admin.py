"""The administration site: who gets in, accounts and keys."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.db.models import Model
from django.test import Client
from django.utils import timezone

from accounts import keys, services
from accounts.models import ApiKey, User
from accounts.policy import BOOTSTRAP_ADMIN
from projects.models import Project
from tests.admin_site import (
    SCRIPT,
    accepted,
    act,
    address,
    errors,
    page,
    queries,
    registered,
    sign_in,
    submit,
)
from tests.factories import Caller, Cast, make_instance, make_project, make_user, stored

PASSWORD = "correct-horse-battery"
EVERY_MODEL = pytest.mark.parametrize("model", registered(), ids=lambda model: model._meta.label)


@pytest.fixture(autouse=True)
def _fast_passwords(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def make_staff(*permissions: str) -> Client:
    """Make Stella, who may sign in and has some of Django's permissions."""
    make_user("stella")
    services.set_access(actor=BOOTSTRAP_ADMIN, handle="stella", changes={"is_staff": True})
    stella = stored("stella")
    stella.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return sign_in("stella")


# --- Who gets in ----------------------------------------------------------------------------------
def test_every_model_is_there() -> None:
    assert [model._meta.label for model in registered()] == [
        "accounts.ApiKey",
        "accounts.AuditEntry",
        "accounts.User",
        "auth.Group",
        "embeddings.Embedding",
        "embeddings.EmbeddingJob",
        "embeddings.ImportJob",
        "embeddings.ProjectModel",
        "embeddings.Projection",
        "embeddings.Reembedding",
        "embeddings.SearchIndex",
        "llm_services.ApiStandard",
        "llm_services.Definition",
        "llm_services.DefinitionShare",
        "llm_services.EmbeddedText",
        "llm_services.EmbeddingModel",
        "llm_services.Instance",
        "llm_services.InstanceShare",
        "procrastinate.ProcrastinateJob",
        "procrastinate.ProcrastinateWorker",
        "projects.Project",
        "projects.ProjectShare",
        "resources.Agent",
        "resources.EndUser",
        "resources.File",
    ]


@EVERY_MODEL
def test_lists_searches_and_forms_open(cast: Cast, model: type[Model]) -> None:
    ada = sign_in()
    text = page(ada.get(address(model)))
    assert "Armarium administration" in text
    for search in ("letters", f"a'b\"c%_\\{SCRIPT}"):
        page(ada.get(address(model), {"q": search}))
    assert ada.get(address(model), {"q": "\x00"}).status_code in (200, 302)
    for wrong in ({"p": "-1"}, {"o": "99"}, {"nonsense": "1"}, {"created_at__year": "x"}):
        assert ada.get(address(model), wrong).status_code in (200, 302)
    form = ada.get(address(model, "add"))
    # What the program makes by itself has no form to make it.
    made_by_itself = {"embeddings", "procrastinate"}
    made_by_itself |= {"EmbeddedText", "EmbeddingModel", "AuditEntry"}
    page(form, 403 if made_by_itself & {model._meta.app_label, model.__name__} else 200)


def every_address() -> list[str]:
    return [address(model, each) for model in registered() for each in ("changelist", "add")]


def test_outsiders_are_sent_to_the_sign_in_page(cast: Cast) -> None:
    for client in (Client(), sign_in("alice")):
        for url in every_address():
            answer = client.get(url)
            assert answer.status_code == 302
            assert answer.headers["Location"].startswith("/admin/login/")


def test_staff_without_permissions_are_refused(cast: Cast) -> None:
    stella = make_staff()
    for url in every_address():
        assert stella.get(url).status_code == 403
        assert stella.post(url, {}).status_code == 403


def test_the_index_and_the_sign_in_page_hold_nothing_inline(cast: Cast) -> None:
    page(sign_in().get("/admin/"))
    page(Client().get("/admin/login/"))


def test_api_keys_open_no_page(cast: Cast) -> None:
    answer = Client().get("/admin/", headers={"Authorization": f"Bearer {cast.ada.key}"})
    assert answer.status_code == 302


def test_nobody_filters_by_secrets(cast: Cast) -> None:
    ada = sign_in()
    for model, lookup in (
        (User, "password__startswith"),
        (ApiKey, "digest"),
        (ApiKey, "user__password"),
    ):
        assert ada.get(address(model), {lookup: "x"}).status_code == 400


def test_lists_take_as_many_queries_for_two_rows_as_for_twenty(cast: Cast) -> None:
    ada = sign_in()
    models = (User, ApiKey)
    few = [queries(ada, address(model)) for model in models]
    for number in range(20):
        make_user(f"user{number}")
    assert [queries(ada, address(model)) for model in models] == few


# --- Accounts -------------------------------------------------------------------------------------
def new_user(client: Client, **entered: Any) -> Any:
    return client.post(address(User, "add"), {"handle": "nora", "name": "", "email": "", **entered})


def key_on(text: str) -> str:
    found = re.findall(keys.PATTERN, text)
    assert len(found) == 1, found
    return str(found[0])


def test_a_new_account_has_a_default_project_and_a_key_that_is_shown_once(cast: Cast) -> None:
    ada = sign_in()
    answer = new_user(ada, name=SCRIPT, email="nora@example.org")
    key = key_on(page(answer))
    assert "no-store" in answer.headers["Cache-Control"]
    assert key not in str(ada.cookies)
    nora = stored("nora")
    assert not nora.has_usable_password()
    assert not nora.is_staff
    assert Project.objects.get(owner=nora).is_default
    assert Caller(key).get("/v1/users/nora").status == 200
    for url in (address(nora, "change"), address(User), address(ApiKey), "/admin/"):
        assert key not in page(ada.get(url))
    assert "&lt;script&gt;" in page(ada.get(address(nora, "change")))
    assert "&lt;script&gt;" in page(ada.get(address(User)))


def test_a_new_account_may_sign_in_with_a_password(cast: Cast) -> None:
    page(new_user(sign_in(), password1=PASSWORD, password2=PASSWORD, is_superuser="on"))
    nora = Client()
    sent = {"username": "nora", "password": PASSWORD, "next": "/admin/"}
    assert nora.post("/admin/login/", sent).status_code == 302
    page(nora.get("/admin/"))


@pytest.mark.parametrize(
    ("entered", "field"),
    [
        ({"handle": ""}, "handle"),
        ({"handle": "no spaces"}, "handle"),
        ({"handle": "admin"}, "handle"),
        ({"handle": "alice"}, "__all__"),
        ({"handle": "ALICE"}, "__all__"),
        ({"handle": "x" * 21}, "handle"),
        ({"name": "x" * 51}, "name"),
        ({"email": "nonsense"}, "email"),
        ({"password1": "short", "password2": "short"}, "password1"),
        ({"password1": "correct-horse-battery"}, "password2"),
        ({"password1": "one-correct-horse", "password2": "two-correct-horse"}, "password2"),
    ],
)
def test_bad_accounts_are_refused_beside_the_field(
    cast: Cast, entered: dict[str, str], field: str
) -> None:
    answer = new_user(sign_in(), **entered)
    assert list(errors(answer)) == [field]
    assert "battery" not in page(answer)
    assert User.objects.filter(handle__iexact=entered.get("handle") or "nora").count() <= 1
    assert not User.objects.filter(handle="nora").exists()


def test_accounts_change(cast: Cast) -> None:
    ada, alice = sign_in(), stored("alice")
    group = Group.objects.create(name="Readers")
    answer = submit(
        ada,
        address(alice, "change"),
        name="Alice",
        email="alice@example.org",
        is_active=None,
        groups=[group.pk],
        handle="other",
    )
    accepted(answer)
    alice.refresh_from_db()
    assert (alice.handle, alice.name, alice.email) == ("alice", "Alice", "alice@example.org")
    assert not alice.is_active
    assert list(alice.groups.all()) == [group]
    assert cast.alice.get("/v1/users/alice").status == 401


def test_an_email_belongs_to_one_account(cast: Cast) -> None:
    services.update_user(actor=BOOTSTRAP_ADMIN, handle="erin", changes={"email": "e@example.org"})
    answer = submit(sign_in(), address(stored("alice"), "change"), email="e@example.org")
    assert errors(answer) == {"__all__": ["Another user already has this email address."]}


def test_the_last_administrator_stays_one(cast: Cast) -> None:
    ada = sign_in()
    for change in ({"is_superuser": None}, {"is_active": None}):
        answer = submit(ada, address(stored("ada"), "change"), **change)
        assert "last active administrator" in errors(answer)["__all__"][0]
        assert stored("ada").is_superuser
        assert stored("ada").is_active
    make_user("adam", is_superuser=True)
    accepted(submit(ada, address(stored("adam"), "change"), is_superuser=None))
    assert not stored("adam").is_superuser


def test_the_system_account_cannot_be_changed(cast: Cast) -> None:
    ada, system = sign_in(), stored("_system")
    page(ada.get(address(system, "change")))
    assert ada.post(address(system, "change"), {"name": "x"}).status_code == 403
    assert ada.post(address(system, "delete"), {"post": "yes"}).status_code == 403
    assert ada.get(f"/admin/accounts/user/{system.pk}/password/").status_code == 403
    act(ada, User, "delete_selected", [system, stored("sam")], post="yes")
    assert {"_system", "sam"} <= set(User.objects.values_list("handle", flat=True))


def test_passwords_are_set_and_taken_away(cast: Cast) -> None:
    ada, alice = sign_in(), stored("alice")
    url = f"/admin/accounts/user/{alice.pk}/password/"
    assert "not set" in page(ada.get(address(alice, "change")))
    page(ada.get(url))
    answer = ada.post(url, {"password1": PASSWORD, "password2": PASSWORD})
    accepted(answer)
    assert stored("alice").check_password(PASSWORD)
    text = page(ada.get(address(alice, "change")))
    assert stored("alice").password not in text
    assert "md5" not in text
    page(ada.post(url, {"usable_password": "true", "password1": "x", "password2": "x"}))
    assert stored("alice").check_password(PASSWORD)
    accepted(ada.post(url, {"usable_password": "false", "unset-password": "1"}))
    assert not stored("alice").has_usable_password()


def test_changing_the_own_password_keeps_the_session(cast: Cast) -> None:
    ada = sign_in()
    url = f"/admin/accounts/user/{stored('ada').pk}/password/"
    accepted(ada.post(url, {"password1": PASSWORD, "password2": PASSWORD}))
    page(ada.get("/admin/"))


def test_deleting_an_account_names_what_goes_along(cast: Cast) -> None:
    ada, alice = sign_in(), stored("alice")
    text = page(ada.get(address(alice, "delete")))
    for number in ("Projects: 2", "LLM service instances: 1", "API keys: 1", "Project shares: 2"):
        assert number in text
    accepted(ada.post(address(alice, "delete"), {"post": "yes"}))
    assert not User.objects.filter(handle="alice").exists()


def test_an_account_whose_instance_others_use_stays(cast: Cast) -> None:
    ada, alice = sign_in(), stored("alice")
    Project.objects.filter(owner__handle="sam").update(instance=cast.project.instance)
    answer = ada.post(address(alice, "delete"), {"post": "yes"})
    assert "in use by 1 projects of others" in accepted(answer)[0]
    answer = act(ada, User, "delete_selected", [alice, stored("rita")], post="yes")
    assert "in use by 1 projects of others" in accepted(answer)[0]
    assert {"alice", "rita"} <= set(User.objects.values_list("handle", flat=True))


def test_nobody_deletes_their_own_account(cast: Cast) -> None:
    answer = sign_in().post(address(stored("ada"), "delete"), {"post": "yes"})
    assert answer.status_code == 403


# --- Staff ----------------------------------------------------------------------------------------
def test_staff_act_within_their_permissions(cast: Cast) -> None:
    stella = make_staff("view_user", "add_user", "change_user")
    page(new_user(stella, is_superuser="on"))
    assert not stored("nora").is_superuser
    accepted(submit(stella, address(stored("nora"), "change"), name="Nora", is_superuser="on"))
    assert (stored("nora").name, stored("nora").is_superuser) == ("Nora", False)
    assert stella.get(address(Project)).status_code == 403
    assert stella.post(address(stored("nora"), "delete"), {"post": "yes"}).status_code == 403


def test_staff_do_not_reach_above_themselves(cast: Cast) -> None:
    stella = make_staff(
        "view_user", "change_user", "delete_user", "view_apikey", "add_apikey", "change_apikey"
    )
    ada = stored("ada")
    for user in (ada, stored("stella")):
        page(stella.get(address(user, "change")))
        assert stella.post(address(user, "change"), {"name": "x"}).status_code == 403
        assert stella.post(address(user, "delete"), {"post": "yes"}).status_code == 403
        password = {"password1": PASSWORD, "password2": PASSWORD}
        url = f"/admin/accounts/user/{user.pk}/password/"
        assert stella.post(url, password).status_code == 403
        answer = stella.post(address(ApiKey, "add"), {"user": user.pk, "name": ""})
        assert list(errors(answer)) == ["user"]
    key = ada.api_keys.get()
    assert stella.post(address(key, "change"), {"name": "x"}).status_code == 403
    act(stella, ApiKey, "revoke", [key], post="yes")
    key.refresh_from_db()
    assert key.revoked_at is None
    act(stella, User, "delete_selected", [ada], post="yes")
    assert stored("ada").name == ""


# --- Keys -----------------------------------------------------------------------------------------
def test_a_new_key_is_shown_once(cast: Cast) -> None:
    ada = sign_in()
    until = timezone.now() + timedelta(days=1)
    entered = {
        "user": stored("alice").pk,
        "name": SCRIPT,
        "role_cap": "reader",
        "project": cast.project.pk,
        "expires_at_0": until.date().isoformat(),
        "expires_at_1": "00:00:00",
    }
    answer = ada.post(address(ApiKey, "add"), entered)
    key = key_on(page(answer))
    assert "no-store" in answer.headers["Cache-Control"]
    assert Caller(key).get("/v1/projects/alice/letters").status == 200
    assert Caller(key).get("/v1/projects/alice/default").status == 403
    row = stored("alice").api_keys.get(role_cap="reader")
    digest = bytes(row.digest).hex()
    for url in (address(ApiKey), address(row, "change"), address(row, "delete"), "/admin/"):
        text = page(ada.get(url))
        assert key not in text
        assert digest not in text
        assert repr(bytes(row.digest)) not in text


def test_the_system_account_gets_no_key(cast: Cast) -> None:
    answer = sign_in().post(address(ApiKey, "add"), {"user": stored("_system").pk, "name": ""})
    assert errors(answer) == {"__all__": ["'_system' cannot have keys."]}


def test_only_the_name_of_a_key_changes(cast: Cast) -> None:
    ada, key = sign_in(), stored("alice").api_keys.get()
    answer = submit(
        ada, address(key, "change"), name="laptop", user=stored("sam").pk, role_cap="reader"
    )
    accepted(answer)
    key.refresh_from_db()
    assert (key.name, key.user.handle, key.role_cap) == ("laptop", "alice", "")


def test_revoking_asks_first_and_acts_at_once(cast: Cast) -> None:
    ada, key = sign_in(), stored("alice").api_keys.get()
    assert "Revoke this key" in page(ada.get(address(key, "change")))
    assert key.public_id in page(act(ada, ApiKey, "revoke", [key]))
    assert cast.alice.get("/v1/users/alice").status == 200
    assert "1 API keys revoked." in accepted(act(ada, ApiKey, "revoke", [key], post="yes"))
    assert cast.alice.get("/v1/users/alice").status == 401
    assert "Revoke this key" not in page(ada.get(address(key, "change")))
    listed = page(ada.get(address(ApiKey), {"state": "revoked"}))
    assert key.public_id in listed
    for state in ("usable", "expired"):
        assert key.public_id not in page(ada.get(address(ApiKey), {"state": state}))


def test_keys_can_be_forgotten_by_administrators_only(cast: Cast) -> None:
    stella = make_staff("view_apikey", "change_apikey", "delete_apikey")
    ada, key = sign_in(), stored("alice").api_keys.get()
    assert stella.post(address(key, "delete"), {"post": "yes"}).status_code == 403
    accepted(ada.post(address(key, "delete"), {"post": "yes"}))
    assert not ApiKey.objects.filter(pk=key.pk).exists()


def test_fields_complete_names(cast: Cast) -> None:
    make_instance("sam", "mine")
    make_project("sam", "notes", instance="mine")
    asked = {
        "app_label": "accounts",
        "model_name": "apikey",
        "field_name": "project",
        "term": "notes",
    }
    answer = sign_in().get("/admin/autocomplete/", asked).json()
    assert [each["text"] for each in answer["results"]] == ["sam/notes"]
    assert Client().get("/admin/autocomplete/", asked).status_code == 302


def test_messages_are_text(cast: Cast) -> None:
    services.update_user(actor=BOOTSTRAP_ADMIN, handle="sam", changes={"name": SCRIPT})
    ada, sam = sign_in(), stored("sam")
    sam.api_keys.update(name=SCRIPT)
    key = sam.api_keys.get()
    for url in (address(key, "change"), address(key, "history"), address(sam, "change")):
        page(ada.get(url))
    page(act(ada, ApiKey, "revoke", [key]))
    page(act(ada, ApiKey, "delete_selected", [key]))

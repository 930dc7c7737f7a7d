"""The audit log (Z6): complete, append-only, without secrets, and shown to whom it concerns."""

import json
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from accounts import audit, services
from accounts.audit import Verb
from accounts.models import AuditEntry, Role
from accounts.policy import BOOTSTRAP_ADMIN
from projects.models import Project
from tests.admin_site import sign_in
from tests.console.browser import browser
from tests.factories import Answer, Caller, Cast, item, make_instance, make_user, stored

LETTERS = "/v1/projects/alice/letters"
MODEL = "/v1/llm-services/alice/model"
LOG = f"{LETTERS}/audit-log"
SERVER_LOG = "/v1/admin/audit-log"
CANARY = "canary-of-a-secret-0123456789"


@pytest.fixture(autouse=True)
def _fast_passwords(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def told(**lookup: Any) -> AuditEntry:
    """Return the newest entry like this."""
    found = AuditEntry.objects.filter(**lookup).order_by("-id").first()
    assert found is not None, lookup
    return found


def done(answer: Answer) -> Answer:
    """Return an answer that must be a good one."""
    assert answer.status < 300, answer.body
    return answer


# --- What is noted --------------------------------------------------------------------------------
# (method, path, body, verb, kind, subject, details)
CHANGES: list[tuple[str, str, Any, Verb, str, str, dict[str, Any]]] = [
    (
        "POST",
        f"{LETTERS}/share",
        {"share_with_handle": "sam", "role": "editor"},
        Verb.SHARE,
        "project",
        "alice/letters",
        {"user": "sam", "role": "editor"},
    ),
    (
        "POST",
        f"{LETTERS}/share",
        {"share_with_handle": "*", "role": "reader"},
        Verb.PUBLISH,
        "project",
        "alice/letters",
        {},
    ),
    (
        "DELETE",
        f"{LETTERS}/share/rita",
        None,
        Verb.UNSHARE,
        "project",
        "alice/letters",
        {"user": "rita"},
    ),
    (
        "PATCH",
        LETTERS,
        {"description": CANARY},
        Verb.UPDATE,
        "project",
        "alice/letters",
        {"fields": ["description"], "instance": "alice/model"},
    ),
    ("PATCH", LETTERS, {"public_read": True}, Verb.PUBLISH, "project", "alice/letters", {}),
    (
        "PATCH",
        LETTERS,
        {"shared_with": [{"user_handle": "erin", "role": "editor"}]},
        Verb.UNSHARE,
        "project",
        "alice/letters",
        {"user": "rita"},
    ),
    (
        "POST",
        f"{LETTERS}/transfer-ownership",
        {"new_owner_handle": "sam"},
        Verb.TRANSFER,
        "project",
        "sam/letters",
        {"old_owner": "alice", "new_owner": "sam"},
    ),
    (
        "DELETE",
        LETTERS,
        None,
        Verb.DELETE,
        "project",
        "alice/letters",
        {"on_resources": "restrict"},
    ),
    (
        "POST",
        "/v1/projects/alice",
        {"project_handle": "new", "instance_handle": "model"},
        Verb.CREATE,
        "project",
        "alice/new",
        {"instance": "alice/model"},
    ),
    ("PATCH", MODEL, {"api_key": CANARY}, Verb.SET_SECRET, "llm_service", "alice/model", {}),
    (
        "POST",
        f"{MODEL}/share",
        {"share_with_handle": "sam", "role": "reader"},
        Verb.SHARE,
        "llm_service",
        "alice/model",
        {"user": "sam", "role": "reader"},
    ),
    (
        "DELETE",
        "/v1/embeddings/alice/letters",
        None,
        Verb.DELETE,
        "embeddings",
        "alice/letters",
        {"count": 0},
    ),
    ("DELETE", "/v1/users/alice", None, Verb.DELETE, "account", "alice", {}),
    (
        "PATCH",
        "/v1/users/alice",
        {"email": "new@example.org"},
        Verb.UPDATE,
        "account",
        "alice",
        {"fields": ["email"]},
    ),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "verb", "kind", "subject", "details"),
    CHANGES,
    ids=lambda each: str(each) if isinstance(each, Verb) else "",
)
def test_z6_changes_are_noted_with_who_and_on_what(
    method: str,
    path: str,
    body: Any,
    verb: Verb,
    kind: str,
    subject: str,
    details: dict[str, Any],
    cast: Cast,
) -> None:
    alice = stored("alice")
    key = alice.api_keys.get().public_id
    before = AuditEntry.objects.count()
    done(cast.alice.ask(method, path, body))
    entry = told(verb=verb, kind=kind)
    assert (entry.subject, entry.details) == (subject, details)
    assert (entry.actor, entry.actor_id, entry.key_id) == ("alice", alice.pk, key)
    assert (entry.via, entry.as_admin) == ("key", False)
    assert len(entry.request_id) == 36
    assert AuditEntry.objects.count() == before + 1


def test_z6_what_is_refused_leaves_no_entry(cast: Cast) -> None:
    before = AuditEntry.objects.count()
    refused = [
        cast.rita.delete(LETTERS),
        cast.alice.post(f"{LETTERS}/share", {"share_with_handle": "nobody", "role": "reader"}),
        cast.alice.delete(f"{LETTERS}/share/sam"),
        cast.alice.delete(MODEL),
        cast.alice.post(f"{LETTERS}/transfer-ownership", {"new_owner_handle": "alice"}),
        cast.ada.post("/v1/users", {"user_handle": "alice"}),
    ]
    assert [each.status for each in refused] == [403, 400, 404, 409, 400, 409]
    assert AuditEntry.objects.count() == before


def test_z6_nothing_is_noted_twice_that_changes_nothing(cast: Cast) -> None:
    grants = {"shared_with": [{"user_handle": "rita", "role": "reader"}]}
    done(cast.alice.patch(LETTERS, grants))
    before = AuditEntry.objects.count()
    done(cast.alice.patch(LETTERS, grants))
    assert AuditEntry.objects.count() == before


def test_z6_administrators_are_named_where_they_act_for_others(cast: Cast) -> None:
    done(cast.ada.patch(LETTERS, {"description": "By Ada"}))
    assert told(verb=Verb.UPDATE, kind="project").as_admin
    rows = {"embeddings": [item("a", [1, 0, 0])]}
    done(cast.ada.post("/v1/embeddings/alice/letters", rows))
    entry = told(verb=Verb.CREATE, kind="embeddings")
    assert (entry.actor, entry.as_admin, entry.details) == ("ada", True, {"count": 1})
    # Permissions are remembered between uploads; what is noted is not.
    done(cast.ada.post("/v1/embeddings/alice/letters", {"embeddings": [item("b", [1, 0, 0])]}))
    assert AuditEntry.objects.filter(kind="embeddings").count() == 2
    # What owners and editors store is their own business.
    done(cast.erin.post("/v1/embeddings/alice/letters", {"embeddings": [item("c", [1, 0, 0])]}))
    done(cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": [item("d", [1, 0, 0])]}))
    assert AuditEntry.objects.filter(kind="embeddings").count() == 2


def test_z6_the_configured_admin_key_is_told_apart(cast: Cast, settings: Any) -> None:
    settings.ADMIN_KEY = "admin-key-of-the-tests-0123456789-0123456789"
    done(Caller(settings.ADMIN_KEY).post("/v1/users", {"user_handle": "newcomer"}))
    entry = told(verb=Verb.CREATE, kind="account")
    assert (entry.via, entry.actor, entry.as_admin) == ("admin_key", "", True)
    assert entry.subject == "newcomer"


def test_z6_keys_are_noted_by_their_public_part(cast: Cast) -> None:
    sam = stored("sam")
    services.create_key(user=sam, name=CANARY, role_cap=Role.READER)
    key = sam.api_keys.get(name=CANARY)
    entry = told(verb=Verb.CREATE, kind="api_key")
    assert (entry.subject, entry.owner, entry.via) == (key.public_id, "sam", "command")
    assert entry.details == {"role": "reader"}
    services.revoke_keys(sam.api_keys.filter(pk=key.pk))
    assert told(verb=Verb.REVOKE).subject == key.public_id
    # A key that is revoked already is not revoked again.
    assert services.revoke_keys(sam.api_keys.filter(pk=key.pk)) == 0
    assert AuditEntry.objects.filter(verb=Verb.REVOKE, subject=key.public_id).count() == 1
    services.delete_keys(sam.api_keys.filter(pk=key.pk))
    assert told(verb=Verb.DELETE, kind="api_key").subject == key.public_id


def test_z6_rights_and_passwords_are_noted(cast: Cast) -> None:
    services.set_access(actor=BOOTSTRAP_ADMIN, handle="sam", changes={"is_superuser": True})
    assert told(verb=Verb.SET_ACCESS).details == {"is_superuser": True}
    services.set_password(actor=BOOTSTRAP_ADMIN, handle="sam", password=CANARY)
    assert told(verb=Verb.SET_PASSWORD).details == {"has_password": True}


def test_z6_staff_are_named_though_the_system_acts_for_them(cast: Cast) -> None:
    make_user("stella")
    services.set_access(actor=BOOTSTRAP_ADMIN, handle="stella", changes={"is_staff": True})
    permissions = ["view_apikey", "change_apikey"]
    stored("stella").user_permissions.set(Permission.objects.filter(codename__in=permissions))
    key = stored("rita").api_keys.get()
    sent = {"action": "revoke", "_selected_action": [str(key.pk)], "post": "yes"}
    assert sign_in("stella").post("/admin/accounts/apikey/", sent).status_code == 302
    entry = told(verb=Verb.REVOKE)
    assert (entry.actor, entry.via, entry.subject) == ("stella", "session", key.public_id)


def test_z6_failures_to_sign_in_are_noted_for_accounts_that_there_are(cast: Cast) -> None:
    client = browser()
    client.post("/sign-in", {"handle": "alice", "password": CANARY})
    entry = told(verb=Verb.SIGN_IN_FAILED)
    assert (entry.subject, entry.actor, entry.via) == ("alice", "", "session")
    # Somebody typed the password into the wrong field.
    client.post("/sign-in", {"handle": CANARY[:20], "password": "alice"})
    assert AuditEntry.objects.filter(verb=Verb.SIGN_IN_FAILED).count() == 1


# --- What is not in it ----------------------------------------------------------------------------
def test_z6_e6_no_secret_and_no_text_is_in_the_log(cast: Cast) -> None:
    """Canaries in every field that may hold something secret, and what people wrote."""
    made = services.create_user(
        actor=BOOTSTRAP_ADMIN,
        handle="newcomer",
        name=CANARY,
        email=f"{CANARY}@example.org",
        password=CANARY,
    )
    instance: dict[str, Any] = {
        "api_key": CANARY,
        "endpoint": f"https://{CANARY}.example.org/",
        "model": CANARY,
    }
    make_instance("newcomer", "secret", description=CANARY, **instance)
    new = Caller(made.api_key)
    done(new.patch("/v1/llm-services/newcomer/secret", instance))
    done(new.put("/v1/llm-services/newcomer/secret", {**instance, "api_standard": "openai",
                                                      "dimensions": 3}))  # fmt: skip
    project = {"project_handle": "mine", "instance_handle": "secret", "description": CANARY}
    done(new.post("/v1/projects/newcomer", project))
    schema = {"metadataScheme": json.dumps({"type": "object", "title": CANARY})}
    done(new.patch("/v1/projects/newcomer/mine", schema))
    texts = [item("a", [1, 0, 0], text=CANARY, metadata={"x": CANARY}, instance_handle="secret")]
    done(cast.ada.post("/v1/embeddings/newcomer/mine", {"embeddings": texts}))
    change = {"filter": {"x": CANARY}, "metadata": {"x": f"{CANARY}2"}}
    done(cast.ada.post("/v1/embeddings/newcomer/mine/update", change))
    services.set_password(actor=BOOTSTRAP_ADMIN, handle="newcomer", password=f"{CANARY}3")
    services.import_key(user=made.user, key="ab" * 32, name=CANARY)
    done(new.delete("/v1/projects/newcomer/mine"))
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_jsonb(entry)::text FROM accounts_auditentry entry")
        everything = "\n".join(row for (row,) in cursor.fetchall())
    assert "newcomer/secret" in everything
    assert "set_secret" in everything
    for secret in (CANARY, made.api_key, made.api_key[20:], "ab" * 32):
        assert secret not in everything
    shown = done(cast.ada.get(f"{SERVER_LOG}?limit=200")).content.decode()
    assert CANARY not in shown


# --- It is append-only ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE accounts_auditentry SET actor = 'mallory'",
        "DELETE FROM accounts_auditentry",
    ],
)
def test_z6_the_database_refuses_to_change_entries(statement: str, cast: Cast) -> None:
    done(cast.alice.patch(LETTERS, {"description": "Letters"}))
    before = list(AuditEntry.objects.values())
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        connection.cursor().execute(statement)
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        AuditEntry.objects.all().delete()
    assert list(AuditEntry.objects.values()) == before


def test_z6_an_entry_outlives_what_it_is_about(cast: Cast) -> None:
    done(cast.alice.patch(LETTERS, {"description": "Letters"}))
    done(cast.ada.delete("/v1/users/alice"))
    assert AuditEntry.objects.filter(subject="alice/letters").exists()
    assert told(verb=Verb.DELETE, kind="account").subject == "alice"


def test_z6_retention_deletes_what_is_old_and_says_so(cast: Cast) -> None:
    number = AuditEntry.objects.count()
    out = StringIO()
    call_command("pruneauditlog", "--older-than", "1", stdout=out)
    assert out.getvalue() == "0 entries of the audit log deleted.\n"
    deleted = audit.prune(before=timezone.now() + timedelta(hours=1))
    assert deleted == number + 1
    (entry,) = AuditEntry.objects.all()
    assert (entry.verb, entry.details["count"]) == (Verb.PRUNE, deleted)
    # And nothing else may after that, in the same transaction.
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        AuditEntry.objects.all().delete()


# --- Who reads it ---------------------------------------------------------------------------------
def test_z6_owners_read_the_log_of_their_projects(cast: Cast) -> None:
    done(cast.ada.patch(LETTERS, {"description": "By Ada"}))
    done(cast.alice.delete(f"{LETTERS}/share/rita"))
    answer = done(cast.alice.get(LOG))
    first, second = answer["entries"][:2]
    assert (first["verb"], first["account"], first["details"]) == (
        "unshare",
        "alice",
        {"user": "rita"},
    )
    assert first["key_id"] == stored("alice").api_keys.get().public_id
    # Of an administrator they learn who, not by which key.
    assert (second["account"], second["as_admin"], second["key_id"]) == ("ada", True, None)
    assert {each["subject"] for each in answer["entries"]} == {"alice/letters"}
    for caller, status in ((cast.erin, 403), (cast.rita, 403), (cast.sam, 403), (cast.nobody, 401)):
        assert caller.get(LOG).status == status
        assert caller.get(SERVER_LOG).status == (401 if caller is cast.nobody else 403)


def test_z6_the_log_goes_with_a_project(cast: Cast) -> None:
    done(cast.alice.post(f"{LETTERS}/transfer-ownership", {"new_owner_handle": "sam"}))
    answer = done(cast.sam.get("/v1/projects/sam/letters/audit-log"))
    assert [each["verb"] for each in answer["entries"]][:1] == ["transfer"]
    assert cast.alice.get("/v1/projects/sam/letters/audit-log").status == 403


def test_z6_a_number_that_is_given_again_shows_nothing_of_before(cast: Cast) -> None:
    """A server that was emptied starts numbering anew."""
    number = cast.project.pk
    done(cast.alice.delete(LETTERS))
    alice, instance = stored("alice"), cast.project.instance
    project = Project(pk=number, owner=alice, handle="again", instance=instance)
    project.save(force_insert=True)
    assert done(cast.alice.get("/v1/projects/alice/again/audit-log"))["entries"] == []


def test_z6_a_strangers_key_for_a_public_project_is_not_the_owners_business(cast: Cast) -> None:
    done(cast.alice.patch(LETTERS, {"public_read": True}))
    services.create_key(user=stored("sam"), project_id=cast.project.pk)
    services.create_key(user=stored("alice"), project_id=cast.project.pk)
    keys = [each for each in done(cast.alice.get(LOG))["entries"] if each["kind"] == "api_key"]
    assert [each["owner"] for each in keys] == ["alice"]


def test_z6_the_log_is_filtered_and_paged(cast: Cast) -> None:
    done(cast.alice.patch(LETTERS, {"description": "Letters"}))
    done(cast.alice.post(f"{LETTERS}/share", {"share_with_handle": "sam", "role": "reader"}))
    done(cast.ada.delete(f"{LETTERS}/share/sam"))
    assert done(cast.alice.get(f"{LOG}?verb=unshare"))["total_count"] == 1
    by_ada = done(cast.alice.get(f"{LOG}?account=ada"))
    assert [each["verb"] for each in by_ada["entries"]] == ["unshare"]
    moment = told(verb=Verb.UNSHARE).at.isoformat().replace("+00:00", "Z")
    assert done(cast.alice.get(f"{LOG}?since={moment}"))["total_count"] == 1
    assert done(cast.alice.get(f"{LOG}?until={moment}&account=ada"))["total_count"] == 0
    page = done(cast.ada.get(f"{SERVER_LOG}?kind=project&limit=1&offset=1"))
    assert (page["entries"][0]["verb"], page["has_more"]) == ("share", True)
    assert done(cast.alice.get(f"{LOG}?offset=100"))["entries"] == []


@pytest.mark.parametrize("query", ["verb=nothing", "since=yesterday", "kind=project", "limit=0"])
def test_z6_what_makes_no_sense_is_refused(query: str, cast: Cast) -> None:
    answer = cast.alice.get(f"{LOG}?{query}")
    assert answer.status == 400
    assert query.partition("=")[0] in answer["errors"][0]["location"]

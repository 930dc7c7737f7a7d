"""The default project: everybody has one, from the first moment, and it stays."""

from importlib import import_module
from io import StringIO
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import IntegrityError, transaction

from accounts.models import User
from projects.default_project import ensure_default_project
from projects.models import Project
from tests.admin_site import sign_in
from tests.factories import Cast, item, make_instance, make_user, stored

DEFAULT = "/v1/projects/alice/default"
BUILTIN = {"instance_owner": "_system", "instance_handle": "builtin"}


def defaults_of(handle: str) -> list[Project]:
    return list(Project.objects.filter(owner__handle=handle, is_default=True))


def test_a_new_account_has_one_that_text_can_go_into_at_once(cast: Cast) -> None:
    found = dict(cast.alice.get(DEFAULT).body)
    for name in ("project_id", "instance_id", "created_at", "updated_at"):
        assert found.pop(name)
    assert found == {
        "project_handle": "default",
        "owner": "alice",
        "description": "",
        **BUILTIN,
        "public_read": False,
        "role": "owner",
        "number_of_embeddings": 0,
        "metadataScheme": None,
        "shared_with": [],
    }
    new = item("a", [0.5] * 512, instance_handle="_system/builtin")
    assert cast.alice.post("/v1/embeddings/alice/default", {"embeddings": [new]}).status == 201
    assert cast.sam.get(DEFAULT).status == 403


def test_it_is_in_the_owners_list(cast: Cast) -> None:
    listed = cast.alice.get("/v1/projects/alice")["projects"]
    assert [each["project_handle"] for each in listed] == ["default", "letters"]


def test_every_way_to_make_an_account_makes_it(cast: Cast) -> None:
    make_user("bob")
    User.objects.create_superuser("root-admin", "secret")
    User.objects.create_user("carol")
    call_command("createowner", "dora", stdout=StringIO())
    assert cast.ada.post("/v1/users", {"user_handle": "emil"}).status == 201
    assert cast.ada.put("/v1/users/fred", {}).status == 201
    new = {"handle": "gina", "name": "", "email": "", "password1": "", "password2": ""}
    assert sign_in().post("/admin/accounts/user/add/", new).status_code == 200
    for handle in ("bob", "root-admin", "carol", "dora", "emil", "fred", "gina"):
        assert [each.handle for each in defaults_of(handle)] == ["default"]
    assert defaults_of("_system") == []


def test_an_account_without_one_gets_it_with_its_next_project(cast: Cast) -> None:
    Project.objects.filter(owner__handle="sam").delete()
    new = {"project_handle": "first", **BUILTIN}
    assert cast.sam.post("/v1/projects/sam", new).status == 201
    assert len(defaults_of("sam")) == 1
    assert cast.sam.get("/v1/projects/sam/default").status == 200


def test_making_it_again_changes_nothing(cast: Cast) -> None:
    before = cast.alice.get(DEFAULT).body
    for _ in range(3):
        ensure_default_project(stored("alice"))
    assert cast.alice.get(DEFAULT).body == before


@pytest.mark.parametrize("role", ["owner", "admin"])
def test_it_cannot_be_deleted(cast: Cast, role: str) -> None:
    answer = cast.with_role(role).delete(DEFAULT)
    assert (answer.status, answer["detail"]) == (409, "The default project cannot be deleted.")
    assert cast.alice.get(DEFAULT).status == 200


@pytest.mark.parametrize("handle", ["default", "Default", "DEFAULT"])
def test_its_handle_is_taken_in_every_casing(cast: Cast, handle: str) -> None:
    answer = cast.alice.post("/v1/projects/alice", {"project_handle": handle, **BUILTIN})
    assert (answer.status, answer["status"]) == (409, 409)
    assert len(defaults_of("alice")) == 1


@pytest.mark.parametrize(
    "body", [{"project_handle": "renamed"}, {"project_handle": "Default"}], ids=str
)
def test_it_cannot_be_renamed(cast: Cast, body: dict[str, Any]) -> None:
    assert cast.alice.patch(DEFAULT, body).status == 400
    assert cast.alice.put(DEFAULT, {**BUILTIN, **body}).status == 400
    assert cast.alice.get(DEFAULT).status == 200


def test_its_settings_can_be_changed_and_it_stays_the_default(cast: Cast) -> None:
    changed = cast.alice.patch(DEFAULT, {"description": "Odds and ends", "public_read": True})
    assert (changed.status, changed["description"]) == (200, "Odds and ends")
    make_instance("alice", "own")
    assert cast.alice.put(DEFAULT, {"instance_handle": "own"}).status == 200
    assert [each.handle for each in defaults_of("alice")] == ["default"]
    share = {"share_with_handle": "rita", "role": "reader"}
    assert cast.alice.post(f"{DEFAULT}/share", share).status == 201
    assert cast.rita.get(DEFAULT)["role"] == "reader"


def test_it_goes_with_the_account(cast: Cast) -> None:
    assert cast.sam.delete("/v1/users/sam").status == 200
    assert defaults_of("sam") == []


def test_the_database_itself_allows_no_second_one(cast: Cast) -> None:
    project = defaults_of("alice")[0]
    for handle in ("default", "second"):
        with pytest.raises(IntegrityError), transaction.atomic():
            Project.objects.create(
                owner=project.owner, instance=project.instance, handle=handle, is_default=True
            )
    with pytest.raises(IntegrityError), transaction.atomic():
        Project.objects.filter(pk=project.pk).update(handle="renamed")


def test_the_migration_gives_one_to_every_account_that_has_none(cast: Cast) -> None:
    Project.objects.filter(owner__handle__in=["sam", "rita"]).delete()
    kept = defaults_of("alice")[0].uuid
    migration = import_module("projects.migrations.0003_default_projects")
    for _ in range(2):
        migration.make_default_projects(apps, None)
        for handle in ("sam", "rita"):
            (made,) = defaults_of(handle)
            assert (made.handle, made.name, str(made.instance)) == (
                "default",
                "Default Project",
                "_system/builtin",
            )
            assert made.metadata["is_default"] is True
        assert [each.uuid for each in defaults_of("alice")] == [kept]
        assert defaults_of("_system") == []

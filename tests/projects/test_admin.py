"""The administration site: projects and the grants on them."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db.models import Model
from django.test import Client

from accounts import services as accounts
from accounts.policy import BOOTSTRAP_ADMIN
from embeddings import store
from embeddings.models import Embedding
from llm_services.selectors import builtin_instance
from projects.models import Project, ProjectShare
from resources.models import Agent, EndUser, File
from resources.services import create_resource
from tests.admin_site import (
    NO_SHARES,
    SCRIPT,
    accepted,
    act,
    address,
    errors,
    page,
    queries,
    sign_in,
    submit,
)
from tests.factories import Cast, make_instance, make_project, make_user, stored, vectors

SCHEMA = '{"type": "object",\n "required": ["author"]}\n'


def add_project(client: Client, **entered: Any) -> Any:
    values = {"owner": stored("sam").pk, "handle": "notes", "instance": builtin_instance().pk}
    sent = {**NO_SHARES, **values, **entered}
    sent = {name: value for name, value in sent.items() if value is not None}
    return client.post(address(Project, "add"), sent)


def fill(project: Project, count: int = 2) -> None:
    store.insert(
        project.pk,
        project.instance_id,
        text_ids=[f"t{number}" for number in range(count)],
        vectors=vectors(count, project.instance.dimensions),
        texts=["text"] * count,
        metadata=[b"{}"] * count,
    )


def sharees(project: Project) -> dict[str, str]:
    return {each.user.handle: each.role for each in ProjectShare.of(project)}


def test_projects_are_made_with_a_schema_and_grants(cast: Cast) -> None:
    ada = sign_in()
    answer = add_project(
        ada,
        description=SCRIPT,
        public_read="on",
        metadata_schema=SCHEMA.replace("\n", "\r\n"),
        **{"shares-0-user": stored("rita").pk, "shares-0-role": "editor"},
    )
    accepted(answer)
    notes = Project.objects.get(owner__handle="sam", handle="notes")
    assert (notes.description, notes.metadata_schema, notes.public_read) == (SCRIPT, SCHEMA, True)
    assert sharees(notes) == {"rita": "editor"}
    assert cast.rita.get("/v1/projects/sam/notes").status == 200
    for url in (address(Project), address(notes, "change"), address(notes, "delete")):
        page(ada.get(url))


@pytest.mark.parametrize(
    ("entered", "field"),
    [
        ({"handle": "default"}, "__all__"),
        ({"handle": "a b"}, "handle"),
        ({"handle": ""}, "handle"),
        ({"owner": None}, "owner"),
        ({"instance": None}, "instance"),
        ({"metadata_schema": "nonsense"}, "metadata_schema"),
        ({"metadata_schema": '{"type": 1}'}, "metadata_schema"),
        ({"metadata_schema": "[" * 100_000}, "metadata_schema"),
        ({"metadata_schema": '{"$ref": "http://example.org/"}'}, "metadata_schema"),
        ({"description": "x" * 256}, "description"),
        ({"shares-0-user": "sam"}, None),
    ],
)
def test_bad_projects_are_refused_beside_the_field(
    cast: Cast, entered: dict[str, Any], field: str | None
) -> None:
    answer = add_project(sign_in(), **entered)
    assert list(errors(answer)) == ([field] if field else [])
    assert Project.objects.filter(owner__handle="sam").count() == 1


def test_an_instance_out_of_reach_is_refused(cast: Cast) -> None:
    answer = add_project(sign_in(), instance=cast.project.instance.pk)
    assert "There is no LLM service instance" in errors(answer)["instance"][0]


def test_projects_change(cast: Cast) -> None:
    ada, url = sign_in(), address(cast.project, "change")
    accepted(
        submit(
            ada,
            url,
            description="new",
            metadata_schema=SCHEMA,
            handle="other",
            name="The letters",
            metadata='{"team": "cs"}',
            owner=stored("sam").pk,
        ),
    )
    project = Project.objects.get(pk=cast.project.pk)
    assert (str(project), project.description, project.metadata_schema) == (
        "alice/letters",
        "new",
        SCHEMA,
    )
    assert (project.name, project.metadata) == ("The letters", {"team": "cs"})
    assert list(errors(submit(ada, url, metadata_schema="{"))) == ["metadata_schema"]
    page(ada.get(url))
    page(ada.get(address(cast.project, "history")))


def test_a_new_project_has_the_name_and_the_metadata_that_were_entered(cast: Cast) -> None:
    ada = sign_in()
    accepted(add_project(ada, name="The notes", metadata='{"team": "cs"}'))
    notes = Project.objects.get(owner__handle="sam", handle="notes")
    assert (notes.name, notes.metadata) == ("The notes", {"team": "cs"})
    accepted(add_project(ada, handle="more"))
    more = Project.objects.get(owner__handle="sam", handle="more")
    assert (more.name, more.metadata) == ("more", {})
    assert list(errors(add_project(ada, handle="third", name="bell\a"))) == ["name"]
    assert not Project.objects.filter(handle="third").exists()


def test_metadata_becomes_what_the_form_shows(cast: Cast) -> None:
    ada, url = sign_in(), address(cast.project, "change")
    Project.objects.filter(pk=cast.project.pk).update(metadata={"old": 1, "kept": 1})
    accepted(submit(ada, url, metadata='{"kept": true}'))
    cast.project.refresh_from_db()
    assert cast.project.metadata == {"kept": True}
    accepted(submit(ada, url, metadata=""))
    cast.project.refresh_from_db()
    assert cast.project.metadata == {}


@pytest.mark.parametrize(
    ("entered", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"name": "bell\a"}, "name"),
        ({"metadata": "[]"}, "metadata"),
        ({"metadata": "{"}, "metadata"),
        ({"metadata": '{"a": "\\u0000"}'}, "metadata"),
    ],
)
def test_names_and_metadata_follow_the_rules_of_the_api(
    cast: Cast, entered: dict[str, str], field: str
) -> None:
    answer = submit(sign_in(), address(cast.project, "change"), description="lost", **entered)
    assert list(errors(answer)) == [field]
    cast.project.refresh_from_db()
    assert (cast.project.name, cast.project.description) == ("letters", "")


def test_metadata_and_schemas_are_text(cast: Cast) -> None:
    schema = '{"title": "</textarea><script>alert(1)</script>"}'
    Project.objects.filter(pk=cast.project.pk).update(
        metadata={SCRIPT: [SCRIPT]}, name=SCRIPT, metadata_schema=schema
    )
    ada = sign_in()
    page(ada.get(address(Project)))
    assert "&lt;script&gt;" in page(ada.get(address(cast.project, "change")))
    accepted(submit(ada, address(cast.project, "change")))
    assert Project.objects.get(pk=cast.project.pk).metadata_schema == schema


def test_the_instance_of_stored_embeddings_keeps_its_dimensions(cast: Cast) -> None:
    ada, url = sign_in(), address(cast.project, "change")
    other = make_instance("alice", "other", dimensions=4)
    same = make_instance("alice", "same", dimensions=3)
    fill(cast.project)
    assert "holds 2 embeddings of 3" in errors(submit(ada, url, instance=other.pk))["__all__"][0]
    accepted(submit(ada, url, instance=same.pk))
    assert Project.objects.get(pk=cast.project.pk).instance == same


def test_grants_are_given_changed_and_taken_back(cast: Cast) -> None:
    ada, url = sign_in(), address(cast.project, "change")
    assert sharees(cast.project) == {"erin": "editor", "rita": "reader"}
    accepted(
        submit(
            ada,
            url,
            **{
                "shares-0-DELETE": "on",
                "shares-1-role": "editor",
                "shares-2-0-user": stored("sam").pk,
            },
        ),
    )
    assert sharees(cast.project) == {"rita": "editor", "sam": "reader"}
    refused = errors(submit(ada, url, **{"shares-2-0-user": stored("alice").pk}))
    assert "is the owner" in refused["__all__"][0]
    refused = errors(submit(ada, url, **{"shares-2-0-user": stored("_system").pk}))
    assert "does not exist" in refused["__all__"][0]
    assert sharees(cast.project) == {"rita": "editor", "sam": "reader"}


def test_grants_have_pages_of_their_own(cast: Cast) -> None:
    ada = sign_in()
    entered = {"subject": cast.project.pk, "user": stored("sam").pk, "role": "editor"}
    accepted(submit(ada, address(ProjectShare, "add"), **entered))
    share = ProjectShare.objects.get(user__handle="sam")
    accepted(submit(ada, address(share, "change"), role="reader"))
    assert sharees(cast.project)["sam"] == "reader"
    page(ada.get(address(share, "delete")))
    accepted(ada.post(address(share, "delete"), {"post": "yes"}))
    assert "sam" not in sharees(cast.project)
    answer = submit(ada, address(ProjectShare, "add"), **{**entered, "user": stored("alice").pk})
    assert list(errors(answer)) == ["user"]


def test_projects_are_transferred(cast: Cast) -> None:
    ada, diary = sign_in(), make_project("alice", "diary")
    make_project("sam", "letters", instance="builtin", instance_owner="_system")
    assert ">Transfer…</button>" in page(ada.get(address(cast.project, "change")))
    rows: list[Model] = [diary, cast.project]
    asked = page(act(ada, Project, "transfer", rows))
    assert "alice/diary" in asked
    assert "The old owners lose all access." in asked
    # All of the chosen, or none.
    for new_owner in ("alice", "sam", "_system", ""):
        answer = act(
            ada, Project, "transfer", rows, post="yes", new_owner=new_owner and stored(new_owner).pk
        )
        assert list(answer.context["form"].errors) == ["new_owner"]
        assert Project.objects.filter(owner__handle="alice").count() == 3
    answer = act(ada, Project, "transfer", rows, post="yes", new_owner=stored("rita").pk)
    assert accepted(answer) == ["2 projects transferred to rita."]
    project = Project.objects.get(pk=cast.project.pk)
    assert str(project) == "rita/letters"
    assert sharees(project) == {"erin": "editor"}
    messages = LogEntry.objects.values_list("change_message", flat=True)
    assert sorted(messages) == ["Transferred from alice to rita."] * 2


def test_projects_are_made_public_once_confirmed_and_private_at_once(cast: Cast) -> None:
    ada, rows = sign_in(), [cast.project, make_project("alice", "diary")]
    asked = page(act(ada, Project, "make_public", rows))
    assert "without an account or a key" in asked
    assert not Project.objects.filter(public_read=True).exists()
    answer = act(ada, Project, "make_public", rows, post="yes")
    assert accepted(answer) == ["2 projects made public."]
    assert cast.nobody.get("/v1/embeddings/alice/letters").status == 200
    answer = act(ada, Project, "make_private", rows[:1])
    assert accepted(answer) == ["1 project made private."]
    assert cast.nobody.get("/v1/embeddings/alice/letters").status == 401
    assert cast.nobody.get("/v1/embeddings/alice/diary").status == 200


def test_projects_lead_to_their_pages_for_those_who_may_see_all_of_them(cast: Cast) -> None:
    ada = sign_in()
    there = 'href="/p/alice/letters/"'
    for url in (address(Project), address(cast.project, "change"), address(ProjectShare)):
        assert there in page(ada.get(url)), url
    accounts.set_access(actor=BOOTSTRAP_ADMIN, handle="sam", changes={"is_staff": True})
    permissions = Permission.objects.filter(codename__in=["view_project", "view_projectshare"])
    stored("sam").user_permissions.set(permissions)
    for url in (address(Project), address(cast.project, "change"), address(ProjectShare)):
        assert "/p/alice" not in page(sign_in("sam").get(url)), url


def test_default_projects_stay(cast: Cast) -> None:
    ada = sign_in()
    default = Project.objects.get(owner__handle="alice", is_default=True)
    assert ">Transfer…</button>" not in page(ada.get(address(default, "change")))
    entered = {"description": "mine", "name": "Mine", "metadata": '{"a": 1}', "handle": "other"}
    accepted(submit(ada, address(default, "change"), **entered))
    default.refresh_from_db()
    assert (default.handle, default.description) == ("default", "mine")
    assert (default.name, default.metadata) == ("Mine", {"a": 1})
    answer = act(ada, Project, "transfer", [default], post="yes", new_owner=stored("sam").pk)
    assert "cannot be transferred" in answer.context["form"].errors["new_owner"][0]
    assert ada.post(address(default, "delete"), {"post": "yes"}).status_code == 403
    rows: list[Model] = [default, cast.project]
    page(act(ada, Project, "delete_selected", rows))
    assert act(ada, Project, "delete_selected", rows, post="yes").status_code == 403
    assert Project.objects.filter(owner__handle="alice").count() == 2


def test_deleting_counts_what_goes_along(cast: Cast) -> None:
    ada = sign_in()
    fill(cast.project, 7)
    text = page(ada.get(address(cast.project, "delete")))
    assert "Embeddings: 7" in text
    assert "Project shares: 2" in text
    accepted(ada.post(address(cast.project, "delete"), {"post": "yes"}))
    assert not Embedding.objects.exists()


# --- What a project groups ------------------------------------------------------------------------
def group(project: Project, agents: int = 2) -> None:
    """Put agents and an end user into the project."""
    whose: dict[str, Any] = {"actor": BOOTSTRAP_ADMIN, "owner": project.owner}
    for kind, count in ((Agent, agents), (EndUser, 1)):
        for _ in range(count):
            values = {"name": "Scribe", "project": project.handle}
            create_resource(kind, values=values, **whose)


def test_a_project_shows_how_much_it_groups_and_leads_there(cast: Cast) -> None:
    ada = sign_in()
    group(cast.project)
    text = page(ada.get(address(cast.project, "change")))
    for kind, shown in ((Agent, "2 agents"), (EndUser, "1 end user"), (File, "0 files")):
        assert f'href="{address(kind)}?project={cast.project.pk}">{shown}</a>' in text


def test_deleting_asks_what_becomes_of_what_a_project_groups(cast: Cast) -> None:
    ada, url = sign_in(), address(cast.project, "delete")
    assert 'name="on_resources"' not in page(ada.get(url))
    group(cast.project)
    text = page(ada.get(url))
    assert "2 agents, 1 end user" in text
    assert text.count('name="on_resources"') == 3


@pytest.mark.parametrize("sent", [{}, {"on_resources": "restrict"}, {"on_resources": "x"}])
def test_without_a_choice_nothing_is_deleted(cast: Cast, sent: dict[str, str]) -> None:
    ada = sign_in()
    group(cast.project)
    answer = ada.post(address(cast.project, "delete"), {"post": "yes", **sent})
    assert answer.headers["Location"] == address(cast.project, "delete")
    assert "still holds 2 agents, 1 user" in accepted(answer)[0]
    rows: list[Model] = [cast.project]
    chosen = act(ada, Project, "delete_selected", rows, post="yes", **sent)
    assert "still holds 2 agents, 1 user" in accepted(chosen)[0]
    assert Agent.objects.filter(project=cast.project).count() == 2
    assert not LogEntry.objects.exists()


def test_what_a_project_groups_moves_to_the_default_project(cast: Cast) -> None:
    group(cast.project)
    sent = {"post": "yes", "on_resources": "move"}
    accepted(sign_in().post(address(cast.project, "delete"), sent))
    default = Project.objects.get(owner__handle="alice")
    assert default.is_default
    assert set(Agent.objects.values_list("project", flat=True)) == {default.pk}
    assert set(EndUser.objects.values_list("project", flat=True)) == {default.pk}


def test_what_chosen_projects_group_goes_with_them(cast: Cast) -> None:
    ada = sign_in()
    rows: list[Model] = [cast.project, make_project("alice", "archive")]
    for project in Project.objects.filter(owner__handle="alice"):
        group(project)
    assert "4 agents, 2 end users" in page(act(ada, Project, "delete_selected", rows))
    sent = {"post": "yes", "on_resources": "delete"}
    accepted(act(ada, Project, "delete_selected", rows, **sent))
    default = Project.objects.get(owner__handle="alice")
    assert default.is_default
    assert set(Agent.objects.values_list("project", flat=True)) == {default.pk}
    assert EndUser.objects.get().project == default


def test_staff_do_with_what_a_project_groups_what_their_permissions_say(cast: Cast) -> None:
    make_user("stella")
    accounts.set_access(actor=BOOTSTRAP_ADMIN, handle="stella", changes={"is_staff": True})
    permissions = ["delete_project", "view_project", "delete_projectshare", "change_agent"]
    stella, url = stored("stella"), address(cast.project, "delete")
    stella.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    group(cast.project)
    for choice in ("move", "delete"):
        client = sign_in("stella")
        assert f'value="{choice}"' not in page(client.get(url))
        refused = client.post(url, {"post": "yes", "on_resources": choice})
        assert "still holds" in accepted(refused)[0]
    stella.user_permissions.add(Permission.objects.get(codename="change_enduser"))
    client = sign_in("stella")
    assert 'value="delete"' not in page(client.get(url))
    answer = client.post(url, {"post": "yes", "on_resources": "move"})
    assert answer.status_code == 302
    assert not Project.objects.filter(pk=cast.project.pk).exists()
    assert Agent.objects.count() == 2


def test_pages_take_as_many_queries_for_two_rows_as_for_twenty(cast: Cast) -> None:
    ada = sign_in()
    urls = [address(Project), address(ProjectShare), address(cast.project, "change")]
    few = [queries(ada, url) for url in urls]
    for number in range(20):
        make_user(f"user{number}")
        make_instance(f"user{number}")
        make_project(f"user{number}", readers=["sam"])
        ProjectShare.objects.create(subject=cast.project, user=stored(f"user{number}"))
    assert [queries(ada, url) for url in urls] == few


def test_nonsense_in_fields_that_complete_names_is_an_error_not_a_crash(cast: Cast) -> None:
    ada = sign_in()
    page(ada.get(address(Project, "add"), {"owner": "x", "instance": SCRIPT}))
    for wrong in ("x", SCRIPT, "9" * 30, "\x00"):
        answer = add_project(ada, owner=wrong, instance=wrong)
        assert list(errors(answer)) == ["owner", "instance"]

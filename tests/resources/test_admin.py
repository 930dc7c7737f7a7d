"""The administration site: agents, end users and files."""

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest
from django.contrib.auth.models import Permission
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db.models import Model
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoCaptureOnCommitCallbacks

from accounts import services as accounts
from accounts.policy import BOOTSTRAP_ADMIN
from common.admin import MAXIMUM_CHOSEN
from projects.models import Project
from resources import services
from resources.models import DEFAULT_SYSTEM_TEMPLATE, Agent, EndUser, File, ProjectResource
from tests.admin_site import (
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
from tests.factories import Cast, make_instance, make_project, make_user, stored
from tests.resources.things import CONTENT, kept, make

EVERY_KIND = pytest.mark.parametrize("kind", [Agent, EndUser, File])


def add(client: Client, kind: type[Model], **entered: Any) -> Any:
    """Fill in the form for a new one, as it comes and with what is entered."""
    project = Project.objects.get(owner__handle="alice", handle="letters")
    return submit(client, address(kind, "add"), **{"project": project.pk, **entered})


def upload(name: str = "letter.txt", content: bytes = CONTENT) -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content)


def default_project(owner: str = "alice") -> Project:
    return Project.objects.get(owner__handle=owner, is_default=True)


def listed(client: Client, kind: type[Model], **asked: Any) -> set[Any]:
    answer = client.get(address(kind), asked)
    page(answer)
    return {row.pk for row in answer.context["cl"].result_list}


def make_staff(*permissions: str) -> Client:
    """Make Stella, who may sign in and has some of Django's permissions."""
    make_user("stella")
    accounts.set_access(actor=BOOTSTRAP_ADMIN, handle="stella", changes={"is_staff": True})
    stella = stored("stella")
    stella.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return sign_in("stella")


# --- Agents and end users -------------------------------------------------------------------------
def test_an_agent_is_made_in_a_project_and_belongs_to_its_owner(cast: Cast) -> None:
    ada = sign_in()
    accepted(
        add(
            ada,
            Agent,
            name=SCRIPT,
            canonical_name="scribe",
            about="Copies\r\nletters",
            model="any/model-1",
            instructions='["Be brief.", "", "Two\\nlines"]',
            metadata='{"a": {"b": [1, null, "ü"]}}',
            default_settings='{"temperature": 0.5}',
            default_system_template="{{ agent.name }}",
        )
    )
    agent = cast.alice.get("/agents")["items"][0]
    assert (agent["name"], agent["canonical_name"], agent["project"]) == (
        SCRIPT,
        "scribe",
        "letters",
    )
    assert (agent["about"], agent["model"]) == ("Copies\nletters", "any/model-1")
    assert agent["instructions"] == ["Be brief.", "", "Two\nlines"]
    assert agent["metadata"] == {"a": {"b": [1, None, "ü"]}}
    assert agent["default_settings"] == {"temperature": 0.5}
    assert agent["default_system_template"] == "{{ agent.name }}"
    row = Agent.objects.get()
    for each in ("change", "delete", "history"):
        page(ada.get(address(row, each)))
    page(ada.get(address(Agent)))


def test_an_agent_needs_a_project_and_a_name_only(cast: Cast) -> None:
    accepted(add(sign_in(), Agent, name="The Scribe"))
    agent = Agent.objects.get()
    assert agent.canonical_name.startswith("the_scribe_")
    assert agent.default_system_template == DEFAULT_SYSTEM_TEMPLATE
    assert (agent.instructions, agent.metadata, agent.default_settings) == ([], {}, {})


def test_an_end_user_is_made(cast: Cast) -> None:
    accepted(add(sign_in(), EndUser, about="Came by", metadata='{"plan": "pro"}'))
    user = cast.alice.get("/users")["items"][0]
    assert (user["name"], user["about"], user["metadata"]) == ("", "Came by", {"plan": "pro"})
    assert str(EndUser.objects.get().uuid) in page(sign_in().get(address(EndUser)))


@pytest.mark.parametrize(
    ("entered", "field"),
    [
        ({"project": None}, "project"),
        ({"project": "x"}, "project"),
        ({"name": ""}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"name": "bell\a"}, "name"),
        ({"canonical_name": "9 lives"}, "canonical_name"),
        ({"canonical_name": "x" * 256}, "canonical_name"),
        ({"canonical_name": "TAKEN"}, "canonical_name"),
        ({"about": "x" * 16_001}, "about"),
        ({"model": "x" * 256}, "model"),
        ({"instructions": "[1]"}, "instructions"),
        ({"instructions": "{}"}, "instructions"),
        ({"instructions": "Be brief."}, "instructions"),
        ({"default_system_template": " \n"}, "default_system_template"),
        ({"default_system_template": ""}, "default_system_template"),
        ({"default_settings": "[]"}, "default_settings"),
        ({"metadata": "null"}, "metadata"),
        ({"metadata": "{"}, "metadata"),
        ({"metadata": "NaN"}, "metadata"),
        ({"metadata": '{"a": 1, "a": 2}'}, "metadata"),
        ({"metadata": '{"a": "\\u0000"}'}, "metadata"),
        ({"metadata": '{"a": "\\ud800"}'}, "metadata"),
        ({"metadata": '{"a": 18446744073709551616}'}, "metadata"),
        ({"metadata": "[" * 100_000}, "metadata"),
        ({"metadata": SCRIPT}, "metadata"),
    ],
)
def test_bad_agents_are_refused_beside_the_field(
    cast: Cast, entered: dict[str, Any], field: str
) -> None:
    make(Agent, canonical_name="taken")
    answer = add(sign_in(), Agent, **{"name": "Scribe", **entered})
    assert list(errors(answer)) == [field]
    assert Agent.objects.count() == 1


def test_what_is_wrong_with_a_document_is_said_and_the_text_stays(cast: Cast) -> None:
    text = '{"a":\r\n }'
    answer = add(sign_in(), Agent, name="Scribe", metadata=text)
    assert "The text is not valid JSON" in errors(answer)["metadata"][0]
    assert "line 2" in errors(answer)["metadata"][0]
    assert answer.context["adminform"].form["metadata"].value() == text


@pytest.mark.parametrize(
    ("entered", "field"),
    [
        ({"name": "x" * 121}, "name"),
        ({"name": "bell\a"}, "name"),
        ({"about": "x" * 16_001}, "about"),
        ({"metadata": "[]"}, "metadata"),
    ],
)
def test_bad_end_users_are_refused_beside_the_field(
    cast: Cast, entered: dict[str, Any], field: str
) -> None:
    assert list(errors(add(sign_in(), EndUser, **entered))) == [field]
    assert not EndUser.objects.exists()


def test_metadata_becomes_what_the_form_shows(cast: Cast) -> None:
    ada = sign_in()
    for kind in (Agent, EndUser):
        row = make(kind, metadata={"old": 1, "kept": 1})
        accepted(submit(ada, address(row, "change"), metadata='{"kept": true}'))
        row.refresh_from_db()
        assert row.metadata == {"kept": True}
        accepted(submit(ada, address(row, "change"), metadata=""))
        row.refresh_from_db()
        assert row.metadata == {}


def test_saving_a_form_as_it_came_changes_nothing(cast: Cast) -> None:
    ada = sign_in()
    agent = make(
        Agent,
        " Scribe ",
        about="\r\n two \n",
        model=" m ",
        instructions=["", " two\nlines\r\n", "[]"],
        metadata={"1": [1.0, True, {"ü": None}]},
        default_system_template="\n{{ x }}\n",
    )
    user = make(EndUser, "Ann\tSmith\n", about="\n")
    file = make(File, " two\nlines", description="\n\n", mime_type=None)
    for row in (agent, user, file):
        before = type(row).objects.filter(pk=row.pk).values().get()
        accepted(submit(ada, address(row, "change")))
        assert type(row).objects.filter(pk=row.pk).values().get() == before


def test_an_agent_changes(cast: Cast) -> None:
    ada, agent = sign_in(), make(Agent, canonical_name="scribe", instructions=["Be brief."])
    make(Agent, canonical_name="taken")
    url = address(agent, "change")
    accepted(submit(ada, url, canonical_name="Scribe", instructions='"Be kind."', name="New"))
    agent.refresh_from_db()
    assert (agent.canonical_name, agent.name) == ("Scribe", "New")
    assert agent.instructions == ["Be kind."]
    assert list(errors(submit(ada, url, canonical_name="Taken"))) == ["canonical_name"]
    assert list(errors(submit(ada, url, canonical_name=""))) == ["canonical_name"]


# --- Moving ---------------------------------------------------------------------------------------
@EVERY_KIND
def test_one_moves_between_the_projects_of_its_owner_only(cast: Cast, kind: Any) -> None:
    ada, row = sign_in(), make(kind)
    foreign = make_project("sam", "letters", instance="builtin", instance_owner="_system")
    answer = submit(ada, address(row, "change"), project=foreign.pk, name="lost")
    assert errors(answer) == {"project": ["Choose a project of 'alice'."]}
    accepted(submit(ada, address(row, "change"), project=default_project().pk))
    row.refresh_from_db()
    assert (row.project, row.name) == (default_project(), "Scribe")


def test_fields_complete_the_projects_of_the_owner(cast: Cast) -> None:
    ada, agent = sign_in(), make(Agent)
    field = ada.get(address(agent, "change")).context["adminform"].form["project"].field
    asked = {"app_label": "projects", "model_name": "projectshare", "field_name": "subject"}
    url = f"{field.widget.get_url()}&{urlencode(asked)}"
    found = ada.get(url).json()["results"]
    assert [each["text"] for each in found] == ["alice/default", "alice/letters"]
    for nonsense in ("x", "9" * 40, "9" * 5000, SCRIPT):
        everything = ada.get(reverse("admin:autocomplete"), {**asked, "of_owner": nonsense})
        assert everything.status_code == 200


@EVERY_KIND
def test_chosen_rows_move_together(cast: Cast, kind: Any) -> None:
    ada, archive = sign_in(), make_project("alice", "archive")
    rows: list[Any] = [make(kind, SCRIPT), make(kind, project="default")]
    asking = act(ada, kind, "move", rows)
    assert "in alice/letters" in page(asking)
    assert asking.context["title"] == f"Move {kind._meta.verbose_name_plural}"
    answer = act(ada, kind, "move", rows, post="yes", project=archive.pk)
    assert accepted(answer) == [f"2 {kind._meta.verbose_name_plural} moved to alice/archive."]
    assert set(kind.objects.values_list("project", flat=True)) == {archive.pk}
    history = page(ada.get(address(rows[0], "history")))
    assert "Moved from alice/letters to alice/archive." in history
    again = act(ada, kind, "move", rows, post="yes", project=archive.pk)
    assert accepted(again) == [f"0 {kind._meta.verbose_name_plural} moved to alice/archive."]


def test_rows_move_to_a_project_of_their_owner_only(cast: Cast) -> None:
    ada = sign_in()
    mine: Any = make(EndUser)
    sams: Any = make(EndUser, owner="sam", project="default")
    mixed = act(ada, EndUser, "move", [mine, sams])
    assert accepted(mixed) == ["Choose rows of one owner; these belong to alice, sam."]
    for project in (default_project("sam").pk, "x", ""):
        answer = act(ada, EndUser, "move", [mine], post="yes", project=project)
        page(answer)
        assert list(answer.context["form"].errors) == ["project"]
    mine.refresh_from_db()
    assert mine.project == cast.project


def test_rows_that_went_meanwhile_do_not_move(cast: Cast) -> None:
    row: Any = make(EndUser)
    services.delete_resource(EndUser, actor=BOOTSTRAP_ADMIN, owner=row.owner, uuid=row.uuid)
    answer = act(sign_in(), EndUser, "move", [row], post="yes", project=default_project().pk)
    assert accepted(answer) == ["These end users are not there any more."]


def test_too_many_do_not_move_at_once(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.admin.MAXIMUM_CHOSEN", 2)
    rows: list[Any] = [make(EndUser) for _ in range(3)]
    answer = act(sign_in(), EndUser, "move", rows)
    assert accepted(answer) == ["Move at most 2 end users at once."]


def test_as_many_as_may_move_at_once_do(cast: Cast) -> None:
    ada, archive = sign_in(), make_project("alice", "archive")
    owner = stored("alice")
    EndUser.objects.bulk_create(
        EndUser(owner=owner, project=cast.project) for _ in range(MAXIMUM_CHOSEN)
    )
    rows: list[Any] = list(EndUser.objects.all())
    page(act(ada, EndUser, "move", rows[:1], select_across="1"))
    accepted(act(ada, EndUser, "move", rows, post="yes", project=archive.pk))
    accepted(act(ada, EndUser, "delete_selected", rows, post="yes"))
    assert not EndUser.objects.exists()


def test_moving_needs_the_permission_to_change(cast: Cast) -> None:
    row: Any = make(EndUser)
    stella = make_staff("view_enduser")
    page(act(stella, EndUser, "move", [row], post="yes", project=default_project().pk))
    row.refresh_from_db()
    assert row.project == cast.project


# --- Files ----------------------------------------------------------------------------------------
def test_a_file_is_uploaded(cast: Cast, files_folder: Path) -> None:
    ada = sign_in()
    accepted(add(ada, File, upload=upload()))
    file = File.objects.get()
    assert (file.name, file.mime_type, file.project) == ("letter.txt", "text/plain", cast.project)
    assert (file.size, file.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert [each.read_bytes() for each in kept(files_folder)] == [CONTENT]
    accepted(add(ada, File, upload=upload(), name=SCRIPT, mime_type="image/x;a=b"))
    file = File.objects.latest("pk")
    assert (file.name, file.mime_type) == (SCRIPT, "image/x;a=b")
    for each in ("change", "delete", "history"):
        page(ada.get(address(file, each)))
    assert f"{len(CONTENT)}\xa0bytes" in page(ada.get(address(File)))


@pytest.mark.parametrize(
    ("entered", "field"),
    [
        ({"upload": None}, "upload"),
        ({"upload": b""}, "upload"),
        ({"name": "x" * 121}, "name"),
        ({"name": "bell\a"}, "name"),
        ({"description": "x" * 16_001}, "description"),
        ({"mime_type": "nonsense"}, "mime_type"),
        ({"mime_type": "text/" + "x" * 123}, "mime_type"),
    ],
)
def test_bad_files_are_refused_beside_the_field_and_leave_no_bytes(
    cast: Cast, files_folder: Path, entered: dict[str, Any], field: str
) -> None:
    given = {"upload": CONTENT, **entered}
    content = given.pop("upload")
    sent = {} if content is None else {"upload": upload(content=content)}
    assert list(errors(add(sign_in(), File, **given, **sent))) == [field]
    assert not File.objects.exists()
    assert not kept(files_folder)


def test_a_name_too_long_to_be_kept_is_refused(cast: Cast) -> None:
    answer = add(sign_in(), File, upload=upload("x" * 130))
    assert list(errors(answer)) == ["name"]


def test_what_is_said_about_a_file_changes(cast: Cast) -> None:
    ada, file = sign_in(), make(File, mime_type="text/plain")
    url = address(file, "change")
    accepted(submit(ada, url, name="new", description="two\r\nlines", mime_type=""))
    file.refresh_from_db()
    assert (file.name, file.description, file.mime_type) == ("new", "two\nlines", None)
    assert list(errors(submit(ada, url, name=""))) == ["name"]
    assert list(errors(submit(ada, url, mime_type="x"))) == ["mime_type"]


def download(client: Client, file: File) -> Any:
    return client.get(address(file, "download"))


def test_a_file_is_downloaded_and_never_shown(cast: Cast) -> None:
    file = make(File, "Brief für Bob.html", mime_type="text/html")
    answer = download(sign_in(), file)
    assert b"".join(answer.streaming_content) == CONTENT
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Length"] == str(len(CONTENT))
    assert answer.headers["Content-Disposition"] == (
        "attachment; filename*=utf-8''Brief%20f%C3%BCr%20Bob.html"
    )
    assert address(file, "download") in page(sign_in().get(address(file, "change")))


@pytest.mark.parametrize(
    ("name", "disposition"),
    [
        ('a"b.txt', 'attachment; filename="a\\"b.txt"'),
        ("two\r\nSet-Cookie: a=b", 'attachment; filename="two__Set-Cookie: a=b"'),
        ("../../etc/passwd", 'attachment; filename="passwd"'),
        ("cod\u202etxt.exe", 'attachment; filename="cod_txt.exe"'),
        ("/", "attachment"),
    ],
)
def test_names_of_downloads_deceive_nobody(cast: Cast, name: str, disposition: str) -> None:
    answer = download(sign_in(), make(File, name))
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"] == disposition
    answer.close()


def test_downloading_needs_the_permission_to_view(cast: Cast) -> None:
    file = make(File)
    assert download(Client(), file).status_code == 302
    assert download(sign_in("alice"), file).status_code == 302
    stella = make_staff("view_agent")
    assert download(stella, file).status_code == 403
    stored("stella").user_permissions.add(Permission.objects.get(codename="view_file"))
    answer = download(sign_in("stella"), file)
    assert b"".join(answer.streaming_content) == CONTENT
    assert "Download" in page(sign_in("stella").get(address(file, "change")))


def test_what_cannot_be_downloaded_is_explained(cast: Cast, files_folder: Path) -> None:
    ada, file = sign_in(), make(File)
    assert ada.post(address(file, "download")).status_code == 405
    kept(files_folder)[0].unlink()
    answer = download(ada, file)
    assert answer.headers["Location"] == address(file, "change")
    assert "is missing from the server's storage" in accepted(answer)[0]
    file.delete()
    assert ada.get(reverse("admin:resources_file_download", args=["0"])).status_code == 404
    assert ada.get(reverse("admin:resources_file_download", args=["x"])).status_code == 404


# --- Deleting -------------------------------------------------------------------------------------
@EVERY_KIND
def test_rows_are_deleted(cast: Cast, kind: Any) -> None:
    ada = sign_in()
    rows: list[Any] = [make(kind), make(kind), make(kind)]
    accepted(ada.post(address(rows[0], "delete"), {"post": "yes"}))
    page(act(ada, kind, "delete_selected", rows[1:]))
    accepted(act(ada, kind, "delete_selected", rows[1:], post="yes"))
    assert not kind.objects.exists()


def test_bytes_go_with_their_files(
    cast: Cast,
    files_folder: Path,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    ada = sign_in()
    rows: list[Any] = [make(File), make(File), make(File)]
    with django_capture_on_commit_callbacks(execute=True):
        accepted(ada.post(address(rows[0], "delete"), {"post": "yes"}))
        assert len(kept(files_folder)) == 3
    assert len(kept(files_folder)) == 2
    with django_capture_on_commit_callbacks(execute=True):
        accepted(act(ada, File, "delete_selected", rows[1:], post="yes"))
    assert not kept(files_folder)


# --- Lists ----------------------------------------------------------------------------------------
@EVERY_KIND
def test_lists_narrow_down_to_a_project_and_an_owner(cast: Cast, kind: Any) -> None:
    ada = sign_in()
    mine, other = make(kind), make(kind, project="default")
    sams = make(kind, owner="sam", project="default")
    assert listed(ada, kind) == {mine.pk, other.pk, sams.pk}
    assert listed(ada, kind, project=cast.project.pk) == {mine.pk}
    assert listed(ada, kind, owner=stored("alice").pk) == {mine.pk, other.pk}
    both: dict[str, Any] = {"owner": stored("sam").pk, "project": cast.project.pk}
    assert listed(ada, kind, **both) == set()
    text = page(ada.get(address(kind), {**both, "q": "a"}))
    assert ">alice/letters</option>" in text
    assert ">sam</option>" in text
    assert f'<input type="hidden" name="owner" value="{both["owner"]}">' in text


@pytest.mark.parametrize("name", ["project", "owner"])
@pytest.mark.parametrize("value", ["x", "0", "9" * 30, "\x00", SCRIPT])
def test_nonsense_in_a_filter_leads_back_to_the_list(cast: Cast, name: str, value: str) -> None:
    answer = sign_in().get(address(Agent), {name: value})
    assert answer.status_code == 302
    page(sign_in().get(answer.headers["Location"]))


@EVERY_KIND
def test_searches_find_names_ids_owners_and_projects(cast: Cast, kind: Any) -> None:
    ada = sign_in()
    mine, sams = make(kind, "Walnut"), make(kind, "Quartz", owner="sam", project="default")
    for word, found in {
        "walnut": mine,
        str(mine.uuid): mine,
        str(sams.uuid)[10:].upper(): sams,
        "alice": mine,
        "letters": mine,
        "sam quartz": sams,
    }.items():
        assert listed(ada, kind, q=word) == {found.pk}, word
    assert listed(ada, kind, q=str(UUID(int=0))) == set()


def test_pages_take_as_many_queries_for_two_rows_as_for_twenty(cast: Cast) -> None:
    ada = sign_in()
    kinds: list[type[ProjectResource]] = [Agent, EndUser, File]
    rows = [make(kind) for kind in kinds]
    urls = [address(kind) for kind in kinds] + [address(row, "change") for row in rows]
    urls += [f"{address(kind)}?project={cast.project.pk}" for kind in kinds]
    few = [queries(ada, url) for url in urls]
    for number in range(20):
        owner = f"user{number}"
        make_user(owner)
        make_instance(owner)
        make_project(owner)
        for kind in kinds:
            make(kind, owner=owner)
            make(kind)
    assert [queries(ada, url) for url in urls] == few


def test_staff_do_what_their_permissions_say(cast: Cast) -> None:
    agent = make(Agent, instructions=["<b>"], metadata={"a": SCRIPT})
    stella = make_staff("view_agent")
    page(stella.get(address(agent, "change")))
    assert stella.post(address(agent, "change"), {"name": "new"}).status_code == 403
    assert stella.get(address(Agent, "add")).status_code == 403
    assert stella.post(address(agent, "delete"), {"post": "yes"}).status_code == 403
    stored("stella").user_permissions.set(Permission.objects.filter(codename="change_agent"))
    accepted(submit(sign_in("stella"), address(agent, "change"), name="new"))
    agent.refresh_from_db()
    assert agent.name == "new"

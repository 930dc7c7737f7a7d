"""The published `julep` client drives a running server; only its address and key are changed.

The client checks every answer strictly: a missing or misshapen field fails the test.
"""

import asyncio
import base64
import hashlib
import secrets
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import julep
import pytest
from julep import AsyncJulep, Julep
from julep.types import Agent, ProjectCreateResponse
from julep.types.agent_delete_response import AgentDeleteResponse

from tests.end_to_end.harness import ADMIN_KEY, Armarium

TEXT = "Grüße aus dem Archiv 📚"
CONTENT = base64.b64encode(TEXT.encode()).decode()


pytestmark = pytest.mark.xdist_group("served")


@pytest.fixture
def address(served: Armarium) -> str:
    """What the client's `base_url` is set to."""
    return f"http://127.0.0.1:{served.port}"


@pytest.fixture
def sign_up(served: Armarium) -> Callable[[], str]:
    """Give a function that makes an account and returns its key."""

    def make_account() -> str:
        account = {"user_handle": f"dev_{secrets.token_hex(6)}"}
        status, answer = served.request("POST", "/v1/users", account)
        assert status == 201, answer
        return str(answer["api_key"])

    return make_account


@pytest.fixture
def key(sign_up: Callable[[], str]) -> str:
    """The key of an account of the test's own."""
    return sign_up()


@pytest.fixture
def client(address: str, key: str) -> Iterator[Julep]:
    with Julep(base_url=address, api_key=key, _strict_response_validation=True) as one:
        yield one


@pytest.fixture
def stranger(address: str, sign_up: Callable[[], str]) -> Iterator[Julep]:
    """The client of another account."""
    with Julep(base_url=address, api_key=sign_up(), _strict_response_validation=True) as one:
        yield one


@pytest.fixture
def requests() -> list[httpx.Request]:
    """Every request that `counted` sends."""
    return []


@pytest.fixture
def counted(address: str, key: str, requests: list[httpx.Request]) -> Iterator[Julep]:
    """The account's client again, with its requests on record."""
    http_client = httpx.Client(event_hooks={"request": [requests.append]}, follow_redirects=True)
    with Julep(
        base_url=address, api_key=key, http_client=http_client, _strict_response_validation=True
    ) as one:
        yield one


def error_of(error: julep.APIStatusError) -> dict[str, Any]:
    """Return the error object of an answer, whose shape is checked."""
    body: Any = error.response.json()
    assert body.keys() == {"error"}
    shown: dict[str, Any] = body["error"]
    assert shown.keys() - {"details"} == {"message", "code", "type"}
    assert all(isinstance(shown[name], str) and shown[name] for name in ("message", "code", "type"))
    return shown


def assert_recent(moment: datetime) -> None:
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)


def assert_deleted(deleted: Any, id: str) -> None:
    assert (deleted.id, deleted.jobs) == (id, [])
    assert_recent(deleted.deleted_at)


# --- Health ---------------------------------------------------------------------------------------
def test_health_is_told_without_a_valid_key(client: Julep) -> None:
    assert client.healthz.check()
    assert client.with_options(api_key="no key of this server").healthz.check()


# --- Projects -------------------------------------------------------------------------------------
def test_an_account_begins_with_one_default_project(client: Julep) -> None:
    [project] = client.projects.list()
    assert project.name == "Default Project"
    assert project.canonical_name == "default"
    metadata: Any = project.metadata
    assert metadata["is_default"] is True
    assert metadata["description"]
    assert_recent(project.created_at)


def test_a_project_is_created_and_listed(client: Julep) -> None:
    project = client.projects.create(
        name="Customer Support",
        canonical_name="Support-Bot",
        metadata={"department": "support", "nested": {"levels": [1, 2.5, None, True]}},
    )
    assert uuid.UUID(project.id).version == 7
    assert project.name == "Customer Support"
    assert project.canonical_name == "Support-Bot"
    assert project.metadata == {
        "department": "support",
        "nested": {"levels": [1, 2.5, None, True]},
    }
    assert_recent(project.created_at)
    newest, default = client.projects.list()
    assert newest.model_dump() == project.model_dump()
    assert default.canonical_name == "default"


def test_a_project_without_a_canonical_name_gets_one(client: Julep) -> None:
    names = {client.projects.create(name="2 Héroes!").canonical_name or "" for _ in range(3)}
    assert len(names) == 3
    assert all(name.replace("_", "a").isalnum() and name[0].isalpha() for name in names)


def test_a_project_is_read_replaced_changed_and_deleted_by_path(client: Julep) -> None:
    project = client.projects.create(
        name="Archive", canonical_name="archive", metadata={"a": 1, "b": {"c": 2}}
    )
    path = f"/projects/{project.id}"
    read = client.get(path, cast_to=ProjectCreateResponse)
    assert read.model_dump() == project.model_dump()

    changed = client.patch(
        path, body={"metadata": {"b": {"d": 3}, "e": None}}, cast_to=ProjectCreateResponse
    )
    assert changed.name == "Archive"
    assert changed.metadata == {"a": 1, "b": {"d": 3}, "e": None}
    assert changed.updated_at > project.updated_at
    assert changed.created_at == project.created_at

    replaced = client.put(path, body={"name": "Attic"}, cast_to=ProjectCreateResponse)
    assert (replaced.id, replaced.name, replaced.canonical_name) == (project.id, "Attic", "archive")
    assert replaced.metadata == {}
    assert replaced.updated_at > changed.updated_at

    deleted = client.delete(path, cast_to=AgentDeleteResponse)
    assert_deleted(deleted, project.id)
    for _ in range(2):
        with pytest.raises(julep.NotFoundError):
            client.delete(path, cast_to=AgentDeleteResponse)
    with pytest.raises(julep.NotFoundError):
        client.get(path, cast_to=ProjectCreateResponse)


def test_a_project_is_created_or_replaced_under_a_chosen_id(client: Julep) -> None:
    chosen = str(uuid.uuid4())
    body = {"name": "Chosen", "canonical_name": "chosen", "metadata": {"round": 1}}
    created = client.post(f"/projects/{chosen}", body=body, cast_to=httpx.Response)
    assert (created.status_code, created.json()["id"]) == (201, chosen)
    replaced = client.post(f"/projects/{chosen}", body={"name": "Again"}, cast_to=httpx.Response)
    assert replaced.status_code == 200
    project = client.get(f"/projects/{chosen}", cast_to=ProjectCreateResponse)
    assert (project.name, project.canonical_name, project.metadata) == ("Again", "chosen", {})


def test_renaming_a_project_keeps_its_members(client: Julep) -> None:
    project = client.projects.create(name="Old", canonical_name="old_name")
    agent = client.agents.create(name="Agent", project="old_name")
    user = client.users.create(name="User", project="OLD_NAME")
    file = client.files.create(name="file", content=CONTENT, project="Old_Name")
    body = {"canonical_name": "new-name"}
    client.patch(f"/projects/{project.id}", body=body, cast_to=ProjectCreateResponse)
    assert client.agents.get(agent.id).project == "new-name"
    assert client.users.get(user.id).project == "new-name"
    assert client.files.get(file.id).project == "new-name"


@pytest.mark.parametrize("on_resources", ["move", "delete"])
def test_a_project_that_holds_something_is_deleted_on_request(
    client: Julep, on_resources: str
) -> None:
    project = client.projects.create(name="Full", canonical_name="full")
    client.agents.create(name="Agent", project="full")
    client.users.create(name="User", project="full")
    client.files.create(name="file", content=CONTENT, project="full")
    path = f"/projects/{project.id}"
    with pytest.raises(julep.ConflictError) as refusal:
        client.delete(path, cast_to=AgentDeleteResponse)
    error = error_of(refusal.value)
    assert error["code"] == "project_not_empty"
    assert error["details"] == {"agents": 1, "users": 1, "files": 1}

    options: Any = {"params": {"on_resources": on_resources}}
    assert_deleted(client.delete(path, cast_to=AgentDeleteResponse, options=options), project.id)
    everything = [*client.agents.list(), *client.users.list(), *client.files.list()]
    expected = ["default"] * 3 if on_resources == "move" else []
    assert [each.project for each in everything] == expected


# --- Agents ---------------------------------------------------------------------------------------
def test_an_agent_is_what_it_was_created_with(client: Julep) -> None:
    client.projects.create(name="Support", canonical_name="support")
    agent = client.agents.create(
        name="Ada",
        about="Answers letters.",
        canonical_name="ada",
        default_settings={"temperature": 0.7, "stop": ["\n"]},
        default_system_template="You are {{ agent.name }}.",
        instructions=["Be brief.", ""],
        metadata={"team": {"lead": "x"}, "n": 3},
        model="gpt-4-turbo",
        project="support",
    )
    assert uuid.UUID(agent.id).version == 7
    assert agent.model_dump(exclude={"id", "created_at", "updated_at"}) == {
        "name": "Ada",
        "about": "Answers letters.",
        "canonical_name": "ada",
        "default_settings": {"temperature": 0.7, "stop": ["\n"]},
        "default_system_template": "You are {{ agent.name }}.",
        "instructions": ["Be brief.", ""],
        "metadata": {"team": {"lead": "x"}, "n": 3},
        "model": "gpt-4-turbo",
        "project": "support",
    }
    assert_recent(agent.created_at)
    assert client.agents.get(agent.id).model_dump() == agent.model_dump()
    assert [each.model_dump() for each in client.agents.list()] == [agent.model_dump()]


def test_an_agent_with_a_name_alone_has_defaults_and_is_in_default(client: Julep) -> None:
    agent = client.agents.create(name="Ada")
    assert agent.canonical_name
    assert (agent.default_system_template or "").strip()
    named = {"about", "default_settings", "instructions", "metadata", "model", "project"}
    assert agent.model_dump(include=named) == {
        "about": "",
        "default_settings": {},
        "instructions": [],
        "metadata": {},
        "model": "",
        "project": "default",
    }


def test_updating_an_agent_changes_what_is_given_only(client: Julep) -> None:
    client.projects.create(name="Support", canonical_name="support")
    agent = client.agents.create(
        name="Ada",
        about="Answers letters.",
        canonical_name="ada",
        default_settings={"temperature": 0.7},
        default_system_template="You are {{ agent.name }}.",
        instructions="Be brief.",
        metadata={"kept": 1, "changed": {"a": 1}},
        model="some-model",
        project="support",
    )
    assert agent.instructions == ["Be brief."]
    changed = client.agents.update(
        agent.id, default_settings={"top_p": 1}, metadata={"changed": {"b": 2}, "new": None}
    )
    expected = {
        **agent.model_dump(),
        "default_settings": {"top_p": 1},
        "metadata": {"kept": 1, "changed": {"b": 2}, "new": None},
        "updated_at": changed.updated_at,
    }
    assert changed.model_dump() == expected
    assert changed.updated_at > agent.updated_at
    assert client.agents.get(agent.id).model_dump() == expected

    moved = client.agents.update(
        agent.id, project="default", name="Eve", canonical_name="eve", instructions=["a", "b"]
    )
    assert (moved.project, moved.name, moved.canonical_name) == ("default", "Eve", "eve")
    assert moved.instructions == ["a", "b"]
    assert client.agents.list(extra_query={"project": "support"}).items == []
    assert client.agents.update(agent.id).model_dump(exclude={"updated_at"}) == moved.model_dump(
        exclude={"updated_at"}
    )


def test_resetting_an_agent_keeps_its_project_and_canonical_name_only(client: Julep) -> None:
    client.projects.create(name="Support", canonical_name="support")
    untouched = client.agents.create(name="Ada")
    agent = client.agents.create(
        name="Ada",
        about="Answers letters.",
        canonical_name="ada",
        default_settings={"temperature": 0.7},
        default_system_template="You are {{ agent.name }}.",
        instructions=["Be brief."],
        metadata={"a": 1},
        model="some-model",
        project="support",
    )
    reset = client.agents.reset(agent.id, name="Eve")
    kept = agent.model_dump(include={"id", "canonical_name", "created_at", "project"})
    assert reset.model_dump() == {
        **untouched.model_dump(),
        **kept,
        "name": "Eve",
        "updated_at": reset.updated_at,
    }
    reset = client.agents.reset(
        agent.id, name="Eve", canonical_name="eve", instructions="Be kind.", project="default"
    )
    assert (reset.canonical_name, reset.project) == ("eve", "default")
    assert reset.instructions == ["Be kind."]
    with pytest.raises(julep.NotFoundError):
        client.agents.reset(str(uuid.uuid4()), name="Nobody")


def test_an_agent_is_created_or_replaced_under_a_chosen_id(client: Julep) -> None:
    client.projects.create(name="Support", canonical_name="support")
    chosen = str(uuid.uuid4())
    call = client.agents.with_raw_response.create_or_update
    created = call(chosen, name="Ada", about="First.", metadata={"a": 1}, project="support")
    replaced = call(chosen, name="Eve", model="some-model")
    assert (created.status_code, replaced.status_code) == (201, 200)
    first, second = created.parse(), replaced.parse()
    assert first.id == second.id == chosen
    assert (first.about, first.metadata, first.project) == ("First.", {"a": 1}, "support")
    assert (second.name, second.about, second.metadata) == ("Eve", "", {})
    assert (second.project, second.canonical_name) == ("support", first.canonical_name)
    assert second.created_at == first.created_at
    assert [each.id for each in client.agents.list()] == [chosen]


def test_a_deleted_agent_is_gone(client: Julep) -> None:
    agent, other = client.agents.create(name="Ada"), client.agents.create(name="Eve")
    assert_deleted(client.agents.delete(agent.id), agent.id)
    with pytest.raises(julep.NotFoundError):
        client.agents.delete(agent.id)
    with pytest.raises(julep.NotFoundError):
        client.agents.get(agent.id)
    assert [each.id for each in client.agents.list()] == [other.id]


def test_models_are_listed(client: Julep) -> None:
    models = client.agents.list_models(x_custom_api_key="ignored").models
    assert all(model.id for model in models)


# --- Users ----------------------------------------------------------------------------------------
def test_a_user_is_what_it_was_created_with(client: Julep) -> None:
    client.projects.create(name="Support", canonical_name="support")
    user = client.users.create(
        name="2 Ümläute 🙂", about=TEXT, metadata={"plan": "pro"}, project="support"
    )
    assert uuid.UUID(user.id).version == 7
    assert user.model_dump(exclude={"id", "created_at", "updated_at"}) == {
        "name": "2 Ümläute 🙂",
        "about": TEXT,
        "metadata": {"plan": "pro"},
        "project": "support",
    }
    assert_recent(user.created_at)
    assert client.users.get(user.id).model_dump() == user.model_dump()
    assert [each.model_dump() for each in client.users.list()] == [user.model_dump()]


def test_a_user_needs_no_values(client: Julep) -> None:
    user = client.users.create()
    assert (user.name, user.about, user.metadata, user.project) == ("", "", {}, "default")
    assert client.users.create(name="", about="").name == ""


def test_updating_a_user_changes_what_is_given_only(client: Julep) -> None:
    client.projects.create(name="Support", canonical_name="support")
    user = client.users.create(name="Ada", about="Reads.", metadata={"a": 1}, project="support")
    changed = client.users.update(user.id, metadata={"b": 2})
    expected = {
        **user.model_dump(),
        "metadata": {"a": 1, "b": 2},
        "updated_at": changed.updated_at,
    }
    assert changed.model_dump() == expected
    assert changed.updated_at > user.updated_at
    moved = client.users.update(user.id, name="Eve", about="Writes.", project="DEFAULT")
    assert (moved.name, moved.about, moved.project) == ("Eve", "Writes.", "default")


def test_resetting_a_user_keeps_its_project_only(client: Julep) -> None:
    client.projects.create(name="Support", canonical_name="support")
    user = client.users.create(name="Ada", about="Reads.", metadata={"a": 1}, project="support")
    reset = client.users.reset(user.id)
    assert (reset.id, reset.project, reset.created_at) == (user.id, "support", user.created_at)
    assert (reset.name, reset.about, reset.metadata) == ("", "", {})
    reset = client.users.reset(user.id, name="Eve", about="b", metadata={"c": 1}, project="default")
    assert (reset.name, reset.about, reset.metadata) == ("Eve", "b", {"c": 1})
    assert reset.project == "default"
    with pytest.raises(julep.NotFoundError):
        client.users.reset(str(uuid.uuid4()))


def test_a_user_is_created_or_replaced_under_a_chosen_id(client: Julep) -> None:
    client.projects.create(name="Support", canonical_name="support")
    chosen = str(uuid.uuid4())
    call = client.users.with_raw_response.create_or_update
    created = call(chosen, name="Ada", metadata={"a": 1}, project="support")
    replaced = call(chosen, about="Writes.")
    assert (created.status_code, replaced.status_code) == (201, 200)
    first, second = created.parse(), replaced.parse()
    assert first.id == second.id == chosen
    assert (first.name, first.metadata, first.project) == ("Ada", {"a": 1}, "support")
    assert (second.name, second.about, second.metadata) == ("", "Writes.", {})
    assert second.project == "support"


def test_a_deleted_user_is_gone(client: Julep) -> None:
    user = client.users.create(name="Ada")
    assert_deleted(client.users.delete(user.id), user.id)
    with pytest.raises(julep.NotFoundError):
        client.users.delete(user.id)
    with pytest.raises(julep.NotFoundError):
        client.users.get(user.id)
    assert client.users.list().items == []


# --- Files ----------------------------------------------------------------------------------------
def test_a_file_comes_back_with_its_content(client: Julep) -> None:
    client.projects.create(name="Support", canonical_name="support")
    file = client.files.create(
        name="2024-grüße 📚.txt",
        content=CONTENT,
        description="Greetings.",
        mime_type="text/plain; charset=utf-8",
        project="support",
    )
    assert uuid.UUID(file.id).version == 7
    assert (file.name, file.description) == ("2024-grüße 📚.txt", "Greetings.")
    assert (file.mime_type, file.project) == ("text/plain; charset=utf-8", "support")
    assert base64.b64decode(file.content).decode() == TEXT
    assert file.size == len(TEXT.encode())
    assert file.hash == hashlib.sha256(TEXT.encode()).hexdigest()
    assert_recent(file.created_at)
    assert client.files.get(file.id).model_dump() == file.model_dump()
    assert [each.model_dump() for each in client.files.list()] == [file.model_dump()]


def test_a_file_with_a_name_and_content_alone_is_in_default(client: Julep) -> None:
    file = client.files.create(name="file", content="AA==")
    assert (file.description, file.mime_type, file.project) == ("", None, "default")
    assert file.size == 1


def test_files_are_listed_newest_first_or_as_asked(client: Julep) -> None:
    made = [client.files.create(name=f"file {number}", content=CONTENT).id for number in range(4)]
    assert [each.id for each in client.files.list()] == made[::-1]
    page = client.files.list(extra_query={"direction": "asc", "limit": 2, "offset": 1})
    assert [each.id for each in page] == made[1:3]
    bare = client.files.list(extra_query={"include_content": False})
    assert {each.content for each in bare} == {""}
    assert {each.size for each in bare} == {len(TEXT.encode())}


def test_a_file_is_moved_by_path(client: Julep) -> None:
    client.projects.create(name="Support", canonical_name="support")
    file = client.files.create(name="file", content=CONTENT)
    moved = client.patch(
        f"/files/{file.id}", body={"project": "support", "name": "new"}, cast_to=type(file)
    )
    assert (moved.project, moved.name, moved.content) == ("support", "new", CONTENT)


def test_a_deleted_file_is_gone(client: Julep) -> None:
    file, other = (client.files.create(name=name, content=CONTENT) for name in ("a", "b"))
    assert_deleted(client.files.delete(file.id), file.id)
    with pytest.raises(julep.NotFoundError):
        client.files.delete(file.id)
    with pytest.raises(julep.NotFoundError):
        client.files.get(file.id)
    assert [each.id for each in client.files.list()] == [other.id]


# --- Lists ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["projects", "agents", "users"])
@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_iteration_reads_page_after_page_and_ends(
    counted: Julep, requests: list[httpx.Request], kind: str, direction: Any
) -> None:
    resource: Any = getattr(counted, kind)
    made = [each.id for each in resource.list()]
    made += [resource.create(name=f"number {number}").id for number in range(7 - len(made))]
    requests.clear()
    found = [each.id for each in resource.list(limit=3, direction=direction)]
    assert found == (made if direction == "asc" else made[::-1])
    # Three with something on them; the empty one ends it.
    assert [request.url.params.get("offset") for request in requests] == [None, "3", "6", "7"]
    assert {request.url.params["limit"] for request in requests} == {"3"}


def test_a_page_can_be_read_alone(client: Julep) -> None:
    made = [client.users.create().id for _ in range(3)]
    page = client.users.list(limit=2, offset=1, sort_by="created_at", direction="asc")
    assert [each.id for each in page.items] == made[1:]
    assert page.has_next_page()
    following = page.get_next_page()
    assert following.items == []
    assert not following.has_next_page()


def test_lists_are_sorted_by_change_as_well(client: Julep) -> None:
    first, second = client.agents.create(name="First"), client.agents.create(name="Second")
    client.agents.update(first.id, about="Changed.")
    assert [each.id for each in client.agents.list(sort_by="updated_at")] == [first.id, second.id]
    assert [each.id for each in client.agents.list()] == [second.id, first.id]


METADATA: dict[str, Any] = {
    "team": {"lead": "Zoë & Söhne", "size": {"max": 12}},
    "dotted.key": "d",
    "number": 3,
    "fraction": 1.5,
    "digits": "42",
    "on": True,
    "off": False,
    "word": "true",
    "tags": ["red", "green", 7],
    'it\'s "quoted" %_\\': "a'b\"c%",
}


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({}, ["Eve", "Ada"]),
        # The client leaves out what is empty.
        ({"number": None, "digits": ""}, ["Eve", "Ada"]),
        ({"team": {"lead": "Zoë & Söhne"}}, ["Ada"]),
        ({"team": {"lead": "Zoe"}}, []),
        ({"team": {"size": {"max": 12}}}, ["Ada"]),
        ({"team": {"size": {"max": 13}}}, []),
        ({"lead": "Zoë & Söhne"}, []),
        ({"dotted.key": "d"}, ["Ada"]),
        ({"dotted": {"key": "d"}}, ["Ada"]),
        ({"number": 3}, ["Ada"]),
        ({"number": "3"}, ["Ada"]),
        ({"number": 4}, ["Eve"]),
        ({"number": 3.5}, []),
        ({"fraction": 1.5}, ["Ada"]),
        ({"digits": 42}, ["Ada"]),
        ({"digits": "42"}, ["Ada"]),
        ({"on": True}, ["Ada"]),
        ({"on": False}, []),
        ({"off": False}, ["Ada"]),
        ({"word": True}, ["Ada"]),
        ({"tags": ["red", "green"]}, ["Ada"]),
        ({"tags": ["green", 7]}, ["Ada"]),
        ({"tags": ["red", "blue"]}, []),
        ({"number": 3, "on": True, "team": {"lead": "Zoë & Söhne"}}, ["Ada"]),
        ({"number": 3, "on": False}, []),
        ({"number": 4, "on": True}, []),
        ({'it\'s "quoted" %_\\': "a'b\"c%"}, ["Ada"]),
        ({'it\'s "quoted" %_\\': "a'b\"cd"}, []),
        ({"missing": "x"}, []),
    ],
)
def test_metadata_narrows_a_list(
    client: Julep, wanted: dict[str, object], names: list[str]
) -> None:
    client.agents.create(name="Ada", metadata=METADATA)
    client.agents.create(name="Eve", metadata={"number": 4})
    assert [each.name for each in client.agents.list(metadata_filter=wanted)] == names


def test_metadata_narrows_projects_and_users_page_by_page(client: Julep) -> None:
    for number in range(6):
        metadata = {"even": number % 2 == 0, "number": number}
        client.projects.create(name=f"project {number}", metadata=metadata)
        client.users.create(name=f"user {number}", metadata=metadata)
    projects = client.projects.list(metadata_filter={"even": True}, limit=2)
    assert [each.name for each in projects] == ["project 4", "project 2", "project 0"]
    users = client.users.list(metadata_filter={"even": True}, limit=2, direction="asc")
    assert [each.name for each in users] == ["user 0", "user 2", "user 4"]
    assert [
        each.name for each in client.users.list(metadata_filter={"even": True, "number": 2})
    ] == ["user 2"]
    assert [each.name for each in client.projects.list(metadata_filter={"is_default": True})] == [
        "Default Project"
    ]


def test_a_list_of_one_project_holds_nothing_else(client: Julep) -> None:
    client.projects.create(name="Support", canonical_name="support")
    for project in ("support", "default"):
        for number in range(3):
            client.agents.create(name=f"{project} {number}", project=project)
            client.users.create(name=f"{project} {number}", project=project)
            client.files.create(name=f"{project} {number}", content=CONTENT, project=project)
    names = ["support 2", "support 1", "support 0"]
    for name in ("support", "SUPPORT"):
        query = {"project": name}
        assert [each.name for each in client.agents.list(extra_query=query, limit=2)] == names
        assert [each.name for each in client.users.list(extra_query=query, limit=2)] == names
        assert [each.name for each in client.files.list(extra_query=query)] == names
    unknown = {"project": "unknown"}
    assert [*client.agents.list(extra_query=unknown), *client.users.list(extra_query=unknown)] == []
    assert client.files.list(extra_query=unknown) == []


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": 1000}, {"offset": -1}, {"sort_by": "name"}, {"direction": "up"}],
)
def test_a_list_is_refused_where_its_query_makes_no_sense(
    client: Julep, query: dict[str, object]
) -> None:
    for read in (client.projects.list, client.agents.list, client.users.list, client.files.list):
        with pytest.raises(julep.UnprocessableEntityError) as refusal:
            read(extra_query=query)
        assert error_of(refusal.value)["code"] == "validation_error"


# --- null -----------------------------------------------------------------------------------------
def test_null_means_absent_when_something_is_created(client: Julep) -> None:
    project = client.projects.create(name="Project", canonical_name=None, metadata=None)
    assert project.canonical_name
    assert project.metadata == {}
    agent = client.agents.create(
        name="Ada", canonical_name=None, default_settings=None, metadata=None, project=None
    )
    assert agent.canonical_name
    assert (agent.default_settings, agent.metadata, agent.project) == ({}, {}, "default")
    user = client.users.create(metadata=None, project=None)
    assert (user.metadata, user.project) == ({}, "default")
    file = client.files.create(name="file", content=CONTENT, mime_type=None, project=None)
    assert (file.mime_type, file.project) == (None, "default")


def test_null_changes_nothing_in_an_update(client: Julep) -> None:
    project = client.projects.create(name="Support", canonical_name="support", metadata={"a": 1})
    body: dict[str, None] = {"name": None, "canonical_name": None, "metadata": None}
    changed = client.patch(f"/projects/{project.id}", body=body, cast_to=ProjectCreateResponse)
    assert changed.model_dump(exclude={"updated_at"}) == project.model_dump(exclude={"updated_at"})

    agent = client.agents.create(
        name="Ada", default_settings={"a": 1}, metadata={"b": 2}, project="support"
    )
    updated = client.agents.update(
        agent.id,
        name=None,
        canonical_name=None,
        default_settings=None,
        metadata=None,
        project=None,
    )
    assert updated.model_dump(exclude={"updated_at"}) == agent.model_dump(exclude={"updated_at"})

    user = client.users.create(name="Ada", metadata={"b": 2}, project="support")
    again = client.users.update(user.id, metadata=None, project=None)
    assert again.model_dump(exclude={"updated_at"}) == user.model_dump(exclude={"updated_at"})

    file = client.files.create(
        name="file", content=CONTENT, mime_type="text/plain", project="support"
    )
    nulls: dict[str, None] = {"mime_type": None, "project": None}
    patched = client.patch(f"/files/{file.id}", body=nulls, cast_to=type(file))
    assert (patched.mime_type, patched.project) == ("text/plain", "support")


def test_null_means_absent_when_something_is_replaced(client: Julep) -> None:
    client.projects.create(name="Support", canonical_name="support")
    agent = client.agents.create(
        name="Ada",
        canonical_name="ada",
        default_settings={"a": 1},
        metadata={"b": 2},
        project="support",
    )
    for replace in (client.agents.reset, client.agents.create_or_update):
        reset = replace(
            agent.id,
            name="Ada",
            canonical_name=None,
            default_settings=None,
            metadata=None,
            project=None,
        )
        assert (reset.canonical_name, reset.project) == ("ada", "support")
        assert (reset.default_settings, reset.metadata) == ({}, {})
    user = client.users.create(metadata={"b": 2}, project="support")
    for change in (client.users.reset, client.users.create_or_update):
        changed = change(user.id, metadata=None, project=None)
        assert (changed.metadata, changed.project) == ({}, "support")


@pytest.mark.parametrize(
    "name", ["name", "about", "model", "instructions", "default_system_template"]
)
def test_null_is_refused_elsewhere(client: Julep, name: str) -> None:
    with pytest.raises(julep.UnprocessableEntityError) as refusal:
        client.agents.create(name="Ada", extra_body={name: None})
    assert [each["loc"] for each in error_of(refusal.value)["details"]] == [name]
    assert client.agents.list().items == []


# --- Refusals -------------------------------------------------------------------------------------
def test_an_unknown_key_is_an_authentication_error(client: Julep) -> None:
    nobody = client.with_options(api_key="arm_unknown")
    for ask in (nobody.projects.list, nobody.agents.list, nobody.users.list, nobody.files.list):
        with pytest.raises(julep.AuthenticationError) as refusal:
            ask()
        assert error_of(refusal.value)["code"] == "unauthorized"
        assert refusal.value.response.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_configured_admin_key_is_denied_permission(client: Julep) -> None:
    admin = client.with_options(api_key=ADMIN_KEY)
    for ask in (admin.projects.list, admin.agents.list, admin.users.list, admin.files.list):
        with pytest.raises(julep.PermissionDeniedError) as refusal:
            ask()
        assert error_of(refusal.value)["code"] == "permission_denied"
    with pytest.raises(julep.PermissionDeniedError):
        admin.agents.create(name="Ada")


def test_an_unknown_id_is_a_not_found_error(client: Julep) -> None:
    id = str(uuid.uuid4())
    calls: list[Callable[[], object]] = [
        lambda: client.agents.get(id),
        lambda: client.agents.update(id, name="Ada"),
        lambda: client.agents.reset(id, name="Ada"),
        lambda: client.agents.delete(id),
        lambda: client.users.get(id),
        lambda: client.users.update(id, name="Ada"),
        lambda: client.users.reset(id, name="Ada"),
        lambda: client.users.delete(id),
        lambda: client.files.get(id),
        lambda: client.files.delete(id),
        lambda: client.get(f"/projects/{id}", cast_to=object),
        lambda: client.patch(f"/projects/{id}", body={"name": "x"}, cast_to=object),
        lambda: client.put(f"/projects/{id}", body={"name": "x"}, cast_to=object),
        lambda: client.delete(f"/projects/{id}", cast_to=object),
    ]
    for call in calls:
        with pytest.raises(julep.NotFoundError) as refusal:
            call()
        assert error_of(refusal.value)["code"] == "not_found"


def test_what_belongs_to_another_account_is_a_not_found_error(
    client: Julep, stranger: Julep
) -> None:
    project = client.projects.create(name="Support", canonical_name="support")
    agent = client.agents.create(name="Ada", project="support")
    user = client.users.create(name="Ada", project="support")
    file = client.files.create(name="file", content=CONTENT, project="support")
    calls: list[Callable[[], object]] = [
        lambda: stranger.agents.get(agent.id),
        lambda: stranger.agents.update(agent.id, name="Eve"),
        lambda: stranger.agents.reset(agent.id, name="Eve"),
        lambda: stranger.agents.delete(agent.id),
        lambda: stranger.users.get(user.id),
        lambda: stranger.users.update(user.id, name="Eve"),
        lambda: stranger.users.delete(user.id),
        lambda: stranger.files.get(file.id),
        lambda: stranger.files.delete(file.id),
        lambda: stranger.patch(f"/files/{file.id}", body={"name": "x"}, cast_to=object),
        lambda: stranger.get(f"/projects/{project.id}", cast_to=object),
        lambda: stranger.delete(f"/projects/{project.id}", cast_to=object),
        lambda: stranger.agents.create(name="Eve", project="support"),
        lambda: stranger.users.create(name="Eve", project="support"),
        lambda: stranger.files.create(name="Eve", content=CONTENT, project="support"),
    ]
    for call in calls:
        with pytest.raises(julep.NotFoundError):
            call()
    assert [*stranger.agents.list(), *stranger.users.list(), *stranger.files.list()] == []
    assert client.agents.get(agent.id).model_dump() == agent.model_dump()


def test_an_id_of_another_account_makes_something_of_ones_own(
    client: Julep, stranger: Julep
) -> None:
    agent = client.agents.create(name="Ada", about="Mine.", metadata={"secret": 1})
    other = stranger.agents.create_or_update(agent.id, name="Eve")
    assert (other.id, other.name, other.about, other.metadata) == (agent.id, "Eve", "", {})
    assert client.agents.get(agent.id).model_dump() == agent.model_dump()
    stranger.agents.delete(agent.id)
    assert client.agents.get(agent.id).name == "Ada"


def test_an_unknown_project_is_a_not_found_error_that_names_it(client: Julep) -> None:
    agent = client.agents.create(name="Ada")
    calls: list[Callable[[], object]] = [
        lambda: client.agents.create(name="Eve", project="nowhere"),
        lambda: client.agents.update(agent.id, name="Eve", project="nowhere"),
        lambda: client.agents.reset(agent.id, name="Eve", project="nowhere"),
        lambda: client.agents.create_or_update(str(uuid.uuid4()), name="Eve", project="nowhere"),
        lambda: client.users.create(project="nowhere"),
        lambda: client.files.create(name="file", content=CONTENT, project="nowhere"),
    ]
    for call in calls:
        with pytest.raises(julep.NotFoundError) as refusal:
            call()
        error = error_of(refusal.value)
        assert error["code"] == "project_not_found"
        assert "nowhere" in error["message"]
    assert [each.model_dump() for each in client.agents.list()] == [agent.model_dump()]
    assert [*client.users.list(), *client.files.list()] == []


@pytest.mark.parametrize(
    ("call", "location"),
    [
        (lambda client: client.projects.create(name=""), "name"),
        (lambda client: client.projects.create(name="P", canonical_name="1st"), "canonical_name"),
        (lambda client: client.projects.create(name="P", metadata=["a"]), "metadata"),
        (lambda client: client.agents.create(name="\x07"), "name"),
        (lambda client: client.agents.create(name="A", about="a" * 16_001), "about"),
        (lambda client: client.agents.create(name="A", canonical_name="a\n"), "canonical_name"),
        (
            lambda client: client.agents.create(name="A", default_system_template=" \n"),
            "default_system_template",
        ),
        (lambda client: client.users.create(name="a" * 121), "name"),
        (lambda client: client.users.create(about=5), "about"),
        (lambda client: client.files.create(name="f", content=""), "content"),
        (lambda client: client.files.create(name="f", content="no base64!"), "content"),
        (
            lambda client: client.files.create(name="f", content=CONTENT, mime_type="text"),
            "mime_type",
        ),
    ],
)
def test_a_wrong_value_is_an_unprocessable_entity_error(
    client: Julep, call: Callable[[Julep], object], location: str
) -> None:
    with pytest.raises(julep.UnprocessableEntityError) as refusal:
        call(client)
    error = error_of(refusal.value)
    assert error["code"] == "validation_error"
    [detail] = error["details"]
    assert detail["loc"] == location
    assert detail["msg"]
    assert detail["type"]


def test_an_id_that_is_no_uuid_is_an_unprocessable_entity_error(client: Julep) -> None:
    for read in (client.agents.get, client.users.get, client.files.get):
        with pytest.raises(julep.UnprocessableEntityError) as refusal:
            read("no-uuid")
        assert error_of(refusal.value)["code"] == "validation_error"


@pytest.mark.parametrize(
    "path",
    [
        "/sessions",
        "/tasks/01a21447-78cd-7705-9a96-0c667d353d66",
        "/executions/01a21447-78cd-7705-9a96-0c667d353d66",
        "/jobs/01a21447-78cd-7705-9a96-0c667d353d66",
        "/docs/01a21447-78cd-7705-9a96-0c667d353d66",
        "/secrets",
        "/embed",
        "/agents/01a21447-78cd-7705-9a96-0c667d353d66/docs",
        "/agents/01a21447-78cd-7705-9a96-0c667d353d66/tools",
        "/users/01a21447-78cd-7705-9a96-0c667d353d66/docs",
    ],
)
def test_what_is_not_served_is_a_not_found_error(client: Julep, path: str) -> None:
    for method in ("GET", "POST"):
        ask = client.get if method == "GET" else client.post
        with pytest.raises(julep.NotFoundError) as refusal:
            ask(path, cast_to=object)
        assert error_of(refusal.value)["code"] == "not_found"


def rename_default(client: Julep) -> object:
    """Ask for another canonical name of the default project."""
    [default] = client.projects.list(metadata_filter={"is_default": True})
    return client.patch(f"/projects/{default.id}", body={"canonical_name": "other"}, cast_to=object)


def delete_default(client: Julep) -> object:
    """Ask for the end of the default project and all that is in it."""
    [default] = client.projects.list(metadata_filter={"is_default": True})
    options: Any = {"params": {"on_resources": "delete"}}
    return client.delete(f"/projects/{default.id}", cast_to=object, options=options)


def delete_full(client: Julep) -> object:
    """Ask for the end of a project with a user in it."""
    [project] = client.projects.list(metadata_filter={"is": "taken"})
    return client.delete(f"/projects/{project.id}", cast_to=object)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda client: client.projects.create(name="P", canonical_name="TAKEN"), "conflict"),
        (lambda client: client.projects.create(name="P", canonical_name="Default"), "conflict"),
        (lambda client: client.agents.create(name="A", canonical_name="Taken"), "conflict"),
        (rename_default, "default_project_protected"),
        (delete_default, "default_project_protected"),
        (delete_full, "project_not_empty"),
    ],
)
def test_a_conflict_is_not_retried(
    client: Julep,
    counted: Julep,
    requests: list[httpx.Request],
    call: Callable[[Julep], object],
    code: str,
) -> None:
    client.projects.create(name="Taken", canonical_name="taken", metadata={"is": "taken"})
    client.agents.create(name="Taken", canonical_name="taken")
    client.users.create(project="taken")
    assert counted.max_retries == 5
    with pytest.raises(julep.ConflictError) as refusal:
        call(counted)
    assert error_of(refusal.value)["code"] == code
    assert refusal.value.response.headers["x-should-retry"] == "false"
    assert [each.method for each in requests if each.method != "GET"] == [
        refusal.value.request.method
    ]


# --- The client itself ----------------------------------------------------------------------------
def test_raw_answers_are_at_hand(client: Julep) -> None:
    raw = client.agents.with_raw_response.create(name="Ada", metadata={"a": 1})
    assert raw.status_code == 201
    assert raw.headers["Content-Type"] == "application/json"
    agent = raw.parse()
    assert isinstance(agent, Agent)
    shown = raw.json()
    assert isinstance(shown, dict)
    assert shown["id"] == agent.id
    # An offset is what makes it a moment.
    assert str(shown["created_at"]).endswith(("Z", "+00:00"))

    page = client.agents.with_raw_response.list(limit=1)
    assert [each.id for each in page.parse()] == [agent.id]
    deleted = client.agents.with_raw_response.delete(agent.id)
    assert deleted.status_code == 202
    assert deleted.retries_taken == 0


def test_an_answer_can_be_streamed(client: Julep) -> None:
    file = client.files.create(name="file", content=CONTENT)
    with client.files.with_streaming_response.get(file.id) as response:
        content = b"".join(response.iter_bytes())
        assert int(response.headers["Content-Length"]) == len(content)
    assert CONTENT.encode() in content


def test_the_asynchronous_client_does_the_same(address: str, key: str) -> None:
    async def round_trip() -> None:
        async with AsyncJulep(
            base_url=address, api_key=key, _strict_response_validation=True
        ) as client:
            assert await client.healthz.check()
            project = await client.projects.create(name="Support", canonical_name="support")
            agents = await asyncio.gather(
                *(client.agents.create(name=f"{each}", project="support") for each in range(5))
            )
            listed = [each async for each in client.agents.list(limit=2)]
            assert {each.id for each in listed} == {each.id for each in agents}
            agent = await client.agents.update(agents[0].id, metadata={"a": 1})
            assert (await client.agents.get(agent.id)).metadata == {"a": 1}
            assert (await client.agents.reset(agent.id, name="Eve")).metadata == {}
            user = await client.users.create_or_update(str(uuid.uuid4()), name="Ada")
            assert (await client.users.get(user.id)).name == "Ada"
            file = await client.files.create(name="file", content=CONTENT, project="support")
            assert (await client.files.get(file.id)).content == CONTENT
            assert [each.id for each in await client.files.list()] == [file.id]
            with pytest.raises(julep.ConflictError):
                await client.projects.create(name="Support", canonical_name="support")
            for each in agents:
                await client.agents.delete(each.id)
            await client.files.delete(file.id)
            assert_deleted(await client.users.delete(user.id), user.id)
            await client.delete(f"/projects/{project.id}", cast_to=object)
            assert [each.canonical_name async for each in client.projects.list()] == ["default"]

    asyncio.run(round_trip())


@pytest.mark.parametrize("ending", ["", "/"])
def test_the_address_may_end_in_a_slash(
    address: str, key: str, requests: list[httpx.Request], ending: str
) -> None:
    http_client = httpx.Client(event_hooks={"request": [requests.append]}, follow_redirects=True)
    with Julep(
        base_url=f"{address}{ending}",
        api_key=key,
        http_client=http_client,
        _strict_response_validation=True,
    ) as client:
        # A redirect would turn this into a list.
        agent = client.agents.create(name="Ada")
        assert [each.id for each in client.agents.list(limit=1)] == [agent.id]
    assert [(each.method, each.url.path) for each in requests] == [
        ("POST", "/agents"),
        ("GET", "/agents"),
        ("GET", "/agents"),
    ]


def test_the_environment_alone_suffices(
    address: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JULEP_BASE_URL", address)
    monkeypatch.setenv("JULEP_API_KEY", key)
    with Julep(_strict_response_validation=True) as client:
        agent = client.agents.create(name="Ada")
        assert client.agents.get(agent.id).project == "default"

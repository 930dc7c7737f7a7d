"""The whole matrix: every actor with every kind of thing, for one row and as a filter."""

from typing import Any

import pytest

from accounts import services
from accounts.models import ApiKey, Role, User
from accounts.policy import (
    ANONYMOUS,
    BOOTSTRAP_ADMIN,
    Actor,
    Level,
    Reach,
    account_level,
    fetch,
    level_of,
    reach_of,
    require_account,
    require_admin,
    scope,
    with_level,
)
from common.errors import Forbidden, NotFound, Unauthenticated
from llm_services.models import Definition, Instance, InstanceShare
from llm_services.services import create_definition, share_definition, share_instance
from projects.models import Project
from tests.factories import Cast, make_instance, make_project, stored

N, R, E, W, A = Level.NONE, Level.READER, Level.EDITOR, Level.OWNER, Level.ADMIN

THINGS: dict[str, tuple[Any, str, str]] = {
    "letters": (Project, "alice", "letters"),
    "public": (Project, "alice", "public"),
    "secret": (Project, "alice", "secret"),
    "adas": (Project, "ada", "default"),
    "model": (Instance, "alice", "model"),
    "unshared": (Instance, "alice", "unshared"),
    "builtin": (Instance, "_system", "builtin"),
    "template": (Definition, "alice", "template"),
    "published": (Definition, "alice", "published"),
    "hidden": (Definition, "alice", "hidden"),
    "openai": (Definition, "_system", "openai-large"),
}
# What is Alice's: letters is shared with Erin (editor) and Rita (reader), and so are model and
# template; everything else she has is shared with nobody. Rows follow the order of THINGS.
LEVELS: dict[str, list[Level]] = {
    "anonymous": [N, R, N, N, N, N, N, N, N, N, N],
    "sam": [N, R, N, N, N, N, R, N, R, N, R],
    "rita": [R, R, N, N, R, N, R, R, R, N, R],
    "erin": [E, R, N, N, E, N, R, R, R, N, R],
    "alice": [W, W, W, N, W, W, R, W, W, W, R],
    "ada": [A, A, A, W, A, A, A, A, A, A, A],
    "bootstrap": [A, A, A, A, A, A, A, A, A, A, A],
    "system": [N, R, N, N, N, N, W, N, R, N, W],
    "alice, reader": [R, R, R, N, R, R, R, R, R, R, R],
    "alice, editor": [E, E, E, N, E, E, R, E, E, E, R],
    "alice, letters": [W, N, N, N, R, R, R, R, R, R, R],
    "alice, letters, reader": [R, N, N, N, R, R, R, R, R, R, R],
    "erin, letters": [E, N, N, N, R, N, R, R, R, N, R],
    "erin, secret": [N, N, N, N, R, N, R, R, R, N, R],
    "rita, editor": [R, R, N, N, R, N, R, R, R, N, R],
    "ada, editor": [N, R, N, E, N, N, R, N, R, N, R],
    "ada, letters": [N, N, N, N, N, N, R, N, R, N, R],
}


@pytest.fixture
def things(cast: Cast) -> Cast:
    make_project("alice", "public", public_read=True)
    make_project("alice", "secret")
    make_instance("alice", "unshared")
    values = {"endpoint": "https://api.example.org/", "api_standard": "openai", "model": "m"}
    for handle in ("template", "published", "hidden"):
        given = {**values, "dimensions": 3, "is_public": handle == "published"}
        create_definition(actor=BOOTSTRAP_ADMIN, owner="alice", handle=handle, values=given)
    for user, role in (("rita", Role.READER), ("erin", Role.EDITOR)):
        alices: dict[str, Any] = {"actor": BOOTSTRAP_ADMIN, "owner": "alice", "user": user}
        share_instance(handle="model", role=role, **alices)
        share_definition(handle="template", **alices)
    return cast


def rows(model: Any, owner: str, handle: str) -> Any:
    """Return the rows of one thing: exactly one."""
    return model.objects.filter(owner__handle=owner, handle=handle)


def everything(model: Any) -> Any:
    """Return all rows of a kind."""
    return model.objects.select_related("owner")


def actor_named(name: str) -> Actor:
    """Return the actor of a row of LEVELS."""
    if name == "anonymous":
        return ANONYMOUS
    if name == "bootstrap":
        return BOOTSTRAP_ADMIN
    if name == "system":
        return Actor(user=stored("_system"))
    handle, *caps = name.split(", ")
    user = stored(handle)
    if not caps:
        return Actor(user=user)
    roles = [Role(each) for each in caps if each in Role.values]
    projects = [Project.objects.get(handle=each) for each in caps if each not in Role.values]
    services.create_key(
        user=user,
        role_cap=roles[0] if roles else None,
        project_id=projects[0].pk if projects else None,
    )
    return Actor(user=user, key=ApiKey.objects.latest("pk"))


def test_the_level_of_every_actor_on_every_thing(things: Cast) -> None:
    found: dict[str, list[Level]] = {}
    for name in LEVELS:
        actor = actor_named(name)
        found[name] = [
            level_of(with_level(actor, rows(model, owner, handle)).get())
            for model, owner, handle in THINGS.values()
        ]
    assert found == LEVELS


def test_the_filter_finds_exactly_what_the_row_allows(things: Cast) -> None:
    for name, levels in LEVELS.items():
        actor = actor_named(name)
        for needed in (Level.READER, Level.EDITOR, Level.OWNER, Level.ADMIN):
            found = []
            for model in (Project, Instance, Definition):
                for row in scope(actor, needed, everything(model)):
                    found.append((model, row.owner.handle, row.handle))
            assert len(found) == len(set(found)), "each once, however many shares there are"
            wanted = [
                key for key, level in zip(THINGS.values(), levels, strict=True) if level >= needed
            ]
            assert {each for each in found if each in THINGS.values()} == set(wanted), (
                name,
                needed,
            )


def test_fetch_gives_or_refuses_by_the_same_level(things: Cast) -> None:
    for name in ("anonymous", "sam", "rita", "erin", "alice", "ada", "alice, letters"):
        actor, levels = actor_named(name), LEVELS[name]
        refused = Unauthenticated if actor.is_anonymous else Forbidden
        for (model, owner, handle), level in zip(THINGS.values(), levels, strict=True):
            lookup = {"owner__handle": owner, "handle": handle}
            for needed in (Level.READER, Level.EDITOR, Level.OWNER):
                if level >= needed:
                    assert (
                        level_of(fetch(actor, needed, model.objects.all(), "it", **lookup)) == level
                    )
                else:
                    with pytest.raises(refused):
                        fetch(actor, needed, model.objects.all(), "it", **lookup)


def test_what_is_absent_is_not_found_and_nobody_learns_that_without_a_key(cast: Cast) -> None:
    lookup = {"owner__handle": "alice", "handle": "absent"}
    for actor in (BOOTSTRAP_ADMIN, Actor(user=stored("sam")), Actor(user=stored("alice"))):
        with pytest.raises(NotFound, match="It does not exist"):
            fetch(actor, Level.READER, Project.objects.all(), "It", **lookup)
    with pytest.raises(Unauthenticated):
        fetch(ANONYMOUS, Level.READER, Project.objects.all(), "It", **lookup)


ACCOUNT_LEVELS = {
    "anonymous": N,
    "sam": N,
    "erin": N,
    "alice": W,
    "ada": A,
    "bootstrap": A,
    "alice, reader": R,
    "alice, editor": E,
    "alice, letters": R,
    "ada, editor": N,
}


def test_the_level_of_every_actor_on_an_account(things: Cast) -> None:
    alice = stored("alice")
    for name, level in ACCOUNT_LEVELS.items():
        actor = actor_named(name)
        assert account_level(actor, alice) == level, name
        refused = Unauthenticated if actor.is_anonymous else Forbidden
        for needed in (Level.READER, Level.EDITOR, Level.OWNER):
            if level >= needed:
                assert require_account(actor, needed, alice) == level
            else:
                with pytest.raises(refused):
                    require_account(actor, needed, alice)


def test_only_administrators_with_an_uncapped_key_administer(things: Cast) -> None:
    for name in ("anonymous", "sam", "alice", "ada, editor", "ada, letters"):
        actor = actor_named(name)
        with pytest.raises(Unauthenticated if actor.is_anonymous else Forbidden):
            require_admin(actor)
    require_admin(actor_named("ada"))
    require_admin(BOOTSTRAP_ADMIN)


def test_a_level_includes_those_below() -> None:
    assert N < R < E < W < A
    assert [each.word for each in Level] == ["none", "reader", "editor", "owner", "admin"]


def test_the_51st_sharee_has_the_same_rights_as_the_first(cast: Cast) -> None:
    users = User.objects.bulk_create(User(handle=f"sharee{number:02}") for number in range(60))
    model = Instance.objects.get(owner__handle="alice", handle="model")
    InstanceShare.objects.bulk_create(InstanceShare(subject=model, user=user) for user in users)
    for user in (users[0], users[50], users[59]):
        shared = scope(Actor(user=user), Level.READER, Instance.objects.filter(pk=model.pk))
        assert level_of(shared.get()) == Level.READER
    alice = Actor(user=stored("alice"))
    assert scope(alice, Level.OWNER, Instance.objects.all()).count() == 1


# --- What a key reaches in its own account --------------------------------------------------------
def test_a_reach_says_of_ones_own_what_the_levels_say(things: Cast) -> None:
    for name in LEVELS:
        actor = actor_named(name)
        if actor.user is None:
            with pytest.raises(Unauthenticated if actor.is_anonymous else Forbidden):
                reach_of(actor)
            continue
        reach = reach_of(actor)
        assert reach.owner == actor.user
        for project in with_level(actor, Project.objects.filter(owner=actor.user)):
            within = reach.project_id in {None, project.pk}
            assert level_of(project) == (reach.level if within else Level.NONE), (name, project)


def test_only_administrators_reach_into_accounts_of_others(things: Cast) -> None:
    alice = stored("alice")
    for name in LEVELS:
        actor = actor_named(name)
        if name in {"ada", "bootstrap"}:
            assert reach_of(actor, alice) == Reach(alice, Level.ADMIN)
        elif actor.user == alice:
            assert reach_of(actor, alice) == reach_of(actor)
        else:
            with pytest.raises(Unauthenticated if actor.is_anonymous else Forbidden):
                reach_of(actor, alice)


def test_a_reach_refuses_what_it_carries_too_little_for(things: Cast) -> None:
    reach = reach_of(actor_named("alice, letters, reader"))
    reach.require(Level.READER, "Reading")
    with pytest.raises(Forbidden, match="Changing agents needs a key with the role editor"):
        reach.require(Level.EDITOR, "Changing agents")
    with pytest.raises(Forbidden, match="Changing a project needs a key without a role"):
        reach.require(Level.OWNER, "Changing a project")
    with pytest.raises(Forbidden, match="not limited to one project"):
        reach.require_all("Creating a project")
    reach_of(actor_named("alice, reader")).require_all("Creating a project")

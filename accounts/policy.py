"""Who may do what: every permission of the program is decided here.

The answer is always one level of an ordered scale. It is asked for one row (`fetch`), for many
(`scope`), for an account (`require_account`) and for all that is an account's own (`reach_of`);
nothing else compares owners or roles.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar, cast

from django.db.models import Case, IntegerField, Model, OuterRef, QuerySet, Subquery, Value, When
from django.db.models.functions import Coalesce, Greatest, Least

from accounts.models import ApiKey, Owned, Role, User
from common.errors import Forbidden, NotFound, Unauthenticated
from common.handles import SYSTEM


class Level(IntEnum):
    """What an actor may do with a thing; each level includes those below."""

    NONE = 0
    READER = 1
    EDITOR = 2
    OWNER = 3
    ADMIN = 4

    @property
    def word(self) -> str:
        """Return the level as people read it."""
        return self.name.lower()


ROLE_LEVELS = {Role.READER.value: Level.READER, Role.EDITOR.value: Level.EDITOR}


@dataclass(frozen=True)
class Actor:
    """Who asks: an account through a key or a session, the configured admin key, or nobody."""

    user: User | None = None
    key: ApiKey | None = None
    bootstrap: bool = False

    @property
    def is_anonymous(self) -> bool:
        """Whether no credential was given."""
        return self.user is None and not self.bootstrap

    @property
    def is_admin(self) -> bool:
        """Whether this is an administrator, acting with an uncapped key."""
        if self.bootstrap:
            return True
        return self.user is not None and self.user.is_superuser and not self.is_capped

    @property
    def is_capped(self) -> bool:
        """Whether the key carries less than its account."""
        return self.key is not None and bool(self.key.role_cap or self.key.project_id)

    @property
    def cap(self) -> Level:
        """Return the highest level that the key carries anywhere."""
        if self.key is None or not self.key.role_cap:
            return Level.ADMIN
        return ROLE_LEVELS[self.key.role_cap]

    @property
    def name(self) -> str:
        """Return who this is, for logs."""
        if self.user is not None:
            return self.user.handle
        return "(admin key)" if self.bootstrap else "(anonymous)"


ANONYMOUS = Actor()
BOOTSTRAP_ADMIN = Actor(bootstrap=True)

T = TypeVar("T", bound=Owned)
M = TypeVar("M", bound=Model)


def with_level(actor: Actor, things: QuerySet[T]) -> QuerySet[T]:
    """Annotate each thing with the actor's `level` on it, an integer of `Level`."""
    return cast("QuerySet[T]", things.annotate(level=_level(actor, things.model)))


def _level(actor: Actor, model: type[Owned]) -> Any:
    if actor.is_admin:
        # Clients look for the word `owner` to tell their own things from others'.
        own = [When(owner=actor.user, then=_value(Level.OWNER))] if actor.user else []
        return Case(*own, default=_value(Level.ADMIN), output_field=IntegerField())
    level: Any = _own_level(actor, model)
    if actor.user is not None:
        level = Greatest(level, Coalesce(_share_level(actor.user, model), _value(Level.NONE)))
    if actor.cap < Level.ADMIN:
        level = Least(level, _value(actor.cap))
    if actor.key is not None and actor.key.project_id is not None:
        level = _within_project(actor.key.project_id, model, level)
    return level


def _value(level: Level) -> Value:
    return Value(int(level), output_field=IntegerField())


def _own_level(actor: Actor, model: type[Owned]) -> Case:
    whens = [When(model.readable_by_anyone(), then=_value(Level.READER))]
    if actor.user is not None:
        whens.insert(0, When(owner=actor.user, then=_value(Level.OWNER)))
        whens.append(When(model.readable_with_any_key(), then=_value(Level.READER)))
    return Case(*whens, default=_value(Level.NONE), output_field=IntegerField())


def _share_level(user: User, model: type[Owned]) -> Subquery:
    shares: Any = cast("Any", model)._meta.get_field("shares").related_model
    roles = [When(role=role, then=_value(level)) for role, level in ROLE_LEVELS.items()]
    return Subquery(
        shares.objects.filter(subject=OuterRef("pk"), user=user)
        .annotate(granted=Case(*roles, output_field=IntegerField()))
        .values("granted")[:1]
    )


def _within_project(project_id: int, model: type[Owned], level: Any) -> Any:
    """Cap the level of a key that was made for one project."""
    if model._meta.label_lower == "projects.project":
        return Case(When(pk=project_id, then=level), default=_value(Level.NONE))
    return Least(level, _value(Level.READER))


def scope(actor: Actor, needed: Level, things: QuerySet[T]) -> QuerySet[T]:
    """Return the things on which the actor has at least the level, each annotated with it."""
    return with_level(actor, things).filter(level__gte=int(needed))


def fetch(actor: Actor, needed: Level, things: QuerySet[T], what: str, **lookup: Any) -> T:
    """Return the one thing the lookup names, annotated with the actor's level.

    what: how to call it in the refusal, such as ``Project 'alice/letters'``.
    Raises Unauthenticated for anonymous actors who may not (also where there is nothing, so that
    nobody learns names without a key), NotFound where there is nothing, Forbidden otherwise.
    """
    thing = with_level(actor, things).filter(**lookup).first()
    if thing is None or level_of(thing) < needed:
        if actor.is_anonymous:
            raise Unauthenticated("This needs an API key: send 'Authorization: Bearer <key>'.")
        is_system = lookup.get("owner__handle") == SYSTEM and not actor.is_admin
        if thing is None and is_system and needed > Level.READER:
            raise Forbidden(f"Only administrators may change what belongs to '{SYSTEM}'.")
        if thing is None:
            raise NotFound(f"{what} does not exist.")
        raise Forbidden(_refusal(needed, level_of(thing), what))
    return thing


def level_of(thing: Model) -> Level:
    """Return the level that `fetch` or `scope` found for a thing."""
    return Level(thing.level)  # type: ignore[attr-defined]


def is_granted(actor: Actor, thing: Owned) -> bool:
    """Say whether somebody who may read a thing may do so by more than that everybody may."""
    if actor.is_admin:
        return True
    if actor.user is None:
        return False
    shares: Any = cast("Any", thing)._meta.get_field("shares").related_model
    is_shared = shares.objects.filter(subject=thing, user=actor.user).exists
    return thing.owner_id == actor.user.pk or bool(is_shared())


def account_level(actor: Actor, user: User) -> Level:
    """Return what the actor may do with an account and with what will belong to it."""
    if actor.is_admin:
        return Level.ADMIN
    if actor.user is None or actor.user.pk != user.pk:
        return Level.NONE
    if actor.key is not None and actor.key.project_id is not None:
        return Level.READER
    return min(Level.OWNER, actor.cap)


def require_account(actor: Actor, needed: Level, user: User) -> Level:
    """Return the actor's level on the account; raise below `needed` as `fetch` does."""
    level = account_level(actor, user)
    if level < needed:
        if actor.is_anonymous:
            raise Unauthenticated("This needs an API key: send 'Authorization: Bearer <key>'.")
        raise Forbidden(f"Only '{user.handle}' and administrators may do this.")
    return level


@dataclass(frozen=True)
class Reach:
    """How far a request goes into what one account owns.

    level: the highest on anything there; one project is reached with it, or all of them.
    project_id: the only project that the key is for, None for all.
    """

    owner: User
    level: Level
    project_id: int | None = None

    def within(self, rows: QuerySet[M], *, project: str) -> QuerySet[M]:
        """Return those of the rows that are within reach.

        project: the lookup of the project that a row is in, or is: such as ``project`` or ``pk``.
        """
        rows = rows.filter(owner=self.owner)
        return rows if self.project_id is None else rows.filter(**{project: self.project_id})

    def require(self, needed: Level, what: str) -> None:
        """Raise Forbidden where the key carries less than what is needed to do `what`."""
        if self.level < needed:
            lesser = needed < Level.OWNER
            key = f"a key with the role {needed.word}" if lesser else "a key without a role"
            raise Forbidden(f"{what} needs {key}; yours carries less.")

    def require_all(self, what: str) -> None:
        """Raise Forbidden for a key that is for one project only."""
        if self.project_id is not None:
            raise Forbidden(f"{what} needs a key that is not limited to one project.")


def reach_of(actor: Actor, owner: User | None = None) -> Reach:
    """Return how far the actor reaches into an account: its own, unless another one is named.

    This is what `with_level` answers for owned things, without asking the database. Raises
    Unauthenticated for anonymous actors; Forbidden for others' accounts unless an administrator
    asks, and for the configured admin key where no account is named, since it belongs to none.
    """
    if actor.is_anonymous:
        raise Unauthenticated("This needs an API key: send 'Authorization: Bearer <key>'.")
    if owner is None and actor.user is None:
        raise Forbidden("The configured admin key belongs to no account; use an account's own key.")
    if owner is None or (actor.user is not None and actor.user.pk == owner.pk):
        user = cast("User", actor.user)
        project_id = None if actor.key is None else actor.key.project_id
        return Reach(user, min(Level.OWNER, actor.cap), project_id)
    return Reach(owner, require_account(actor, Level.ADMIN, owner))


def require_admin(actor: Actor) -> None:
    """Raise Unauthenticated or Forbidden for anybody but an administrator."""
    if actor.is_anonymous:
        raise Unauthenticated("This needs an API key: send 'Authorization: Bearer <key>'.")
    if not actor.is_admin:
        raise Forbidden("Only administrators may do this.")


def _refusal(needed: Level, level: Level, what: str) -> str:
    if level is Level.NONE:
        return f"Your key gives no access to {what}."
    if needed is Level.OWNER:
        return f"Only the owner of {what} and administrators may do this."
    return f"This needs the role {needed.word} on {what}; yours is {level.word}."

"""Finds projects that somebody may see."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, cast
from uuid import UUID

from django.db import connection
from django.db.models import BigIntegerField, Func, Model, Q, QuerySet, Value
from django.db.models.functions import Lower
from django.db.models.lookups import Exact

from accounts import audit
from accounts.models import AuditEntry, User
from accounts.policy import (
    Actor,
    Level,
    Reach,
    account_level,
    fetch,
    level_of,
    reach_of,
    scope,
    with_level,
)
from accounts.selectors import user_named
from common.errors import FieldError, NotFound, ProjectNotFound
from common.versions import RowVersion, Stale, as_parameters, unchanged
from llm_services.models import Instance
from projects.default_project import default_project_of, ensure_default_project
from projects.models import Project, ProjectShare


def readable() -> QuerySet[Project]:
    """Return all projects with what descriptions of them need; the policy narrows them down."""
    return Project.objects.select_related("owner", "instance", "instance__owner")


def described(owner: str, handle: str) -> str:
    """Return what to call a project in a refusal."""
    return f"Project '{owner[:40]}/{handle[:40]}'"


def project_for(actor: Actor, needed: Level, *, owner: str, handle: str) -> Project:
    """Return the project, with owner and instance, if the actor has the level on it: one query.

    Raises as `policy.fetch`: NotFound, Unauthenticated or Forbidden.
    """
    return fetch(
        actor, needed, readable(), described(owner, handle), owner__handle=owner, handle=handle
    )


def audit_log_of(project: Project, wanted: audit.Wanted) -> QuerySet[AuditEntry]:
    """Return what was changed about a project that the caller owns, the newest first.

    Numbers of projects may come again on a server that was emptied; times do not.
    """
    return audit.entries(wanted).filter(project_id=project.pk, at__gte=project.created_at)


def projects_for(actor: Actor, needed: Level, names: Sequence[tuple[str, str]]) -> list[Project]:
    """Return several projects, with what their models are told by: one query.

    names: (owner, handle) of each, in the order of the answer.
    Raises as `project_for` for the first on which the actor has not the level.
    """
    named = reduce(or_, (Q(owner__handle=owner, handle=handle) for owner, handle in names))
    rows = readable().select_related("instance__api_standard").filter(named)
    found = {(row.owner.handle, row.handle): row for row in scope(actor, needed, rows)}
    return [
        found.get((owner, handle)) or project_for(actor, needed, owner=owner, handle=handle)
        for owner, handle in names
    ]


def projects_of(actor: Actor, owner: str) -> QuerySet[Project]:
    """Return the owner's projects that the actor may read, in the order of handles.

    Raises NotFound for an unknown owner. For others than the owner the list holds what is shared
    with them or public.
    """
    user = user_named(owner)
    rows = readable().filter(owner=user)
    if account_level(actor, user) >= Level.READER and not actor.is_capped:
        # As the Projects API does; an owner's list is the same through both.
        ensure_default_project(user)
        return with_level(actor, rows).order_by("handle")
    return scope(actor, Level.READER, rows).order_by("handle")


def shared_projects(actor: Actor) -> QuerySet[Project]:
    """Return what others have shared with the actor's account and its key reaches, by address."""
    rows = readable().filter(pk__in=_shared_with(actor))
    return scope(actor, Level.READER, rows).order_by("owner__handle", "handle")


def public_projects(actor: Actor) -> QuerySet[Project]:
    """Return the public projects that are not on the actor's other lists, by address."""
    rows = readable().filter(public_read=True)
    if actor.user is not None:
        rows = rows.exclude(owner=actor.user).exclude(pk__in=_shared_with(actor))
    return scope(actor, Level.READER, rows).order_by("owner__handle", "handle")


def _shared_with(actor: Actor) -> Any:
    return ProjectShare.objects.filter(user=actor.user).values("subject")


def projects_on(actor: Actor, instance: Instance) -> QuerySet[Project]:
    """Return the projects on an instance that the actor may read, by address."""
    rows = readable().filter(instance=instance)
    return scope(actor, Level.READER, rows).order_by("owner__handle", "handle")


def count_projects_on(instance: Instance) -> int:
    """Return how many projects there are on an instance, whoever may read them."""
    return Project.objects.filter(instance=instance).count()


# --- What the Projects API shows: what an account owns --------------------------------------------
def _within(reach: Reach) -> QuerySet[Project]:
    return reach.within(Project.objects.select_related("owner"), project="pk")


def own_projects(actor: Actor) -> QuerySet[Project]:
    """Return the projects of the actor's account, as far as the key reaches.

    Raises as `policy.reach_of`.
    """
    reach = reach_of(actor)
    if reach.project_id is None:
        # The contract has it in the first list, of whatever account.
        ensure_default_project(reach.owner)
    return _within(reach)


def own_project(
    actor: Actor, uuid: UUID, needed: Level = Level.READER, *, owner: User | None = None
) -> Project:
    """Return a project of an account by its id; raise NotFound for any other.

    owner: the account, the actor's own by default.
    Raises as `policy.reach_of` besides, and Forbidden where the key carries less than `needed`.
    """
    reach = reach_of(actor, owner)
    project = _within(reach).filter(uuid=uuid).first()
    if project is None:
        raise NotFound(f"Project '{uuid}' does not exist.")
    reach.require(needed, "Changing a project")
    return project


def named_project(reach: Reach, name: str | None) -> Project:
    """Return the project that a request's `project` names, whatever the case of its letters.

    None stands for the account's default project, or for the one project that the key is for.
    Raises ProjectNotFound for any that the key does not reach.
    """
    if name is None and reach.project_id is None:
        return default_project_of(reach.owner)
    rows = _within(reach)
    if name is not None:
        rows = rows.filter(has_name(name))
    project = rows.first()
    if project is None:
        shown = "of this key" if name is None else f"'{name[:60]}'"
        message = f"The project {shown} does not exist; name one of your own projects."
        raise ProjectNotFound(message, errors=[FieldError("body.project", message)])
    return project


def has_name(name: str) -> Q:
    """Return the condition that a project has a canonical name, in whatever case of letters."""
    if not name.isascii():
        # PostgreSQL makes some other letters, such as the Kelvin sign, into those of ASCII.
        return Q(pk__in=[])
    # As the unique index has it; `iexact` would compare in upper case and read every row.
    return Q(Exact(Lower("handle"), Lower(Value(name))))


def projects_reached_by(user: User) -> list[dict[str, str]]:
    """Return handle, owner and role of the projects an account owns or is shared with."""
    shared = ProjectShare.objects.filter(user=user).values("subject")
    rows = with_level(Actor(user=user), Project.objects.select_related("owner"))
    rows = rows.filter(Q(owner=user) | Q(pk__in=shared)).order_by("owner__handle", "handle")
    return [
        {"project_handle": row.handle, "owner": row.owner.handle, "role": level_of(row).word}
        for row in rows
    ]


# What higher apps let a project group: models with a foreign key `project`. A project that holds
# rows of theirs is not deleted before somebody has said what becomes of them.
grouped: list[type[Model]] = []


def grouped_in(projects: Iterable[Project]) -> dict[type[Model], int]:
    """Return how many rows of each such model the projects hold together."""
    keys = [project.pk for project in projects]
    return {model: model._default_manager.filter(project__in=keys).count() for model in grouped}


# What higher apps have to say about a project to those who look at it, in sentences.
remarks: list[Callable[[Project], list[str]]] = []


def warnings_about(project: Project) -> list[str]:
    """Return what is to be said about a project."""
    return [sentence for remark in remarks for sentence in remark(project)]


class _CountOfEmbeddings(Func):
    """What the embeddings app counts for a project (its migration 0002)."""

    function = "embeddings_count"
    arity = 1
    output_field = BigIntegerField()


def with_counts(rows: QuerySet[Project]) -> QuerySet[Project]:
    """Annotate each project with its `number_of_embeddings`."""
    annotated = rows.annotate(number_of_embeddings=_CountOfEmbeddings("pk"))
    return cast("QuerySet[Project]", annotated)


def count_embeddings(project: Project) -> None:
    """Set the project's `number_of_embeddings`: one query."""
    counted: Any = with_counts(Project.objects.filter(pk=project.pk)).get()
    project.number_of_embeddings = counted.number_of_embeddings  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Locked:
    """What an upload must agree with, held until its transaction ends.

    dimensions, model_id: of the project's instance.
    metadata_schema: "" for none.
    models_used: by number, those that have made embeddings of the project.
    """

    instance_id: int
    dimensions: int
    metadata_schema: str
    model_id: int
    models_used: list[int]


def lock_for_upload(project: Project, rests_on: Sequence[RowVersion] = ()) -> Locked:
    """Keep the project and its instance as they are until the transaction ends: one query.

    rests_on: what must still be as the caller knows it; else Stale is raised.
    Many uploads hold this lock at once; deleting or changing what they rely on waits for them, or
    they for it. Raises NotFound where the project went away or to another owner since it was read.
    """
    # Twice: a row that another transaction moved to another instance while this one waited for it
    # no longer fits the join, and is found by a new look only.
    row = _locked_row(project, rests_on) or _locked_row(project, rests_on)
    if row is None:
        raise NotFound(f"Project '{project}' does not exist.")
    instance_id, dimensions, metadata_schema, model_id, models_used, is_unchanged = row
    if not is_unchanged:
        raise Stale
    return Locked(instance_id, dimensions, metadata_schema, model_id, models_used)


def _locked_row(
    project: Project, rests_on: Sequence[RowVersion]
) -> tuple[int, int, str, int, list[int], bool] | None:
    condition = unchanged(row.table for row in rests_on)
    with connection.cursor() as cursor:
        # FOR KEY SHARE conflicts with FOR UPDATE only, which is what changes take that uploads must
        # not overlap. Sharers of a row lock do not queue behind who waits to change the row; those
        # of an advisory lock do, so a stream of uploads cannot keep a change waiting for ever.
        cursor.execute(
            f"""
            WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(%(project)s))
            SELECT project.instance_id, instance.dimensions, project.metadata_schema,
                instance.embedding_model_id, embeddings_models_used(project.id), {condition}
            FROM turn, projects_project project
            JOIN llm_services_instance instance ON instance.id = project.instance_id
            WHERE project.id = %(project)s AND project.owner_id = %(owner)s
            FOR KEY SHARE OF project, instance
            """,  # noqa: S608 - names of our own tables
            {"project": project.pk, "owner": project.owner_id, **as_parameters(rests_on)},
        )
        return cast("tuple[int, int, str, int, list[int], bool] | None", cursor.fetchone())


def wait_for_uploads(project: Project) -> None:
    """Let running uploads to the project end, and new ones wait for the transaction's end."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [project.pk])

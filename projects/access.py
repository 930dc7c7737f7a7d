"""Remembers who may do what with which project, for requests that come again and again.

Those are searches, and uploads of few rows or many.

Finding the key, the account, the project and the level takes two queries and as much time as the
search itself. The answer is kept in the process, with the versions of all rows it rests on: the
key's, the account's, the project's, its owner's, its instance's and the share's. The search
compares these in its own statement (`embeddings.store`), and an upload in the one that locks the
project, so what was revoked, unshared or made private is refused by the very next request, in every
process, without one telling the others.

Only permissions are remembered, never refusals: a grant takes effect at once as well.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import OuterRef, Subquery
from django.utils import timezone

from accounts.authentication import Credentials
from accounts.policy import Actor, Level, fetch
from common.versions import RowVersion, VersionOf
from projects.models import Project, ProjectShare
from projects.selectors import described, readable

_MOST_REMEMBERED = 10_000


@dataclass(frozen=True)
class Access:
    """That an actor has a level on a project.

    project: with owner and instance; shared between threads, so not to be changed.
    rests_on: the rows that this follows from.
    expires_at: when the actor's key does, if ever.
    """

    actor: Actor
    project: Project
    rests_on: tuple[RowVersion, ...]
    expires_at: datetime | None


_remembered: OrderedDict[tuple[bytes, str, str, Level], Access] = OrderedDict()
_lock = threading.Lock()


def forget_all() -> None:
    """Forget what everybody may do: for whoever undoes what no row version tells of."""
    with _lock:
        _remembered.clear()


def remembered(
    credentials: Credentials, *, owner: str, handle: str, level: Level = Level.READER
) -> Access | None:
    """Return what is remembered, which is true only while the versions are what they were."""
    name = (credentials.digest, owner, handle, level)
    with _lock:
        access = _remembered.get(name)
        if access is None:
            return None
        _remembered.move_to_end(name)
    if access.expires_at is not None and access.expires_at <= timezone.now():
        return None
    return access


def look_up(
    credentials: Credentials, *, owner: str, handle: str, level: Level = Level.READER
) -> Access:
    """Find out whether somebody has a level on a project, and remember it if so: two queries.

    Raises Unauthenticated, Forbidden or NotFound, as `project_for` does.
    """
    actor = credentials.resolve()
    what = described(owner, handle)
    project: Any = fetch(
        actor, level, _with_versions(actor), what, owner__handle=owner, handle=handle
    )
    key = actor.key
    access = Access(
        actor, project, tuple(_rows(actor, project)), None if key is None else key.expires_at
    )
    with _lock:
        _remembered[credentials.digest, owner, handle, level] = access
        while len(_remembered) > _MOST_REMEMBERED:
            _remembered.popitem(last=False)
    return access


def _with_versions(actor: Actor) -> Any:
    rows = readable().annotate(
        version=VersionOf("handle"),
        owner_version=VersionOf("owner__handle"),
        instance_version=VersionOf("instance__handle"),
    )
    if actor.user is None:
        return rows
    share = ProjectShare.objects.filter(subject=OuterRef("pk"), user=actor.user)
    return rows.annotate(
        share_id=Subquery(share.values("id")[:1]),
        share_version=Subquery(share.annotate(own=VersionOf("id")).values("own")[:1]),
    )


def _rows(actor: Actor, project: Any) -> list[RowVersion]:
    rows = [
        RowVersion(Project._meta.db_table, project.pk, project.version),
        RowVersion(project.owner._meta.db_table, project.owner_id, project.owner_version),
        RowVersion(project.instance._meta.db_table, project.instance_id, project.instance_version),
    ]
    key: Any = actor.key
    if key is not None:
        rows.append(RowVersion(key._meta.db_table, key.pk, key.version))
        account = RowVersion(key.user._meta.db_table, key.user_id, key.user_version)
        # The same row where the owner asks, unless it changed between the two queries.
        if account not in rows:
            rows.append(account)
    share = getattr(project, "share_id", None)
    if share is not None:
        rows.append(RowVersion(ProjectShare._meta.db_table, share, project.share_version))
    return rows

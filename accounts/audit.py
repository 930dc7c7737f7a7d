"""The audit log: who changed who may do what, when, and by which right.

An entry is written in the transaction of the change, so that there is one for each change that
happened and for no other. Services call `note`; who asks is known from the request, which also
names people that act on behalf of the system, as staff do on the administration site.

It never holds a secret: names and roles, which fields changed, not what they changed to.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import structlog
from django.db import connection, transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from accounts.models import ApiKey, AuditEntry, User, Via
from accounts.policy import ANONYMOUS, Actor, Level
from common import jobs


class Verb(StrEnum):
    """What was done."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    SHARE = "share"
    UNSHARE = "unshare"
    PUBLISH = "publish"
    UNPUBLISH = "unpublish"
    TRANSFER = "transfer"
    IMPORT = "import"
    ROTATE = "rotate"
    REVOKE = "revoke"
    SET_ACCESS = "set_access"
    SET_PASSWORD = "set_password"  # noqa: S105
    SET_SECRET = "set_secret"  # noqa: S105
    ERASE_SECRET = "erase_secret"  # noqa: S105
    SIGN_IN_FAILED = "sign_in_failed"
    RESET = "reset"
    PRUNE = "prune"


# What things are called in the log, by their models; higher apps add theirs.
KINDS: dict[str, str] = {
    "accounts.user": "account",
    "accounts.apikey": "api_key",
    "projects.project": "project",
    "llm_services.apistandard": "api_standard",
    "llm_services.definition": "llm_service_definition",
    "llm_services.instance": "llm_service",
}
SERVER = "server"
EMBEDDINGS = "embeddings"

_LONGEST_SUBJECT = 300
_request: ContextVar[HttpRequest | None] = ContextVar("audited_request", default=None)


@contextmanager
def asked_by(request: HttpRequest) -> Iterator[None]:
    """Have entries that are written inside name who sent the request."""
    token = _request.set(request)
    try:
        yield
    finally:
        _request.reset(token)


# --- Writing --------------------------------------------------------------------------------------
def note(
    actor: Actor | None, verb: Verb, thing: Model, kind: str = "", /, **details: object
) -> None:
    """Write down that somebody did something to a thing; call it where the change is made.

    actor: whose rights were used; None where the service does not ask, as for keys.
    thing: as it is before it is deleted, or after any other change.
    kind: what is meant, where it is not the thing itself but something in it.
    details: names, roles, counts. Secrets, texts and addresses of servers do not belong here.
    """
    owner = _owner_of(thing)
    name = thing.public_id if isinstance(thing, ApiKey) else str(thing)
    _write(
        actor,
        verb,
        kind=kind or KINDS[thing._meta.label_lower],
        subject=name[:_LONGEST_SUBJECT],
        subject_id=str(thing.pk),
        owner=owner,
        project_id=_project_of(thing),
        details=details,
    )


def note_override(
    actor: Actor | None, verb: Verb, project: Any, kind: str, /, **details: object
) -> None:
    """Write down what an administrator does in a project of another account.

    What owners and editors do there is no change of access, and not noted.
    project: as `policy.fetch` returned it.
    """
    if getattr(project, "level", None) == Level.ADMIN:
        note(actor, verb, project, kind, **details)


def note_about_server(actor: Actor | None, verb: Verb, /, **details: object) -> None:
    """Write down what was done to the server as a whole."""
    _write(actor, verb, kind=SERVER, subject=SERVER, details=details)


def _write(
    actor: Actor | None,
    verb: Verb,
    *,
    kind: str,
    subject: str,
    subject_id: str = "",
    owner: str = "",
    project_id: int | None = None,
    details: dict[str, object],
) -> None:
    who, via = _who(actor)
    handle = "" if who.user is None else who.user.handle
    # Staff without all rights act by those of the system, and commands by whoever runs the server.
    has_all_rights = via == Via.COMMAND or any(
        each is not None and each.is_admin for each in (actor, who)
    )
    AuditEntry.objects.create(
        request_id=str(structlog.contextvars.get_contextvars().get("request_id", ""))[:40],
        via=via,
        actor=handle,
        actor_id=None if who.user is None else who.user.pk,
        key_id="" if who.key is None else who.key.public_id,
        as_admin=has_all_rights and (owner != handle or not handle),
        verb=verb.value,
        kind=kind,
        subject=subject,
        subject_id=subject_id,
        owner=owner,
        project_id=project_id,
        details={name: value for name, value in details.items() if value is not None},
    )


def _who(actor: Actor | None) -> tuple[Actor, Via]:
    """Return who asks, and how they have proven it."""
    request = _request.get()
    if request is None:
        return actor or ANONYMOUS, Via.JOB if jobs.is_running() else Via.COMMAND
    asked = getattr(request, "api_actor", None)
    if asked is None:
        # A page of Django's own, whose user is looked up with the session.
        user = getattr(request, "user", None)
        asked = Actor(user=user) if isinstance(user, User) else actor or ANONYMOUS
    if asked.bootstrap:
        return asked, Via.ADMIN_KEY
    # REST framework's views know no session.
    is_api = hasattr(getattr(request.resolver_match, "func", None), "cls")
    return asked, Via.KEY if is_api else Via.SESSION


def _owner_of(thing: Any) -> str:
    if isinstance(thing, User):
        return thing.handle
    owner = thing.user if isinstance(thing, ApiKey) else getattr(thing, "owner", None)
    return "" if owner is None else str(owner.handle)


def _project_of(thing: Model) -> int | None:
    if isinstance(thing, ApiKey):
        # Whoever reads a project may make keys for it, which are not its owner's business.
        project = thing.project
        return project.pk if project is not None and project.owner_id == thing.user_id else None
    return thing.pk if thing._meta.label_lower == "projects.project" else None


# --- Reading --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Wanted:
    """Which entries are meant; None and "" for all."""

    verb: str | None = None
    kind: str | None = None
    account: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def entries(wanted: Wanted) -> QuerySet[AuditEntry]:
    """Return the entries that are wanted, the newest first; the caller narrows them down."""
    rows = AuditEntry.objects.order_by("-id")
    lookups = {
        "verb": wanted.verb,
        "kind": wanted.kind,
        "actor": wanted.account,
        "at__gte": wanted.since,
        "at__lt": wanted.until,
    }
    return rows.filter(**{name: value for name, value in lookups.items() if value})


# --- Forgetting -----------------------------------------------------------------------------------
@transaction.atomic
def prune(*, before: datetime) -> int:
    """Delete entries from before a moment; return how many. That it was done is noted.

    The only way to delete any: the database lets nothing else.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('armarium.audit_retention', 'on', true)")
        cursor.execute("DELETE FROM accounts_auditentry WHERE at < %s", [before])
        deleted = int(cursor.rowcount)
        cursor.execute("SELECT set_config('armarium.audit_retention', '', true)")
    note_about_server(None, Verb.PRUNE, what="audit_log", before=before.isoformat(), count=deleted)
    return deleted

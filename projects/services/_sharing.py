"""Shares projects: with accounts, and with everybody."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from accounts import audit
from accounts.audit import Verb
from accounts.models import Role, User
from accounts.policy import Actor, Level
from common.errors import FieldError, Invalid, NotFound
from llm_services.services import grantee
from projects.models import Project, ProjectShare
from projects.selectors import project_for
from projects.services._locking import held

EVERYBODY = "*"


@dataclass(frozen=True)
class Grant:
    """One entry of a list of shares: a user handle, or ``*`` for everybody, and a role."""

    user_handle: str
    role: Role


@transaction.atomic
def share_project(*, actor: Actor, owner: str, handle: str, user: str, role: Role) -> Project:
    """Give an account a role on the project, replacing any it had; ``*`` makes it public."""
    project = held(project_for(actor, Level.OWNER, owner=owner, handle=handle))
    if user == EVERYBODY:
        _refuse_public_editor(role)
        project.public_read = True
        project.save(update_fields=["public_read", "updated_at"])
        audit.note(actor, Verb.PUBLISH, project)
    else:
        ProjectShare.objects.update_or_create(
            subject=project, user=grantee(project.owner, user), defaults={"role": role}
        )
        audit.note(actor, Verb.SHARE, project, user=user, role=role)
    return project


@transaction.atomic
def unshare_project(*, actor: Actor, owner: str, handle: str, user: str) -> Project:
    """Take a grant back, at once; ``*`` makes the project private.

    Raises NotFound where there was no such grant.
    """
    project = held(project_for(actor, Level.OWNER, owner=owner, handle=handle))
    if user == EVERYBODY and project.public_read:
        project.public_read = False
        project.save(update_fields=["public_read", "updated_at"])
        audit.note(actor, Verb.UNPUBLISH, project)
        return project
    deleted, _ = ProjectShare.objects.filter(subject=project, user__handle=user).delete()
    if not deleted:
        raise NotFound(f"Project '{project}' is not shared with '{user[:40]}'.")
    audit.note(actor, Verb.UNSHARE, project, user=user)
    return project


def grants_of(project: Project) -> list[Grant]:
    """Return who the project is shared with, in the order of handles, everybody first."""
    public = [Grant(EVERYBODY, Role.READER)] if project.public_read else []
    return public + [
        Grant(share.user.handle, Role(share.role)) for share in ProjectShare.of(project)
    ]


def replace_shares(actor: Actor, project: Project, values: Mapping[str, Any]) -> None:
    """Make `shared_with`, if given, the exact list of grants."""
    if values.get("shared_with") is None:
        return
    wanted = _roles(project.owner, values["shared_with"])
    before = {share.user: Role(share.role) for share in ProjectShare.of(project)}
    ProjectShare.objects.filter(subject=project).exclude(user__in=wanted).delete()
    for user, role in wanted.items():
        ProjectShare.objects.update_or_create(subject=project, user=user, defaults={"role": role})
        if before.pop(user, None) != role:
            audit.note(actor, Verb.SHARE, project, user=user.handle, role=role)
    for user in before:
        audit.note(actor, Verb.UNSHARE, project, user=user.handle)


def _roles(owner: User, grants: Iterable[Grant]) -> dict[User, Role]:
    return {
        grantee(owner, grant.user_handle): grant.role
        for grant in grants
        if grant.user_handle != EVERYBODY
    }


def _refuse_public_editor(role: Role) -> None:
    if role != Role.READER:
        message = f"'{EVERYBODY}' can only be a reader: anybody could write otherwise."
        raise Invalid(message, errors=[FieldError("body.role", message)])


def fill_public(project: Project, values: Mapping[str, Any]) -> None:
    """Let ``*`` in the list of grants say whether the project is public."""
    everybody = [grant for grant in values["shared_with"] if grant.user_handle == EVERYBODY]
    for grant in everybody:
        _refuse_public_editor(grant.role)
    if everybody and values.get("public_read") is False:
        message = f"shared_with holds '{EVERYBODY}', but public_read is false; send one of the two."
        raise Invalid(message, errors=[FieldError("body.public_read", message)])
    if "public_read" not in values or everybody:
        project.public_read = bool(everybody)

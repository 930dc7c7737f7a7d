"""Makes projects that come from another server, as they were there."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from accounts import audit
from accounts.audit import Verb
from accounts.models import User
from accounts.policy import Actor
from common.canonical_names import check_canonical_name
from common.database import violated
from common.errors import Conflict, DomainError, Invalid, Unprocessable
from common.models import uuid7
from llm_services.models import Instance
from llm_services.services import grantee
from projects.default_project import ensure_default_project
from projects.metadata import InvalidSchema, check_schema
from projects.models import Project, ProjectShare
from projects.services._sharing import Grant

_DESCRIBED = ("name", "description", "metadata")


def bring_project(
    *, actor: Actor, owner: User, handle: str, instance: Instance, values: Mapping[str, Any]
) -> Project:
    """Create a project that comes from elsewhere, not yet public and without a schema.

    values: `uuid`, which is kept unless the owner has one of it, and what `settle_project` takes.
    Raises Invalid, and Conflict for a taken handle.
    """
    check_canonical_name(handle)
    ensure_default_project(owner)
    is_taken = Project.objects.filter(owner=owner, uuid=values["uuid"]).exists()
    project = Project(
        owner=owner,
        handle=handle,
        instance=instance,
        uuid=uuid7() if is_taken else values["uuid"],
        **{name: values[name] for name in _DESCRIBED},
    )
    try:
        project.clean_fields(exclude=["owner", "instance"])
        with transaction.atomic():
            project.save(force_insert=True)
    except ValidationError as error:
        raise Invalid(f"The project's description cannot be stored: {error.messages[0]}") from error
    except IntegrityError as error:
        if violated(error) != "project_handle_per_owner":
            raise
        raise Conflict(
            f"Project '{project}' already exists. Choose another handle for what is brought."
        ) from error
    audit.note(actor, Verb.IMPORT, project, instance=str(instance))
    return project


def settle_project(
    project: Project, *, actor: Actor, values: Mapping[str, Any], grants: Iterable[Grant]
) -> list[Grant]:
    """Give a project that was brought its schema, its grants and its times; it is whole then.

    What is stored in it is not compared with the schema: it is as it was elsewhere.
    values: `metadata_schema`, `public_read`, `created_at` and `updated_at`.
    Return the grants to accounts that do not exist here. Raises Unprocessable for the schema.
    """
    schema = values["metadata_schema"]
    left_out = []
    for grant in grants:
        try:
            user = grantee(project.owner, grant.user_handle)
        except DomainError:
            left_out.append(grant)
        else:
            ProjectShare.objects.create(subject=project, user=user, role=grant.role)
            audit.note(actor, Verb.SHARE, project, user=user.handle, role=grant.role)
    try:
        project.metadata_schema = check_schema(schema) if schema else ""
    except InvalidSchema as error:
        raise Unprocessable(str(error)) from error
    project.public_read = values["public_read"]
    if project.public_read:
        audit.note(actor, Verb.PUBLISH, project)
    project.save(update_fields=["metadata_schema", "public_read"])
    # Saving would say that it was changed now.
    times = {name: values[name] for name in ("created_at", "updated_at")}
    Project.objects.filter(pk=project.pk).update(**times)
    return left_out

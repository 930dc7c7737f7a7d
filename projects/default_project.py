"""The default project: every owner has one, from the first moment."""

from django.db import transaction

from accounts.models import User
from common.errors import Unauthenticated
from llm_services.selectors import builtin_instance
from projects.models import DEFAULT_HANDLE, DEFAULT_NAME, Project


def ensure_default_project(user: User) -> None:
    """Give the account its default project unless it has one; a race yields exactly one.

    Raises Unauthenticated where the account was deleted since it was read.
    """
    if not user.is_system and not Project.objects.filter(owner=user, is_default=True).exists():
        _make(user)


@transaction.atomic
def _make(user: User) -> None:
    # Whoever deletes the account has its row; this waits, and finds nothing.
    if not User.objects.select_for_update(no_key=True).filter(pk=user.pk).values_list("pk"):
        raise Unauthenticated("The account of this key does not exist any more.")
    # ON CONFLICT DO NOTHING: whoever comes second finds the row of the first.
    Project.objects.bulk_create(
        [
            Project(
                owner=user,
                handle=DEFAULT_HANDLE,
                name=DEFAULT_NAME,
                instance=builtin_instance(),
                is_default=True,
                metadata={
                    "is_default": True,
                    "description": "Holds whatever was made without naming a project.",
                },
            )
        ],
        ignore_conflicts=True,
    )


def default_project_of(user: User) -> Project:
    """Return the account's default project, which is made if the account predates such projects.

    Raises Unauthenticated where the account was deleted since it was read.
    """
    rows = Project.objects.select_related("owner").filter(owner=user, is_default=True)
    found = rows.first()
    if found is None:
        ensure_default_project(user)
        found = rows.first()
    if found is None:
        raise Unauthenticated("The account of this key does not exist any more.")
    return found

"""The default project: every owner has one, from the first moment."""

from accounts.models import User
from llm_services.selectors import builtin_instance
from projects.models import DEFAULT_HANDLE, DEFAULT_NAME, Project


def ensure_default_project(user: User) -> None:
    """Give the account its default project unless it has one; a race yields exactly one."""
    if user.is_system or Project.objects.filter(owner=user, is_default=True).exists():
        return
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
    """Return the account's default project, which is made if the account predates such projects."""
    rows = Project.objects.select_related("owner").filter(owner=user, is_default=True)
    found = rows.first()
    if found is None:
        ensure_default_project(user)
        found = rows.get()
    return found

"""Holds projects as they are while they are changed."""

from django.db.models import Func, TextField

from accounts.models import User
from common.errors import NotFound
from projects.models import Project
from projects.selectors import wait_for_uploads


def locked(project: Project, *, stops_uploads: bool = False) -> Project | None:
    """Return the project as it is now, its row locked against other changes.

    None where it went away or to another owner since it was read.
    stops_uploads: whether the change is one that no upload may overlap.
    """
    if stops_uploads:
        wait_for_uploads(project)
    # First the row alone: one whose instance changed while this waited for it no longer fits the
    # join, and PostgreSQL would leave it out.
    rows = Project.objects.filter(pk=project.pk, owner=project.owner_id).order_by()
    if not rows.select_for_update(no_key=not stops_uploads).values_list("pk").first():
        return None
    return rows.select_related("owner", "instance", "instance__owner").first()


def held(project: Project, *, stops_uploads: bool = False) -> Project:
    """Return the project as `locked` does; raise NotFound where its address leads nowhere now."""
    found = locked(project, stops_uploads=stops_uploads)
    if found is None or found.handle != project.handle:
        raise NotFound(f"Project '{project}' does not exist.")
    return found


def hold_projects_of(user: User) -> None:
    """Let nobody add anything to the account's projects until the transaction ends."""
    projects = Project.objects.filter(owner=user).order_by("pk")
    # The lock of `wait_for_uploads`, for all of them in one statement.
    lock = Func("pk", function="pg_advisory_xact_lock", output_field=TextField())
    list(projects.values_list(lock))
    # To have the rows is to hold them.
    list(projects.select_for_update().values_list("pk"))

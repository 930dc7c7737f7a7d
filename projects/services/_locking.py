"""Holds a project as it is while it is changed."""

from projects.models import Project
from projects.selectors import wait_for_uploads


def locked(owner: str, handle: str, *, stops_uploads: bool = False) -> Project | None:
    """Return the project with its row locked against other changes, or None.

    stops_uploads: whether the change is one that no upload may overlap.
    """
    if stops_uploads:
        wait_for_uploads(owner, handle)
    rows = Project.objects.select_for_update(of=("self",), no_key=not stops_uploads)
    return (
        rows.select_related("owner", "instance").filter(owner__handle=owner, handle=handle).first()
    )

"""Makes, changes, shares, transfers and deletes projects."""

from projects.services._managing import (
    before_instance_change,
    create_project,
    delete_project,
    replace_project,
    transfer_project,
    update_project,
)
from projects.services._sharing import (
    EVERYBODY,
    Grant,
    grants_of,
    share_project,
    unshare_project,
)

__all__ = [
    "EVERYBODY",
    "Grant",
    "before_instance_change",
    "create_project",
    "delete_project",
    "grants_of",
    "replace_project",
    "share_project",
    "transfer_project",
    "unshare_project",
    "update_project",
]

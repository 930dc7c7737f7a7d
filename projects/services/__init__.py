"""Makes, changes, shares, transfers and deletes projects."""

from projects.services._bringing import bring_project, settle_project
from projects.services._locking import hold_projects_of
from projects.services._managing import (
    OnResources,
    before_deletion,
    before_instance_change,
    change_instance,
    create_project,
    delete_project,
    hold_project,
    replace_project,
    transfer_project,
    update_project,
)
from projects.services._own import (
    create_or_replace_own_project,
    create_own_project,
    delete_own_project,
    hold_own_project,
    replace_own_project,
    update_own_project,
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
    "OnResources",
    "before_deletion",
    "before_instance_change",
    "bring_project",
    "change_instance",
    "create_or_replace_own_project",
    "create_own_project",
    "create_project",
    "delete_own_project",
    "delete_project",
    "grants_of",
    "hold_own_project",
    "hold_project",
    "hold_projects_of",
    "replace_own_project",
    "replace_project",
    "settle_project",
    "share_project",
    "transfer_project",
    "unshare_project",
    "update_own_project",
    "update_project",
]

"""What resources need to have done in the background."""

import structlog

from accounts.policy import BOOTSTRAP_ADMIN
from common import jobs
from resources.content_check import orphans
from resources.services import delete_orphans

log = structlog.get_logger(__name__)


@jobs.periodic("resources.sweep_orphans", cron="37 3 * * *")
def sweep_orphans() -> None:
    """Delete bytes in the storage that belong to no file, as `checkfiles --delete-orphans` does."""
    names = [orphan.name for orphan in orphans(BOOTSTRAP_ADMIN)]
    deleted = delete_orphans(actor=BOOTSTRAP_ADMIN, names=names)
    if deleted:
        log.info("orphans_deleted", number=deleted)

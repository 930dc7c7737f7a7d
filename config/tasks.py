"""What the whole program has done in the background."""

from asgiref.sync import async_to_sync

from common import jobs

_KEEP_SUCCEEDED_H = 24
_KEEP_OTHERS_H = 30 * 24


@jobs.periodic("config.prune_jobs", cron="17 3 * * *")
def prune_jobs() -> None:
    """Delete jobs that succeeded a day ago, or ended otherwise 30 days ago."""
    prune = async_to_sync(jobs.manager.delete_old_jobs)
    prune(nb_hours=_KEEP_SUCCEEDED_H)
    prune(
        nb_hours=_KEEP_OTHERS_H, include_failed=True, include_cancelled=True, include_aborted=True
    )

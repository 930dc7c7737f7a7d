"""Background jobs about accounts."""

from accounts import guessing
from common import jobs


@jobs.periodic("accounts.forget_failed_attempts", cron="41 3 * * *")
def forget_failed_attempts() -> None:
    """Delete counts of failed attempts that stand for nothing any more."""
    guessing.forget_old()

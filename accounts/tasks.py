"""Background jobs about accounts."""

from accounts import guessing
from accounts.sessions import SessionStore
from common import jobs


@jobs.periodic("accounts.forget_sessions", cron="17 3 * * *")
def forget_sessions() -> None:
    """Delete the sessions that have expired."""
    SessionStore.clear_expired()


@jobs.periodic("accounts.forget_failed_attempts", cron="41 3 * * *")
def forget_failed_attempts() -> None:
    """Delete counts of failed attempts that stand for nothing any more."""
    guessing.forget_old()

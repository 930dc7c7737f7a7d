"""Background jobs about accounts."""

from accounts.sessions import SessionStore
from common import jobs


@jobs.periodic("accounts.forget_sessions", cron="17 3 * * *")
def forget_sessions() -> None:
    """Delete the sessions that have expired."""
    SessionStore.clear_expired()

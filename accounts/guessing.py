"""Makes guessing of API keys slow: failures are counted, and then refused with 429.

They are counted by the address they come from, and by the key they were meant to be, in the
database: for all processes together. Only what fails is counted, and only what fails is refused: a
good key is let in from any address, at no cost.
"""

import ipaddress
import math
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import structlog
from axes.helpers import get_client_ip_address
from django.db import DatabaseError, connection, transaction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import timezone

from accounts import keys
from accounts.models import FailedAttempts
from common import problems
from common.errors import TooManyRequests

log = structlog.get_logger(__name__)

# So many failures within the window are answered with 401, then 429 until it is over.
LIMIT = 50
WINDOW = timedelta(minutes=15)
# Who has an IPv6 address has as many as these leave open.
_IPV6_NETWORK = 64


class GuessLimit:
    """Middleware that counts requests with a key that is none, and refuses them when too many."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if response.status_code != 401:
            return response
        sent = request.META.get("HTTP_AUTHORIZATION") or request.META.get("HTTP_X_AUTH_KEY")
        if not sent:
            # Without a key nothing was guessed.
            return response
        try:
            wait = note_failure(get_client_ip_address(request), sent)
        except DatabaseError:
            log.warning("failed_attempt_not_counted")
            return response
        if wait is None:
            return response
        refusal = TooManyRequests(
            "Too many requests with a key that is unknown, expired or revoked. A good key works at"
            " once; with others, try again later.",
            retry_after_s=wait,
        )
        return problems.response(refusal, request.path_info)


def note_failure(address: str | None, header: str) -> int | None:
    """Count a failure; return how many seconds its like are refused, None while they are not.

    header: what was sent as a key.
    """
    subjects = sorted(_subjects(address, header))
    now = timezone.now()
    # Looking is cheap; a flood need not write, nor wait for its turn to write the same row.
    over = _over(subjects, now)
    if over is None:
        over = _count(subjects, now)
    if over is None:
        return None
    return max(1, math.ceil((over + WINDOW - now).total_seconds()))


def forget_old() -> int:
    """Delete what was counted before the present window; return how many subjects."""
    deleted, _ = FailedAttempts.objects.filter(since__lt=timezone.now() - WINDOW).delete()
    return deleted


def _subjects(address: str | None, header: str) -> Iterator[str]:
    if address:
        yield f"address:{_network(address)}"
    # The part of a key that finds its row, never the secret.
    parts = keys.parts_of(header.rpartition(" ")[2])
    if parts is not None:
        yield f"key:{parts.public_id}"


def _network(address: str) -> str:
    """Return what one client may be expected to have of addresses."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        # A proxy's own word for it.
        return address[:64]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_NETWORK), strict=False))


def _over(subjects: list[str], now: datetime) -> datetime | None:
    """Return when the count of one that is over the limit began, None where none is."""
    rows = FailedAttempts.objects.filter(
        subject__in=subjects, number__gte=LIMIT, since__gt=now - WINDOW
    )
    return rows.order_by("-since").values_list("since", flat=True).first()


def _count(subjects: list[str], now: datetime) -> datetime | None:
    """Count one more of each; return as `_over`."""
    with transaction.atomic(), connection.cursor() as cursor:
        # Nobody waits for the disk: a count that is lost in a crash begins again.
        cursor.execute("SET LOCAL synchronous_commit = off")
        cursor.execute(
            """
            INSERT INTO accounts_failedattempts AS known (subject, since, number)
            SELECT subject, %(now)s, 1 FROM unnest(%(subjects)s::text[]) AS subject
            ON CONFLICT (subject) DO UPDATE SET
                number = CASE WHEN known.since > %(start)s THEN known.number + 1 ELSE 1 END,
                since = CASE WHEN known.since > %(start)s THEN known.since ELSE %(now)s END
            RETURNING since, number
            """,
            {"subjects": subjects, "now": now, "start": now - WINDOW},
        )
        over = [since for since, number in cursor.fetchall() if number > LIMIT]
    return max(over, default=None)

"""Examines the server: what is wrong, how bad that is, and the command that mends it.

Each app registers checks of what it knows about, in its module `doctor`:

    @check("indexes", "Search indexes")
    def indexes(thorough: bool) -> Iterator[Finding]: ...

`manage.py doctor` and a page for administrators show what they find. A check that finds nothing is
told of as well: that somebody looked is what lets people sleep.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models import Count, Max
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob, ProcrastinateWorker
from procrastinate.jobs import Status

# A worker that was silent for so many heartbeats is taken for dead (config.worker).
_DEAD_AFTER = 5
_LATE_S = 600


class Severity(StrEnum):
    """How bad a finding is.

    Error: data, answers or promises are in danger. Warning: it will be, or something is slower or
    worse than it could be.
    """

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """Something that a check found.

    message: in a sentence. fix: the command that mends it, "" where there is none.
    about: the project that it is about, as owner/handle.
    """

    severity: Severity
    message: str
    fix: str = ""
    about: str = ""


@dataclass(frozen=True)
class Examined:
    """A check and what it found; nothing is fine."""

    name: str
    title: str
    findings: Sequence[Finding] = field(default_factory=list)

    @property
    def severity(self) -> Severity:
        """Return that of the worst finding."""
        found = {each.severity for each in self.findings}
        worst = (each for each in (Severity.ERROR, Severity.WARNING) if each in found)
        return next(worst, Severity.OK)


Check = Callable[[bool], Iterable[Finding]]

_checks: dict[str, tuple[str, Check]] = {}


def check(name: str, title: str) -> Callable[[Check], Check]:
    """Register a check.

    It is told whether to be thorough: to look at everything rather than at samples.
    """

    def register(function: Check) -> Check:
        _checks[name] = (title, function)
        return function

    return register


def names() -> list[str]:
    """Return the names of all checks."""
    return list(_checks)


def examine(*, thorough: bool = False, only: Iterable[str] = ()) -> list[Examined]:
    """Run the checks, or only some of them, and return what they found, check by check."""
    wanted = set(only) or set(_checks)
    return [
        Examined(name, title, _found(function, thorough))
        for name, (title, function) in _checks.items()
        if name in wanted
    ]


def _found(function: Check, thorough: bool) -> list[Finding]:
    try:
        # What breaks one check does not reach the next.
        with transaction.atomic():
            return list(function(thorough))
    except DatabaseError as error:
        reason = " ".join(str(error).split())[:200]
        return [Finding(Severity.ERROR, f"This could not be looked at: {reason}")]


# --- What this app knows about --------------------------------------------------------------------
@check("worker", "Background worker")
def worker(thorough: bool) -> Iterator[Finding]:
    """Look whether somebody does the work that waits, and what has failed."""
    now = timezone.now()
    silent_s = [
        (now - each.last_heartbeat).total_seconds() for each in ProcrastinateWorker.objects.all()
    ]
    limit_s = settings.WORKER_HEARTBEAT_S * _DEAD_AFTER
    if not any(each <= limit_s for each in silent_s):
        waiting = ProcrastinateJob.objects.filter(status=Status.TODO.value).count()
        yield Finding(
            Severity.WARNING,
            f"No background worker runs; {waiting} jobs wait. Indexes are not built, texts not "
            "embedded.",
            "manage.py worker",
        )
    failed = (
        ProcrastinateJob.objects.filter(status=Status.FAILED.value)
        .values("task_name")
        .annotate(number=Count("pk"), last=Max("pk"))
        .order_by("task_name")
    )
    for each in failed:
        yield Finding(
            Severity.WARNING,
            f"{each['number']} jobs of {each['task_name']} have failed.",
            f"manage.py listjobs --status failed --task {each['task_name']}; "
            f"manage.py retryjob {each['last']}",
        )


@check("connections", "Database connections")
def connections(thorough: bool) -> Iterator[Finding]:
    """Look whether the database has room for more connections, and for transactions left open."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), current_setting('max_connections')::int"
            " - current_setting('superuser_reserved_connections')::int,"
            " count(*) FILTER (WHERE datname = current_database()"
            " AND state LIKE 'idle in transaction%%' AND xact_start < now() - make_interval("
            "secs => %s)) FROM pg_stat_activity WHERE backend_type = 'client backend'",
            [_LATE_S],
        )
        used, most, idle = cursor.fetchone()
    if used >= 0.8 * most:
        yield Finding(
            Severity.WARNING,
            f"{used} of {most} connections to the database are in use.",
            "Lower ARMARIUM_WORKERS or ARMARIUM_THREADS, or raise max_connections.",
        )
    if idle:
        yield Finding(
            Severity.WARNING,
            f"{idle} transactions have been left open for over ten minutes; what was deleted since "
            "cannot be tidied up.",
            "SELECT pid, query FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'",
        )

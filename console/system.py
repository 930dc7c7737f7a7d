"""What administrators see of the server: versions, sizes, the worker, the keys."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import Count
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob, ProcrastinateWorker
from procrastinate.jobs import Status

from accounts.models import User
from embeddings import indexes
from embeddings.models import SearchIndex
from llm_services import crypto
from projects.models import Project

# The largest; all are in `manage.py listindexes`.
_MOST_INDEXES = 20
_DEAD_AFTER = 5


@dataclass(frozen=True)
class Worker:
    """A background worker: how long it was silent, in seconds, and whether it lives."""

    number: int
    silent_s: float
    lives: bool


@dataclass(frozen=True)
class System:
    """What the server is and how large.

    versions: (name, version) of the database, its extensions and this program.
    database_bytes: of the whole database. growing_bytes, growing_rows: of the part that takes
    uploads. connections: (used, most). jobs: how many are in each status.
    indexed: the largest indexed projects, with `sealed_rows`, `graph_bytes` and `part_bytes`.
    keys: how many encryption keys are configured; the first encrypts.
    """

    versions: Sequence[tuple[str, str]]
    started_at: Any
    database_bytes: int
    growing_bytes: int
    growing_rows: int
    connections: tuple[int, int]
    disk_free: int
    disk_total: int
    data_dir: str
    accounts: int
    projects: int
    workers: Sequence[Worker]
    jobs: dict[str, int]
    index_states: dict[str, int]
    indexed: Sequence[SearchIndex]
    keys: int


def look() -> System:
    """Return what the server is at the moment."""
    sizes = indexes.sizes()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version'), pg_postmaster_start_time(),"
            " pg_database_size(current_database()),"
            " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),"
            " current_setting('max_connections')::int"
        )
        version, started_at, database_bytes, used, most = cursor.fetchone()
        cursor.execute("SELECT extname, extversion FROM pg_extension ORDER BY extname")
        extensions = cursor.fetchall()
    usage = shutil.disk_usage(_existing(settings.DATA_DIR))
    return System(
        versions=[("Armarium", settings.VERSION), ("PostgreSQL", version), *extensions],
        started_at=started_at,
        database_bytes=database_bytes,
        growing_bytes=sizes.get(0, 0),
        growing_rows=indexes.growing_rows(),
        connections=(used, most),
        disk_free=usage.free,
        disk_total=usage.total,
        data_dir=str(settings.DATA_DIR),
        accounts=User.objects.count(),
        projects=Project.objects.count(),
        workers=_workers(),
        jobs=_by_status(),
        index_states=dict(
            SearchIndex.objects.values_list("state").annotate(number=Count("pk")).order_by("state")
        ),
        indexed=_indexed(sizes),
        keys=len(crypto.key_ids()),
    )


def _workers() -> list[Worker]:
    now = timezone.now()
    limit = timedelta(seconds=settings.WORKER_HEARTBEAT_S * _DEAD_AFTER)
    return [
        Worker(
            each.pk,
            max(0.0, (now - each.last_heartbeat).total_seconds()),
            now - each.last_heartbeat <= limit,
        )
        for each in ProcrastinateWorker.objects.order_by("pk")
    ]


def _by_status() -> dict[str, int]:
    wanted = [Status.DOING.value, Status.TODO.value, Status.FAILED.value]
    rows = ProcrastinateJob.objects.filter(status__in=wanted)
    counted = dict(rows.values_list("status").annotate(number=Count("pk")).order_by("status"))
    return {status: counted.get(status, 0) for status in wanted}


def _indexed(sizes: dict[int, int]) -> list[SearchIndex]:
    rows = SearchIndex.objects.filter(segment__isnull=False).select_related("project__owner")
    found: list[Any] = list(indexes.with_sizes(rows))
    for index in found:
        index.part_bytes = sizes.get(index.segment, 0)
    return sorted(found, key=lambda index: index.part_bytes, reverse=True)[:_MOST_INDEXES]


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())

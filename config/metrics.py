"""Figures for Prometheus: `GET /metrics`, for administrators' keys.

Requests are counted by each web process in a file of its own (`prometheus_client`'s multiprocess
mode), and added up by whichever is asked. All other figures are looked up when they are asked for.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from django.conf import settings
from django.contrib.admindocs.views import simplify_regex
from django.db import connection
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from drf_spectacular.utils import extend_schema
from procrastinate.contrib.django.models import ProcrastinateJob
from rest_framework.request import Request

from accounts.authentication import actor_of
from accounts.policy import require_admin
from common.api import Resource
from config.disk import free_bytes
from embeddings import indexes
from embeddings.models import IndexState, SearchIndex

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# A file that grows beyond what was reserved for it ends its process where the disk is full.
_RESERVED_BYTES = 1024**2


def _reserve_files() -> None:
    """Make this process's files whole, before the library does it with holes in them."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return
    try:
        for kind in ("counter", "histogram"):
            with (Path(folder) / f"{kind}_{os.getpid()}.db").open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, _RESERVED_BYTES)
    except OSError:
        # Each process counts for itself then.
        del os.environ[FOLDER]


_reserve_files()

# The library looks when it is loaded where it is to count.
from prometheus_client import (  # noqa: E402
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily  # noqa: E402
from prometheus_client.multiprocess import MultiProcessCollector  # noqa: E402
from prometheus_client.registry import Collector  # noqa: E402

Handler = Callable[[HttpRequest], HttpResponseBase]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_NO_ROUTE = "none"
_SEARCH = ("POST", "/v1/similars/<owner>/<project>")
# Seconds.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

_here = CollectorRegistry()
_requests = Counter(
    "armarium_requests",
    "Requests that were answered",
    ["method", "route", "status"],
    registry=_here,
)
_seconds = Histogram(
    "armarium_request_seconds",
    "How long requests took until their answer began",
    ["method", "route"],
    buckets=_BUCKETS,
    registry=_here,
)
_searches = _requests.labels(*_SEARCH, "200")
_search_seconds = _seconds.labels(*_SEARCH)


def empty_folder(port: int) -> Path:
    """Return a folder for the figures of the web server at a port; those of its last run go."""
    folder = Path(settings.DATA_DIR) / "metrics" / str(port)
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, mode=0o700)
    return folder


def count_search(seconds: float) -> None:
    """Count a search that was answered without the chain of middlewares."""
    _searches.inc()
    _search_seconds.observe(seconds)


class CountRequests:
    """Counts and times what the chain of middlewares answers."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        began = time.perf_counter()
        response = self.get_response(request)
        method = request.method if request.method in _METHODS else "other"
        match = request.resolver_match
        # Addresses that nobody has are not told apart: there is no end to them.
        route = _NO_ROUTE if match is None else _template(match.route)
        _requests.labels(method, route, str(response.status_code)).inc()
        _seconds.labels(method, route).observe(time.perf_counter() - began)
        return response


@cache
def _template(route: str) -> str:
    """Return a route as /v1/projects/<owner>."""
    return str(simplify_regex(route.replace("<str:", "<").replace("<uuid:", "<")))


class _Present(Collector):
    """What the database and the disk say at the moment."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Look up all figures."""
        jobs = GaugeMetricFamily(
            "armarium_jobs",
            "Background jobs by status",
            labels=["status"],
        )
        counted = ProcrastinateJob.objects.values_list("status").annotate(Count("pk")).order_by()
        for status, count in counted:
            jobs.add_metric([status], count)
        yield jobs

        by_state = GaugeMetricFamily("armarium_indexes", "Indexes by state", labels=["state"])
        states = dict(SearchIndex.objects.values_list("state").annotate(Count("pk")).order_by())
        for state in IndexState.values:
            by_state.add_metric([state], states.get(state, 0))
        yield by_state

        yield GaugeMetricFamily(
            "armarium_growing_rows",
            "Embeddings outside of graphs, as PostgreSQL estimates",
            value=indexes.growing_rows(),
        )
        connections = GaugeMetricFamily(
            "armarium_database_connections",
            "Connections by state",
            labels=["state"],
        )
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT coalesce(state, 'unknown'), count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() GROUP BY 1"
            )
            for state, count in cursor.fetchall():
                connections.add_metric([state], count)
            cursor.execute("SELECT current_setting('max_connections')::int")
            [most] = cursor.fetchone()
        yield connections
        yield GaugeMetricFamily(
            "armarium_database_connections_limit", "Most connections it takes", value=most
        )
        yield GaugeMetricFamily(
            "armarium_disk_free_bytes",
            "Room where the data is",
            value=free_bytes(settings.DATA_DIR),
        )


@extend_schema(exclude=True)
class Metrics(Resource):
    """All figures, in Prometheus's own format."""

    def get(self, request: Request) -> HttpResponse:
        """Return them; raise Forbidden for anybody but administrators."""
        require_admin(actor_of(request))
        registry = _here
        if FOLDER in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        present = CollectorRegistry()
        present.register(_Present())
        return HttpResponse(
            generate_latest(registry) + generate_latest(present),
            content_type=CONTENT_TYPE_LATEST,
            headers={"Cache-Control": "no-store"},
        )

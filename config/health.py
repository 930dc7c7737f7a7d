"""Answers monitors: does the process live, and can it serve?"""

from collections.abc import Callable

from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from common import problems
from common.errors import Unavailable

_View = Callable[[HttpRequest], HttpResponseBase]

# Reading the migrations takes a while, and once applied they stay applied.
_migrations_seen_applied = False


def _only_reading(view: _View) -> _View:
    def checked(request: HttpRequest) -> HttpResponseBase:
        if request.method in ("GET", "HEAD"):
            return view(request)
        refusal = problems.response(
            problems.MethodNotServed("Only GET and HEAD are served here."), request.path_info
        )
        refusal.headers["Allow"] = "GET, HEAD"
        return refusal

    # They change nothing; a form token would only turn the 405 into an HTML page.
    return csrf_exempt(checked)


@_only_reading
def healthz(request: HttpRequest) -> HttpResponse:
    """Answer 200 as long as the process lives; the database is not asked."""
    return JsonResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})


@_only_reading
def readyz(request: HttpRequest) -> HttpResponse:
    """Answer 200 when requests can be served, else 503 with the reason."""
    try:
        reason = _reason_not_ready()
    except (DatabaseError, InterfaceError):
        # The next request must not inherit a connection that has just failed.
        connection.close()
        reason = "The database does not answer yet; it may be starting or recovering."
    if reason is not None:
        return problems.response(Unavailable(reason), request.path_info)
    return JsonResponse({"status": "ready"}, headers={"Cache-Control": "no-store"})


def _reason_not_ready() -> str | None:
    global _migrations_seen_applied
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    if not _migrations_seen_applied:
        if unapplied_migrations():
            return "Database migrations are still to be applied (`manage.py migrate`)."
        _migrations_seen_applied = True
    return None


def unapplied_migrations() -> list[str]:
    """Return the migrations that the database lacks, in the order they would run."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]

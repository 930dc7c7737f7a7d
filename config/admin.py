"""Administration of background jobs: to look at, and to try again what failed."""

import json
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.db.models import Max, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from procrastinate.contrib.django import app
from procrastinate.contrib.django.admin import ProcrastinateJobAdmin
from procrastinate.contrib.django.models import (
    ProcrastinateEvent,
    ProcrastinateJob,
    ProcrastinateWorker,
)

from common import jobs
from common.admin import CappedPaginator, KeptAdmin, may

# Its pages have styles in the text, which our Content-Security-Policy forbids, and actions that
# know nothing of our rules.
if isinstance(admin.site.get_model_admin(ProcrastinateJob), ProcrastinateJobAdmin):
    admin.site.unregister(ProcrastinateJob)

_EXCERPT = 100


class TaskFilter(admin.SimpleListFilter):
    """What jobs do."""

    title = "task"
    parameter_name = "task"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return our tasks."""
        ours = (name for name in app.tasks if "procrastinate." not in name)
        return [(name, name) for name in sorted(ours)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the jobs of the chosen task."""
        return queryset.filter(task_name=self.value()) if self.value() else queryset


class EventsInline(admin.TabularInline[ProcrastinateEvent, ProcrastinateJob]):
    """What happened to a job, and when."""

    model = ProcrastinateEvent
    fields = ["type", "at"]
    readonly_fields = ["type", "at"]
    ordering = ["pk"]
    verbose_name_plural = "What happened"

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Tell whether whoever asks may see jobs: events are a part of them."""
        return may(request, "view", ProcrastinateJob) or may(request, "change", ProcrastinateJob)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: workers write them."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False as `has_add_permission` does."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False as `has_add_permission` does."""
        return False


@admin.register(ProcrastinateJob)
class JobAdmin(KeptAdmin[ProcrastinateJob]):
    """Background jobs, the newest first, with the reasons of their failures."""

    list_display = [
        "id",
        "task_name",
        "given",
        "status",
        "tries",
        "failed_because",
        "changed_at",
        "scheduled_at",
    ]
    list_display_links = ["id", "task_name"]
    list_filter = ["status", TaskFilter]
    list_select_related = ["failure"]
    ordering = ["-pk"]
    paginator = CappedPaginator
    search_fields = ["task_name", "lock", "queueing_lock"]
    actions = ["retry"]
    inlines = [EventsInline]
    fields = [
        "id",
        "task_name",
        "given",
        "status",
        "tries",
        "reason",
        "scheduled_at",
        "queue_name",
        "priority",
        "lock",
        "queueing_lock",
        "worker",
    ]

    @admin.display(description="Arguments")
    def given(self, job: ProcrastinateJob) -> str:
        """Return what the task is called with."""
        return json.dumps(job.args, ensure_ascii=False)

    @admin.display(description="Tries", ordering="attempts")
    def tries(self, job: ProcrastinateJob) -> int:
        """Return how often it was tried."""
        return int(job.attempts)

    @admin.display(description="Since")
    def changed_at(self, job: ProcrastinateJob) -> datetime | None:
        """Return when something happened to it last."""
        moment: datetime | None = job.last_event_at  # type: ignore[attr-defined]
        return moment

    @admin.display(description="Failed because")
    def failed_because(self, job: ProcrastinateJob) -> str:
        """Return how the reason of the last failure begins."""
        reason = _reason(job)
        return f"{reason[:_EXCERPT]}…" if len(reason) > _EXCERPT else reason

    @admin.display(description="Why its last try failed")
    def reason(self, job: ProcrastinateJob) -> str:
        """Return the reason."""
        return format_html("<pre>{}</pre>", _reason(job)) if _reason(job) else ""

    def get_queryset(self, request: HttpRequest) -> QuerySet[ProcrastinateJob]:
        """Return the rows with the moments of their last events."""
        rows = super().get_queryset(request)
        return rows.annotate(last_event_at=Max("procrastinateevent__at"))

    def buttons(self, request: HttpRequest, row: ProcrastinateJob) -> dict[str, str]:
        """Offer to try a failed job again."""
        return {"retry": "Try again"} if row.status == "failed" else {}

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Tell whether whoever asks may have jobs run again."""
        return may(request, "change", ProcrastinateJob)

    @admin.action(description="Try selected jobs again", permissions=["retry"])
    def retry(self, request: HttpRequest, rows: QuerySet[ProcrastinateJob]) -> None:
        """Put failed jobs back into the queue, all of the chosen or none."""
        chosen = self.chosen(rows, "Try")
        for job in chosen:
            jobs.retry(job.pk)
            self.log_change(request, job, "Tried again.")
        what = "1 job waits" if len(chosen) == 1 else f"{len(chosen)} jobs wait"
        self.message_user(request, f"{what} to be run again.", messages.SUCCESS)


def _reason(job: ProcrastinateJob) -> str:
    failure = getattr(job, "failure", None)
    return "" if failure is None else str(failure.reason)


@admin.register(ProcrastinateWorker)
class WorkerAdmin(KeptAdmin[ProcrastinateWorker]):
    """The processes that run background jobs, with their last signs of life."""

    list_display = ["id", "last_heartbeat"]
    ordering = ["pk"]
    fields = ["id", "last_heartbeat"]

"""Shows background jobs, and the workers that run them."""

from typing import Any

from django.core.management.base import CommandParser
from django.db.models import Max, QuerySet
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob, ProcrastinateWorker

from common import commands


class Command(commands.Command):
    help = (
        "List background jobs, the newest first, with the reason why the last try of each failed; "
        "and the workers that have given a sign of life."
    )
    example = """\
  manage.py listjobs
  manage.py listjobs --status failed
  manage.py listjobs --status todo --status doing --json | jq -r '.jobs[].task'"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--status",
            action="append",
            choices=ProcrastinateJob.STATUSES,
            help="only these; may be given several times",
        )
        parser.add_argument("--task", help="only those of this task, such as config.prune_jobs")
        parser.add_argument(
            "--limit",
            type=commands.whole_number(1, 10**6),
            default=100,
            metavar="N",
            help="at most N (%(default)s)",
        )
        parser.add_argument("--json", action="store_true", help="print the list as JSON")

    def handle(self, **options: Any) -> None:
        found: QuerySet[ProcrastinateJob] = ProcrastinateJob.objects.select_related("failure")
        if options["status"]:
            found = found.filter(status__in=options["status"])
        if options["task"]:
            found = found.filter(task_name=options["task"])
        total = found.count()
        changed = found.annotate(changed_at=Max("procrastinateevent__at")).order_by("-pk")
        jobs = [_described(job) for job in changed[: options["limit"]]]
        now = timezone.now()
        workers = [
            {"id": each.pk, "silent_for_s": round((now - each.last_heartbeat).total_seconds(), 1)}
            for each in ProcrastinateWorker.objects.order_by("pk")
        ]
        if options["json"]:
            self.show_json({"jobs": jobs, "total_count": total, "workers": workers})
        else:
            self._show(jobs, total, workers)

    def _show(self, jobs: list[dict[str, Any]], total: int, workers: list[dict[str, Any]]) -> None:
        if jobs:
            self.show_table(
                ["Id", "Task", "Status", "Tries", "Since", "Not before", "Failed because"],
                [
                    (
                        str(job["id"]),
                        job["task"],
                        job["status"],
                        str(job["tries"]),
                        _moment(job["changed_at"]),
                        _moment(job["scheduled_at"]) if job["status"] == "todo" else "",
                        job["failure"] or "",
                    )
                    for job in jobs
                ],
            )
        if len(jobs) < total:
            self.stdout.write(f"{len(jobs)} of {total} are shown; --limit shows more.")
        elif not jobs:
            self.stdout.write("There are none.")
        for worker in workers:
            self.stdout.write(
                f"Worker {worker['id']} gave a sign of life {worker['silent_for_s']:g} s ago."
            )
        if not workers:
            self.stdout.write("No worker runs.")


def _moment(moment: Any) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def _described(job: Any) -> dict[str, Any]:
    return {
        "id": job.pk,
        "task": job.task_name,
        "status": job.status,
        "tries": job.attempts,
        "arguments": job.args,
        "lock": job.lock,
        "queueing_lock": job.queueing_lock,
        "priority": job.priority,
        "scheduled_at": job.scheduled_at,
        "changed_at": job.changed_at,
        "failure": job.failure.reason if hasattr(job, "failure") else None,
    }

"""Shows which projects have an index, or will have one soon."""

import time
from typing import Any

from django.core.management.base import CommandParser
from django.template.defaultfilters import filesizeformat

from common import commands
from embeddings.api.index_serializers import index_shown
from embeddings.indexes import Report, overview
from embeddings.models import IndexState

_EVERY_S = 2.0


class Command(commands.Command):
    help = (
        "List the projects that are indexed, or being indexed, or at least half as large as an "
        "indexed one, with what is known of their indexes. A project that is not listed is "
        "searched exactly, and quickly."
    )
    example = """\
  manage.py listindexes
  manage.py listindexes --watch
  manage.py listindexes --json | jq -r '.indexes[] | select(.last_error) | .project'"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the list as JSON")
        parser.add_argument(
            "--watch",
            action="store_true",
            help="print it anew every two seconds until nothing is being built any more",
        )

    def handle(self, **options: Any) -> None:
        while True:
            reports = overview()
            if options["json"]:
                self.show_json({"indexes": [_described(each) for each in reports]})
            else:
                self._show(reports)
            if not options["watch"] or not any(map(_is_under_way, reports)):
                return
            time.sleep(_EVERY_S)

    def _show(self, reports: list[Report]) -> None:
        if not reports:
            self.stdout.write("Every project is searched exactly, and none is large.")
            return
        self.show_table(
            ["Project", "State", "Rows", "Growing", "Graph", "ef_search", "Recall", "Progress"],
            [
                (
                    str(each.project),
                    each.index.state,
                    str(each.sealed + each.growing),
                    str(each.growing),
                    filesizeformat(each.graph_bytes) if each.graph_bytes else "",
                    "" if each.ef_search is None else str(each.ef_search),
                    _recall(each.index.measured_recall),
                    _progress(each),
                )
                for each in reports
            ],
        )


def _is_under_way(report: Report) -> bool:
    # What failed is not waited for.
    return report.index.state == IndexState.BUILDING and not report.index.last_error


def _recall(recall: float | None) -> str:
    return "" if recall is None else f"{recall:.3f}"


def _progress(report: Report) -> str:
    if report.index.last_error:
        return f"failed: {report.index.last_error}"
    if report.progress is not None and report.progress.total:
        done = report.progress.done / report.progress.total
        return f"{report.progress.phase} {done:.0%}"
    if report.index.phase:
        return report.index.phase
    if report.index.segment is None:
        return f"index from {report.threshold} rows"
    return "to be built again" if report.index.rebuild_requested else ""


def _described(report: Report) -> dict[str, Any]:
    return {"project": str(report.project), **index_shown(report)}

"""Shows what an account's projects group."""

from typing import Any

from django.core.management.base import CommandParser
from django.template.defaultfilters import filesizeformat

from accounts.models import User
from accounts.policy import BOOTSTRAP_ADMIN, reach_of
from accounts.selectors import user_named
from common import commands
from projects.selectors import named_project
from resources.models import Agent, File, ProjectResource
from resources.selectors import KINDS_BY_NAME, resources_of


def owner_and_project(text: str) -> tuple[str, str | None]:
    """Return the handles of ``owner`` or ``owner/handle``; for argparse."""
    return commands.address(text) if "/" in text else (text, None)


class Command(commands.Command):
    help = (
        "List the agents, end users and files in the projects of an account, or in one of them, "
        "the newest first."
    )
    example = """\
  manage.py listresources alice
  manage.py listresources alice/letters --kind files
  manage.py listresources alice --kind agents --json | jq -r '.resources[].canonical_name'"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "place",
            type=owner_and_project,
            metavar="OWNER[/HANDLE]",
            help="the account, or one project of it",
        )
        parser.add_argument(
            "--kind", choices=list(KINDS_BY_NAME), help="only these; default: all three"
        )
        parser.add_argument(
            "--limit",
            type=commands.whole_number(1, 10**6),
            default=100,
            metavar="N",
            help="at most N of each kind (%(default)s)",
        )
        parser.add_argument("--json", action="store_true", help="print the list as JSON")

    def handle(self, *, place: tuple[str, str | None], **options: Any) -> None:
        owner, project = user_named(place[0]), place[1]
        if project is not None:
            project = named_project(reach_of(BOOTSTRAP_ADMIN, owner), project).handle
        names = [options["kind"]] if options["kind"] else list(KINDS_BY_NAME)
        found: list[ProjectResource] = []
        totals: dict[str, int] = {}
        for name in names:
            rows = resources_of(BOOTSTRAP_ADMIN, KINDS_BY_NAME[name], project=project, owner=owner)
            totals[name] = rows.count()
            found += rows[: options["limit"]]
        if options["json"]:
            described = [_described(row, owner) for row in found]
            self.show_json({"resources": described, "total_count": totals})
        elif found:
            self._show(found, owner, sum(totals.values()))
        else:
            self.stdout.write(f"'{'/'.join(filter(None, place))}' holds none.")

    def _show(self, rows: list[ProjectResource], owner: User, total: int) -> None:
        self.show_table(
            ["Id", "Kind", "Name", "Project", "Created", "Size"],
            [
                (
                    str(row.uuid),
                    row.noun,
                    _name(row),
                    f"{owner.handle}/{row.project.handle}",
                    row.created_at.strftime("%Y-%m-%d"),
                    _size(row),
                )
                for row in rows
            ],
        )
        if len(rows) < total:
            self.stdout.write(f"{len(rows)} of {total} are shown; --limit shows more.")


def _name(row: ProjectResource) -> str:
    return f"{row.name} ({row.canonical_name})" if isinstance(row, Agent) else str(row)


def _size(row: ProjectResource) -> str:
    return filesizeformat(row.size) if isinstance(row, File) else ""


def _described(row: ProjectResource, owner: User) -> dict[str, Any]:
    named: Any = row
    return {
        "id": row.uuid,
        "kind": row.noun,
        "name": named.name,
        "canonical_name": row.canonical_name if isinstance(row, Agent) else None,
        "project": f"{owner.handle}/{row.project.handle}",
        "size": row.size if isinstance(row, File) else None,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }

"""Searches a project by words."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts.policy import BOOTSTRAP_ADMIN
from common import commands
from common.errors import Invalid
from common.query import DEFAULT_LIMIT, MAXIMUM_LIMIT
from embeddings import filters, selectors
from embeddings.batches import check_words
from embeddings.selectors import Row, Wanted

_SNIPPET = 160


class Command(commands.Command):
    help = (
        "Search a project by words: they are embedded with the project's LLM service, and compared "
        "with its texts. Prints the most similar ones, with their cosine similarity and how they "
        "begin. Exit code 0, also where nothing is found; 2: it could not run."
    )
    example = """\
  manage.py search demo/wikipedia-vital "who painted the Mona Lisa"
  manage.py search demo/wikipedia-vital "qui a peint la Joconde" --count 3 \\
      --filter '{"language": "fr"}'
  manage.py search alice/letters "the garden in spring" --json"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "project", type=commands.address, metavar="OWNER/HANDLE", help="where to search"
        )
        parser.add_argument("words", help="what to search for, such as a question")
        parser.add_argument(
            "--count",
            type=commands.whole_number(1, MAXIMUM_LIMIT),
            default=DEFAULT_LIMIT,
            metavar="N",
            help=f"how many results at most, 1 to {MAXIMUM_LIMIT} (%(default)s)",
        )
        parser.add_argument(
            "--filter",
            metavar="JSON",
            help='only texts whose metadata has these values, such as \'{"author": "Ann"}\'',
        )
        parser.add_argument("--json", action="store_true", help="print the results as JSON")

    def handle(self, *, project: tuple[str, str], words: str, **options: Any) -> None:
        wanted = Wanted(
            limit=options["count"], offset=0, threshold=-1.0, filter=_filter(options["filter"])
        )
        results = selectors.texts_like(
            BOOTSTRAP_ADMIN,
            owner=project[0],
            handle=project[1],
            words=check_words(words, "words"),
            wanted=wanted,
        )
        if options["json"]:
            self.show_json(
                [
                    {"id": row.text_id, "similarity": similarity, "text": row.text}
                    for similarity, row in results
                ]
            )
        elif results:
            self.show_table(
                ("Similarity", "Id", "Text"),
                [(f"{similarity:.3f}", *_shown(row)) for similarity, row in results],
            )
        else:
            self.stdout.write(f"{'/'.join(project)} has no text that matches.")


def _filter(given: str | None) -> filters.Condition | None:
    if given is None:
        return None
    try:
        return filters.parse_text(given, "--filter")
    except Invalid as error:
        raise CommandError(
            commands.one_line(error.detail), returncode=commands.COULD_NOT_RUN
        ) from error


def _shown(row: Row) -> tuple[str, str]:
    return commands.one_line(row.text_id, limit=80), commands.one_line(row.text, limit=_SNIPPET)

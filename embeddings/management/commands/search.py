"""Searches a project by words."""

from html import unescape
from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts.policy import BOOTSTRAP_ADMIN
from common import commands
from common.errors import Invalid
from common.query import DEFAULT_LIMIT, MAXIMUM_LIMIT
from embeddings import filters, selectors
from embeddings.batches import check_words
from embeddings.hybrid import Asked, FusedHit, Mode
from embeddings.selectors import Row, Wanted

_SNIPPET = 160


class Command(commands.Command):
    help = (
        "Search a project by words. They are embedded with the project's LLM service and compared "
        "with its texts (--mode vector), looked for in the texts (text), or both (hybrid). Prints "
        "the best texts, with their cosine similarity, their score where words count, and how they "
        "begin, or the part with the words. Exit code 0, also where nothing is found; 2: it could "
        "not run."
    )
    example = """\
  manage.py search demo/wikipedia-vital "who painted the Mona Lisa"
  manage.py search demo/wikipedia-vital "qui a peint la Joconde" --limit 3 \\
      --filter '{"language": "fr"}'
  manage.py search demo/wikipedia-vital '"Mona Lisa" -Florence' --mode text
  manage.py search alice/letters "the garden in spring" --mode hybrid --json"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "project", type=commands.address, metavar="OWNER/HANDLE", help="where to search"
        )
        parser.add_argument(
            "words",
            help='what to search for, such as a question; where words count, "quoted ones" stand '
            "side by side, OR is between alternatives, and - before what must not be there",
        )
        parser.add_argument(
            "--mode",
            choices=[each.value for each in Mode],
            default=Mode.VECTOR.value,
            help="what texts are ranked by: their vectors, their words, or both (%(default)s)",
        )
        parser.add_argument(
            "--limit",
            "--count",
            dest="limit",
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
        mode = Mode(options["mode"])
        results = selectors.texts_matching(
            BOOTSTRAP_ADMIN,
            owner=project[0],
            handle=project[1],
            words=check_words(words, "words"),
            asked=Asked(mode),
            wanted=Wanted(
                limit=options["limit"],
                offset=0,
                threshold=-1.0,
                filter=_filter(options["filter"]),
            ),
        )
        if options["json"]:
            self.show_json([_as_json(mode, hit, row) for hit, row in results])
        elif results:
            score = () if mode is Mode.VECTOR else ("Score",)
            self.show_table(
                ("Similarity", *score, "Id", "Text"),
                [_as_cells(mode, hit, row) for hit, row in results],
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


def _as_json(mode: Mode, hit: FusedHit, row: Row) -> dict[str, Any]:
    """Return a result as the API has it, with its text."""
    result: dict[str, Any] = {"id": hit.text_id, "similarity": hit.similarity}
    if mode is not Mode.VECTOR:
        result |= {
            "score": hit.score,
            "ranks": {"vector": hit.vector_rank, "text": hit.text_rank},
            "highlight": hit.highlight,
        }
    return {**result, "text": row.text}


def _as_cells(mode: Mode, hit: FusedHit, row: Row) -> tuple[str, ...]:
    similarity = "–" if hit.similarity is None else f"{hit.similarity:.3f}"
    score = () if mode is Mode.VECTOR else (f"{hit.score:.4f}",)
    shown = row.text if hit.highlight is None else _plain(hit.highlight)
    return (
        similarity,
        *score,
        commands.one_line(hit.text_id, limit=80),
        commands.one_line(shown, limit=_SNIPPET),
    )


def _plain(highlight: str) -> str:
    """Return a highlight, which is HTML, as text."""
    return unescape(highlight.replace("<mark>", "").replace("</mark>", ""))

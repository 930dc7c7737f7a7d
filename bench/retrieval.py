"""Measures whether questions in words find the articles that answer them; prints Markdown.

python -m bench.retrieval                    against a server that it starts, with the demo
python -m bench.retrieval --url http://127.0.0.1:8880

The questions are hand-written, each with the ids of the articles that answer it. They are searched
for among the demo's English articles over the HTTP API. The reference is what the model itself
reaches when everything is compared in numpy.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import orjson

from bench.corpus import DATA, TOP
from bench.processes import Server, free_port
from bench.wire import Connection, Refused

PROJECT = "demo/wikipedia-vital"
FILTER = '{"language": "en"}'
# What is added to a search for each mode.
MODES: dict[str, dict[str, str]] = {
    "vector": {},
    "text": {"mode": "text"},
    "hybrid": {"mode": "hybrid"},
}
# hit@1 and hit@10 of the model by language, from the README of the questions.
REFERENCE = {"en": (0.77, 0.95), "fr": (0.60, 0.90), "es": (0.50, 0.90), "de": (0.60, 1.00)}
TOLERANCE = 0.02


@dataclass(frozen=True)
class Question:
    """A question, and the ids of the texts that answer it: any of them will do."""

    words: str
    language: str
    answers: frozenset[str]


@dataclass(frozen=True)
class Score:
    """How many questions of a language found an answer."""

    questions: int
    first: float
    among_ten: float


def questions_of(path: Path) -> list[Question]:
    """Return the questions of a file of JSON lines."""
    lines = map(orjson.loads, path.read_bytes().splitlines())
    return [
        Question(each["question"], each["language"], frozenset(each["expected_text_ids"]))
        for each in lines
    ]


def ranks(connection: Connection, questions: Iterable[Question], mode: str) -> Iterator[int | None]:
    """Yield at which rank, from 0, each question found an answer; None for not among the first."""
    for question in questions:
        query = {"q": question.words, "count": TOP, "filter": FILTER, **MODES[mode]}
        path = f"/v1/similars/{PROJECT}?{urlencode(query)}"
        answer = connection.request("GET", path)
        if answer.status != 200:
            raise Refused(f"GET {path}", answer)
        found = [hit["id"] for hit in answer.json()["results"]]
        yield next((rank for rank, each in enumerate(found) if each in question.answers), None)


def scores(questions: Sequence[Question], found: Iterable[int | None]) -> dict[str, Score]:
    """Return the share of hits at the first rank and among the first ten, by language."""
    by_language: dict[str, list[int | None]] = defaultdict(list)
    for question, rank in zip(questions, found, strict=True):
        by_language[question.language].append(rank)
    return {
        language: Score(
            len(each),
            sum(rank == 0 for rank in each) / len(each),
            sum(rank is not None for rank in each) / len(each),
        )
        for language, each in by_language.items()
    }


def is_as_good(language: str, score: Score) -> bool:
    """Say whether a score is within the tolerance of the reference, or better."""
    first, among_ten = REFERENCE[language]
    # The reference has two decimals.
    return (
        round(score.first, 2) >= first - TOLERANCE
        and round(score.among_ten, 2) >= among_ten - TOLERANCE
    )


def is_good(results: dict[str, dict[str, Score]], mode: str, language: str) -> bool | None:
    """Say whether a mode reaches what is expected of it; None where nothing is.

    Vectors have to find as well as the model does, and both together at least as much as vectors.
    Words alone do not find what is asked for in another language.
    """
    score = results[mode][language]
    if mode == "text":
        return None
    if mode == "vector":
        return is_as_good(language, score)
    return score.among_ten >= results["vector"][language].among_ten


def table(results: dict[str, dict[str, Score]]) -> str:
    """Return the scores by mode and language as a Markdown table."""
    lines = [
        "| Mode | Language | Questions | hit@1 | hit@10 | Reference hit@1 | hit@10 | Good |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for mode, by_language in results.items():
        for language, score in by_language.items():
            first, among_ten = REFERENCE[language]
            good = {True: "yes", False: "**no**", None: ""}[is_good(results, mode, language)]
            lines.append(
                f"| {mode} | {language} | {score.questions} | {score.first:.2f} |"
                f" {score.among_ten:.2f} | {first:.2f} | {among_ten:.2f} | {good} |"
            )
    return "\n".join(lines)


@contextmanager
def demo_server() -> Iterator[tuple[str, int]]:
    """Start a server with the demo in a folder of its own; yield its host and port."""
    with tempfile.TemporaryDirectory(prefix="armarium-bench-") as folder:
        port = free_port()
        server = Server(
            [sys.executable, "manage.py", "up", "--demo", "--no-worker", "--port", str(port)],
            Path(folder) / "armarium.log",
            {"ARMARIUM_DATA_DIR": str(Path(folder) / "data")},
        )
        try:
            server.wait_until(lambda: _is_ready(("127.0.0.1", port)))
            yield "127.0.0.1", port
        finally:
            server.stop()


def _is_ready(address: tuple[str, int]) -> bool:
    with Connection(address) as connection:
        return connection.request("GET", "/readyz").status == 200


def measure(address: tuple[str, int], questions: Sequence[Question]) -> dict[str, dict[str, Score]]:
    """Return the scores of every mode."""
    with Connection(address) as connection:
        return {mode: scores(questions, ranks(connection, questions, mode)) for mode in MODES}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 where a score is below what is expected."""
    parser = argparse.ArgumentParser(
        prog="bench.retrieval",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", help="a running server with the demo (one is started)")
    parser.add_argument("--questions", type=Path, default=DATA / "wikipedia_questions.jsonl")
    options = parser.parse_args(arguments)
    questions = questions_of(options.questions)
    if options.url:
        place = urlsplit(options.url)
        results = measure((place.hostname or "127.0.0.1", place.port or 8880), questions)
    else:
        with demo_server() as address:
            results = measure(address, questions)
    print(table(results))
    good = [
        is_good(results, mode, language)
        for mode, by_language in results.items()
        for language in by_language
    ]
    return int(False in good)


if __name__ == "__main__":
    sys.exit(main())

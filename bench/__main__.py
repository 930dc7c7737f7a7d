"""Measures Armarium beside raw SQL, and beside Chroma's server, in one run; prints Markdown.

python -m bench                      everything (about an hour)
python -m bench search --quick       one scenario, small: does it work?
python -m bench ingest search --chroma /path/to/chroma
"""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from bench import chroma
from bench.corpus import DATA
from bench.report import Report, machine
from bench.run import QUICK, Data, Sizes, servers
from bench.side import Unavailable

SCENARIOS = ("ingest", "search", "filtered", "tenancy", "mixed", "revocation", "memory")
NOTES = (
    "Medians of {rounds} rounds, taken in turns. ↑ more is better, ↓ less is better; a ratio is"
    " Armarium's figure divided by the other's.",
    "Raw SQL: psycopg in the same database; searches are prepared and binary, uploads are binary"
    " COPY of one transaction a batch of 1000 into a table with the same unique index. Graphs have"
    " m = 16 and ef_construction = 64.",
)
LIFTED = (
    "There is no real set of 1536 dimensions: the real vectors are multiplied by a fixed matrix"
    " with orthonormal rows, which keeps every cosine."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    options = _parser().parse_args(arguments)
    sizes = _sizes(options)
    names = options.scenarios or list(SCENARIOS)
    report = Report()
    report.begin()
    report.note(f"{machine()}.")
    for note in NOTES:
        report.note(note.format(rounds=sizes.rounds))
    if {"ingest", "search"} & set(names):
        report.note(LIFTED)
    program = None if options.no_chroma else chroma.program(options.chroma)
    if program is None:
        report.note("Chroma was not measured: it is not installed, or was left out.")
    data = Data(options.data if options.corpus == "wordnet" else None, sizes)
    for name in names:
        _measure(name, sizes, data, report, program)
    report.end()
    if options.update:
        report.update(options.update)
    return int(report.failed)


def _measure(name: str, sizes: Sizes, data: Data, report: Report, program: Path | None) -> None:
    report.scenario = name
    began = time.monotonic()
    try:
        with servers(sizes, data, report, program) as bench:
            at_rest = bench.ours.memory_mb()
            try:
                import_module(f"bench.scenarios.{name}").run(bench)
            finally:
                report.figure("a web worker before, MB ↓", [at_rest])
                report.figure("a web worker at its peak, MB ↓", [bench.ours.peak_memory_mb()])
    except Unavailable as reason:
        report.text("not measured", str(reason))
    except Exception as error:  # noqa: BLE001 - the other scenarios are still worth measuring
        report.failure(error)
        print(f"{name}: {error}", file=sys.stderr)
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--rows", type=int, help="rows of the corpus (100000)")
    parser.add_argument("--wide-rows", type=int, help="rows with 1536 dimensions (50000)")
    parser.add_argument("--rounds", type=int, help="repeat, and take medians (5)")
    parser.add_argument("--seconds", type=float, help="how long one search load takes (3)")
    parser.add_argument("--trials", type=int, help="revocations (1000)")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work?")
    parser.add_argument("--corpus", choices=["wordnet", "demo"], default="wordnet")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the WordNet corpus")
    parser.add_argument("--chroma", help="Chroma's executable (the one of this environment)")
    parser.add_argument("--no-chroma", action="store_true", help="leave Chroma out")
    parser.add_argument("--update", type=Path, help="put the table into this document")
    return parser


def _sizes(options: argparse.Namespace) -> Sizes:
    names = ("rows", "wide_rows", "rounds", "seconds", "trials")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    for unknown in set(options.scenarios) - set(SCENARIOS):
        sys.exit(f"There is no scenario {unknown}; there are {', '.join(SCENARIOS)}.")
    return replace(QUICK if options.quick else Sizes(), **given)


if __name__ == "__main__":
    # Ended politely, it still stops the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())

"""How fast are batches acknowledged, and how soon are they in an index?"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from bench.armarium import FORMATS, INDEXED_FROM, NO_INDEX
from bench.corpus import Corpus
from bench.load import ask_all
from bench.run import Bench
from bench.side import Side

_NAMES = {"json": "JSON", "base64": "JSON with base64 vectors", "arrow": "Arrow"}


def run(bench: Bench) -> None:
    """Upload the same rows in every format the server reads."""
    formats = bench.ours.formats()
    for format in FORMATS:
        if format not in formats:
            bench.report.text(f"{_NAMES[format]}", "not read by this server")
    for corpus in (bench.data.narrow, bench.data.wide):
        _ingest(bench, corpus, formats)


def _ingest(bench: Bench, corpus: Corpus, formats: Sequence[str]) -> None:
    name = f"{len(corpus):,} x {corpus.dimensions}"
    ours = {format: bench.ours.encoded(corpus, format) for format in formats}
    others = {side.name: side.batches(corpus) for side in bench.sides if side is not bench.ours}
    sides = {side.name: side for side in bench.sides}
    measures = {
        **{
            format: partial(_one, bench, bench.ours, corpus, batches, index=format == "json")
            for format, batches in ours.items()
        },
        **{
            other: partial(_one, bench, sides[other], corpus, batches, index=True)
            for other, batches in others.items()
        },
    }
    taken = bench.rounds(measures)
    for format in formats:
        bench.figure(
            f"{name}, {_NAMES[format]}, acknowledged rows/s ↑",
            {
                bench.ours.name: [first for first, _ in taken[format]],
                **{other: [first for first, _ in taken[other]] for other in others},
            },
        )
    indexed = {other: [second for _, second in taken[other]] for other in others}
    if corpus.vectors.size > INDEXED_FROM:
        if all(second for _, second in taken["json"]):
            indexed[bench.ours.name] = [second for _, second in taken["json"]]
        else:
            bench.report.note(NO_INDEX)
    bench.figure(f"{name}, JSON, rows/s until the index holds them ↑", indexed)


def _one(
    bench: Bench, side: Side, corpus: Corpus, batches: Sequence[Any], *, index: bool
) -> tuple[float, float]:
    """Return the rows a second until all is acknowledged, and until all is in an index.

    The latter is 0 where there is none.
    """
    place = side.create("ingest", corpus.dimensions)
    load = ask_all(side.uploader(place), batches)
    indexed = 0.0
    if index and not (side is bench.ours and bench.ours.index(place) is None):
        began = time.perf_counter()
        side.settle(place)
        indexed = len(corpus) / (load.seconds + time.perf_counter() - began)
    side.drop(place)
    bench.ours.wait_until_quiet()
    return len(corpus) / load.seconds, indexed

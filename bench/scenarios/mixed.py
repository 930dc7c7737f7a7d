"""What do uploads into an indexed project cost the uploads, and the searches meanwhile?"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from bench.armarium import NO_INDEX
from bench.corpus import Corpus
from bench.load import Ask, Load, Opener, ask_beside, ask_for
from bench.run import Bench
from bench.side import BATCH, Side

_NOISE = 0.02


@dataclass(frozen=True)
class _Upload:
    """A batch, and a search that must find one of its rows as soon as it is acknowledged."""

    batches: Sequence[Any]
    sample: Any
    sample_id: str


@dataclass
class _Side:
    """What one side's rounds gave."""

    side: Side
    place: str
    during: list[Load] = field(default_factory=list)
    indexed: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)
    settled: list[float] = field(default_factory=list)
    lost: int = 0


def run(bench: Bench) -> None:
    """One process uploads, checking each batch; another searches."""
    corpus = bench.data.narrow
    places = {side.name: side.create("mixed", corpus.dimensions) for side in bench.sides}
    for side in bench.sides:
        side.load(places[side.name], corpus)
    bench.raw.tidy(places[bench.raw.name])
    bench.ours.wait_until_quiet()
    all_sides = [_Side(side, places[side.name]) for side in bench.sides]
    idle = bench.rounds(
        {
            each.side.name: partial(ask_for, bench.sizes.seconds, *_search(each, corpus), clients=1)
            for each in all_sides
        }
    )
    for number in range(bench.sizes.rounds):
        news = _news(corpus, number, bench.sizes.batches * BATCH)
        for each in all_sides:
            _round(bench, each, corpus, news)
    _report(bench, all_sides, idle)


def _round(bench: Bench, each: _Side, corpus: Corpus, news: Corpus) -> None:
    side = each.side
    uploads = _uploads(side, news)
    load, during = ask_beside((_checked(side, each.place), uploads), _search(each, corpus))
    began = time.perf_counter()
    side.settle(each.place)
    each.settled.append(time.perf_counter() - began)
    each.during.append(during)
    each.indexed.append(_rate(load, len(news)))
    each.lost += sum(not found for _, found in load.answers.values())
    fresh = side.create("mixed_new", corpus.dimensions)
    load, _ = ask_beside((_checked(side, fresh), uploads), _search(each, corpus))
    each.fresh.append(_rate(load, len(news)))
    each.lost += sum(not found for _, found in load.answers.values())
    side.drop(fresh)
    bench.ours.wait_until_quiet()


def _report(bench: Bench, all_sides: list[_Side], idle: dict[str, list[Load]]) -> None:
    during = {each.side.name: each.during for each in all_sides}
    bench.latencies("searches of one client, idle", idle, (95,))
    bench.latencies("searches of one client during uploads", during, (95,))
    bench.figure(
        "p95 during ÷ p95 idle ↓",
        {
            name: [
                one.percentile_ms(95) / other.percentile_ms(95)
                for one, other in zip(during[name], idle[name], strict=True)
            ]
            for name in during
        },
        steady=False,
    )
    bench.figure(
        "rows/s into the indexed project, one client ↑",
        {each.side.name: each.indexed for each in all_sides},
    )
    bench.figure(
        "rows/s into a new project, one client ↑",
        {each.side.name: each.fresh for each in all_sides},
    )
    bench.figure(
        "indexed ÷ new ↑",
        {
            each.side.name: [
                one / other for one, other in zip(each.indexed, each.fresh, strict=True)
            ]
            for each in all_sides
        },
        steady=False,
    )
    bench.figure(
        "batches whose sample was not found at once (must be 0) ↓",
        {each.side.name: [each.lost] for each in all_sides},
    )
    ours = all_sides[0]
    if bench.ours.index(ours.place) is None:
        bench.report.note(NO_INDEX)
        return
    bench.report.figure("seconds until at most 2000 rows wait for the index ↓", ours.settled)


def _search(each: _Side, corpus: Corpus) -> tuple[Opener, Sequence[Any]]:
    return each.side.searcher(each.place), each.side.questions(corpus.queries)


def _uploads(side: Side, news: Corpus) -> list[_Upload]:
    uploads = []
    for start in range(0, len(news), BATCH):
        batch = news.slice(start, start + BATCH)
        at = start % 997 % len(batch)
        [sample] = side.questions(batch.vectors[at : at + 1])
        uploads.append(_Upload(side.batches(batch), sample, batch.ids[at]))
    return uploads


def _checked(side: Side, place: str) -> Opener:
    """Return a client that uploads, times that alone, and looks for the sample at once."""

    @contextmanager
    def opened() -> Iterator[Ask]:
        with side.uploader(place)() as upload, side.searcher(place)() as search:

            def ask(question: _Upload) -> tuple[float, bool]:
                began = time.perf_counter()
                for batch in question.batches:
                    upload(batch)
                took = time.perf_counter() - began
                return took, question.sample_id in side.found(search(question.sample))

            yield ask

    return opened


def _rate(load: Load, rows: int) -> float:
    return rows / sum(took for took, _ in load.answers.values())


def _news(corpus: Corpus, number: int, count: int) -> Corpus:
    """Return new rows: those of the corpus, each moved a little."""
    random = np.random.default_rng(number)
    rows = random.integers(len(corpus), size=count)
    noise = random.standard_normal((count, corpus.dimensions)).astype(np.float32) * _NOISE
    return replace(
        corpus,
        ids=[f"new-{number}-{position}" for position in range(count)],
        texts=[corpus.texts[row] for row in rows],
        metadata=[corpus.metadata[row] for row in rows],
        vectors=corpus.vectors[rows] + noise,
    )

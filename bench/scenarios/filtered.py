"""Is a filtered search right, and fast, whatever share of the rows matches?

Three kinds of filters: at random; *near*, where the rows that match are those nearest to the
queries; *far*, where they are those farthest away, which is the hard case for a graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import orjson

from bench.corpus import Corpus, Matrix, nearest, recall, similarities
from bench.load import ask_all, ask_for
from bench.raw import Plan
from bench.run import Bench
from bench.side import TARGET_RECALL, Side, Unavailable

SHARES = (0.0001, 0.001, 0.01, 0.1, 0.5, 1.0)
_ANCHORS = 40
_NAMES = {"random": "uncorrelated", "near": "correlated", "far": "anti-correlated"}


@dataclass(frozen=True)
class Filter:
    """A condition, the queries that go with it, and what they should find."""

    kind: str
    share: float
    rows: np.ndarray
    queries: Matrix

    @property
    def where(self) -> dict[str, object]:
        """Return the condition on the metadata."""
        return {f"{self.kind}_{self.share * 10_000:g}": "yes"}

    def truth(self, corpus: Corpus) -> list[list[str]]:
        """Return the nearest ids among the rows that match, by comparing all of them.

        None beyond a right angle: Armarium's threshold is 0 at least.
        """
        matching = corpus.vectors[self.rows]
        cosines = similarities(matching, self.queries)
        return [
            [corpus.ids[self.rows[row]] for row in rows if cosines[query, row] >= 0]
            for query, rows in enumerate(nearest(matching, self.queries))
        ]


@dataclass
class _Quality:
    recall: float
    short: int
    p50_ms: float

    @property
    def good(self) -> bool:
        return self.recall >= TARGET_RECALL and not self.short


def run(bench: Bench) -> None:
    """Search with filters of six selectivities and three kinds, with one client."""
    filters = _filters(bench.data.narrow)
    corpus = _marked(bench.data.narrow, filters)
    places = {side.name: side.create("filtered", corpus.dimensions) for side in bench.sides}
    for side in bench.sides:
        side.load(places[side.name], corpus)
        if side is bench.ours:
            _refuse_ignored_filter(side, places[side.name], filters[1])
    bench.raw.tidy(places[bench.raw.name], metadata=True)
    bench.ours.wait_until_quiet()
    short: dict[str, int] = {}
    for each in filters:
        for name, count in _measure(bench, corpus, places, each).items():
            short[name] = short.get(name, 0) + count
    bench.figure(
        "answers with fewer than the ten, or all, matching rows (must be 0) ↓",
        {name: [count] for name, count in short.items()},
    )


def _measure(bench: Bench, corpus: Corpus, places: dict[str, str], each: Filter) -> dict[str, int]:
    """Report one filter; return how many answers were short, by side."""
    truth = each.truth(corpus)
    quality = {
        side.name: _quality(side, places[side.name], each, truth)
        for side in bench.sides
        if side is not bench.raw
    }
    plans = {
        plan: _quality(bench.raw.planned(plan), places[bench.raw.name], each, truth)
        for plan in Plan
    }
    # The faster of the plans that are good enough; when none is, the one that finds most.
    best = min(plans, key=lambda plan: (not plans[plan].good, plans[plan].p50_ms))
    quality[bench.raw.name] = plans[best]
    sides = [bench.raw.planned(best) if side is bench.raw else side for side in bench.sides]
    loads = bench.rounds(
        {
            side.name: partial(
                ask_for,
                bench.sizes.seconds / 3,
                side.searcher(places[side.name]),
                side.questions(each.queries, each.where),
                clients=1,
            )
            for side in sides
        }
    )
    bench.latencies(
        f"{_NAMES[each.kind]} {each.share:.2%} (raw: {best.value})",
        loads,
        (50,),
        recalls={name: one.recall for name, one in quality.items()},
    )
    return {name: one.short for name, one in quality.items()}


def _quality(side: Side, place: str, each: Filter, truth: Sequence[Sequence[str]]) -> _Quality:
    load = ask_all(side.searcher(place), side.questions(each.queries, each.where))
    found = [side.found(load.answers[number]) for number in range(len(truth))]
    short = sum(len(one) < len(other) for one, other in zip(found, truth, strict=True))
    return _Quality(recall(found, truth), short, load.percentile_ms(50))


def _filters(corpus: Corpus) -> list[Filter]:
    anchors = corpus.queries[:_ANCHORS]
    others = corpus.queries[_ANCHORS : 3 * _ANCHORS]
    random = np.random.default_rng(6).permutation(len(corpus))
    near = np.argsort(-similarities(corpus.vectors, anchors).max(axis=0))
    orders = {"random": (random, others), "near": (near, anchors), "far": (near[::-1], anchors)}
    return [
        Filter(kind, share, order[: max(1, round(share * len(corpus)))], queries)
        for kind, (order, queries) in orders.items()
        # All rows match all the same, whichever come first.
        for share in (SHARES if kind == "random" else SHARES[:-1])
    ]


def _marked(corpus: Corpus, filters: Sequence[Filter]) -> Corpus:
    """Return the corpus with metadata that the filters ask for."""
    metadata = [orjson.loads(text) for text in corpus.metadata]
    for each in filters:
        for row in each.rows:
            metadata[row] |= each.where
    return replace(corpus, metadata=[orjson.dumps(one).decode() for one in metadata])


def _refuse_ignored_filter(side: Side, place: str, each: Filter) -> None:
    """Raise Unavailable if the server answers as if there were no filter."""
    filtered, unfiltered = (
        ask_all(side.searcher(place), side.questions(each.queries[:5], where)).answers
        for where in (each.where, None)
    )
    if all(side.found(filtered[number]) == side.found(unfiltered[number]) for number in filtered):
        raise Unavailable("This server ignores `filter`: nothing to measure.")

"""Compares searches through the index with exact ones: recall@k, and how long both take.

Recall@k is the share of the k nearest that an approximate search returns (by distance, so that ties
count as found: Aumüller et al., ANN-Benchmarks, 2020). Queries are stored vectors chosen at random,
each without itself. They are somewhat easier to find from than texts that are not stored, so the
recall of new queries is a little lower.
"""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from embeddings import store
from embeddings.store import Plan, Ranking, Wanted
from projects.models import Project

_K = 10
_EF_SEARCH = (20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 600, 800, store.MOST_CANDIDATES)
# Two rankings compute the same similarity in the same way; this is for its last digits.
_TIE = 1e-9
# An answer is due within ten seconds; what was compared until then will do.
_LONGEST_S = 7.0
# As many numbers are compared in about a second.
_AFFORDABLE = 2_000_000_000
_FEWEST_QUERIES, _MOST_QUERIES = 20, 100
# The normal quantile of a confidence of 95 %.
_Z = 1.959964


@dataclass(frozen=True)
class Measured:
    """The fewest candidates that reached a recall, or the most there can be."""

    ef_search: int
    recall: float


@dataclass(frozen=True)
class Comparison:
    """What a sample of searches found through the index and exactly.

    recall: the mean recall@k over the queries; None where no query had a neighbour.
    low, high: its 95 % confidence interval (Wilson, 1927, over all the neighbours looked for).
    queries: how many stored vectors were asked with.
    plans: how many of the searches took which plan.
    index_ms, exact_ms: the latency of each search in the database, in milliseconds.
    """

    k: int
    queries: int
    recall: float | None
    low: float | None
    high: float | None
    plans: dict[Plan, int]
    index_ms: Sequence[float]
    exact_ms: Sequence[float]


def compare(project: Project, *, k: int, queries: int, wanted: Wanted) -> Comparison:
    """Search with stored vectors chosen at random, through the index and exactly.

    Compares fewer than asked for where it would take longer than some seconds.
    wanted: filter and ef_search of the searches; the rest is set here.
    """
    wanted = replace(wanted, limit=k, offset=0, threshold=-1.0)
    found, looked_for, recalls = 0, 0, []
    plans: dict[Plan, int] = {}
    index_ms: list[float] = []
    exact_ms: list[float] = []
    started = time.monotonic()
    for text_id in store.sample(project.pk, queries):
        if time.monotonic() - started > _LONGEST_S:
            break
        truth, took_exact = _timed(project, text_id, replace(wanted, exact=True))
        answer, took_index = _timed(project, text_id, wanted)
        if truth is None or answer is None:
            # Deleted since it was chosen.
            continue
        plans[answer.plan] = plans.get(answer.plan, 0) + 1
        index_ms.append(took_index)
        exact_ms.append(took_exact)
        if truth.hits:
            hits = _hits(answer, truth)
            found, looked_for = found + hits, looked_for + len(truth.hits)
            recalls.append(hits / len(truth.hits))
    low, high = _wilson(found, looked_for)
    recall = statistics.fmean(recalls) if recalls else None
    return Comparison(k, len(index_ms), recall, low, high, plans, index_ms, exact_ms)


def fewest_candidates(project: Project, *, target: float) -> Measured:
    """Return the smallest ef_search whose recall@10 reaches the target, on a sample.

    Through the graph only: rows of the growing part are found in any case.
    """
    parts = store.look(project.pk)
    affordable = _AFFORDABLE // max(1, parts.rows * parts.dimensions)
    queries = max(_FEWEST_QUERIES, min(_MOST_QUERIES, affordable))
    exactly = Wanted(limit=_K, offset=0, threshold=-1.0, exact=True)
    truths = {
        text_id: truth
        for text_id in store.sample(project.pk, queries)
        if (truth := store.nearest_to_stored(project.pk, [text_id], exactly)) and truth.hits
    }
    measured = Measured(_EF_SEARCH[0], 1.0)
    if not truths:
        return measured
    for ef_search in _EF_SEARCH:
        wanted = replace(exactly, exact=False, ef_search=ef_search)
        recalls = [
            _hits(answer, truth) / len(truth.hits)
            for text_id, truth in truths.items()
            if (answer := store.nearest_to_stored(project.pk, [text_id], wanted))
        ]
        measured = Measured(ef_search, statistics.fmean(recalls) if recalls else 1.0)
        if measured.recall >= target:
            break
    return measured


def _timed(project: Project, text_id: str, wanted: Wanted) -> tuple[Ranking | None, float]:
    started = time.perf_counter()
    ranking = store.nearest_to_stored(project.pk, [text_id], wanted)
    return ranking, (time.perf_counter() - started) * 1_000


def _hits(answer: Ranking, truth: Ranking) -> int:
    """Return how many of an answer are among the nearest, or as near as the last of them."""
    least = truth.hits[-1].similarity - _TIE
    return sum(hit.similarity >= least for hit in answer.hits[: len(truth.hits)])


def _wilson(found: int, looked_for: int) -> tuple[float | None, float | None]:
    """Return the score interval of a proportion."""
    if not looked_for:
        return None, None
    share = found / looked_for
    center = share + _Z**2 / (2 * looked_for)
    spread = _Z * math.sqrt(share * (1 - share) / looked_for + (_Z / (2 * looked_for)) ** 2)
    scale = 1 + _Z**2 / looked_for
    # Rounding puts 0 and 1 outside, or an end of the interval beyond them, by the last digit.
    low, high = (center - spread) / scale, (center + spread) / scale
    return max(0.0, min(low, share)), min(1.0, max(high, share))

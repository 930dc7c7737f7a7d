"""Searches by words, or by words and a vector together.

Two rankings are fused by the places of their results (reciprocal rank fusion: Cormack, Clarke and
Büttcher, 2009), since a cosine and a score of words cannot be compared. Pages of one search fit
together: each leg has as many candidates whatever page is wanted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from embeddings import store, words
from embeddings.columns import Matrix
from embeddings.highlights import highlight
from embeddings.languages import HISTORICAL
from embeddings.store import Ranking, Wanted

DEFAULT_ALPHA = 0.7
DEFAULT_RRF_K = 60
DEFAULT_CANDIDATES = 200
# Beside vectors, texts that hold less than this share of the words' weight do not count: they would
# push aside what a question finds whose words, in another language, share an article with them.
_LEAST_SHARE = 1 / 3
# With fewer texts that hold the words, those count too whose words are spelled much like them.
_ENOUGH = 10


class Mode(StrEnum):
    """What texts are ranked by: their vectors, their words, or both."""

    VECTOR = "vector"
    TEXT = "text"
    HYBRID = "hybrid"


@dataclass(frozen=True)
class Asked:
    """How to rank.

    alpha: the weight of the vectors, 0 to 1; the words have the rest.
    rrf_k: how little the first places stand out: a result counts 1 / (rrf_k + rank) in each leg.
    candidates: how many results each leg has at most.
    threshold: the least similarity of a result; None for any.
    """

    mode: Mode
    alpha: float = DEFAULT_ALPHA
    rrf_k: int = DEFAULT_RRF_K
    candidates: int = DEFAULT_CANDIDATES
    threshold: float | None = None


@dataclass(frozen=True)
class FusedHit:
    """One result; its ranks in both legs begin at 1 and are None where a leg did not find it.

    similarity: the cosine, from -1 to 1; None where there is no vector to compare with.
    highlight: a part of its text as HTML, the words in `<mark>`; None where it holds none.
    """

    text_id: str
    similarity: float | None
    score: float
    vector_rank: int | None
    text_rank: int | None
    highlight: str | None


@dataclass(frozen=True)
class Fused:
    """The results of a search, the best first; `ranking` is how its vectors were searched."""

    hits: list[FusedHit]
    ranking: Ranking | None


def meant(text: str) -> str:
    """Return the words to embed of a text that is searched with: those to look for."""
    read = words.read(text)
    return (read.positive or text) if read.has_operators else text


def search(
    project_id: int, text: str, vector: Matrix | None, asked: Asked, wanted: Wanted
) -> Fused:
    """Return the texts that are most like a vector, and hold most of the words of a text.

    vector: float32 of shape (dimensions,); None with Mode.TEXT. wanted: its threshold is not used.
    Four statements with a vector, three without; one more for each of: a filter or an exclusion on
    a large project, a threshold, operators in the text, words that hardly any text holds.
    """
    by_vector = {}
    ranking = None
    if vector is not None:
        leg = replace(
            wanted, limit=asked.candidates, offset=0, threshold=max(asked.threshold or 0.0, 0.0)
        )
        ranking = store.nearest(project_id, vector, leg)
        by_vector = {hit.text_id: hit.similarity for hit in ranking.hits}
    analysed = store.analyse(project_id, words.read(text))
    by_words = _holding(project_id, analysed, asked, wanted)
    vector_ranks = {text_id: rank for rank, text_id in enumerate(by_vector, 1)}
    text_ranks = {text_id: rank for rank, text_id in enumerate(by_words, 1)}
    scores = _scores(asked, vector_ranks, text_ranks)
    found = sorted(scores, key=lambda text_id: (-scores[text_id], text_id))
    if vector is not None and (asked.threshold is not None or analysed.words.always):
        known = store.details(project_id, found, analysed, vector=vector, excerpts=False)
        least = -1.0 if asked.threshold is None else asked.threshold
        found = [
            text_id
            for text_id in found
            if text_id in known
            and known[text_id].fulfils
            and by_vector.get(text_id, known[text_id].similarity or -1.0) >= least
        ]
    page = found[wanted.offset : wanted.last]
    shown = store.details(project_id, page, analysed, vector=vector, excerpts=True) if page else {}
    hits = [
        FusedHit(
            text_id,
            by_vector.get(text_id, shown[text_id].similarity),
            scores[text_id],
            vector_ranks.get(text_id),
            text_ranks.get(text_id),
            highlight(shown[text_id].text, shown[text_id].marked),
        )
        for text_id in page
        # It may have been deleted since.
        if text_id in shown
    ]
    return Fused(hits, ranking)


def _holding(
    project_id: int, analysed: store.Analysed, asked: Asked, wanted: Wanted
) -> Sequence[str]:
    """Return the ids of the texts that hold the words, the best first."""
    limit = asked.candidates
    least_share = _LEAST_SHARE if asked.mode is Mode.HYBRID else 0.0
    found = store.matching(project_id, analysed, wanted, least_share=least_share, limit=limit)
    if analysed.language == HISTORICAL and len(found) < _ENOUGH:
        found = [*found, *store.resembling(project_id, analysed, wanted, limit=limit)]
    return list(dict.fromkeys(match.text_id for match in found))[:limit]


def _scores(
    asked: Asked, vector_ranks: dict[str, int], text_ranks: dict[str, int]
) -> dict[str, float]:
    alpha = asked.alpha if asked.mode is Mode.HYBRID else 0.0
    scores: dict[str, float] = {}
    for weight, ranks in ((alpha, vector_ranks), (1 - alpha, text_ranks)):
        for text_id, rank in ranks.items():
            scores[text_id] = scores.get(text_id, 0.0) + weight / (asked.rrf_k + rank)
    return scores

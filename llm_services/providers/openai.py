"""OpenAI's protocol, which most servers speak: vLLM, LM Studio, llama.cpp, TEI, Mistral, Ollama."""

from collections.abc import Sequence
from typing import Any

from llm_services.providers._base import Purpose
from llm_services.providers._http import HttpProvider, Limits, in_order, whole

# Models that return shorter vectors when asked; others refuse to be asked.
_SHORTENING = "text-embedding-3"


class OpenAiProvider(HttpProvider):
    """POST /v1/embeddings."""

    # OpenAI takes 2048 texts and 300 000 tokens; other servers less, which halving finds out.
    limits = Limits(texts=128, characters=300_000)
    # As the published clients of OpenAI do; servers that do not know the header ignore it.
    sends_idempotency_key = True

    def body(self, texts: Sequence[str], purpose: Purpose) -> dict[str, Any]:
        """Return the request for a batch."""
        request: dict[str, Any] = {"model": self.service.model, "input": list(texts)}
        if self.service.model.startswith(_SHORTENING):
            request["dimensions"] = self.service.dimensions
        return request

    def read(self, answer: Any) -> tuple[Sequence[Any], int | None]:
        """Return the vectors by their indexes, and the tokens."""
        tokens = whole(answer, "usage", "total_tokens")
        if tokens is None:
            tokens = whole(answer, "usage", "prompt_tokens")
        return in_order(answer["data"]), tokens

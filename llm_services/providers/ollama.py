"""Ollama's own API. Its endpoint that is compatible with OpenAI works as well, as `openai`."""

from collections.abc import Sequence
from typing import Any

from llm_services.providers._base import Purpose
from llm_services.providers._http import HttpProvider, Limits, whole


class OllamaProvider(HttpProvider):
    """POST /api/embed."""

    # A machine of one's own: large requests would only take long.
    limits = Limits(texts=64, characters=100_000)

    def body(self, texts: Sequence[str], purpose: Purpose) -> dict[str, Any]:
        """Return the request for a batch; texts that are too long are to be refused, not cut."""
        return {"model": self.service.model, "input": list(texts), "truncate": False}

    def read(self, answer: Any) -> tuple[Sequence[Any], int | None]:
        """Return the vectors and the tokens."""
        return list(answer["embeddings"]), whole(answer, "prompt_eval_count")

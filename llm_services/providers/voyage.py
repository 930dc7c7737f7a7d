"""Voyage AI's embeddings API."""

from collections.abc import Sequence
from typing import Any

from llm_services.providers._base import Purpose
from llm_services.providers._http import HttpProvider, Limits, in_order, whole

# Older models have one number of dimensions, and refuse to be asked.
_FIXED = ("voyage-01", "voyage-02", "voyage-2", "voyage-large-", "voyage-lite-", "voyage-law-",
          "voyage-finance-", "voyage-multilingual-", "voyage-code-2")  # fmt: skip


class VoyageProvider(HttpProvider):
    """POST /v1/embeddings."""

    limits = Limits(texts=128, characters=300_000)
    has_purposes = True

    def body(self, texts: Sequence[str], purpose: Purpose) -> dict[str, Any]:
        """Return the request for a batch; texts that are too long are to be refused, not cut."""
        request: dict[str, Any] = {
            "model": self.service.model,
            "input": list(texts),
            "input_type": purpose.value,
            "truncation": False,
        }
        if not self.service.model.startswith(_FIXED) and self.service.model != "voyage-3":
            request["output_dimension"] = self.service.dimensions
        return request

    def read(self, answer: Any) -> tuple[Sequence[Any], int | None]:
        """Return the vectors by their indexes, and the tokens."""
        return in_order(answer["data"]), whole(answer, "usage", "total_tokens")

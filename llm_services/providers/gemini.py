"""Google's Gemini API. It cuts texts that are too long, and does not say so."""

from collections.abc import Sequence
from typing import Any

from llm_services.providers._base import Purpose
from llm_services.providers._http import HttpProvider, Limits

_TASK = {Purpose.DOCUMENT: "RETRIEVAL_DOCUMENT", Purpose.QUERY: "RETRIEVAL_QUERY"}
_SINGLE, _BATCH = ":embedContent", ":batchEmbedContents"


class GeminiProvider(HttpProvider):
    """POST /v1beta/models/{model}:batchEmbedContents."""

    limits = Limits(texts=100, characters=400_000)
    has_purposes = True

    def endpoint(self) -> str:
        """Return the address that takes several texts; the endpoint may be that for one."""
        endpoint, question_mark, query = self.service.endpoint.partition("?")
        if not endpoint.endswith(_BATCH):
            endpoint = endpoint.removesuffix(_SINGLE) + _BATCH
        return f"{endpoint}{question_mark}{query}"

    def body(self, texts: Sequence[str], purpose: Purpose) -> dict[str, Any]:
        """Return the request for a batch."""
        request = {
            "model": f"models/{self.service.model.removeprefix('models/')}",
            "taskType": _TASK[purpose],
            "outputDimensionality": self.service.dimensions,
        }
        return {"requests": [{**request, "content": {"parts": [{"text": text}]}} for text in texts]}

    def read(self, answer: Any) -> tuple[Sequence[Any], int | None]:
        """Return the vectors; tokens are not counted."""
        return [entry["values"] for entry in answer["embeddings"]], None

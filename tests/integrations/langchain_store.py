"""A vector store of LangChain on the HTTP API, as thin as it gets."""

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Self
from urllib.parse import quote

import numpy as np
import requests
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore


class ArmariumVectorStore(VectorStore):
    """Keeps documents in one project.

    Searches of the API leave out what points away from the query, those of LangChain rank it last.
    So each vector has length 1 and one number more, 1: then the similarity that the API knows is
    (1 + cosine) / 2, from 0 to 1 and in the same order.
    """

    def __init__(
        self, embedding: Embeddings, *, url: str, project: str, instance: str, key: str
    ) -> None:
        self._embedding = embedding
        self._embeddings = f"{url}/v1/embeddings/{project}"
        self._similars = f"{url}/v1/similars/{project}"
        self._instance = instance
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {key}"

    @property
    def embeddings(self) -> Embeddings:
        """Return the model."""
        return self._embedding

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **options: Any,
    ) -> list[str]:
        """Store texts, replacing those of the same ids; return the ids."""
        given = list(texts)
        names = [each or str(uuid.uuid4()) for each in ids or [""] * len(given)]
        vectors = [_lifted(each) for each in self._embedding.embed_documents(given)]
        for row, name in enumerate(names):
            item = {
                "instance_handle": self._instance,
                "vector": vectors[row],
                "vector_dim": len(vectors[row]),
                "text": given[row],
                "metadata": metadatas[row] if metadatas else {},
            }
            self._ask("PUT", self._address(name), json=item)
        return names

    def delete(self, ids: list[str] | None = None, **options: Any) -> bool:
        """Delete texts by id, or all; those that are not there are fine."""
        addresses = [self._embeddings] if ids is None else map(self._address, ids)
        for address in addresses:
            self._ask("DELETE", address, is_optional=True)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the texts of these ids that are there."""
        found = [self._ask("GET", self._address(each), is_optional=True) for each in ids]
        return [_document(each) for each in found if each is not None]

    def similarity_search(
        self, query: str, k: int = 4, filter: dict[str, Any] | None = None, **options: Any
    ) -> list[Document]:
        """Return the texts most similar to a query."""
        found = self.similarity_search_with_score(query, k, filter=filter)
        return [document for document, _ in found]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: dict[str, Any] | None = None, **options: Any
    ) -> list[tuple[Document, float]]:
        """Return the same with the cosine of each."""
        body: dict[str, Any] = {"vector": _lifted(self._embedding.embed_query(query))}
        if filter is not None:
            body["filter"] = filter
        answer = self._ask("POST", self._similars, json=body, params={"count": k, "threshold": "0"})
        hits = answer["results"]
        documents = self.get_by_ids([each["id"] for each in hits])
        return [
            (document, 2 * each["similarity"] - 1)
            for document, each in zip(documents, hits, strict=True)
        ]

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **options: Any,
    ) -> Self:
        """Return a store with the texts; options: those of the store."""
        store = cls(embedding, **options)
        store.add_texts(texts, metadatas, ids=list(ids) if ids else None)
        return store

    def _address(self, text_id: str) -> str:
        return f"{self._embeddings}/{quote(text_id, safe='')}"

    def _ask(self, method: str, url: str, *, is_optional: bool = False, **options: Any) -> Any:
        response = self._session.request(method, url, timeout=30, **options)
        if is_optional and response.status_code == 404:
            return None
        response.raise_for_status()
        return response.json()


def _lifted(vector: list[float]) -> list[float]:
    """Return a vector of length 1 with a 1 at its end."""
    numbers = np.asarray(vector, dtype=np.float64)
    return [*(numbers / np.linalg.norm(numbers)).tolist(), 1.0]


def _document(found: dict[str, Any]) -> Document:
    return Document(id=found["text_id"], page_content=found["text"], metadata=found["metadata"])

"""The published tests of LangChain's vector stores, passed over HTTP; and its filters."""

from itertools import count
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from langchain_tests.integration_tests.vectorstores import EMBEDDING_SIZE

from tests.end_to_end.harness import Armarium
from tests.integrations.langchain_store import ArmariumVectorStore

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("served")]

_numbers = count(1)


@pytest.fixture(scope="module")
def key(served: Armarium) -> str:
    """Return the key of an account with an instance."""
    _, account = served.request("POST", "/v1/users", {"user_handle": "langchain"})
    key = str(account["api_key"])
    instance = {
        "instance_handle": "fake",
        "endpoint": "https://api.example.org/v1/embeddings",
        "api_standard": "openai",
        "model": "fake",
        "dimensions": EMBEDDING_SIZE + 1,
    }
    status, answer = served.request("POST", "/v1/llm-services/langchain", instance, key=key)
    assert status == 201, answer
    return key


@pytest.fixture
def vectorstore(served: Armarium, key: str) -> ArmariumVectorStore:
    """Return a store in a new project."""
    handle = f"documents-{next(_numbers)}"
    project = {"project_handle": handle, "instance_owner": "langchain", "instance_handle": "fake"}
    status, answer = served.request("POST", "/v1/projects/langchain", project, key=key)
    assert status == 201, answer
    return ArmariumVectorStore(
        VectorStoreIntegrationTests.get_embeddings(),
        url=f"http://127.0.0.1:{served.port}",
        project=f"langchain/{handle}",
        instance="fake",
        key=key,
    )


class TestStandard(VectorStoreIntegrationTests):
    """The standard suite."""

    @pytest.fixture
    def vectorstore(self, vectorstore: ArmariumVectorStore) -> VectorStore:
        """Return the store of this module."""
        return vectorstore


def test_filters_in_the_words_of_langchain(vectorstore: ArmariumVectorStore) -> None:
    vectorstore.add_documents(
        [
            Document(id="1", page_content="foo", metadata={"id": 1, "tags": ["a", "b"]}),
            Document(id="2", page_content="bar", metadata={"id": 2, "author": "Ann"}),
            Document(id="3", page_content="baz", metadata={"id": 3, "author": "Bob"}),
        ]
    )
    cases: list[tuple[dict[str, Any], str]] = [
        ({"id": 1}, "1"),
        ({"id": {"$ne": 1}}, "23"),
        ({"id": {"$lt": 3}}, "12"),
        ({"id": {"$between": [2, 3]}}, "23"),
        ({"author": {"$in": ["Ann", "Bob"]}}, "23"),
        ({"author": {"$nin": ["Ann"]}}, "13"),
        ({"author": {"$exists": False}}, "1"),
        ({"tags": {"$contains": "b"}}, "1"),
        ({"$or": [{"author": "Ann"}, {"$and": [{"id": {"$gte": 3}}, {"author": "Bob"}]}]}, "23"),
        ({"$not": {"author": "Ann"}}, "13"),
    ]
    for condition, expected in cases:
        found = vectorstore.similarity_search("foo", k=10, filter=condition)
        assert sorted(each.id or "" for each in found) == list(expected), condition
    ((nearest, score),) = vectorstore.similarity_search_with_score("foo", k=1)
    assert (nearest.id, round(score, 5)) == ("1", 1.0)

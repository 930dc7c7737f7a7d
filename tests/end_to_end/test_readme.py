"""What a newcomer does: start the program with its demo, and paste the documentation's lines."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.harness import ADMIN_KEY, ROOT, Armarium

# One process of the run starts the server, once.
pytestmark = pytest.mark.xdist_group("readme")
README = "README.md"
PROJECTS_API = "docs/projects-api.md"
TEXTS = "docs/texts.md"
FILTERS = "docs/filters.md"
HYBRID = "docs/hybrid.md"
RESULTS = "docs/results.md"
MODELS = "docs/models.md"


@pytest.fixture(scope="module")
def armarium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Armarium]:
    """A first start as `make run` makes it."""
    one = Armarium(tmp_path_factory.mktemp("newcomer") / "data")
    one.start("--demo", timeout_s=110)
    yield one
    code, _ = one.terminate()
    assert code == 0


def lines_of(language: str, page: str = README) -> list[str]:
    """Return a page's blocks of a language, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def adapted(script: str, armarium: Armarium, key: str) -> str:
    """Return lines with the address and the key that somebody would put into them."""
    script = script.replace("127.0.0.1:8880", f"127.0.0.1:{armarium.port}")
    return script.replace("arm_…", key)


def paste(script: str, armarium: Armarium, key: str = ADMIN_KEY) -> str:
    """Run lines of a shell as somebody would who started on another port."""
    script = adapted(script, armarium, key)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path("/"),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def answers_of(page: str, armarium: Armarium) -> list[Any]:
    """Run all lines of a page; return the JSON answers, in order."""
    rest = paste("\n".join(lines_of("sh", page)), armarium).strip()
    answers = []
    while rest:
        answer, end = json.JSONDecoder().raw_decode(rest)
        answers.append(answer)
        rest = rest[end:].strip()
    return answers


@pytest.mark.slow
def test_the_first_curl_finds_neighbours_of_a_real_text(armarium: Armarium) -> None:
    _, first, *_ = lines_of("sh")
    answer = json.loads(paste(first, armarium))
    shown = lines_of("json")[0].split("…")[0]
    assert json.dumps(answer, separators=(",", ":"), ensure_ascii=False).startswith(
        shown.rpartition(",")[0]
    )
    assert len(answer["results"]) == 5
    similarities = [each["similarity"] for each in answer["results"]]
    assert similarities == sorted(similarities, reverse=True)
    assert similarities[-1] > 0.5


@pytest.mark.slow
def test_the_five_requests_end_in_a_search_that_finds_something(armarium: Armarium) -> None:
    _, _, *requests = lines_of("sh")
    output = paste("\n".join(requests), armarium)
    answers = [json.loads(line) for line in output.splitlines() if line.strip()]
    user, instance, project, upload, search = answers
    assert user["api_key"].startswith("arm_")
    assert instance["instance_handle"] == "my-model"
    assert project["project_handle"] == "letters"
    assert upload["message"] == "2 embedding(s) uploaded successfully"
    assert [each["id"] for each in search["results"]] == ["letter-2"]


@pytest.mark.slow
def test_the_lines_about_filters_count_list_and_change_the_demo(armarium: Armarium) -> None:
    listed, counted, facets, deleted, updated = answers_of(FILTERS, armarium)
    assert listed["embeddings"][0]["metadata"]["title"].startswith("A")
    assert listed["total_count"] > 100
    assert counted["count"] == 4000
    assert facets == json.loads(lines_of("json", FILTERS)[-1])
    assert (deleted["matched_count"], deleted["deleted_count"]) == (32, 0)
    assert updated["updated_count"] == 1


@pytest.mark.slow
def test_the_lines_about_results_search_the_demo(armarium: Armarium) -> None:
    fields, left, groups, diverse, like, batch, across = answers_of(RESULTS, armarium)
    shown = json.loads(lines_of("json", RESULTS)[0])["results"]
    assert [each["metadata"] for each in fields["results"]] == [each["metadata"] for each in shown]
    assert len(left["results"]) == 3
    assert {each["group"] for each in groups["results"]} == {"en", "fr", "es"}
    assert len(groups["results"]) == 6
    assert groups["complete"] is True
    assert len(diverse["results"]) == 5
    assert all(each["metadata"]["title"] for each in like["results"])
    assert [len(each["results"]) for each in batch["answers"]] == [2, 2]
    assert len(across["results"]) == 3
    assert across["results"][0]["metadata"] == {"title": "Lac Michigan"}


@pytest.mark.slow
def test_the_lines_of_the_projects_api_work_in_shell_and_python(armarium: Armarium) -> None:
    keys = [
        armarium.request("POST", "/v1/users", {"user_handle": handle})[1]["api_key"]
        for handle in ("shell-user", "python-user")
    ]
    (shell,), (python,) = lines_of("sh", PROJECTS_API), lines_of("python", PROJECTS_API)
    output = paste(shell, armarium, keys[0])
    project, agent, file, listed = [json.loads(line) for line in output.splitlines() if line]
    assert (project["canonical_name"], agent["project"]) == ("support", "support")
    assert file["size"] == len("Hello!")
    assert [each["id"] for each in listed["items"]] == [agent["id"]]

    done = subprocess.run(
        [sys.executable, "-c", adapted(python, armarium, keys[1])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, agents = armarium.request("GET", "/agents?project=customer_support", key=keys[1])
    assert [each["name"] for each in agents["items"]] == ["Support Agent"]


@pytest.mark.slow
def test_the_lines_about_texts_embed_and_find_them(armarium: Armarium) -> None:
    key = armarium.request("POST", "/v1/users", {"user_handle": "ann"})[1]["api_key"]
    uploading, in_background, searching = lines_of("sh", TEXTS)
    project, upload = map(json.loads, paste(uploading, armarium, key).splitlines())
    assert (project["project_handle"], upload["uploaded"]) == ("notes", ["n1", "n2"])
    location, listed = paste(in_background, armarium, key).splitlines()
    (job,) = json.loads(listed)["jobs"]
    assert location.endswith(f"/v1/projects/ann/notes/embedding-jobs/{job['id']}")
    by_q, by_text = map(json.loads, paste(searching, armarium, key).splitlines())
    assert [each["id"] for each in by_q["results"]] == ["n1"]
    assert [each["id"] for each in by_text["results"]] == ["n2"]


@pytest.mark.slow
def test_the_lines_about_searching_by_words_find_articles_and_choose_a_language(
    armarium: Armarium,
) -> None:
    searching, language = lines_of("sh", HYBRID)
    question, filtered, phrase = map(json.loads, paste(searching, armarium).splitlines())
    assert "wiki:en:Mona_Lisa" in {each["id"] for each in question["results"]}
    assert all(each["id"].startswith("wiki:fr:") for each in filtered["results"])
    assert all("<mark>Mona</mark>" in each["highlight"] for each in phrase["results"])
    for found in (question, filtered, phrase):
        assert found["results"]
    key = armarium.request("POST", "/v1/users", {"user_handle": "eva"})[1]["api_key"]
    builtin = {"instance_owner": "_system", "instance_handle": "builtin"}
    project = {"project_handle": "letters", **builtin}
    assert armarium.request("POST", "/v1/projects/eva", project, key=key)[0] == 201
    index = json.loads(paste(language, armarium, key))
    assert index["settings"]["search_language"] == "french"


@pytest.mark.slow
def test_the_lines_about_models_re_embed_a_project_and_go_back(armarium: Armarium) -> None:
    key = armarium.request("POST", "/v1/users", {"user_handle": "max"})[1]["api_key"]
    model = {"api_standard": "openai", "endpoint": "https://api.example.org/v1/embeddings"}
    small = {"instance_handle": "small", "model": "small", "dimensions": 3, **model}
    project = {"project_handle": "letters", "instance_owner": "max", "instance_handle": "small"}
    items = [
        {
            "text_id": f"l{number}",
            "text": f"Letter {number} about the garden",
            "vector": [1, number, 1],
            "vector_dim": 3,
            "instance_handle": "small",
        }
        for number in range(3)
    ]
    for path, body in (
        ("/v1/llm-services/max", small),
        ("/v1/projects/max", project),
        ("/v1/embeddings/max/letters", {"embeddings": items}),
    ):
        assert armarium.request("POST", path, body, key=key)[0] == 201
    (lines,) = lines_of("sh", MODELS)
    output = paste(lines, armarium, key)
    estimate, begun, ready, comparison, *steps = [
        json.loads(line) for line in output.splitlines() if line
    ]
    assert (estimate["embeddings"], begun["aside"]["dimensions"]) == (3, 512)
    assert (ready["state"], comparison["queries"]) == ("ready", 3)
    _, switched, _, back, gone = steps
    assert (switched["state"], switched["aside"]["instance_handle"]) == ("switched", "small")
    assert (back["state"], back["aside"]["instance_handle"]) == ("ready", "builtin")
    assert "cancelled" in gone["message"]
    _, page = armarium.request("GET", "/v1/embeddings/max/letters", key=key)
    assert [each["vector"] for each in page["embeddings"]] == [[1, n, 1] for n in range(3)]


@pytest.mark.slow
def test_words_find_articles_of_the_demo_at_the_first_start(armarium: Armarium) -> None:
    query = "q=who%20painted%20the%20Mona%20Lisa&count=2"
    status, answer = armarium.request("GET", f"/v1/similars/demo/wikipedia-vital?{query}", key=None)
    assert status == 200
    found = {each["id"] for each in answer["results"]}
    assert found & {"wiki:en:Mona_Lisa", "wiki:en:Leonardo_da_Vinci"}

"""What a newcomer does: start the program with its demo, and paste the README's lines."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.harness import ADMIN_KEY, ROOT, Armarium

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def armarium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Armarium]:
    """A first start as `make run` makes it."""
    one = Armarium(tmp_path_factory.mktemp("newcomer") / "data")
    one.start("--demo", timeout_s=110)
    yield one
    code, _ = one.terminate()
    assert code == 0


def lines_of(language: str) -> list[str]:
    """Return the README's blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def paste(script: str, armarium: Armarium) -> str:
    """Run lines of a shell as somebody would who started on another port."""
    script = script.replace("127.0.0.1:8880", f"127.0.0.1:{armarium.port}")
    script = script.replace("KEY=arm_…", f"KEY={ADMIN_KEY}")
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

"""A database of the first release is brought up to date by the next start, with all it holds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.harness import Armarium

# Run inside `manage.py shell`: makes the database as the first release left it, and fills it.
FIRST_RELEASE = """
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

LATEST = {
    "common": "0001_job_failures",
    "accounts": "0003_system_account",
    "llm_services": "0002_seed",
    "projects": "0003_default_projects",
    "embeddings": "0003_default_times",
    "resources": "0002_owner_of_project",
}
for app, name in LATEST.items():
    call_command("migrate", app, name, verbosity=0)
apps = MigrationExecutor(connection).loader.project_state(list(LATEST.items())).apps
User = apps.get_model("accounts", "User")
Instance = apps.get_model("llm_services", "Instance")
Project = apps.get_model("projects", "Project")
Embedding = apps.get_model("embeddings", "Embedding")
alice = User.objects.create(handle="alice", email="alice@example.org")
builtin = Instance.objects.get(owner__handle="_system", handle="builtin")
openai = apps.get_model("llm_services", "ApiStandard").objects.get(handle="openai")
own = Instance.objects.create(
    owner=alice, handle="own", endpoint="https://api.example.org/v1/embeddings",
    api_standard=openai, model="small", dimensions=3,
)
letters = Project.objects.create(owner=alice, handle="letters", instance=own)
notes = Project.objects.create(owner=alice, handle="notes", instance=builtin)
for number in range(30):
    Embedding.objects.create(
        project=letters, instance=own, text_id=f"l{number:02}", vector=[1, number, 1],
        text=f"Letter {number} about a garden", metadata={"year": 1700 + number},
    )
Embedding.objects.create(
    project=notes, instance=builtin, text_id="n1", vector=[1.0] + [0.0] * 511, text="A note",
)
"""


@pytest.fixture
def first_release(tmp_path: Path) -> Iterator[Armarium]:
    """Return an installation whose database is that of the first release."""
    one = Armarium(tmp_path / "data")
    made = one.manage("shell", "--no-imports", "-c", FIRST_RELEASE)
    assert made.returncode == 0, made.stderr
    yield one
    one.kill_everything()


@pytest.mark.slow
def test_data_of_the_first_release_is_kept_and_found(first_release: Armarium) -> None:
    first_release.start("--no-demo", "--no-worker")
    ask = first_release.request
    _, page = ask("GET", "/v1/embeddings/alice/letters?limit=100")
    assert [(each["text_id"], each["vector"]) for each in page["embeddings"]] == [
        (f"l{number:02}", [1, number, 1]) for number in range(30)
    ]
    assert page["embeddings"][7]["metadata"] == {"year": 1707}
    similars = "/v1/similars/alice/letters?count=2"
    filtered = {"vector": [1, 7, 1], "filter": {"year": {"gte": 1707}}}
    status, found = ask("POST", similars, filtered)
    assert (status, [each["id"] for each in found["results"]]) == (200, ["l07", "l08"])
    status, found = ask("GET", f"{similars}&mode=text&q=garden")
    assert (status, len(found["results"])) == (200, 2)
    status, found = ask("GET", "/v1/similars/alice/notes?q=a+note&count=1&mode=hybrid")
    assert (status, [each["id"] for each in found["results"]]) == (200, ["n1"])
    # It is a project like others: written to, and no mixture of models.
    more = {"text_id": "n2", "text": "Another note"}
    status, answer = ask("POST", "/v1/embeddings/alice/notes", {"embeddings": [more]})
    assert status == 201, answer
    _, project = ask("GET", "/v1/projects/alice/notes")
    assert "warnings" not in project
    _, instance = ask("GET", "/v1/llm-services/alice/own")
    assert (instance["model"], instance["dimensions"]) == ("small", 3)
    # Templates of later releases are there, too.
    _, definitions = ask("GET", "/v1/llm-service-definitions/_system?limit=100")
    handles = {each["definition_handle"] for each in definitions["definitions"]}
    assert {"voyage-3-5", "minilm-l6-v2"} <= handles

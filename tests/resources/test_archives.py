"""exportproject and importproject: one project as one file, also from strangers."""

import json
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from accounts.models import User
from accounts.policy import BOOTSTRAP_ADMIN
from embeddings import indexes
from embeddings.models import SearchIndex
from llm_services.models import ApiStandard, Instance
from llm_services.services import update_instance
from projects.models import Project, ProjectShare
from projects.services import update_project
from resources.fingerprints import fingerprint_of
from resources.models import Agent, EndUser, File
from resources.storage import keeping_deleted_files
from tests.answers import nothing_changes
from tests.factories import Cast, item, make_instance
from tests.resources.test_commands import run
from tests.resources.things import CONTENT, kept, make

SCHEMA = '{"type": "object",  "properties": {"year": {"type": "integer"}}}'


@pytest.fixture
def letters(cast: Cast) -> Project:
    """Alice's project with something of everything; one of its rows breaks its schema."""
    rows = [
        item(
            "l/1", [1, 0.1, 0], text="Dear Bob", metadata={"year": 1801, "deep": {"x": [1, None]}}
        ),
        item("l 2", [0, 1, 3e-7], text="", metadata={"year": "unknown"}),
        item("ü🎈", [-1, 2, 0.3], text="Æther\n", metadata={}),
    ]
    assert cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": rows}).status == 201
    changes = {"metadataScheme": SCHEMA, "description": "To Bob", "public_read": True}
    update_project(actor=BOOTSTRAP_ADMIN, owner="alice", handle="letters", changes=changes)
    Project.objects.filter(pk=cast.project.pk).update(metadata={"a": 1.50, "b": ["é"]})
    indexes.change_settings(
        actor=BOOTSTRAP_ADMIN,
        owner="alice",
        handle="letters",
        changes={"m": 20, "search_language": "french"},
    )
    make(Agent, "Scribe", canonical_name="scribe", instructions=["Be kind", ""], about="a" * 9_000)
    make(EndUser, "Ann", metadata={"since": 1801})
    make(File, "letter.txt", mime_type="text/plain")
    return Project.objects.get(pk=cast.project.pk)


@pytest.fixture
def archive(letters: Project, tmp_path: Path) -> Path:
    """Return the project as a file."""
    path = tmp_path / "letters.zip"
    assert run("exportproject", "alice/letters", str(path)).code == 0
    return path


def rewritten(archive: Path, change: Callable[[dict[str, bytes]], Any]) -> Path:
    """Return an archive with other contents."""
    with zipfile.ZipFile(archive) as source:
        contents = {info.filename: source.read(info) for info in source.infolist()}
    change(contents)
    path = archive.with_name("other.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in contents.items():
            target.writestr(name, content)
    return path


def in_manifest(*path: str, value: Any) -> Callable[[dict[str, bytes]], None]:
    """Return a change of one value of the manifest."""

    def change(contents: dict[str, bytes]) -> None:
        manifest = json.loads(contents["manifest.json"])
        place = manifest
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value
        contents["manifest.json"] = json.dumps(manifest).encode()

    return change


def refused(path: Path, *options: str) -> str:
    """Import what must be refused, and leave no trace; return why."""
    with nothing_changes():
        answer = run("importproject", str(path), "--as", "sam/letters", *options)
    assert (answer.code, answer.out) == (2, "")
    return answer.refusal


# --- There and back -------------------------------------------------------------------------------
def test_another_account_gets_the_same_project(letters: Project, archive: Path) -> None:
    answer = run("importproject", str(archive), "--as", "sam/post", "--json").answer
    assert (answer["project"], answer["embeddings"], answer["files"]) == ("sam/post", 3, 1)
    brought = Project.objects.get(owner__handle="sam", handle="post")
    assert fingerprint_of(brought) == fingerprint_of(letters) == answer["fingerprint"]
    assert (brought.uuid, brought.metadata_schema) == (letters.uuid, SCHEMA)
    assert (brought.created_at, brought.updated_at) == (letters.created_at, letters.updated_at)
    assert SearchIndex.objects.get(project=brought).search_language == "french"
    shares = ProjectShare.objects.filter(subject=brought)
    assert sorted(shares.values_list("user__handle", "role")) == [
        ("erin", "editor"),
        ("rita", "reader"),
    ]
    file = File.objects.get(project=brought)
    assert file.content.read() == CONTENT
    agent = Agent.objects.get(project=brought)
    original = Agent.objects.get(project=letters)
    assert (agent.uuid, agent.created_at) == (original.uuid, original.created_at)
    # Sam has no LLM service of that model: one was made, without a key.
    instance = brought.instance
    assert (instance.owner.handle, instance.model, instance.has_api_key) == (
        "sam",
        "test-embedding",
        False,
    )
    assert answer["is_new_instance"] is True


def test_no_secret_goes_along(letters: Project, tmp_path: Path) -> None:
    key = "sk-canary-0123456789"
    stored_instance = Instance.objects.get(owner__handle="alice", handle="model")
    update_instance(
        actor=BOOTSTRAP_ADMIN,
        owner="alice",
        handle=stored_instance.handle,
        changes={"api_key": key},
    )
    path = tmp_path / "letters.zip"
    assert run("exportproject", "alice/letters", str(path)).code == 0
    content = path.read_bytes()
    assert key.encode() not in content
    sealed = Instance.objects.get(pk=stored_instance.pk).sealed_key
    assert bytes(sealed).hex().encode() not in content
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_instance_of_the_same_model_is_used(archive: Path) -> None:
    make_instance("sam", "mine")
    assert "sam/mine" not in run("importproject", str(archive), "--as", "sam/post").out
    assert Project.objects.get(handle="post").instance.handle == "mine"


def test_an_unknown_standard_is_made(letters: Project, archive: Path) -> None:
    def change(contents: dict[str, bytes]) -> None:
        in_manifest("instance", "api_standard", "handle", value="homemade")(contents)

    assert "differ" in refused(rewritten(archive, change))
    assert not ApiStandard.objects.filter(handle="homemade").exists()


def test_accounts_that_are_missing_are_named(archive: Path) -> None:
    User.objects.get(handle="rita").delete()
    out = run("importproject", str(archive), "--as", "sam/post").out
    assert "not granted: rita as reader" in out
    names = ProjectShare.objects.filter(subject__handle="post").values_list("user__handle")
    assert list(names) == [("erin",)]


def test_nobody_is_granted_anything_on_demand(archive: Path) -> None:
    assert (
        "not granted: erin"
        in run("importproject", str(archive), "--as", "sam/post", "--no-grants").out
    )
    assert not ProjectShare.objects.filter(subject__handle="post").exists()


def test_what_is_there_already_is_not_touched(archive: Path, files_folder: Path) -> None:
    before = kept(files_folder)
    with nothing_changes():
        answer = run("importproject", str(archive))
    assert (answer.code, "already exists" in answer.refusal) == (2, True)
    # The same account cannot have an agent twice.
    with nothing_changes():
        answer = run("importproject", str(archive), "--as", "alice/copy")
    assert (answer.code, "another agent" in answer.refusal) == (2, True)
    assert kept(files_folder) == before


def test_an_instance_with_another_model_is_refused(archive: Path) -> None:
    make_instance("sam", "model", model="other")
    assert "another model" in refused(archive)
    assert "another model" in refused(archive, "--instance", "sam/model")
    assert "test-embedding" in refused(archive, "--instance", "sam/model")


def test_an_owner_must_exist(archive: Path) -> None:
    answer = run("importproject", str(archive), "--as", "carl/letters")
    assert (answer.code, "carl" in answer.refusal) == (2, True)


def test_lost_bytes_stop_an_export(letters: Project, tmp_path: Path, files_folder: Path) -> None:
    for path in kept(files_folder):
        path.write_bytes(b"x" * len(CONTENT))
    answer = run("exportproject", "alice/letters", str(tmp_path / "x.zip"))
    assert (answer.code, "damaged" in answer.refusal) == (2, True)
    assert list(tmp_path.glob("*.zip")) == list(tmp_path.glob(".*.part")) == []


def test_an_unknown_project_leaves_no_file(cast: Cast, tmp_path: Path) -> None:
    answer = run("exportproject", "alice/none", str(tmp_path / "x.zip"))
    assert answer.code == 2
    assert list(tmp_path.iterdir()) == []


# --- Of strangers ---------------------------------------------------------------------------------
def flip(contents: dict[str, bytes], name: str) -> None:
    content = bytearray(contents[name])
    content[len(content) // 2] ^= 1
    contents[name] = bytes(content)


@pytest.mark.parametrize("name", ["embeddings.parquet", "agents.jsonl", "files/000001"])
def test_changed_bytes_are_noticed(archive: Path, name: str, files_folder: Path) -> None:
    before = kept(files_folder)
    assert name in refused(rewritten(archive, lambda contents: flip(contents, name)))
    assert kept(files_folder) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("manifest.json"), "no manifest.json"),
        (lambda c: c.pop("embeddings.parquet"), "lacks embeddings.parquet"),
        (lambda c: c.update({"manifest.json": b"{"}), "JSON"),
        (lambda c: c.update({"manifest.json": b"[]"}), "exportproject"),
        (in_manifest("version", value=2), "later release"),
        (in_manifest("project", "metadata", value=[]), "project.metadata"),
        (in_manifest("project", "name", value="x" * 300), "project.name"),
        (in_manifest("project", "uuid", value="x"), "project.uuid"),
        (in_manifest("instance", "dimensions", value=0), "instance.dimensions"),
        (in_manifest("instance", "endpoint", value="file:///etc/passwd"), "endpoint"),
        (in_manifest("index", "m", value=10**9), "index.m"),
        (in_manifest("grants", value=[{"user": "rita", "role": "owner"}]), "grants"),
        (in_manifest("entries", value={}), "entries"),
        (in_manifest("fingerprint", value={}), "fingerprint"),
        (in_manifest("project", "description", value="Other"), "differ"),
        (in_manifest("project", "metadata_schema", value='{"$ref": "http://x/"}'), "outside"),
    ],
)
def test_nonsense_is_refused(
    archive: Path, change: Callable[[dict[str, bytes]], Any], words: str
) -> None:
    assert words in refused(rewritten(archive, change))


def test_a_bomb_is_not_unpacked(archive: Path) -> None:
    def change(contents: dict[str, bytes]) -> None:
        contents["agents.jsonl"] = b" " * 50_000_000

    assert "100 times" in refused(rewritten(archive, change))


def test_links_and_repetitions_are_refused(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "link.zip"
    with zipfile.ZipFile(path, "w") as target:
        link = zipfile.ZipInfo("manifest.json")
        link.external_attr = 0o120777 << 16
        target.writestr(link, "/etc/passwd")
    assert "link" in refused(path)
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("manifest.json", "{}")
        with pytest.warns(UserWarning, match="Duplicate"):
            target.writestr("manifest.json", "{}")
    assert "several" in refused(path)


def test_names_of_entries_are_no_paths(archive: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"

    def change(contents: dict[str, bytes]) -> None:
        contents[str(outside)] = contents["../outside"] = b"x"

    assert run("importproject", str(rewritten(archive, change)), "--as", "sam/post").code == 0
    assert not outside.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"no archive at all" * 100])
def test_what_is_no_archive_is_refused(cast: Cast, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    assert "x.zip" in refused(path)
    assert "No such file" in refused(tmp_path / "none.zip")


def test_a_cut_off_archive_is_refused(archive: Path) -> None:
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in refused(archive)


# --- Files and backups ----------------------------------------------------------------------------
def test_bytes_of_deleted_files_stay_while_a_backup_is_made(
    cast: Cast, files_folder: Path, django_capture_on_commit_callbacks: Any
) -> None:
    held, done = threading.Event(), threading.Event()

    def back_up() -> None:
        try:
            with keeping_deleted_files() as still_kept:
                held.set()
                done.wait(30)
                assert still_kept()
        finally:
            connection.close()

    first, second = make(File, "letter.txt"), make(File, "letter.txt")
    with ThreadPoolExecutor() as pool:
        backing_up = pool.submit(back_up)
        assert held.wait(30)
        with django_capture_on_commit_callbacks(execute=True):
            first.delete()
        assert len(kept(files_folder)) == 2
        done.set()
        backing_up.result(30)
    with django_capture_on_commit_callbacks(execute=True):
        second.delete()
    # The first is left to the daily sweep.
    assert len(kept(files_folder)) == 1

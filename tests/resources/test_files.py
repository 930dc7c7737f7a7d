"""Files: bytes in and out, what is said about them, and what is left when they go."""

import errno
import hashlib
import os
import resource
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from django.db import transaction
from pytest_django import DjangoCaptureOnCommitCallbacks
from structlog.testing import capture_logs

from resources.models import File
from resources.storage import DurableFileSystemStorage
from tests.answers import A_UUID, TIMES, assert_error, assert_refused, nothing_changes
from tests.factories import Caller, Cast
from tests.resources.things import kept

CONTENT = b"Dear Bob,\n\n\x00\xff\xfe"
ENCODED = b64encode(CONTENT).decode()
NEW = {"name": "letter.txt", "content": ENCODED}
SHOWN = {
    "id": A_UUID,
    "name": "letter.txt",
    "description": "",
    "mime_type": None,
    "content": ENCODED,
    "size": len(CONTENT),
    "hash": hashlib.sha256(CONTENT).hexdigest(),
    "project": "default",
    **TIMES,
}


def made(caller: Caller, **body: Any) -> dict[str, Any]:
    answer = caller.post("/files", {**NEW, **body})
    assert answer.status == 201, answer.body
    return dict(answer.body)


# --- Create ---------------------------------------------------------------------------------------
def test_a_file_comes_back_byte_for_byte(cast: Cast) -> None:
    created = cast.alice.post("/files", NEW)
    assert (created.status, created.body) == (201, SHOWN)
    assert created.headers["Content-Length"] == str(len(created.content))
    found = cast.alice.get(f"/files/{created['id']}")
    assert (found.status, found.body) == (200, created.body)
    assert found.headers["Content-Length"] == str(len(found.content))
    assert found.headers["Content-Type"] == "application/json"
    assert cast.alice.get("/files").body == [created.body]


def test_all_that_is_given_comes_back(cast: Cast) -> None:
    body = {
        "description": "Ünïcode\n🙂",
        "mime_type": "text/plain; charset=utf-8",
        "project": "letters",
    }
    assert made(cast.alice, **body) == {**SHOWN, **body}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 3 * 256 * 1024 - 1, 3 * 256 * 1024, 1_000_003])
def test_any_size_comes_back(cast: Cast, size: int) -> None:
    content = os.urandom(size)
    file = made(cast.alice, content=b64encode(content).decode())
    assert (file["size"], file["hash"]) == (size, hashlib.sha256(content).hexdigest())
    answer = cast.alice.get(f"/files/{file['id']}")
    assert answer["content"] == b64encode(content).decode()
    assert answer.headers["Content-Length"] == str(len(answer.content))


def test_line_breaks_in_base64_are_tolerated_and_do_not_come_back(cast: Cast) -> None:
    for broken in (f"{ENCODED[:4]}\r\n{ENCODED[4:]}\n", f"\n{ENCODED}"):
        assert made(cast.alice, content=broken)["content"] == ENCODED


@pytest.mark.parametrize(
    "content",
    [
        *(
            "",
            "\r\n",
            "=",
            "====",
            "A",
            "AA",
            "AAA",
            "AAA=A",
            "AA=A",
            "AA==AA==",
            "AAAA=",
            "AAAA====",
        ),
        *("AA A", " AAAA", "AAAA ", "AA\tA", "-_-_", "AAA*", "ÄAAA", "data:;base64,AAAA"),
        *(None, 5, ["AAAA"], {"a": 1}, True),
    ],
)
def test_what_is_not_base64_of_something_is_422(
    cast: Cast, content: Any, files_folder: Path
) -> None:
    with nothing_changes():
        answer = cast.alice.post("/files", {**NEW, "content": content})
        assert_error(answer, 422, "validation_error", loc="content")
    assert kept(files_folder) == []


def test_the_same_content_is_stored_any_number_of_times(cast: Cast, files_folder: Path) -> None:
    assert len({made(cast.alice)["id"] for _ in range(3)}) == 3
    assert len(kept(files_folder)) == 3


@pytest.mark.parametrize(
    "name", ["2024-report.pdf", "🙂", "a/../../etc/passwd", "..", "x" * 120, "a\tb\r\nc", " "]
)
def test_a_name_is_text_and_never_a_path(cast: Cast, name: str, files_folder: Path) -> None:
    assert made(cast.alice, name=name)["name"] == name
    (stored,) = kept(files_folder)
    assert stored.relative_to(files_folder).parts[0] == stored.name[:2]
    assert len(stored.name) == 32
    assert stored.stat().st_mode & 0o777 == 0o600
    assert stored.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 121}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "a\x1bb"}, "name"),
        ({"description": None}, "description"),
        ({"description": "x" * 16_001}, "description"),
        ({"mime_type": ""}, "mime_type"),
        ({"mime_type": 5}, "mime_type"),
        ({"mime_type": "text"}, "mime_type"),
        ({"mime_type": "text/"}, "mime_type"),
        ({"mime_type": "/plain"}, "mime_type"),
        ({"mime_type": "nothing/plain"}, "mime_type"),
        ({"mime_type": "text/plain\n"}, "mime_type"),
        ({"mime_type": "text/html\r\nX: y"}, "mime_type"),
        ({"mime_type": "text/plain, text/html"}, "mime_type"),
        ({"mime_type": "text/" + "p" * 123}, "mime_type"),
    ],
)
def test_a_bad_value_is_named(
    cast: Cast, body: dict[str, Any], loc: str, files_folder: Path
) -> None:
    with nothing_changes():
        assert_error(cast.alice.post("/files", {**NEW, **body}), 422, "validation_error", loc=loc)
    assert kept(files_folder) == []


@pytest.mark.parametrize(
    "mime_type",
    [
        *("text/plain", "application/vnd.api+json", "x-custom/thing", "image/svg+xml"),
        *("text/plain;charset=utf-8", "multipart/form-data; boundary=x; y=z", "TEXT/Plain"),
        "text/" + "p" * 122,
    ],
)
def test_media_types_may_be_these(cast: Cast, mime_type: str) -> None:
    assert made(cast.alice, mime_type=mime_type)["mime_type"] == mime_type


def test_what_is_required_is_named(cast: Cast) -> None:
    with nothing_changes():
        for field in ("name", "content"):
            body = {name: each for name, each in NEW.items() if name != field}
            assert_error(cast.alice.post("/files", body), 422, "validation_error", loc=field)


def test_an_unknown_project_stores_nothing(cast: Cast, files_folder: Path) -> None:
    with nothing_changes():
        for caller, name in ((cast.alice, "nothing"), (cast.erin, "letters")):
            answer = caller.post("/files", {**NEW, "project": name})
            assert_error(answer, 404, "project_not_found", says=name)
    assert kept(files_folder) == []


def test_a_body_over_the_limit_is_413(cast: Cast, settings: Any) -> None:
    settings.MAX_BODY_BYTES = 1024**2
    content = b64encode(b"x" * 1024**2).decode()
    with nothing_changes():
        answer = cast.alice.post("/files", {**NEW, "content": content})
        assert_error(answer, 413, "payload_too_large", says="1 MiB")


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Have the system refuse to write more into one file, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_503_and_leaves_nothing_half_written(cast: Cast, files_folder: Path) -> None:
    large = {**NEW, "content": b64encode(bytes(200_000)).decode()}
    with nothing_changes(), no_file_larger_than(100_000):
        answer = cast.alice.post("/files", large)
    assert_error(answer, 503, "unavailable", says="storage")
    assert kept(files_folder) == []
    assert cast.alice.post("/files", large).status == 201


def test_a_disk_that_is_full_only_when_synced_leaves_nothing_either(
    cast: Cast, files_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems on a network, and quotas, say so no earlier."""

    def full(descriptor: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "fsync", full)
    with nothing_changes():
        assert_error(cast.alice.post("/files", NEW), 503, "unavailable", says="storage")
    assert kept(files_folder) == []


def test_a_storage_that_is_not_there_is_503(cast: Cast, files_folder: Path) -> None:
    files_folder.write_text("not a folder")
    with nothing_changes():
        assert_error(cast.alice.post("/files", NEW), 503, "unavailable", says="storage")
    assert cast.alice.get("/files").body == []


# --- Change ---------------------------------------------------------------------------------------
def test_patch_changes_what_is_said_about_a_file(cast: Cast) -> None:
    file = made(cast.alice, mime_type="text/plain")
    path = f"/files/{file['id']}"
    changes = {
        "name": "new.txt",
        "description": "New",
        "mime_type": "text/markdown",
        "project": "letters",
    }
    changed = cast.alice.patch(path, changes)
    assert (changed.status, changed.body) == (200, {**file, **changes, **TIMES})
    assert changed["updated_at"] > file["updated_at"]
    assert changed["created_at"] == file["created_at"]
    for body in ({}, {"mime_type": None, "project": None}, {"size": 1, "hash": "x", "id": "y"}):
        answer = cast.alice.patch(path, body)
        assert (answer.status, answer.body) == (200, {**changed.body, **TIMES})


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"content": ENCODED}, "content"),
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"description": None}, "description"),
        ({"mime_type": "x"}, "mime_type"),
        ({"project": 1}, "project"),
    ],
)
def test_a_bad_change_is_named(cast: Cast, body: dict[str, Any], loc: str) -> None:
    path = f"/files/{made(cast.alice)['id']}"
    with nothing_changes():
        answer = cast.alice.patch(path, {"description": "changed", **body})
        assert_error(answer, 422, "validation_error", loc=loc)
        answer = cast.alice.patch(path, {"description": "changed", "project": "nothing"})
        assert_error(answer, 404, "project_not_found")


# --- Lists ----------------------------------------------------------------------------------------
def test_a_list_is_a_bare_array_with_or_without_contents(cast: Cast) -> None:
    assert cast.alice.get("/files").body == []
    files = [made(cast.alice, content=b64encode(bytes([n])).decode()) for n in range(3)]
    assert cast.alice.get("/files").body == files[::-1]
    assert cast.alice.get("/files?include_content=true").body == files[::-1]
    assert cast.alice.get("/files?include_content=false").body == [
        {**each, "content": ""} for each in files[::-1]
    ]
    for value in ("maybe", "1", "True", ""):
        answer = cast.alice.get(f"/files?include_content={value}")
        assert_error(answer, 422, "validation_error", loc="query.include_content")


def test_a_file_that_goes_while_a_list_is_sent_is_left_out(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [made(cast.alice) for _ in range(3)]
    gone = File.objects.get(uuid=files[1]["id"])
    original = DurableFileSystemStorage.open

    def open_after_deletion(self: Any, name: str, mode: str = "rb") -> Any:
        File.objects.filter(pk=gone.pk).delete()
        if name == gone.content.name:
            raise FileNotFoundError
        return original(self, name, mode)

    monkeypatch.setattr(DurableFileSystemStorage, "open", open_after_deletion)
    listed = cast.alice.get("/files").body
    assert [each["id"] for each in listed] == [files[2]["id"], files[0]["id"]]


def test_lost_bytes_are_told_and_do_not_hide_the_other_files(
    cast: Cast, files_folder: Path
) -> None:
    files = [made(cast.alice) for _ in range(2)]
    (files_folder / str(File.objects.get(uuid=files[0]["id"]).content.name)).unlink()
    answer = cast.alice.get(f"/files/{files[0]['id']}")
    assert_error(answer, 500, "content_missing", says="missing from the server's storage")
    with capture_logs() as logs:
        listed = cast.alice.get("/files").body
    assert listed == [files[1], {**files[0], "content": ""}]
    assert [each["file"] for each in logs if each["event"] == "content_missing"] == [files[0]["id"]]
    # A change is made all the same, and shown.
    changed = cast.alice.patch(f"/files/{files[0]['id']}", {"name": "lost.txt"})
    assert (changed.status, changed["name"], changed["content"]) == (200, "lost.txt", "")


def test_a_file_that_goes_while_it_is_asked_for_is_404(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = made(cast.alice)

    def deleted_meanwhile(self: Any, name: str, mode: str = "rb") -> Any:
        File.objects.all().delete()
        raise FileNotFoundError

    monkeypatch.setattr(DurableFileSystemStorage, "open", deleted_meanwhile)
    assert_error(cast.alice.get(f"/files/{file['id']}"), 404, "not_found")


def test_an_answer_that_nobody_reads_leaves_no_file_open(cast: Cast) -> None:
    file = made(cast.alice)
    process = psutil.Process()
    before = len(process.open_files())
    kept_alive = []
    for _ in range(3):
        assert cast.alice.ask("HEAD", f"/files/{file['id']}").status == 200
        answer: Any = cast.alice.client.get(
            f"/files/{file['id']}", headers={"Authorization": f"Bearer {cast.alice.key}"}
        )
        # What the server has closed; Django's own `close` would close the test's connection, too.
        for close in answer._resource_closers:
            close()
        kept_alive.append(answer)
    assert len(process.open_files()) == before


# --- Delete ---------------------------------------------------------------------------------------
def test_delete_takes_the_bytes_along_once_it_is_final(
    cast: Cast,
    files_folder: Path,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    stays, goes = made(cast.alice), made(cast.alice)
    path = f"/files/{goes['id']}"
    with django_capture_on_commit_callbacks(execute=True):
        gone = cast.alice.delete(path)
        assert len(kept(files_folder)) == 2
    assert gone.status == 202
    assert gone.body == {"id": goes["id"], "deleted_at": TIMES["created_at"], "jobs": []}
    assert len(kept(files_folder)) == 1
    for method in ("GET", "PATCH", "DELETE"):
        assert_error(cast.alice.ask(method, path, {}), 404, "not_found")
    assert cast.alice.get(f"/files/{stays['id']}").body == stays


def test_a_deletion_that_is_undone_keeps_the_bytes(cast: Cast, files_folder: Path) -> None:
    file = made(cast.alice)
    with transaction.atomic():
        assert cast.alice.delete(f"/files/{file['id']}").status == 202
        transaction.set_rollback(True)
    assert len(kept(files_folder)) == 1
    assert cast.alice.get(f"/files/{file['id']}").body == file


@pytest.mark.parametrize(
    "delete",
    ["account", "project", "project in v1", "each", "everything"],
)
def test_whatever_is_deleted_no_bytes_are_left(
    cast: Cast,
    delete: str,
    files_folder: Path,
    settings: Any,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    files = [made(cast.alice, project="letters") for _ in range(3)]
    assert len(kept(files_folder)) == 3
    with django_capture_on_commit_callbacks(execute=True):
        match delete:
            case "account":
                assert cast.alice.delete("/v1/users/alice").status == 200
            case "project":
                path = f"/projects/{cast.project.uuid}?on_resources=delete"
                assert cast.alice.delete(path).status == 202
            case "project in v1":
                path = "/v1/projects/alice/letters?on_resources=delete"
                assert cast.alice.delete(path).status == 200
            case "each":
                for each in files:
                    assert cast.alice.delete(f"/files/{each['id']}").status == 202
            case "everything":
                settings.ALLOW_RESET = True
                assert cast.ada.get("/v1/admin/footgun").status == 204
    assert not File.objects.exists()
    assert kept(files_folder) == []


# --- Addresses ------------------------------------------------------------------------------------
def test_ids_are_uuids_and_put_is_not_served(cast: Cast) -> None:
    with nothing_changes():
        for method in ("GET", "PATCH", "DELETE"):
            answer = cast.alice.ask(method, "/files/x", {})
            assert_error(answer, 422, "validation_error", loc="path.id")
            assert_error(cast.alice.ask(method, f"/files/{uuid4()}", {}), 404, "not_found")
        for method in ("PUT", "POST"):
            answer = cast.alice.ask(method, f"/files/{uuid4()}", NEW)
            assert_error(answer, 405, "method_not_allowed")


def test_the_bytes_have_no_address_of_their_own(cast: Cast) -> None:
    made(cast.alice)
    name = File.objects.get().content.name
    for path in (f"/media/{name}", f"/static/{name}", f"/{name}"):
        assert_refused(cast.alice.get(path), 404)

"""Uploading texts in the browser: choosing, mapping, storing, and what hostile files get."""

import io
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.core.files.storage import storages
from django.test import Client
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob

from embeddings import import_jobs, services, store
from embeddings.models import ImportJob
from projects.models import Project, ProjectShare
from tests.console.browser import PROJECT, browser, page, queries
from tests.console.conftest import HOSTILE
from tests.console.uploads import CSV, offer, offered
from tests.factories import Cast, make_embedded, stored
from tests.jobs import run_jobs

HTMX = {"HX-Request": "true"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Any) -> Path:
    """A folder for files of this test alone."""
    where = tmp_path / "uploads"
    backend = settings.STORAGES["uploads"]
    settings.STORAGES = {
        **settings.STORAGES,
        "uploads": {**backend, "OPTIONS": {**backend["OPTIONS"], "location": where}},
    }
    return where


@pytest.fixture
def erin(cast: Cast) -> Client:
    """A browser of Erin's, who may edit."""
    return browser("erin")


def begin(client: Client, job: ImportJob, **changes: Any) -> ImportJob:
    """Say what the columns are, and have a worker store the rows."""
    answer = client.post(f"{PROJECT}/upload/{job.pk}", changes)
    assert answer.status_code == 302, answer.content.decode()[:3000]
    run_jobs()
    job.refresh_from_db()
    return job


def rows() -> dict[str, store.Row]:
    """Return all that the project holds."""
    project = Project.objects.get(handle="letters")
    return {row.text_id: row for row in store.page(project.pk, limit=1000, offset=0)}


def counts(job: ImportJob) -> tuple[int, int, int, int]:
    """Return stored, replaced, skipped, rejected."""
    return job.stored, job.replaced, job.skipped, job.rejected


def kept(folder: Path) -> list[Path]:
    """Return the files that are kept."""
    return list(folder.iterdir()) if folder.exists() else []


def lines(*given: Any) -> bytes:
    """Return lines of JSON."""
    return b"".join(json.dumps(each).encode() + b"\n" for each in given)


def parquet(**columns: Any) -> bytes:
    """Return a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


# --- From the file to the texts -------------------------------------------------------------------
def test_a_table_is_stored_as_its_columns_say(erin: Client, folder: Path) -> None:
    job = offered(erin, CSV)
    text = page(erin.get(f"{PROJECT}/upload/{job.pk}"))
    for word in ("letters.csv", "Dear Bob", "These can be stored as they are", "Row 2", "l-1"):
        assert word in text
    assert len(kept(folder)) == 1
    job = begin(erin, job)
    assert (job.state, counts(job)) == ("finished", (2, 0, 0, 0))
    found = rows()["l-2"]
    assert found.text == "Dear Ann,\nhow are you?"
    assert found.vector.tolist() == [0, 1, 0]
    assert json.loads(found.metadata) == {"author": "Bob", "year": 1802, "sent": False}
    # The file is kept for as long as it is needed.
    text = page(erin.get(f"{PROJECT}/upload/{job.pk}"))
    assert "every row is stored" in text
    assert f'href="{PROJECT}/texts"' in text


def test_the_file_goes_when_its_rows_are_stored(
    erin: Client, folder: Path, django_capture_on_commit_callbacks: Any
) -> None:
    job = offered(erin, CSV)
    with django_capture_on_commit_callbacks(execute=True):
        begin(erin, job)
    assert kept(folder) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", lines({"nr": 7, "body": "Dear Bob", "emb": [1, 0, 0], "tags": ["x"]})),
        ("a.csv", b"nr;body;emb;tags\r\n7;Dear Bob;1 0 0;x\r\n"),
        ("a.tsv", "\ufeffnr\tbody\temb\ttags\n7\tDear Bob\t[1,0,0]\tx\n".encode("utf-16")),
        ("a.parquet", parquet(nr=[7], body=["Dear Bob"], emb=[[1.0, 0, 0]], tags=[["x"]])),
    ],
)
def test_columns_of_any_names_in_every_format(
    name: str, content: bytes, erin: Client, cast: Cast
) -> None:
    job = offered(erin, content, name)
    uses = {"use-0": "id", "use-1": "text", "use-2": "vector", "use-3": "no"}
    assert counts(begin(erin, job, **uses)) == (1, 0, 0, 0)
    found = rows()["7"]
    assert (found.text, found.vector.tolist(), found.metadata) == ("Dear Bob", [1, 0, 0], b"{}")


def test_metadata_comes_from_several_columns(erin: Client) -> None:
    content = parquet(
        id=["a"],
        vector=[[1.0, 0.0, 0.0]],
        meta=['{"x": 1}'],
        day=pa.array([0], pa.date32()),
        amount=[1.5],
        missing=pa.array([None], pa.float64()),
        nested=[{"deep": [1, None]}],
    )
    assert counts(begin(erin, offered(erin, content, "a.parquet"))) == (1, 0, 0, 0)
    assert json.loads(rows()["a"].metadata) == {
        "x": 1,
        "day": "1970-01-01",
        "amount": 1.5,
        "nested": {"deep": [1, None]},
    }


def test_texts_without_vectors_are_embedded(erin: Client, cast: Cast) -> None:
    make_embedded(cast.project.instance, "Dear Bob", "Dear Ann")
    job = offered(erin, b"letter,author\nDear Bob,Ann\nDear Ann,Bob\n")
    text = page(erin.get(f"{PROJECT}/upload/{job.pk}"))
    assert "Their vectors are made by test-embedding" in text
    job = begin(erin, job, **{"use-0": "text", "use-1": "string"})
    assert counts(job) == (2, 0, 0, 0)
    # Their ids follow from what they say: a second time they are there already.
    again = begin(erin, offered(erin, b"letter\nDear Bob\n"), **{"use-0": "text"})
    assert counts(again) == (0, 0, 1, 0)


def test_vectors_of_another_model_are_left_out(erin: Client) -> None:
    job = offered(erin, lines({"id": "a", "text": "Dear Bob", "vector": [1, 2, 3, 4]}), "a.jsonl")
    text = page(erin.get(f"{PROJECT}/upload/{job.pk}"))
    assert "have 4 numbers; those of this project have 3" in text
    assert [each["guess"] for each in job.columns] == ["id", "text", "no"]


def test_texts_can_be_pasted(erin: Client) -> None:
    answer: Any = erin.post(f"{PROJECT}/upload", {"pasted": CSV.decode()})
    assert answer.status_code == 302
    job = ImportJob.objects.get()
    assert (job.name, counts(begin(erin, job))) == ("Pasted.csv", (2, 0, 0, 0))


@pytest.mark.parametrize(("choice", "text"), [("skip", "Dear Bob"), ("replace", "New")])
def test_what_is_stored_already_is_left_or_replaced(choice: str, text: str, erin: Client) -> None:
    begin(erin, offered(erin, CSV))
    job = begin(erin, offered(erin, CSV.replace(b"Dear Bob", b"New")), existing=choice)
    assert counts(job) == ((0, 0, 2, 0) if choice == "skip" else (0, 2, 0, 0))
    assert rows()["l-1"].text == text


# --- What cannot be stored ------------------------------------------------------------------------
def test_rows_are_refused_in_words_and_the_others_stored(erin: Client, cast: Cast) -> None:
    schema = {"properties": {"author": {"enum": ["Ann", "=1+1"]}}}
    cast.alice.patch("/v1/projects/alice/letters", {"metadataScheme": schema})
    bad = CSV + b'=HYPERLINK(1),x,"[1, 0, 0]",Eve,1,true\nl-4,x,"[1]",Ann,1,true\nl-5,cells\n'
    bad += b'l-1,x,"[1, 0, 0]",Ann,1,true\nl-7,x,"[1, 0, 0]",Ann,abc,true\n'
    job = offered(erin, bad)
    text = page(erin.get(f"{PROJECT}/upload/{job.pk}"))
    assert "must be one of the following" in text
    job = begin(erin, job, **{"use-4": "number"})
    assert counts(job) == (1, 0, 0, 6)
    text = page(erin.get(f"{PROJECT}/upload/{job.pk}"))
    for word in ("Row 4", "got 1", "The row has 2 cells", "occurs earlier", "is not a number"):
        assert word in text
    answer: Any = erin.get(f"{PROJECT}/upload/{job.pk}/rejected.csv")
    assert answer.headers["Content-Disposition"].startswith("attachment; ")
    report = answer.content.decode("utf-8-sig").splitlines()
    assert report[0] == "row,text_id,reason"
    assert len(report) == 7
    # Not as a formula.
    assert any(line.startswith("4,'=HYPERLINK(1),") for line in report)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.exe", b"MZ", "does not tell the format"),
        ("a.csv", b"", "The file is empty"),
        ("a.csv", b"\xff\xfa,b\n1,2\n", "not UTF-8"),
        ("a.csv", b"a,a\n1,2\n", "several columns"),
        ("a.csv", b"PAR1", "another format"),
        ("a.csv", b"\x1f\x8b\x08", "compressed"),
        ("a.csv", ",".join(map(str, range(201))).encode(), "at most 200"),
        ("a.jsonl", b"[1]\nnonsense\n", "none of its first lines"),
        ("a.parquet", b"PAR1 and then nothing of it PAR1", "Cannot read the file"),
        ("a.parquet", b"no", "another format"),
    ],
)
def test_files_that_cannot_be_read(
    name: str, content: bytes, problem: str, erin: Client, folder: Path
) -> None:
    text = page(offer(erin, content, name), 400)
    assert problem in text
    assert kept(folder) == []
    assert not ImportJob.objects.exists()


def test_a_damaged_table_stops_in_words_after_what_was_good(erin: Client) -> None:
    job = begin(erin, offered(erin, CSV * 2 + b'l-9,"never closed'))
    assert job.state == "failed"
    assert "no CSV" in job.error
    assert "It stopped before its end" in page(erin.get(f"{PROJECT}/upload/{job.pk}"))


def test_names_are_only_shown(erin: Client, folder: Path) -> None:
    name = f"..\\..\\{HOSTILE}.csv"
    job = offered(erin, CSV, name)
    page(erin.get(f"{PROJECT}/upload/{job.pk}"))
    page(erin.get(f"{PROJECT}/upload"))
    assert [path.name for path in kept(folder)] == [job.file]
    assert job.file.isalnum()


def test_contents_stay_text(erin: Client) -> None:
    table = f'text_id,text,"{HOSTILE.replace(chr(34), chr(34) * 2)}"\n'
    table += ",".join(f'"{each}"' for each in [HOSTILE.replace('"', '""')] * 3)
    job = offered(erin, table.encode())
    page(erin.get(f"{PROJECT}/upload/{job.pk}"))
    page(erin.post(f"{PROJECT}/upload/{job.pk}", {"check": "1", "use-2": "number"}))
    bad = begin(erin, job, **{"use-2": "number"})
    assert bad.rejected == 1
    page(erin.get(f"{PROJECT}/upload/{job.pk}"))


@pytest.mark.parametrize(
    ("uses", "problem"),
    [
        ({"use-0": "no", "use-1": "no"}, "which column holds the id"),
        ({"use-1": "no", "use-2": "no"}, "Say which column holds the text, or the vector"),
        ({"use-3": "id"}, "cannot both be the id"),
    ],
)
def test_columns_must_make_up_a_text(uses: dict[str, str], problem: str, erin: Client) -> None:
    job = offered(erin, CSV)
    text = page(erin.post(f"{PROJECT}/upload/{job.pk}", uses), 400)
    assert problem in text
    page(erin.post(f"{PROJECT}/upload/{job.pk}", {"use-0": "nonsense"}), 400)
    job.refresh_from_db()
    assert job.is_draft


def test_a_form_without_its_token_is_refused(cast: Cast) -> None:
    client = Client(enforce_csrf_checks=True, headers={"Accept": "text/html"})
    client.force_login(stored("erin"), backend="django.contrib.auth.backends.ModelBackend")
    page(offer(client, CSV), 403)
    assert not ImportJob.objects.exists()
    assert offer(Client(enforce_csrf_checks=True), CSV).status_code == 302
    stranger = browser("sam")
    page(offer(stranger, CSV), 404)
    page(offer(browser("rita"), CSV), 403)


def test_only_editors_may_send_large_bodies(cast: Cast, settings: Any) -> None:
    settings.MAX_BODY_BYTES = 1024
    large = CSV + b"l-3,x,,,,\n" * 200
    assert offer(browser("erin"), large).status_code == 302
    settings.MAX_BULK_BYTES = 1024
    told = page(offer(browser("erin"), large), 413)
    assert "This is too large" in told


def test_an_account_keeps_so_many_files(
    erin: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_jobs, "MOST_FILES", 1)
    offered(erin, CSV)
    assert "may have no more" in page(offer(erin, CSV), 400)
    assert len(kept(folder)) == 1


# --- Workers that die, people who change their minds ----------------------------------------------
def test_a_job_goes_on_with_the_batch_after_the_last(
    erin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_jobs, "_ROWS", 2)
    table = b"id,vector\n" + b"".join(b't%d,"[1, 0, 0]"\n' % (number % 5) for number in range(7))
    job = offered(erin, table)
    real = services.import_batch
    calls = 0

    def dies(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        done = real(*arguments, **options)
        if calls == 2:
            # Stored, but not committed.
            raise RuntimeError("killed")
        return done

    monkeypatch.setattr("embeddings.imports.import_batch", dies)
    erin.post(f"{PROJECT}/upload/{job.pk}", {})
    with pytest.raises(RuntimeError, match="killed"):
        import_jobs.work(job.pk)
    job.refresh_from_db()
    assert (job.state, job.chunks, counts(job)) == ("running", 1, (2, 0, 0, 0))
    assert len(rows()) == 2
    import_jobs.work(job.pk)
    job.refresh_from_db()
    # Nothing is counted twice, and what occurs twice in the file is still told.
    assert (job.state, job.rows, counts(job)) == ("finished", 7, (5, 0, 0, 2))
    assert list(job.problems.values_list("row", flat=True)) == [7, 8]


def test_a_lost_job_is_ended_and_can_go_on(erin: Client) -> None:
    job = offered(erin, CSV)
    erin.post(f"{PROJECT}/upload/{job.pk}", {})
    ImportJob.objects.update(state="running", created_at=timezone.now() - timedelta(hours=1))
    ProcrastinateJob.objects.filter(task_name=import_jobs.WORK).update(status="failed")
    import_jobs.sweep()
    job.refresh_from_db()
    assert job.state == "failed"
    assert erin.post(f"{PROJECT}/upload/{job.pk}/retry").status_code == 302
    run_jobs()
    job.refresh_from_db()
    assert (job.state, counts(job)) == ("finished", (2, 0, 0, 0))


def test_stopping_and_discarding(erin: Client) -> None:
    job = offered(erin, CSV)
    erin.post(f"{PROJECT}/upload/{job.pk}", {})
    text = page(erin.get(f"{PROJECT}/upload/{job.pk}"))
    assert 'hx-trigger="every 1s"' in text
    erin.post(f"{PROJECT}/upload/{job.pk}/cancel")
    run_jobs()
    job.refresh_from_db()
    assert (job.state, rows()) == ("cancelled", {})
    assert "It was cancelled" in page(erin.get(f"{PROJECT}/upload/{job.pk}"))
    draft = offered(erin, CSV)
    answer: Any = erin.post(f"{PROJECT}/upload/{draft.pk}/cancel")
    assert answer.headers["Location"] == f"{PROJECT}/upload"
    page(erin.post(f"{PROJECT}/upload/{draft.pk}/cancel"), 409)
    page(erin.post(f"{PROJECT}/upload/{draft.pk}/retry"), 409)


def test_who_may_not_edit_any_more_stores_nothing(erin: Client) -> None:
    job = offered(erin, CSV)
    erin.post(f"{PROJECT}/upload/{job.pk}", {})
    ProjectShare.objects.filter(user__handle="erin").delete()
    run_jobs()
    job.refresh_from_db()
    assert (job.state, rows()) == ("cancelled", {})
    assert "may not edit" in job.error


def test_files_that_nobody_needs_are_deleted(erin: Client, folder: Path) -> None:
    draft = offered(erin, CSV)
    import_jobs.tidy()
    assert len(kept(folder)) == 1
    old = timezone.now() - timedelta(days=2)
    ImportJob.objects.update(created_at=old)
    orphan = storages["uploads"].save("orphan", io.BytesIO(b"x"))
    for path in kept(folder):
        os.utime(path, (old.timestamp(), old.timestamp()))
    import_jobs.tidy()
    assert kept(folder) == [], orphan
    assert not ImportJob.objects.filter(pk=draft.pk).exists()


# --- Parts of pages, and what they cost -----------------------------------------------------------
def test_the_preview_changes_with_the_columns(erin: Client) -> None:
    job = offered(erin, CSV)
    headers = {**HTMX, "HX-Target": "preview"}
    sent = {"check": "1", "use-3": "number"}
    part = page(erin.post(f"{PROJECT}/upload/{job.pk}", sent, headers=headers))
    assert "<html" not in part
    assert "is not a number" in part


def test_progress_is_a_part_that_asks_again_until_the_end(erin: Client) -> None:
    job = offered(erin, CSV)
    erin.post(f"{PROJECT}/upload/{job.pk}", {})
    address = f"{PROJECT}/upload/{job.pk}?{urlencode({'seen': 'waiting 0'})}"
    headers = {**HTMX, "HX-Target": "progress"}
    part = page(erin.get(address, headers=headers))
    assert "<html" not in part
    assert "every 1s" in part
    assert 'id="said"' not in part
    run_jobs()
    part = page(erin.get(address, headers=headers))
    assert "every 1s" not in part
    assert "done: 2 texts stored" in part
    assert "<b>2</b> texts" in part


def test_pages_take_few_queries(erin: Client) -> None:
    done = begin(erin, offered(erin, CSV))
    draft = offered(erin, CSV)
    for address in ("upload", f"upload/{done.pk}", f"upload/{draft.pk}"):
        assert queries(erin, f"{PROJECT}/{address}") <= 15


def test_uploads_of_other_projects_are_not_found(erin: Client, cast: Cast) -> None:
    job = offered(erin, CSV)
    for what in ("", "/rejected.csv"):
        page(erin.get(f"/p/erin/default/upload/{job.pk}{what}"), 404)
    page(erin.post(f"/p/erin/default/upload/{job.pk}/cancel"), 404)


def test_everybody_who_may_is_led_here(cast: Cast) -> None:
    link = f'href="{PROJECT}/upload"'
    for address in ("/", "/texts"):
        assert link in page(browser("erin").get(f"{PROJECT}{address}"))
        assert link not in page(browser("rita").get(f"{PROJECT}{address}"))

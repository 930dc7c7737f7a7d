"""manage.py doctor: each thing that may be wrong is found, and told with what mends it."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from django.db import connection
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob

from common import doctor, jobs
from common.doctor import Examined, Finding, Severity
from config import doctor as installation
from embeddings import store
from embeddings.models import SearchIndex
from llm_services.models import Instance
from tests import job_tasks
from tests.embeddings.large import Shelf
from tests.embeddings.test_commands import run
from tests.factories import Cast, item, make_instance
from tests.jobs import run_jobs

pytestmark = pytest.mark.django_db
LETTERS = "/v1/embeddings/alice/letters"
# A task that fails whenever it is tried.
FAILS = job_tasks.FAIL_SIMPLY


def found(name: str, *, thorough: bool = False) -> Examined:
    """Return what one check finds."""
    (examined,) = doctor.examine(only=[name], thorough=thorough)
    return examined


def only(name: str, **options: Any) -> Finding:
    """Return the only thing that a check finds."""
    (finding,) = found(name, **options).findings
    return finding


@pytest.fixture
def worker(db: None) -> None:
    """Let it look as if a background worker lived."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT procrastinate_register_worker_v1()")


def test_a_healthy_server_passes_every_check(cast: Cast, worker: None) -> None:
    cast.alice.post(LETTERS, {"embeddings": [item("a", [1, 0, 0])]})
    for thorough in ([], ["--thorough"]):
        ran = run("doctor", *thorough)
        assert ran.code == 0, ran.out
        lines = ran.out.splitlines()
        assert {line.split()[0] for line in lines} == {"ok"}, ran.out
        assert len(lines) == len(doctor.names())


def test_it_answers_in_json_and_by_its_exit_code(cast: Cast, settings: Any) -> None:
    settings.DEBUG = True
    ran = run("doctor", "--json", "--only", "settings", "--only", "worker")
    assert ran.code == 1
    answer = json.loads(ran.out)
    assert {each["name"]: each["severity"] for each in answer["checks"]} == {
        "settings": "error",
        "worker": "warning",
    }
    assert answer["findings"][-1]["fix"] == "ARMARIUM_DEBUG=false"
    assert all(each["message"].endswith(".") for each in answer["findings"])
    # Warnings alone are no reason to fail.
    assert run("doctor", "--only", "worker").code == 0


def test_a_check_that_cannot_look_is_an_error(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(1)")
        return []

    monkeypatch.setattr(installation, "unapplied_migrations", broken)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 1")
    finding = only("migrations")
    assert finding.severity is Severity.ERROR
    assert "could not be looked at" in finding.message


# --- The worker -----------------------------------------------------------------------------------
def test_jobs_that_failed_are_told_by_task(worker: None) -> None:
    for _ in range(2):
        jobs.defer(FAILS, file="/nowhere")
    run_jobs(again=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT procrastinate_register_worker_v1()")
    finding = only("worker")
    last = ProcrastinateJob.objects.order_by("-pk").values_list("pk", flat=True)[0]
    assert finding.message == "2 jobs of tests.fail_simply have failed."
    assert f"manage.py retryjob {last}" in finding.fix


def test_a_worker_that_is_silent_is_dead(worker: None) -> None:
    assert found("worker").severity is Severity.OK
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE procrastinate_workers SET last_heartbeat = %s",
            [timezone.now() - timedelta(minutes=5)],
        )
    assert only("worker").fix == "manage.py worker"


# --- Keys -----------------------------------------------------------------------------------------
def test_keys_that_cannot_be_read_are_an_error(cast: Cast, settings: Any) -> None:
    make_instance("alice", "secret", api_key="sk-of-a-provider")
    assert found("keys").severity is Severity.OK
    before = settings.ENCRYPTION_KEY
    settings.ENCRYPTION_KEY = "another-key-0123456789-0123456789-0123456789"
    finding = only("keys")
    assert (finding.severity, "alice/secret" in finding.message) == (Severity.ERROR, True)
    assert "ARMARIUM_PREVIOUS_ENCRYPTION_KEYS" in finding.fix
    settings.PREVIOUS_ENCRYPTION_KEYS = [before]
    assert only("keys").severity is Severity.WARNING
    assert "sk-of-a-provider" not in str(found("keys"))


# --- Installation ---------------------------------------------------------------------------------
def test_missing_migrations_are_an_error(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "unapplied_migrations", lambda: ["accounts.0099_more"])
    finding = only("migrations")
    assert (finding.severity, finding.fix) == (Severity.ERROR, "manage.py migrate")


@pytest.mark.parametrize(
    ("free", "severity"), [(90, Severity.OK), (4, Severity.WARNING), (0.5, Severity.ERROR)]
)
def test_a_full_disk_is_told_in_time(
    free: float, severity: Severity, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        total = 100 * 1024**3

    Usage.free = int(free * 1024**3)  # type: ignore[attr-defined]
    monkeypatch.setattr(installation.shutil, "disk_usage", lambda path: Usage)  # type: ignore[attr-defined]
    assert found("disk").severity is severity


def test_risky_settings_of_the_database_are_an_error(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = off")
    finding = only("database")
    assert finding.severity is Severity.ERROR
    assert finding.fix.startswith("ALTER SYSTEM SET synchronous_commit = on;")


# --- What is stored -------------------------------------------------------------------------------
def test_vectors_that_no_search_finds_are_told(cast: Cast) -> None:
    """Uploads refuse them; they may come by a restored or edited database."""
    instance = Instance.objects.get(owner__handle="alice")
    store.insert(
        cast.project.pk,
        instance.pk,
        text_ids=["good", "zero"],
        vectors=np.array([[1, 0, 0], [0, 0, 0]], dtype=np.float32),
        texts=["", ""],
        metadata=[b"{}", b"{}"],
    )
    for thorough in (False, True):
        finding = only("vectors", thorough=thorough)
        assert (finding.severity, finding.about) == (Severity.ERROR, "alice/letters")
        assert "'zero'" in finding.message
        assert "'good'" not in finding.message


def test_metadata_that_breaks_the_schema_is_told(cast: Cast) -> None:
    rows = [item("a", [1, 0, 0], metadata={}), item("b", [1, 0, 0], metadata={"author": "Ann"})]
    assert cast.alice.post(LETTERS, {"embeddings": rows}).status == 201
    schema = {"metadataScheme": '{"type": "object", "required": ["author"]}'}
    assert cast.alice.patch("/v1/projects/alice/letters", schema).status == 200
    finding = only("schemas")
    assert "'a'" in finding.message
    assert "'b'" not in finding.message
    assert finding.fix == "manage.py sanitycheck"


def test_vectors_of_several_models_are_told(cast: Cast) -> None:
    assert cast.alice.post(LETTERS, {"embeddings": [item("a", [1, 0, 0])]}).status == 201
    change = {"model": "another-model"}
    assert cast.alice.patch("/v1/llm-services/alice/model", change).status == 200
    for thorough in (False, True):
        finding = only("models", thorough=thorough)
        assert finding.severity is Severity.WARNING
        assert "another-model" in finding.message


# --- Indexes --------------------------------------------------------------------------------------
@pytest.fixture
def small_indexes(settings: Any) -> None:
    """Index projects from 300 texts of 64 dimensions on."""
    settings.INDEX_THRESHOLD = 300 * 64


@pytest.fixture
def indexed(cast: Cast, small_indexes: None) -> Shelf:
    """Return a project with an index."""
    shelf = Shelf(cast.alice).make()
    shelf.upload(range(400))
    assert shelf.tended()["state"] == "indexed"
    return shelf


def test_an_index_that_is_used_passes_and_one_that_is_gone_is_told(
    indexed: Shelf, break_graph: Callable[[str], None]
) -> None:
    assert found("plans").severity is Severity.OK
    assert found("indexes").severity is Severity.OK
    break_graph("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass")
    assert found("indexes").severity is Severity.ERROR
    finding = only("plans")
    assert finding.severity is Severity.ERROR
    assert "reads every row" in finding.message
    assert finding.fix.startswith("manage.py rebuildindex alice/")


@pytest.fixture
def break_graph(indexed: Shelf) -> Callable[[str], None]:
    """Return a function that does something to the graph."""

    def change(statement: str) -> None:
        segment = SearchIndex.objects.get().segment
        with connection.cursor() as cursor:
            cursor.execute(statement, [f"embeddings_embedding_{segment}_graph"])

    return change


def test_a_failed_attempt_is_told_with_its_reason(cast: Cast) -> None:
    SearchIndex.objects.create(project=cast.project, last_error="DiskFull: no space left")
    finding = only("indexes")
    assert "DiskFull: no space left" in finding.message
    assert finding.fix == "manage.py rebuildindex alice/letters"

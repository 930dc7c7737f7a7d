"""What goes on in the background, as a page: who sees what of it, and what its buttons do."""

from typing import Any

import pytest
from django.test import Client
from procrastinate.contrib.django.models import ProcrastinateJob

from common import jobs
from embeddings import indexes
from embeddings.models import (
    EmbeddingJob,
    IndexState,
    JobState,
    Reembedding,
    ReembeddingState,
    SearchIndex,
)
from tests import job_tasks
from tests.console.browser import browser, page, queries
from tests.factories import Cast, make_instance, make_project
from tests.jobs import run_jobs

# A task that fails whenever it is tried.
FAILS = job_tasks.FAIL_SIMPLY
HTMX = {"HX-Request": "true", "HX-Target": "jobs"}
ACT = "/jobs/act"


def make_job(cast: Cast, state: JobState = JobState.RUNNING, **fields: Any) -> EmbeddingJob:
    """Make a job of Alice's project `letters`."""
    values = {"total": 10, "done": 4, "failed": 1, "seconds_per_text": 30.0, **fields}
    return EmbeddingJob.objects.create(project=cast.project, state=state, **values)


def act(client: Client, status: int = 302, /, **sent: Any) -> str:
    """Press a button; return what the list says then."""
    where = {"owner": "alice", "handle": "letters"}
    response: Any = client.post(ACT, {**where, **sent})
    if status != 302:
        return page(response, status)
    assert response.status_code == 302, response.content[:1000]
    return page(client.get("/jobs/"))


# --- What is shown --------------------------------------------------------------------------------
def test_nothing_to_do_teaches_what_would_be_here(cast: Cast) -> None:
    text = page(browser("sam").get("/jobs/"))
    assert "Nothing goes on" in text
    assert "hx-trigger" not in text


def test_editors_see_progress_and_reasons_of_their_projects(cast: Cast) -> None:
    make_job(cast)
    make_job(cast, JobState.FAILED, error="The provider refused the key.")
    SearchIndex.objects.create(
        project=cast.project, state=IndexState.BUILDING, last_error="DiskFull: no space"
    )
    text = page(browser("erin").get("/jobs/"))
    for words in (
        "1 job is running",
        "2 have failed",
        "4 of 10 texts",
        "1 failed",
        "about 2 minutes left",
        "The provider refused the key.",
        "DiskFull: no space",
        'hx-get="/jobs/?seen=1-0-2"',
    ):
        assert words in text, words
    for handle in ("sam", "rita"):
        assert "Nothing goes on" in page(browser(handle).get("/jobs/"))


def test_of_others_projects_nothing_is_shown(cast: Cast) -> None:
    make_instance("sam", "model")
    theirs = make_project("sam", "papers")
    EmbeddingJob.objects.create(project=theirs, state=JobState.RUNNING, total=1)
    assert "papers" not in page(browser("alice").get("/jobs/"))
    assert "sam/papers" in page(browser("ada").get("/jobs/"))


def test_administrators_see_the_servers_own_jobs(cast: Cast) -> None:
    jobs.defer(FAILS, file="/nowhere")
    run_jobs(again=True)
    jobs.defer("tests.refuse")
    text = page(browser("ada").get("/jobs/"))
    assert "tests.fail_simply" in text
    assert "RuntimeError: no more" in text
    assert "tests.refuse" in text
    assert "tests.fail_simply" not in page(browser("alice").get("/jobs/"))


def test_the_list_asks_again_and_tells_only_news(cast: Cast) -> None:
    job = make_job(cast)
    client = browser("alice")
    same = page(client.get("/jobs/?seen=1-0-0", headers=HTMX))
    assert "<html" not in same
    assert "hx-swap-oob" not in same
    job.state = JobState.FAILED
    job.save()
    news = page(client.get("/jobs/?seen=1-0-0", headers=HTMX))
    assert "hx-swap-oob" in news
    assert "1 has failed" in news
    # Nothing is to be waited for any more.
    assert "hx-trigger" not in news


def test_the_list_takes_few_queries_however_much_goes_on(cast: Cast) -> None:
    for number in range(5):
        project = make_project("alice", f"more-{number}")
        EmbeddingJob.objects.create(project=project, total=1)
        SearchIndex.objects.create(project=project, state=IndexState.BUILDING)
        jobs.defer("tests.refuse")
    assert queries(browser("ada"), "/jobs/") <= 15


# --- What its buttons do --------------------------------------------------------------------------
def test_an_embedding_job_is_cancelled_tried_again_and_forgotten(cast: Cast) -> None:
    job = make_job(cast)
    erin = browser("erin")
    sent: Any = {"kind": "texts", "id": str(job.pk)}
    assert "It is cancelled." in act(erin, **sent, action="cancel")
    job.refresh_from_db()
    assert job.state == JobState.CANCELLED
    # It ended meanwhile: the list says so, and stays.
    assert "has ended already" in act(erin, **sent, action="cancel")
    assert "It is tried again." in act(erin, **sent, action="retry")
    act(erin, **sent, action="cancel")
    assert "It is forgotten." in act(erin, **sent, action="forget")
    assert not EmbeddingJob.objects.exists()


def test_a_failed_index_is_looked_after_again_by_its_owner(cast: Cast) -> None:
    SearchIndex.objects.create(project=cast.project, last_error="DiskFull")
    assert "Try again" not in page(browser("erin").get("/jobs/"))
    act(browser("erin"), 403, kind="index", action="retry")
    act(browser("sam"), 403, kind="index", action="retry")
    assert not ProcrastinateJob.objects.exists()
    assert "It is tried again." in act(browser("alice"), kind="index", action="retry")
    assert ProcrastinateJob.objects.get().task_name == indexes.TEND


def test_a_change_of_model_pauses_and_goes_on(cast: Cast) -> None:
    make_instance("alice", "other")
    instance = cast.project.instance
    Reembedding.objects.create(
        project=cast.project, instance=instance, model_id=instance.embedding_model_id
    )
    alice = browser("alice")
    assert "Changing the model" in page(alice.get("/jobs/"))
    assert "It pauses" in act(alice, kind="model", action="pause")
    assert Reembedding.objects.get().state == ReembeddingState.PAUSED
    assert "It goes on." in act(alice, kind="model", action="resume")
    assert "It is cancelled." in act(alice, kind="model", action="cancel")
    assert not Reembedding.objects.exists()


def test_only_administrators_try_the_servers_jobs_again(cast: Cast) -> None:
    jobs.defer(FAILS, file="/nowhere")
    run_jobs(again=True)
    number = ProcrastinateJob.objects.get().pk
    act(browser("alice"), 403, kind="job", id=str(number), action="retry")
    assert ProcrastinateJob.objects.get().status == "failed"
    assert "It is tried again." in act(browser("ada"), kind="job", id=number, action="retry")
    assert ProcrastinateJob.objects.get().status == "todo"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({}, 400),
        ({"kind": "job", "action": "explode"}, 400),
        ({"kind": "texts", "action": "cancel", "id": "nonsense"}, 302),
        ({"kind": "job", "action": "retry", "id": "99999999999999999999"}, 302),
        ({"kind": "job", "action": "retry", "id": "٣"}, 302),
    ],
)
def test_what_no_button_sends_changes_nothing(
    sent: dict[str, str], status: int, cast: Cast
) -> None:
    make_job(cast)
    act(browser("ada"), status, **sent)
    assert EmbeddingJob.objects.get().state == JobState.RUNNING


def test_who_is_not_signed_in_is_asked_to(cast: Cast) -> None:
    for method in ("get", "post"):
        response = getattr(browser(), method)("/jobs/" if method == "get" else ACT)
        assert response.status_code == 302
        assert response.headers["Location"].startswith("/sign-in")

"""Many requests to the Projects API at once: one winner, nothing torn, nothing left over."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction

from accounts.policy import BOOTSTRAP_ADMIN
from accounts.services import delete_user
from projects.models import Project
from projects.services import OnResources, delete_project, transfer_project
from resources.models import Agent, EndUser, File
from tests.answers import assert_error
from tests.factories import Answer, Caller, Cast, make_project, make_user
from tests.races import ROUNDS, THREADS, asking, at_once, statuses, while_waiting
from tests.resources.things import kept

pytestmark = [
    pytest.mark.django_db(transaction=True, serialized_rollback=True),
    pytest.mark.slow,
]

BODIES: dict[str, dict[str, Any]] = {
    "agents": {"name": "x"},
    "users": {"name": "x"},
    "files": {"name": "x", "content": "SGVsbG8h"},
}
LETTERS: dict[str, Any] = {"actor": BOOTSTRAP_ADMIN, "owner": "alice", "handle": "letters"}
MODELS: list[Any] = [Agent, EndUser, File]
every = pytest.mark.parametrize("kind", list(BODIES))


# --- One winner -----------------------------------------------------------------------------------
def test_of_many_agents_of_one_canonical_name_exactly_one_is_made(cast: Cast) -> None:
    for turn in range(ROUNDS):
        bodies = [
            {"name": str(n), "canonical_name": f"{'Scribe' if n % 2 else 'scribe'}_{turn}"}
            for n in range(THREADS)
        ]
        answers = at_once([asking(cast.alice, "POST", "/agents", body) for body in bodies])
        assert statuses(answers) == {201: 1, 409: THREADS - 1}
        assert Agent.objects.filter(canonical_name__iexact=f"scribe_{turn}").count() == 1


@pytest.mark.parametrize("kind", ["projects", "agents", "users"])
def test_of_many_that_choose_one_id_one_creates_and_the_others_replace(
    cast: Cast, kind: str
) -> None:
    for _ in range(ROUNDS):
        path = f"/{kind}/{uuid4()}"
        jobs = [asking(cast.alice, "POST", path, {"name": str(n)}) for n in range(THREADS)]
        answers = at_once(jobs)
        assert statuses(answers) == {201: 1, 200: THREADS - 1}
        assert cast.alice.get(path)["name"] in {str(n) for n in range(THREADS)}


@every
def test_of_many_deletions_exactly_one_wins(cast: Cast, kind: str) -> None:
    for _ in range(ROUNDS):
        path = f"/{kind}/{cast.alice.post(f'/{kind}', BODIES[kind])['id']}"
        answers = at_once([asking(cast.alice, "DELETE", path) for _ in range(THREADS)])
        assert statuses(answers) == {202: 1, 404: THREADS - 1}


@pytest.mark.parametrize("kind", ["projects", "agents"])
def test_of_many_that_choose_one_id_and_name_none_takes_the_others_for_another(
    cast: Cast, kind: str
) -> None:
    for turn in range(ROUNDS):
        path, body = f"/{kind}/{uuid4()}", {"name": "x", "canonical_name": f"chosen-{turn}"}
        answers = at_once([asking(cast.alice, "POST", path, body) for _ in range(THREADS)])
        assert statuses(answers) == {201: 1, 200: THREADS - 1}


def test_projects_that_swap_their_names_never_deadlock(cast: Cast) -> None:
    one, two = (cast.alice.post("/projects", {"name": n})["id"] for n in ("one", "two"))
    for turn in range(ROUNDS * 5):
        jobs = [
            asking(cast.alice, "PATCH", f"/projects/{each}", {"canonical_name": f"n{name}-{turn}"})
            for each in (one, two)
            for name in ("a", "b")
        ]
        assert statuses(at_once(jobs)).keys() <= {200, 409}


def test_a_file_that_is_deleted_while_it_is_read_is_there_or_not(cast: Cast) -> None:
    for _ in range(ROUNDS * 5):
        path = f"/files/{cast.alice.post('/files', BODIES['files'])['id']}"
        jobs = [asking(cast.alice, "DELETE", path)]
        jobs += [asking(cast.alice, "GET", path) for _ in range(4)]
        jobs += [
            asking(cast.alice, "PATCH", path, {"name": "y"}),
            asking(cast.alice, "GET", "/files"),
        ]
        assert statuses(at_once(jobs)).keys() <= {200, 202, 404}


def test_an_upload_that_waits_too_long_leaves_no_bytes(cast: Cast, files_folder: Path) -> None:
    def impatient() -> Answer:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '50ms'")
        body = {**BODIES["files"], "project": "letters"}
        return Caller(cast.alice.key).post("/files", body)

    with transaction.atomic():
        list(Project.objects.select_for_update().filter(handle="letters"))
        (answer,) = at_once([impatient])
    assert_error(answer, 503, "unavailable")
    assert kept(files_folder) == []
    assert not File.objects.exists()


def test_changes_of_different_keys_all_survive(cast: Cast) -> None:
    for kind in ("agents", "users", "projects"):
        path = f"/{kind}/{cast.alice.post(f'/{kind}', {'name': 'x'})['id']}"
        jobs = [
            asking(cast.alice, "PATCH", path, {"metadata": {f"k{n}": n}}) for n in range(THREADS)
        ]
        assert statuses(at_once(jobs)) == {200: THREADS}
        assert cast.alice.get(path)["metadata"] == {f"k{n}": n for n in range(THREADS)}


def test_of_many_projects_renamed_to_one_name_exactly_one_is(cast: Cast) -> None:
    ids = [cast.alice.post("/projects", {"name": str(n)})["id"] for n in range(THREADS)]
    body = {"canonical_name": "wanted"}
    answers = at_once([asking(cast.alice, "PATCH", f"/projects/{each}", body) for each in ids])
    assert statuses(answers) == {200: 1, 409: THREADS - 1}


def test_first_requests_of_every_kind_make_one_default_project(cast: Cast) -> None:
    for turn in range(ROUNDS):
        caller = make_user(f"newcomer-{turn}")
        Project.objects.filter(owner__handle=caller.handle).delete()
        jobs: list[Callable[[], Answer]] = []
        for n in range(THREADS):
            kind = ["projects", "agents", "users", "files"][n % 4]
            if n < 4:
                jobs.append(asking(caller, "GET", f"/{kind}"))
            else:
                jobs.append(asking(caller, "POST", f"/{kind}", BODIES.get(kind, {"name": "x"})))
        assert statuses(at_once(jobs)) == {200: 4, 201: THREADS - 4}
        assert Project.objects.filter(owner__handle=caller.handle, is_default=True).count() == 1


# --- Projects that go while something is put into them --------------------------------------------
@pytest.mark.parametrize("how", ["move", "delete"])
def test_what_is_made_while_its_project_goes_is_settled_or_refused(
    cast: Cast, how: str, files_folder: Path
) -> None:
    for turn in range(ROUNDS):
        project = make_project("alice", f"short-lived-{turn}")
        path = f"/projects/{project.uuid}?on_resources={how}"
        jobs = [asking(cast.alice, "DELETE", path)]
        for n in range(THREADS - 1):
            kind = list(BODIES)[n % 3]
            body = {**BODIES[kind], "project": project.handle}
            jobs.append(asking(cast.alice, "POST", f"/{kind}", body))
        gone, *made = at_once(jobs)
        assert gone.status == 202
        found = statuses(made)
        assert found.keys() <= {201, 404}
        left = sum(model.objects.filter(owner__handle="alice").count() for model in MODELS)
        assert left == (found[201] if how == "move" else 0)
        for model in MODELS:
            rows = model.objects.filter(owner__handle="alice")
            assert set(rows.values_list("project__handle", flat=True)) <= {"default"}
            rows.delete()
        assert kept(files_folder) == []


@every
def test_one_that_waits_for_the_deletion_of_its_project_is_refused(
    cast: Cast, kind: str, files_folder: Path
) -> None:
    answer = while_waiting(
        lambda: delete_project(**LETTERS, on_resources=OnResources.DELETE),
        asking(cast.alice, "POST", f"/{kind}", {**BODIES[kind], "project": "letters"}),
    )
    assert_error(answer, 404, "project_not_found", says="letters")
    assert kept(files_folder) == []


@every
def test_one_that_waits_for_the_transfer_of_its_project_is_refused(cast: Cast, kind: str) -> None:
    answer = while_waiting(
        lambda: transfer_project(**LETTERS, new_owner="sam"),
        asking(cast.alice, "POST", f"/{kind}", {**BODIES[kind], "project": "letters"}),
    )
    assert_error(answer, 404, "project_not_found", says="letters")
    for model in MODELS:
        assert not model.objects.exists()


@every
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_change_that_waits_for_a_transfer_is_refused(cast: Cast, kind: str, method: str) -> None:
    made = cast.alice.post(f"/{kind}", {**BODIES[kind], "project": "letters"})
    path = f"/{kind}/{made['id']}"
    answer = while_waiting(
        lambda: transfer_project(**LETTERS, new_owner="sam"),
        asking(cast.alice, method, path, {"name": "changed"}),
    )
    assert_error(answer, 404, "not_found")
    assert cast.sam.get(path)["name"] == "x"


@every
def test_one_that_waits_for_the_deletion_of_its_account_is_refused(
    cast: Cast, kind: str, files_folder: Path
) -> None:
    answer = while_waiting(
        lambda: delete_user(actor=BOOTSTRAP_ADMIN, handle="alice"),
        asking(cast.alice, "POST", f"/{kind}", BODIES[kind]),
    )
    assert_error(answer, 404, "project_not_found")
    for model in MODELS:
        assert not model.objects.exists()
    assert kept(files_folder) == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/projects"), ("GET", "/v1/projects/sam"), *(("POST", f"/{kind}") for kind in BODIES)],
)
def test_an_account_that_goes_gets_no_default_project_any_more(
    cast: Cast, method: str, path: str
) -> None:
    Project.objects.filter(owner__handle="sam").delete()
    answer = while_waiting(
        lambda: delete_user(actor=BOOTSTRAP_ADMIN, handle="sam"),
        asking(cast.sam, method, path, BODIES.get(path[1:])),
    )
    assert answer.status == 401, answer.body
    assert not Project.objects.filter(is_default=True, owner__handle="sam").exists()


def test_an_account_goes_for_good_while_things_are_made_in_it(
    cast: Cast, files_folder: Path
) -> None:
    for turn in range(ROUNDS):
        caller = make_user(f"leaving-{turn}")
        jobs = [asking(cast.ada, "DELETE", f"/v1/users/{caller.handle}")]
        for n in range(THREADS - 1):
            kind = list(BODIES)[n % 3]
            jobs.append(asking(caller, "POST", f"/{kind}", BODIES[kind]))
        gone, *made = at_once(jobs)
        assert gone.status == 200, gone.body
        assert statuses(made).keys() <= {201, 401, 404}
        for model in MODELS:
            assert not model.objects.filter(owner__handle=caller.handle).exists()
        assert kept(files_folder) == []


def test_transfers_and_moves_that_cross_never_tear_a_project_apart(cast: Cast) -> None:
    for turn in range(ROUNDS):
        project = make_project("alice", f"gift-{turn}")
        inside = [
            f"/agents/{cast.alice.post('/agents', {'name': 'x', 'project': project.handle})['id']}"
            for _ in range(THREADS - 1)
        ]
        to_sam = {"new_owner_handle": "sam"}
        path = f"/v1/projects/alice/{project.handle}/transfer-ownership"
        jobs = [asking(cast.alice, "POST", path, to_sam)]
        jobs += [asking(cast.alice, "PATCH", each, {"project": "default"}) for each in inside]
        given, *moved = at_once(jobs)
        assert given.status == 200, given.body
        assert statuses(moved).keys() <= {200, 404}
        for each, answer in zip(inside, moved, strict=True):
            holder, other = (
                (cast.alice, cast.sam) if answer.status == 200 else (cast.sam, cast.alice)
            )
            assert holder.get(each)["project"] == (
                "default" if answer.status == 200 else project.handle
            )
            assert other.get(each).status == 404

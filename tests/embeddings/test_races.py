"""Many requests at once, on real connections: one winner, nothing torn, no error of ours."""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from accounts.policy import BOOTSTRAP_ADMIN
from embeddings.models import Embedding
from projects.default_project import ensure_default_project
from projects.models import Project, ProjectShare
from projects.services import (
    delete_project,
    transfer_project,
    update_project,
)
from tests.factories import (
    Answer,
    Caller,
    Cast,
    item,
    make_instance,
    make_project,
    make_user,
    stored,
)
from tests.races import ROUNDS, THREADS, asking, at_once, statuses, while_waiting

pytestmark = [
    pytest.mark.django_db(transaction=True, serialized_rollback=True),
    pytest.mark.slow,
]

LETTERS = "/v1/embeddings/alice/letters"
SIMILARS = "/v1/similars/alice/letters"
PROJECT = "/v1/projects/alice/letters"


def batch(ids: Sequence[str], vector: Sequence[float] = (1, 2, 3), **fields: Any) -> dict[str, Any]:
    return {"embeddings": [item(each, vector, **fields) for each in ids]}


# --- Uploads --------------------------------------------------------------------------------------
def test_of_many_uploads_of_one_id_exactly_one_wins(cast: Cast) -> None:
    for turn in range(ROUNDS):
        bodies = [batch([f"own-{turn}-{n}", f"same-{turn}"], text=str(n)) for n in range(THREADS)]
        answers = at_once([asking(cast.erin, "POST", LETTERS, body) for body in bodies])
        assert statuses(answers) == {201: 1, 409: THREADS - 1}
        (winner,) = [n for n, answer in enumerate(answers) if answer.status == 201]
        mine = rf"^(own-{turn}-\d+|same-{turn})$"
        left = Embedding.objects.filter(text_id__regex=mine).order_by("text_id")
        assert [(row.text_id, row.text) for row in left] == [
            (f"own-{turn}-{winner}", str(winner)),
            (f"same-{turn}", str(winner)),
        ]


def test_crossing_batches_wait_for_each_other_and_never_deadlock(cast: Cast) -> None:
    for turn in range(ROUNDS):
        shared = [f"{turn}-{n:02}" for n in range(60)]
        jobs = []
        for n in range(THREADS):
            order = shared if n % 2 else shared[::-1]
            jobs.append(asking(cast.erin, "POST", LETTERS, batch([*order[n:], *order[:n]])))
        assert statuses(at_once(jobs)) == {201: 1, 409: THREADS - 1}
        assert Embedding.objects.filter(text_id__startswith=f"{turn}-").count() == 60


def test_writers_of_every_kind_never_deadlock(cast: Cast) -> None:
    ids = [f"t{n:02}" for n in range(30)]
    for _ in range(ROUNDS):
        kinds = [
            asking(cast.erin, "POST", LETTERS, batch(ids)),
            asking(cast.alice, "POST", LETTERS, batch(ids[::-1])),
            asking(cast.erin, "PUT", f"{LETTERS}/t07", item("t07", [3, 2, 1])),
            asking(cast.erin, "DELETE", LETTERS),
            asking(cast.alice, "DELETE", f"{LETTERS}/t07"),
            asking(cast.alice, "PATCH", PROJECT, {"description": "changed"}),
        ]
        found = statuses(at_once(kinds * 2))
        assert found.keys() <= {200, 201, 404, 409}


def test_readers_see_all_of_a_batch_or_nothing(cast: Cast) -> None:
    is_over = threading.Event()

    def write(number: int) -> list[int]:
        seen = []
        for turn in range(2 * ROUNDS):
            ids = [f"{number}-{turn}-{n}" for n in range(60)]
            seen.append(Caller(cast.erin.key).post(LETTERS, batch(ids)).status)
        if number == 0:
            is_over.set()
        return seen

    def read() -> list[int]:
        caller, seen = Caller(cast.rita.key), []
        while not is_over.is_set():
            seen.append(caller.get(f"{LETTERS}?limit=1")["total_count"])
            found = caller.post(f"{SIMILARS}?count=200", {"vector": [1, 2, 3]})
            ids = Counter(hit["id"].rsplit("-", 1)[0] for hit in found["results"])
            # Two hundred hits cut the last batch of the ranking.
            assert all(n == 60 for n in list(ids.values())[:-1])
        return seen

    jobs: list[Callable[[], list[int]]] = [read] * 10
    results = at_once([*jobs, lambda: write(0), lambda: write(1)])
    for counts in results[:10]:
        assert all(count % 60 == 0 for count in counts), counts
        assert counts == sorted(counts), "a reader went back in time"
    assert set(results[10] + results[11]) == {201}
    assert cast.rita.get(LETTERS)["total_count"] == 4 * ROUNDS * 60


def test_an_embedding_is_always_of_one_writer(cast: Cast) -> None:
    def put(n: int) -> Callable[[], Answer]:
        body = item("one", [n + 1, 1, 1], text=str(n), metadata={"n": n})
        return asking(cast.erin, "PUT", f"{LETTERS}/one", body)

    for _ in range(ROUNDS):
        cast.alice.delete(LETTERS)
        answers = at_once([put(n) for n in range(THREADS)])
        assert statuses(answers) == {201: 1, 200: THREADS - 1}
        for answer in [*answers, cast.rita.get(f"{LETTERS}/one")]:
            n = answer["metadata"]["n"]
            assert (answer["text"], answer["vector"]) == (str(n), [n + 1, 1, 1])


# --- Projects -------------------------------------------------------------------------------------
def test_two_default_projects_never_exist(cast: Cast) -> None:
    for turn in range(ROUNDS):
        Project.objects.filter(owner__handle="sam").delete()
        jobs: list[Callable[[], object]] = []
        for n in range(THREADS // 2):
            body = {
                "project_handle": f"new-{turn}-{n}",
                "instance_owner": "_system",
                "instance_handle": "builtin",
            }
            jobs.append(asking(cast.sam, "POST", "/v1/projects/sam", body))
            jobs.append(lambda: ensure_default_project(stored("sam")))
        answers = [each for each in at_once(jobs) if isinstance(each, Answer)]
        assert statuses(answers) == {201: THREADS // 2}
        assert Project.objects.filter(owner__handle="sam", handle="default").count() == 1
        assert Project.objects.filter(owner__handle="sam").count() == THREADS // 2 + 1


def test_of_many_casings_of_a_handle_exactly_one_wins(cast: Cast) -> None:
    for turn in range(ROUNDS):
        name = f"many-{turn}"
        casings = ["".join(c) for c in itertools.product(*((c, c.upper()) for c in "many"))]
        jobs = []
        for n, casing in enumerate(casings[:THREADS]):
            body = {"instance_owner": "alice", "instance_handle": "model"}
            handle = f"{casing}-{turn}"
            if n % 2:
                jobs.append(asking(cast.alice, "PUT", f"/v1/projects/alice/{handle}", body))
            else:
                body["project_handle"] = handle
                jobs.append(asking(cast.alice, "POST", "/v1/projects/alice", body))
        assert statuses(at_once(jobs)) == {201: 1, 409: THREADS - 1}
        assert Project.objects.filter(handle__iexact=name).count() == 1


def test_of_many_transfers_exactly_one_wins(cast: Cast) -> None:
    for turn in range(ROUNDS):
        make_project("alice", f"gift-{turn}", editors=["erin"])
        path = f"/v1/projects/alice/gift-{turn}"
        ids = [f"t{n}" for n in range(5)]
        cast.alice.post(f"/v1/embeddings/alice/gift-{turn}", batch(ids))
        targets = [make_user(f"heir-{turn}-{n}") for n in range(THREADS)]
        jobs = [
            asking(cast.alice, "POST", f"{path}/transfer-ownership", {"new_owner_handle": t.handle})
            for t in targets
        ]
        answers = at_once(jobs)
        found = statuses(answers)
        assert found[200] == 1
        assert found.keys() <= {200, 404}
        (winner,) = [t for t, answer in zip(targets, answers, strict=True) if answer.status == 200]
        project = Project.objects.get(handle=f"gift-{turn}")
        assert project.owner.handle == winner.handle
        assert [share.user.handle for share in ProjectShare.of(project)] == ["erin"]
        moved = winner.get(f"/v1/embeddings/{winner.handle}/gift-{turn}")
        assert [row["text_id"] for row in moved["embeddings"]] == ids
        assert cast.alice.get(path).status == 404


def test_an_upload_during_a_transfer_is_in_the_moved_project_or_refused(cast: Cast) -> None:
    for turn in range(ROUNDS):
        make_project("alice", f"gift-{turn}", editors=["erin"])
        old, new = f"embeddings/alice/gift-{turn}", f"embeddings/sam/gift-{turn}"
        jobs = [
            asking(cast.erin if n % 2 else cast.alice, "POST", f"/v1/{old}", batch([f"t{n:02}"]))
            for n in range(THREADS - 1)
        ]
        move = {"new_owner_handle": "sam"}
        path = f"/v1/projects/alice/gift-{turn}/transfer-ownership"
        *uploads, transfer = at_once([*jobs, asking(cast.alice, "POST", path, move)])
        assert transfer.status == 200
        assert statuses(uploads).keys() <= {201, 404}
        stored_ids = [f"t{n:02}" for n, each in enumerate(uploads) if each.status == 201]
        moved = cast.sam.get(f"/v1/{new}?limit=200")
        assert [row["text_id"] for row in moved["embeddings"]] == stored_ids
        assert cast.erin.get(f"/v1/{new}").status == 200


def test_a_transfer_onto_a_handle_that_is_being_made_leaves_one_of_each(cast: Cast) -> None:
    make_instance("sam", "model")
    for turn in range(3 * ROUNDS):
        make_project("alice", f"gift-{turn}")
        body = {
            "project_handle": f"Gift-{turn}",
            "instance_owner": "sam",
            "instance_handle": "model",
        }
        path = f"/v1/projects/alice/gift-{turn}/transfer-ownership"
        answers = at_once(
            [
                asking(cast.sam, "POST", "/v1/projects/sam", body),
                asking(cast.alice, "POST", path, {"new_owner_handle": "sam"}),
            ]
        )
        found = statuses(answers)
        assert found in ({201: 1, 409: 1}, {409: 1, 200: 1})
        owned = Project.objects.filter(handle__iexact=f"gift-{turn}", owner__handle="sam")
        assert owned.count() == 1


@pytest.mark.parametrize("who", ["sam", "bob"])
def test_a_transfer_while_either_account_is_deleted_leaves_no_orphan(cast: Cast, who: str) -> None:
    for turn in range(4 * ROUNDS):
        bob, sam = f"bob-{turn}", f"sam-{turn}"
        people = {"bob": make_user(bob), "sam": make_user(sam)}
        builtin = {"instance_owner": "_system", "instance_handle": "builtin"}
        body = {"project_handle": "gift", **builtin}
        assert people["bob"].post(f"/v1/projects/{bob}", body).status == 201
        gone = people[who].handle
        move, delete = at_once(
            [
                asking(
                    people["bob"],
                    "POST",
                    f"/v1/projects/{bob}/gift/transfer-ownership",
                    {"new_owner_handle": sam},
                ),
                asking(cast.ada, "DELETE", f"/v1/users/{gone}"),
            ]
        )
        statuses([move, delete])
        assert delete.status == 200
        owner = {"bob": sam, "sam": bob}[who]
        left = Project.objects.filter(handle="gift", owner__handle=owner).count()
        # A transfer that was acknowledged before bob's deletion saves the project; one to sam ends
        # with sam's.
        assert left == (move.status == 200 if who == "bob" else move.status != 200)
        assert not Project.objects.filter(owner__handle=gone).exists()


# --- Deletion -------------------------------------------------------------------------------------
@pytest.mark.parametrize("what", ["/v1/projects/alice/letters", "/v1/users/alice"])
def test_deletion_wins_over_uploads(cast: Cast, what: str) -> None:
    for _ in range(ROUNDS):
        jobs = [
            asking(cast.erin, "POST", LETTERS, batch([f"{n}-{each}" for each in range(50)]))
            for n in range(THREADS - 1)
        ]
        *uploads, delete = at_once([*jobs, asking(cast.ada, "DELETE", what)])
        assert delete.status == 200
        assert statuses(uploads).keys() <= {201, 404}
        assert not Embedding.objects.exists()
        assert not ProjectShare.objects.exists()
        if what.endswith("users/alice"):
            make_user("alice")
            make_instance("alice", "model")
        make_project("alice", "letters", editors=["erin"])
        assert cast.erin.get(LETTERS)["total_count"] == 0


def test_a_project_never_hangs_on_an_instance_that_was_deleted(cast: Cast) -> None:
    for turn in range(2 * ROUNDS):
        make_instance("alice", f"gone-{turn}")
        make = [
            asking(
                cast.alice,
                "POST",
                "/v1/projects/alice",
                {
                    "project_handle": f"p-{turn}-{n}",
                    "instance_owner": "alice",
                    "instance_handle": f"gone-{turn}",
                },
            )
            for n in range(3)
        ]
        switch = asking(cast.alice, "PATCH", PROJECT, {"instance_handle": f"gone-{turn}"})
        delete = asking(cast.alice, "DELETE", f"/v1/llm-services/alice/gone-{turn}")
        *others, deleted = at_once([*make, switch, delete])
        statuses([*others, deleted])
        used = Project.objects.filter(instance__handle=f"gone-{turn}").count()
        kept = sum(each.status in {200, 201} for each in others)
        assert used == kept
        assert deleted.status == (409 if used else 200)
        assert cast.alice.get(PROJECT).status == 200
        back = cast.alice.patch(PROJECT, {"instance_handle": "model"})
        assert back.status == 200


def test_making_and_sharing_while_an_account_is_deleted_is_answered(cast: Cast) -> None:
    for turn in range(4 * ROUNDS):
        owner = make_user(f"owner-{turn}")
        builtin = {"instance_owner": "_system", "instance_handle": "builtin"}
        path = f"/v1/projects/{owner.handle}"
        assert owner.post(path, {"project_handle": "first", **builtin}).status == 201
        share = {"share_with_handle": owner.handle, "role": "reader"}
        grants = {"shared_with": [{"user_handle": owner.handle, "role": "editor"}]}
        answers = at_once(
            [
                asking(cast.ada, "DELETE", f"/v1/users/{owner.handle}"),
                asking(cast.ada, "POST", path, {"project_handle": "second", **builtin}),
                asking(cast.ada, "PUT", f"{path}/third", builtin),
                asking(
                    cast.ada,
                    "POST",
                    f"{path}/first/share",
                    {"share_with_handle": "sam", "role": "editor"},
                ),
                asking(cast.alice, "POST", f"{PROJECT}/share", share),
                asking(cast.alice, "PATCH", PROJECT, grants),
            ]
        )
        statuses(answers)
        if answers[0].status == 409:
            # Something new hung on the account when its deletion was about to be committed.
            assert cast.ada.delete(f"/v1/users/{owner.handle}").status == 200
        assert not Project.objects.filter(owner__handle=owner.handle).exists()
        assert owner.handle not in [share.user.handle for share in ProjectShare.of(cast.project)]
        cast.alice.patch(PROJECT, {"shared_with": [{"user_handle": "erin", "role": "editor"}]})


# --- Dimensions -----------------------------------------------------------------------------------
def test_a_project_never_holds_rows_of_two_sizes(cast: Cast) -> None:
    for turn in range(2 * ROUNDS):
        make_instance("alice", f"sized-{turn}", dimensions=3)
        make_project("alice", f"sized-{turn}", instance=f"sized-{turn}")
        path = f"/v1/embeddings/alice/sized-{turn}"
        instance = f"/v1/llm-services/alice/sized-{turn}"
        jobs = []
        for n in range(THREADS - 2):
            vector = [1, 2, 3] if n % 2 else [1, 2, 3, 4]
            body = batch([f"t{n}"], vector, instance_handle=f"sized-{turn}")
            jobs.append(asking(cast.alice, "POST", path, body))
        jobs += [asking(cast.alice, "PATCH", instance, {"dimensions": size}) for size in (4, 3)]
        answers = at_once(jobs)
        statuses(answers)
        assert {each.status for each in answers[:-2]} <= {201, 400, 409}
        assert {each.status for each in answers[-2:]} <= {200, 409}
        size = cast.alice.get(instance)["dimensions"]
        rows = cast.alice.get(f"{path}?limit=200")["embeddings"]
        assert {row["vector_dim"] for row in rows} <= {size}
        assert len(rows) == sum(each.status == 201 for each in answers[:-2])


def test_a_project_never_moves_to_an_instance_that_changes_its_size(cast: Cast) -> None:
    assert cast.alice.post(LETTERS, batch(["kept"])).status == 201
    for turn in range(4 * ROUNDS):
        make_instance("alice", f"next-{turn}", dimensions=3)
        switch, change = at_once(
            [
                asking(cast.alice, "PATCH", PROJECT, {"instance_handle": f"next-{turn}"}),
                asking(
                    cast.alice, "PATCH", f"/v1/llm-services/alice/next-{turn}", {"dimensions": 4}
                ),
            ]
        )
        assert statuses([switch, change]) == {200: 1, 409: 1}
        project = Project.objects.select_related("instance").get(pk=cast.project.pk)
        assert project.instance.dimensions == 3


def test_uploads_go_on_while_the_project_moves_to_a_like_instance(cast: Cast) -> None:
    make_instance("alice", "twin")
    for turn in range(ROUNDS):
        jobs = [
            asking(
                cast.erin,
                "POST",
                LETTERS,
                batch([f"{turn}-{n}"], instance_handle="twin" if (n + turn) % 2 else "model"),
            )
            for n in range(THREADS - 1)
        ]
        to = "model" if turn % 2 else "twin"
        *uploads, moved = at_once(
            [*jobs, asking(cast.alice, "PATCH", PROJECT, {"instance_handle": to})]
        )
        assert moved.status == 200
        # The item names the instance, so an upload may have come too early or too late for it.
        assert statuses(uploads).keys() <= {201, 400, 409}
        assert Embedding.objects.filter(text_id__startswith=f"{turn}-").count() == sum(
            each.status == 201 for each in uploads
        )


# --- Revocation -----------------------------------------------------------------------------------
def polling(ask: Callable[[], Answer], change: Callable[[], Answer]) -> list[int]:
    """Ask on many threads until three answers each began after the change was acknowledged.

    Return the statuses of those that began late.
    """
    is_changed = threading.Event()

    def poll() -> list[int]:
        late: list[int] = []
        while len(late) < 3:
            began_late = is_changed.is_set()
            status = ask().status
            assert status < 500
            if began_late:
                late.append(status)
        return late

    def end() -> list[int]:
        try:
            answer = change()
        finally:
            is_changed.set()
        assert answer.status == 200, answer.body
        return []

    jobs: list[Callable[[], list[int]]] = [poll] * (THREADS - 1)
    return [status for late in at_once([*jobs, end]) for status in late]


UNPUBLISH = ("PATCH", PROJECT, {"public_read": False})
READ = ("GET", LETTERS, None)
SEARCH = ("POST", SIMILARS, {"vector": [1, 2, 3]})
PUT = ("PUT", f"{LETTERS}/one", item("one", [1, 2, 3]))
MOVE = ("POST", f"{PROJECT}/transfer-ownership", {"new_owner_handle": "sam"})


@pytest.mark.parametrize(
    ("role", "request_", "change", "refused"),
    [
        ("reader", READ, ("DELETE", f"{PROJECT}/share/rita", None), 403),
        ("editor", PUT, ("DELETE", f"{PROJECT}/share/erin", None), 403),
        ("editor", PUT, ("PATCH", PROJECT, {"shared_with": []}), 403),
        ("anonymous", SEARCH, UNPUBLISH, 401),
        ("reader", SEARCH, ("DELETE", PROJECT, None), 404),
        ("editor", PUT, ("DELETE", PROJECT, None), 404),
        ("owner", PUT, MOVE, 404),
    ],
    ids=[
        "unshare",
        "unshare an editor",
        "empty list",
        "unpublish",
        "delete",
        "delete, writing",
        "transfer",
    ],
)
def test_no_request_that_begins_after_a_revocation_is_let_in_and_none_delays_it(
    cast: Cast, role: str, request_: Any, change: Any, refused: int
) -> None:
    cast.alice.patch(PROJECT, {"public_read": role == "anonymous"})
    late = polling(asking(cast.with_role(role), *request_), asking(cast.alice, *change))
    assert set(late) == {refused}


def test_uploads_without_a_break_do_not_keep_the_owner_from_changing_rules(cast: Cast) -> None:
    numbers = itertools.count()

    def upload() -> Answer:
        return Caller(cast.erin.key).post(LETTERS, batch([f"t{next(numbers)}"], metadata={"n": 1}))

    schema = {"properties": {"n": {"type": "string"}}, "required": ["n"]}
    late = polling(upload, asking(cast.alice, "PATCH", PROJECT, {"metadataScheme": schema}))
    assert set(late) == {400}


# --- One after the other --------------------------------------------------------------------------
UPLOAD = ("POST", LETTERS, batch(["new"]))


@pytest.mark.parametrize(
    ("changes", "status", "detail"),
    [
        ({"instance_handle": "twin"}, 409, "has just changed its LLM service; try again."),
        ({"instance_handle": "wide"}, 409, "has just changed its LLM service; try again."),
        ({"metadataScheme": {"required": ["author"]}}, 400, "author is required"),
        ({"instance_handle": "model"}, 201, None),
    ],
    ids=["a like instance", "a wider instance", "a schema", "nothing"],
)
def test_an_upload_meets_the_rules_that_are_committed_while_it_waits(
    cast: Cast, changes: dict[str, Any], status: int, detail: str | None
) -> None:
    make_instance("alice", "twin")
    make_instance("alice", "wide", dimensions=4)

    def change() -> None:
        update_project(actor=BOOTSTRAP_ADMIN, owner="alice", handle="letters", changes=changes)

    answer = while_waiting(change, asking(cast.erin, *UPLOAD))
    assert answer.status == status, answer.body
    assert detail is None or detail in answer["detail"]
    assert Embedding.objects.count() == (status == 201)


def test_an_upload_that_waits_for_a_transfer_is_refused(cast: Cast) -> None:
    def change() -> None:
        transfer_project(actor=BOOTSTRAP_ADMIN, owner="alice", handle="letters", new_owner="sam")

    for caller in (cast.erin, cast.alice):
        Project.objects.filter(handle="letters").update(owner=stored("alice"))
        answer = while_waiting(change, asking(caller, *UPLOAD))
        assert answer.status == 404
    assert not Embedding.objects.exists()


def test_an_upload_that_waits_for_a_deletion_is_refused(cast: Cast) -> None:
    def change() -> None:
        delete_project(actor=BOOTSTRAP_ADMIN, owner="alice", handle="letters")

    assert while_waiting(change, asking(cast.erin, *UPLOAD)).status == 404
    assert not Embedding.objects.exists()

"""What was remembered about who may search is believed no longer than it is true.

Each change is committed, as requests do it: versions of rows are those of transactions.
"""

import json as stdlib_json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import services as accounts
from accounts.models import ApiKey, Role
from accounts.policy import BOOTSTRAP_ADMIN
from tests.factories import Answer, Caller, Cast, item, make_instance, make_project, stored

pytestmark = [
    pytest.mark.django_db(transaction=True, serialized_rollback=True),
    pytest.mark.slow,
]

LETTERS = "/v1/projects/alice/letters"
SIMILARS = "/v1/similars/alice/letters"
VECTOR = {"vector": [1, 2, 3]}

Change = Callable[[Cast], object]


@pytest.fixture
def filled(cast: Cast) -> Cast:
    """Return the cast, with two texts in Alice's project."""
    items = {"embeddings": [item("a", [1, 2, 3]), item("b", [1, 2, 4])]}
    assert cast.alice.post("/v1/embeddings/alice/letters", items).status == 201
    return cast


def by_text(caller: Caller, path: str = SIMILARS) -> Answer:
    return caller.get(f"{path}/a")


def by_vector(caller: Caller, path: str = SIMILARS, body: Any = VECTOR) -> Answer:
    return caller.post(path, body)


SEARCHES: list[Callable[[Caller], Answer]] = [by_text, by_vector]


def warm_up(caller: Caller) -> None:
    """Search until access is remembered, and prove that it is."""
    for search in SEARCHES:
        # The first use of a key is written down, which makes another version of its row.
        for _ in range(3):
            assert search(caller).status == 200
        assert_remembered(search, caller)


def assert_remembered(search: Callable[[Caller], Answer], caller: Caller) -> None:
    with CaptureQueriesContext(connection) as captured:
        answer = search(caller)
    assert answer.status == 200
    (ranking,) = (each["sql"] for each in captured.captured_queries)
    assert "<=>" in ranking


def key_of(handle: str) -> Any:
    return ApiKey.objects.filter(user__handle=handle)


def publish(cast: Cast, *, public: bool) -> None:
    assert cast.alice.patch(LETTERS, {"public_read": public}).status == 200


def share(cast: Cast, handle: str) -> None:
    granted = {"share_with_handle": handle, "role": "reader"}
    assert cast.alice.post(f"{LETTERS}/share", granted).status == 201


def replace_project(cast: Cast) -> None:
    assert cast.alice.delete(LETTERS).status == 200
    make_project("alice", "letters")


def with_raw_sql(cast: Cast) -> None:
    """Revoke a key as another program would."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE accounts_apikey SET revoked_at = now() FROM accounts_user AS account"
            " WHERE account.id = user_id AND account.handle = 'rita'"
        )


def set_access(handle: str, **changes: bool) -> None:
    accounts.set_access(actor=BOOTSTRAP_ADMIN, handle=handle, changes=changes)


def demote(cast: Cast) -> None:
    """Take Ada's rights; there has to be another administrator."""
    set_access("sam", is_superuser=True)
    set_access("ada", is_superuser=False)


TRANSFER = {"new_owner_handle": "sam"}
YESTERDAY = timedelta(days=1)
REVOCATIONS: dict[str, tuple[str, Change, int]] = {
    "key revoked": ("reader", lambda cast: accounts.revoke_keys(key_of("rita")), 401),
    "key revoked in SQL": ("reader", with_raw_sql, 401),
    "key deleted": ("reader", lambda cast: accounts.delete_keys(key_of("rita")), 401),
    "key made to expire": (
        "reader",
        lambda cast: key_of("rita").update(expires_at=timezone.now() - YESTERDAY),
        401,
    ),
    "key capped to another project": (
        "reader",
        lambda cast: key_of("rita").update(project=make_project("alice", "other")),
        403,
    ),
    "account deactivated": ("reader", lambda cast: set_access("rita", is_active=False), 401),
    "account deleted": ("reader", lambda cast: cast.ada.delete("/v1/users/rita"), 401),
    "share removed": ("reader", lambda cast: cast.alice.delete(f"{LETTERS}/share/rita"), 403),
    "share of an editor removed": (
        "editor",
        lambda cast: cast.alice.delete(f"{LETTERS}/share/erin"),
        403,
    ),
    "all shares replaced": (
        "reader",
        lambda cast: cast.alice.put(LETTERS, {"instance_handle": "model", "shared_with": []}),
        403,
    ),
    "administrator no longer": ("admin", demote, 403),
    "project deleted": ("reader", lambda cast: cast.alice.delete(LETTERS), 404),
    "project deleted by its owner": ("owner", lambda cast: cast.alice.delete(LETTERS), 404),
    "project replaced by another": ("reader", replace_project, 403),
    "project transferred": (
        "owner",
        lambda cast: cast.alice.post(f"{LETTERS}/transfer-ownership", TRANSFER),
        404,
    ),
}


@pytest.mark.parametrize(
    ("role", "revoke", "status"), list(REVOCATIONS.values()), ids=list(REVOCATIONS)
)
def test_what_is_revoked_is_refused_by_the_very_next_search(
    filled: Cast, role: str, revoke: Change, status: int
) -> None:
    caller, others = filled.with_role(role), filled.with_role("admin")
    warm_up(caller)
    warm_up(others)
    revoke(filled)
    for search in SEARCHES:
        assert search(caller).status == status
        # A refusal does not make the next one forget.
        assert search(caller).status == status


@pytest.mark.parametrize(("role", "status"), [("anonymous", 401), ("stranger", 403)])
def test_a_project_that_is_public_no_longer_is_refused_at_once(
    filled: Cast, role: str, status: int
) -> None:
    publish(filled, public=True)
    caller = filled.with_role(role)
    warm_up(caller)
    publish(filled, public=False)
    assert [search(caller).status for search in SEARCHES] == [status, status]
    publish(filled, public=True)
    assert [search(caller).status for search in SEARCHES] == [200, 200]


def test_a_key_expires_when_its_time_has_come(
    filled: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    expires_at = timezone.now() + timedelta(hours=1)
    rita = Caller(accounts.create_key(user=stored("rita"), expires_at=expires_at))
    warm_up(rita)
    monkeypatch.setattr(timezone, "now", lambda: expires_at - timedelta(seconds=1))
    assert by_text(rita).status == 200
    monkeypatch.setattr(timezone, "now", lambda: expires_at)
    assert [search(rita).status for search in SEARCHES] == [401, 401]


def test_a_key_that_is_capped_to_this_project_goes_with_it(filled: Cast) -> None:
    key = accounts.create_key(user=stored("alice"), project_id=filled.project.pk)
    capped = Caller(key)
    warm_up(capped)
    moved = filled.alice.post(f"{LETTERS}/transfer-ownership", TRANSFER)
    assert moved.status == 200
    assert by_text(capped).status == 401
    assert by_text(capped, "/v1/similars/sam/letters").status == 401


def test_a_transferred_project_is_found_at_its_new_address_by_those_it_is_shared_with(
    filled: Cast,
) -> None:
    warm_up(filled.rita)
    warm_up(filled.alice)
    assert filled.alice.post(f"{LETTERS}/transfer-ownership", TRANSFER).status == 200
    assert by_text(filled.rita).status == 404
    for search in (by_text, by_vector):
        found = search(filled.rita, "/v1/similars/sam/letters")
        assert (found.status, found["user_handle"]) == (200, "sam")
        assert search(filled.alice, "/v1/similars/sam/letters").status == 403
    share_back = {"share_with_handle": "alice", "role": "reader"}
    shared = filled.sam.post("/v1/projects/sam/letters/share", share_back)
    assert shared.status == 201
    assert by_text(filled.alice, "/v1/similars/sam/letters").status == 200


def test_a_project_of_another_instance_wants_vectors_of_its_dimensions_at_once(
    cast: Cast,
) -> None:
    make_instance("alice", "wide", dimensions=4)
    for _ in range(3):
        assert by_vector(cast.rita).status == 200
    assert_remembered(by_vector, cast.rita)
    assert cast.alice.patch(LETTERS, {"instance_handle": "wide"}).status == 200
    refused = by_vector(cast.rita)
    assert refused.status == 400
    assert "expected 4 dimensions" in refused["detail"]
    assert by_vector(cast.rita, body={"vector": [1, 2, 3, 4]}).status == 200


def test_an_instance_of_other_dimensions_is_noticed_too(cast: Cast) -> None:
    for _ in range(3):
        assert by_vector(cast.rita).status == 200
    assert_remembered(by_vector, cast.rita)
    changed = cast.alice.patch("/v1/llm-services/alice/model", {"dimensions": 4})
    assert changed.status == 200
    assert by_vector(cast.rita).status == 400
    assert by_vector(cast.rita, body={"vector": [1, 2, 3, 4]}).status == 200


GRANTS: dict[str, tuple[str, Change, Change, int]] = {
    "share": ("stranger", lambda cast: None, lambda cast: share(cast, "sam"), 403),
    "share given back": (
        "reader",
        lambda cast: cast.alice.delete(f"{LETTERS}/share/rita"),
        lambda cast: share(cast, "rita"),
        403,
    ),
    "public": ("anonymous", lambda cast: None, lambda cast: publish(cast, public=True), 401),
    "account activated": (
        "reader",
        lambda cast: set_access("rita", is_active=False),
        lambda cast: set_access("rita", is_active=True),
        401,
    ),
    "administrator": (
        "stranger",
        lambda cast: None,
        lambda cast: set_access("sam", is_superuser=True),
        403,
    ),
    "project made again": (
        "owner",
        lambda cast: cast.alice.delete(LETTERS),
        lambda cast: make_project("alice", "letters"),
        404,
    ),
}


@pytest.mark.parametrize(
    ("role", "revoke", "grant", "refused"), list(GRANTS.values()), ids=list(GRANTS)
)
def test_what_is_granted_works_at_once(
    filled: Cast, role: str, revoke: Change, grant: Change, refused: int
) -> None:
    caller = filled.with_role(role)
    if by_vector(caller).status == 200:
        warm_up(caller)
    revoke(filled)
    assert by_vector(caller).status == refused
    grant(filled)
    assert by_vector(caller).status == 200


def test_a_change_that_takes_nothing_away_is_looked_up_and_remembered_again(filled: Cast) -> None:
    warm_up(filled.rita)
    assert filled.alice.patch(LETTERS, {"description": "New"}).status == 200
    with CaptureQueriesContext(connection) as captured:
        assert by_text(filled.rita).status == 200
    # The search that found out, the key, the project, and the search again.
    assert len(captured) == 1 + 2 + 1
    assert_remembered(by_text, filled.rita)


def test_the_role_of_a_share_may_change_without_a_refusal(filled: Cast) -> None:
    warm_up(filled.rita)
    editor = {"share_with_handle": "rita", "role": Role.EDITOR.value}
    assert filled.alice.post(f"{LETTERS}/share", editor).status == 201
    assert by_text(filled.rita).status == 200


# --- Uploads --------------------------------------------------------------------------------------
Upload = Callable[[Caller, str], Answer]


def upload_json(caller: Caller, text_id: str) -> Answer:
    return caller.post("/v1/embeddings/alice/letters", {"embeddings": [item(text_id, [1, 2, 3])]})


def upload_lines(caller: Caller, text_id: str) -> Answer:
    line = stdlib_json.dumps(item(text_id, [1, 2, 3])).encode()
    return caller.post(
        "/v1/embeddings/alice/letters", raw=line, content_type="application/x-ndjson"
    )


@pytest.fixture(params=[upload_json, upload_lines], ids=["json", "lines"])
def upload(request: pytest.FixtureRequest) -> Upload:
    kind: Upload = request.param
    return kind


def warm_up_uploads(upload: Upload, caller: Caller) -> None:
    """Upload until access is remembered, and prove that it is."""
    for number in range(3):
        assert upload(caller, f"warm-{number}").status == 201
    with CaptureQueriesContext(connection) as captured:
        assert upload(caller, "remembered").status == 201
    made = [each["sql"] for each in captured.captured_queries]
    assert not any("accounts_apikey" in each and "xmin" not in each for each in made), made


def lower(cast: Cast) -> None:
    """Make the editor a reader."""
    granted = {"share_with_handle": "erin", "role": Role.READER.value}
    assert cast.alice.post(f"{LETTERS}/share", granted).status == 201


UPLOAD_REVOCATIONS: dict[str, tuple[Change, int]] = {
    "key revoked": (lambda cast: accounts.revoke_keys(key_of("erin")), 401),
    "key deleted": (lambda cast: accounts.delete_keys(key_of("erin")), 401),
    "key made to expire": (
        lambda cast: key_of("erin").update(expires_at=timezone.now() - YESTERDAY),
        401,
    ),
    "key capped to reading": (lambda cast: key_of("erin").update(role_cap="reader"), 403),
    "account deactivated": (lambda cast: set_access("erin", is_active=False), 401),
    "share removed": (lambda cast: cast.alice.delete(f"{LETTERS}/share/erin"), 403),
    "editor made a reader": (lower, 403),
    "project deleted": (lambda cast: cast.alice.delete(LETTERS), 404),
    "project replaced by another": (replace_project, 403),
}


@pytest.mark.parametrize(
    ("revoke", "status"), list(UPLOAD_REVOCATIONS.values()), ids=list(UPLOAD_REVOCATIONS)
)
def test_what_is_revoked_is_refused_by_the_very_next_upload(
    filled: Cast, upload: Upload, revoke: Change, status: int
) -> None:
    warm_up_uploads(upload, filled.erin)
    revoke(filled)
    for _ in range(2):
        assert upload(filled.erin, "late").status == status
    if status != 404:
        assert filled.alice.get("/v1/embeddings/alice/letters/late").status == 404


def test_a_reader_who_searched_may_not_upload(filled: Cast, upload: Upload) -> None:
    warm_up(filled.rita)
    assert upload(filled.rita, "late").status == 403


def test_a_refused_upload_is_told_once_it_is_known_that_nothing_changed(
    filled: Cast, upload: Upload
) -> None:
    warm_up_uploads(upload, filled.erin)
    again = upload(filled.erin, "remembered")
    assert again.status == 409
    assert "remembered" in again["detail"]
    assert upload(filled.erin, "other").status == 201

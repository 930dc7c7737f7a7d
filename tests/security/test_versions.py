"""`ETag`, `If-Match` and `If-None-Match` on every single thing of both APIs."""

from collections.abc import Callable
from typing import Any

import pytest

from common.entity_tags import Tagged
from tests.answers import assert_refused, nothing_changes
from tests.contract.world import api_views, described_at, methods_of, own_views
from tests.factories import Answer, Caller, Cast, item
from tests.races import ROUNDS, THREADS, at_once, statuses
from tests.security.single_things import KINDS, Kind

every = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
OLD = '"0123456789abcdef0123456789abcdef"'
# What can be read and changed, and is no single thing with a content of its own.
ACTIONS = {
    "/v1/embeddings/{owner}/{project}",
    "/v1/projects/{owner}/{project}/index",
    "/v1/projects/{owner}/{project}/reembedding",
    "/v1/projects/{owner}/{project}/embedding-jobs/{id}",
}


def test_everything_single_has_versions() -> None:
    views = {**api_views(), **own_views()}
    changing = {
        template
        for template, view in views.items()
        if "GET" in methods_of(view) and methods_of(view) & {"PUT", "PATCH", "DELETE"}
    }
    tagged = {template for template, view in views.items() if issubclass(view, Tagged)}
    assert {described_at("PUT", each) for each in tagged} == {
        kind.template for kind in KINDS.values()
    }
    assert {described_at("PUT", each) for each in changing - tagged} == ACTIONS


# --- Reading --------------------------------------------------------------------------------------
@every
def test_who_has_the_present_version_is_told_so(cast: Cast, kind: Kind) -> None:
    asker = kind.asker(cast)
    address = kind.make(asker)
    answer = asker.get(address)
    tag = answer.headers["ETag"]
    assert tag.startswith('"')
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert asker.get(address).headers["ETag"] == tag
    assert asker.ask("HEAD", address).headers["ETag"] == tag
    for known in (tag, f"W/{tag}", f"{OLD}, {tag}", "*"):
        same = asker.get(address, headers={"If-None-Match": known})
        assert (same.status, same.content) == (304, b"")
        assert same.headers["ETag"] == tag
        assert "Content-Length" not in same.headers
    assert asker.get(address, headers={"If-None-Match": OLD}).body == answer.body


@every
def test_every_change_makes_another_version(cast: Cast, kind: Kind) -> None:
    asker = kind.asker(cast)
    address = kind.make(asker)
    seen = {asker.get(address).headers["ETag"]}
    for number in range(2):
        method, body = kind.variant(number)
        changed = asker.ask(method, address, body)
        assert changed.status == 200, changed.body
        tag = asker.get(address).headers["ETag"]
        assert changed.headers.get("ETag", tag) == tag
        assert tag not in seen
        seen.add(tag)


def test_a_version_tells_nothing_to_who_may_not_read(cast: Cast) -> None:
    tag = cast.alice.get("/v1/projects/alice/letters").headers["ETag"]
    for who in (cast.sam, cast.nobody):
        answer = who.get("/v1/projects/alice/letters", headers={"If-None-Match": tag})
        assert answer.status in {401, 403}
        assert "ETag" not in answer.headers


def test_what_is_uploaded_or_shared_changes_the_version_of_the_project(cast: Cast) -> None:
    address = "/v1/projects/alice/letters"
    first = cast.alice.get(address).headers["ETag"]
    cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": [item("a", [1, 0, 0])]})
    second = cast.alice.get(address).headers["ETag"]
    cast.alice.post(f"{address}/share", {"share_with_handle": "sam", "role": "reader"})
    assert len({first, second, cast.alice.get(address).headers["ETag"]}) == 3


# --- Changing -------------------------------------------------------------------------------------
@every
def test_another_version_is_412_and_nothing_changes(cast: Cast, kind: Kind) -> None:
    asker = kind.asker(cast)
    address = kind.make(asker)
    stale = asker.get(address).headers["ETag"]
    method, body = kind.variant(1)
    assert asker.ask(method, address, body).status == 200
    attempts: list[tuple[str, Any]] = [kind.variant(2), ("DELETE", None)]
    attempts += [("PUT", kind.whole)] if kind.whole is not None else []
    with nothing_changes():
        for method, body in attempts:
            for old in (stale, f"W/{asker.get(address).headers['ETag']}", OLD):
                answer = asker.ask(method, address, body, headers={"If-Match": old})
                assert answer.status == 412, (method, old, answer.body)
                shown = answer.body.get("error") or answer.body
                assert "get it again" in shown.get("detail", shown.get("message"))


@every
def test_the_present_version_is_changed(cast: Cast, kind: Kind) -> None:
    asker = kind.asker(cast)
    address = kind.make(asker)
    for number, condition in enumerate(["the tag", f"{OLD}, the tag", "*"]):
        tag = asker.get(address).headers["ETag"]
        method, body = kind.variant(number)
        sent = {"If-Match": condition.replace("the tag", tag)}
        answer = asker.ask(method, address, body, headers=sent)
        assert answer.status == 200, answer.body
        assert asker.get(address)[kind.vary] == f"variant {number}"
    if kind.template != "/v1/users/{user}":
        last = asker.get(address).headers["ETag"]
        assert asker.delete(address, headers={"If-Match": last}).status in {200, 202}
        assert asker.get(address).status == 404


@every
def test_where_there_is_nothing(cast: Cast, kind: Kind) -> None:
    asker = kind.asker(cast)
    address = kind.make(asker)
    tag = asker.get(address).headers["ETag"]
    if kind.template == "/v1/users/{user}":
        address, asker = "/v1/users/nobody", cast.ada
    else:
        assert asker.delete(address).status in {200, 202}
    for condition in (tag, "*"):
        sent = {"If-Match": condition}
        method, body = kind.variant(1)
        if kind.whole is not None:
            assert asker.put(address, kind.whole, headers=sent).status == 412
        if method == "PATCH":
            assert asker.ask(method, address, body, headers=sent).status == 404
        assert asker.delete(address, headers=sent).status == 404
        assert asker.get(address).status == 404


@pytest.mark.parametrize("name", ["embedding", "standard", "definition", "instance", "project"])
def test_only_if_there_is_nothing_yet(cast: Cast, name: str) -> None:
    kind = KINDS[name]
    asker = kind.asker(cast)
    address = kind.make(asker)
    sent = {"If-None-Match": "*"}
    with nothing_changes():
        answer = asker.put(address, kind.whole, headers=sent)
        assert_refused(answer, 412, says="something at this address already")
    assert asker.delete(address).status == 200
    assert asker.put(address, kind.whole, headers=sent).status == 201


def test_an_id_of_the_callers_choice_only_if_it_is_new(cast: Cast) -> None:
    address = "/agents/0198b5a4-2f6e-7cc1-9d53-6f0d4f9d2b10"
    sent = {"If-None-Match": "*"}
    assert cast.alice.post(address, {"name": "first"}, headers=sent).status == 201
    answer = cast.alice.post(address, {"name": "second"}, headers=sent)
    assert (answer.status, answer["error"]["code"]) == (412, "precondition_failed")
    assert cast.alice.get(address)["name"] == "first"


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("PATCH", {"If-Match": "no quotation marks"}),
        ("PATCH", {"If-Match": ""}),
        ("PATCH", {"If-None-Match": OLD}),
        ("GET", {"If-None-Match": "no quotation marks"}),
    ],
)
def test_a_condition_that_means_nothing_is_400(
    cast: Cast, method: str, headers: dict[str, str]
) -> None:
    body = None if method == "GET" else {"description": "new"}
    with nothing_changes():
        answer = cast.alice.ask(method, "/v1/projects/alice/letters", body, headers=headers)
        assert_refused(answer, 400, location=f"header.{next(iter(headers))}")


@pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
def test_a_condition_is_never_ignored(cast: Cast, name: str) -> None:
    with nothing_changes():
        for method, path in [
            ("POST", "/v1/projects/alice"),
            ("DELETE", "/v1/embeddings/alice/letters"),
            ("POST", "/v1/projects/alice/letters/transfer-ownership"),
        ]:
            answer = cast.alice.ask(method, path, {}, headers={name: OLD})
            assert_refused(answer, 400, location=f"header.{name}")


def test_who_may_not_change_it_learns_nothing_of_its_version(cast: Cast) -> None:
    tag = cast.alice.get("/v1/projects/alice/letters").headers["ETag"]
    for condition in (tag, OLD, "*"):
        for who, status in ((cast.rita, 403), (cast.sam, 403), (cast.nobody, 401)):
            answer = who.patch("/v1/projects/alice/letters", {}, headers={"If-Match": condition})
            assert_refused(answer, status)


def _asking(
    asker: Caller, address: str, turn: tuple[str, Any], headers: dict[str, str]
) -> Callable[[], Answer]:
    method, body = turn
    return lambda: Caller(asker.key).ask(method, address, body, headers=headers)


# --- At the same moment ---------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.django_db(transaction=True, serialized_rollback=True)
@every
def test_of_many_changes_of_one_version_exactly_one_is_made(cast: Cast, kind: Kind) -> None:
    asker = kind.asker(cast)
    address = kind.make(asker)
    for _ in range(ROUNDS):
        sent = {"If-Match": asker.get(address).headers["ETag"]}
        turns = [kind.variant(number) for number in range(THREADS)]
        answers = at_once([_asking(asker, address, turn, sent) for turn in turns])
        assert statuses(answers) == {200: 1, 412: THREADS - 1}
        [winner] = [n for n, answer in enumerate(answers) if answer.status == 200]
        assert asker.get(address)[kind.vary] == f"variant {winner}"


@pytest.mark.slow
@pytest.mark.django_db(transaction=True, serialized_rollback=True)
@every
def test_conditional_and_other_changes_take_turns(cast: Cast, kind: Kind) -> None:
    """None fails but those whose version is gone, however they cross."""
    asker = kind.asker(cast)
    address = kind.make(asker)
    for _ in range(ROUNDS):
        sent = {"If-Match": asker.get(address).headers["ETag"]}
        turns = [kind.variant(number) for number in range(THREADS)]
        conditions = [sent if number % 2 else {} for number in range(THREADS)]
        pairs = zip(turns, conditions, strict=True)
        answers = at_once([_asking(asker, address, turn, each) for turn, each in pairs])
        found = statuses(answers)
        assert set(found) <= {200, 412}
        assert found[200] in {THREADS // 2, THREADS // 2 + 1}

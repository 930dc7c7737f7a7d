"""API keys: their shape, how they are stored and recognised, what a capped one may do."""

import hashlib
import re
import string
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries, Settings

from accounts import keys, services
from accounts.authentication import actor_for
from accounts.models import ApiKey, Role
from common.errors import Conflict, Invalid, Unauthenticated
from tests.answers import A_KEY, assert_refused, nothing_changes, state
from tests.factories import Caller, Cast, item, make_project, stored

HEX_KEY = "0123456789abcdef" * 4
ADMIN_KEY = "correct-horse-battery-staple-0123456789"
BASE62 = string.digits + string.ascii_letters


# --- The shape ------------------------------------------------------------------------------------
def test_a_new_key_has_a_prefix_a_public_id_256_bits_and_a_checksum() -> None:
    key, parts = keys.generate_key()
    assert re.fullmatch(r"arm_[0-9A-Za-z]{62}", key)
    assert key[4:16] == parts.public_id
    assert parts.digest == hashlib.sha256(key.encode()).digest()
    assert keys.parts_of(key) == parts
    # 44 characters out of 62 carry over 260 bits.
    assert keys.SECRET_LENGTH == 44


def test_two_new_keys_have_nothing_in_common() -> None:
    made = {keys.generate_key()[0][4:16] for _ in range(200)}
    assert len(made) == 200


# Made once: test names must be the same in every process.
KEY = "arm_VFYnFIdUcQmq2KOvgucgFmA04XQCkglaHSWIRPoVxv31K2wkTJE52vqU4XX1Ss"


@given(st.integers(4, len(KEY) - 1), st.sampled_from(BASE62))
def test_one_wrong_character_is_never_taken_for_a_key(position: int, character: str) -> None:
    typo = KEY[:position] + character + KEY[position + 1 :]
    assert (keys.parts_of(typo) is None) == (typo != KEY)


@given(st.integers(4, len(KEY) - 2))
def test_two_swapped_characters_are_never_taken_for_a_key(position: int) -> None:
    left, right = KEY[position], KEY[position + 1]
    typo = KEY[:position] + right + left + KEY[position + 2 :]
    assert (keys.parts_of(typo) is None) == (typo != KEY)


@given(st.text())
def test_arbitrary_text_is_no_key_and_no_error(text: str) -> None:
    assert keys.parts_of(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", KEY[:-1], f"{KEY}x", f"{KEY}\n", f" {KEY}", KEY.upper(), f"ARM_{KEY[4:]}"),
        *(HEX_KEY[:-1], f"{HEX_KEY}0", f"{HEX_KEY}\n", HEX_KEY.upper(), "g" * 64, "٣" * 64),
    ],
)
def test_what_only_looks_like_a_key_is_none(text: str) -> None:
    assert keys.parts_of(text) is None


def test_a_typo_is_refused_without_a_query() -> None:
    """This test may not use the database, so a query would fail it."""
    typo = KEY[:-1] + ("a" if KEY[-1] != "a" else "b")
    for wrong in (typo, "x", f'"{KEY}"', "arm_", HEX_KEY[:-1]):
        with pytest.raises(Unauthenticated):
            actor_for(wrong)


@pytest.mark.parametrize(
    ("given_key", "configured", "same"),
    [
        (ADMIN_KEY, ADMIN_KEY, True),
        (ADMIN_KEY[:-1], ADMIN_KEY, False),
        (f"{ADMIN_KEY}x", ADMIN_KEY, False),
        (ADMIN_KEY.upper(), ADMIN_KEY, False),
        ("", ADMIN_KEY, False),
        ("", "", False),
        ("x", "", False),
        ("clé-ünïcode", "clé-ünïcode", True),
    ],
)
def test_an_empty_configured_key_never_matches(given_key: str, configured: str, same: bool) -> None:
    assert keys.same_secret(given_key, configured) is same


# --- How it is stored -----------------------------------------------------------------------------
def test_only_the_hash_of_a_key_is_stored(cast: Cast) -> None:
    key = cast.ada.post("/v1/users", {"user_handle": "bob"})["api_key"]
    row = stored("bob").api_keys.get()
    assert bytes(row.digest) == hashlib.sha256(key.encode()).digest()
    assert row.public_id == key[4:16]
    secret = key[16:]
    assert secret not in repr(state())
    assert key not in repr(state())
    assert key not in str(row)


def test_keys_are_not_logged(cast: Cast, capfd: pytest.CaptureFixture[str], caplog: Any) -> None:
    key = cast.ada.post("/v1/users", {"user_handle": "bob"})["api_key"]
    typo = key[:-1] + ("a" if key[-1] != "a" else "b")
    assert Caller(key).get("/v1/users/bob").status == 200
    assert Caller(typo).get("/v1/users/bob").status == 401
    out, err = capfd.readouterr()
    logged = out + err + caplog.text
    assert "/v1/users/bob" in logged
    for secret in (key, typo, bytes(stored("bob").api_keys.get().digest).hex()):
        assert secret not in logged
        assert secret[16:40] not in logged


def test_the_last_use_of_a_key_is_noted_at_most_once_a_minute(
    cast: Cast, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    key = stored("alice").api_keys.get()
    services.note_key_use(key)
    noted = stored("alice").api_keys.get()
    assert noted.last_used_at is not None
    with django_assert_num_queries(0):
        services.note_key_use(noted)
    ApiKey.objects.update(last_used_at=timezone.now() - timedelta(minutes=2))
    services.note_key_use(stored("alice").api_keys.get())
    again = stored("alice").api_keys.get().last_used_at
    assert again is not None
    assert again > noted.last_used_at


# --- The only credential --------------------------------------------------------------------------
NOT_BEARER = {
    "bare key": "{key}",
    "another scheme": "Basic {key}",
    "token scheme": "Token {key}",
    "quoted key": 'Bearer "{key}"',
    "single quotes": "Bearer '{key}'",
    "no key": "Bearer",
    "empty key": "Bearer ",
    "two spaces": "Bearer  {key}",
    "tab": "Bearer\t{key}",
    "two keys": "Bearer {key} {key}",
    "two headers, joined": "Bearer {key}, Bearer {key}",
    "trailing comma": "Bearer {key},",
    "twice bearer": "Bearer Bearer {key}",
    "not ascii": "Bearer {key}é",
    "control character": "Bearer {key}\x01",
    "empty": "",
    "comma": ",",
    "very long": "Bearer " + "a" * 20_000,
}


def test_nothing_but_a_bearer_key_is_a_credential(cast: Cast) -> None:
    key = cast.alice.key
    with nothing_changes():
        for header in NOT_BEARER.values():
            sent = {"Authorization": header.format(key=key)}
            assert_refused(cast.nobody.get("/v1/users/alice", headers=sent), 401)
            assert_refused(cast.nobody.delete("/v1/users/alice", headers=sent), 401)
    good = {"Authorization": f"Bearer {key}"}
    assert cast.nobody.get("/v1/users/alice", headers=good).status == 200


def test_the_scheme_is_read_without_regard_to_case(cast: Cast) -> None:
    for scheme in ("bearer", "BEARER"):
        sent = {"Authorization": f"{scheme} {cast.alice.key}"}
        assert cast.nobody.get("/v1/users/alice", headers=sent).status == 200


def test_a_key_elsewhere_than_in_its_header_is_nothing(cast: Cast) -> None:
    key = cast.ada.key
    for name in ("api_key", "key", "access_token", "embapi_key"):
        assert_refused(cast.nobody.get(f"/v1/users?{name}={key}"), 401)
    for header in ("X-API-Key", "Api-Key", "X-Authorization", "Proxy-Authorization", "Cookie"):
        assert_refused(cast.nobody.get("/v1/users", headers={header: f"Bearer {key}"}), 401)
    for header in ("X-Forwarded-User", "Remote-User", "X-Remote-User", "X-User"):
        assert_refused(cast.nobody.get("/v1/users", headers={header: "ada"}), 401)
    body = {"user_handle": "bob", "api_key": key, "embapi_key": key}
    with nothing_changes():
        assert_refused(cast.nobody.post("/v1/users", body), 401)


def test_the_api_accepts_no_session(cast: Cast) -> None:
    cast.nobody.client.force_login(stored("ada"))
    assert_refused(cast.nobody.get("/v1/users"), 401)


def test_a_wrong_key_is_refused_on_public_routes_too(cast: Cast) -> None:
    assert cast.nobody.get("/v1/api-standards").status == 200
    for wrong in (HEX_KEY, KEY, "x"):
        assert_refused(Caller(wrong).get("/v1/api-standards"), 401)
        assert_refused(Caller(wrong).get("/v1/api-standards/openai"), 401)


# --- Its life -------------------------------------------------------------------------------------
def test_a_revoked_or_expired_key_or_one_of_a_disabled_account_is_401(cast: Cast) -> None:
    alice, now = stored("alice"), timezone.now()
    expired = Caller(services.create_key(user=alice, expires_at=now - timedelta(seconds=1)))
    lasting = Caller(services.create_key(user=alice, expires_at=now + timedelta(hours=1)))
    assert_refused(expired.get("/v1/users/alice"), 401)
    assert lasting.get("/v1/users/alice").status == 200
    assert services.revoke_keys(ApiKey.objects.filter(public_id=(lasting.key or "")[4:16])) == 1
    assert_refused(lasting.get("/v1/users/alice"), 401)
    assert cast.alice.get("/v1/users/alice").status == 200
    alice.is_active = False
    alice.save()
    assert_refused(cast.alice.get("/v1/users/alice"), 401)


def test_the_key_of_a_deleted_user_dies_at_once(cast: Cast) -> None:
    assert cast.ada.delete("/v1/users/rita").status == 200
    assert_refused(cast.rita.get("/v1/projects/alice/letters"), 401)
    assert_refused(cast.rita.get("/v1/users/rita"), 401)
    assert not ApiKey.objects.filter(public_id=(cast.rita.key or "")[4:16]).exists()


def test_an_old_key_with_another_secret_is_401(cast: Cast) -> None:
    """The public id alone opens nothing: a key with a good checksum but another secret."""
    key = cast.alice.key or ""
    body = key[4:16] + "x" * keys.SECRET_LENGTH
    forged = f"arm_{body}{keys._checksum(body)}"
    assert keys.parts_of(forged) is not None
    assert_refused(Caller(forged).get("/v1/users/alice"), 401)


def test_old_and_new_keys_work_side_by_side(cast: Cast) -> None:
    second = services.create_key(user=stored("alice"), name="second")
    assert second == A_KEY
    for key in (cast.alice.key, second):
        assert Caller(key).get("/v1/users/alice").status == 200


def test_a_key_of_64_hex_digits_that_an_import_brings_works(cast: Cast) -> None:
    legacy = Caller(HEX_KEY)
    assert_refused(legacy.get("/v1/users/alice"), 401)
    services.import_key(user=stored("alice"), key=HEX_KEY, name="from the old server")
    assert legacy.get("/v1/users/alice").status == 200
    assert HEX_KEY not in repr(state())
    row = ApiKey.objects.get(name="from the old server")
    assert bytes(row.digest) == hashlib.sha256(HEX_KEY.encode()).digest()
    assert HEX_KEY not in row.public_id
    with nothing_changes():
        with pytest.raises(Conflict):
            services.import_key(user=stored("sam"), key=HEX_KEY)
        for bad in ("", "short", HEX_KEY.upper(), f"{HEX_KEY}0"):
            with pytest.raises(Invalid):
                services.import_key(user=stored("sam"), key=bad)


# --- Capped keys ----------------------------------------------------------------------------------
Requests = list[tuple[str, str, Any, int]]
LIST, ONE = "/v1/embeddings/alice/letters", "/v1/projects/alice/letters"
UPLOAD = {"embeddings": [item("new", [1, 2, 3])]}
INSTANCE = {
    "endpoint": "https://api.example.org/",
    "api_standard": "openai",
    "model": "m",
    "dimensions": 3,
}
SETTINGS = {"instance_handle": "model"}
OWNERS_ONLY: Requests = [
    ("PATCH", ONE, {"description": "x"}, 403),
    ("PUT", ONE, SETTINGS, 403),
    ("DELETE", ONE, None, 403),
    ("POST", f"{ONE}/share", {"share_with_handle": "sam", "role": "reader"}, 403),
    ("GET", f"{ONE}/shared-with", None, 403),
    ("POST", f"{ONE}/transfer-ownership", {"new_owner_handle": "sam"}, 403),
    ("POST", "/v1/projects/alice", {"project_handle": "another", **SETTINGS}, 403),
    ("PATCH", "/v1/users/alice", {"name": "x"}, 403),
    ("DELETE", "/v1/users/alice", None, 403),
    ("PUT", "/v1/llm-services/alice/another", INSTANCE, 403),
    ("PATCH", "/v1/llm-services/alice/model", {"api_key": "sk"}, 403),
    ("DELETE", "/v1/llm-services/alice/model", None, 403),
    ("PUT", "/v1/llm-service-definitions/alice/another", INSTANCE, 403),
    ("GET", "/v1/users", None, 403),
]
READS: Requests = [
    ("GET", ONE, None, 200),
    ("GET", LIST, None, 200),
    ("GET", "/v1/users/alice", None, 200),
    ("GET", "/v1/llm-services/alice/model", None, 200),
]
CAPS: dict[str, tuple[Role | None, bool, Requests]] = {
    "reader": (
        Role.READER,
        False,
        [*OWNERS_ONLY, ("POST", LIST, UPLOAD, 403), *READS, ("GET", f"{ONE}2", None, 200)],
    ),
    "editor": (
        Role.EDITOR,
        False,
        [*OWNERS_ONLY, *READS, ("GET", f"{ONE}2", None, 200), ("POST", LIST, UPLOAD, 201)],
    ),
    "project": (
        None,
        True,
        [
            *[each for each in OWNERS_ONLY if not each[1].startswith(ONE)],
            ("GET", f"{ONE}2", None, 403),
            ("POST", f"{LIST}2", UPLOAD, 403),
            ("DELETE", f"{LIST}2", None, 403),
            *READS,
            ("POST", LIST, UPLOAD, 201),
            ("PATCH", ONE, {"description": "x"}, 200),
        ],
    ),
    "project and reader": (
        Role.READER,
        True,
        [*OWNERS_ONLY, ("GET", f"{ONE}2", None, 403), ("POST", LIST, UPLOAD, 403), *READS],
    ),
}


@pytest.mark.parametrize("cap", CAPS)
def test_a_capped_key_carries_less_than_its_account(cast: Cast, cap: str) -> None:
    make_project("alice", "letters2")
    role, one_project, requests = CAPS[cap]
    project_id = cast.project.pk if one_project else None
    key = services.create_key(user=stored("alice"), role_cap=role, project_id=project_id)
    caller = Caller(key)
    with nothing_changes():
        for method, path, body, status in requests:
            if status == 403:
                assert_refused(caller.ask(method, path, body), 403)
    for method, path, body, status in requests:
        if status != 403:
            assert (method, path, caller.ask(method, path, body).status) == (method, path, status)


def test_a_capped_key_of_an_administrator_administers_nothing(cast: Cast) -> None:
    ada = stored("ada")
    for caps in ({"role_cap": Role.EDITOR}, {"project_id": cast.project.pk}):
        capped = Caller(services.create_key(user=ada, **caps))
        with nothing_changes():
            assert_refused(capped.get("/v1/users"), 403)
            assert_refused(capped.post("/v1/users", {"user_handle": "bob"}), 403)
            assert_refused(capped.get(ONE), 403)
            assert_refused(capped.get("/v1/admin/sanity-check"), 403)
    assert cast.ada.get(ONE).status == 200


def test_a_cap_never_raises_what_an_account_may(cast: Cast) -> None:
    capped = Caller(services.create_key(user=stored("rita"), role_cap=Role.EDITOR))
    assert_refused(capped.post(LIST, UPLOAD), 403)
    assert capped.get(LIST).status == 200
    stranger = Caller(services.create_key(user=stored("sam"), project_id=cast.project.pk))
    assert_refused(stranger.get(ONE), 403)


def test_the_keys_of_a_project_go_with_it(cast: Cast) -> None:
    alice = stored("alice")
    key = services.create_key(user=alice, project_id=cast.project.pk)
    assert cast.alice.delete(ONE).status == 200
    assert_refused(Caller(key).get("/v1/users/alice"), 401)


# --- The configured admin key ---------------------------------------------------------------------
def test_the_configured_key_administers(cast: Cast, settings: Settings) -> None:
    caller = Caller(ADMIN_KEY)
    assert_refused(caller.get("/v1/users"), 401)
    settings.ADMIN_KEY = ADMIN_KEY
    assert caller.get("/v1/users").status == 200
    assert caller.post("/v1/users", {"user_handle": "bob"}).status == 201
    assert caller.get(ONE)["role"] == "admin"
    assert caller.patch("/v1/users/alice", {"name": "Alice"}).status == 200
    for wrong in (ADMIN_KEY[:-1], f"{ADMIN_KEY}x", ADMIN_KEY.upper(), f" {ADMIN_KEY}"):
        assert_refused(Caller(wrong).get("/v1/users"), 401)


def test_an_empty_admin_key_matches_nobody(cast: Cast, settings: Settings) -> None:
    settings.ADMIN_KEY = ""
    for sent in ("Bearer ", "Bearer", "", "Bearer  ", 'Bearer ""'):
        answer = cast.nobody.get("/v1/users", headers={"Authorization": sent})
        assert_refused(answer, 401)
    assert_refused(cast.nobody.get("/v1/users"), 401)

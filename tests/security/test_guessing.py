"""Guessing keys and passwords: only what fails is counted, and only what fails is refused."""

import re
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from accounts import guessing, keys
from accounts import services as accounts
from accounts.models import FailedAttempts
from accounts.policy import BOOTSTRAP_ADMIN
from accounts.tasks import forget_failed_attempts
from tests.answers import assert_error, assert_refused
from tests.console.browser import browser
from tests.factories import Answer, Caller, Cast
from tests.races import THREADS, at_once

TRIES = 80


def wrong() -> Caller:
    """Return somebody with a key of the right form that nobody has."""
    return Caller(keys.generate_key()[0])


def statuses(ask: Any) -> Counter[int]:
    """Ask as often as in a row of guesses; count the answers."""
    return Counter(ask().status for _ in range(TRIES))


def test_eighty_wrong_keys_in_a_row(cast: Cast) -> None:
    assert statuses(lambda: wrong().get("/v1/users/alice")) == {401: 50, 429: 30}
    refused = wrong().get("/v1/users/alice")
    assert_refused(refused, 429, says="A good key works at once")
    assert 890 <= int(refused.headers["Retry-After"]) <= 900
    own = wrong().get("/projects")
    assert_error(own, 429, "too_many_requests")
    assert cast.alice.get("/v1/users/alice").status == 200
    assert cast.alice.get("/projects").status == 200
    assert cast.nobody.get("/v1/users/alice").status == 401
    assert cast.nobody.get("/v1/api-standards").status == 200


@pytest.mark.parametrize("key", ["x", "arm_typo", "a" * 64, "kéy"])
def test_what_cannot_be_a_key_counts_too(cast: Cast, key: str) -> None:
    sent = {"Authorization": f"Bearer {key}"}
    assert statuses(lambda: cast.nobody.get("/v1/users", headers=sent)) == {401: 50, 429: 30}


def test_the_other_header_of_the_projects_api_counts_too(cast: Cast) -> None:
    sent = {"X-Auth-Key": keys.generate_key()[0]}
    assert statuses(lambda: cast.nobody.get("/agents", headers=sent)) == {401: 50, 429: 30}


def test_one_key_is_not_guessed_from_many_addresses(cast: Cast) -> None:
    other, _ = keys.generate_key()

    def ask(number: int, key: str | None) -> Answer:
        client = Caller(key)
        client.client.defaults["REMOTE_ADDR"] = f"192.0.2.{number}"
        return client.get("/v1/users/alice")

    found = Counter(ask(number, other).status for number in range(TRIES))
    assert found == {401: 50, 429: 30}
    # From there, others are refused as before, and the good key is let in.
    assert ask(7, keys.generate_key()[0]).status == 401
    assert ask(7, cast.alice.key).status == 200


def test_addresses_are_counted_apart_and_an_ipv6_network_together(cast: Cast) -> None:
    def ask(address: str) -> int:
        caller = wrong()
        caller.client.defaults["REMOTE_ADDR"] = address
        return caller.get("/v1/users").status

    assert [ask(f"2001:db8::{number:x}") for number in range(51)][-1] == 429
    assert ask("2001:db8:0:1::1") == 401
    assert ask("192.0.2.1") == 401


def test_the_address_is_the_one_that_our_proxy_names(cast: Cast, settings: Settings) -> None:
    sent = {"X-Forwarded-For": "198.51.100.1, 192.0.2.9"}
    assert wrong().get("/v1/users", headers=sent).status == 401
    assert FailedAttempts.objects.filter(subject="address:127.0.0.1").exists()
    settings.BEHIND_TLS = True
    settings.SECURE_SSL_REDIRECT = False
    assert wrong().get("/v1/users", headers=sent).status == 401
    assert FailedAttempts.objects.filter(subject="address:192.0.2.9").exists()
    assert not FailedAttempts.objects.filter(subject__contains="198.51.100.1").exists()


def test_no_secret_is_kept(cast: Cast) -> None:
    caller = wrong()
    caller.get("/v1/users")
    subjects = set(FailedAttempts.objects.values_list("subject", flat=True))
    assert caller.key is not None
    assert subjects == {"address:127.0.0.1", f"key:{caller.key[4:16]}"}


def test_a_good_key_costs_nothing(
    cast: Cast, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    statuses(lambda: wrong().get("/v1/users"))
    cast.alice.get("/v1/users/alice")
    with django_assert_num_queries(4) as captured:
        assert cast.alice.get("/v1/users/alice").status == 200
    assert not [each for each in captured.captured_queries if "failedattempts" in each["sql"]]


def test_after_a_while_it_is_forgotten(cast: Cast) -> None:
    statuses(lambda: wrong().get("/v1/users"))
    FailedAttempts.objects.update(since=timezone.now() - guessing.WINDOW - timedelta(seconds=1))
    assert wrong().get("/v1/users").status == 401
    assert FailedAttempts.objects.filter(number=1, subject="address:127.0.0.1").exists()
    forget_failed_attempts()
    assert set(FailedAttempts.objects.values_list("number", flat=True)) == {1}


@pytest.mark.slow
@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_failures_at_the_same_moment_are_all_counted(cast: Cast) -> None:
    jobs = [lambda: [wrong().get("/v1/users").status for _ in range(5)] for _ in range(THREADS)]
    found = Counter(status for each in at_once(jobs) for status in each)
    assert found == {401: guessing.LIMIT, 429: 5 * THREADS - guessing.LIMIT}


_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="[^"]+"')


# --- Passwords ------------------------------------------------------------------------------------
class CountingHasher(PBKDF2PasswordHasher):
    """Counts how often a password is hashed, which is what takes the time."""

    iterations = 1
    hashed = 0

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        """Hash it."""
        type(self).hashed += 1
        return super().encode(password, salt, iterations)


@pytest.mark.parametrize("door", ["/sign-in", "/admin/login/"])
def test_unknown_names_take_as_long_as_known_ones_and_get_the_same_answer(
    cast: Cast, settings: Settings, door: str
) -> None:
    settings.PASSWORD_HASHERS = [f"{__name__}.CountingHasher"]
    for handle in ("alice", "ada"):
        accounts.set_password(actor=BOOTSTRAP_ADMIN, handle=handle, password="a quiet room")
    accounts.set_access(actor=BOOTSTRAP_ADMIN, handle="alice", changes={"is_active": False})
    pages, costs = set(), set()
    # Disabled; an administrator; without a password; unknown; nobody can sign in as this.
    for handle in ("alice", "ada", "rita", "nobody-here", "_system"):
        CountingHasher.hashed = 0
        field = "handle" if door == "/sign-in" else "username"
        answer: Any = browser().post(door, {field: handle, "password": "wrong"})
        text = _TOKEN.sub("", answer.content.decode().replace(handle, "HANDLE"))
        pages.add((answer.status_code, text))
        costs.add(CountingHasher.hashed)
    assert len(pages) == 1, sorted(pages)
    assert costs == {1}

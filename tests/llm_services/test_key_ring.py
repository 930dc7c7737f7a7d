"""Changing the encryption key, and noticing a wrong one: contract on reliability and security."""

from collections.abc import Callable
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from config import startup
from config.processes import Failed
from llm_services import key_ring
from llm_services.models import EncryptionCheck, Instance
from llm_services.services import api_key_of
from tests.answers import state
from tests.factories import Cast, make_instance

FIRST, SECOND, THIRD = (f"{name}-encryption-key-0123456789abcdef" for name in ("1st", "2nd", "3rd"))
SECRET = "sk-canary-7f3a9c"

Use = Callable[..., None]


@pytest.fixture
def use(settings: Settings) -> Use:
    """Configure encryption keys, the newest first."""

    def configure(newest: str, *previous: str) -> None:
        settings.ENCRYPTION_KEY = newest
        settings.PREVIOUS_ENCRYPTION_KEYS = list(previous)

    configure(FIRST)
    return configure


@pytest.fixture
def instances(cast: Cast, use: Use) -> list[Instance]:
    """Three instances with provider keys that were stored under the first encryption key."""
    key_ring.check()
    return [make_instance("alice", f"paid-{number}", api_key=SECRET) for number in range(3)]


def rotate(*options: str) -> str:
    said = StringIO()
    call_command("rotateencryptionkey", *options, stdout=said)
    return said.getvalue()


def keys_of(instances: list[Instance]) -> set[str]:
    for each in instances:
        each.refresh_from_db()
    return {api_key_of(each) for each in instances}


def test_a_new_database_takes_the_configured_key(cast: Cast, use: Use) -> None:
    startup.check_encryption_key()
    assert EncryptionCheck.objects.count() == 1
    startup.check_encryption_key()
    assert EncryptionCheck.objects.count() == 1


def test_keys_are_sealed_anew_while_the_former_key_is_still_configured(
    instances: list[Instance], use: Use
) -> None:
    use(SECOND, FIRST)
    startup.check_encryption_key()
    assert rotate().startswith("3 provider keys encrypted under the newest encryption key, 0 were")
    use(SECOND)
    startup.check_encryption_key()
    assert keys_of(instances) == {SECRET}
    assert rotate().startswith("0 provider keys encrypted under the newest encryption key, 3 were")


def test_what_was_interrupted_is_completed(
    instances: list[Instance], use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(SECOND, FIRST)
    monkeypatch.setattr(key_ring, "_AT_ONCE", 1)
    first = key_ring.Rotated()
    key_ring._rotate_some(first, 0, False)
    assert first.sealed_anew == 1
    assert keys_of(instances) == {SECRET}
    assert rotate("--json").strip() == '{"sealed_anew":2,"newest_already":1,"unreadable":[]}'
    use(SECOND)
    assert keys_of(instances) == {SECRET}


def test_a_wrong_key_is_found_at_the_start_and_nothing_changes(
    instances: list[Instance], use: Use
) -> None:
    use(SECOND)
    before = state()
    with pytest.raises(Failed, match="not the one that this database was used with") as refused:
        startup.check_encryption_key()
    assert "3 provider keys cannot be read" in str(refused.value)
    assert "rotateencryptionkey --erase-unreadable" in str(refused.value)
    with pytest.raises(CommandError, match="not the one"):
        rotate()
    assert state() == before
    use(FIRST)
    startup.check_encryption_key()
    assert keys_of(instances) == {SECRET}


def test_a_wrong_key_is_found_without_any_provider_key(cast: Cast, use: Use) -> None:
    startup.check_encryption_key()
    use(SECOND)
    with pytest.raises(Failed, match="0 provider keys cannot be read"):
        startup.check_encryption_key()


def test_a_database_from_before_this_check_is_not_given_another_key(
    instances: list[Instance], use: Use
) -> None:
    EncryptionCheck.objects.all().delete()
    use(SECOND)
    with pytest.raises(Failed, match="3 provider keys cannot be read"):
        startup.check_encryption_key()
    assert not EncryptionCheck.objects.exists()
    use(SECOND, FIRST)
    startup.check_encryption_key()


def test_unreadable_keys_are_named_and_erased_on_demand(
    instances: list[Instance], use: Use
) -> None:
    use(THIRD, SECOND)
    with pytest.raises(CommandError):
        rotate()
    said = rotate("--erase-unreadable")
    assert "3 provider keys erased, to be entered again: " in said
    assert all(str(each) in said for each in instances)
    assert SECRET not in said
    startup.check_encryption_key()
    for each in instances:
        each.refresh_from_db()
        assert not each.has_api_key


def test_one_altered_key_does_not_keep_the_others_from_being_sealed(
    instances: list[Instance], use: Use
) -> None:
    altered = instances[1]
    Instance.objects.filter(pk=altered.pk).update(sealed_key=bytes(altered.sealed_key)[:-1] + b"x")
    use(SECOND, FIRST)
    with pytest.raises(CommandError, match=str(altered)):
        rotate()
    use(SECOND)
    assert keys_of([instances[0], instances[2]]) == {SECRET}

"""Sealing of providers' keys: contract on reliability and security, E7."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from llm_services import crypto
from llm_services.models import Instance
from llm_services.services import api_key_of
from tests.answers import state
from tests.factories import Cast, make_instance

FIRST, SECOND = "first-encryption-key-0123456789abcdef", "second-encryption-key-0123456789abcde"
SECRET = "sk-canary-7f3a9c"


@given(st.text(st.characters(codec="utf-8"), max_size=200), st.integers(1, 2**63 - 1))
def test_what_is_sealed_opens_for_the_same_instance(secret: str, instance_id: int) -> None:
    sealed = crypto.seal(secret, instance_id=instance_id)
    assert crypto.open_sealed(sealed, instance_id=instance_id) == secret


def test_a_sealed_key_is_version_key_id_nonce_and_ciphertext(settings: Settings) -> None:
    settings.ENCRYPTION_KEY = FIRST
    one, two = (crypto.seal(SECRET, instance_id=7) for _ in range(2))
    assert one[:1] == b"\x01"
    assert one[1:9] == two[1:9]
    assert one[9:21] != two[9:21]
    assert one[21:] != two[21:]
    assert len(one) == 1 + 8 + 12 + len(SECRET) + 16
    assert SECRET.encode() not in one
    settings.ENCRYPTION_KEY = SECOND
    assert crypto.seal(SECRET, instance_id=7)[1:9] != one[1:9]


def test_no_nonce_comes_twice() -> None:
    sealed = [crypto.seal(SECRET, instance_id=7) for _ in range(500)]
    assert len({each[9:21] for each in sealed}) == 500


def test_a_copied_ciphertext_does_not_open_elsewhere() -> None:
    sealed = crypto.seal(SECRET, instance_id=7)
    with pytest.raises(crypto.CannotOpen, match="belongs elsewhere"):
        crypto.open_sealed(sealed, instance_id=8)


@given(st.integers(0, 200), st.integers(1, 255))
def test_an_altered_ciphertext_does_not_open(position: int, change: int) -> None:
    sealed = bytearray(crypto.seal(SECRET, instance_id=7))
    sealed[position % len(sealed)] ^= change
    with pytest.raises(crypto.CannotOpen):
        crypto.open_sealed(bytes(sealed), instance_id=7)


@given(st.integers(0, 52))
def test_a_cut_off_ciphertext_does_not_open(length: int) -> None:
    sealed = crypto.seal(SECRET, instance_id=7)
    with pytest.raises(crypto.CannotOpen) as refused:
        crypto.open_sealed(sealed[: min(length, len(sealed) - 1)], instance_id=7)
    assert SECRET not in str(refused.value)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_do_not_open(sealed: bytes) -> None:
    with pytest.raises(crypto.CannotOpen):
        crypto.open_sealed(sealed, instance_id=7)


def test_the_first_key_of_the_ring_seals_and_all_open(settings: Settings) -> None:
    settings.ENCRYPTION_KEY, settings.PREVIOUS_ENCRYPTION_KEYS = FIRST, []
    old = crypto.seal(SECRET, instance_id=7)
    settings.ENCRYPTION_KEY, settings.PREVIOUS_ENCRYPTION_KEYS = SECOND, [FIRST]
    new = crypto.seal(SECRET, instance_id=7)
    assert crypto.open_sealed(old, instance_id=7) == crypto.open_sealed(new, instance_id=7)
    settings.PREVIOUS_ENCRYPTION_KEYS = []
    assert crypto.open_sealed(new, instance_id=7) == SECRET
    with pytest.raises(crypto.CannotOpen, match="ARMARIUM_PREVIOUS_ENCRYPTION_KEYS"):
        crypto.open_sealed(old, instance_id=7)


def test_secret_key_has_no_part_in_it(settings: Settings) -> None:
    sealed = crypto.seal(SECRET, instance_id=7)
    settings.SECRET_KEY = "another-secret-key-of-django-0123456789"
    assert crypto.open_sealed(sealed, instance_id=7) == SECRET


def test_an_instance_stores_its_key_sealed_for_itself(cast: Cast) -> None:
    instance = make_instance("alice", "with-key", api_key=SECRET)
    assert api_key_of(instance) == SECRET
    assert SECRET not in repr(state())
    assert SECRET.encode() not in bytes(instance.sealed_key)
    other = make_instance("alice", "other")
    assert api_key_of(other) == ""
    Instance.objects.filter(pk=other.pk).update(sealed_key=bytes(instance.sealed_key))
    other.refresh_from_db()
    with pytest.raises(crypto.CannotOpen):
        api_key_of(other)

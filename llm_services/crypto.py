"""Seals providers' API keys: the only reader of the encryption keys.

A sealed key is ``version (1 byte) | key id (8 bytes) | nonce (12 bytes) | ciphertext and tag``,
AES-256-GCM (NIST SP 800-38D) under SHA-256 of the configured secret. The instance it belongs to is
associated data: a ciphertext copied to another row does not open there.
"""

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

_VERSION = b"\x01"
_KEY_ID = 8
_NONCE = 12
_CHECK = "llm_services.encryption_check"


class CannotOpen(Exception):
    """The stored key cannot be read: its encryption key is not configured, or it was altered."""


def seal(secret: str, *, instance_id: int) -> bytes:
    """Return the secret encrypted for one instance under the newest encryption key."""
    return _seal(secret, _bound_to(instance_id))


def open_sealed(sealed: bytes, *, instance_id: int) -> str:
    """Return the secret that was sealed for this instance; raise CannotOpen."""
    return _open(sealed, _bound_to(instance_id))


def seal_check() -> bytes:
    """Return a known text encrypted under the newest encryption key; see `opens_check`."""
    return _seal(_CHECK, _CHECK.encode())


def opens_check(sealed: bytes) -> bool:
    """Say whether one of the configured encryption keys is that of a sealed check."""
    try:
        return _open(sealed, _CHECK.encode()) == _CHECK
    except CannotOpen:
        return False


def is_newest(sealed: bytes) -> bool:
    """Say whether something was sealed under the newest encryption key."""
    return key_id_of(sealed) == _ring()[0][0]


def key_id_of(sealed: bytes) -> bytes:
    """Return which encryption key sealed something: 8 bytes that tell nothing about the key."""
    return sealed[1 : 1 + _KEY_ID]


def _seal(secret: str, bound_to: bytes) -> bytes:
    key_id, key = _ring()[0]
    nonce = os.urandom(_NONCE)
    return _VERSION + key_id + nonce + AESGCM(key).encrypt(nonce, secret.encode("utf-8"), bound_to)


def _open(sealed: bytes, bound_to: bytes) -> str:
    if sealed[:1] != _VERSION:
        raise CannotOpen("The stored provider key has an unknown format.")
    rest = sealed[1 + _KEY_ID :]
    key = dict(_ring()).get(key_id_of(sealed))
    if key is None:
        raise CannotOpen(
            "The stored provider key was encrypted with an encryption key that is not configured; "
            "add it to ARMARIUM_PREVIOUS_ENCRYPTION_KEYS."
        )
    try:
        opened = AESGCM(key).decrypt(rest[:_NONCE], rest[_NONCE:], bound_to)
    except (InvalidTag, ValueError) as error:
        raise CannotOpen("The stored provider key was altered or belongs elsewhere.") from error
    return opened.decode("utf-8")


def is_sealed_by_newest(sealed: bytes) -> bool:
    """Say whether a sealed key could be opened without the previous encryption keys."""
    return sealed[1 : 1 + _KEY_ID] == _ring()[0][0]


def key_ids() -> list[str]:
    """Return what identifies the configured encryption keys, the newest first; tells nothing."""
    return [key_id.hex() for key_id, _ in _ring()]


def _ring() -> list[tuple[bytes, bytes]]:
    """Return (id, key) of every configured encryption key, the newest first."""
    secrets = [settings.ENCRYPTION_KEY, *settings.PREVIOUS_ENCRYPTION_KEYS]
    keys = [hashlib.sha256(secret.encode("utf-8")).digest() for secret in secrets]
    return [(hashlib.sha256(b"key id" + key).digest()[:_KEY_ID], key) for key in keys]


def _bound_to(instance_id: int) -> bytes:
    return f"llm_services.instance:{instance_id}:api_key".encode()

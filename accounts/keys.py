"""API keys: how they are made, recognised and compared. Knows no models.

A key reads ``arm_<public id><secret><checksum>``: 12 characters that are stored in the clear and
find the row, 44 characters (over 260 bits) of which only the SHA-256 is stored, and 6 characters of
checksum that let a typo be refused without a query. No slow hash: the secret cannot be guessed, and
a flood of wrong keys must stay cheap.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass

PREFIX = "arm_"
PUBLIC_ID_LENGTH = 12
SECRET_LENGTH = 44
CHECKSUM_LENGTH = 6
# For secret scanners: this matches every key that this program makes.
PATTERN = rf"{PREFIX}[0-9A-Za-z]{{{PUBLIC_ID_LENGTH + SECRET_LENGTH + CHECKSUM_LENGTH}}}"

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_own_format = re.compile(PATTERN, re.ASCII)
# What servers before Armarium handed out; an import may bring such keys along.
_hex_format = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class KeyParts:
    """What the database knows of a key: the id that finds it, and the hash that proves it."""

    public_id: str
    digest: bytes


def generate_key() -> tuple[str, KeyParts]:
    """Return a new key, to be shown once, and what is stored of it."""
    body = "".join(secrets.choice(_BASE62) for _ in range(PUBLIC_ID_LENGTH + SECRET_LENGTH))
    key = f"{PREFIX}{body}{_checksum(body)}"
    return key, _own_parts(key)


def parts_of(key: str) -> KeyParts | None:
    """Return the stored parts of a key, or None for what cannot be a key."""
    if _own_format.fullmatch(key):
        body, checksum = key[len(PREFIX) : -CHECKSUM_LENGTH], key[-CHECKSUM_LENGTH:]
        return _own_parts(key) if hmac.compare_digest(checksum, _checksum(body)) else None
    if _hex_format.fullmatch(key):
        digest = hashlib.sha256(key.encode("ascii")).digest()
        return KeyParts(public_id=f"sha_{digest.hex()[:24]}", digest=digest)
    return None


def same_digest(left: bytes, right: bytes) -> bool:
    """Compare two hashes in constant time."""
    return hmac.compare_digest(left, right)


def same_secret(given: str, configured: str) -> bool:
    """Compare a key with a configured one in constant time; an empty one never matches."""
    if not configured:
        return False
    return hmac.compare_digest(given.encode("utf-8"), configured.encode("utf-8"))


def _own_parts(key: str) -> KeyParts:
    public_id = key[len(PREFIX) : len(PREFIX) + PUBLIC_ID_LENGTH]
    return KeyParts(public_id=public_id, digest=hashlib.sha256(key.encode("ascii")).digest())


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode("ascii"))
    digits = ""
    for _ in range(CHECKSUM_LENGTH):
        number, rest = divmod(number, len(_BASE62))
        digits = _BASE62[rest] + digits
    return digits

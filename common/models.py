"""Fields that several apps share. No models live here."""

import uuid

import uuid_utils


def uuid7() -> uuid.UUID:
    """Return a UUID version 7 (RFC 9562): ordered by time, made anywhere, unique everywhere."""
    return uuid.UUID(int=uuid_utils.uuid7().int)

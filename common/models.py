"""What several apps share: the identifiers, and why jobs failed."""

import uuid

import uuid_utils
from django.db import models
from procrastinate.contrib.django.models import ProcrastinateJob


def uuid7() -> uuid.UUID:
    """Return a UUID version 7 (RFC 9562): ordered by time, made anywhere, unique everywhere."""
    return uuid.UUID(int=uuid_utils.uuid7().int)


def new_ids(count: int) -> list[bytes]:
    """Return so many of the same, as 16 bytes each: without a Python object around each of them."""
    return [uuid_utils.uuid7().bytes for _ in range(count)]


class JobFailure(models.Model):
    """Why the last try of a job failed; procrastinate keeps that it did. Goes with the job."""

    # The key in the database is made by migration 0001: it deletes the row with the job, which is
    # not deleted through Django.
    job = models.OneToOneField(
        ProcrastinateJob,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        primary_key=True,
        related_name="failure",
    )
    reason = models.TextField()
    failed_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.reason

"""What views of the Projects API share: ids from addresses, and the answer to a deletion."""

import re
from typing import Any
from uuid import UUID

from django.utils import timezone
from rest_framework import serializers
from rest_framework.response import Response

from common.errors import FieldError, Invalid

_uuid = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


class ResourceDeletedOut(serializers.Serializer[Any]):
    """What was deleted, and when."""

    id = serializers.UUIDField()
    deleted_at = serializers.DateTimeField()
    jobs = serializers.ListField(
        child=serializers.CharField(), help_text="Empty: nothing is left to do."
    )


def read_id(text: str) -> UUID:
    """Return the id that an address names; raise Invalid for what is no UUID."""
    if _uuid.fullmatch(text) is None:
        message = "An id is a UUID, such as 0198b5a4-2f6e-7cc1-9d53-6f0d4f9d2b10."
        raise Invalid(message, errors=[FieldError("path.id", message, "uuid")])
    return UUID(text)


def deleted(uuid: UUID) -> Response:
    """Return the answer to a deletion."""
    gone = ResourceDeletedOut({"id": uuid, "deleted_at": timezone.now(), "jobs": []})
    return Response(gone.data, status=202)

"""The audit log of the whole server."""

from rest_framework.request import Request
from rest_framework.response import Response

from accounts import selectors
from accounts.api.audit_serializers import (
    EXAMPLE,
    AuditListing,
    AuditLogOut,
    log_shown,
    wanted_in,
)
from accounts.authentication import actor_of
from common.api import Resource
from common.fields import Text
from common.pagination import page_of
from common.schema import operation

TAG = "Administration"


class ServerListing(AuditListing):
    """The same for the whole server."""

    kind = Text(
        max_length=30, required=False, help_text="Only what was done to these, such as `api_key`."
    )


class AuditLog(Resource):
    """Who changed who may do what."""

    queries = {"get": ServerListing}

    @operation(
        "Read the audit log",
        name="list_audit_log",
        tag=TAG,
        answers={200: AuditLogOut},
        query=ServerListing,
        description="The newest entries first. Entries are never changed, and hold no secrets.",
        examples=[EXAMPLE],
    )
    def get(self, request: Request) -> Response:
        """Return what was changed on the whole server; for administrators."""
        rows = selectors.audit_log(actor_of(request), wanted_in(self.query))
        page = page_of(rows, limit=self.query["limit"], offset=self.query["offset"])
        return Response(log_shown(page, for_owner=False))

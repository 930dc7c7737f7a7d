"""Shapes of the audit log."""

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import OpenApiExample
from rest_framework import serializers

from accounts import audit
from accounts.audit import Verb
from accounts.models import AuditEntry, Via
from common.fields import Choice, Text
from common.pagination import Page
from common.query import Paging
from common.schema import ListOut, answer_example


class AuditListing(Paging):
    """Which entries are wanted."""

    verb = Choice(
        choices=[each.value for each in Verb], required=False, help_text="Only this was done."
    )
    account = Text(
        max_length=20, required=False, help_text="Only what the account of this handle did."
    )
    since = serializers.DateTimeField(
        required=False, help_text="Only from this moment on, such as `2026-03-01T00:00:00Z`."
    )
    until = serializers.DateTimeField(required=False, help_text="Only from before this moment.")


class AuditEntryOut(serializers.Serializer[Any]):
    """That somebody changed something, or was refused to sign in."""

    id = serializers.UUIDField()
    at = serializers.DateTimeField()
    verb = serializers.CharField(help_text="What was done, such as `share`.")
    kind = serializers.CharField(help_text="To what kind of thing, such as `project`.")
    subject = serializers.CharField(help_text="Its name then, such as `alice/letters`.")
    owner = serializers.CharField(allow_null=True, help_text="The account that it belonged to.")
    account = serializers.CharField(
        allow_null=True, help_text="Who did it; null for the admin key, commands and jobs."
    )
    via = serializers.ChoiceField(choices=Via.values, help_text="How they had proven who they are.")
    as_admin = serializers.BooleanField(
        help_text="Whether it was done by the rights of administrators, to what is another's."
    )
    key_id = serializers.CharField(
        allow_null=True,
        help_text="The public part of the key; project owners are not told it of administrators.",
    )
    request_id = serializers.CharField(
        allow_null=True, help_text="The same as in the server's log; null outside of requests."
    )
    details = serializers.DictField(help_text="What else there is to know, such as a role.")


class AuditLogOut(ListOut):
    """A page of the audit log, the newest entries first."""

    entries = AuditEntryOut(many=True)


EXAMPLE: OpenApiExample = answer_example(
    "Shared with bob",
    {
        "entries": [
            {
                "id": "0198b5a4-2f6e-7cc1-9d53-6f0d4f9d2b10",
                "at": "2026-03-01T12:00:00Z",
                "verb": "share",
                "kind": "project",
                "subject": "alice/letters",
                "owner": "alice",
                "account": "alice",
                "via": "key",
                "as_admin": False,
                "key_id": "4vQz81LmN0aB",
                "request_id": "1c9f4e0a-6a3b-4f7e-9a57-2b8d1f0c3e44",
                "details": {"user": "bob", "role": "reader"},
            }
        ],
        "total_count": 1,
        "limit": 10,
        "offset": 0,
        "has_more": False,
    },
)


def wanted_in(query: Mapping[str, Any]) -> audit.Wanted:
    """Return which entries a query asks for."""
    given = {name: query.get(name) for name in ("verb", "kind", "account", "since", "until")}
    return audit.Wanted(**given)


def log_shown(page: Page[AuditEntry], *, for_owner: bool) -> dict[str, Any]:
    """Return a page of entries as AuditLogOut describes it.

    for_owner: whether for a project's owner rather than for administrators.
    """
    entries = [_shown(each, for_owner=for_owner) for each in page.items]
    return page.envelope("entries", entries)


def _shown(entry: AuditEntry, *, for_owner: bool) -> dict[str, Any]:
    return {
        "id": entry.pk,
        "at": entry.at,
        "verb": entry.verb,
        "kind": entry.kind,
        "subject": entry.subject,
        "owner": entry.owner or None,
        "account": entry.actor or None,
        "via": entry.via,
        "as_admin": entry.as_admin,
        "key_id": None if for_owner and entry.as_admin else entry.key_id or None,
        "request_id": entry.request_id or None,
        "details": entry.details,
    }

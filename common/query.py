"""Query strings: declared per route, everything else refused."""

from typing import Any

from django.http import QueryDict
from rest_framework import serializers

from common.errors import FieldError, Invalid, kind_of
from common.fields import QueryNumber

DEFAULT_LIMIT = 10
MAXIMUM_LIMIT = 200
# The largest row number that PostgreSQL's OFFSET takes.
MAXIMUM_OFFSET = 2**63 - 1


class Query(serializers.Serializer[Any]):
    """The query parameters of a route: none, unless a subclass declares some.

    An undeclared parameter is refused rather than ignored: a filter that is silently dropped
    shows people rows that they meant to leave out.
    """

    @classmethod
    def read(cls, given: QueryDict) -> dict[str, Any]:
        """Return the values with their defaults; raise Invalid naming what is wrong."""
        declared = cls._declared_fields
        errors = [
            FieldError(f"query.{name}", f"Unknown query parameter '{name}'; {_known(declared)}.")
            for name in given
            if name not in declared
        ]
        errors += [
            FieldError(f"query.{name}", f"The query parameter '{name}' may be given only once.")
            for name, values in given.lists()
            if name in declared and len(values) > 1
        ]
        query = cls(data={name: given[name] for name in given if name in declared})
        if not query.is_valid():
            for name, messages in query.errors.items():
                errors += [
                    FieldError(f"query.{name}", f"{name}: {each}", kind_of(each))
                    for each in messages
                ]
        if errors:
            raise Invalid(" ".join(each.message for each in errors), errors=errors)
        return dict(query.validated_data)


class Paging(Query):
    """Which part of a list is wanted."""

    limit = QueryNumber(
        default=DEFAULT_LIMIT,
        min_value=1,
        max_value=MAXIMUM_LIMIT,
        help_text="How many entries to return at most.",
    )
    offset = QueryNumber(
        default=0,
        min_value=0,
        max_value=MAXIMUM_OFFSET,
        help_text="How many entries to skip. Past the end the list is empty.",
    )


def _known(declared: Any) -> str:
    if not declared:
        return "this route takes none"
    return "this route takes " + ", ".join(f"'{name}'" for name in declared)

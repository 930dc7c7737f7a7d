"""How views are described in OpenAPI: one decorator a method, and the problem bodies."""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_field,
)
from rest_framework import serializers

from common import metadata_filter, projects_api
from common.bodies import JSON
from common.entity_tags import IF_MATCH, IF_NONE_MATCH, Tagged
from common.listing import FilteredListing
from common.problems import CONTENT_TYPE
from common.query import Query

F = TypeVar("F", bound=Callable[..., Any])

# What any request may meet, whatever it asks.
_ALWAYS = (HTTPStatus.BAD_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE)
_WITH_KEY = (HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS)
_WITH_BODY = (
    HTTPStatus.LENGTH_REQUIRED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)
_MEANING = {
    200: "Done.",
    201: "Created.",
    202: "Accepted: it is done in the background.",
    204: "Done; there is nothing to return.",
    400: "The request is malformed, or a value or parameter is wrong.",
    401: "The key is missing, malformed, unknown, expired or revoked.",
    403: "The key is valid, its account may not do this.",
    304: "It is still the version that `If-None-Match` names.",
    404: "There is nothing at this address.",
    409: "It exists already, or is in use.",
    411: "The body has neither a Content-Length nor chunks.",
    412: "It is not the version that `If-Match` names; nothing was changed.",
    413: "The body, or what it unpacks to, is larger than allowed.",
    415: "The body is of no media type, charset or content encoding that is read here.",
    422: "The metadata schema cannot be used.",
    429: "Too many requests with a key that is none; a good key works at once.",
    502: "The model's provider failed, cannot be reached, or answered nonsense.",
    503: "The database did not answer in time; try again.",
    504: "The model's provider did not answer in time.",
}
# Where the Projects API means something else.
_OWN_MEANING = {
    **_MEANING,
    202: "Deleted.",
    400: "The body is not JSON, or the request is malformed.",
    403: "The key is valid, but carries less than this needs.",
    404: "There is nothing of this id, or no project of this name, among what the key reaches.",
    409: "The canonical name is taken, the default project is protected, or the project not empty.",
    422: "A value or parameter is wrong; `details` names each.",
    503: "The database or the storage did not answer in time; try again.",
}
# What the parts of an address mean, and an example of each.
_ADDRESS = {
    "owner": ("The handle of the account that owns it.", "alice"),
    "project": ("The project's handle.", "letters"),
    "handle": ("Its own handle.", "my-openai"),
    "user": ("An account's handle.", "bob"),
    "id": ("Its id.", "0198b5a4-2f6e-7cc1-9d53-6f0d4f9d2b10"),
    "standard": ("The API standard's handle.", "openai"),
    "text_id": (
        "The id of the text, percent-encoded: a slash in it may stay, or be sent as `%2F`.",
        "letter-1:p.3",
    ),
}


class FieldProblem(serializers.Serializer[Any]):
    """One thing wrong with a request."""

    location = serializers.CharField(help_text="Where, such as `body.embeddings[3].vector`.")
    message = serializers.CharField()


class Problem(serializers.Serializer[Any]):
    """RFC 9457 problem details."""

    type = serializers.CharField(help_text="A stable name of the kind of problem.")
    title = serializers.CharField(help_text="The reason phrase of the status.")
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="What is wrong and the way out, in a sentence.")
    details = serializers.DictField(
        required=False, help_text="What programs want to know beside the sentence, such as counts."
    )
    # The name is RFC 9457's custom; the serializer's own `errors` is not needed to describe.
    errors = FieldProblem(many=True, required=False)  # type: ignore[assignment]


@extend_schema_field(
    {
        "oneOf": [
            {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "loc": {"type": "string", "description": "Such as `metadata.team`."},
                        "msg": {"type": "string"},
                        "type": {"type": "string", "description": "Such as `required`."},
                    },
                    "required": ["loc", "msg", "type"],
                },
            },
            {"type": "object", "additionalProperties": True},
        ]
    }
)
class ErrorDetails(serializers.Field[Any, Any, Any, Any]):
    """What is wrong with each value; for other refusals, counts and the like."""


class Error(serializers.Serializer[Any]):
    """A refusal of the Projects API."""

    message = serializers.CharField(help_text="What is wrong and the way out, in a sentence.")
    code = serializers.CharField(help_text="A stable name of the kind of refusal.")
    type = serializers.CharField(help_text="The family of refusals it belongs to.")
    details = ErrorDetails(required=False)


class ErrorOut(serializers.Serializer[Any]):
    """The body of every refusal of the Projects API."""

    error = Error()


class Message(serializers.Serializer[Any]):
    """What was done, in a sentence."""

    message = serializers.CharField()


class ListOut(serializers.Serializer[Any]):
    """What every list says about itself."""

    total_count = serializers.IntegerField()
    limit = serializers.IntegerField()
    offset = serializers.IntegerField()
    has_more = serializers.BooleanField()


class BearerKey(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Describes how a key is sent."""

    target_class = "accounts.authentication.KeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        """Return the security scheme."""
        return {"type": "http", "scheme": "bearer", "description": "An API key."}


class UncheckedBearerKey(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Says the same of views that look themselves whether the key is good."""

    target_class = "accounts.authentication.UncheckedKeyAuthentication"
    # `BearerKey` describes the scheme: a second description of one name would be a conflict.
    name: Any = ()

    def get_security_requirement(self, auto_schema: Any) -> Any:
        """Return the scheme's name."""
        return {BearerKey.name: []}

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
        """Return no further scheme."""
        return []


class AuthKey(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Describes the other way, which the Projects API takes too."""

    target_class = "accounts.authentication.AuthKeyAuthentication"
    name = "authKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        """Return the security scheme."""
        header = {"type": "apiKey", "in": "header", "name": "X-Auth-Key"}
        return {**header, "description": "The same key; for the Projects API only."}


class Schema(AutoSchema):
    """Describes a method by what its view declares, never by guesswork."""

    def _is_list_view(self, serializer: Any = None) -> bool:
        return False

    def get_auth(self) -> list[Any]:
        """Return how to authenticate; an empty object means that it works without a key too."""
        schemes: list[Any] = super().get_auth()
        admitting = (
            getattr(permission, "anonymous_methods", ())
            for permission in self.view.get_permissions()
        )
        if schemes and all(self.method in methods for methods in admitting):
            schemes.append({})
        return schemes

    def get_operation(self, *arguments: Any, **keywords: Any) -> Any:
        """Return the operation, with the conditions on versions where the view has them."""
        described = super().get_operation(*arguments, **keywords)
        takes = {"PUT", "PATCH", "DELETE"}
        if (
            described
            and isinstance(self.view, Tagged)
            and self.method in takes | {*self.view.showing}
        ):
            _describe_versions(described, self.view, self.method)
        return described

    def _resolve_path_parameters(self, variables: Any) -> list[Any]:
        parameters: list[Any] = super()._resolve_path_parameters(  # type: ignore[no-untyped-call]
            variables
        )
        for parameter in parameters:
            meaning, example = _ADDRESS[parameter["name"]]
            parameter |= {
                "description": meaning,
                "example": example,
                "schema": {"type": "string", "minLength": 1},
            }
            if parameter["name"] == "id":
                parameter["schema"] = {"type": "string", "format": "uuid"}
        return parameters


def _describe_versions(described: dict[str, Any], view: Tagged, method: str) -> None:
    """Add the headers and statuses of `common.entity_tags` to an operation."""
    responses = described["responses"]
    parameters = described.setdefault("parameters", [])
    if method == "GET":
        parameters.append(_header(IF_NONE_MATCH, "Answer 304 if this is the present `ETag`."))
        responses["304"] = {"description": _MEANING[304]}
    else:
        parameters.append(_header(IF_MATCH, "Change only the version of this `ETag`."))
        if method in {"PUT", "POST"}:
            parameters.append(_header(IF_NONE_MATCH, "`*`: only if there is nothing here."))
        # A refusal like any other.
        responses["412"] = {**responses["400"], "description": _MEANING[412]}
    if method in view.showing:
        for status in {"200", "201"} & responses.keys():
            responses[status]["headers"] = {
                "ETag": {"schema": {"type": "string"}, "description": "The version shown."}
            }
    described["responses"] = dict(sorted(responses.items()))


def _header(name: str, meaning: str) -> dict[str, Any]:
    return {"in": "header", "name": name, "description": meaning, "schema": {"type": "string"}}


def operation(
    summary: str,
    *,
    name: str,
    tag: str,
    answers: Mapping[int, Any],
    media: Mapping[tuple[int, str], Any] | None = None,
    request: Any = None,
    query: type[Query] | None = None,
    errors: Sequence[int] = (),
    public: bool = False,
    description: str = "",
    examples: Sequence[OpenApiExample] = (),
) -> Callable[[F], F]:
    """Describe a method of a view.

    name: the operation's id, which generated clients take for a function's name.
    answers: the serializer of each success status.
    media: what other media types the answers may have, and the shape of each.
    request: the serializer of the body, or one of each media type that it may have.
    errors: the statuses beside those that every route of its kind has.
    public: whether it refuses nobody; a key that is sent must be a good one all the same.
    """
    statuses = {*_ALWAYS, *_WITH_KEY, *errors}
    if not public:
        statuses.add(HTTPStatus.FORBIDDEN)
    if request is not None:
        statuses |= set(_WITH_BODY)
    refusals: dict[Any, Any] = {(int(status), CONTENT_TYPE): Problem for status in statuses}
    described: dict[Any, Any] = dict(answers)
    if media is not None:
        described = {(status, JSON): shape for status, shape in answers.items()} | dict(media)
    return extend_schema(
        summary=summary,
        description=description or None,
        operation_id=name,
        tags=[tag],
        request=request,
        parameters=[query] if query is not None else None,
        responses=_responses(described, refusals, _MEANING),
        examples=list(examples) or None,
    )


def _responses(
    answers: Mapping[Any, Any], refusals: Mapping[Any, Any], meanings: Mapping[int, str]
) -> dict[Any, OpenApiResponse]:
    """Return the description of answers and refusals, by status, or by status and media type."""
    described: dict[Any, OpenApiResponse] = {
        key: OpenApiResponse(shape, meanings[key[0] if isinstance(key, tuple) else key])
        for key, shape in answers.items()
    }
    for key in sorted(refusals):
        described[key] = OpenApiResponse(refusals[key], meanings[key[0]])
    return described


METADATA_FILTER = OpenApiParameter(
    metadata_filter.PARAMETER,
    OpenApiTypes.STR,
    description=(
        "Only entries whose metadata contains this JSON object. Or one parameter a value, with "
        "dots between keys: `metadata_filter.team.lead=x`. A value matches the same text and the "
        "JSON scalar it spells; a parameter given several times, an array with all the values."
    ),
    examples=[
        OpenApiExample("An object", value='{"team": "research"}'),
    ],
)


def own_operation(
    summary: str,
    *,
    name: str,
    tag: str,
    answers: Mapping[int, Any],
    request: Any = None,
    query: type[Query] | None = None,
    errors: Sequence[int] = (),
    description: str = "",
    examples: Sequence[OpenApiExample] = (),
) -> Callable[[F], F]:
    """Describe a method of a view of the Projects API; the arguments are those of `operation`."""
    statuses = {*_ALWAYS, *_WITH_KEY, HTTPStatus.FORBIDDEN, *errors}
    statuses.add(HTTPStatus.UNPROCESSABLE_ENTITY)
    if request is not None:
        statuses |= set(_WITH_BODY)
    refusals = {(int(status), "application/json"): ErrorOut for status in statuses}
    parameters: list[Any] = [query] if query is not None else []
    if query is not None and issubclass(query, FilteredListing):
        parameters.append(METADATA_FILTER)
    return extend_schema(
        summary=summary,
        description=description or None,
        operation_id=name,
        tags=[tag],
        request=request,
        parameters=parameters or None,
        responses=_responses(answers, refusals, _OWN_MEANING),
        examples=list(examples) or None,
    )


def body_example(name: str, value: Any) -> OpenApiExample:
    """Return an example of a request body."""
    return OpenApiExample(name, value=value, request_only=True)


def without_field(example: OpenApiExample, field: str) -> OpenApiExample:
    """Return the example of a body without a field that the address gives."""
    return body_example(
        example.name, {name: each for name, each in example.value.items() if name != field}
    )


def answer_example(name: str, value: Any, *, status: int = 200) -> OpenApiExample:
    """Return an example of an answer."""
    return OpenApiExample(name, value=value, response_only=True, status_codes=[str(status)])


def document_problems(
    result: dict[str, Any], generator: Any, request: Any, public: bool
) -> dict[str, Any]:
    """Give every operation the headers that its refusals carry (a spectacular hook)."""
    for address, path in result["paths"].items():
        for described in path.values():
            responses = described.get("responses", {})
            if "409" in responses and projects_api.serves(address):
                responses["409"]["headers"] = {
                    "x-should-retry": {"schema": {"type": "string", "enum": ["false"]}}
                }
            if "security" not in described:
                # Nobody looks at a key here.
                for status in map(str, map(int, _WITH_KEY)):
                    responses.pop(status, None)
            if "401" in responses:
                responses["401"]["headers"] = {
                    "WWW-Authenticate": {"schema": {"type": "string", "example": "Bearer"}}
                }
            for status in {"429", "503"} & responses.keys():
                responses[status]["headers"] = {
                    "Retry-After": {"schema": {"type": "string"}, "description": "Seconds."}
                }
    return result


def without_aliases(endpoints: list[Any]) -> list[Any]:
    """Leave the second names of routes out of the document (a spectacular hook)."""
    aliases = ("/v1/llm-definitions", "/v1/llm-instances")
    return [each for each in endpoints if not each[0].startswith(aliases)]

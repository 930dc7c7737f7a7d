"""How views are described in OpenAPI: one decorator a method, and the problem bodies."""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework import serializers

from common.problems import CONTENT_TYPE
from common.query import Query

F = TypeVar("F", bound=Callable[..., Any])

# What any request may meet, whatever it asks.
_ALWAYS = (HTTPStatus.BAD_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE)
_WITH_BODY = (
    HTTPStatus.LENGTH_REQUIRED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)
_MEANING = {
    400: "The request is malformed, or a value or parameter is wrong.",
    401: "The key is missing, malformed, unknown, expired or revoked.",
    403: "The key is valid, its account may not do this.",
    404: "There is nothing at this address.",
    409: "It exists already, or is in use.",
    411: "The body has neither a Content-Length nor chunks.",
    413: "The body is larger than allowed.",
    415: "The body is not JSON in UTF-8.",
    422: "The metadata schema cannot be used.",
    503: "The database did not answer in time; try again.",
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
    errors = FieldProblem(many=True, required=False)


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


class Schema(AutoSchema):
    """Marks the query parameters of list routes as the view declares them, never by guesswork."""

    def _is_list_view(self, serializer: Any = None) -> bool:
        return False


def operation(
    summary: str,
    *,
    tag: str,
    answers: Mapping[int, Any],
    request: Any = None,
    query: type[Query] | None = None,
    errors: Sequence[int] = (),
    public: bool = False,
    description: str = "",
    examples: Sequence[OpenApiExample] = (),
    name: str | None = None,
) -> Callable[[F], F]:
    """Describe a method of a view.

    answers: the serializer of each success status.
    errors: the statuses beside those that every route of its kind has.
    public: whether it may be asked without a key.
    name: the operation's id, where the generated one would not be unique.
    """
    statuses = {*_ALWAYS, *errors}
    if not public:
        statuses |= {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
    if request is not None:
        statuses |= set(_WITH_BODY)
    responses: dict[Any, Any] = dict(answers)
    for status in sorted(statuses):
        responses[int(status), CONTENT_TYPE] = OpenApiResponse(Problem, _MEANING[int(status)])
    return extend_schema(
        summary=summary,
        description=description or None,
        operation_id=name,
        tags=[tag],
        request=request,
        parameters=[query] if query is not None else None,
        responses=responses,
        examples=list(examples) or None,
        **({"auth": []} if public and HTTPStatus.UNAUTHORIZED not in statuses else {}),
    )


def body_example(name: str, value: Any) -> OpenApiExample:
    """Return an example of a request body."""
    return OpenApiExample(name, value=value, request_only=True)


def answer_example(name: str, value: Any, *, status: int = 200) -> OpenApiExample:
    """Return an example of an answer."""
    return OpenApiExample(name, value=value, response_only=True, status_codes=[str(status)])


def document_problems(
    result: dict[str, Any], generator: Any, request: Any, public: bool
) -> dict[str, Any]:
    """Give every operation the headers that its refusals carry (a spectacular hook)."""
    for path in result["paths"].values():
        for described in path.values():
            responses = described.get("responses", {})
            if "401" in responses:
                responses["401"]["headers"] = {
                    "WWW-Authenticate": {"schema": {"type": "string", "example": "Bearer"}}
                }
            if "503" in responses:
                responses["503"]["headers"] = {
                    "Retry-After": {"schema": {"type": "string"}, "description": "Seconds."}
                }
    return result


def without_aliases(endpoints: list[Any]) -> list[Any]:
    """Leave the second names of routes out of the document (a spectacular hook)."""
    aliases = ("/v1/llm-definitions", "/v1/llm-instances")
    return [each for each in endpoints if not each[0].startswith(aliases)]

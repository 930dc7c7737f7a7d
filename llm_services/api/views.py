"""API standards, definitions and instances, and the shares of the latter two."""

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import PublicReading, actor_of
from accounts.models import Role, Share
from accounts.policy import Level
from common.api import Resource, given
from common.entity_tags import Tagged
from common.handles import same_as_address
from common.pagination import page_of
from common.query import Paging
from common.schema import Message, answer_example, body_example, operation, without_field
from llm_services import embedding, selectors, services
from llm_services.api.serializers import (
    DefinitionIn,
    DefinitionOut,
    DefinitionShareIn,
    DefinitionSharesOut,
    DefinitionsOut,
    InstanceIn,
    InstanceOut,
    InstanceShareIn,
    InstanceSharesOut,
    InstancesOut,
    NewDefinitionIn,
    NewInstanceIn,
    NewStandardIn,
    ShareOut,
    StandardIn,
    StandardOut,
    StandardsOut,
    TrialIn,
    TrialOut,
)
from llm_services.models import Definition, DefinitionShare, Instance, InstanceShare

STANDARDS = "API standards"
DEFINITIONS = "LLM service definitions"
INSTANCES = "LLM services"

_STANDARD = body_example(
    "A standard",
    {
        "api_standard_handle": "mistral",
        "description": "Mistral embeddings API",
        "key_method": "auth_bearer",
        "key_field": "Authorization",
    },
)
_DEFINITION = body_example(
    "A definition",
    {
        "definition_handle": "mistral-embed",
        "endpoint": "https://api.mistral.ai/v1/embeddings",
        "api_standard": "openai",
        "model": "mistral-embed",
        "dimensions": 1024,
        "context_limit": 8192,
        "is_public": False,
    },
)
_STANDALONE = body_example(
    "Standalone",
    {
        "instance_handle": "my-openai",
        "endpoint": "https://api.openai.com/v1/embeddings",
        "api_standard": "openai",
        "model": "text-embedding-3-large",
        "dimensions": 3072,
        "api_key_encrypted": "sk-…",
    },
)
_FROM_DEFINITION = body_example(
    "From a definition",
    {
        "instance_handle": "my-openai",
        "definition_owner": "_system",
        "definition_handle": "openai-large",
        "api_key_encrypted": "sk-…",
    },
)


class Standards(Resource):
    """All API standards."""

    permission_classes = [PublicReading]
    queries = {"get": Paging}

    @operation(
        "List API standards",
        name="list_api_standards",
        tag=STANDARDS,
        answers={200: StandardsOut},
        query=Paging,
        public=True,
    )
    def get(self, request: Request) -> Response:
        """Return the protocols that instances can speak."""
        page = page_of(selectors.all_standards(), **self.query)
        return Response(page.envelope("standards", StandardOut(page.items, many=True).data))

    @operation(
        "Create an API standard",
        name="create_api_standard",
        tag=STANDARDS,
        request=NewStandardIn,
        answers={201: StandardOut},
        errors=[409],
        examples=[_STANDARD],
    )
    def post(self, request: Request) -> Response:
        """Create a standard; for administrators."""
        values = given(NewStandardIn, request)
        handle = values.pop("api_standard_handle")
        standard = services.create_standard(actor=actor_of(request), handle=handle, values=values)
        return Response(StandardOut(standard).data, status=201)


class OneStandard(Tagged):
    """One API standard."""

    permission_classes = [PublicReading]

    def hold(self, request: Request, standard: str) -> None:
        """Let nobody else change the standard."""
        services.hold_standard(actor=actor_of(request), handle=standard)

    @operation(
        "Get an API standard",
        name="get_api_standard",
        tag=STANDARDS,
        answers={200: StandardOut},
        errors=[404],
        public=True,
    )
    def get(self, request: Request, standard: str) -> Response:
        """Return one protocol."""
        return Response(StandardOut(selectors.standard_named(standard)).data)

    @operation(
        "Create or replace an API standard",
        name="replace_api_standard",
        tag=STANDARDS,
        request=StandardIn,
        answers={200: StandardOut, 201: StandardOut},
        errors=[409],
        examples=[without_field(_STANDARD, "api_standard_handle")],
    )
    def put(self, request: Request, standard: str) -> Response:
        """Create or replace a standard; for administrators."""
        values = given(StandardIn, request)
        same_as_address(
            values.pop("api_standard_handle", None), standard, field="api_standard_handle"
        )
        result, created = services.replace_standard(
            actor=actor_of(request), handle=standard, values=values
        )
        return Response(StandardOut(result).data, status=201 if created else 200)

    @operation(
        "Change an API standard",
        name="update_api_standard",
        tag=STANDARDS,
        request=StandardIn,
        answers={200: StandardOut},
        errors=[404],
        examples=[body_example("A description", {"description": "Mistral, version 1"})],
    )
    def patch(self, request: Request, standard: str) -> Response:
        """Change some fields; for administrators."""
        values = given(StandardIn, request, partial=True)
        same_as_address(
            values.pop("api_standard_handle", None), standard, field="api_standard_handle"
        )
        result = services.update_standard(actor=actor_of(request), handle=standard, changes=values)
        return Response(StandardOut(result).data)

    @operation(
        "Delete an API standard",
        name="delete_api_standard",
        tag=STANDARDS,
        answers={200: Message},
        errors=[404, 409],
    )
    def delete(self, request: Request, standard: str) -> Response:
        """Delete a standard that nothing refers to; for administrators."""
        services.delete_standard(actor=actor_of(request), handle=standard)
        return Response({"message": f"API standard '{standard}' deleted."})


class Definitions(Resource):
    """The definitions of an owner."""

    queries = {"get": Paging}

    @operation(
        "List definitions",
        name="list_definitions",
        tag=DEFINITIONS,
        answers={200: DefinitionsOut},
        errors=[404],
        query=Paging,
        description=(
            "The owner's own, those shared with the owner, and those of `_system`. "
            "The list of `_system` is open to every key."
        ),
    )
    def get(self, request: Request, owner: str) -> Response:
        """Return the templates that an owner can make instances from."""
        page = page_of(selectors.definitions_of(actor_of(request), owner), **self.query)
        return Response(page.envelope("definitions", DefinitionOut(page.items, many=True).data))

    @operation(
        "Create a definition",
        name="create_definition",
        tag=DEFINITIONS,
        request=NewDefinitionIn,
        answers={201: DefinitionOut},
        errors=[404, 409],
        examples=[_DEFINITION],
    )
    def post(self, request: Request, owner: str) -> Response:
        """Create a definition; under `_system` for administrators only."""
        values = given(NewDefinitionIn, request)
        handle = values.pop("definition_handle")
        definition = services.create_definition(
            actor=actor_of(request), owner=owner, handle=handle, values=values
        )
        return Response(DefinitionOut(definition).data, status=201)


class OneDefinition(Tagged):
    """One definition."""

    def hold(self, request: Request, owner: str, handle: str) -> None:
        """Let nobody else change the definition."""
        services.hold_definition(actor=actor_of(request), owner=owner, handle=handle)

    @operation(
        "Get a definition",
        name="get_definition",
        tag=DEFINITIONS,
        answers={200: DefinitionOut},
        errors=[404],
    )
    def get(self, request: Request, owner: str, handle: str) -> Response:
        """Return a definition; for its owner, those it is shared with, and all if it is public."""
        definition = selectors.definition_for(
            actor_of(request), Level.READER, owner=owner, handle=handle
        )
        return Response(DefinitionOut(definition).data)

    @operation(
        "Create or replace a definition",
        name="replace_definition",
        tag=DEFINITIONS,
        request=DefinitionIn,
        answers={200: DefinitionOut, 201: DefinitionOut},
        errors=[404, 409],
        examples=[without_field(_DEFINITION, "definition_handle")],
    )
    def put(self, request: Request, owner: str, handle: str) -> Response:
        """Create or replace a definition. Instances made from it keep their values."""
        values = given(DefinitionIn, request)
        same_as_address(values.pop("definition_handle", None), handle, field="definition_handle")
        definition, created = services.replace_definition(
            actor=actor_of(request), owner=owner, handle=handle, values=values
        )
        return Response(DefinitionOut(definition).data, status=201 if created else 200)

    @operation(
        "Change a definition",
        name="update_definition",
        tag=DEFINITIONS,
        request=DefinitionIn,
        answers={200: DefinitionOut},
        errors=[404],
        examples=[body_example("Publish it", {"is_public": True})],
    )
    def patch(self, request: Request, owner: str, handle: str) -> Response:
        """Change some fields of a definition."""
        values = given(DefinitionIn, request, partial=True)
        same_as_address(values.pop("definition_handle", None), handle, field="definition_handle")
        definition = services.update_definition(
            actor=actor_of(request), owner=owner, handle=handle, changes=values
        )
        return Response(DefinitionOut(definition).data)

    @operation(
        "Delete a definition",
        name="delete_definition",
        tag=DEFINITIONS,
        answers={200: Message},
        errors=[404],
    )
    def delete(self, request: Request, owner: str, handle: str) -> Response:
        """Delete a definition; instances made from it stay."""
        services.delete_definition(actor=actor_of(request), owner=owner, handle=handle)
        return Response({"message": f"LLM service definition '{owner}/{handle}' deleted."})


class DefinitionShares(Resource):
    """Giving a definition to others."""

    @operation(
        "Share a definition",
        name="share_definition",
        tag=DEFINITIONS,
        request=DefinitionShareIn,
        answers={201: DefinitionSharesOut},
        errors=[404],
        examples=[body_example("To bob", {"share_with_handle": "bob"})],
    )
    def post(self, request: Request, owner: str, handle: str) -> Response:
        """Let another account read the definition."""
        values = given(DefinitionShareIn, request)
        definition = services.share_definition(
            actor=actor_of(request), owner=owner, handle=handle, user=values["share_with_handle"]
        )
        return Response(_definition_shares(definition), status=201)


class OneDefinitionShare(Resource):
    """One grant on a definition."""

    @operation(
        "Unshare a definition",
        name="unshare_definition",
        tag=DEFINITIONS,
        answers={200: Message},
        errors=[404],
    )
    def delete(self, request: Request, owner: str, handle: str, user: str) -> Response:
        """Take the definition back from an account."""
        definition = services.unshare_definition(
            actor=actor_of(request), owner=owner, handle=handle, user=user
        )
        return Response({"message": f"'{definition}' is no longer shared with '{user}'."})


class DefinitionSharedWith(Resource):
    """Who a definition is shared with."""

    @operation(
        "List the shares of a definition",
        name="list_definition_shares",
        tag=DEFINITIONS,
        answers={200: DefinitionSharesOut},
        errors=[404],
    )
    def get(self, request: Request, owner: str, handle: str) -> Response:
        """Return the accounts that may read the definition; for its owner."""
        definition = selectors.definition_for(
            actor_of(request), Level.OWNER, owner=owner, handle=handle
        )
        return Response(_definition_shares(definition))


class Instances(Resource):
    """The instances of an owner."""

    queries = {"get": Paging}

    @operation(
        "List LLM services",
        name="list_llm_services",
        tag=INSTANCES,
        answers={200: InstancesOut},
        errors=[404],
        query=Paging,
        description=(
            "The owner's own instances and those shared with the owner; `access_role` tells them "
            "apart. The built-in instance is listed under `_system`, for every key."
        ),
    )
    def get(self, request: Request, owner: str) -> Response:
        """Return the instances that an owner can base projects on."""
        page = page_of(selectors.instances_of(actor_of(request), owner), **self.query)
        return Response(page.envelope("instances", InstanceOut(page.items, many=True).data))

    @operation(
        "Create an LLM service",
        name="create_llm_service",
        tag=INSTANCES,
        request=NewInstanceIn,
        answers={201: InstanceOut},
        errors=[404, 409],
        examples=[_STANDALONE, _FROM_DEFINITION],
    )
    def post(self, request: Request, owner: str) -> Response:
        """Create an instance, standalone or from a definition whose values it copies."""
        values = given(NewInstanceIn, request)
        handle = values.pop("instance_handle")
        instance = services.create_instance(
            actor=actor_of(request), owner=owner, handle=handle, values=values
        )
        return Response(InstanceOut(instance).data, status=201)


class FromDefinition(Resource):
    """Another address for making an instance from a definition."""

    @operation(
        "Create an LLM service from a definition",
        name="create_llm_service_from_definition",
        tag=INSTANCES,
        request=NewInstanceIn,
        answers={201: InstanceOut},
        errors=[404, 409],
        examples=[_FROM_DEFINITION],
    )
    def post(self, request: Request, owner: str) -> Response:
        """Create an instance from a definition; fields given beside it override its values."""
        values = given(NewInstanceIn, request)
        handle = values.pop("instance_handle")
        instance = services.create_instance(
            actor=actor_of(request),
            owner=owner,
            handle=handle,
            values=values,
            from_definition=True,
        )
        return Response(InstanceOut(instance).data, status=201)


class OneInstance(Tagged):
    """One instance."""

    def hold(self, request: Request, owner: str, handle: str) -> None:
        """Let nobody else change the instance."""
        services.hold_instance(actor=actor_of(request), owner=owner, handle=handle)

    @operation(
        "Get an LLM service",
        name="get_llm_service",
        tag=INSTANCES,
        answers={200: InstanceOut},
        errors=[404],
    )
    def get(self, request: Request, owner: str, handle: str) -> Response:
        """Return an instance's configuration without its key; for its owner and sharees."""
        instance = selectors.instance_for(
            actor_of(request), Level.READER, owner=owner, handle=handle
        )
        return Response(InstanceOut(instance).data)

    @operation(
        "Create or replace an LLM service",
        name="replace_llm_service",
        tag=INSTANCES,
        request=InstanceIn,
        answers={200: InstanceOut, 201: InstanceOut},
        errors=[404, 409],
        examples=[
            without_field(_STANDALONE, "instance_handle"),
            without_field(_FROM_DEFINITION, "instance_handle"),
        ],
    )
    def put(self, request: Request, owner: str, handle: str) -> Response:
        """Create or replace an instance. A stored key stays unless the request names one."""
        values = given(InstanceIn, request)
        same_as_address(values.pop("instance_handle", None), handle, field="instance_handle")
        instance, created = services.replace_instance(
            actor=actor_of(request), owner=owner, handle=handle, values=values
        )
        return Response(InstanceOut(instance).data, status=201 if created else 200)

    @operation(
        "Change an LLM service",
        name="update_llm_service",
        tag=INSTANCES,
        request=InstanceIn,
        answers={200: InstanceOut},
        errors=[404, 409],
        examples=[body_example("A new key", {"api_key_encrypted": "sk-…"})],
    )
    def patch(self, request: Request, owner: str, handle: str) -> Response:
        """Change some fields. Moving the endpoint to another server erases a stored key."""
        values = given(InstanceIn, request, partial=True)
        same_as_address(values.pop("instance_handle", None), handle, field="instance_handle")
        instance = services.update_instance(
            actor=actor_of(request), owner=owner, handle=handle, changes=values
        )
        return Response(InstanceOut(instance).data)

    @operation(
        "Delete an LLM service",
        name="delete_llm_service",
        tag=INSTANCES,
        answers={200: Message},
        errors=[404, 409],
    )
    def delete(self, request: Request, owner: str, handle: str) -> Response:
        """Delete an instance that no project uses."""
        services.delete_instance(actor=actor_of(request), owner=owner, handle=handle)
        return Response({"message": f"LLM service '{owner}/{handle}' deleted."})


class InstanceShares(Resource):
    """Giving an instance to others."""

    @operation(
        "Share an LLM service",
        name="share_llm_service",
        tag=INSTANCES,
        request=InstanceShareIn,
        answers={201: InstanceSharesOut},
        errors=[404],
        examples=[body_example("To bob", {"share_with_handle": "bob", "role": "reader"})],
    )
    def post(self, request: Request, owner: str, handle: str) -> Response:
        """Let another account use the instance for its projects, without seeing the key."""
        values = given(InstanceShareIn, request)
        instance = services.share_instance(
            actor=actor_of(request),
            owner=owner,
            handle=handle,
            user=values["share_with_handle"],
            role=Role(values["role"]),
        )
        return Response(_instance_shares(instance), status=201)


class OneInstanceShare(Resource):
    """One grant on an instance."""

    @operation(
        "Unshare an LLM service",
        name="unshare_llm_service",
        tag=INSTANCES,
        answers={200: Message},
        errors=[404],
    )
    def delete(self, request: Request, owner: str, handle: str, user: str) -> Response:
        """Take the instance back from an account; its projects keep the instance."""
        instance = services.unshare_instance(
            actor=actor_of(request), owner=owner, handle=handle, user=user
        )
        return Response({"message": f"'{instance}' is no longer shared with '{user}'."})


class InstanceSharedWith(Resource):
    """Who an instance is shared with."""

    @operation(
        "List the shares of an LLM service",
        name="list_llm_service_shares",
        tag=INSTANCES,
        answers={200: InstanceSharesOut},
        errors=[404],
    )
    def get(self, request: Request, owner: str, handle: str) -> Response:
        """Return the accounts that may use the instance; for its owner."""
        instance = selectors.instance_for(
            actor_of(request), Level.OWNER, owner=owner, handle=handle
        )
        return Response(_instance_shares(instance))


class InstanceTrial(Resource):
    """Whether an instance works."""

    @operation(
        "Test an LLM service",
        name="test_llm_service",
        tag=INSTANCES,
        request=TrialIn,
        answers={200: TrialOut},
        errors=[404, 409, 502, 504],
        description=(
            "Embeds one text and keeps nothing. 409 says what in the instance's configuration its "
            "provider refuses: key, endpoint, model or dimensions; 502 and 504 that the provider "
            "failed. For whoever may use the instance."
        ),
        examples=[
            body_example("Any text", {}),
            body_example("One of your own", {"text": "The lighthouse keeper's daughter"}),
            answer_example(
                "It works",
                {
                    "model": "text-embedding-3-small",
                    "dimensions": 1536,
                    "milliseconds": 212.4,
                    "tokens": 6,
                },
            ),
        ],
    )
    def post(self, request: Request, owner: str, handle: str) -> Response:
        """Embed a short text and tell how it went."""
        values = given(TrialIn, request)
        instance = selectors.instance_for(
            actor_of(request), Level.READER, owner=owner, handle=handle
        )
        return Response(TrialOut(embedding.try_out(instance, values.get("text"))).data)


def _shares(shares: type[Share], subject: Definition | Instance) -> Any:
    return ShareOut(
        [{"user_handle": each.user.handle, "role": each.role} for each in shares.of(subject)],
        many=True,
    ).data


def _definition_shares(definition: Definition) -> dict[str, Any]:
    return {
        "definition": str(definition),
        "owner": definition.owner.handle,
        "definition_handle": definition.handle,
        "shared_with": _shares(DefinitionShare, definition),
    }


def _instance_shares(instance: Instance) -> dict[str, Any]:
    return {
        "instance": str(instance),
        "owner": instance.owner.handle,
        "instance_handle": instance.handle,
        "shared_with": _shares(InstanceShare, instance),
    }

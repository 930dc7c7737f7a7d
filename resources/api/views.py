"""Agents, end users and files in the projects that the key's account owns."""

from io import BytesIO
from typing import Any, ClassVar

from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import OWN_AUTHENTICATION, actor_of
from common.api import Resource, given
from common.entity_tags import Tagged
from common.listing import listed
from common.own_views import ResourceDeletedOut, deleted, read_id
from common.schema import answer_example, body_example, own_operation
from resources import selectors, services
from resources.api import examples
from resources.api.serializers import (
    AgentIn,
    AgentOut,
    AgentsOut,
    EndUserIn,
    EndUserOut,
    EndUsersOut,
    FileChangeIn,
    FileIn,
    FileListing,
    FileWithContentOut,
    ModelsOut,
    ResourceListing,
)
from resources.api.streaming import file_response, files_response
from resources.models import Agent, EndUser, File, ProjectResource

AGENTS = "Agents"
END_USERS = "End users"
FILES = "Files"

_LIST_OF_FILES = {
    "type": "array",
    "items": {"$ref": "#/components/schemas/FileWithContentOut"},
}
_PUT = "What is not given goes back to its default; project and canonical name stay."
_PATCH = "Metadata is merged at its top level; everything else that is given is replaced."
_POST_ID = "An id that the account has not used yet makes one of that id."


class _Kind(Resource):
    """What the addresses of one kind have in common.

    kind, shape_in, shape_out: the model, and its shapes in requests and answers.
    """

    authentication_classes = OWN_AUTHENTICATION
    kind: ClassVar[type[ProjectResource]]
    shape_in: ClassVar[type[Any]]
    shape_out: ClassVar[type[Any]]

    def shown(self, row: ProjectResource, *, status: int = 200) -> Response:
        """Return the answer that shows one."""
        return Response(self.shape_out(row).data, status=status)

    def list(self, request: Request) -> Response:
        """Return the part of the list that the query asks for."""
        rows = selectors.resources_of(
            actor_of(request), self.kind, project=self.query.pop("project", None)
        )
        return Response({"items": self.shape_out(listed(rows, self.query), many=True).data})

    def create(self, request: Request) -> Response:
        """Make one of the request's body."""
        row = services.create_resource(
            self.kind, actor=actor_of(request), values=given(self.shape_in, request)
        )
        return self.shown(row, status=201)

    def find(self, request: Request, id: str) -> Response:
        """Return one."""
        return self.shown(selectors.resource_for(actor_of(request), self.kind, read_id(id)))

    def hold(self, request: Request, id: str) -> None:
        """Let nobody else change one."""
        services.hold_resource(self.kind, actor=actor_of(request), uuid=read_id(id))

    def create_or_replace(self, request: Request, id: str) -> Response:
        """Replace one, or make it."""
        row, created = services.create_or_replace_resource(
            self.kind,
            actor=actor_of(request),
            uuid=read_id(id),
            values=given(self.shape_in, request),
        )
        return self.shown(row, status=201 if created else 200)

    def replace(self, request: Request, id: str) -> Response:
        """Replace one."""
        row = services.replace_resource(
            self.kind,
            actor=actor_of(request),
            uuid=read_id(id),
            values=given(self.shape_in, request),
        )
        return self.shown(row)

    def update(self, request: Request, id: str) -> Response:
        """Change some of one."""
        row = services.update_resource(
            self.kind,
            actor=actor_of(request),
            uuid=read_id(id),
            changes=given(self.shape_in, request, partial=True),
        )
        return self.shown(row)

    def remove(self, request: Request, id: str) -> Response:
        """Delete one."""
        uuid = read_id(id)
        services.delete_resource(self.kind, actor=actor_of(request), uuid=uuid)
        return deleted(uuid)


# --- Agents ---------------------------------------------------------------------------------------
class _Agents(_Kind):
    kind = Agent
    shape_in = AgentIn
    shape_out = AgentOut


class Agents(_Agents):
    """The agents of the key's account."""

    queries = {"get": ResourceListing}

    @own_operation(
        "List agents",
        name="list_agents",
        tag=AGENTS,
        answers={200: AgentsOut},
        query=ResourceListing,
        examples=[answer_example("One agent", {"items": [examples.AGENT]})],
    )
    def get(self, request: Request) -> Response:
        """Return the agents in all projects of the account, or in one of them."""
        return self.list(request)

    @own_operation(
        "Create an agent",
        name="create_agent",
        tag=AGENTS,
        request=AgentIn,
        answers={201: AgentOut},
        errors=[404, 409],
        examples=[
            body_example("In a project", examples.NEW_AGENT),
            answer_example("The agent", examples.AGENT, status=201),
        ],
    )
    def post(self, request: Request) -> Response:
        """Create an agent in the project it names, or in `default`."""
        return self.create(request)


class AgentModels(Resource):
    """The models that agents can run on."""

    authentication_classes = OWN_AUTHENTICATION

    @own_operation(
        "List models",
        name="list_agent_models",
        tag=AGENTS,
        answers={200: ModelsOut},
    )
    def get(self, request: Request) -> Response:
        """Return no models: this server runs none, so an agent's model may be any text."""
        return Response({"models": []})


class OneAgent(_Agents, Tagged):
    """One agent of the key's account."""

    @own_operation(
        "Get an agent", name="get_agent", tag=AGENTS, answers={200: AgentOut}, errors=[404]
    )
    def get(self, request: Request, id: str) -> Response:
        """Return an agent of the account."""
        return self.find(request, id)

    @own_operation(
        "Create or replace an agent",
        name="create_or_replace_agent",
        tag=AGENTS,
        request=AgentIn,
        answers={200: AgentOut, 201: AgentOut},
        errors=[404, 409],
        examples=[body_example("In a project", examples.NEW_AGENT)],
        description=f"{_POST_ID} {_PUT}",
    )
    def post(self, request: Request, id: str) -> Response:
        """Replace an agent, or create one with an id of the caller's choice."""
        return self.create_or_replace(request, id)

    @own_operation(
        "Replace an agent",
        name="replace_agent",
        tag=AGENTS,
        request=AgentIn,
        answers={200: AgentOut},
        errors=[404, 409],
        examples=[body_example("In a project", examples.NEW_AGENT)],
        description=_PUT,
    )
    def put(self, request: Request, id: str) -> Response:
        """Replace an agent."""
        return self.replace(request, id)

    @own_operation(
        "Change an agent",
        name="update_agent",
        tag=AGENTS,
        request=AgentIn,
        answers={200: AgentOut},
        errors=[404, 409],
        examples=[body_example("Move it", {"project": "archive"})],
        description=_PATCH,
    )
    def patch(self, request: Request, id: str) -> Response:
        """Change some of an agent."""
        return self.update(request, id)

    @own_operation(
        "Delete an agent",
        name="delete_agent",
        tag=AGENTS,
        answers={202: ResourceDeletedOut},
        errors=[404],
    )
    def delete(self, request: Request, id: str) -> Response:
        """Delete an agent; its project and whatever else is in it stay."""
        return self.remove(request, id)


# --- End users ------------------------------------------------------------------------------------
class _EndUsers(_Kind):
    kind = EndUser
    shape_in = EndUserIn
    shape_out = EndUserOut


class EndUsers(_EndUsers):
    """The end users of the key's account."""

    queries = {"get": ResourceListing}

    @own_operation(
        "List end users",
        name="list_end_users",
        tag=END_USERS,
        answers={200: EndUsersOut},
        query=ResourceListing,
        examples=[answer_example("One end user", {"items": [examples.END_USER]})],
    )
    def get(self, request: Request) -> Response:
        """Return the end users in all projects of the account, or in one of them."""
        return self.list(request)

    @own_operation(
        "Create an end user",
        name="create_end_user",
        tag=END_USERS,
        request=EndUserIn,
        answers={201: EndUserOut},
        errors=[404, 409],
        examples=[
            body_example("In a project", examples.NEW_END_USER),
            answer_example("The end user", examples.END_USER, status=201),
        ],
        description="Somebody who talks to agents. Accounts of this server are under `/v1/users`.",
    )
    def post(self, request: Request) -> Response:
        """Create an end user in the project it names, or in `default`."""
        return self.create(request)


class OneEndUser(_EndUsers, Tagged):
    """One end user of the key's account."""

    @own_operation(
        "Get an end user",
        name="get_end_user",
        tag=END_USERS,
        answers={200: EndUserOut},
        errors=[404],
    )
    def get(self, request: Request, id: str) -> Response:
        """Return an end user of the account."""
        return self.find(request, id)

    @own_operation(
        "Create or replace an end user",
        name="create_or_replace_end_user",
        tag=END_USERS,
        request=EndUserIn,
        answers={200: EndUserOut, 201: EndUserOut},
        errors=[404, 409],
        examples=[body_example("In a project", examples.NEW_END_USER)],
        description=f"{_POST_ID} {_PUT}",
    )
    def post(self, request: Request, id: str) -> Response:
        """Replace an end user, or create one with an id of the caller's choice."""
        return self.create_or_replace(request, id)

    @own_operation(
        "Replace an end user",
        name="replace_end_user",
        tag=END_USERS,
        request=EndUserIn,
        answers={200: EndUserOut},
        errors=[404, 409],
        examples=[body_example("In a project", examples.NEW_END_USER)],
        description=_PUT,
    )
    def put(self, request: Request, id: str) -> Response:
        """Replace an end user."""
        return self.replace(request, id)

    @own_operation(
        "Change an end user",
        name="update_end_user",
        tag=END_USERS,
        request=EndUserIn,
        answers={200: EndUserOut},
        errors=[404, 409],
        examples=[body_example("Another plan", {"metadata": {"plan": "basic"}})],
        description=_PATCH,
    )
    def patch(self, request: Request, id: str) -> Response:
        """Change some of an end user."""
        return self.update(request, id)

    @own_operation(
        "Delete an end user",
        name="delete_end_user",
        tag=END_USERS,
        answers={202: ResourceDeletedOut},
        errors=[404],
    )
    def delete(self, request: Request, id: str) -> Response:
        """Delete an end user; its project and whatever else is in it stay."""
        return self.remove(request, id)


# --- Files ----------------------------------------------------------------------------------------
class Files(Resource):
    """The files of the key's account."""

    authentication_classes = OWN_AUTHENTICATION
    queries = {"get": FileListing}

    @own_operation(
        "List files",
        name="list_files",
        tag=FILES,
        answers={200: _LIST_OF_FILES},
        query=FileListing,
        examples=[answer_example("One file", [examples.FILE])],
        description="The list is a bare array, as clients of this API expect it. It is sent while "
        "it is read; `include_content=false` leaves the contents out.",
    )
    def get(self, request: Request) -> HttpResponseBase:
        """Return the files in all projects of the account, or in one of them."""
        rows = selectors.resources_of(
            actor_of(request), File, project=self.query.pop("project", None)
        )
        return files_response(
            listed(rows, self.query), include_content=self.query["include_content"]
        )

    @own_operation(
        "Upload a file",
        name="upload_file",
        tag=FILES,
        request=FileIn,
        answers={201: FileWithContentOut},
        errors=[404, 409],
        examples=[
            body_example("In a project", examples.NEW_FILE),
            answer_example("The file", examples.FILE, status=201),
        ],
    )
    def post(self, request: Request) -> HttpResponseBase:
        """Store a file in the project it names, or in `default`."""
        values = given(FileIn, request)
        content: bytes = values.pop("content")
        file = services.create_file(actor=actor_of(request), content=content, values=values)
        # Not read back: somebody may delete it before this is sent.
        return file_response(file, status=201, content=BytesIO(content))


class OneFile(Tagged):
    """One file of the key's account."""

    authentication_classes = OWN_AUTHENTICATION

    def hold(self, request: Request, id: str) -> None:
        """Let nobody else change the file."""
        services.hold_resource(File, actor=actor_of(request), uuid=read_id(id))

    @own_operation(
        "Get a file",
        name="get_file",
        tag=FILES,
        answers={200: FileWithContentOut},
        errors=[404],
    )
    def get(self, request: Request, id: str) -> HttpResponseBase:
        """Return a file with its content."""
        return file_response(selectors.resource_for(actor_of(request), File, read_id(id)))

    @own_operation(
        "Change a file",
        name="update_file",
        tag=FILES,
        request=FileChangeIn,
        answers={200: FileWithContentOut},
        errors=[404, 409],
        examples=[body_example("Move it", {"project": "archive"})],
        description="Name, description, media type and project; the content stays what it is.",
    )
    def patch(self, request: Request, id: str) -> HttpResponseBase:
        """Change what is said about a file."""
        file = services.update_resource(
            File,
            actor=actor_of(request),
            uuid=read_id(id),
            changes=given(FileChangeIn, request, partial=True),
        )
        return file_response(file, needs_content=False)

    @own_operation(
        "Delete a file",
        name="delete_file",
        tag=FILES,
        answers={202: ResourceDeletedOut},
        errors=[404],
    )
    def delete(self, request: Request, id: str) -> Response:
        """Delete a file with its bytes."""
        uuid = read_id(id)
        services.delete_resource(File, actor=actor_of(request), uuid=uuid)
        return deleted(uuid)

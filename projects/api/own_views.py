"""Projects in the Projects API: those that the key's account owns."""

from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import OWN_AUTHENTICATION, actor_of
from common.api import Resource, given
from common.entity_tags import Tagged
from common.listing import FilteredListing, listed
from common.own_views import ResourceDeletedOut, deleted, read_id
from common.schema import answer_example, body_example, own_operation
from projects import selectors, services
from projects.api.own_serializers import (
    OwnProjectIn,
    OwnProjectOut,
    OwnProjectsOut,
)
from projects.api.serializers import Deletion

TAG = "Own projects"

_PROJECT = body_example(
    "A project",
    {
        "name": "Customer Support",
        "canonical_name": "customer_support",
        "metadata": {"department": "support", "priority": "high"},
    },
)
_SHOWN = {
    "id": "0198b5a4-2f6e-7cc1-9d53-6f0d4f9d2b10",
    "canonical_name": "customer_support",
    "name": "Customer Support",
    "metadata": {"department": "support", "priority": "high"},
    "created_at": "2026-11-25T12:00:00.000000Z",
    "updated_at": "2026-11-25T12:00:00.000000Z",
}


class OwnProjects(Resource):
    """The projects of the key's account."""

    authentication_classes = OWN_AUTHENTICATION
    queries = {"get": FilteredListing}

    @own_operation(
        "List projects",
        name="list_own_projects",
        tag=TAG,
        answers={200: OwnProjectsOut},
        query=FilteredListing,
        examples=[answer_example("One project", {"items": [_SHOWN]})],
        description="The account's projects, `default` among them.",
    )
    def get(self, request: Request) -> Response:
        """Return the projects that the key's account owns."""
        rows = listed(selectors.own_projects(actor_of(request)), self.query)
        return Response({"items": OwnProjectOut(rows, many=True).data})

    @own_operation(
        "Create a project",
        name="create_own_project",
        tag=TAG,
        request=OwnProjectIn,
        answers={201: OwnProjectOut},
        errors=[409],
        examples=[_PROJECT, answer_example("The project", _SHOWN, status=201)],
    )
    def post(self, request: Request) -> Response:
        """Create a project; its LLM service instance is the built-in one."""
        project = services.create_own_project(
            actor=actor_of(request), values=given(OwnProjectIn, request)
        )
        return Response(OwnProjectOut(project).data, status=201)


class OwnProject(Tagged):
    """One project of the key's account."""

    authentication_classes = OWN_AUTHENTICATION
    queries = {"delete": Deletion}

    def hold(self, request: Request, id: str) -> None:
        """Let nobody else change the project."""
        services.hold_own_project(actor=actor_of(request), uuid=read_id(id))

    @own_operation(
        "Get a project",
        name="get_own_project",
        tag=TAG,
        answers={200: OwnProjectOut},
        errors=[404],
    )
    def get(self, request: Request, id: str) -> Response:
        """Return a project of the account."""
        return Response(OwnProjectOut(selectors.own_project(actor_of(request), read_id(id))).data)

    @own_operation(
        "Create or replace a project",
        name="create_or_replace_own_project",
        tag=TAG,
        request=OwnProjectIn,
        answers={200: OwnProjectOut, 201: OwnProjectOut},
        errors=[404, 409],
        examples=[_PROJECT],
        description="An id that the account has not used yet makes a project of that id.",
    )
    def post(self, request: Request, id: str) -> Response:
        """Replace a project, or create one with an id of the caller's choice."""
        project, created = services.create_or_replace_own_project(
            actor=actor_of(request), uuid=read_id(id), values=given(OwnProjectIn, request)
        )
        return Response(OwnProjectOut(project).data, status=201 if created else 200)

    @own_operation(
        "Replace a project",
        name="replace_own_project",
        tag=TAG,
        request=OwnProjectIn,
        answers={200: OwnProjectOut},
        errors=[404, 409],
        examples=[_PROJECT],
        description=(
            "Metadata that is not given becomes empty; a canonical name that is not given stays. "
            "Embeddings, LLM service, metadata schema, shares and public reading stay, too."
        ),
    )
    def put(self, request: Request, id: str) -> Response:
        """Replace name and metadata of a project."""
        project = services.replace_own_project(
            actor=actor_of(request), uuid=read_id(id), values=given(OwnProjectIn, request)
        )
        return Response(OwnProjectOut(project).data)

    @own_operation(
        "Change a project",
        name="update_own_project",
        tag=TAG,
        request=OwnProjectIn,
        answers={200: OwnProjectOut},
        errors=[404, 409],
        examples=[body_example("Another priority", {"metadata": {"priority": "low"}})],
        description="Metadata is merged at its top level. A new canonical name keeps what is in "
        "the project, and moves its address under `/v1`.",
    )
    def patch(self, request: Request, id: str) -> Response:
        """Change some of a project."""
        project = services.update_own_project(
            actor=actor_of(request),
            uuid=read_id(id),
            changes=given(OwnProjectIn, request, partial=True),
        )
        return Response(OwnProjectOut(project).data)

    @own_operation(
        "Delete a project",
        name="delete_own_project",
        tag=TAG,
        answers={202: ResourceDeletedOut},
        errors=[404, 409],
        query=Deletion,
        description=(
            "Embeddings, shares and keys of the project go with it. While it holds agents, users "
            "or files it is refused, unless `on_resources` says what becomes of them."
        ),
    )
    def delete(self, request: Request, id: str) -> Response:
        """Delete a project other than `default`."""
        uuid = read_id(id)
        services.delete_own_project(actor=actor_of(request), uuid=uuid, **self.query)
        return deleted(uuid)

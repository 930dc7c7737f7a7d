"""Projects, their shares, and ownership transfer."""

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.audit_serializers import (
    EXAMPLE,
    AuditListing,
    AuditLogOut,
    log_shown,
    wanted_in,
)
from accounts.authentication import PublicReading, actor_of
from accounts.models import Role
from accounts.policy import Level
from common.api import Resource, given
from common.entity_tags import Tagged
from common.handles import same_as_address
from common.pagination import page_of
from common.query import Paging
from common.schema import Message, body_example, operation, without_field
from projects import selectors, services
from projects.api.serializers import (
    Deletion,
    GrantOut,
    NewProjectIn,
    ProjectIn,
    ProjectInListOut,
    ProjectOut,
    ProjectShareIn,
    ProjectsOut,
    SharedOut,
    SharesOut,
    TransferIn,
    TransferOut,
    UnsharedOut,
)
from projects.models import Project

TAG = "Projects"
SHARING = "Sharing"

_PROJECT = body_example(
    "A project with a metadata schema",
    {
        "project_handle": "letters",
        "description": "Letters of the eighteenth century",
        "instance_owner": "_system",
        "instance_handle": "builtin",
        "metadataScheme": '{"type": "object", "properties": {"author": {"type": "string"}}, '
        '"required": ["author"]}',
        "public_read": False,
        "shared_with": [{"user_handle": "bob", "role": "reader"}],
    },
)


class Projects(Resource):
    """The projects of an owner."""

    queries = {"get": Paging}

    @operation(
        "List projects",
        name="list_projects",
        tag=TAG,
        answers={200: ProjectsOut},
        errors=[404],
        query=Paging,
        description="Others than the owner see those they may read.",
    )
    def get(self, request: Request, owner: str) -> Response:
        """Return the owner's projects, each once."""
        rows = selectors.with_counts(selectors.projects_of(actor_of(request), owner))
        page = page_of(rows, **self.query)
        return Response(page.envelope("projects", ProjectInListOut(page.items, many=True).data))

    @operation(
        "Create a project",
        name="create_project",
        tag=TAG,
        request=NewProjectIn,
        answers={201: ProjectOut},
        errors=[404, 409, 422],
        examples=[_PROJECT],
    )
    def post(self, request: Request, owner: str) -> Response:
        """Create a project on an instance that the owner has or is shared with."""
        values = given(NewProjectIn, request)
        project = services.create_project(
            actor=actor_of(request),
            owner=owner,
            handle=values.pop("project_handle"),
            values=values,
        )
        return Response(_shown(project), status=201)


class OneProject(Tagged):
    """One project."""

    # The policy decides who may read: the project may be public.
    permission_classes = [PublicReading]
    queries = {"delete": Deletion}

    def hold(self, request: Request, owner: str, project: str) -> None:
        """Let nobody else change the project."""
        services.hold_project(actor=actor_of(request), owner=owner, handle=project)

    @operation(
        "Get a project", name="get_project", tag=TAG, answers={200: ProjectOut}, errors=[404]
    )
    def get(self, request: Request, owner: str, project: str) -> Response:
        """Return a project; for its owner, those it is shared with, and all if it is public."""
        found = selectors.project_for(actor_of(request), Level.READER, owner=owner, handle=project)
        return Response(_shown(found))

    @operation(
        "Create or replace a project",
        name="replace_project",
        tag=TAG,
        request=ProjectIn,
        answers={200: ProjectOut, 201: ProjectOut},
        errors=[404, 409, 422],
        description=(
            "Replaces all settings; embeddings stay. Grants stay too unless `shared_with` is "
            "given, which is then the exact list."
        ),
        examples=[without_field(_PROJECT, "project_handle")],
    )
    def put(self, request: Request, owner: str, project: str) -> Response:
        """Create a project or replace its settings."""
        values = given(ProjectIn, request)
        same_as_address(values.pop("project_handle", None), project, field="project_handle")
        result, created = services.replace_project(
            actor=actor_of(request), owner=owner, handle=project, values=values
        )
        return Response(_shown(result), status=201 if created else 200)

    @operation(
        "Change a project",
        name="update_project",
        tag=TAG,
        request=ProjectIn,
        answers={200: ProjectOut},
        errors=[404, 409, 422],
        examples=[body_example("Publish it", {"public_read": True})],
    )
    def patch(self, request: Request, owner: str, project: str) -> Response:
        """Change some settings; null puts an optional one back to its default."""
        values = given(ProjectIn, request, partial=True)
        same_as_address(values.pop("project_handle", None), project, field="project_handle")
        result = services.update_project(
            actor=actor_of(request), owner=owner, handle=project, changes=values
        )
        return Response(_shown(result))

    @operation(
        "Delete a project",
        name="delete_project",
        tag=TAG,
        answers={200: Message},
        errors=[404, 409],
        query=Deletion,
        description=(
            "Embeddings, grants and keys of the project go with it. While it holds agents, users "
            "or files it is refused, unless `on_resources` says what becomes of them."
        ),
    )
    def delete(self, request: Request, owner: str, project: str) -> Response:
        """Delete a project with its embeddings, grants and keys."""
        services.delete_project(actor=actor_of(request), owner=owner, handle=project, **self.query)
        return Response({"message": f"Project '{owner}/{project}' deleted."})


class Shares(Resource):
    """Giving a project to others."""

    @operation(
        "Share a project",
        name="share_project",
        tag=SHARING,
        request=ProjectShareIn,
        answers={201: SharedOut},
        errors=[404],
        examples=[
            body_example("With bob", {"share_with_handle": "bob", "role": "reader"}),
            body_example("With everybody", {"share_with_handle": "*", "role": "reader"}),
        ],
    )
    def post(self, request: Request, owner: str, project: str) -> Response:
        """Give an account a role on the project; again replaces the role."""
        values = given(ProjectShareIn, request)
        user, role = values["share_with_handle"], Role(values["role"])
        shared = services.share_project(
            actor=actor_of(request), owner=owner, handle=project, user=user, role=role
        )
        answer = {
            "message": f"Project '{shared}' is now shared with '{user}' as {role.value}.",
            "project": str(shared),
            "shared_with": user,
            "role": role.value,
            "owner": owner,
            "project_handle": shared.handle,
            "project_id": shared.pk,
            "shared_with_handle": user,
            "shared_with_role": role.value,
        }
        return Response(answer, status=201)


class OneShare(Resource):
    """One grant on a project."""

    @operation(
        "Unshare a project",
        name="unshare_project",
        tag=SHARING,
        answers={200: UnsharedOut},
        errors=[404],
    )
    def delete(self, request: Request, owner: str, project: str, user: str) -> Response:
        """Take the project back from an account, at once; `*` makes it private."""
        unshared = services.unshare_project(
            actor=actor_of(request), owner=owner, handle=project, user=user
        )
        return Response(
            {
                "message": f"Project '{unshared}' is no longer shared with '{user}'.",
                "project": str(unshared),
                "removed_user": user,
            }
        )


class SharedWith(Resource):
    """Who a project is shared with."""

    @operation(
        "List the shares of a project",
        name="list_project_shares",
        tag=SHARING,
        answers={200: SharesOut},
        errors=[404],
    )
    def get(self, request: Request, owner: str, project: str) -> Response:
        """Return the accounts the project is shared with; for its owner."""
        found = selectors.project_for(actor_of(request), Level.OWNER, owner=owner, handle=project)
        return Response(
            {
                "project": str(found),
                "owner": owner,
                "project_handle": found.handle,
                "shared_with": GrantOut(services.grants_of(found), many=True).data,
            }
        )


class Transfer(Resource):
    """Giving a project away."""

    @operation(
        "Transfer a project",
        name="transfer_project",
        tag=SHARING,
        request=TransferIn,
        answers={200: TransferOut},
        errors=[404, 409],
        description=(
            "The address moves to the new owner; the old owner keeps no access. Other grants, the "
            "embeddings, the metadata schema, the instance and public reading stay."
        ),
        examples=[body_example("To bob", {"new_owner_handle": "bob"})],
    )
    def post(self, request: Request, owner: str, project: str) -> Response:
        """Make another account the owner of the project."""
        receiver = given(TransferIn, request)["new_owner_handle"]
        moved = services.transfer_project(
            actor=actor_of(request), owner=owner, handle=project, new_owner=receiver
        )
        return Response(
            {
                "message": f"Project '{owner}/{project}' now belongs to '{receiver}'.",
                "project_id": moved.pk,
                "project_handle": moved.handle,
                "old_owner": owner,
                "new_owner": receiver,
                "new_path": f"/v1/projects/{receiver}/{moved.handle}",
            }
        )


class AuditLog(Resource):
    """Who changed who may do what with a project."""

    queries = {"get": AuditListing}

    @operation(
        "Read the audit log of a project",
        name="list_project_audit_log",
        tag=SHARING,
        answers={200: AuditLogOut},
        errors=[404],
        query=AuditListing,
        description=(
            "Shares, settings, transfers, deletions of embeddings, and what administrators did: "
            "the newest first. Entries are never changed, and hold no secrets."
        ),
        examples=[EXAMPLE],
    )
    def get(self, request: Request, owner: str, project: str) -> Response:
        """Return what was changed about the project; for its owner."""
        actor = actor_of(request)
        found = selectors.project_for(actor, Level.OWNER, owner=owner, handle=project)
        rows = selectors.audit_log_of(found, wanted_in(self.query))
        page = page_of(rows, limit=self.query["limit"], offset=self.query["offset"])
        return Response(log_shown(page, for_owner=not actor.is_admin))


def _shown(project: Project) -> dict[str, Any]:
    selectors.count_embeddings(project)
    return dict(ProjectOut(project).data)

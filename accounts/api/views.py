"""The users resource."""

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from accounts import selectors, services
from accounts.api.serializers import (
    NewUserIn,
    NewUserOut,
    ReachingUserOut,
    UserFieldsIn,
    UserIn,
    UserOut,
    UsersOut,
)
from accounts.authentication import actor_of
from accounts.models import User
from accounts.policy import Level
from common.api import Resource, given
from common.entity_tags import Tagged
from common.handles import same_as_address
from common.pagination import page_of
from common.query import Paging
from common.schema import Message, body_example, operation, without_field

TAG = "Users"
_EXAMPLE = body_example(
    "A user", {"user_handle": "alice", "name": "Alice Doe", "email": "alice@example.org"}
)


class Users(Resource):
    """All accounts."""

    queries = {"get": Paging}

    @operation("List users", name="list_users", tag=TAG, answers={200: UsersOut}, query=Paging)
    def get(self, request: Request) -> Response:
        """Return the handles of all accounts; for administrators."""
        page = page_of(selectors.all_users(actor_of(request)), **self.query)
        return Response(page.envelope("users", [user.handle for user in page.items]))

    @operation(
        "Create a user",
        name="create_user",
        tag=TAG,
        request=NewUserIn,
        answers={201: NewUserOut},
        errors=[409],
        description=(
            "The answer holds the user's API key, as `api_key` and `embapi_key`. It is shown this "
            "once and cannot be had again."
        ),
        examples=[_EXAMPLE],
    )
    def post(self, request: Request) -> Response:
        """Create an account and its first key; for administrators."""
        actor = actor_of(request)
        values = given(NewUserIn, request)
        handle = values.pop("user_handle")
        account = services.create_user(actor=actor, handle=handle, **_described(values))
        return Response(_new(account), status=201)


class OneUser(Tagged):
    """One account."""

    # What an account reaches is only shown to who asks for it.
    showing = {"GET", "HEAD"}

    def hold(self, request: Request, user: str) -> None:
        """Let nobody else change the account."""
        services.hold_user(actor=actor_of(request), handle=user)

    @operation(
        "Get a user",
        name="get_user",
        tag=TAG,
        answers={200: ReachingUserOut},
        errors=[404],
        description=(
            "`projects` and `instances` list what the user owns or has been given a role on.\n\n"
            "Somebody else's key gets 403 where the account exists and 404 where it does not: "
            "enough to check a handle before sharing."
        ),
    )
    def get(self, request: Request, user: str) -> Response:
        """Return an account; for itself and administrators."""
        actor = actor_of(request)
        found = selectors.account_for(actor, Level.READER, user)
        return Response({**UserOut(found).data, **selectors.reached(actor, found)})

    @operation(
        "Create or replace a user",
        name="replace_user",
        tag=TAG,
        request=UserIn,
        answers={200: UserOut, 201: NewUserOut},
        errors=[409],
        description="Only a new user gets a key; replacing one keeps the key it has.",
        examples=[without_field(_EXAMPLE, "user_handle")],
    )
    def put(self, request: Request, user: str) -> Response:
        """Create an account or replace what it says about itself; for administrators."""
        values = given(UserIn, request)
        same_as_address(values.pop("user_handle", None), user, field="user_handle")
        result = services.replace_user(actor=actor_of(request), handle=user, **_described(values))
        if isinstance(result, services.NewAccount):
            return Response(_new(result), status=201)
        return Response(UserOut(result).data)

    @operation(
        "Change a user",
        name="update_user",
        tag=TAG,
        request=UserFieldsIn,
        answers={200: UserOut},
        errors=[404, 409],
        examples=[body_example("A new name", {"name": "Alice Roe"})],
    )
    def patch(self, request: Request, user: str) -> Response:
        """Change name or email; for the account itself and administrators."""
        values = given(UserIn, request, partial=True)
        same_as_address(values.pop("user_handle", None), user, field="user_handle")
        changed = services.update_user(actor=actor_of(request), handle=user, changes=values)
        return Response(UserOut(changed).data)

    @operation(
        "Delete a user", name="delete_user", tag=TAG, answers={200: Message}, errors=[404, 409]
    )
    def delete(self, request: Request, user: str) -> Response:
        """Delete an account and all it owns; for the account itself and administrators."""
        services.delete_user(actor=actor_of(request), handle=user)
        return Response({"message": f"User '{user}' deleted."})


def _described(values: dict[str, Any]) -> dict[str, Any]:
    return {"name": values.get("name") or "", "email": values.get("email")}


def _new(account: services.NewAccount) -> dict[str, Any]:
    user: User = account.user
    user.embapi_key = user.api_key = account.api_key  # type: ignore[attr-defined]
    return dict(NewUserOut(user).data)

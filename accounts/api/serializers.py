"""Shapes of users in the API."""

from typing import Any

from rest_framework import serializers

from accounts.models import User
from common.fields import Handle, Text
from common.schema import ListOut


class UserFieldsIn(serializers.Serializer[Any]):
    """What an account says about itself."""

    name = Text(max_length=50, allow_blank=True, allow_null=True, required=False)
    email = Text(max_length=100, allow_blank=True, allow_null=True, required=False)


class UserIn(UserFieldsIn):
    """A new account, or the whole of one."""

    user_handle = Handle(required=False, help_text="3–20 characters: letters, digits, `-`, `_`.")


class NewUserIn(UserFieldsIn):
    """A new account."""

    user_handle = Handle(help_text="3–20 characters: letters, digits, `-`, `_`.")


class ReachableOut(serializers.Serializer[Any]):
    """Something the account owns or is shared with."""

    owner = serializers.CharField()
    role = serializers.CharField()


class ReachableProjectOut(ReachableOut):
    """A project the account owns or is shared with."""

    project_handle = serializers.CharField()


class ReachableInstanceOut(ReachableOut):
    """An LLM service instance the account owns or is shared with."""

    instance_handle = serializers.CharField()


class UserOut(serializers.ModelSerializer[User]):
    """An account; never a key, never a hash."""

    user_handle = serializers.CharField(source="handle")
    email = serializers.SerializerMethodField()

    class Meta:
        model = User
        fields = ["user_handle", "name", "email", "created_at", "updated_at"]

    def get_email(self, user: User) -> str:
        """Return the address, "" without one."""
        return user.email or ""


class ReachingUserOut(UserOut):
    """An account, and, unless the key is capped, what it owns or is shared with."""

    projects = ReachableProjectOut(many=True, required=False)
    instances = ReachableInstanceOut(many=True, required=False)

    class Meta(UserOut.Meta):
        fields = [*UserOut.Meta.fields, "projects", "instances"]


class NewUserOut(UserOut):
    """A new account with its key, which is shown this once, under both names clients know."""

    embapi_key = serializers.CharField()
    api_key = serializers.CharField()

    class Meta(UserOut.Meta):
        fields = [*UserOut.Meta.fields, "embapi_key", "api_key"]


class UsersOut(ListOut):
    """A page of handles."""

    users = serializers.ListField(child=serializers.CharField())

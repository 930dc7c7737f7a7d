"""Shapes of projects in the API."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from accounts.models import Role
from accounts.policy import Level, level_of
from common.fields import Choice, Flag, Handle, Text, WholeNumber
from common.query import Query
from common.schema import ListOut
from projects.models import Project
from projects.selectors import warnings_about
from projects.services import EVERYBODY, Grant, OnResources, grants_of

MAXIMUM_ID = 2**63 - 1


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string", "enum": [EVERYBODY]},
            {
                "type": "object",
                "properties": {
                    "user_handle": {"type": "string"},
                    "role": {"type": "string", "enum": list(Role.values)},
                },
                "required": ["user_handle", "role"],
            },
        ]
    }
)
class GrantIn(serializers.Field[Grant, Any, Any, Any]):
    """An entry of `shared_with`: `"*"`, or an object with a user handle and a role."""

    default_error_messages = {
        "invalid": f'Each entry must be an object with user_handle and role, or "{EVERYBODY}".',
        "role": "role must be 'reader' or 'editor'.",
    }

    def to_internal_value(self, data: Any) -> Grant:
        """Return the grant."""
        if data == EVERYBODY:
            return Grant(EVERYBODY, Role.READER)
        if not isinstance(data, dict) or not isinstance(data.get("user_handle"), str):
            self.fail("invalid")
        if data.get("role") not in Role.values:
            self.fail("role")
        return Grant(data["user_handle"], Role(data["role"]))


@extend_schema_field({"oneOf": [{"type": "string"}, {"type": "object"}], "nullable": True})
class SchemaIn(serializers.Field[Any, Any, Any, Any]):
    """A JSON Schema, as a string that holds it or as an object; what it says is checked later."""

    def to_internal_value(self, data: Any) -> Any:
        """Return it as it came."""
        return data


class ProjectIn(serializers.Serializer[Any]):
    """A project whose handle the URL gives."""

    project_handle = Handle(required=False, help_text="3–20 characters: letters, digits, `-`, `_`.")
    description = Text(max_length=255, allow_blank=True, allow_null=True, required=False)
    instance_owner = Text(required=False, allow_null=True, help_text="Default: the owner.")
    instance_handle = Text(required=False, allow_null=True)
    instance_id = WholeNumber(
        required=False,
        allow_null=True,
        min_value=1,
        max_value=MAXIMUM_ID,
        help_text="Instead of instance_owner and instance_handle.",
    )
    metadataScheme = SchemaIn(  # noqa: N815 – the contract's name
        required=False,
        allow_null=True,
        help_text="A JSON Schema (draft 7 or later) that checks the metadata of what is uploaded "
        "from now on.",
    )
    public_read = Flag(required=False, allow_null=True)
    shared_with = serializers.ListField(
        child=GrantIn(), required=False, allow_null=True, help_text="The exact list of grants."
    )


class NewProjectIn(ProjectIn):
    """A new project."""

    project_handle = Handle(help_text="3–20 characters: letters, digits, `-`, `_`.")


class GrantOut(serializers.Serializer[Any]):
    """One grant; the handle `*` stands for everybody."""

    user_handle = serializers.CharField()
    role = serializers.ChoiceField(choices=Role.choices)


class ProjectInListOut(serializers.ModelSerializer[Project]):
    """A project in a list: everything but its metadata schema."""

    project_id = serializers.IntegerField(source="pk")
    project_handle = serializers.CharField(source="handle")
    owner = serializers.CharField(source="owner.handle")
    instance_id = serializers.IntegerField()
    instance_owner = serializers.CharField(source="instance.owner.handle")
    instance_handle = serializers.CharField(source="instance.handle")
    role = serializers.SerializerMethodField()
    number_of_embeddings = serializers.IntegerField()

    class Meta:
        model = Project
        fields = [
            "project_id",
            "project_handle",
            "owner",
            "description",
            "instance_id",
            "instance_owner",
            "instance_handle",
            "public_read",
            "role",
            "number_of_embeddings",
            "created_at",
            "updated_at",
        ]

    def get_role(self, project: Project) -> str:
        """Return what the caller may do: owner, editor, reader or admin."""
        return level_of(project).word


class ProjectOut(ProjectInListOut):
    """A project."""

    metadataScheme = serializers.SerializerMethodField()  # noqa: N815 – the contract's name
    shared_with = GrantOut(
        many=True, required=False, help_text="Only where the caller owns the project."
    )
    warnings = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="Only where its embeddings were made by another model than its instance's.",
    )

    class Meta(ProjectInListOut.Meta):
        fields = [*ProjectInListOut.Meta.fields, "metadataScheme", "shared_with", "warnings"]

    def get_metadataScheme(self, project: Project) -> str | None:  # noqa: N802
        """Return the metadata schema as text, null without one."""
        return project.metadata_schema or None

    def to_representation(self, instance: Project) -> dict[str, Any]:
        """Show the grants to those who may change them."""
        fields = self.fields
        fields.pop("shared_with", None)
        fields.pop("warnings", None)
        shown = super().to_representation(instance)
        if level_of(instance) >= Level.OWNER:
            shown["shared_with"] = GrantOut(grants_of(instance), many=True).data
        if warnings := warnings_about(instance):
            shown["warnings"] = warnings
        return shown


class ProjectsOut(ListOut):
    """A page of projects."""

    projects = ProjectInListOut(many=True)


class OnResourcesIn(Choice):
    """What becomes of a project's resources."""

    def __init__(self, **options: Any) -> None:
        super().__init__(choices=OnResources.choices, **options)

    def to_internal_value(self, data: Any) -> OnResources:
        """Return the member that the word names."""
        return OnResources(super().to_internal_value(data))


class Deletion(Query):
    """How a project is to be deleted."""

    on_resources = OnResourcesIn(
        default=OnResources.RESTRICT,
        help_text="What becomes of the agents, users and files in it.",
    )


class ProjectShareIn(serializers.Serializer[Any]):
    """Whom to share with, and as what."""

    share_with_handle = Text(help_text='A user handle, or `"*"` for everybody.')
    role = Choice(choices=Role.choices)


class SharedOut(serializers.Serializer[Any]):
    """A grant that was just given."""

    message = serializers.CharField()
    project = serializers.CharField(help_text="`owner/handle`")
    shared_with = serializers.CharField()
    role = serializers.ChoiceField(choices=Role.choices)
    owner = serializers.CharField()
    project_handle = serializers.CharField()
    project_id = serializers.IntegerField()
    shared_with_handle = serializers.CharField()
    shared_with_role = serializers.ChoiceField(choices=Role.choices)


class UnsharedOut(serializers.Serializer[Any]):
    """A grant that was just taken back."""

    message = serializers.CharField()
    project = serializers.CharField(help_text="`owner/handle`")
    removed_user = serializers.CharField()


class SharesOut(serializers.Serializer[Any]):
    """A project's grants; the owner is not among them."""

    project = serializers.CharField(help_text="`owner/handle`")
    owner = serializers.CharField()
    project_handle = serializers.CharField()
    shared_with = GrantOut(many=True)


class TransferIn(serializers.Serializer[Any]):
    """Whom to give the project to."""

    new_owner_handle = Text()


class TransferOut(serializers.Serializer[Any]):
    """A transfer that was just made."""

    message = serializers.CharField()
    project_id = serializers.IntegerField()
    project_handle = serializers.CharField()
    old_owner = serializers.CharField()
    new_owner = serializers.CharField()
    new_path = serializers.CharField()

"""Shapes of API standards, definitions and instances. None of them ever shows a provider key."""

from typing import Any

from rest_framework import serializers

from accounts.models import Role
from accounts.policy import level_of
from common.fields import Choice, Flag, Handle, Text, WholeNumber
from common.schema import ListOut
from llm_services.models import MAXIMUM_DIMENSIONS, ApiStandard, Definition, Instance, KeyMethod


class StandardFieldsIn(serializers.Serializer[Any]):
    """The whole of an API standard but its handle."""

    description = Text(allow_blank=True, allow_null=True, required=False, max_length=10_000)
    key_method = Choice(choices=KeyMethod.choices)
    key_field = Text(allow_blank=True, allow_null=True, required=False, max_length=20)


class StandardIn(StandardFieldsIn):
    """An API standard whose handle the URL gives."""

    api_standard_handle = Handle(required=False)


class NewStandardIn(StandardFieldsIn):
    """A new API standard."""

    api_standard_handle = Handle()


class StandardOut(serializers.ModelSerializer[ApiStandard]):
    """An API standard."""

    api_standard_handle = serializers.CharField(source="handle")

    class Meta:
        model = ApiStandard
        fields = [
            "api_standard_handle",
            "description",
            "key_method",
            "key_field",
            "created_at",
            "updated_at",
        ]


class ServiceFieldsIn(serializers.Serializer[Any]):
    """What definitions and instances have in common. Which are required, the service decides."""

    endpoint = Text(max_length=2000, required=False, allow_null=True)
    description = Text(max_length=10_000, allow_blank=True, allow_null=True, required=False)
    api_standard = Text(max_length=20, required=False, allow_null=True)
    model = Text(max_length=255, required=False, allow_null=True)
    dimensions = WholeNumber(
        min_value=1, max_value=MAXIMUM_DIMENSIONS, required=False, allow_null=True
    )
    context_limit = WholeNumber(
        min_value=1, max_value=2_147_483_647, required=False, allow_null=True
    )


class DefinitionIn(ServiceFieldsIn):
    """A definition whose handle the URL gives."""

    definition_handle = Handle(required=False)
    is_public = Flag(required=False, allow_null=True)


class NewDefinitionIn(DefinitionIn):
    """A new definition."""

    definition_handle = Handle()


class InstanceIn(ServiceFieldsIn):
    """An instance whose handle the URL gives; standalone, or from a definition."""

    instance_handle = Handle(required=False)
    definition_owner = Text(required=False, allow_null=True)
    definition_handle = Text(required=False, allow_null=True)
    api_key_encrypted = Text(
        required=False,
        allow_null=True,
        allow_blank=True,
        max_length=10_000,
        write_only=True,
        help_text="The provider's key in plain text; stored encrypted, never returned. "
        "Absent keeps a stored key, null or empty erases it.",
    )
    api_key = Text(
        required=False,
        allow_null=True,
        allow_blank=True,
        max_length=10_000,
        write_only=True,
        help_text="Another name for `api_key_encrypted`.",
    )


class NewInstanceIn(InstanceIn):
    """A new instance."""

    instance_handle = Handle()


class TrialIn(serializers.Serializer[Any]):
    """What to try an instance with."""

    text = Text(
        required=False,
        max_length=2_000,
        help_text="The text to embed; a short sentence if it is left out.",
    )


class TrialOut(serializers.Serializer[Any]):
    """What an instance made of a text."""

    model = serializers.CharField()
    dimensions = serializers.IntegerField(help_text="Of the vector that came back.")
    milliseconds = serializers.FloatField(help_text="How long it took, with the network.")
    tokens = serializers.IntegerField(
        allow_null=True, help_text="What the provider counted; null where it does not say."
    )


class DefinitionOut(serializers.ModelSerializer[Definition]):
    """A definition."""

    definition_id = serializers.IntegerField(source="pk")
    definition_handle = serializers.CharField(source="handle")
    owner = serializers.CharField(source="owner.handle")
    api_standard = serializers.CharField(source="api_standard.handle")

    class Meta:
        model = Definition
        fields = [
            "definition_id",
            "definition_handle",
            "owner",
            "endpoint",
            "description",
            "api_standard",
            "model",
            "dimensions",
            "context_limit",
            "is_public",
            "created_at",
            "updated_at",
        ]


class InstanceOut(serializers.ModelSerializer[Instance]):
    """An instance as its owner and sharees see it."""

    instance_id = serializers.IntegerField(source="pk")
    instance_handle = serializers.CharField(source="handle")
    owner = serializers.CharField(source="owner.handle")
    api_standard = serializers.CharField(source="api_standard.handle")
    definition_id = serializers.IntegerField(allow_null=True)
    definition_owner = serializers.CharField(
        source="definition.owner.handle", default=None, allow_null=True
    )
    definition_handle = serializers.CharField(
        source="definition.handle", default=None, allow_null=True
    )
    access_role = serializers.SerializerMethodField()
    has_api_key = serializers.BooleanField()

    class Meta:
        model = Instance
        fields = [
            "instance_id",
            "instance_handle",
            "owner",
            "definition_id",
            "definition_owner",
            "definition_handle",
            "endpoint",
            "description",
            "api_standard",
            "model",
            "dimensions",
            "context_limit",
            "access_role",
            "has_api_key",
            "created_at",
            "updated_at",
        ]

    def get_access_role(self, instance: Instance) -> str:
        """Return what the caller may do: owner, editor, reader or admin."""
        return level_of(instance).word


class StandardsOut(ListOut):
    """A page of API standards."""

    standards = StandardOut(many=True)


class DefinitionsOut(ListOut):
    """A page of definitions."""

    definitions = DefinitionOut(many=True)


class InstancesOut(ListOut):
    """A page of instances."""

    instances = InstanceOut(many=True)


class InstanceShareIn(serializers.Serializer[Any]):
    """Whom to share with, and as what."""

    share_with_handle = Text()
    role = Choice(choices=Role.choices)


class DefinitionShareIn(serializers.Serializer[Any]):
    """Whom to share with."""

    share_with_handle = Text()


class ShareOut(serializers.Serializer[Any]):
    """One grant."""

    user_handle = serializers.CharField()
    role = serializers.ChoiceField(choices=Role.choices)


class InstanceSharesOut(serializers.Serializer[Any]):
    """An instance's grants."""

    instance = serializers.CharField(help_text="`owner/handle`")
    owner = serializers.CharField()
    instance_handle = serializers.CharField()
    shared_with = ShareOut(many=True)


class DefinitionSharesOut(serializers.Serializer[Any]):
    """A definition's grants."""

    definition = serializers.CharField(help_text="`owner/handle`")
    owner = serializers.CharField()
    definition_handle = serializers.CharField()
    shared_with = ShareOut(many=True)

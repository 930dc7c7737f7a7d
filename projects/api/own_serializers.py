"""Shapes of projects in the Projects API."""

from typing import Any

from django.utils.text import capfirst
from rest_framework import serializers

from common.canonical_names import RULE
from common.fields import JsonObject, NullsAsAbsent, Printable, Text
from projects.models import Project


class OwnProjectIn(NullsAsAbsent):
    """A project."""

    absent_when_null = frozenset({"canonical_name", "metadata"})
    absent_when_null_in_part = frozenset({"name"})

    name = Printable(max_length=255, help_text="How people call it.")
    canonical_name = Text(
        required=False,
        allow_null=True,
        help_text=f"{capfirst(RULE)}. Default when creating: made from the name.",
    )
    metadata = JsonObject(required=False, allow_null=True)


class OwnProjectOut(serializers.ModelSerializer[Project]):
    """A project."""

    id = serializers.UUIDField(source="uuid")
    canonical_name = serializers.CharField(source="handle")
    metadata = JsonObject()

    class Meta:
        model = Project
        fields = ["id", "canonical_name", "name", "metadata", "created_at", "updated_at"]


class OwnProjectsOut(serializers.Serializer[Any]):
    """A part of a list of projects."""

    items = OwnProjectOut(many=True)

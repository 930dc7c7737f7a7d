"""Shapes of agents, end users and files in the Projects API."""

import binascii
import re
from typing import Any

from django.utils.text import capfirst
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from common.canonical_names import RULE
from common.fields import JsonObject, NullsAsAbsent, Printable, PrintableLines, QueryFlag, Text
from common.json import MAX_DOCUMENT_BYTES
from common.listing import FilteredListing, Listing
from resources.models import (
    MAXIMUM_ABOUT_LENGTH,
    MAXIMUM_MEDIA_TYPE_LENGTH,
    Agent,
    EndUser,
    File,
)

_WORD = r"[0-9A-Za-z!#$%&'*+.^_`|~-]+"
_MEDIA_TYPE = re.compile(
    rf"(application|audio|font|example|image|message|model|multipart|text|video|x-{_WORD})"
    rf"/{_WORD}( *;[ -~]*)?",
    re.ASCII | re.IGNORECASE,
)
_PROJECT_HELP = "The canonical name of the project that it is in. Default when creating: `default`."
_OF_PROJECT_HELP = "The canonical name of a project: only what is in it. An unknown one: nothing."
_ABSENT = frozenset({"project", "canonical_name", "metadata", "default_settings", "mime_type"})


# --- Fields ---------------------------------------------------------------------------------------
@extend_schema_field(
    {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
)
class Instructions(serializers.Field[list[str], Any, Any, Any]):
    """A list of texts; a single text stands for a list of one."""

    default_error_messages = {
        "invalid": "This must be a string or a list of strings.",
        "null": "This must be a string or a list of strings, not null.",
    }

    def to_internal_value(self, data: Any) -> list[str]:
        """Return the list."""
        given = [data] if isinstance(data, str) else data
        if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
            self.fail("invalid")
        return list(given)


class Template(Text):
    """A text that says something."""

    def to_internal_value(self, data: Any) -> str:
        """Return the text."""
        value = super().to_internal_value(data)
        if not value.strip():
            self.fail("blank")
        return value


class MediaType(Text):
    """An Internet media type, possibly with parameters."""

    default_error_messages = {
        "media_type": "This must be a media type such as text/plain or application/pdf."
    }

    def to_internal_value(self, data: Any) -> str:
        """Return the media type."""
        value = super().to_internal_value(data)
        if _MEDIA_TYPE.fullmatch(value) is None:
            self.fail("media_type")
        return value


@extend_schema_field({"type": "string", "format": "byte", "minLength": 4})
class Base64(serializers.Field[bytes, Any, Any, Any]):
    """Bytes in base64: the standard alphabet, padded; line breaks are tolerated."""

    default_error_messages = {
        "invalid": "This must be a string in base64.",
        "null": "This must be a string in base64, not null.",
        "base64": "This is not base64 (A–Z, a–z, 0–9, + and /, padded with =).",
        "empty": "A file has at least one byte.",
    }

    def to_internal_value(self, data: Any) -> bytes:
        """Return the bytes."""
        if not isinstance(data, str):
            self.fail("invalid")
        try:
            encoded = data.encode("ascii")
            if "\n" in data or "\r" in data:
                encoded = encoded.translate(None, delete=b"\r\n")
            decoded = binascii.a2b_base64(encoded, strict_mode=True)
        except (UnicodeEncodeError, binascii.Error):
            self.fail("base64")
        # Even strictly, Python passes over padding where none is due.
        if len(encoded) != 4 * -(-len(decoded) // 3):
            self.fail("base64")
        if not decoded:
            self.fail("empty")
        return decoded


# --- Agents ---------------------------------------------------------------------------------------
class AgentIn(NullsAsAbsent):
    """An agent."""

    absent_when_null = _ABSENT
    absent_when_null_in_part = frozenset({"name"})

    name = Printable(max_length=255, help_text="How people call it.")
    canonical_name = Text(
        required=False,
        allow_null=True,
        help_text=f"{capfirst(RULE)}; unique among the account's agents. Default when "
        "creating: made from the name.",
    )
    project = Text(required=False, allow_null=True, help_text=_PROJECT_HELP)
    about = Text(required=False, allow_blank=True, max_length=MAXIMUM_ABOUT_LENGTH)
    model = Text(
        required=False, allow_blank=True, max_length=255, help_text="The model it runs on."
    )
    instructions = Instructions(required=False)
    metadata = JsonObject(required=False, allow_null=True)
    default_settings = JsonObject(
        required=False, allow_null=True, help_text="What its model is called with."
    )
    default_system_template = Template(
        required=False,
        max_length=MAX_DOCUMENT_BYTES,
        help_text="A Jinja template of its system message.",
    )


class AgentOut(serializers.ModelSerializer[Agent]):
    """An agent."""

    id = serializers.UUIDField(source="uuid")
    project = serializers.CharField(source="project.handle")
    instructions = serializers.ListField(child=serializers.CharField())
    metadata = JsonObject()
    default_settings = JsonObject()

    class Meta:
        model = Agent
        fields = [
            "id",
            "canonical_name",
            "name",
            "project",
            "about",
            "model",
            "instructions",
            "metadata",
            "default_settings",
            "default_system_template",
            "created_at",
            "updated_at",
        ]


class AgentsOut(serializers.Serializer[Any]):
    """A part of a list of agents."""

    items = AgentOut(many=True)


class ModelOut(serializers.Serializer[Any]):
    """A model that agents can run on."""

    id = serializers.CharField()


class ModelsOut(serializers.Serializer[Any]):
    """The models that this server knows of."""

    models = ModelOut(many=True)


# --- End users ------------------------------------------------------------------------------------
class EndUserIn(NullsAsAbsent):
    """An end user."""

    absent_when_null = _ABSENT

    name = PrintableLines(required=False, allow_blank=True, max_length=120)
    about = Text(required=False, allow_blank=True, max_length=MAXIMUM_ABOUT_LENGTH)
    metadata = JsonObject(required=False, allow_null=True)
    project = Text(required=False, allow_null=True, help_text=_PROJECT_HELP)


class EndUserOut(serializers.ModelSerializer[EndUser]):
    """An end user."""

    id = serializers.UUIDField(source="uuid")
    project = serializers.CharField(source="project.handle")
    metadata = JsonObject()

    class Meta:
        model = EndUser
        fields = ["id", "name", "about", "metadata", "project", "created_at", "updated_at"]


class EndUsersOut(serializers.Serializer[Any]):
    """A part of a list of end users."""

    items = EndUserOut(many=True)


# --- Files ----------------------------------------------------------------------------------------
class FileChangeIn(NullsAsAbsent):
    """What can change about a file: anything but its content."""

    absent_when_null = _ABSENT
    default_error_messages = {
        "content": "The content of a file cannot be changed; upload a new file instead."
    }

    name = PrintableLines(max_length=120)
    description = Text(required=False, allow_blank=True, max_length=MAXIMUM_ABOUT_LENGTH)
    mime_type = MediaType(
        required=False,
        allow_null=True,
        max_length=MAXIMUM_MEDIA_TYPE_LENGTH,
        help_text="A media type, possibly with parameters, such as `text/plain; charset=utf-8`.",
    )
    project = Text(required=False, allow_null=True, help_text=_PROJECT_HELP)

    def to_internal_value(self, data: Any) -> Any:
        """Return the values; refuse a content, which somebody would take for changed."""
        if self.partial and "content" in data:
            raise serializers.ValidationError({"content": [self.error_messages["content"]]})
        return super().to_internal_value(data)


class FileIn(FileChangeIn):
    """A file."""

    content = Base64(help_text="The bytes, in base64.")


class FileOut(serializers.ModelSerializer[File]):
    """A file without its content, which is spliced in while it is sent."""

    id = serializers.UUIDField(source="uuid")
    hash = serializers.CharField(source="sha256", help_text="SHA-256, in hexadecimal digits.")
    project = serializers.CharField(source="project.handle")
    size = serializers.IntegerField(help_text="Bytes.")

    class Meta:
        model = File
        fields = [
            "id",
            "name",
            "description",
            "mime_type",
            "size",
            "hash",
            "project",
            "created_at",
            "updated_at",
        ]


class FileWithContentOut(FileOut):
    """A file."""

    content = serializers.CharField(
        help_text="The bytes in base64, padded and in one line; empty where it was not wanted."
    )

    class Meta(FileOut.Meta):
        fields = [*FileOut.Meta.fields, "content"]


# --- Lists ----------------------------------------------------------------------------------------
class ResourceListing(FilteredListing):
    """Which agents or end users are wanted."""

    project = Text(required=False, help_text=_OF_PROJECT_HELP)


class FileListing(Listing):
    """Which files are wanted."""

    project = Text(required=False, help_text=_OF_PROJECT_HELP)
    include_content = QueryFlag(
        default=True, help_text="Whether each file comes with its content; else that is empty."
    )

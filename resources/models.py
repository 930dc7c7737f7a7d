"""What a project groups besides embeddings: agents, end users and files."""

from typing import Any, ClassVar

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.db import models
from django.db.models.functions import Lower

from accounts.models import User
from common.json import StoredDecoder
from common.models import uuid7
from projects.models import Project
from resources.storage import generated_name

MAXIMUM_ABOUT_LENGTH = 16_000
MAXIMUM_MEDIA_TYPE_LENGTH = 127
DEFAULT_SYSTEM_TEMPLATE = """\
{%- if agent.name -%}
Your name is {{ agent.name }}.
{%- endif %}
{%- if agent.about %}
About you: {{ agent.about }}
{%- endif %}
{%- if user and user.name %}
You are talking to {{ user.name }}.
{%- if user.about %}
About them: {{ user.about }}
{%- endif %}
{%- endif %}
{%- if agent.instructions %}
Follow these instructions:
{%- for instruction in agent.instructions %}
- {{ instruction }}
{%- endfor %}
{%- endif %}
"""


class ProjectResource(models.Model):
    """Something that is in exactly one project at any time.

    `uuid` is what the API calls its id; an owner may choose it, so it is unique per owner only.
    `owner` is always the project's owner: the database takes no other and follows a transfer, by a
    foreign key on both columns that migration 0002 makes.

    noun: how refusals call one.
    settable: the fields that a request may set, which go back to their defaults when it replaces
    the whole and leaves them out.
    documents: those of them that hold whatever JSON somebody sends.
    """

    noun: ClassVar[str]
    settable: ClassVar[tuple[str, ...]]
    documents: ClassVar[tuple[str, ...]] = ()

    uuid = models.UUIDField("id", default=uuid7, editable=False)
    owner = models.ForeignKey(
        User,
        on_delete=models.CASCADE,
        related_name="%(class)ss",
        db_constraint=False,
        db_index=False,
        editable=False,
    )
    # Only an account takes what is in its projects along when it goes.
    project = models.ForeignKey(
        Project,
        on_delete=models.RESTRICT,
        related_name="%(class)ss",
        db_constraint=False,
        db_index=False,
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True
        ordering = ["-created_at", "-uuid"]
        constraints: ClassVar[list[Any]] = [
            models.UniqueConstraint(fields=["owner", "uuid"], name="%(class)s_uuid_per_owner"),
        ]
        # Lists are by time, of an owner or of a project.
        indexes: ClassVar[list[Any]] = [
            models.Index(fields=["owner", "created_at", "uuid"], name="%(class)s_by_creation"),
            models.Index(fields=["owner", "updated_at", "uuid"], name="%(class)s_by_change"),
            models.Index(fields=["project", "created_at", "uuid"], name="%(class)s_of_project"),
        ]

    @classmethod
    def default_of(cls, name: str) -> Any:
        """Return the value that a field has when nobody gives one."""
        field: Any = cls._meta.get_field(name)
        return field.get_default()


_BY_METADATA = GinIndex(OpClass("metadata", name="jsonb_path_ops"), name="%(class)s_metadata")


class Agent(ProjectResource):
    """An agent: what a model is told to be, and with which settings."""

    noun = "agent"
    settable = (
        "name",
        "about",
        "model",
        "instructions",
        "metadata",
        "default_settings",
        "default_system_template",
    )
    documents = ("instructions", "metadata", "default_settings")

    name = models.CharField(max_length=255)
    canonical_name = models.CharField(max_length=255)
    about = models.TextField(blank=True, default="")
    model = models.CharField(max_length=255, blank=True, default="")
    instructions = ArrayField(models.TextField(blank=True), blank=True, default=list)
    metadata = models.JSONField(blank=True, default=dict, decoder=StoredDecoder)
    default_settings = models.JSONField(blank=True, default=dict, decoder=StoredDecoder)
    default_system_template = models.TextField(default=DEFAULT_SYSTEM_TEMPLATE)

    class Meta(ProjectResource.Meta):
        constraints = [
            *ProjectResource.Meta.constraints,
            models.UniqueConstraint("owner", Lower("canonical_name"), name="agent_name_per_owner"),
        ]
        indexes = [*ProjectResource.Meta.indexes, _BY_METADATA]

    def __str__(self) -> str:
        return self.canonical_name


class EndUser(ProjectResource):
    """Somebody who talks to an agent; not an account of this server."""

    noun = "user"
    settable = ("name", "about", "metadata")
    documents = ("metadata",)

    name = models.CharField(max_length=120, blank=True, default="")
    about = models.TextField(blank=True, default="")
    metadata = models.JSONField(blank=True, default=dict, decoder=StoredDecoder)

    class Meta(ProjectResource.Meta):
        verbose_name = "end user"
        indexes = [*ProjectResource.Meta.indexes, _BY_METADATA]

    def __str__(self) -> str:
        return self.name or str(self.uuid)


class File(ProjectResource):
    """A file: its description here, its bytes in the storage."""

    noun = "file"
    settable = ("name", "description", "mime_type")

    name = models.CharField(max_length=120)
    description = models.TextField(blank=True, default="")
    # NULL: nobody said. "" is no media type.
    mime_type = models.CharField(  # noqa: DJ001
        max_length=MAXIMUM_MEDIA_TYPE_LENGTH, null=True, blank=True
    )
    content = models.FileField(upload_to=generated_name, editable=False)
    size = models.BigIntegerField(editable=False, help_text="Bytes.")
    sha256 = models.CharField("SHA-256", max_length=64, editable=False)

    def __str__(self) -> str:
        return self.name


KINDS: tuple[type[ProjectResource], ...] = (Agent, EndUser, File)

"""Projects: the unit that is owned, shared, published and transferred."""

from django.contrib.postgres.indexes import GinIndex, OpClass
from django.db import models
from django.db.models.functions import Lower

from accounts.models import Owned, Share
from common.json import StoredDecoder
from common.models import uuid7
from llm_services.models import Instance

DEFAULT_HANDLE = "default"
DEFAULT_NAME = "Default Project"


class Project(Owned):
    """A named set of embeddings made by one LLM service instance.

    `id` and `handle` address it in `/v1`, `uuid` in the Projects API; it is one row for both.
    """

    # An owner may choose it, so two owners may have chosen the same.
    uuid = models.UUIDField(default=uuid7, editable=False)
    handle = models.CharField(max_length=255)
    name = models.CharField(max_length=255, blank=True, default="")
    description = models.CharField(max_length=255, blank=True, default="")
    instance = models.ForeignKey(Instance, on_delete=models.RESTRICT, related_name="projects")
    # The text as it was given: clients get back what they sent, letter by letter.
    metadata_schema = models.TextField(blank=True, default="")
    public_read = models.BooleanField(default=False)
    metadata = models.JSONField(default=dict, blank=True, decoder=StoredDecoder)
    is_default = models.BooleanField(default=False, editable=False)

    class Meta:
        ordering = ["owner__handle", "handle"]
        indexes = [
            models.Index(fields=["owner", "created_at", "uuid"], name="project_by_creation"),
            models.Index(fields=["owner", "updated_at", "uuid"], name="project_by_change"),
            GinIndex(OpClass("metadata", name="jsonb_path_ops"), name="project_metadata"),
        ]
        constraints = [
            models.UniqueConstraint("owner", Lower("handle"), name="project_handle_per_owner"),
            models.UniqueConstraint(fields=["owner", "uuid"], name="project_uuid_per_owner"),
            # What a project groups refers to both, so that its owner is the project's (resources).
            models.UniqueConstraint(fields=["id", "owner"], name="project_with_its_owner"),
            models.UniqueConstraint(
                fields=["owner"], condition=models.Q(is_default=True), name="project_one_default"
            ),
            models.CheckConstraint(
                condition=models.Q(is_default=False) | models.Q(handle=DEFAULT_HANDLE),
                name="project_default_keeps_its_handle",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.owner.handle}/{self.handle}"

    @classmethod
    def readable_by_anyone(cls) -> models.Q:
        """Return the public projects."""
        return models.Q(public_read=True)


class ProjectShare(Share):
    """Lets another account read a project, or edit its embeddings."""

    subject = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="shares")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["subject", "user"], name="project_shared_once"),
        ]

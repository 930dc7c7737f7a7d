"""Embeddings: a vector with the text and metadata it stands for."""

from django.db import models
from pgvector.django import VectorField

from common.models import uuid7
from llm_services.models import Instance
from projects.models import Project

MAXIMUM_TEXT_ID_LENGTH = 300


class Embedding(models.Model):
    """One text of a project and its vector.

    The table is partitioned by `segment` (see `docs/decisions`): migration 0001 creates it in SQL,
    this class lets the ORM, the admin and pages see all partitions as one. Everything that touches
    vectors goes through `store`.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    segment = models.IntegerField(default=0, editable=False)
    project = models.ForeignKey(
        Project, on_delete=models.CASCADE, related_name="embeddings", db_index=False
    )
    text_id = models.CharField(max_length=MAXIMUM_TEXT_ID_LENGTH, db_collation="C")
    # Where the vector came from. No constraint: it outlives a change of the project's instance.
    instance = models.ForeignKey(
        Instance,
        on_delete=models.DO_NOTHING,
        related_name="+",
        db_constraint=False,
        db_index=False,
    )
    vector = VectorField()
    text = models.TextField(blank=True, default="")
    metadata = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["text_id"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "text_id", "segment"], name="embedding_text_id"
            ),
        ]

    def __str__(self) -> str:
        return self.text_id

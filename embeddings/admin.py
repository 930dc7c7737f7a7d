"""Administration of embeddings: to find, read and delete them. No page loads or shows vectors."""

import json

import numpy as np
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest
from django.utils.html import format_html

from accounts.admin import actor_of
from common.admin import CappedPaginator, ServiceAdmin
from common.errors import NotFound
from embeddings import services
from embeddings.models import Embedding
from embeddings.selectors import embedding_for
from projects.admin import ProjectFilter

_EXCERPT = 60
_SHOWN = 20_000


@admin.register(Embedding)
class EmbeddingAdmin(ServiceAdmin[Embedding]):
    """Embeddings; they come in through the API only."""

    list_display = ["text_id", "excerpt", "project", "created_at"]
    list_filter = [("project", ProjectFilter)]
    list_select_related = ["project__owner"]
    # Anything else would sort the whole table: this is the order of its index.
    ordering = ["project_id", "text_id", "segment"]
    sortable_by = []
    list_per_page = 50
    paginator = CappedPaginator
    show_facets = admin.ShowFacets.NEVER
    search_fields = ["text_id"]
    search_help_text = "The start of a text id; within a project, any part of the text as well."
    secret_fields = ("vector",)
    fieldsets = [
        (None, {"fields": ["text_id", "project", "shown_text", "shown_metadata"]}),
        (
            "Vector",
            {
                "fields": ["instance", "dimensions", "norm"],
                "description": "The numbers themselves are served by the API.",
            },
        ),
        ("Dates", {"fields": ["id", "created_at", "updated_at"]}),
    ]
    readonly_fields = [
        "text_id",
        "project",
        "shown_text",
        "shown_metadata",
        "instance",
        "dimensions",
        "norm",
        "id",
        "created_at",
        "updated_at",
    ]

    @admin.display(description="Text")
    def excerpt(self, row: Embedding) -> str:
        """Return how the text begins."""
        begin: str = row.begin  # type: ignore[attr-defined]
        return f"{begin[:_EXCERPT]}…" if len(begin) > _EXCERPT else begin

    @admin.display(description="Text")
    def shown_text(self, row: Embedding) -> str:
        """Return the text, or as much of it as a page can hold."""
        return _shortened(row.text)

    @admin.display(description="Metadata")
    def shown_metadata(self, row: Embedding) -> str:
        """Return the metadata with a line an entry."""
        text = json.dumps(row.metadata, indent=2, ensure_ascii=False)
        return format_html("<pre>{}</pre>", _shortened(text))

    @admin.display(description="Dimensions")
    def dimensions(self, row: Embedding) -> int:
        """Return how many numbers the vector has."""
        return self._shape(row)[0]

    @admin.display(description="Norm")
    def norm(self, row: Embedding) -> str:
        """Return the vector's length."""
        return f"{self._shape(row)[1]:.6g}"

    def _shape(self, row: Embedding) -> tuple[int, float]:
        shape: tuple[int, float] = row.shape  # type: ignore[attr-defined]
        return shape

    def get_queryset(self, request: HttpRequest) -> QuerySet[Embedding]:
        """Return the rows without what is large."""
        rows = super().get_queryset(request).defer("vector", "text", "metadata")
        return rows.annotate(begin=Left("text", _EXCERPT + 1))

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Embedding | None:
        """Return one row with the shape of its vector, or None."""
        row = super().get_object(request, object_id, from_field)
        if row is None:
            return None
        try:
            _, stored = embedding_for(
                actor_of(request),
                owner=row.project.owner.handle,
                handle=row.project.handle,
                text_id=row.text_id,
            )
        except NotFound:
            return None
        row.shape = len(stored.vector), float(np.linalg.norm(stored.vector))  # type: ignore[attr-defined]
        return row

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Embedding], search_term: str
    ) -> tuple[QuerySet[Embedding], bool]:
        """Find text ids by how they begin, and texts by what they hold.

        No index serves the latter, so that it is done within one project only.
        """
        if not search_term:
            return queryset, False
        found = Q(text_id__startswith=search_term)
        if request.GET.get("project"):
            found |= Q(text__icontains=search_term)
        return queryset.filter(found), False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: vectors come in through the API."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Embedding | None = None) -> bool:
        """Return False as `has_add_permission` does."""
        return False

    def remove(self, request: HttpRequest, row: Embedding) -> None:
        """Delete the embedding."""
        services.delete_embedding(
            actor=actor_of(request),
            owner=row.project.owner.handle,
            handle=row.project.handle,
            text_id=row.text_id,
        )


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"

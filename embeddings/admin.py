"""Administration of embeddings and of indexes. No page loads or shows vectors."""

import json
from typing import Any

import numpy as np
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html, format_html_join

from accounts.admin import actor_of
from common.admin import CappedPaginator, ServiceAdmin, ServiceForm
from common.errors import NotFound
from embeddings import embedding_jobs, indexes, services
from embeddings.api.index_serializers import IndexIn
from embeddings.models import Embedding, EmbeddingJob, SearchIndex
from embeddings.selectors import embedding_for
from projects.admin import ProjectFilter
from projects.models import Project

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


class SearchIndexForm(ServiceForm[SearchIndex]):
    """The settings of an index."""

    shape = IndexIn


@admin.register(SearchIndex)
class SearchIndexAdmin(ServiceAdmin[SearchIndex]):
    """Indexes of projects: their state, and the settings by which they are built and searched."""

    form = SearchIndexForm
    part_of_its_owner = True
    list_display = [
        "project",
        "state",
        "rows",
        "graph_size",
        "ef_search_now",
        "measured_recall",
        "built_at",
        "last_error",
    ]
    list_filter = ["state", ("project", ProjectFilter)]
    list_select_related = ["project__owner"]
    ordering = ["project__owner__handle", "project__handle"]
    search_fields = ["project__handle", "project__owner__handle"]
    actions = ["build_again"]
    fieldsets = [
        (
            None,
            {
                "fields": ["project", "state", "phase", "last_error", "rows", "graph_size"],
                "description": "A project has an index once it holds enough embeddings; until then "
                "all of them are compared.",
            },
        ),
        (
            "Building",
            {
                "fields": ["m", "ef_construction"],
                "description": "Other values have the graph built anew in the background.",
            },
        ),
        (
            "Searching",
            {"fields": ["ef_search", "target_recall", "ef_search_now", "search_language"]},
        ),
        (
            "What was built",
            {
                "fields": [
                    "built_m",
                    "built_ef_construction",
                    "measured_ef_search",
                    "measured_recall",
                    "built_at",
                    "updated_at",
                ]
            },
        ),
    ]
    _settings = ("m", "ef_construction", "ef_search", "target_recall", "search_language")

    @admin.display(description="Rows in the graph, about")
    def rows(self, index: SearchIndex) -> int | None:
        """Return about how many rows the graph has."""
        rows: int | None = getattr(index, "sealed_rows", None)
        return rows

    @admin.display(description="Size of the graph")
    def graph_size(self, index: SearchIndex) -> str | None:
        """Return what the graph takes on disk."""
        size: int | None = getattr(index, "graph_bytes", None)
        return None if size is None else filesizeformat(size)

    @admin.display(description="Candidates now")
    def ef_search_now(self, index: SearchIndex) -> int | None:
        """Return how many candidates a search keeps in sight; none where all are compared."""
        return None if index.segment is None else index.ef_search or index.measured_ef_search

    @admin.action(description="Build again", permissions=["change"])
    def build_again(self, request: HttpRequest, rows: QuerySet[SearchIndex]) -> None:
        """Have the graphs built anew, of all the chosen or of none."""
        for index in rows:
            indexes.request_rebuild(
                actor=actor_of(request),
                owner=index.project.owner.handle,
                handle=index.project.handle,
            )
        self.message_user(request, f"{len(rows)} indexes will be built again in the background.")

    def get_queryset(self, request: HttpRequest) -> QuerySet[SearchIndex]:
        """Return the rows with the sizes of what they describe."""
        return indexes.with_sizes(super().get_queryset(request))

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> SearchIndex | None:
        """Return the index of a project; of one that has none yet, with the default settings."""
        found = super().get_object(request, object_id, from_field)
        if found is not None or not (object_id.isascii() and object_id.isdigit()):
            return found
        rows = Project.objects.select_related("owner")
        project = rows.filter(pk=object_id).first() if len(object_id) < 19 else None
        return None if project is None else SearchIndex(project=project)

    def get_readonly_fields(
        self, request: HttpRequest, obj: SearchIndex | None = None
    ) -> list[str]:
        """Keep everything but the settings."""
        parts: Any = self.fieldsets
        fields = [name for _, part in parts for name in part["fields"]]
        return [name for name in fields if name not in self._settings]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: indexes are made where they are needed."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: SearchIndex | None = None) -> bool:
        """Return False: an index goes with its project."""
        return False

    def change(self, request: HttpRequest, row: SearchIndex, form: Any) -> SearchIndex:
        """Change the settings."""
        report = indexes.change_settings(
            actor=actor_of(request),
            owner=row.project.owner.handle,
            handle=row.project.handle,
            changes=form.changes(),
        )
        return report.index


_JOB_FIELDS = (
    "project",
    "user",
    "state",
    "error",
    "total",
    "done",
    "failed",
    "tokens",
    "created_at",
    "started_at",
    "finished_at",
    "failures_shown",
)


@admin.register(EmbeddingJob)
class EmbeddingJobAdmin(ServiceAdmin[EmbeddingJob]):
    """Texts that are embedded in the background: how far they are, and what failed."""

    part_of_its_owner = True
    list_display = ["project", "state", "total", "done", "failed", "user", "created_at", "error"]
    list_filter = ["state", ("project", ProjectFilter)]
    list_select_related = ["project__owner", "user"]
    ordering = ["-id"]
    search_fields = ["project__handle", "project__owner__handle"]
    actions = ["cancel", "retry"]
    fields = _JOB_FIELDS
    readonly_fields = _JOB_FIELDS

    @admin.display(description="Texts that failed")
    def failures_shown(self, job: EmbeddingJob) -> str:
        """Return the first texts that failed, and why."""
        first = embedding_jobs.failures_of(job)[:_EXCERPT]
        return format_html_join("", "<p>{}: {}</p>", ((each.text_id, each.error) for each in first))

    @admin.action(description="Cancel", permissions=["delete"])
    def cancel(self, request: HttpRequest, rows: QuerySet[EmbeddingJob]) -> None:
        """Stop the chosen jobs, all of them or none."""
        for job in rows:
            embedding_jobs.cancel(**_where(request, job))
        self.message_user(request, f"{len(rows)} jobs are cancelled.")

    @admin.action(description="Try again what was not stored", permissions=["delete"])
    def retry(self, request: HttpRequest, rows: QuerySet[EmbeddingJob]) -> None:
        """Have the chosen jobs go on, all of them or none."""
        for job in rows:
            embedding_jobs.retry(**_where(request, job))
        self.message_user(request, f"{len(rows)} jobs are tried again in the background.")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: jobs come from uploads."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: EmbeddingJob | None = None) -> bool:
        """Return False as `has_add_permission` does."""
        return False

    def remove(self, request: HttpRequest, row: EmbeddingJob) -> None:
        """Forget a job that has ended."""
        embedding_jobs.delete(**_where(request, row))


def _where(request: HttpRequest, job: EmbeddingJob) -> dict[str, Any]:
    project = job.project
    where = {"owner": project.owner.handle, "handle": project.handle, "job_id": job.pk}
    return {"actor": actor_of(request), **where}


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"

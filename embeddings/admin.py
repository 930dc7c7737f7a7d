"""Administration of embeddings and of indexes. No page loads or shows vectors."""

import json
from typing import Any

import numpy as np
from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.db.models.functions import Left
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html, format_html_join

from accounts.admin import actor_of
from common.admin import CappedPaginator, CompletingFilter, KeptAdmin, ServiceAdmin, ServiceForm
from common.errors import NotFound
from embeddings import embedding_jobs, indexes, reembedding, services
from embeddings.api.index_serializers import IndexIn
from embeddings.models import (
    Embedding,
    EmbeddingJob,
    ImportJob,
    Projection,
    ProjectModel,
    Reembedding,
    ReembeddingState,
    SearchIndex,
)
from embeddings.selectors import embedding_for
from projects.admin import AboutProjectAdmin, ProjectAdmin, ProjectFilter
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
                "fields": ["instance", "model", "dimensions", "norm"],
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
        "model",
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

    def console_page(self, row: Embedding) -> str:
        """Return the address of the text's page."""
        project = row.project
        return reverse("text", args=[project.owner.handle, project.handle, row.text_id])

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
class SearchIndexAdmin(AboutProjectAdmin[SearchIndex]):
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
        chosen = self.chosen(rows, "Build")
        for index in chosen:
            _build_again(request, index.project)
            self.log_change(request, index, "Asked to be built again.")
        _say_built_again(self, request, len(chosen))

    def buttons(self, request: HttpRequest, row: SearchIndex) -> dict[str, str]:
        """Offer to build a graph again."""
        return {} if row.segment is None else {"build_again": "Build again"}

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


def _build_again(request: HttpRequest, project: Project) -> None:
    indexes.request_rebuild(
        actor=actor_of(request), owner=project.owner.handle, handle=project.handle
    )


def _say_built_again(site: ServiceAdmin[Any], request: HttpRequest, number: int) -> None:
    what = "1 index" if number == 1 else f"{number} indexes"
    message = f"{what} will be built again in the background."
    site.message_user(request, message, messages.SUCCESS)


@admin.action(
    description="Build the search indexes of selected projects again", permissions=["reindex"]
)
def reindex(site: ProjectAdmin, request: HttpRequest, rows: QuerySet[Project]) -> None:
    """Have the graphs of projects built anew, of all the chosen or of none."""
    projects = site.chosen(rows, "Choose")
    for project in projects:
        _build_again(request, project)
        site.log_change(request, project, "Asked for its search index to be built again.")
    _say_built_again(site, request, len(projects))


# Projects know nothing of indexes.
ProjectAdmin.actions = [*(ProjectAdmin.actions or ()), reindex]


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
class EmbeddingJobAdmin(AboutProjectAdmin[EmbeddingJob]):
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
        chosen = self.chosen(rows, "Cancel")
        for job in chosen:
            embedding_jobs.cancel(**_where(request, job))
            self.log_change(request, job, "Cancelled.")
        what = "1 job is" if len(chosen) == 1 else f"{len(chosen)} jobs are"
        self.message_user(request, f"{what} cancelled.", messages.SUCCESS)

    @admin.action(description="Try again what was not stored", permissions=["delete"])
    def retry(self, request: HttpRequest, rows: QuerySet[EmbeddingJob]) -> None:
        """Have the chosen jobs go on, all of them or none."""
        chosen = self.chosen(rows, "Try")
        for job in chosen:
            embedding_jobs.retry(**_where(request, job))
            self.log_change(request, job, "Tried again.")
        what = "1 job is" if len(chosen) == 1 else f"{len(chosen)} jobs are"
        self.message_user(request, f"{what} tried again in the background.", messages.SUCCESS)

    def buttons(self, request: HttpRequest, row: EmbeddingJob) -> dict[str, str]:
        """Offer what can be done with a job in this state."""
        if row.is_active:
            return {"cancel": "Cancel"}
        return {"retry": "Try again what was not stored"} if row.done < row.total else {}

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
    return {**_at(request, job.project), "job_id": job.pk}


def _at(request: HttpRequest, project: Project) -> dict[str, Any]:
    return {
        "actor": actor_of(request),
        "owner": project.owner.handle,
        "handle": project.handle,
    }


@admin.register(Reembedding)
class ReembeddingAdmin(AboutProjectAdmin[Reembedding]):
    """Changes of projects' models: how far they are. Projects' owners begin and end them."""

    part_of_its_owner = True
    list_display = [
        "project",
        "state",
        "model",
        "embedded",
        "tokens",
        "created_at",
        "switched_at",
        "last_error",
    ]
    list_filter = ["state", ("project", ProjectFilter)]
    list_select_related = ["project__owner", "instance__owner", "model"]
    ordering = ["-created_at"]
    date_hierarchy = "created_at"
    search_fields = ["project__handle", "project__owner__handle", "model__model"]
    actions = ["pause", "resume"]
    fieldsets = [
        (
            None,
            {
                "fields": ["project", "state", "last_error", "embedded", "tokens"],
                "description": "The project's texts are embedded by another model, aside. Deleting "
                "this deletes the vectors aside: those that are made, or after the switch the "
                "former ones.",
            },
        ),
        ("Aside", {"fields": ["instance", "model"]}),
        ("Dates", {"fields": ["created_at", "switched_at", "updated_at"]}),
    ]

    @admin.action(description="Pause selected re-embeddings", permissions=["delete"])
    def pause(self, request: HttpRequest, rows: QuerySet[Reembedding]) -> None:
        """Let the chosen ones end after the piece that is under way, all or none."""
        chosen = self.chosen(rows, "Pause")
        for row in chosen:
            reembedding.pause(**_at(request, row.project))
            self.log_change(request, row, "Paused.")
        what = "1 re-embedding is" if len(chosen) == 1 else f"{len(chosen)} re-embeddings are"
        self.message_user(request, f"{what} paused.", messages.SUCCESS)

    @admin.action(description="Resume selected re-embeddings", permissions=["delete"])
    def resume(self, request: HttpRequest, rows: QuerySet[Reembedding]) -> None:
        """Have the chosen ones go on, all or none."""
        chosen = self.chosen(rows, "Resume")
        for row in chosen:
            reembedding.resume(**_at(request, row.project))
            self.log_change(request, row, "Resumed.")
        what = "1 re-embedding goes" if len(chosen) == 1 else f"{len(chosen)} re-embeddings go"
        self.message_user(request, f"{what} on in the background.", messages.SUCCESS)

    def buttons(self, request: HttpRequest, row: Reembedding) -> dict[str, str]:
        """Offer what can be done with one in this state."""
        if row.state == ReembeddingState.FILLING:
            return {"pause": "Pause"}
        may_go_on = row.state in {ReembeddingState.PAUSED, ReembeddingState.FAILED}
        return {"resume": "Resume"} if may_go_on else {}

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: owners begin them."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Reembedding | None = None) -> bool:
        """Return False: there is nothing to enter."""
        return False

    def remove(self, request: HttpRequest, row: Reembedding) -> None:
        """Delete the vectors aside."""
        reembedding.forget(**_at(request, row.project))


@admin.register(ProjectModel)
class ProjectModelAdmin(KeptAdmin[ProjectModel], AboutProjectAdmin[ProjectModel]):
    """Which models have made embeddings of which projects."""

    list_display = ["project", "model", "first_used_at"]
    list_filter = [("project", ProjectFilter), ("model", CompletingFilter)]
    list_select_related = ["project__owner", "model"]
    ordering = ["-pk"]
    date_hierarchy = "first_used_at"
    search_fields = ["project__handle", "project__owner__handle", "model__model"]
    fields = ["project", "model", "first_used_at"]


@admin.register(Projection)
class ProjectionAdmin(KeptAdmin[Projection], AboutProjectAdmin[Projection]):
    """Maps of projects: how far they are. Editors have them drawn anew, on the map's page."""

    list_display = ["project", "method", "state", "count", "made_at", "error"]
    list_filter = ["method", "state", ("project", ProjectFilter)]
    list_select_related = ["project__owner"]
    ordering = ["-pk"]
    date_hierarchy = "made_at"
    search_fields = ["project__handle", "project__owner__handle"]
    secret_fields = ("points", "text_ids")
    fields = ["project", "method", "state", "progress", "error", "rows", "count", "made_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Projection]:
        """Leave out where the texts lie."""
        return super().get_queryset(request).defer("points", "text_ids")


@admin.register(ImportJob)
class ImportJobAdmin(KeptAdmin[ImportJob], AboutProjectAdmin[ImportJob]):
    """Files that are stored in the background: how far they are. Editors stop and repeat them."""

    list_display = ["name", "project", "state", "stored", "rejected", "user", "created_at", "error"]
    list_filter = ["state", "format", ("project", ProjectFilter)]
    list_select_related = ["project__owner", "user"]
    ordering = ["-pk"]
    date_hierarchy = "created_at"
    search_fields = ["name", "project__handle", "project__owner__handle"]
    fields = [
        "name", "project", "user", "state", "format", "size", "rows", "stored", "replaced",
        "skipped", "rejected", "warnings", "error", "created_at", "started_at", "finished_at",
    ]  # fmt: skip


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"

"""Examines indexes and stored embeddings."""

from collections.abc import Iterator
from itertools import islice

import orjson
from django.db.models import QuerySet

from common.doctor import Finding, Severity, check
from embeddings import store
from embeddings.model_guard import sanity_warnings, warnings_about
from embeddings.models import SearchIndex
from projects.metadata import validator_for
from projects.models import Project

# Of what a check looks at when it is not to be thorough.
_SOME_PROJECTS = 20
_SOME_TEXTS = 500
_NAMED = 3


@check("indexes", "Search indexes")
def search_indexes(thorough: bool) -> Iterator[Finding]:
    """Look for indexes that failed, and for those that are damaged or missing."""
    for name in store.invalid_indexes():
        yield Finding(
            Severity.ERROR,
            f"The index {name} is not valid: it is not used, and writing keeps it up all the same.",
            f"manage.py tendindexes; for others than those of segments: REINDEX INDEX {name};",
        )
    for index in _indexes():
        name = str(index.project)
        if index.last_error:
            yield Finding(
                Severity.WARNING,
                f"The last attempt to look after the index of {name} failed: {index.last_error}",
                f"manage.py rebuildindex {name}",
                name,
            )
        elif index.segment is not None and not store.has_graph(index.segment):
            yield Finding(
                Severity.WARNING,
                f"The index of {name} is missing; it is searched exactly, and slowly.",
                "manage.py tendindexes",
                name,
            )


@check("plans", "Searches through indexes")
def plans(thorough: bool) -> Iterator[Finding]:
    """Ask PostgreSQL by which plan it answers searches of indexed projects."""
    for index in _some(_indexes().filter(segment__isnull=False), thorough):
        if store.uses_graph(index.project_id) is False:
            name = str(index.project)
            yield Finding(
                Severity.ERROR,
                f"PostgreSQL does not use the index of {name}: each search reads every row.",
                f"manage.py rebuildindex {name}; then ANALYZE in the database",
                name,
            )


@check("vectors", "Stored vectors")
def vectors(thorough: bool) -> Iterator[Finding]:
    """Look for vectors that no search can rank, and for those of other dimensions."""
    for project in _some(_projects(), thorough):
        ids = store.without_length(project.pk, limit=_NAMED + 1, thorough=thorough)
        if ids:
            yield Finding(
                Severity.ERROR,
                f"{project} holds vectors without a direction (zero or not finite), which no search"
                f" finds: {_named(ids)}.",
                "Upload these texts again, or delete them.",
                str(project),
            )
        others = store.of_other_dimensions(project.pk, project.instance.dimensions)
        if others:
            yield Finding(
                Severity.ERROR,
                f"{project} holds {len(others)} vectors of other dimensions than its LLM service "
                f"has: {_named([text_id for text_id, _ in others])}.",
                "manage.py sanitycheck",
                str(project),
            )


@check("models", "Models")
def models(thorough: bool) -> Iterator[Finding]:
    """Look for projects whose vectors come from several models."""
    for project in _some(_projects(), thorough):
        for sentence in sanity_warnings(project) if thorough else warnings_about(project):
            yield Finding(
                Severity.WARNING,
                f"{project}: {sentence}",
                "Re-embed the project (docs/models.md), or upload the older texts again.",
                str(project),
            )


@check("schemas", "Metadata schemas")
def schemas(thorough: bool) -> Iterator[Finding]:
    """Compare stored metadata with the schemas of their projects: the first texts, or all."""
    for project in _some(_projects().exclude(metadata_schema=""), thorough):
        broken = list(islice(_broken(project, thorough), _NAMED + 1))
        if broken:
            yield Finding(
                Severity.ERROR,
                f"{project} holds metadata that its schema refuses: {_named(broken)}.",
                "manage.py sanitycheck",
                str(project),
            )


def _indexes() -> QuerySet[SearchIndex]:
    return SearchIndex.objects.select_related("project__owner").order_by("-updated_at")


def _projects() -> QuerySet[Project]:
    # Those that were changed lately first: what is wrong is most often new.
    return Project.objects.select_related("owner", "instance").order_by("-updated_at")


def _some(rows: QuerySet, thorough: bool) -> QuerySet:  # type: ignore[type-arg]
    return rows if thorough else rows[:_SOME_PROJECTS]


def _broken(project: Project, thorough: bool) -> Iterator[str]:
    validator = validator_for(project.metadata_schema)
    last = ""
    while rows := store.metadata_after(project.pk, last, limit=_SOME_TEXTS):
        for text_id, metadata in rows:
            if validator.violations(orjson.loads(metadata)):
                yield text_id
        last = rows[-1][0]
        if not thorough:
            return


def _named(ids: list[str]) -> str:
    shown = ", ".join(f"'{each[:60]}'" for each in ids[:_NAMED])
    return shown + (", …" if len(ids) > _NAMED else "")

"""Reads and searches embeddings: the project first, then the store."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote_plus

import orjson

from accounts.policy import Actor, Level, require_admin
from common.errors import NotFound
from common.pagination import Page
from embeddings import batches, store
from embeddings.store import Exclusion, Hit, Row, Wanted
from projects.metadata import describe, validator_for
from projects.models import Project
from projects.selectors import project_for

__all__ = ["Exclusion", "Hit", "Page", "Row", "Wanted"]

# How many rows a walk over a project reads at once.
_PAGE = 1_000


@dataclass(frozen=True)
class Found:
    """What a search returned, and in which project."""

    project: Project
    hits: Sequence[Hit]


def embeddings_of(
    actor: Actor, *, owner: str, handle: str, limit: int, offset: int
) -> tuple[Project, Page[Row]]:
    """Return a page of the project's embeddings by text id; raise as `project_for`."""
    project = project_for(actor, Level.READER, owner=owner, handle=handle)
    total = store.count(project.pk)
    rows = store.page(project.pk, limit=limit, offset=offset) if offset < total else []
    return project, Page(rows, total, limit, offset)


def snapshot_of(project: Project, *, size: int) -> Generator[list[Row], None, None]:
    """Return all embeddings of a project by text id, some at a time, as they are at one moment."""
    return store.snapshot(project.pk, size=size)


def embedding_for(actor: Actor, *, owner: str, handle: str, text_id: str) -> tuple[Project, Row]:
    """Return one embedding; raise as `project_for`, and NotFound."""
    project = project_for(actor, Level.READER, owner=owner, handle=handle)
    row = store.get(project.pk, spellings(text_id))
    if row is None:
        raise NotFound(missing(project, text_id))
    return project, row


def similar_to(actor: Actor, *, owner: str, handle: str, text_id: str, wanted: Wanted) -> Found:
    """Return the texts most similar to a stored one, without it; raise as `embedding_for`."""
    project = project_for(actor, Level.READER, owner=owner, handle=handle)
    ranking = store.nearest_to_stored(project.pk, spellings(text_id), wanted)
    if ranking is None:
        raise NotFound(missing(project, text_id))
    return Found(project, ranking.hits)


def similar_to_vector(
    actor: Actor, *, owner: str, handle: str, body: Callable[[], bytes], wanted: Wanted
) -> Found:
    """Return the texts most similar to the vector in a JSON body.

    body: reads the request; called once the actor is known to be allowed to search.
    Raises as `project_for`, and Invalid for the body.
    """
    project = project_for(actor, Level.READER, owner=owner, handle=handle)
    vector = batches.parse_query(body(), project.instance.dimensions)
    return Found(project, store.nearest(project.pk, vector, wanted).hits)


@dataclass
class SanityReport:
    """What is wrong with stored data.

    issues: embeddings that their project would refuse today.
    warnings: projects whose metadata nothing checks.
    """

    total_projects: int = 0
    issues: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        """Return FAILED with issues, else WARNING with warnings, else PASSED."""
        if self.issues:
            return "FAILED"
        return "WARNING" if self.warnings else "PASSED"


def sanity_report(actor: Actor) -> SanityReport:
    """Compare every embedding with its project's instance and metadata schema.

    Raises Forbidden for anybody but administrators. Reads all metadata, a page at a time.
    """
    require_admin(actor)
    report = SanityReport()
    projects = Project.objects.select_related("owner", "instance")
    for project in projects.order_by("owner__handle", "handle").iterator():
        report.total_projects += 1
        name = f"Project {project}"
        for text_id, found in store.of_other_dimensions(project.pk, project.instance.dimensions):
            report.issues.append(
                f"{name}: embedding '{text_id}' has {found} dimensions, its LLM service expects "
                f"{project.instance.dimensions}"
            )
        if project.metadata_schema:
            report.issues += [f"{name}: {problem}" for problem in _against_schema(project)]
        elif stored := store.count(project.pk):
            report.warnings.append(f"{name} has {stored} embeddings but no metadata schema defined")
    return report


def _against_schema(project: Project) -> Iterator[str]:
    validator = validator_for(project.metadata_schema)
    last = ""
    while rows := store.metadata_after(project.pk, last, limit=_PAGE):
        for text_id, metadata in rows:
            violations = validator.violations(orjson.loads(metadata))
            if violations:
                yield describe(text_id, violations)
        last = rows[-1][0]


def spellings(text_id: str) -> list[str]:
    """Return how an id from a URL may be stored: as it is, or as older clients encoded it."""
    encoded = quote_plus(text_id)
    return [text_id] if encoded == text_id else [text_id, encoded]


def missing(project: Project, text_id: str) -> str:
    """Return the sentence for an id that the project does not have."""
    return f"Project '{project}' has no embedding with text_id '{text_id[:300]}'."

"""Reads and searches embeddings: the project first, then the store."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote_plus

import orjson

from accounts.policy import Actor, Level, require_admin
from common.errors import NotFound
from embeddings import batches, store
from embeddings.store import Exclusion, Hit, Row, Wanted
from projects.metadata import describe, validator_for
from projects.models import Project
from projects.selectors import project_for

__all__ = ["Exclusion", "Hit", "Row", "Wanted"]

# How many rows a walk over a project reads at once, and how many numbers of theirs: 16 MB.
_PAGE = 1_000
_NUMBERS = 4 * 1024**2


@dataclass(frozen=True)
class Found:
    """What a search returned, and in which project."""

    project: Project
    hits: Sequence[Hit]


@dataclass
class Listing:
    """A part of a project's embeddings by text id, read when it is walked through.

    total: how many the project has; None after a key, where nobody counted.
    has_more: whether others follow, and `last`, the last id: known after the walk.
    """

    project: Project
    limit: int
    offset: int
    after: str | None
    total: int | None
    has_more: bool = False
    last: str = ""

    def parts(self) -> Iterator[list[Row]]:
        """Return the rows, some at a time: few enough to be held at once."""
        left = self.limit
        size = max(1, min(_PAGE, _NUMBERS // self.project.instance.dimensions))
        while left:
            count = min(left, size)
            # One more tells whether there are more.
            rows = self._next(count + 1)
            left -= count
            self.has_more = len(rows) > count
            if rows:
                self.last = rows[:count][-1].text_id
                yield rows[:count]
            if not self.has_more:
                return

    def rows(self) -> list[Row]:
        """Return all of the rows."""
        return [row for part in self.parts() for row in part]

    def _next(self, limit: int) -> list[Row]:
        key = self.last or self.after
        if key is not None:
            return store.after(self.project.pk, key, limit=limit)
        if self.total is not None and self.offset >= self.total:
            return []
        return store.page(self.project.pk, limit=limit, offset=self.offset)


def embeddings_of(
    actor: Actor, *, owner: str, handle: str, limit: int, offset: int = 0, after: str | None = None
) -> Listing:
    """Return a part of the project's embeddings by text id; raise as `project_for`.

    after: the id before the first, instead of an offset.
    """
    project = project_for(actor, Level.READER, owner=owner, handle=handle)
    total = store.count(project.pk) if after is None else None
    return Listing(project, limit, offset, after, total)


def about(project: Project) -> dict[str, str]:
    """Return what a file of the project's embeddings says about them."""
    instance = project.instance
    return {
        "armarium.project": str(project),
        "armarium.instance": str(instance),
        "armarium.model": instance.model,
        "armarium.dimensions": str(instance.dimensions),
    }


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
    hits = store.nearest_to_stored(project.pk, spellings(text_id), wanted)
    if hits is None:
        raise NotFound(missing(project, text_id))
    return Found(project, hits)


def similar_to_vector(
    actor: Actor, *, owner: str, handle: str, body: Callable[[], bytes], wanted: Wanted
) -> Found:
    """Return the texts most similar to the vector in a JSON body.

    body: reads the request; called once the actor is known to be allowed to search.
    Raises as `project_for`, and Invalid for the body.
    """
    project = project_for(actor, Level.READER, owner=owner, handle=handle)
    vector = batches.parse_query(body(), project.instance.dimensions)
    return Found(project, store.nearest(project.pk, vector, wanted))


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

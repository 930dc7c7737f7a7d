"""Reads and searches embeddings: the project first, then the store."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, TypeVar
from urllib.parse import quote_plus

import orjson
from django.db import InterfaceError, OperationalError

from accounts.authentication import Credentials
from accounts.policy import Actor, Level, is_granted, require_admin
from common import bodies
from common.database import is_lost
from common.errors import (
    DomainError,
    FieldError,
    Forbidden,
    Invalid,
    NotFound,
    Unauthenticated,
)
from common.versions import RowVersion, Stale
from embeddings import batches, filters, hybrid, store
from embeddings.filters import Condition, Path
from embeddings.hybrid import Asked, Fused, FusedHit, Mode
from embeddings.model_guard import sanity_warnings
from embeddings.recall import Comparison, compare
from embeddings.store import Exclusion, Facets, Hit, Order, Plan, Ranking, Row, Wanted
from llm_services.embedding import embed_query, is_local
from projects import access
from projects.metadata import describe, validator_for
from projects.models import Project
from projects.selectors import project_for

__all__ = ["Comparison", "Exclusion", "Facets", "Hit", "Order", "Plan", "Row", "Wanted"]

T = TypeVar("T")

# How many rows a walk over a project reads at once, and how many numbers of theirs: 16 MB.
_PAGE = 1_000
_NUMBERS = 4 * 1024**2


@dataclass(frozen=True)
class Found:
    """What a search returned, in which project, and to whom."""

    actor: Actor
    project: Project
    ranking: Ranking

    @property
    def hits(self) -> Sequence[Hit]:
        """Return the results, the best first."""
        return self.ranking.hits


@dataclass(frozen=True)
class Explanation:
    """How a search was answered.

    sealed, growing: how many rows are in the project's graph, and beside it.
    compared: how many rows were ranked by their exact similarity.
    complete: whether no better result can be missing: every matching row was compared.
    """

    sealed: int
    growing: int
    compared: int
    complete: bool


@dataclass
class Listing:
    """A part of a project's embeddings by text id, read when it is walked through.

    condition: the filter that keeps them.
    total: how many it keeps; None after a key, where nobody counted.
    has_more: whether others follow, and `last`, the last id: known after the walk.
    """

    project: Project
    limit: int
    offset: int
    after: str | None
    total: int | None
    condition: Condition | None = None
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
            return store.after(self.project.pk, key, limit=limit, condition=self.condition)
        if self.total is not None and self.offset >= self.total:
            return []
        return store.page(
            self.project.pk, limit=limit, offset=self.offset, condition=self.condition
        )


def embeddings_of(
    actor: Actor,
    *,
    owner: str,
    handle: str,
    limit: int,
    offset: int = 0,
    after: str | None = None,
    condition: Condition | None = None,
) -> Listing:
    """Return a part of the project's embeddings by text id; raise as `project_for`.

    after: the id before the first, instead of an offset.
    """
    project = project_for(actor, Level.READER, owner=owner, handle=handle)
    total = store.count(project.pk, condition) if after is None else None
    return Listing(project, limit, offset, after, total, condition)


@dataclass(frozen=True)
class SortedPart:
    """A part of a project's embeddings in some order.

    total: how many the filter keeps; None after the first part.
    following: what the next part is asked for with; None where this is the last.
    """

    rows: list[Row]
    total: int | None
    following: str | None


def sorted_embeddings_of(
    actor: Actor,
    *,
    owner: str,
    handle: str,
    order: Order,
    limit: int,
    after: str | None = None,
    condition: Condition | None = None,
) -> SortedPart:
    """Return a part of the project's embeddings in some order, whatever comes or goes meanwhile.

    after: the `following` of the part before. Raises as `project_for`, and Invalid for another.
    """
    project = project_for(actor, Level.READER, owner=owner, handle=handle)
    total = store.count(project.pk, condition) if after is None else None
    place = None if after is None else _place(after)
    found = store.sorted_after(project.pk, order, place, limit=limit + 1, condition=condition)
    rows = [row for _, row in found[:limit]]
    following = None
    if len(found) > limit:
        value, last = found[limit - 1]
        following = orjson.dumps([value, last.text_id]).decode()
    return SortedPart(rows, total, following)


def _place(after: str) -> tuple[str, str]:
    """Return what sorts the last embedding of the part before, and its id."""
    try:
        value, text_id = orjson.loads(after)
        text_id.encode()
        if "\x00" in text_id or not _sorts(orjson.loads(value)):
            raise ValueError(after)
    except (ValueError, TypeError, AttributeError) as error:
        message = "after is none that a list returned; start without one."
        raise Invalid(message, errors=[FieldError("query.after", message)]) from error
    return value, text_id


def _sorts(value: Any) -> bool:
    """Tell whether a list may have been sorted by this."""
    if isinstance(value, str):
        return "\x00" not in value
    return value is None or value == {} or (isinstance(value, int | float) and isfinite(value))


def count_of(actor: Actor, *, owner: str, handle: str, condition: Condition) -> tuple[Project, int]:
    """Return how many of the project's embeddings a filter keeps; raise as `project_for`."""
    project = project_for(actor, Level.READER, owner=owner, handle=handle)
    return project, store.count(project.pk, condition)


def facets_of(
    actor: Actor,
    *,
    owner: str,
    handle: str,
    path: Path,
    condition: Condition | None,
    limit: int,
) -> tuple[Project, Facets]:
    """Return the values at a path of the metadata and how frequent they are; as `project_for`."""
    project = project_for(actor, Level.READER, owner=owner, handle=handle)
    return project, store.facets(project.pk, path, condition, limit=limit)


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


def described(project: Project, text_ids: Sequence[str]) -> dict[str, tuple[str, bytes]]:
    """Return text and metadata (JSON text) of some texts by id, without those not stored."""
    found = store.describe(project.pk, text_ids, text=True, metadata=True)
    return {text_id: (each.text, each.metadata) for text_id, each in found.items()}


def embedding_for(actor: Actor, *, owner: str, handle: str, text_id: str) -> tuple[Project, Row]:
    """Return one embedding; raise as `project_for`, and NotFound."""
    project = project_for(actor, Level.READER, owner=owner, handle=handle)
    row = store.get(project.pk, spellings(text_id))
    if row is None:
        raise NotFound(missing(project, text_id))
    return project, row


def similar_to(
    credentials: Credentials, *, owner: str, handle: str, text_id: str, wanted: Wanted
) -> Found:
    """Return the texts most similar to a stored one, without it; raise as `embedding_for`."""

    def search(project: Project, rests_on: Sequence[RowVersion]) -> Ranking:
        ranking = store.nearest_to_stored(project.pk, spellings(text_id), wanted, rests_on)
        if ranking is None:
            raise NotFound(missing(project, text_id))
        return ranking

    return _searching(credentials, owner, handle, search)


def similar_to_query(
    credentials: Credentials,
    *,
    owner: str,
    handle: str,
    body: Callable[[], bytes],
    wanted: Wanted,
    for_words: Wanted,
) -> Found:
    """Return the texts most similar to the vector, or to the words, in a JSON body.

    body: reads the request; called once the actor is known to be allowed to search. It may hold a
    filter besides, where `wanted` has none.
    for_words: what is wanted where the body holds words.
    Raises as `project_for`, Invalid for the body, and as `similar_to_words`.
    """
    content = bodies.once(body)

    def search(project: Project, rests_on: Sequence[RowVersion]) -> Ranking:
        return _nearest(project, content(), wanted, rests_on)

    try:
        return _searching(credentials, owner, handle, search)
    except _Words as given:
        for_words = replace(for_words, filter=given.condition)
        return similar_to_words(
            credentials, owner=owner, handle=handle, words=given.words, wanted=for_words
        )


class _Words(Exception):
    """A body asks for words, which are not embedded before the permission is known for sure."""

    def __init__(self, words: str, condition: Condition | None) -> None:
        super().__init__()
        self.words, self.condition = words, condition


def similar_to_words(
    credentials: Credentials, *, owner: str, handle: str, words: str, wanted: Wanted
) -> Found:
    """Return the texts whose vectors are most similar to that of some words.

    Raises as `project_for`; Forbidden, or Unauthenticated, for those who read the project only
    because everybody may, unless embedding costs nobody money; as `embed_query`.
    """
    known = access.look_up(credentials, owner=owner, handle=handle)
    check_may_embed(known.actor, known.project)
    try:
        ranking = nearest_to_words(known.project, words, wanted, known.rests_on)
    except Stale:
        # The provider may have taken its time, and what the permission rests on has changed.
        known = access.look_up(credentials, owner=owner, handle=handle)
        check_may_embed(known.actor, known.project)
        ranking = nearest_to_words(known.project, words, wanted)
    return Found(known.actor, known.project, ranking)


def nearest_to_words(
    project: Project, words: str, wanted: Wanted, rests_on: Sequence[RowVersion] = ()
) -> Ranking:
    """Return the texts of a project most similar to some words; raise as `embed_query`."""
    return store.nearest(project.pk, embed_query(project.instance, words), wanted, rests_on)


def texts_matching(
    actor: Actor, *, owner: str, handle: str, words: str, asked: Asked, wanted: Wanted
) -> list[tuple[FusedHit, Row]]:
    """Return the texts that some words find, the best first.

    With Mode.VECTOR, their score is their similarity. Raises as `project_for` and `embed_query`.
    """
    project = project_for(actor, Level.READER, owner=owner, handle=handle)
    if asked.mode is Mode.VECTOR:
        ranking = nearest_to_words(project, words, wanted)
        hits = [
            FusedHit(hit.text_id, hit.similarity, hit.similarity, rank, None, None)
            for rank, hit in enumerate(ranking.hits, wanted.offset + 1)
        ]
    else:
        vector = None
        if asked.mode is Mode.HYBRID:
            vector = embed_query(project.instance, hybrid.meant(words))
        hits = list(hybrid.search(project.pk, words, vector, asked, wanted).hits)
    found = [(hit, store.get(project.pk, [hit.text_id])) for hit in hits]
    # Some may have been deleted meanwhile.
    return [(hit, row) for hit, row in found if row is not None]


@dataclass(frozen=True)
class FusedFound:
    """What a search by words, alone or beside vectors, returned, in which project, and to whom."""

    actor: Actor
    project: Project
    fused: Fused

    @property
    def vectors(self) -> Found | None:
        """Return how the vectors were searched; None where they were not."""
        ranking = self.fused.ranking
        return None if ranking is None else Found(self.actor, self.project, ranking)


def matching_words(
    credentials: Credentials,
    *,
    owner: str,
    handle: str,
    words: str | Callable[[], bytes],
    asked: Asked,
    wanted: Wanted,
) -> FusedFound:
    """Return the texts that hold some words; in hybrid mode, those whose vectors are similar too.

    words: or what reads a JSON body that has them, and may have a vector and a filter beside them;
    called once the actor is known to be allowed to search. Without a vector the words are embedded.
    Raises as `project_for`, Invalid for the body, and in hybrid mode as `similar_to_words`.
    """
    known = access.look_up(credentials, owner=owner, handle=handle)
    vector = None
    if not isinstance(words, str):
        dimensions = known.project.instance.dimensions
        words, vector, condition = batches.parse_words(words(), dimensions)
        wanted = _with_filter(wanted, condition)
    if asked.mode is Mode.TEXT and vector is not None:
        problem = "With mode=text, only words are searched for: leave the vector out."
        raise Invalid(problem, errors=[FieldError("body.vector", problem)])
    if asked.mode is Mode.HYBRID and vector is None:
        check_may_embed(known.actor, known.project)
        vector = embed_query(known.project.instance, hybrid.meant(words))
        if not is_local(known.project.instance):
            # The provider may have taken its time.
            known = access.look_up(credentials, owner=owner, handle=handle)
    fused = hybrid.search(known.project.pk, words, vector, asked, wanted)
    return FusedFound(known.actor, known.project, fused)


def check_may_embed(actor: Actor, project: Project) -> None:
    """Raise Forbidden or Unauthenticated where searching by words costs others money."""
    if not is_local(project.instance) and not is_granted(actor, project):
        refusal = Unauthenticated if actor.is_anonymous else Forbidden
        raise refusal(
            f"Project '{project}' is public, but searching it by words asks a provider whom its "
            "owner pays: that is for those it is shared with, with their key. Search by a vector, "
            "or by a text that it holds."
        )


def similar_if_remembered(known: access.Access, *, body: bytes, wanted: Wanted) -> Found | None:
    """Do the same for somebody whose permission is remembered; None where it holds no longer.

    Raises Invalid, which may rest on what is remembered, and errors of the database.
    """
    try:
        ranking = _nearest(known.project, body, wanted, known.rests_on)
    except (Stale, _Words):
        return None
    return Found(known.actor, known.project, ranking)


def _nearest(
    project: Project, body: bytes, wanted: Wanted, rests_on: Sequence[RowVersion]
) -> Ranking:
    asked, condition = batches.parse_query(body, project.instance.dimensions)
    wanted = _with_filter(wanted, condition)
    if isinstance(asked, str):
        raise _Words(asked, wanted.filter)
    return store.nearest(project.pk, asked, wanted, rests_on)


def _with_filter(wanted: Wanted, condition: Any) -> Wanted:
    """Return what is wanted with the filter of a body besides; raise Invalid."""
    if condition is None:
        return wanted
    if wanted.filter is not None:
        problem = "Send the filter in the body or in the query string, not in both."
        raise Invalid(problem, errors=[FieldError("body.filter", problem)])
    return replace(wanted, filter=filters.parse(condition, "body.filter"))


def _searching(
    credentials: Credentials,
    owner: str,
    handle: str,
    search: Callable[[Project, Sequence[RowVersion]], Ranking],
) -> Found:
    known, ranking = as_reader(
        credentials, owner, handle, lambda known, rests_on: search(known.project, rests_on)
    )
    return Found(known.actor, known.project, ranking)


def as_reader(
    credentials: Credentials,
    owner: str,
    handle: str,
    ask: Callable[[access.Access, Sequence[RowVersion]], T],
) -> tuple[access.Access, T]:
    """Ask in a project that somebody may read, in one round trip where that is remembered.

    ask: given who reads what, and what must still be so; raises `Stale` where it is not.
    """
    known = access.remembered(credentials, owner=owner, handle=handle)
    if known is not None:
        # What is remembered may be true no longer. The search finds out; a refusal may rest on it.
        try:
            with suppress(Stale, DomainError):
                return known, ask(known, known.rests_on)
        except (OperationalError, InterfaceError):
            # Other requests begin with a query that Django has look after its connection first.
            if not is_lost():
                raise
    fresh = access.look_up(credentials, owner=owner, handle=handle)
    with suppress(Stale):
        return fresh, ask(fresh, fresh.rests_on)
    # Something has changed at this very moment, such as the project's model: it may be another
    # search now.
    fresh = access.look_up(credentials, owner=owner, handle=handle)
    return fresh, ask(fresh, ())


def explanation_of(found: Found) -> Explanation:
    """Return how a search was answered; counts the project's rows now."""
    ranking = found.ranking
    sealed = 0 if ranking.segment is None else store.sealed(ranking.segment)
    growing = max(0, store.count(found.project.pk) - sealed)
    compared = growing + (sealed if ranking.candidates is None else ranking.candidates)
    return Explanation(sealed, growing, compared, ranking.complete)


def recall_of(
    actor: Actor, *, owner: str, handle: str, k: int, queries: int, wanted: Wanted
) -> tuple[Project, Comparison]:
    """Compare searches through the project's index with exact ones; raise as `project_for`."""
    project = project_for(actor, Level.READER, owner=owner, handle=handle)
    return project, compare(project, k=k, queries=queries, wanted=wanted)


@dataclass(frozen=True)
class Remark:
    """Something that is wrong, in a sentence, and where: of an embedding, or of the project."""

    project: Project
    sentence: str
    text_id: str | None = None


@dataclass
class SanityReport:
    """What is wrong with stored data.

    wrong: embeddings that their project would refuse today.
    odd: projects whose metadata nothing checks, or whose vectors are of several models.
    """

    total_projects: int = 0
    wrong: list[Remark] = field(default_factory=list)
    odd: list[Remark] = field(default_factory=list)

    @property
    def issues(self) -> list[str]:
        """Return what is wrong, in sentences."""
        return [each.sentence for each in self.wrong]

    @property
    def warnings(self) -> list[str]:
        """Return what is odd, in sentences."""
        return [each.sentence for each in self.odd]

    @property
    def status(self) -> str:
        """Return FAILED with issues, else WARNING with warnings, else PASSED."""
        if self.wrong:
            return "FAILED"
        return "WARNING" if self.odd else "PASSED"


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
            sentence = (
                f"{name}: embedding '{text_id}' has {found} dimensions, its LLM service expects "
                f"{project.instance.dimensions}"
            )
            report.wrong.append(Remark(project, sentence, text_id))
        report.odd += [Remark(project, f"{name}: {each}") for each in sanity_warnings(project)]
        if project.metadata_schema:
            report.wrong += [
                Remark(project, f"{name}: {problem}", text_id)
                for text_id, problem in _against_schema(project)
            ]
        elif stored := store.count(project.pk):
            sentence = f"{name} has {stored} embeddings but no metadata schema defined"
            report.odd.append(Remark(project, sentence))
    return report


def _against_schema(project: Project) -> Iterator[tuple[str, str]]:
    validator = validator_for(project.metadata_schema)
    last = ""
    while rows := store.metadata_after(project.pk, last, limit=_PAGE):
        for text_id, metadata in rows:
            violations = validator.violations(orjson.loads(metadata))
            if violations:
                yield text_id, describe(text_id, violations)
        last = rows[-1][0]


def spellings(text_id: str) -> list[str]:
    """Return how an id from a URL may be stored: as it is, or as older clients encoded it."""
    encoded = quote_plus(text_id)
    return [text_id] if encoded == text_id else [text_id, encoded]


def missing(project: Project, text_id: str) -> str:
    """Return the sentence for an id that the project does not have."""
    return f"Project '{project}' has no embedding with text_id '{text_id[:300]}'."

"""What pages show of several things at once."""

import html
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import orjson
from django.db.models import Q, QuerySet

from accounts.policy import Actor, Level, account_level
from common.errors import NotFound
from embeddings.hybrid import FusedHit
from embeddings.models import Embedding, IndexState, SearchIndex
from embeddings.selectors import Hit, Row
from llm_services.models import Instance
from llm_services.selectors import builtin_instance, instances_of
from projects.models import Project
from projects.selectors import projects_of, public_projects, shared_projects, with_counts

# Of one shelf at once; the field above finds the others.
MOST_PROJECTS = 100
# Of one text in a list; the page of the text has all of it.
EXCERPT = 400
_GROWING_SEGMENT = Embedding._meta.get_field("segment").default
_MOST_DETAILS = 4
_MOST_KEYS = 40
_LONGEST_DETAIL = 48


@dataclass(frozen=True)
class Shelf:
    """Some of the projects that somebody may read.

    more: whether there are others.
    """

    name: str
    projects: Sequence[Project]
    more: bool


def shelves_of(actor: Actor, words: str = "") -> list[Shelf]:
    """Return the actor's own projects, what is shared with them, and the public: three shelves.

    words: only projects whose address or description has these in it.
    """
    found: list[tuple[str, QuerySet[Project]]] = [("public", public_projects(actor))]
    if actor.user is not None:
        shared = shared_projects(actor)
        found = [("mine", projects_of(actor, actor.user.handle)), ("shared", shared), *found]
    return [_shelf(name, rows, words) for name, rows in found]


def _shelf(name: str, rows: QuerySet[Project], words: str) -> Shelf:
    for word in words.split()[:10]:
        rows = rows.filter(
            Q(handle__icontains=word)
            | Q(owner__handle__icontains=word)
            | Q(description__icontains=word)
        )
    counted = with_counts(rows.select_related("owner", "instance", "search_index"))
    projects = list(counted[: MOST_PROJECTS + 1])
    for project in projects:
        project.index_state = index_state(project)  # type: ignore[attr-defined]
    return Shelf(name, projects[:MOST_PROJECTS], len(projects) > MOST_PROJECTS)


def index_state(project: Project) -> str:
    """Return how a project that was read with its index is searched, as a value of IndexState."""
    try:
        return project.search_index.state
    except SearchIndex.DoesNotExist:
        return IndexState.EXACT


def may_create_projects(actor: Actor) -> bool:
    """Tell whether the actor may make projects of their own."""
    return actor.user is not None and account_level(actor, actor.user) >= Level.OWNER


def instances_for(actor: Actor) -> list[Instance]:
    """Return what the actor may base projects on, the built-in instance first."""
    owner = cast("Any", actor.user).handle
    return [builtin_instance(), *instances_of(actor, owner)]


@dataclass(frozen=True)
class Detail:
    """A piece of metadata: the path of keys with dots between them, and what is there."""

    path: str
    value: str
    is_plain: bool


@dataclass(frozen=True)
class Card:
    """A text as lists show it.

    similarity: the cosine to what was looked for, from -1 to 1; None in lists without an order.
    found: where a search by words found it; `None` in others.
    pieces: of a part of the text that holds the words, instead of an excerpt: (text, is a word).
    """

    text_id: str
    title: str
    excerpt: str
    details: Sequence[Detail]
    similarity: float | None = None
    found: FusedHit | None = None
    pieces: Sequence[tuple[str, bool]] = ()


def cards_of(project: Project, hits: Sequence[Hit]) -> list[Card]:
    """Return the texts that a search found, in its order: two queries."""
    found = _texts(project, [hit.text_id for hit in hits])
    # A text that was deleted at this moment is left out.
    return [
        _card(hit.text_id, *found[hit.text_id], similarity=hit.similarity)
        for hit in hits
        if hit.text_id in found
    ]


def fused_cards_of(project: Project, hits: Sequence[FusedHit]) -> list[Card]:
    """Return the texts that a search by words found, in its order: two queries."""
    texts = _texts(project, [hit.text_id for hit in hits])
    return [
        replace(
            _card(hit.text_id, *texts[hit.text_id], similarity=hit.similarity),
            found=hit,
            pieces=_pieces(hit.highlight or ""),
        )
        for hit in hits
        if hit.text_id in texts
    ]


def _pieces(highlight: str) -> list[tuple[str, bool]]:
    """Return a highlight as text, so that the template escapes it as it does everything."""
    if not highlight:
        return []
    parts = re.split("<mark>(.*?)</mark>", highlight, flags=re.DOTALL)
    return [(html.unescape(part), number % 2 == 1) for number, part in enumerate(parts) if part]


def cards_named(project: Project, text_ids: Sequence[str]) -> dict[str, Card]:
    """Return some texts by their ids, without those that are not stored: two queries."""
    found = _texts(project, text_ids)
    return {text_id: _card(text_id, *values) for text_id, values in found.items()}


def keys_of(project: Project, text_ids: Sequence[str]) -> list[str]:
    """Return the paths with plain values that some texts' metadata has: two queries."""
    found = _texts(project, text_ids)
    paths = [
        each.path
        for _, metadata in found.values()
        for each in details_of(metadata)
        if each.is_plain
    ]
    return [path for path, _ in Counter(paths).most_common(_MOST_KEYS)]


def _texts(project: Project, text_ids: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Return text and metadata by id: two queries."""
    index = SearchIndex.objects.filter(project=project).first()
    # Named, so that the other projects' partitions are left alone.
    segments = {_GROWING_SEGMENT, _GROWING_SEGMENT if index is None else index.segment or 0}
    rows = Embedding.objects.filter(project=project, segment__in=segments, text_id__in=text_ids)
    return {
        text_id: (text, metadata)
        for text_id, text, metadata in rows.values_list("text_id", "text", "metadata")
    }


def card_of(row: Row) -> Card:
    """Return a stored text as lists show it."""
    return _card(row.text_id, row.text, orjson.loads(row.metadata))


def details_of(metadata: Any) -> list[Detail]:
    """Return all that metadata says, piece by piece."""
    return list(_details(metadata, ""))


def _card(text_id: str, text: str, metadata: Any, *, similarity: float | None = None) -> Card:
    title = metadata.get("title")
    named = isinstance(title, str) and title.strip() != ""
    details = [
        each
        for each in details_of(metadata)
        if each.is_plain and len(each.value) <= _LONGEST_DETAIL and _says_something(each)
    ]
    excerpt = text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"
    return Card(text_id, title if named else text_id, excerpt, details[:_MOST_DETAILS], similarity)


def _says_something(detail: Detail) -> bool:
    """Leave out what a card says already, and addresses, which nobody reads."""
    return detail.path != "title" and not detail.value.startswith(("http://", "https://"))


def _details(value: Any, path: str) -> Iterator[Detail]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            escaped = key.replace("\\", "\\\\").replace(".", "\\.")
            yield from _details(inner, f"{path}.{escaped}" if path else escaped)
    elif isinstance(value, str):
        yield Detail(path, value, is_plain=True)
    elif isinstance(value, list | dict):
        if path:
            yield Detail(path, orjson.dumps(value).decode(), is_plain=False)
    else:
        yield Detail(path, orjson.dumps(value).decode(), is_plain=value is not None)


def neighbours_of(project: Project, text_id: str) -> tuple[str | None, str | None]:
    """Return the ids before and after one, in their order; None at the ends: two queries."""
    ids = Embedding.objects.filter(project=project).values_list("text_id", flat=True)
    before = ids.filter(text_id__lt=text_id).order_by("-text_id").first()
    return before, ids.filter(text_id__gt=text_id).order_by("text_id").first()


def value_at(metadata: bytes, path: str) -> str | None:
    """Return the string, number or boolean at a path of keys, as text; None where there is none."""
    for each in details_of(orjson.loads(metadata)):
        if each.path == path and each.is_plain:
            return each.value
    return None


def text_missing(project: Project, text_id: str) -> NotFound:
    """Return the refusal for an id that the project does not have."""
    return NotFound(f"Project '{project}' has no text '{text_id[:300]}'.")

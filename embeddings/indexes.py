"""The life of a project's index: built once exact search gets slow, kept up, given up again.

A project is searched exactly until its rows times their dimensions pass `settings.INDEX_THRESHOLD`.
Then a background job (`tend`) copies its rows into a segment of their own, builds an HNSW graph on
it, and swaps it in; later it moves what grew since into the graph, builds a better one when the
settings have changed, and dissolves the segment when the project has shrunk. Neither reading nor
writing waits for it, except for uploads to that very project at the moment of a swap.

Every step is one transaction or can be told to be done, so that a job that was killed goes on where
it was when it is run again.
"""

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import psutil
import structlog
from django.conf import settings
from django.db import OperationalError, connection, transaction
from django.db.models import BigIntegerField, CharField, Func, QuerySet, Value
from django.db.models.functions import Cast, Concat
from django.utils import timezone

from accounts import audit
from accounts.audit import Verb
from accounts.policy import Actor, Level
from common import jobs
from common.errors import Conflict, FieldError, Invalid
from embeddings import recall, store
from embeddings.models import Embedding, IndexState, SearchIndex
from projects.models import Project
from projects.selectors import project_for, wait_for_uploads

TEND = "embeddings.tend_index"
# A growing part beside a graph costs each search about half a millisecond per thousand rows.
SEAL_FROM = 1_000
# Sealing one chunk is one transaction, for which writers of its rows wait.
SEAL_CHUNK = 250
# Beyond this share of the sealed rows, building a new graph is quicker than adding to the old one.
_REBUILD_SHARE = 0.25
_REBUILD_CHUNKS = 5
# A project that shrank below this share of the threshold is searched exactly again.
_SHRINK_SHARE = 0.5
# Those that have grown to this share of it are told of.
_NEARLY = 0.5
# Bulk uploads are waited for while they add this much between two looks, for so many looks.
_FAST_GROWTH = 1.005
_LOOK_EVERY_S = 0.25
_LOOKS = 80
# Texts beside an index on their words are read one by one: 40 ms for as many short ones.
_WORDS_FROM = 1_000
_MOST_COUNTED = 1_000_000
_NICENESS = 10
# Emptied segments are dropped once no process can name them any more.
GRACE_S = 3 * store.REMEMBER_FOR_S
# Whoever waits for uploads to end keeps new ones waiting: not for long, and not in vain.
_SWAP_ATTEMPTS = 30
_SWAP_PATIENCE = "1s"
_COPYING, _INDEXING, _SWAPPING = "copying", "indexing", "swapping"

Result = TypeVar("Result")

log = structlog.get_logger("armarium.indexes")


class Busy(Exception):
    """Somebody else changes the project's index at the moment."""


def threshold_rows(dimensions: int) -> int:
    """Return how many rows of so many dimensions are searched exactly."""
    return max(1, int(settings.INDEX_THRESHOLD) // dimensions)


def rows_for_index(dimensions: int, language: str | None) -> int:
    """Return from how many rows on a project has an index, if its texts are in a language."""
    rows = threshold_rows(dimensions)
    return rows if language is None else min(rows, _WORDS_FROM)


# --- Noticing growth ------------------------------------------------------------------------------
_NOTICE_EVERY = 500
# Asking locks the job that waits already until the upload is committed: others would queue up.
_ASK_EVERY_S = 2.0
_uploaded: dict[int, int] = {}
_asked: dict[int, float] = {}
_uploaded_lock = threading.Lock()


def notice_growth(project: Project, rows: int) -> None:
    """Ask for the project's index to be looked after, once enough was uploaded to it.

    Looks only now and then; what this overlooks, `sweep` finds within a minute.
    """
    with _uploaded_lock:
        uploaded = _uploaded.get(project.pk, 0) + rows
        looked = uploaded >= _NOTICE_EVERY
        _uploaded[project.pk] = 0 if looked else uploaded
        if len(_uploaded) > 10_000:
            _uploaded.clear()
            _asked.clear()
    if not looked or time.monotonic() - _asked.get(project.pk, -math.inf) < _ASK_EVERY_S:
        return
    parts = store.parts_of(project.pk)
    limit = SEAL_FROM
    if parts.segment is None:
        limit = rows_for_index(project.instance.dimensions, parts.language)
    if store.growing(project.pk, at_most=limit) >= limit:
        _asked[project.pk] = time.monotonic()
        ask(project.pk)


def ask(project_id: int) -> None:
    """Ask for the job that looks after the project's index, unless it waits already."""
    name = f"index of project {project_id}"
    jobs.defer(TEND, lock=name, queueing_lock=name, project_id=project_id)


def sweep() -> None:
    """Ask for every index that needs it to be looked after, and drop what was retired."""
    for project_id in wanting():
        with transaction.atomic():
            ask(project_id)
    drop_retired()


def drop_retired() -> list[int]:
    """Drop the segments that no process can name any more; return which."""
    return store.drop_retired(after_s=GRACE_S)


def wanting() -> list[int]:
    """Return the projects whose indexes need to be looked after."""
    indexes = {index.project_id: index for index in SearchIndex.objects.all()}
    dimensions = dict(Project.objects.values_list("pk", "instance__dimensions"))
    wanted = set()
    least = min(
        [SEAL_FROM, _WORDS_FROM, *(threshold_rows(each) for each in set(dimensions.values()))]
    )
    for project_id, rows in store.growing_by_project(at_least=least).items():
        index = indexes.get(project_id)
        sealed = index is not None and index.segment is not None
        language = None if index is None else index.search_language
        limit = SEAL_FROM if sealed else rows_for_index(dimensions.get(project_id, 1), language)
        if rows >= limit:
            wanted.add(project_id)
    for project_id, index in indexes.items():
        if _needs_work(index) or _has_shrunk(index):
            wanted.add(project_id)
    return sorted(wanted)


def _needs_work(index: SearchIndex) -> bool:
    if index.building_segment is not None or index.rebuild_requested:
        return True
    return index.segment is not None and (
        _is_outdated(index)
        or not store.has_graph(index.segment)
        or not store.has_words(index.segment, index.search_language)
    )


def _has_shrunk(index: SearchIndex) -> bool:
    if index.segment is None:
        return False
    # PostgreSQL's estimate; it is 0 as well where it knows nothing.
    rows = store.look(index.project_id).rows or store.sealed(index.segment)
    return rows < _SHRINK_SHARE * rows_for_index(index.built_dimensions or 1, index.search_language)


def _is_outdated(index: SearchIndex) -> bool:
    return (index.built_m, index.built_ef_construction) != (index.m, index.ef_construction)


# --- The job --------------------------------------------------------------------------------------
def tend(project_id: int) -> None:
    """Do what the project's index needs, one step after the other, until it needs nothing.

    Raises Busy where another process is at it.
    """
    with store.tending(project_id) as mine:
        if not mine:
            raise Busy
        give_way()
        while (project := _project(project_id)) is not None:
            jobs.checkpoint()
            step = _next_step(project)
            if step is None:
                _forget_failure(project_id)
                return
            try:
                step()
            except jobs.Interrupted:
                raise
            except Exception as error:
                _note_failure(project_id, error)
                raise


def give_way() -> None:
    """Let requests go first on our own database's processors: nobody waits for this job."""
    if settings.EMBEDDED_POSTGRES is not None:
        with suppress(psutil.Error, OSError):
            psutil.Process(store.backend_pid()).nice(_NICENESS)


def _project(project_id: int) -> Project | None:
    return Project.objects.select_related("instance").filter(pk=project_id).first()


def _next_step(project: Project) -> Callable[[], None] | None:
    index = SearchIndex.objects.filter(project=project).first()
    dimensions = project.instance.dimensions
    threshold = rows_for_index(dimensions, None if index is None else index.search_language)
    if index is None or index.segment is None:
        if store.growing(project.pk, at_most=threshold) >= threshold:
            return lambda: _build(project, dimensions)
        if index is not None and index.building_segment is not None:
            return lambda: _cancel(project)
        return None
    segment = index.segment
    sealed = store.sealed(segment)
    rebuild_from = max(int(_REBUILD_SHARE * sealed), _REBUILD_CHUNKS * SEAL_FROM)
    growing = store.growing(project.pk, at_most=rebuild_from)
    if sealed + growing < _SHRINK_SHARE * threshold:
        return lambda: _dissolve(project, segment)
    if growing >= rebuild_from:
        return lambda: _build(project, dimensions)
    if index.building_segment is not None:
        return lambda: _build(project, dimensions)
    if index.rebuild_requested or _is_outdated(index) or not store.has_graph(segment):
        return lambda: _rebuild(project, segment, dimensions)
    if not store.has_words(segment, index.search_language):
        return lambda: _index_words(project, segment, index.search_language)
    if growing >= SEAL_FROM:
        return lambda: _seal(project, segment)
    if index.measured_ef_search is None:
        return lambda: _measure(project)
    return None


def _build(project: Project, dimensions: int) -> None:
    """Build a segment of all the project's rows aside, and swap it in."""
    with transaction.atomic():
        SearchIndex.objects.get_or_create(project=project)
        index = SearchIndex.objects.select_for_update().get(project=project)
        if index.building_segment is None:
            index.building_segment = store.new_segment()
        index.state, index.phase, index.last_error = IndexState.BUILDING, _COPYING, ""
        index.save()
    building, old = index.building_segment, index.segment
    _let_uploads_end(project)
    started = time.monotonic()
    mine = SearchIndex.objects.filter(project=project, building_segment=building)
    store.copy(project.pk, building, sealed_segment=old)
    graph = store.GraphSettings(m=index.m, ef_construction=index.ef_construction)
    if _set_phase(mine, _INDEXING):
        store.index(building, dimensions, graph, index.search_language)
        _set_phase(mine, _SWAPPING)

    def swap() -> bool:
        current = SearchIndex.objects.select_for_update().filter(project=project).first()
        if current is None or current.building_segment != building:
            # Given up meanwhile: all embeddings, or the project, were deleted.
            store.retire(building)
            return False
        store.swap(project.pk, building, sealed_segment=old)
        note_built(current, building, dimensions, graph)
        return True

    if not while_uploads_wait(project, swap):
        log.info("index_not_wanted", project=project.pk, segment=building)
        return
    store.tidy(building)
    log.info(
        "index_built", project=project.pk, segment=building, seconds=time.monotonic() - started
    )


def note_built(
    index: SearchIndex, segment: int, dimensions: int, graph: store.GraphSettings
) -> None:
    """Say that the project is searched in a segment from now on; any other is built no longer."""
    index.state, index.phase, index.last_error = IndexState.INDEXED, "", ""
    index.segment, index.building_segment = segment, None
    index.built_m, index.built_ef_construction = graph.m, graph.ef_construction
    index.built_dimensions = dimensions
    index.built_at = timezone.now()
    index.measured_ef_search = index.measured_recall = None
    index.rebuild_requested = False
    index.save()


def _let_uploads_end(project: Project) -> None:
    """Wait while the project grows fast, but not for long: one graph of all is built sooner.

    It can be searched meanwhile, only more slowly.
    """
    before = store.growing(project.pk, at_most=_MOST_COUNTED)
    for _ in range(_LOOKS):
        time.sleep(_LOOK_EVERY_S)
        now = store.growing(project.pk, at_most=_MOST_COUNTED)
        # Not "<": nothing beside a graph that is built anew is no growth either.
        if now <= before * _FAST_GROWTH or jobs.stopping.is_set():
            return
        before = now


def _cancel(project: Project) -> None:
    """Stop building for a project that is too small by now."""
    while_uploads_wait(project, lambda: store.give_up(project.pk))


def _dissolve(project: Project, segment: int) -> None:
    """Put the rows of a project that has become small back beside all the others."""

    def dissolve() -> None:
        if SearchIndex.objects.select_for_update().filter(project=project, segment=segment):
            store.dissolve(project.pk, segment)
            store.give_up(project.pk)

    while_uploads_wait(project, dissolve)
    store.tidy()


def _rebuild(project: Project, segment: int, dimensions: int) -> None:
    """Build the graph of the segment in use anew, with the settings of now."""
    index = SearchIndex.objects.get(project=project)
    used = SearchIndex.objects.filter(project=project, segment=segment)
    if not _set_phase(used, _INDEXING, state=IndexState.BUILDING):
        return
    graph = store.GraphSettings(m=index.m, ef_construction=index.ef_construction)
    store.rebuild_graph(segment, dimensions, graph)
    used.update(
        state=IndexState.INDEXED,
        phase="",
        last_error="",
        built_m=graph.m,
        built_ef_construction=graph.ef_construction,
        built_at=timezone.now(),
        measured_ef_search=None,
        measured_recall=None,
        rebuild_requested=False,
        updated_at=timezone.now(),
    )


def _index_words(project: Project, segment: int, language: str | None) -> None:
    """Have the words of the texts in use found quickly, in the language of now."""
    used = SearchIndex.objects.filter(project=project, segment=segment)
    if not _set_phase(used, _INDEXING):
        return
    store.index_words(segment, language)
    _set_phase(used, "")
    store.tidy(segment)


def _seal(project: Project, segment: int) -> None:
    """Move what grew into the graph, a chunk at a time, until there is no whole chunk left.

    As long a pause follows each chunk while there is little, so that searches get their turn.
    """
    while True:
        jobs.checkpoint()
        started = time.monotonic()
        moved = store.seal(project.pk, segment, rows=SEAL_CHUNK)
        if moved < SEAL_CHUNK:
            break
        if store.growing(project.pk, at_most=3 * SEAL_FROM) < 3 * SEAL_FROM:
            time.sleep(min(0.5 * (time.monotonic() - started), 0.5))
    store.tidy(segment)


def _measure(project: Project) -> None:
    """Find the fewest candidates with which searches reach the project's target recall."""
    index = SearchIndex.objects.get(project=project)
    measured = recall.fewest_candidates(project, target=index.target_recall)
    SearchIndex.objects.filter(
        project=project, segment=index.segment, built_at=index.built_at
    ).update(
        measured_ef_search=measured.ef_search,
        measured_recall=measured.recall,
        updated_at=timezone.now(),
    )
    store.forget(project.pk)


def _set_phase(index: QuerySet[SearchIndex], phase: str, **more: Any) -> int:
    """Say how far it is; return 0 where the index was given up meanwhile."""
    return index.update(phase=phase, updated_at=timezone.now(), **more)


def _note_failure(project_id: int, error: Exception) -> None:
    """Let people see why there is no index; searches go on as before."""
    reason = f"{type(error).__name__}: {error}".splitlines()[0][:500]
    log.warning("index_failed", project=project_id, reason=reason)
    index = SearchIndex.objects.filter(project=project_id)
    index.update(last_error=reason, phase="", updated_at=timezone.now())


def _forget_failure(project_id: int) -> None:
    failed = SearchIndex.objects.filter(project=project_id).exclude(last_error="")
    failed.update(last_error="", updated_at=timezone.now())


def while_uploads_wait(project: Project, change: Callable[[], Result]) -> Result:
    """Run a change in a transaction that uploads to the project wait for; return its result.

    Long uploads are waited for, but only for a moment at a time, since all others queue up behind.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            with transaction.atomic():
                with connection.cursor() as cursor:
                    cursor.execute(f"SET LOCAL lock_timeout = '{_SWAP_PATIENCE}'")
                wait_for_uploads(project)
                return change()
        except OperationalError as error:
            if getattr(error.__cause__, "sqlstate", None) != "55P03" or attempt == _SWAP_ATTEMPTS:
                raise
            time.sleep(min(0.2 * attempt, 3.0))


# --- What people see and change -------------------------------------------------------------------
@dataclass(frozen=True)
class Report:
    """A project's index, as its readers see it.

    index: state and settings; one that is not stored has the defaults.
    sealed, growing: how many rows are in the graph, and beside it.
    threshold: from how many rows on there is an index.
    ef_search: how many candidates a search has now; None without a graph.
    table_bytes, graph_bytes: what the sealed segment takes on disk.
    """

    project: Project
    index: SearchIndex
    sealed: int
    growing: int
    threshold: int
    ef_search: int | None
    progress: store.Progress | None
    table_bytes: int
    graph_bytes: int


def report_of(project: Project) -> Report:
    """Return the state of a project's index."""
    index = SearchIndex.objects.filter(project=project).first() or SearchIndex(project=project)
    parts = store.look(project.pk)
    segment, building = parts.segment, index.building_segment
    sealed = 0 if segment is None else store.sealed(segment)
    table_bytes, graph_bytes = (0, 0) if segment is None else store.size_of(segment)
    under_way = building if building is not None else segment
    return Report(
        project=project,
        index=index,
        sealed=sealed,
        growing=max(0, store.count(project.pk) - sealed),
        threshold=rows_for_index(project.instance.dimensions, index.search_language),
        ef_search=None if segment is None else parts.ef_search,
        progress=None if under_way is None else store.progress_of(under_way),
        table_bytes=table_bytes,
        graph_bytes=graph_bytes,
    )


def sizes() -> dict[int, int]:
    """Return what each part takes on disk, in bytes, by segment; 0 is the growing part."""
    return store.sizes()


def growing_rows() -> int:
    """Return about how many rows all projects have in the growing part."""
    return store.growing_rows()


def progress_of_all() -> dict[int, store.Progress]:
    """Return how far PostgreSQL is with the indexes that are being built, by their segments."""
    return store.progress_by_segment()


def overview() -> list[Report]:
    """Return the states of the indexes that there are, are being built, or will be soon."""
    wanted = set(
        SearchIndex.objects.exclude(state=IndexState.EXACT, last_error="").values_list(
            "project_id", flat=True
        )
    )
    rows = Project.objects.select_related("owner", "instance").order_by("owner__handle", "handle")
    grown = store.growing_by_project(at_least=1)
    return [
        report_of(project)
        for project in rows.filter(pk__in=wanted | set(grown))
        if project.pk in wanted
        or grown[project.pk] >= _NEARLY * threshold_rows(project.instance.dimensions)
    ]


def name_of(project_id: int) -> str:
    """Return the address of a project, or its number where it is gone."""
    project = Project.objects.select_related("owner").filter(pk=project_id).first()
    return f"project {project_id}" if project is None else str(project)


def with_sizes(rows: QuerySet[SearchIndex]) -> QuerySet[SearchIndex]:
    """Annotate each index with about how many `sealed_rows` it has, and its `graph_bytes`.

    None where there is no sealed segment.
    """
    segment = Cast("segment", CharField())
    table = Concat(Value(f"{Embedding._meta.db_table}_"), segment)
    annotated = rows.annotate(
        sealed_rows=_RowsOf(table), graph_bytes=_BytesOf(Concat(table, Value("_graph")))
    )
    return cast("QuerySet[SearchIndex]", annotated)


class _RowsOf(Func):
    """About how many rows a table of a name has; NULL where there is none."""

    output_field: Any = BigIntegerField()
    template = (
        "(SELECT greatest(reltuples, 0)::bigint FROM pg_class"
        " WHERE oid = to_regclass(%(expressions)s))"
    )


class _BytesOf(Func):
    """What a table or an index of a name takes on disk; NULL where there is none."""

    output_field: Any = BigIntegerField()
    template = "pg_relation_size(to_regclass(%(expressions)s))"


def index_for(actor: Actor, *, owner: str, handle: str) -> Report:
    """Return the state of a project's index to whoever may read it; raise as `project_for`."""
    return report_of(project_for(actor, Level.READER, owner=owner, handle=handle))


def change_settings(*, actor: Actor, owner: str, handle: str, changes: dict[str, Any]) -> Report:
    """Change how the project's index is built and searched; the owner's to do.

    changes: m, ef_construction, ef_search, target_recall, search_language, within the bounds of the
    model. What changes the graph has it built anew in the background, and so do other languages for
    the index on words. Raises as `project_for`, and Invalid.
    """
    project = project_for(actor, Level.OWNER, owner=owner, handle=handle)
    with transaction.atomic():
        SearchIndex.objects.get_or_create(project=project)
        index = SearchIndex.objects.select_for_update().get(project=project)
        before, language = index.target_recall, index.search_language
        for name, value in changes.items():
            setattr(index, name, value)
        if index.ef_construction < 2 * index.m:
            problem = (
                f"ef_construction must be at least twice m: {2 * index.m} or more for m = "
                f"{index.m}, not {index.ef_construction}."
            )
            raise Invalid(problem, errors=[FieldError("body.ef_construction", problem)])
        if index.target_recall != before:
            index.measured_ef_search = index.measured_recall = None
        index.save()
        audit.note_override(actor, Verb.UPDATE, project, "search_index", fields=sorted(changes))
        is_graph_due = _is_outdated(index) or index.measured_ef_search is None
        is_other_language = index.search_language != language
        if is_other_language or (index.segment is not None and is_graph_due):
            ask(project.pk)
    store.forget(project.pk)
    return report_of(project)


def request_rebuild(*, actor: Actor, owner: str, handle: str) -> Report:
    """Have the project's graph built anew in the background; the owner's to do.

    Raises as `project_for`, and Conflict for a project that is searched exactly.
    """
    project = project_for(actor, Level.OWNER, owner=owner, handle=handle)
    with transaction.atomic():
        report = rebuild(project)
        audit.note_override(actor, Verb.UPDATE, project, "search_index", what="rebuild")
    return report


def try_again(*, actor: Actor, owner: str, handle: str) -> None:
    """Have an index looked after at once whose last attempt failed; the owner's to do."""
    project = project_for(actor, Level.OWNER, owner=owner, handle=handle)
    with transaction.atomic():
        ask(project.pk)
        audit.note_override(actor, Verb.UPDATE, project, "search_index", what="try again")


def rebuild(project: Project) -> Report:
    """Do the same for a project that somebody may change; raise Conflict."""
    with transaction.atomic():
        changed = SearchIndex.objects.filter(project=project, segment__isnull=False).update(
            rebuild_requested=True, updated_at=timezone.now()
        )
        if not changed:
            report = report_of(project)
            raise Conflict(
                f"Project '{project}' has no index to rebuild: it is searched exactly until it "
                f"holds {report.threshold} embeddings (it has {report.sealed + report.growing})."
            )
        ask(project.pk)
    return report_of(project)

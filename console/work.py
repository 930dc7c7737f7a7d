"""What goes on in the background, as far as somebody may see it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import Max, Q, QuerySet
from procrastinate.contrib.django.models import ProcrastinateJob
from procrastinate.jobs import Status

from accounts.policy import Actor, Level, level_of, scope
from embeddings import indexes
from embeddings.models import (
    EmbeddingJob,
    ImportJob,
    ImportState,
    IndexState,
    JobState,
    Reembedding,
    ReembeddingState,
    SearchIndex,
)
from projects.models import Project

RUNNING, WAITING, FAILED, ENDED = "running", "waiting", "failed", "ended"
# Of those that ended, and of the server's own; a page is for people to look over.
MOST_ENDED = 30
MOST_SHOWN = 200
# On the dashboard; the page of jobs has all.
MOST_UNDER_WAY = 5

_STATES_OF_TEXTS = {
    JobState.RUNNING: RUNNING,
    JobState.WAITING: WAITING,
    JobState.FAILED: FAILED,
}
_STATES_OF_MODELS = {
    ReembeddingState.FILLING: RUNNING,
    ReembeddingState.SWITCHING: RUNNING,
    ReembeddingState.ROLLING_BACK: RUNNING,
    ReembeddingState.PAUSED: WAITING,
    ReembeddingState.READY: WAITING,
    ReembeddingState.FAILED: FAILED,
}
_STATES_OF_JOBS = {
    Status.DOING.value: RUNNING,
    Status.TODO.value: WAITING,
    Status.FAILED.value: FAILED,
}


@dataclass(frozen=True)
class Work:
    """Something that is done in the background, or was, or should have been.

    kind: "texts" that are embedded, an "index", a "model" that is exchanged, or a "job" of the
    server's own. state: one of the four groups of the page; word: what it calls itself.
    done, total: how far it is, None where nobody knows.
    actions: what whoever looks may do with it.
    """

    kind: str
    id: str
    state: str
    word: str
    project: Project | None = None
    name: str = ""
    done: int | None = None
    total: int | None = None
    failed: int = 0
    seconds_left: float | None = None
    reason: str = ""
    since: datetime | None = None
    actions: Sequence[str] = field(default_factory=list)

    @property
    def element(self) -> str:
        """Return its id in the page: what has the focus keeps it when the list is made anew."""
        return f"{self.kind}-{self.id}"


@dataclass(frozen=True)
class Group:
    """What is in the same state."""

    state: str
    works: Sequence[Work]


def groups_for(actor: Actor) -> list[Group]:
    """Return what goes on in the projects that the actor edits, by state.

    Administrators see the server's own jobs besides.
    """
    works = [*_of_projects(actor), *(_of_the_server() if actor.is_admin else [])]
    groups = []
    for state in (RUNNING, WAITING, FAILED, ENDED):
        found = [each for each in works if each.state == state]
        groups.append(Group(state, found[: MOST_ENDED if state == ENDED else MOST_SHOWN]))
    return groups


@dataclass(frozen=True)
class UnderWay:
    """Something that is worked at now: what and where, and its part that is done, if known."""

    kind: str
    project: Project
    done: float | None
    since: datetime
    upload: ImportJob | None = None


def under_way_for(actor: Actor) -> list[UnderWay]:
    """Return what is worked at in the projects that the actor edits: four queries."""
    seen = {"project__in": scope(actor, Level.EDITOR, Project.objects.all()).values("pk")}

    def some(rows: QuerySet[Any]) -> QuerySet[Any]:
        return rows.filter(**seen).select_related("project__owner").order_by("-pk")[:MOST_UNDER_WAY]

    texts = some(EmbeddingJob.objects.filter(state__in=JobState.active()))
    uploads = some(ImportJob.objects.filter(state__in=ImportState.active()).exclude(uses={}))
    built = some(SearchIndex.objects.filter(state=IndexState.BUILDING, last_error=""))
    changing = [state for state, group in _STATES_OF_MODELS.items() if group == RUNNING]
    exchanged = some(Reembedding.objects.filter(state__in=changing))
    found = [
        *(UnderWay("upload", e.project, e.fraction, e.created_at, e) for e in uploads),
        *(UnderWay("texts", e.project, e.done / max(1, e.total), e.created_at) for e in texts),
        *(UnderWay("index", e.project, None, e.updated_at) for e in built),
        *(UnderWay("model", e.project, None, e.updated_at) for e in exchanged),
    ]
    return sorted(found, key=lambda each: each.since, reverse=True)[:MOST_UNDER_WAY]


def _of_projects(actor: Actor) -> list[Work]:
    editable = scope(actor, Level.EDITOR, Project.objects.all())
    seen = {"project__in": editable.values("pk")}
    texts = EmbeddingJob.objects.filter(**seen).order_by("-pk")
    unfinished = Q(state__in=[*JobState.active(), JobState.FAILED])
    jobs = [*texts.filter(unfinished)[:MOST_SHOWN], *texts.exclude(unfinished)[:MOST_ENDED]]
    failed = Q(last_error__gt="")
    built = SearchIndex.objects.filter(**seen).filter(failed | Q(state=IndexState.BUILDING))
    under_way = list(built.order_by("-updated_at")[:MOST_SHOWN])
    exchanged = list(Reembedding.objects.filter(**seen).order_by("-updated_at")[:MOST_SHOWN])
    named = _projects(
        editable,
        {each.project_id for each in jobs}
        | {each.project_id for each in under_way}
        | {each.project_id for each in exchanged},
    )
    progress = indexes.progress_of_all() if under_way else {}
    return [
        *(_texts(job, named[job.project_id]) for job in jobs if job.project_id in named),
        *(
            _index(index, named[index.project_id], progress)
            for index in under_way
            if index.project_id in named
        ),
        *(_model(each, named[each.project_id]) for each in exchanged if each.project_id in named),
    ]


def _projects(editable: QuerySet[Project], wanted: Iterable[int]) -> dict[int, Project]:
    rows = editable.filter(pk__in=wanted).select_related("owner")
    return {project.pk: project for project in rows}


def _texts(job: EmbeddingJob, project: Project) -> Work:
    actions = []
    if job.is_active:
        actions.append("cancel")
    elif job.done < job.total:
        actions.append("retry")
    if not job.is_active:
        actions.append("forget")
    pace_s = job.seconds_per_text
    return Work(
        "texts",
        str(job.pk),
        _STATES_OF_TEXTS.get(JobState(job.state), ENDED),
        job.state,
        project,
        done=job.done,
        total=job.total,
        failed=job.failed,
        seconds_left=None if pace_s is None or not job.is_active else pace_s * job.waiting,
        reason=job.error,
        since=job.finished_at or job.started_at or job.created_at,
        actions=actions,
    )


def _index(index: SearchIndex, project: Project, progress: Any) -> Work:
    segment = index.building_segment or index.segment
    found = None if segment is None else progress.get(segment)
    has_failed = bool(index.last_error)
    may_retry = has_failed and level_of(project) >= Level.OWNER
    return Work(
        "index",
        str(project.pk),
        FAILED if has_failed else RUNNING,
        index.phase or index.state,
        project,
        done=None if found is None or not found.total else found.done,
        total=None if found is None or not found.total else found.total,
        reason=index.last_error,
        since=index.updated_at,
        actions=["retry"] if may_retry else [],
    )


def _model(reembedding: Reembedding, project: Project) -> Work:
    state = ReembeddingState(reembedding.state)
    actions = []
    if level_of(project) >= Level.OWNER:
        actions = {
            ReembeddingState.FILLING: ["pause", "cancel"],
            ReembeddingState.PAUSED: ["resume", "cancel"],
            ReembeddingState.FAILED: ["resume", "cancel"],
            ReembeddingState.READY: ["cancel"],
        }.get(state, [])
    return Work(
        "model",
        str(project.pk),
        _STATES_OF_MODELS.get(state, ENDED),
        state.value,
        project,
        done=reembedding.embedded if state is ReembeddingState.FILLING else None,
        reason=reembedding.last_error,
        since=reembedding.updated_at,
        actions=actions,
    )


def _of_the_server() -> list[Work]:
    jobs = ProcrastinateJob.objects.select_related("failure").order_by("-pk")
    dated: Any = jobs.annotate(changed_at=Max("procrastinateevent__at"))
    unfinished = Q(status__in=list(_STATES_OF_JOBS))
    # Each minute some look for work, and mostly find none.
    ended = dated.exclude(unfinished).exclude(
        status=Status.SUCCEEDED.value, task_name__contains=".sweep_"
    )
    return [
        *(_job(each) for each in dated.filter(unfinished)[:MOST_SHOWN]),
        *(_job(each) for each in ended[:MOST_ENDED]),
    ]


def _job(job: Any) -> Work:
    state = _STATES_OF_JOBS.get(job.status, ENDED)
    return Work(
        "job",
        str(job.pk),
        state,
        job.status,
        name=job.task_name,
        reason=job.failure.reason if hasattr(job, "failure") else "",
        since=job.changed_at or job.scheduled_at,
        actions=["retry"] if state == FAILED else [],
    )

"""Changes a project's model: its texts are embedded anew aside, then all vectors are exchanged.

The new vectors are filled in by a background job (`advance`), piece by piece; each piece is kept,
so that a job that was killed goes on where it was. Uploads go on as before meanwhile, by the old
model; what they change is embedded, too, before the switch. The switch is one transaction: whoever
reads sees the old vectors and the old instance, or the new ones. The old vectors are then kept
aside as the new ones were before, so that rolling back is switching once more.

What decides about a text is its digest: a vector aside is used only for the very text that it was
made from.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts import audit
from accounts.audit import Verb
from accounts.policy import Actor, Level
from common import jobs
from common.errors import Conflict, DomainError, NotFound
from embeddings import indexes, store
from embeddings.indexes import Busy
from embeddings.models import ProjectModel, Reembedding, ReembeddingState, SearchIndex
from embeddings.store import Wanted
from llm_services.embedding import digest_of, embed_documents, embed_query, is_local
from llm_services.models import Instance
from llm_services.providers import TextRefused
from llm_services.selectors import usable_instance
from projects.models import Project
from projects.selectors import project_for
from projects.services import change_instance

ADVANCE = "embeddings.advance_reembedding"
# How long the former vectors are kept after a switch.
KEPT_FOR = timedelta(days=7)
# Texts that are embedded and kept at once. A model of our own takes as long for the smaller piece:
# whoever pauses waits for the end of one.
_PIECE, _LOCAL_PIECE = 512, 64
# Before the switch, what was uploaded meanwhile is embedded while uploads go on, each time less;
# in the end they wait for the last few texts.
_ROUNDS = 8
_LAST_TEXTS = 256
_WORKING = {ReembeddingState.FILLING, ReembeddingState.SWITCHING, ReembeddingState.ROLLING_BACK}
_LONGEST_COMPARISON_S = 7.0
_LEAST_ALIKE = 5
# What the audit log calls one.
_KIND = "reembedding"

log = structlog.get_logger("armarium.reembedding")


@dataclass(frozen=True)
class Report:
    """A re-embedding, as the editors of its project see it.

    rows: the project's embeddings.
    lacking: how many of them have no vector aside; blank: how many of these have no text.
    """

    project: Project
    reembedding: Reembedding
    rows: int
    lacking: int
    blank: int

    @property
    def rollback_until(self) -> datetime | None:
        """Return until when the former vectors are kept; None before the switch."""
        switched_at = self.reembedding.switched_at
        return None if switched_at is None else switched_at + KEPT_FOR


@dataclass(frozen=True)
class Estimate:
    """What it would take to embed a project's texts.

    tokens: about; models count differently.
    price: in the currency of the price that was given; None without one.
    """

    project: Project
    texts: store.Texts
    tokens: int
    price: float | None


@dataclass(frozen=True)
class Alike:
    """How far the nearest texts of one text, or of a question, are the same by both models.

    text_id: None for a question; question: None for a stored text.
    overlap: the share of its k nearest that both find.
    """

    text_id: str | None
    question: str | None
    overlap: float
    same_first: bool
    only_in_use: list[str]
    only_aside: list[str]


@dataclass(frozen=True)
class Comparison:
    """How far both sets of vectors find the same.

    overlap: the mean share of the k nearest texts that both find, None without any.
    same_first: the share of the texts whose nearest one is the same.
    least_alike: the texts that they disagree about most.
    """

    project: Project
    k: int
    queries: int
    overlap: float | None
    same_first: float | None
    least_alike: list[Alike]


# --- Asking for it --------------------------------------------------------------------------------
def start(
    *, actor: Actor, owner: str, handle: str, instance_owner: str | None, instance_handle: str
) -> Report:
    """Begin to embed a project's texts with another instance, aside; the project's owner's to do.

    instance_owner: None for the project's owner. Raises as `project_for`; Invalid for an instance
    that the owner cannot use; Conflict where some embeddings have no text, where there is nothing
    to embed, or where one is under way.
    """
    project = project_for(actor, Level.OWNER, owner=owner, handle=handle)
    instance = usable_instance(project.owner, owner=instance_owner or owner, handle=instance_handle)
    texts = store.texts_of(project.pk)
    if not texts.rows:
        raise Conflict(
            f"Project '{project}' holds no embeddings; change its instance with PATCH instead."
        )
    _refuse_blank(project, texts.blank)
    try:
        with transaction.atomic():
            reembedding = Reembedding.objects.create(
                project=project, instance=instance, model_id=instance.embedding_model_id
            )
            audit.note(actor, Verb.CREATE, project, _KIND, instance=str(instance))
            _ask(project.pk)
    except IntegrityError as error:
        raise Conflict(
            f"Project '{project}' has a re-embedding already; cancel or confirm it with DELETE "
            "first."
        ) from error
    return _report(project, reembedding)


def report_for(actor: Actor, *, owner: str, handle: str) -> Report:
    """Return the state of a project's re-embedding to its editors.

    Raises as `project_for`, and NotFound.
    """
    project = project_for(actor, Level.EDITOR, owner=owner, handle=handle)
    return _report(project, _of(project))


def estimate_for(
    actor: Actor, *, owner: str, handle: str, price_per_million_tokens: float | None
) -> Estimate:
    """Return what embedding the project's texts would take, to its editors."""
    project = project_for(actor, Level.EDITOR, owner=owner, handle=handle)
    texts = store.texts_of(project.pk)
    # Four letters of a European language are a token, and one letter of Chinese, whose UTF-8 is
    # three bytes long.
    tokens = math.ceil(texts.characters / 4 + (texts.bytes - texts.characters) / 3)
    price = None
    if price_per_million_tokens is not None:
        price = tokens / 1_000_000 * price_per_million_tokens
    return Estimate(project, texts, tokens, price)


def pause(*, actor: Actor, owner: str, handle: str) -> Report:
    """Let the filling end after the piece that is under way; raise Conflict."""
    return _move(
        actor, owner, handle, {ReembeddingState.FILLING}, ReembeddingState.PAUSED, "paused"
    )


def resume(*, actor: Actor, owner: str, handle: str) -> Report:
    """Go on with one that was paused or failed; raise Conflict."""
    before = {ReembeddingState.PAUSED, ReembeddingState.FAILED}
    return _move(actor, owner, handle, before, ReembeddingState.FILLING, "resumed")


def switch(*, actor: Actor, owner: str, handle: str) -> Report:
    """Have the new vectors take the place of the old ones, with their instance; raise Conflict."""
    before = {ReembeddingState.READY}
    return _move(actor, owner, handle, before, ReembeddingState.SWITCHING, "switched")


def roll_back(*, actor: Actor, owner: str, handle: str) -> Report:
    """Have the former vectors take their place again, with their instance; raise Conflict."""
    before = {ReembeddingState.SWITCHED}
    return _move(actor, owner, handle, before, ReembeddingState.ROLLING_BACK, "rolled back")


def forget(*, actor: Actor, owner: str, handle: str) -> Report:
    """Delete the vectors aside: cancel it before the switch, confirm it after that.

    Return what it was. Raises as `project_for`, and NotFound.
    """
    project = project_for(actor, Level.OWNER, owner=owner, handle=handle)
    with transaction.atomic():
        reembedding = _of(project, lock=True)
        report = _report(project, reembedding)
        audit.note(actor, Verb.DELETE, project, _KIND, state=reembedding.state)
        _delete(reembedding)
    return report


def _delete(reembedding: Reembedding) -> None:
    # The vectors go with it by a trigger, also when its project or instance is deleted.
    Reembedding.objects.filter(pk=reembedding.pk).delete()


def _move(
    actor: Actor,
    owner: str,
    handle: str,
    before: set[ReembeddingState],
    after: ReembeddingState,
    what: str,
) -> Report:
    project = project_for(actor, Level.OWNER, owner=owner, handle=handle)
    with transaction.atomic():
        reembedding = _of(project, lock=True)
        if reembedding.state not in before:
            states = " or ".join(sorted(before))
            raise Conflict(
                f"The re-embedding of project '{project}' is {reembedding.state}; only one that is "
                f"{states} can be {what}."
            )
        if after in {ReembeddingState.SWITCHING, ReembeddingState.ROLLING_BACK}:
            _, blank = store.count_lacking(project.pk, reembedding.generation)
            _refuse_blank(project, blank)
        reembedding.state, reembedding.last_error = after, ""
        reembedding.save()
        audit.note(actor, Verb.UPDATE, project, _KIND, state=after)
        if after in _WORKING:
            _ask(project.pk)
    return _report(project, reembedding)


def _refuse_blank(project: Project, blank: int) -> None:
    if blank:
        raise Conflict(
            f"{blank} embeddings of project '{project}' have no text to embed. Store them with "
            "their texts (PUT), or delete them.",
            details={"without_text": blank},
        )


def _of(project: Project, *, lock: bool = False) -> Reembedding:
    rows = Reembedding.objects.select_related("instance__owner", "instance__api_standard", "model")
    rows = rows.select_for_update(of=("self",)) if lock else rows
    found = rows.filter(project=project).first()
    if found is None:
        raise NotFound(f"Project '{project}' has no re-embedding.")
    return found


def _report(project: Project, reembedding: Reembedding) -> Report:
    lacking, blank = store.count_lacking(project.pk, reembedding.generation)
    return Report(project, reembedding, store.count(project.pk), lacking, blank)


def _ask(project_id: int) -> None:
    name = f"re-embedding of project {project_id}"
    jobs.defer(ADVANCE, lock=name, queueing_lock=name, project_id=project_id)


# --- Comparing ------------------------------------------------------------------------------------
def comparison_for(actor: Actor, *, owner: str, handle: str, k: int, queries: int) -> Comparison:
    """Compare what both sets of vectors find near stored texts chosen at random, for editors.

    Fewer are compared where it would take longer than some seconds. Raises as `report_for`, and
    Conflict while texts lack vectors.
    """
    project, reembedding = _comparable(actor, owner, handle)
    wanted = Wanted(limit=k, offset=0, threshold=-1.0, exact=True)

    def both(text_id: str) -> Alike | None:
        ranking = store.nearest_to_stored(project.pk, [text_id], wanted)
        aside = store.nearest_aside(project.pk, reembedding.generation, text_id, limit=k)
        return None if ranking is None else _alike(ranking.hits, aside, text_id=text_id)

    return _compared(project, k, store.sample(project.pk, queries), both)


def comparison_by_questions(
    actor: Actor, *, owner: str, handle: str, k: int, questions: Sequence[str]
) -> Comparison:
    """Compare what both models find for questions, for editors: each model embeds them.

    Raises as `comparison_for`, and as `embed_query`.
    """
    project, reembedding = _comparable(actor, owner, handle)
    aside_instance = reembedding.instance
    if aside_instance.embedding_model_id != reembedding.model_id:
        raise Conflict(
            f"LLM service '{aside_instance}' has another model now than the one that made the "
            "vectors aside: questions cannot be compared with them."
        )
    wanted = Wanted(limit=k, offset=0, threshold=-1.0, exact=True)

    def both(question: str) -> Alike | None:
        ranking = store.nearest(project.pk, embed_query(project.instance, question), wanted)
        vector = embed_query(aside_instance, question)
        aside = store.nearest_aside_to(project.pk, reembedding.generation, vector, limit=k)
        return _alike(ranking.hits, aside, question=question)

    return _compared(project, k, questions, both)


def _comparable(actor: Actor, owner: str, handle: str) -> tuple[Project, Reembedding]:
    project = project_for(actor, Level.EDITOR, owner=owner, handle=handle)
    reembedding = _of(project)
    if reembedding.state not in {ReembeddingState.READY, ReembeddingState.SWITCHED}:
        raise Conflict(
            f"The re-embedding of project '{project}' is {reembedding.state}; what it finds can be "
            "compared once it is ready."
        )
    return project, reembedding


def _alike(
    hits: Sequence[store.Hit],
    aside: Sequence[tuple[str, float]],
    *,
    text_id: str | None = None,
    question: str | None = None,
) -> Alike | None:
    """Return how far two rankings have the same texts; None where one of them has none."""
    if not hits or not aside:
        return None
    here, there = [hit.text_id for hit in hits], [each for each, _ in aside]
    both = set(here) & set(there)
    return Alike(
        text_id,
        question,
        len(both) / max(len(here), len(there)),
        here[0] == there[0],
        [each for each in here if each not in both],
        [each for each in there if each not in both],
    )


def _compared(
    project: Project, k: int, asked: Iterable[str], compare: Callable[[str], Alike | None]
) -> Comparison:
    """Compare as much of what is asked as there is time for."""
    started = time.monotonic()
    found: list[Alike] = []
    for each in asked:
        if time.monotonic() - started > _LONGEST_COMPARISON_S:
            break
        alike = compare(each)
        if alike is not None:
            found.append(alike)
    count = len(found)
    least_alike = sorted(
        found, key=lambda each: (each.overlap, each.text_id or "", each.question or "")
    )
    return Comparison(
        project,
        k,
        count,
        sum(each.overlap for each in found) / count if count else None,
        sum(each.same_first for each in found) / count if count else None,
        least_alike[:_LEAST_ALIKE],
    )


# --- The job --------------------------------------------------------------------------------------
def advance(project_id: int) -> None:
    """Do what the project's re-embedding is about to do, until it waits for somebody's word.

    Raises Busy where another process changes the project's index, and what the model's provider
    raises for the moment, so that the job is tried again.
    """
    while (reembedding := _working(project_id)) is not None:
        jobs.checkpoint()
        try:
            if reembedding.state == ReembeddingState.FILLING:
                _fill(reembedding)
            else:
                _switch(reembedding)
        except DomainError as error:
            _note(reembedding, error.detail)
            if error.status >= _SERVER_ERROR:
                raise
            _stop(reembedding)


def sweep() -> None:
    """Go on with those whose job has failed, and delete former vectors that were kept a week."""
    working = Reembedding.objects.filter(state__in=_WORKING).values_list("pk", flat=True)
    for project_id in working:
        with transaction.atomic():
            _ask(project_id)
    old = Reembedding.objects.filter(
        state=ReembeddingState.SWITCHED, switched_at__lt=timezone.now() - KEPT_FOR
    )
    for reembedding in old:
        _delete(reembedding)


_SERVER_ERROR = 500


def _working(project_id: int) -> Reembedding | None:
    rows = Reembedding.objects.select_related(
        "project__owner", "instance__owner", "instance__api_standard", "model"
    )
    return rows.filter(project=project_id, state__in=_WORKING).first()


def _mine(reembedding: Reembedding) -> Any:
    """Return the row, if it is still about to do the same."""
    return Reembedding.objects.filter(
        pk=reembedding.pk,
        state=reembedding.state,
        generation=reembedding.generation,
        created_at=reembedding.created_at,
    )


def _note(reembedding: Reembedding, reason: str) -> None:
    log.warning("reembedding_failed", project=reembedding.pk, reason=reason)
    _mine(reembedding).update(last_error=reason[:1000], updated_at=timezone.now())


def _stop(reembedding: Reembedding) -> None:
    """Wait for somebody: what failed would fail again."""
    after = {
        ReembeddingState.SWITCHING: ReembeddingState.READY,
        ReembeddingState.ROLLING_BACK: ReembeddingState.SWITCHED,
    }
    state = after.get(ReembeddingState(reembedding.state), ReembeddingState.FAILED)
    _mine(reembedding).update(state=state, updated_at=timezone.now())


def _fill(reembedding: Reembedding) -> None:
    """Embed all texts that have no vector aside; then say that it is ready."""
    if _embed_lacking(reembedding):
        _mine(reembedding).update(
            state=ReembeddingState.READY, last_error="", updated_at=timezone.now()
        )


def _embed_lacking(reembedding: Reembedding) -> bool:
    """Embed, piece by piece, what lacks a vector; return whether all that was there has one now.

    False where it was paused or cancelled meanwhile.
    """
    project_id, generation = reembedding.pk, reembedding.generation
    size, after = 0, ""
    while texts := store.lacking(project_id, generation, after=after, limit=size or _PIECE):
        jobs.checkpoint()
        instance = _instance_to_use(reembedding)
        if not size:
            size = _LOCAL_PIECE if is_local(instance) else _PIECE
            texts = texts[:size]
        if not _embed(reembedding, instance, texts):
            return False
        after = texts[-1][0]
    return bool(_mine(reembedding).exists())


def _embed(reembedding: Reembedding, instance: Instance, texts: list[tuple[str, str]]) -> bool:
    """Embed some texts and keep them aside; False where nobody wants them any more."""
    blank = sum(not text.strip() for _, text in texts)
    _refuse_blank(reembedding.project, blank)
    try:
        made = embed_documents(instance, [text for _, text in texts])
    except TextRefused as refusal:
        text_id = texts[refusal.index][0]
        raise Conflict(
            f"The text of '{text_id[:300]}' cannot be embedded: {refusal.reason} Store another "
            "text in its place, or delete it."
        ) from refusal
    with transaction.atomic():
        current = _mine(reembedding).select_for_update().first()
        if current is None:
            return False
        store.put_aside(
            reembedding.pk,
            reembedding.generation,
            instance_id=instance.pk,
            model_id=reembedding.model_id,
            text_ids=[text_id for text_id, _ in texts],
            digests=[digest_of(text) for _, text in texts],
            vectors=made.vectors,
        )
        current.embedded += len(texts)
        if current.tokens is not None:
            current.tokens = None if made.tokens is None else current.tokens + made.tokens
        current.last_error = ""
        current.save(update_fields=["embedded", "tokens", "last_error", "updated_at"])
    return True


def _instance_to_use(reembedding: Reembedding) -> Instance:
    """Return the instance to embed with, as it is now; raise Conflict where it may not be used."""
    instance = reembedding.instance
    project = Project.objects.select_related("owner").filter(pk=reembedding.pk).first()
    if project is None:
        raise NotFound("The project was deleted.")
    if reembedding.state != ReembeddingState.ROLLING_BACK:
        # Whoever may use it may have changed since.
        instance = usable_instance(
            project.owner, owner=instance.owner.handle, handle=instance.handle
        )
    instance = Instance.objects.select_related("owner", "api_standard").get(pk=instance.pk)
    if instance.embedding_model_id != reembedding.model_id:
        raise Conflict(
            f"LLM service '{instance}' has another model than when the re-embedding began. Give it "
            "its model back, or cancel the re-embedding with DELETE."
        )
    return instance


def _switch(reembedding: Reembedding) -> None:
    """Exchange the vectors aside for those in use, whichever are the new ones."""
    with store.tending(reembedding.pk) as mine:
        if not mine:
            raise Busy
        indexes.give_way()
        if not _embed_lacking(reembedding):
            return
        segment = None
        dimensions = reembedding.instance.dimensions
        project = reembedding.project
        index = SearchIndex.objects.filter(project=project).first()
        language = None if index is None else index.search_language
        if store.count(project.pk) >= indexes.rows_for_index(dimensions, language):
            segment = _build(reembedding, dimensions)
        for round_ in range(_ROUNDS + 1):
            if not _embed_lacking(reembedding):
                return
            change = partial(_exchange, reembedding, segment, patient=round_ == _ROUNDS)
            if indexes.while_uploads_wait(project, change):
                break
        else:
            raise Conflict(
                "Texts are uploaded faster than the model embeds them; switch while less is "
                "uploaded."
            )
    log.info("vectors_exchanged", project=project.pk, segment=segment)
    store.tidy(*[] if segment is None else [segment])
    with transaction.atomic():
        indexes.ask(project.pk)


def _build(reembedding: Reembedding, dimensions: int) -> int | None:
    """Build a sealed segment of the vectors aside, which nothing reads yet; return its number."""
    project_id = reembedding.pk
    with transaction.atomic():
        SearchIndex.objects.get_or_create(project_id=project_id)
        current = _mine(reembedding).select_for_update().first()
        if current is None:
            return None
        if current.building_segment is None:
            current.building_segment = store.new_segment()
            current.save(update_fields=["building_segment", "updated_at"])
    index = SearchIndex.objects.get(project=project_id)
    segment = int(current.building_segment)
    store.copy_exchanged(project_id, segment, reembedding.generation, sealed_segment=index.segment)
    store.index(segment, dimensions, _graph(index), index.search_language)
    return segment


def _graph(index: SearchIndex) -> store.GraphSettings:
    return store.GraphSettings(m=index.m, ef_construction=index.ef_construction)


def _exchange(reembedding: Reembedding, segment: int | None, *, patient: bool) -> bool:
    """Exchange the vectors, in a transaction that uploads wait for.

    patient: whether uploads wait for the last texts to be embedded, too.
    Returns False where texts have come that have no vector aside yet.
    """
    project_id, generation = reembedding.pk, reembedding.generation
    current = _mine(reembedding).select_for_update().first()
    if current is None:
        # Cancelled: whoever did so had the segment dropped.
        return True
    if lacking := store.lacking(project_id, generation, limit=_LAST_TEXTS + 1):
        if not patient or len(lacking) > _LAST_TEXTS:
            return False
        if not _embed(reembedding, _instance_to_use(reembedding), lacking):
            return False
    project = Project.objects.select_related("owner", "instance").get(pk=project_id)
    former, former_model = project.instance, project.instance.embedding_model_id
    changed = change_instance(project, reembedding.instance)
    _refuse_changed(reembedding, changed.instance)
    index = SearchIndex.objects.select_for_update().filter(project=project_id).first()
    sealed = None if index is None else index.segment
    if segment is None or index is None:
        store.exchange(project_id, generation, sealed_segment=sealed)
        store.give_up(project_id)
    else:
        building = index.building_segment
        store.swap_exchanged(project_id, segment, generation, sealed_segment=sealed)
        indexes.note_built(index, segment, changed.instance.dimensions, _graph(index))
        if building is not None:
            # A copy of what is in use no longer.
            store.retire(building)
    ProjectModel.objects.get_or_create(project=project, model_id=reembedding.model_id)
    _note_exchanged(reembedding, former, former_model)
    return True


def _refuse_changed(reembedding: Reembedding, instance: Instance) -> None:
    """Raise Conflict where an instance, as it is held now, does not fit the vectors aside."""
    expected = reembedding.model.dimensions
    if instance.dimensions != expected:
        raise Conflict(
            f"LLM service '{instance}' has {instance.dimensions} dimensions by now, the vectors "
            f"have {expected}."
        )
    # A rollback restores vectors whatever became of their model; the project says so.
    going_on = reembedding.state == ReembeddingState.SWITCHING
    if going_on and instance.embedding_model_id != reembedding.model_id:
        raise Conflict(
            f"LLM service '{instance}' has another model than when the re-embedding began; cancel "
            "it with DELETE, and begin anew."
        )


def _note_exchanged(reembedding: Reembedding, former: Instance, former_model: int) -> None:
    """Say that the vectors aside are the former ones now."""
    switched = reembedding.state == ReembeddingState.SWITCHING
    _mine(reembedding).update(
        state=ReembeddingState.SWITCHED if switched else ReembeddingState.READY,
        instance=former,
        model_id=former_model,
        generation=reembedding.generation + 1,
        building_segment=None,
        switched_at=timezone.now() if switched else None,
        last_error="",
        updated_at=timezone.now(),
    )

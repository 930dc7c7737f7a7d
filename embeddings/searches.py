"""Searches that ask for more than the nearest texts: one, many at once, over several projects."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from accounts.authentication import Credentials
from accounts.policy import Actor, Level
from common.errors import Conflict, FieldError, NotFound, TooLarge
from common.versions import RowVersion, Stale
from embeddings import selectors, shaping, store
from embeddings.hybrid import Asked
from embeddings.selectors import Found, FusedFound, Wanted
from embeddings.shaping import Fields, Question, Result, Shape, Shaped
from llm_services.embedding import embed_query, is_local
from projects import access
from projects.access import Access
from projects.models import Project
from projects.selectors import projects_for

# Seconds of the queries of a batch: a refused one may be asked twice, and answers come within ten.
WITHIN_S = 4.0
# Seconds of the statements of one search, also over several projects.
ONE_WITHIN_S = 8.0


def shaped(
    credentials: Credentials,
    *,
    owner: str,
    handle: str,
    question: Callable[[int], Question | None],
) -> tuple[Found, Shaped] | None:
    """Answer a question about a project; None where it asks for no more than the nearest.

    question: reads it, given the dimensions of the project's vectors; called once the actor is
    known to be allowed to search.
    Raises as `project_for`, what `question` raises, as `shaping.answer`, and TookTooLong.
    """

    def ask(known: Access, rests_on: Sequence[RowVersion]) -> Shaped | None:
        asked = question(known.project.instance.dimensions)
        return None if asked is None else _answers(credentials, known, [asked], rests_on)[0]

    with store.within(ONE_WITHIN_S):
        known, answer = selectors.as_reader(credentials, owner, handle, ask)
    return None if answer is None else (Found(known.actor, known.project, answer.ranking), answer)


def shaped_like(
    credentials: Credentials,
    *,
    owner: str,
    handle: str,
    text_id: str,
    wanted: Wanted,
    shape: Shape,
) -> tuple[Found, Shaped]:
    """Return what is most similar to a stored text, without it; raise as `embedding_for`."""

    def ask(known: Access, rests_on: Sequence[RowVersion]) -> Shaped:
        dimensions = known.project.instance.dimensions
        shaping.check_size([(wanted, shape)], dimensions, location="query")
        ids = selectors.spellings(text_id)
        answer = shaping.answer_stored(known.project, ids, wanted, shape, rests_on)
        if answer is None:
            raise NotFound(selectors.missing(known.project, text_id))
        return answer

    with store.within(ONE_WITHIN_S):
        known, answer = selectors.as_reader(credentials, owner, handle, ask)
    return Found(known.actor, known.project, answer.ranking), answer


def batch(
    credentials: Credentials,
    *,
    owner: str,
    handle: str,
    questions: Callable[[int], Sequence[Question]],
) -> tuple[Access, list[Shaped]]:
    """Answer several questions about a project, in their order.

    Raises as `shaped`, and TooLarge for those that take longer than WITHIN_S together.
    """

    def ask(known: Access, rests_on: Sequence[RowVersion]) -> list[Shaped]:
        asked = questions(known.project.instance.dimensions)
        return _answers(credentials, known, asked, rests_on)

    with store.within(ONE_WITHIN_S):
        return selectors.as_reader(credentials, owner, handle, ask)


def _answers(
    credentials: Credentials,
    known: Access,
    questions: Sequence[Question],
    rests_on: Sequence[RowVersion],
) -> list[Shaped]:
    began = time.monotonic()
    project = known.project
    location = questions[0].location if len(questions) == 1 else "body"
    asked = [(each.wanted, each.shape) for each in questions]
    shaping.check_size(asked, project.instance.dimensions, location=location)
    if any(each.text is not None for each in questions):
        if rests_on:
            # Words are not embedded before the permission is known for sure.
            raise Stale
        selectors.check_may_embed(known.actor, project)
        questions = [_embedded(project, each) for each in questions]
        if not is_local(project.instance):
            # The provider may have taken its time.
            access.look_up(credentials, owner=project.owner.handle, handle=project.handle)
    answers: list[Shaped] = []
    for each in questions:
        if answers and time.monotonic() - began > WITHIN_S:
            problem = (
                f"Of the {len(questions)} queries, {len(answers)} were answered in {WITHIN_S:g} s, "
                "which is as long as a batch may take; send fewer at once."
            )
            raise TooLarge(problem, errors=[FieldError("body.queries", problem)])
        answers.append(shaping.answer(project, each, rests_on))
    return answers


def _embedded(project: Project, question: Question) -> Question:
    if question.text is None:
        return question
    return replace(question, vector=embed_query(project.instance, question.text), text=None)


def fused(
    credentials: Credentials,
    *,
    owner: str,
    handle: str,
    words: str | Callable[[], bytes],
    asked: Asked,
    wanted: Wanted,
    shape: Callable[[], Shape | None],
) -> tuple[FusedFound, list[Result] | None]:
    """Return what `matching_words` finds, and with what its results are carried, where asked for.

    shape: reads what they are to carry; called after the search. Results that were deleted since
    are left out. Raises as `matching_words`, and what `shape` raises.
    """
    with store.within(ONE_WITHIN_S):
        found = selectors.matching_words(
            credentials, owner=owner, handle=handle, words=words, asked=asked, wanted=wanted
        )
        asked_for = shape()
        if asked_for is None:
            return found, None
        project = found.project
        shaping.check_size([(wanted, asked_for)], project.instance.dimensions, location="request")
        results = [Result(hit.text_id, hit.similarity or 0.0) for hit in found.fused.hits]
        carried = shaping.dressed(project.pk, results, asked_for.fields, asked_for.context)
        return found, carried


def across(
    actor: Actor,
    *,
    names: Sequence[tuple[str, str]],
    question: Callable[[int], Question],
) -> list[tuple[Project, Result]]:
    """Answer a question about several projects together: one statement each, merged here.

    names: (owner, handle) of each.
    Ties are ordered by text id, then by project. Raises as `project_for` for each of them, Conflict
    where not the same model made their vectors, and what `question` raises.
    """
    projects = projects_for(actor, Level.READER, names)
    _check_model(projects)
    asked = question(projects[0].instance.dimensions)
    wanted, shape = asked.wanted, asked.shape
    shaping.check_size([(wanted, shape)], projects[0].instance.dimensions, location="body")
    if asked.text is not None:
        for project in projects:
            selectors.check_may_embed(actor, project)
        asked = _embedded(projects[0], asked)
    bare = replace(
        asked,
        wanted=replace(wanted, limit=wanted.last, offset=0),
        shape=replace(shape, fields=Fields(), context=None),
    )
    with store.within(ONE_WITHIN_S):
        found = [
            (project, each)
            for project in projects
            for each in shaping.answer(project, bare).results
        ]
        found.sort(key=lambda one: (-one[1].similarity, one[1].text_id, str(one[0])))
        return _dressed(found[wanted.offset : wanted.last], shape)


def _dressed(found: Sequence[tuple[Project, Result]], shape: Shape) -> list[tuple[Project, Result]]:
    """Return results of several projects with what they carry; without those deleted meanwhile."""
    by_project: dict[int, list[Result]] = {}
    for project, result in found:
        by_project.setdefault(project.pk, []).append(result)
    carrying = {
        (project_id, each.text_id): each
        for project_id, results in by_project.items()
        for each in shaping.dressed(project_id, results, shape.fields, shape.context)
    }
    return [
        (project, carrying[project.pk, each.text_id])
        for project, each in found
        if (project.pk, each.text_id) in carrying
    ]


def _check_model(projects: Sequence[Project]) -> None:
    """Refuse projects whose similarities cannot be compared."""
    first, *others = projects
    different = [
        each for each in others if each.instance.fingerprint() != first.instance.fingerprint()
    ]
    if not different:
        return
    ours = first.instance.dimensions
    listed = ", ".join(
        f"'{each}' (as many dimensions, but another model)"
        if each.instance.dimensions == ours
        else f"'{each}' ({each.instance.dimensions} dimensions instead of {ours})"
        for each in different
    )
    raise Conflict(
        "Projects can be searched together if the same model made their vectors: the same API "
        f"standard, endpoint, model and dimensions. Others than '{first}': {listed}.",
        details={"other_models": [str(each) for each in different]},
    )

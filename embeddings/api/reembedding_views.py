"""Changing a project's model: re-embedding its texts aside, and switching."""

from collections.abc import Callable
from typing import Any, ClassVar

from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import KeyRequired, actor_of
from common.api import Resource, given
from common.schema import Message, answer_example, body_example, operation
from embeddings import reembedding
from embeddings.api.reembedding_serializers import (
    ComparisonQuery,
    EstimateOut,
    EstimateQuery,
    QuestionsIn,
    ReembeddingComparisonOut,
    ReembeddingIn,
    ReembeddingOut,
    comparison_shown,
    estimate_shown,
    reembedding_shown,
)

TAG = "Re-embedding"

_EXAMPLE: dict[str, Any] = {
    "user_handle": "alice",
    "project_handle": "letters",
    "state": "filling",
    "aside": {
        "instance_owner": "alice",
        "instance_handle": "my-openai",
        "model": "text-embedding-3-small",
        "dimensions": 1536,
    },
    "progress": {"total": 8000, "embedded": 2560, "remaining": 5440, "without_text": 0},
    "tokens": 301_440,
    "last_error": None,
    "created_at": "2026-03-01T12:00:00Z",
    "switched_at": None,
    "rollback_until": None,
}


class Reembedding(Resource):
    """The re-embedding of a project."""

    permission_classes = [KeyRequired]

    @operation(
        "Get a project's re-embedding",
        name="get_reembedding",
        tag=TAG,
        answers={200: ReembeddingOut},
        errors=[404],
        examples=[answer_example("One that is being filled", _EXAMPLE)],
    )
    def get(self, request: Request, owner: str, project: str) -> Response:
        """Return how far the project's re-embedding is, to its editors."""
        report = reembedding.report_for(actor_of(request), owner=owner, handle=project)
        return Response(reembedding_shown(report))

    @operation(
        "Re-embed a project",
        name="start_reembedding",
        tag=TAG,
        request=ReembeddingIn,
        answers={202: ReembeddingOut},
        errors=[404, 409],
        description=(
            "The owner's to do. The project's texts are embedded in the background by another "
            "instance, aside: searches and uploads go on with the vectors in use until the switch. "
            "Texts that the instance has embedded before are not embedded again."
        ),
        examples=[
            body_example(
                "With the built-in model",
                {"instance_owner": "_system", "instance_handle": "builtin"},
            )
        ],
    )
    def post(self, request: Request, owner: str, project: str) -> Response:
        """Begin to embed the project's texts with another instance."""
        wanted = given(ReembeddingIn, request)
        report = reembedding.start(
            actor=actor_of(request),
            owner=owner,
            handle=project,
            instance_owner=wanted.get("instance_owner"),
            instance_handle=wanted["instance_handle"],
        )
        return Response(reembedding_shown(report), status=202)

    @operation(
        "Cancel or confirm a re-embedding",
        name="delete_reembedding",
        tag=TAG,
        answers={200: Message},
        errors=[404],
        description=(
            "Deletes the vectors aside: before the switch the new ones, after it the former ones, "
            "which ends the possibility to roll back."
        ),
    )
    def delete(self, request: Request, owner: str, project: str) -> Response:
        """Delete the vectors aside; the project stays as it is."""
        report = reembedding.forget(actor=actor_of(request), owner=owner, handle=project)
        done = "confirmed" if report.reembedding.switched_at else "cancelled"
        return Response({"message": f"Re-embedding of project '{owner}/{project}' {done}."})


class Estimate(Resource):
    """What re-embedding would take."""

    permission_classes = [KeyRequired]
    queries = {"get": EstimateQuery}

    @operation(
        "Estimate a re-embedding",
        name="estimate_reembedding",
        tag=TAG,
        answers={200: EstimateOut},
        errors=[404],
        query=EstimateQuery,
    )
    def get(self, request: Request, owner: str, project: str) -> Response:
        """Return how many texts and tokens there are to embed, and what they cost."""
        estimate = reembedding.estimate_for(
            actor_of(request),
            owner=owner,
            handle=project,
            price_per_million_tokens=self.query.get("price_per_million_tokens"),
        )
        return Response(estimate_shown(estimate))


class Comparison(Resource):
    """How much changes with the switch."""

    permission_classes = [KeyRequired]
    queries = {"get": ComparisonQuery}

    @operation(
        "Compare the vectors in use with those aside",
        name="compare_reembedding",
        tag=TAG,
        answers={200: ReembeddingComparisonOut},
        errors=[404, 409],
        query=ComparisonQuery,
        description=(
            "Searches with stored texts chosen at random, by both sets of vectors and exactly. "
            "How much both find alike says how much changes, not which of them is better."
        ),
    )
    def get(self, request: Request, owner: str, project: str) -> Response:
        """Return which share of the nearest texts both sets of vectors find."""
        comparison = reembedding.comparison_for(
            actor_of(request), owner=owner, handle=project, **self.query
        )
        return Response(comparison_shown(comparison))

    @operation(
        "Compare what both models find for questions",
        name="compare_reembedding_by_questions",
        tag=TAG,
        request=QuestionsIn,
        answers={200: ReembeddingComparisonOut},
        errors=[404, 409, 502, 504],
        description=(
            "Both models embed each question, and all vectors are compared. Send questions that "
            "people ask, and look at those that are answered least alike."
        ),
        examples=[body_example("A question", {"questions": ["who painted the Mona Lisa"], "k": 5})],
    )
    def post(self, request: Request, owner: str, project: str) -> Response:
        """Return which share of the nearest texts both models find for some questions."""
        asked = given(QuestionsIn, request)
        comparison = reembedding.comparison_by_questions(
            actor_of(request), owner=owner, handle=project, **asked
        )
        return Response(comparison_shown(comparison))


class _Step(Resource):
    """One step of a re-embedding."""

    permission_classes = [KeyRequired]
    take: ClassVar[Callable[..., reembedding.Report]]

    def taken(self, request: Request, owner: str, project: str) -> Response:
        """Take the step; what it asks for happens in the background."""
        step = type(self).take
        report = step(actor=actor_of(request), owner=owner, handle=project)
        return Response(reembedding_shown(report), status=202)


class Pause(_Step):
    """Pausing."""

    take = staticmethod(reembedding.pause)

    @operation(
        "Pause a re-embedding",
        name="pause_reembedding",
        tag=TAG,
        answers={202: ReembeddingOut},
        errors=[404, 409],
    )
    def post(self, request: Request, owner: str, project: str) -> Response:
        """Embed no more texts for now; those that were embedded are kept."""
        return self.taken(request, owner, project)


class Resume(_Step):
    """Going on."""

    take = staticmethod(reembedding.resume)

    @operation(
        "Resume a re-embedding",
        name="resume_reembedding",
        tag=TAG,
        answers={202: ReembeddingOut},
        errors=[404, 409],
    )
    def post(self, request: Request, owner: str, project: str) -> Response:
        """Go on with one that was paused, or that failed."""
        return self.taken(request, owner, project)


class Switch(_Step):
    """Switching."""

    take = staticmethod(reembedding.switch)

    @operation(
        "Switch to the new vectors",
        name="switch_reembedding",
        tag=TAG,
        answers={202: ReembeddingOut},
        errors=[404, 409],
        description=(
            "All vectors and the project's instance change in one moment, once texts that were "
            "uploaded meanwhile are embedded and the index is built. Queries must be embedded by "
            "the new model from then on. The former vectors are kept for a week."
        ),
    )
    def post(self, request: Request, owner: str, project: str) -> Response:
        """Have the project searched by the new vectors."""
        return self.taken(request, owner, project)


class Rollback(_Step):
    """Going back."""

    take = staticmethod(reembedding.roll_back)

    @operation(
        "Roll a re-embedding back",
        name="roll_back_reembedding",
        tag=TAG,
        answers={202: ReembeddingOut},
        errors=[404, 409],
        description=(
            "Former vectors and instance return in one moment. Texts that were stored since the "
            "switch are embedded by the former instance; the new vectors are kept aside, so that "
            "it can be switched again."
        ),
    )
    def post(self, request: Request, owner: str, project: str) -> Response:
        """Have the project searched by its former vectors again."""
        return self.taken(request, owner, project)

"""Shapes of embedding jobs."""

from collections.abc import Sequence
from typing import Any

from rest_framework import serializers

from common.schema import ListOut
from embeddings.models import EmbeddingJob, EmbeddingJobItem, JobState
from projects.models import Project


class JobOut(serializers.Serializer[Any]):
    """How far the texts of an upload are."""

    id = serializers.UUIDField()
    user_handle = serializers.CharField(help_text="The project's owner.")
    project_handle = serializers.CharField()
    state = serializers.ChoiceField(
        choices=JobState.values,
        help_text="`finished`: every text was dealt with, though some may have failed. `failed`: "
        "it could not go on, `error` says why.",
    )
    total = serializers.IntegerField(help_text="How many texts it has.")
    done = serializers.IntegerField(help_text="How many of them are stored.")
    failed = serializers.IntegerField(help_text="How many cannot be.")
    tokens = serializers.IntegerField(
        allow_null=True, help_text="Those that the provider counted; null where it does not say."
    )
    seconds_left = serializers.FloatField(
        allow_null=True, help_text="An estimate; null where there is none, or nothing left to do."
    )
    error = serializers.CharField(
        allow_null=True, help_text="Why it ended early, or what it waits for."
    )
    warnings = serializers.ListField(
        child=serializers.CharField(),
        help_text="What is odd about the vectors that it has stored, such as that the project has "
        "others of another model.",
    )
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class FailureOut(serializers.Serializer[Any]):
    """A text that could not be embedded or stored."""

    index = serializers.IntegerField(help_text="Which it was in the request, from 0.")
    text_id = serializers.CharField()
    message = serializers.CharField()


class JobWithFailuresOut(JobOut):
    """The same, with some of the texts that failed."""

    # What the API calls them; the serializer's own `errors` is not needed to describe.
    errors = FailureOut(many=True, help_text="Page through them with `limit` and `offset`.")  # type: ignore[assignment]


class JobsOut(ListOut):
    """A page of a project's jobs, the newest first."""

    jobs = JobOut(many=True)


def job_shown(job: EmbeddingJob, project: Project) -> dict[str, Any]:
    """Return a job as JobOut describes it."""
    pace_s = job.seconds_per_text
    estimate = None if pace_s is None or not job.is_active else round(pace_s * job.waiting, 1)
    return {
        "id": job.pk,
        "user_handle": project.owner.handle,
        "project_handle": project.handle,
        "state": job.state,
        "total": job.total,
        "done": job.done,
        "failed": job.failed,
        "tokens": job.tokens,
        "seconds_left": estimate,
        "error": job.error or None,
        "warnings": job.warnings,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }


def failures_shown(items: Sequence[EmbeddingJobItem]) -> list[dict[str, Any]]:
    """Return texts that failed as FailureOut describes them."""
    return [
        {"index": each.number, "text_id": each.text_id, "message": each.error} for each in items
    ]

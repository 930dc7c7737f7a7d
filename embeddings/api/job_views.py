"""Texts that are embedded in the background."""

from typing import Any
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import actor_of
from common.api import Resource
from common.pagination import page_of
from common.query import Paging
from common.schema import Message, answer_example, operation
from embeddings import embedding_jobs
from embeddings.api.job_serializers import (
    JobOut,
    JobsOut,
    JobWithFailuresOut,
    failures_shown,
    job_shown,
)
from embeddings.models import EmbeddingJob

TAG = "Embedding jobs"

_JOB: dict[str, Any] = {
    "id": "0198b5a4-2f6e-7cc1-9d53-6f0d4f9d2b10",
    "user_handle": "alice",
    "project_handle": "letters",
    "state": "running",
    "total": 5000,
    "done": 2048,
    "failed": 1,
    "tokens": 301_422,
    "seconds_left": 41.5,
    "error": None,
    "warnings": [],
    "created_at": "2026-03-01T12:00:00Z",
    "started_at": "2026-03-01T12:00:01Z",
    "finished_at": None,
}
_FAILURE = {
    "index": 17,
    "text_id": "letter-9:p.1",
    "message": "text cannot be embedded: it has more than 100000 characters.",
}


def prefers_async(request: Request) -> bool:
    """Say whether a request has the header `Prefer: respond-async` (RFC 7240)."""
    wishes = request.META.get("HTTP_PREFER", "").lower().split(",")
    return "respond-async" in [each.strip() for each in wishes]


def accepted(job: EmbeddingJob, *, background: bool) -> Response:
    """Return the answer to an upload that became a job.

    background: whether that was asked for.
    """
    project = job.project
    headers = {"Location": f"/v1/projects/{project}/embedding-jobs/{job.pk}"}
    if background:
        headers["Preference-Applied"] = "respond-async"
    return Response(job_shown(job, project), status=202, headers=headers)


class Jobs(Resource):
    """The jobs of a project."""

    queries = {"get": Paging}

    @operation(
        "List embedding jobs",
        name="list_embedding_jobs",
        tag=TAG,
        answers={200: JobsOut},
        errors=[404],
        query=Paging,
        description="The newest first; those that ended more than 30 days ago are gone.",
    )
    def get(self, request: Request, owner: str, project: str) -> Response:
        """Return the jobs of a project; for those who may edit it."""
        found = embedding_jobs.jobs_of(actor_of(request), owner=owner, handle=project)
        page = page_of(found, **self.query)
        return Response(
            page.envelope("jobs", [job_shown(each, each.project) for each in page.items])
        )


class OneJob(Resource):
    """One job."""

    queries = {"get": Paging}

    @operation(
        "Get an embedding job",
        name="get_embedding_job",
        tag=TAG,
        answers={200: JobWithFailuresOut},
        errors=[404],
        query=Paging,
        description="`limit` and `offset` choose among the texts that failed.",
        examples=[answer_example("A running job", {**_JOB, "errors": [_FAILURE]})],
    )
    def get(self, request: Request, owner: str, project: str, id: UUID) -> Response:
        """Return how far a job is, and which of its texts failed and why."""
        job = _job(request, owner, project, id)
        first, limit = self.query["offset"], self.query["limit"]
        failures = embedding_jobs.failures_of(job)
        shown = list(failures[first : first + limit]) if first < job.failed else []
        return Response({**job_shown(job, job.project), "errors": failures_shown(shown)})

    @operation(
        "Delete an embedding job",
        name="delete_embedding_job",
        tag=TAG,
        answers={200: Message},
        errors=[404, 409],
        description="What it stored stays. 409 for a job that has not ended: cancel it first.",
    )
    def delete(self, request: Request, owner: str, project: str, id: UUID) -> Response:
        """Forget a job that has ended, with the texts that it did not store."""
        embedding_jobs.delete(actor=actor_of(request), owner=owner, handle=project, job_id=id)
        return Response({"message": f"Embedding job '{id}' deleted."})


class Cancellation(Resource):
    """Stopping a job."""

    @operation(
        "Cancel an embedding job",
        name="cancel_embedding_job",
        tag=TAG,
        answers={200: JobOut},
        errors=[404, 409],
        description="What it has stored stays. 409 for a job that has ended.",
    )
    def post(self, request: Request, owner: str, project: str, id: UUID) -> Response:
        """Have a job stop; of the texts that a provider has at this moment none is stored."""
        job = embedding_jobs.cancel(actor=actor_of(request), owner=owner, handle=project, job_id=id)
        return Response(job_shown(job, job.project))


class Retry(Resource):
    """Going on with a job."""

    @operation(
        "Retry an embedding job",
        name="retry_embedding_job",
        tag=TAG,
        answers={202: JobOut},
        errors=[404, 409],
        description=(
            "Of a job that has ended, whatever the reason: texts that failed, and those that it "
            "did not come to. 409 for one that has not ended, or that stored them all."
        ),
    )
    def post(self, request: Request, owner: str, project: str, id: UUID) -> Response:
        """Have the texts tried again that a job has not stored."""
        job = embedding_jobs.retry(actor=actor_of(request), owner=owner, handle=project, job_id=id)
        return Response(job_shown(job, job.project), status=202)


def _job(request: Request, owner: str, project: str, job_id: UUID) -> EmbeddingJob:
    return embedding_jobs.job_for(actor_of(request), owner=owner, handle=project, job_id=job_id)

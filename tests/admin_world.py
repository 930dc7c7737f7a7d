"""Rows of every kind that the administration site shows, full of what must stay text."""

import json
from typing import Any

import numpy as np
from django.contrib.auth.models import Group
from django.db import connection
from django.utils import timezone

from accounts import services as accounts
from accounts.models import Role, User
from accounts.policy import BOOTSTRAP_ADMIN
from common import jobs
from embeddings import store
from embeddings.models import (
    EmbeddingJob,
    EmbeddingJobItem,
    ImportJob,
    JobState,
    Projection,
    ProjectModel,
    Reembedding,
    ReembeddingState,
    SearchIndex,
)
from llm_services import services as llm_services
from llm_services.models import ApiStandard, DefinitionShare, InstanceShare, KeyMethod
from projects.models import Project, ProjectShare
from resources.models import Agent, EndUser
from resources.services import create_file, create_resource
from tests.admin_site import SCRIPT
from tests.factories import make_embedded, make_instance, make_project, make_user, stored

HOSTILE = f"{SCRIPT}\"'><img src=x onerror=alert(2)>{{{{7*7}}}}\u202egnp"
# Of providers; no page may hold it.
SECRET = "sk-canary-5b0e7d21"
# Numbers of vectors; no page may hold them either.
VECTOR = (0.8125, -1.6875, 2.5625)


def populate(number: int) -> None:
    """Make another row of everything, of an owner of its own: `owner<number>`."""
    handle = f"owner{number}"
    make_user(handle, name=HOSTILE[:50])
    owner, sam = stored(handle), stored("sam")
    Group.objects.create(name=f"{HOSTILE}{number}")
    project = _project(owner, sam)
    accounts.create_key(user=owner, name=HOSTILE, project_id=project.pk)
    for kind in (Agent, EndUser):
        values: dict[str, Any] = {"name": HOSTILE, "about": HOSTILE, "metadata": {HOSTILE: HOSTILE}}
        values["project"] = project.handle
        create_resource(kind, actor=BOOTSTRAP_ADMIN, owner=owner, values=values)
    described = {"name": HOSTILE, "description": HOSTILE, "mime_type": "text/plain"}
    described["project"] = project.handle
    create_file(actor=BOOTSTRAP_ADMIN, owner=owner, content=b"text", values=described)
    _jobs(project, owner)


def _project(owner: User, sam: User) -> Project:
    ApiStandard.objects.create(
        handle=f"std-{owner.handle}", description=HOSTILE, key_method=KeyMethod.NONE
    )
    instance = make_instance(
        owner.handle, description=HOSTILE, model=f"{HOSTILE}{owner.pk}", api_key=SECRET
    )
    InstanceShare.objects.create(subject=instance, user=sam, role=Role.READER)
    definition = llm_services.create_definition(
        actor=BOOTSTRAP_ADMIN,
        owner=owner.handle,
        handle="template",
        values={
            "endpoint": instance.endpoint,
            "api_standard": "openai",
            "model": HOSTILE,
            "dimensions": 3,
            "description": HOSTILE,
        },
    )
    DefinitionShare.objects.create(subject=definition, user=sam, role=Role.READER)
    make_embedded(instance, HOSTILE)
    project = make_project(owner.handle, "papers", description=HOSTILE, public_read=True)
    project.metadata = {HOSTILE: HOSTILE}
    project.save()
    ProjectShare.objects.create(subject=project, user=sam, role=Role.READER)
    store.insert(
        project.pk,
        instance.pk,
        text_ids=[f"{HOSTILE}/{owner.pk}"],
        vectors=np.array([VECTOR], dtype=np.float32),
        texts=[HOSTILE],
        metadata=[json.dumps({HOSTILE: HOSTILE}).encode()],
    )
    model = instance.embedding_model
    ProjectModel.objects.get_or_create(project=project, model=model)
    SearchIndex.objects.create(project=project, last_error=HOSTILE)
    Reembedding.objects.create(
        project=project,
        instance=instance,
        model=model,
        state=ReembeddingState.PAUSED,
        last_error=HOSTILE,
        switched_at=timezone.now(),
    )
    Projection.objects.create(
        project=project, method="umap", state="failed", error=HOSTILE, made_at=timezone.now()
    )
    ImportJob.objects.create(
        project=project,
        user=project.owner,
        name=HOSTILE,
        size=1,
        format="csv",
        state="failed",
        error=HOSTILE,
    )
    return project


def _jobs(project: Project, owner: User) -> None:
    embedding = EmbeddingJob.objects.create(
        project=project, user=owner, state=JobState.FAILED, total=2, failed=1, error=HOSTILE
    )
    EmbeddingJobItem.objects.create(
        job=embedding, number=0, text_id=HOSTILE, text=HOSTILE, error=HOSTILE
    )
    name = f"{HOSTILE}{project.pk}"
    jobs.defer("embeddings.tend_index", lock=name, queueing_lock=name, project_id=project.pk)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE procrastinate_jobs SET status = 'failed', attempts = 3 WHERE queueing_lock = %s"
            " RETURNING id",
            [name],
        )
        (job_id,) = cursor.fetchone()
        cursor.execute("SELECT worker_id FROM procrastinate_register_worker_v1()")
    jobs.note_failure(job_id, f"ValueError: {HOSTILE}")

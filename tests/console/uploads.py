"""Uploads as a browser without JavaScript sends them."""

from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from embeddings.models import ImportJob
from tests.console.browser import PROJECT

CSV = b"""text_id,text,vector,author,year,sent
l-1,Dear Bob,"[1, 0, 0]",Ann,1801,true
l-2,"Dear Ann,
how are you?","[0, 1, 0]",Bob,1802,false
"""


def offer(client: Client, content: bytes, name: str = "letters.csv", project: str = PROJECT) -> Any:
    """Choose a file; return the answer."""
    return client.post(f"{project}/upload", {"file": SimpleUploadedFile(name, content)})


def offered(client: Client, content: bytes, name: str = "letters.csv") -> ImportJob:
    """Choose a file; return the job that waits for its columns."""
    answer = offer(client, content, name)
    assert answer.status_code == 302, answer.content.decode()[:3000]
    job = ImportJob.objects.order_by("id").last()
    assert job is not None
    assert answer.headers["Location"] == f"{PROJECT}/upload/{job.pk}"
    return job

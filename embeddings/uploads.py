"""Stores the embeddings of one large request: JSON lines, an Arrow stream or Parquet."""

from collections.abc import Callable
from functools import partial
from typing import BinaryIO

from accounts.policy import Actor
from embeddings import embedding_jobs, files
from embeddings.models import EmbeddingJob
from embeddings.services import VectorsMissing, expected_by, project_to_edit, store_parts

MEDIA_TYPES = files.MEDIA_TYPES


def upload_file(
    *,
    actor: Actor,
    owner: str,
    handle: str,
    media_type: str,
    body: Callable[[], BinaryIO],
) -> list[str] | EmbeddingJob:
    """Store the new embeddings of a file: all of them or none.

    Return their ids in order; for a file with texts without vectors, the job that embeds them.

    media_type: one of MEDIA_TYPES.
    body: spools the request; called once the actor is known to be allowed to write, and before
    there is a transaction.
    Raises as `project_for`; Invalid for the body or one of its rows; TooLarge; Conflict for an id
    that is stored or given twice; Unavailable.
    """
    project = project_to_edit(actor, owner, handle)
    file_format = MEDIA_TYPES[media_type]
    with body() as sent, files.opened(sent, file_format) as stream:
        parts = partial(files.parts_of, stream, file_format, expected_by(project))
        try:
            return store_parts(project, parts)
        except VectorsMissing:
            return embedding_jobs.start(actor, project, parts, in_file=True)

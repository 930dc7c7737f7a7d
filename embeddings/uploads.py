"""Stores the embeddings of one large request: JSON lines, an Arrow stream or Parquet."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import BinaryIO

from accounts.authentication import Credentials
from accounts.policy import Actor, Level
from common.errors import DomainError
from common.versions import RowVersion, Stale
from embeddings import embedding_jobs, files
from embeddings.models import EmbeddingJob
from embeddings.services import Stored, VectorsMissing, expected_by, store_parts
from projects import access
from projects.access import Access

MEDIA_TYPES = files.MEDIA_TYPES


def upload_file(
    credentials: Credentials,
    *,
    owner: str,
    handle: str,
    media_type: str,
    body: Callable[[], BinaryIO],
    note: Callable[[Actor], None],
) -> Stored | EmbeddingJob:
    """Store the new embeddings of a file: all of them or none.

    Return what was stored; for a file with texts without vectors, the job that embeds them.

    media_type: one of MEDIA_TYPES.
    body: spools the request; called once the actor is known to be allowed to write, and before
    there is a transaction.
    note: is told who that is.
    Raises as `project_for`; Invalid for the body or one of its rows; TooLarge; Conflict for an id
    that is stored or given twice; Unavailable.
    """
    find = partial(access.look_up, credentials, owner=owner, handle=handle, level=Level.EDITOR)
    known = access.remembered(credentials, owner=owner, handle=handle, level=Level.EDITOR)
    allowed = known or find()
    note(allowed.actor)
    file_format = MEDIA_TYPES[media_type]
    with body() as sent, files.opened(sent, file_format) as stream:
        store = partial(_store, stream, file_format)
        if known is None:
            return store(allowed)
        # As in `embedding_jobs.upload`: what is remembered may be true no longer.
        refusal: DomainError | None = None
        try:
            return store(known, known.rests_on)
        except Stale:
            pass
        except DomainError as error:
            refusal = error
        fresh = find()
        note(fresh.actor)
        if refusal is not None and fresh.rests_on == known.rests_on:
            raise refusal
        return store(fresh)


def _store(
    stream: BinaryIO, file_format: str, allowed: Access, rests_on: Sequence[RowVersion] = ()
) -> Stored | EmbeddingJob:
    project = allowed.project
    parts = partial(files.parts_of, stream, file_format, expected_by(project))
    try:
        return store_parts(project, parts, rests_on)
    except VectorsMissing:
        if rests_on:
            raise Stale from None
        return embedding_jobs.start(allowed.actor, project, parts, in_file=True)

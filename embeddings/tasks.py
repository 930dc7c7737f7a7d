"""Background jobs about embeddings."""

from common import jobs
from embeddings import indexes, reembedding


# Whoever is busy with an index may be a server process whose worker was killed: it ends soon.
@jobs.task(indexes.TEND, pauses_s=(5, 15, 60, 300))
def tend_index(*, project_id: int) -> None:
    """Look after a project's index."""
    indexes.tend(project_id)


@jobs.periodic("embeddings.sweep_indexes", cron="* * * * *")
def sweep_indexes() -> None:
    """Find the indexes that need to be looked after, and drop what is retired."""
    indexes.sweep()


# A provider that failed is asked again; whoever is busy with the index ends soon.
@jobs.task(reembedding.ADVANCE, pauses_s=(5, 15, 60, 300))
def advance_reembedding(*, project_id: int) -> None:
    """Fill, switch or roll back a project's re-embedding."""
    reembedding.advance(project_id)


@jobs.periodic("embeddings.sweep_reembeddings", cron="*/10 * * * *")
def sweep_reembeddings() -> None:
    """Go on with re-embeddings whose jobs have failed, and delete former vectors after a week."""
    reembedding.sweep()

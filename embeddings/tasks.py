"""Background jobs about embeddings."""

from uuid import UUID

from common import jobs
from embeddings import embedding_jobs, import_jobs, indexes, projections, reembedding


# Whoever is busy with an index may be a server process whose worker was killed: it ends soon.
@jobs.task(indexes.TEND, pauses_s=(5, 15, 60, 300))
def tend_index(*, project_id: int) -> None:
    """Look after a project's index."""
    indexes.tend(project_id)


@jobs.periodic("embeddings.sweep_indexes", cron="* * * * *")
def sweep_indexes() -> None:
    """Find the indexes that need to be looked after, and drop what is retired."""
    indexes.sweep()


@jobs.task(embedding_jobs.WORK)
def work_embedding_job(*, job_id: str) -> None:
    """Embed and store texts of a job."""
    embedding_jobs.work(UUID(job_id))


@jobs.periodic("embeddings.sweep_embedding_jobs", cron="* * * * *")
def sweep_embedding_jobs() -> None:
    """Find embedding jobs that nobody works at any more."""
    embedding_jobs.sweep()


@jobs.periodic("embeddings.forget_embedding_jobs", cron="41 3 * * *")
def forget_embedding_jobs() -> None:
    """Delete embedding jobs that ended 30 days ago."""
    embedding_jobs.forget_old()


# A provider that failed is asked again; whoever is busy with the index ends soon.
@jobs.task(reembedding.ADVANCE, pauses_s=(5, 15, 60, 300))
def advance_reembedding(*, project_id: int) -> None:
    """Fill, switch or roll back a project's re-embedding."""
    reembedding.advance(project_id)


@jobs.periodic("embeddings.sweep_reembeddings", cron="*/10 * * * *")
def sweep_reembeddings() -> None:
    """Go on with re-embeddings whose jobs have failed, and delete former vectors after a week."""
    reembedding.sweep()


@jobs.task(projections.MAKE)
def make_projection(*, projection_id: int) -> None:
    """Lay a project's vectors out in a plane."""
    projections.make(projection_id)


@jobs.periodic("embeddings.sweep_projections", cron="* * * * *")
def sweep_projections() -> None:
    """Find maps that nobody works at any more."""
    projections.sweep()


@jobs.task(import_jobs.WORK)
def work_import_job(*, job_id: str) -> None:
    """Store rows of a file."""
    import_jobs.work(UUID(job_id))


@jobs.periodic("embeddings.sweep_import_jobs", cron="* * * * *")
def sweep_import_jobs() -> None:
    """Find imports that nobody works at any more."""
    import_jobs.sweep()


@jobs.periodic("embeddings.tidy_import_jobs", cron="23 * * * *")
def tidy_import_jobs() -> None:
    """Delete files that are not needed any more, and what is told of old imports."""
    import_jobs.tidy()

"""Embeddings: a vector with the text and metadata it stands for, and where a project keeps them."""

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from pgvector.django import VectorField

from common.models import uuid7
from embeddings.languages import LANGUAGES
from llm_services.models import EmbeddingModel, Instance
from projects.models import Project

MAXIMUM_TEXT_ID_LENGTH = 300


class Embedding(models.Model):
    """One text of a project and its vector.

    The table is partitioned by `segment` (see `docs/decisions`): migration 0001 creates it in SQL,
    this class lets the ORM, the admin and pages see all partitions as one. Everything that touches
    vectors goes through `store`.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    segment = models.IntegerField(default=0, editable=False)
    # The database deletes a project's rows with it (migration 0002).
    project = models.ForeignKey(
        Project,
        on_delete=models.DO_NOTHING,
        related_name="embeddings",
        db_constraint=False,
        db_index=False,
    )
    text_id = models.CharField(max_length=MAXIMUM_TEXT_ID_LENGTH, db_collation="C")
    # Where the vector came from. No constraint: it outlives a change of the project's instance.
    instance = models.ForeignKey(
        Instance,
        on_delete=models.DO_NOTHING,
        related_name="+",
        db_constraint=False,
        db_index=False,
    )
    # Which model made the vector, as far as is known; the instance may have another one by now.
    model = models.ForeignKey(
        EmbeddingModel,
        on_delete=models.DO_NOTHING,
        related_name="+",
        null=True,
        db_constraint=False,
        db_index=False,
    )
    vector = VectorField()
    text = models.TextField(blank=True, default="")
    metadata = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["text_id"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "text_id", "segment"], name="embedding_text_id"
            ),
        ]

    def __str__(self) -> str:
        return self.text_id


class IndexState(models.TextChoices):
    """How a project's embeddings are searched.

    Exact: every one is compared. Building: exact, or by an older index, while an index is built.
    Indexed: those in the sealed segment through an HNSW graph, the growing part exactly.
    """

    EXACT = "exact"
    BUILDING = "building"
    INDEXED = "indexed"


def _between(least: float, most: float) -> list[MinValueValidator | MaxValueValidator]:
    return [MinValueValidator(least), MaxValueValidator(most)]


class SearchIndex(models.Model):
    """The state and the settings of a project's index; a project without a row has none.

    Searches compare the version of this row with the one they were planned for, so whatever moves
    embeddings between segments changes the row in the same transaction.

    segment: the sealed segment that is searched. building_segment: the one being built beside it.
    built_…: what the index was built with. measured_…: the fewest candidates (`ef_search`) that
    reached the target, or the most there can be, and the recall@10 that they reached.
    """

    project = models.OneToOneField(
        Project,
        on_delete=models.DO_NOTHING,
        primary_key=True,
        related_name="search_index",
        db_constraint=False,
    )
    state = models.CharField(
        max_length=10, choices=IndexState.choices, default=IndexState.EXACT, editable=False
    )
    segment = models.IntegerField(null=True, unique=True, editable=False)
    building_segment = models.IntegerField(null=True, editable=False)
    m = models.PositiveSmallIntegerField(
        default=16,
        validators=_between(2, 100),
        help_text="Links of each text in the graph: 2 to 100. More find better, and take more "
        "memory.",
    )
    ef_construction = models.PositiveSmallIntegerField(
        default=64,
        validators=_between(4, 1000),
        help_text="Candidates while building: 4 to 1000, at least twice m. More find better, and "
        "take longer to build.",
    )
    ef_search = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=_between(10, 1000),
        help_text="Candidates of a search: 10 to 1000. Empty: the fewest that reach the target "
        "recall.",
    )
    target_recall = models.FloatField(
        default=0.98,
        validators=_between(0.5, 0.999),
        help_text="The recall@10 that searches should reach: 0.5 to 0.999.",
    )
    search_language = models.CharField(  # noqa: DJ001 – null is no language, "" is none either
        max_length=20,
        null=True,
        blank=True,
        choices=[(each, each) for each in LANGUAGES],
        help_text="What its texts are written in, for searching by words. Empty: words as they "
        "are, without an index.",
    )
    built_m = models.PositiveSmallIntegerField(null=True, editable=False)
    built_ef_construction = models.PositiveSmallIntegerField(null=True, editable=False)
    built_dimensions = models.PositiveSmallIntegerField(null=True, editable=False)
    measured_ef_search = models.PositiveSmallIntegerField(null=True, editable=False)
    measured_recall = models.FloatField(null=True, editable=False)
    phase = models.CharField(max_length=20, blank=True, default="", editable=False)
    last_error = models.TextField(blank=True, default="", editable=False)
    rebuild_requested = models.BooleanField(default=False, editable=False)
    built_at = models.DateTimeField(null=True, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "search index"
        verbose_name_plural = "search indexes"

    def __str__(self) -> str:
        return f"Index of {self.project}"


class RetiredSegment(models.Model):
    """An emptied segment whose table is dropped once nobody can name it any more."""

    segment = models.IntegerField(primary_key=True)
    retired_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return str(self.segment)


class JobState(models.TextChoices):
    """How far an embedding job is.

    Finished: every text was dealt with, though some may have failed. Failed: it cannot go on.
    """

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @classmethod
    def active(cls) -> "list[JobState]":
        """Return the states of jobs that are still to do something."""
        return [cls.WAITING, cls.RUNNING]


class EmbeddingJob(models.Model):
    """Texts that are embedded and stored in a project in the background.

    user: whose rights it has; by_admin_key: that it has those of the configured admin key instead.
    tokens: those that the provider counted; null where it does not say.
    failures: how often in a row the provider failed. seconds_per_text: of the last pieces.
    error: why it stopped, or what it waits for. warnings: what is odd about the vectors.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="embedding_jobs")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    by_admin_key = models.BooleanField(default=False)
    state = models.CharField(max_length=10, choices=JobState.choices, default=JobState.WAITING)
    total = models.PositiveIntegerField(default=0)
    done = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    tokens = models.PositiveBigIntegerField(null=True, default=0)
    failures = models.PositiveSmallIntegerField(default=0)
    seconds_per_text = models.FloatField(null=True)
    error = models.TextField(blank=True, default="")
    # The database's, too: a server of the former release may still add jobs.
    warnings = models.JSONField(blank=True, default=list, db_default=[])
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def is_active(self) -> bool:
        """Whether it is still to do something."""
        return self.state in JobState.active()

    @property
    def waiting(self) -> int:
        """How many texts are neither stored nor failed."""
        return self.total - self.done - self.failed


class EmbeddingJobItem(models.Model):
    """A text that an embedding job has not stored: it waits, or failed. Those stored are deleted.

    metadata: JSON text of an object; null where none was given.
    vector: float32, little-endian; null where it is to be made of the text.
    error: why it failed; "" for one that waits.
    """

    job = models.ForeignKey(EmbeddingJob, on_delete=models.CASCADE, related_name="items")
    # Which it was in the request, from 0.
    number = models.PositiveIntegerField()
    text_id = models.CharField(max_length=MAXIMUM_TEXT_ID_LENGTH, db_collation="C")
    text = models.TextField()
    metadata = models.TextField(null=True)  # noqa: DJ001 - none is something else than an empty one
    vector = models.BinaryField(null=True)
    error = models.TextField(blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["job", "text_id"], name="embedding_job_text_once"),
            models.UniqueConstraint(fields=["job", "number"], name="embedding_job_number_once"),
        ]

    def __str__(self) -> str:
        return self.text_id


class ProjectModel(models.Model):
    """That embeddings of a project were made by a model; they may be gone by now."""

    # The database has it, as for indexes.
    project = models.ForeignKey(
        Project, on_delete=models.DO_NOTHING, related_name="models_used", db_constraint=False
    )
    model = models.ForeignKey(EmbeddingModel, on_delete=models.PROTECT, related_name="+")
    first_used_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "model"], name="project_model_once"),
        ]

    def __str__(self) -> str:
        return f"{self.model} in {self.project}"


class ReembeddingState(models.TextChoices):
    """How far a project's re-embedding is.

    Filling: texts are embedded aside. Paused: by its owner. Failed: until somebody resumes it.
    Ready: it can be switched. Switching, rolling back: about to. Switched: the project has the new
    vectors, and the old ones are kept aside.
    """

    FILLING = "filling"
    PAUSED = "paused"
    FAILED = "failed"
    READY = "ready"
    SWITCHING = "switching"
    SWITCHED = "switched"
    ROLLING_BACK = "rolling_back"


class Reembedding(models.Model):
    """A second set of vectors of a project's texts, by another instance, kept aside.

    instance: the one of the set aside: the new one before the switch, the former one after it.
    generation: the number of the set in `embeddings_vectoraside`.
    building_segment: the sealed segment that is being built of the set.
    tokens: those that the provider counted, None where it did not say.
    """

    project = models.OneToOneField(
        Project,
        on_delete=models.DO_NOTHING,
        primary_key=True,
        related_name="reembedding",
        # The database has it, and deletes the row with its project (migration 0006).
        db_constraint=False,
    )
    instance = models.ForeignKey(Instance, on_delete=models.CASCADE, related_name="+")
    model = models.ForeignKey(EmbeddingModel, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(
        max_length=20, choices=ReembeddingState.choices, default=ReembeddingState.FILLING
    )
    generation = models.PositiveIntegerField(default=1, editable=False)
    building_segment = models.IntegerField(null=True, editable=False)
    embedded = models.PositiveIntegerField(default=0, editable=False)
    tokens = models.BigIntegerField(null=True, default=0, editable=False)
    last_error = models.TextField(blank=True, default="", editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    switched_at = models.DateTimeField(null=True, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"Re-embedding of {self.project}"


class ProjectionMethod(models.TextChoices):
    """How vectors are laid out in a plane.

    PCA: along the two directions in which they differ most. UMAP: so that neighbours stay together.
    """

    PCA = "pca", "PCA"
    UMAP = "umap", "UMAP"


class ProjectionState(models.TextChoices):
    """Whether a projection is being made; what was made before is shown meanwhile."""

    WAITING = "waiting"
    RUNNING = "running"
    READY = "ready"
    FAILED = "failed"


class Projection(models.Model):
    """A project's vectors laid out in a plane, kept so that its map opens at once.

    progress: of the one that is being made, from 0 to 1. error: why it could not be made.
    number: grows with each that was made; 0 before the first. What follows is of that one.
    rows: how many embeddings the project had. count: how many of them are in it.
    fingerprint: of the data, null where there were too many to look at again. instance_id: the
    project's instance.
    explained: which share of the vectors' variance either axis shows; null for UMAP.
    text_ids: a list in JSON, compressed by zstd, in the order of the ids.
    points: float32, little-endian, two for each of the ids.
    """

    # The database has it, and deletes the row with its project (migration 0007).
    project = models.ForeignKey(
        Project, on_delete=models.DO_NOTHING, related_name="projections", db_constraint=False
    )
    method = models.CharField(max_length=10, choices=ProjectionMethod.choices)
    state = models.CharField(
        max_length=10, choices=ProjectionState.choices, default=ProjectionState.WAITING
    )
    progress = models.FloatField(default=0)
    error = models.TextField(blank=True, default="")
    number = models.PositiveIntegerField(default=0)
    rows = models.PositiveIntegerField(default=0)
    count = models.PositiveIntegerField(default=0)
    fingerprint = models.BigIntegerField(null=True)
    instance_id = models.BigIntegerField(null=True)
    explained_x = models.FloatField(null=True)
    explained_y = models.FloatField(null=True)
    text_ids = models.BinaryField(default=bytes)
    points = models.BinaryField(default=bytes)
    made_at = models.DateTimeField(null=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "method"], name="projection_once"),
        ]

    def __str__(self) -> str:
        return f"{self.get_method_display()} of {self.project}"

    @property
    def is_active(self) -> bool:
        """Whether another one is being made."""
        return self.state in {ProjectionState.WAITING, ProjectionState.RUNNING}


class ImportState(models.TextChoices):
    """How far the import of a file is.

    Draft: nobody has said yet what its columns are for. Finished: every row was dealt with, though
    some may have been rejected. Failed: it stopped before the end.
    """

    DRAFT = "draft"
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @classmethod
    def active(cls) -> "list[ImportState]":
        """Return the states of imports that a worker is to do something about."""
        return [cls.WAITING, cls.RUNNING]


class ImportJob(models.Model):
    """A file whose rows are stored in a project in the background.

    user: who brought it, and whose rights it has.
    name: as the file was called, for people. file: where its bytes are kept; "" once they are gone.
    columns: what its first rows show of them; uses: what each is for, once that has been said.
    chunk_rows: how many rows a batch has. chunks: how many batches of the file are done with.
    rows, stored …: what became of them.
    fraction: how much of the file has been read. failures: how often in a row a provider failed.
    error: why it stopped, or what it waits for. warnings: what is odd about the vectors.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="import_jobs")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    name = models.CharField(max_length=255)
    file = models.CharField(max_length=64, blank=True, default="", editable=False)
    size = models.PositiveBigIntegerField()
    format = models.CharField(max_length=10)
    columns = models.JSONField(default=list, editable=False)
    uses = models.JSONField(default=dict, editable=False)
    replacing = models.BooleanField(default=False)
    state = models.CharField(max_length=10, choices=ImportState.choices, default=ImportState.DRAFT)
    chunk_rows = models.PositiveIntegerField(default=1, editable=False)
    chunks = models.PositiveIntegerField(default=0, editable=False)
    rows = models.PositiveIntegerField(default=0)
    stored = models.PositiveIntegerField(default=0)
    replaced = models.PositiveIntegerField(default=0)
    skipped = models.PositiveIntegerField(default=0)
    rejected = models.PositiveIntegerField(default=0)
    fraction = models.FloatField(null=True)
    failures = models.PositiveSmallIntegerField(default=0)
    error = models.TextField(blank=True, default="")
    warnings = models.JSONField(blank=True, default=list, db_default=[])
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name

    @property
    def is_active(self) -> bool:
        """Whether it is still to do something."""
        return self.state in ImportState.active()

    @property
    def is_draft(self) -> bool:
        """Whether somebody has to say what its columns are for."""
        return self.state == ImportState.DRAFT


class ImportProblem(models.Model):
    """A row of an imported file that could not be stored.

    row: its number in the file, as spreadsheets and editors count.
    """

    job = models.ForeignKey(ImportJob, on_delete=models.CASCADE, related_name="problems")
    row = models.PositiveIntegerField()
    text_id = models.TextField(blank=True, default="")
    reason = models.TextField()

    class Meta:
        ordering = ["job", "row"]
        constraints = [
            models.UniqueConstraint(fields=["job", "row"], name="import_problem_row_once"),
        ]

    def __str__(self) -> str:
        return f"{self.row}: {self.reason}"

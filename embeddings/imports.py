"""Fills projects from files: in chunks that can be run again, or all or nothing."""

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from django.db import transaction

from accounts.policy import Actor, Level
from common.database import retry_conflicts
from common.errors import Conflict, NotFound
from embeddings import texts
from embeddings.batches import Batch, Expected
from embeddings.files import Rejected, Rows, Unreadable
from embeddings.services import import_batch, known_ids
from projects.models import Project
from projects.selectors import project_for
from projects.services import create_project

MAXIMUM_ATOMIC_ROWS = 100_000

Reader = Callable[[Expected], Generator[Rows, None, None]]


@dataclass
class Outcome:
    """What became of the rows of a file so far; the numbers add up to `rows`.

    fraction: how much of the file has been read, where that can be told.
    stopped: why the rest of the file was left out, or why nothing was stored; "" for neither.
    failed: whether that was something else than rejected rows, such as a damaged file.
    warnings: what is odd about the vectors, each sentence once.
    """

    rows: int = 0
    stored: int = 0
    replaced: int = 0
    skipped: int = 0
    rejected: int = 0
    fraction: float | None = None
    stopped: str = ""
    failed: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    """How far an earlier run of the same import came.

    chunks: how many batches of the file are done with; outcome: what became of them.
    keep: is told of each further batch, what became of all so far and which of its rows were
    rejected, inside the transaction that stores it: what it raises undoes that.
    """

    chunks: int
    outcome: Outcome
    keep: Callable[[Outcome, list[Rejected]], object]


class _Undo(Exception):
    """Rolls the transaction back."""


def project_to_fill(
    actor: Actor, *, owner: str, handle: str, create: Mapping[str, Any] | None = None
) -> tuple[Project, bool]:
    """Return the project if the actor may fill it, and whether it was made for that.

    create: the fields of the API for a project that does not exist yet; an instance named there
    must be that of one that does. Raises as `project_for` and `create_project`; Conflict for
    another instance.
    """
    try:
        project = project_for(actor, Level.EDITOR, owner=owner, handle=handle)
    except NotFound:
        if create is None:
            raise
        return create_project(actor=actor, owner=owner, handle=handle, values=create), True
    instance = project.instance
    named = None if create is None else (create["instance_owner"], create["instance_handle"])
    if named is not None and named != (instance.owner.handle, instance.handle):
        raise Conflict(
            f"Project '{project}' exists on the instance '{instance}', not on "
            f"'{named[0]}/{named[1]}'."
        )
    return project, False


def import_rows(
    project: Project,
    read: Reader,
    *,
    replacing: bool = False,
    atomic: bool = False,
    max_rejected: int | None = None,
    on_rejected: Callable[[Rejected], object] = lambda row: None,
    on_progress: Callable[[Outcome], object] = lambda outcome: None,
    checkpoint: Checkpoint | None = None,
) -> Outcome:
    """Store the rows of a file; each of its batches is committed by itself.

    Rows whose id is stored already are skipped, or replaced on demand, so that a second run
    completes an interrupted one. Texts without a vector are embedded. What cannot be stored is told
    row by row; an id counts once, where it occurs first.

    atomic: store nothing unless every row can be; up to MAXIMUM_ATOMIC_ROWS.
    max_rejected: stop when more rows than that were rejected.
    checkpoint: where to go on, and how to remember it.
    Raises as `import_batch`, and as `embed_documents`.
    """
    filling = _Filling(project, replacing, max_rejected, on_rejected, on_progress, checkpoint)
    if not atomic:
        return filling.run(read)
    try:
        with transaction.atomic():
            outcome = filling.run(read, maximum=MAXIMUM_ATOMIC_ROWS)
            if outcome.rejected or outcome.stopped:
                raise _Undo
    except _Undo:
        outcome.stored = outcome.replaced = 0
        outcome.stopped = outcome.stopped or "Some rows were rejected."
    return outcome


class _Filling:
    """One import under way."""

    def __init__(
        self,
        project: Project,
        replacing: bool,
        max_rejected: int | None,
        on_rejected: Callable[[Rejected], object],
        on_progress: Callable[[Outcome], object],
        checkpoint: Checkpoint | None,
    ) -> None:
        self._project, self._replacing, self._max_rejected = project, replacing, max_rejected
        self._on_rejected, self._on_progress = on_rejected, on_progress
        self._seen = _Seen()
        self._done = 0 if checkpoint is None else checkpoint.chunks
        self._keep = (lambda outcome, rejected: None) if checkpoint is None else checkpoint.keep
        self.outcome = Outcome() if checkpoint is None else replace(checkpoint.outcome)

    def run(self, read: Reader, *, maximum: int | None = None) -> Outcome:
        instance = self._project.instance
        expected = Expected(instance.owner.handle, instance.handle, instance.dimensions)
        chunks = read(expected)
        try:
            for number, rows in enumerate(chunks):
                if number < self._done:
                    # Stored already; an id that occurs once more is still told.
                    self._seen.split(rows.batch.text_ids)
                    continue
                if maximum is not None and rows.batch.to_embed:
                    self.outcome.stopped = (
                        "All or nothing is possible only where every row has a vector: texts are "
                        "embedded and stored batch by batch."
                    )
                    self.outcome.failed = True
                    break
                self._store(rows)
                self._on_progress(replace(self.outcome))
                if maximum is not None and self.outcome.rows > maximum:
                    self.outcome.stopped = f"All or nothing is possible up to {maximum} rows."
                    self.outcome.failed = True
                    break
                if self._max_rejected is not None and self.outcome.rejected > self._max_rejected:
                    self.outcome.stopped = f"More than {self._max_rejected} rows were rejected."
                    break
        except Unreadable as error:
            self.outcome.stopped, self.outcome.failed = error.detail, True
        finally:
            chunks.close()
        return self.outcome

    def _store(self, rows: Rows) -> None:
        batch, numbers = rows.batch, rows.numbers
        first, repeated = self._seen.split(batch.text_ids)
        rejected = list(rows.rejected)
        rejected += [
            Rejected(numbers[row], batch.text_ids[row], "text_id occurs earlier in the file.")
            for row in repeated
        ]
        batch = batch.part(first)
        skipped = 0
        if batch.to_embed:
            batch, first, refused, skipped = self._embedded(batch, first)
            rejected += [
                Rejected(numbers[row], rows.batch.text_ids[row], reason)
                for row, reason in refused.items()
            ]
        places = [numbers[row] for row in first]
        self.outcome, rejected = self._kept(rows, batch, places, skipped, rejected)
        for each in rejected:
            self._on_rejected(each)

    @retry_conflicts
    def _kept(
        self,
        rows: Rows,
        batch: Batch,
        places: list[int],
        skipped: int,
        rejected: list[Rejected],
    ) -> tuple[Outcome, list[Rejected]]:
        """Store a batch; return what became of all so far, and the rejected rows of the batch.

        places: of the rows in the file. skipped, rejected: what is known of others already.
        """
        with transaction.atomic():
            done = import_batch(self._project, batch, replace=self._replacing)
            refused = [
                Rejected(places[row], batch.text_ids[row], reason)
                for row, reason in done.refused.items()
            ]
            rejected = sorted([*rejected, *refused], key=lambda each: each.row)
            so_far = self.outcome
            outcome = replace(
                so_far,
                rows=so_far.rows + len(rows.numbers) + len(rows.rejected),
                stored=so_far.stored + done.stored,
                replaced=so_far.replaced + done.replaced,
                skipped=so_far.skipped + skipped + len(done.known),
                rejected=so_far.rejected + len(rejected),
                fraction=rows.fraction,
                warnings=list(dict.fromkeys([*so_far.warnings, *done.warnings])),
            )
            self._keep(outcome, rejected)
        return outcome, rejected

    def _embedded(
        self, batch: Batch, places: list[int]
    ) -> tuple[Batch, list[int], dict[int, str], int]:
        """Return the rows that have a vector now, their places, and why others have none.

        Texts whose id is stored already are not embedded; at last comes how many those were.
        """
        skipped = 0
        if not self._replacing:
            known = known_ids(self._project, batch.text_ids)
            new = [row for row, text_id in enumerate(batch.text_ids) if text_id not in known]
            skipped = len(batch) - len(new)
            batch, places = batch.part(new), [places[row] for row in new]
        made = texts.embedded_one_by_one(self._project.instance, batch)
        refused = {places[row]: reason for row, reason in made.refused.items()}
        return made.batch, [places[row] for row in made.rows], refused, skipped


class _Seen:
    """Remembers the ids of a file in 8 bytes each.

    The hashes are seeded anew in each process, so that a row which is taken for a repetition by
    mistake (once in 300 000 files of ten million rows) is stored by the next run.
    """

    def __init__(self) -> None:
        # Sorted, and each at least twice as long as the next.
        self._runs: list[npt.NDArray[np.int64]] = []

    def split(self, text_ids: Iterable[str]) -> tuple[list[int], list[int]]:
        """Return which of these are new, and which occurred before or among themselves."""
        hashes = np.fromiter((hash(each) for each in text_ids), dtype=np.int64)
        known = np.zeros(len(hashes), dtype=bool)
        for run in self._runs:
            found = np.searchsorted(run, hashes)
            known |= run[np.minimum(found, len(run) - 1)] == hashes
        _, first = np.unique(hashes, return_index=True)
        again = np.ones(len(hashes), dtype=bool)
        again[first] = False
        known |= again
        self._add(np.sort(hashes[~known]))
        return np.flatnonzero(~known).tolist(), np.flatnonzero(known).tolist()

    def _add(self, run: npt.NDArray[np.int64]) -> None:
        if not len(run):
            return
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]))
        self._runs.append(run)

"""Writes whole projects into files."""

import gzip
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from accounts.policy import Actor, Level
from common.appearing import appearing
from embeddings import files
from embeddings.selectors import about, snapshot_of
from projects.selectors import count_embeddings, project_for


def export_project(
    *,
    actor: Actor,
    owner: str,
    handle: str,
    target: Path | BinaryIO,
    file_format: str,
    batch_size: int,
    on_progress: Callable[[int, float | None], object],
) -> int:
    """Write all embeddings of a project, as they are at one moment; return how many there were.

    target: a path, where the file appears when it is complete, or an open stream.
    Raises as `project_for`, and Invalid where the file cannot be written.
    """
    project = project_for(actor, Level.READER, owner=owner, handle=handle)
    count_embeddings(project)
    total: int = project.number_of_embeddings  # type: ignore[attr-defined]
    with _opened(target) as stream:
        writer = files.writer(file_format, stream, about(project))
        count = 0
        with closing(snapshot_of(project, size=batch_size)) as snapshot:
            for rows in snapshot:
                writer.write(rows)
                count += len(rows)
                on_progress(count, min(1.0, count / total) if total else None)
        writer.close()
    return count


@contextmanager
def _opened(target: Path | BinaryIO) -> Iterator[BinaryIO]:
    if not isinstance(target, Path):
        yield target
        target.flush()
        return
    with appearing(target) as file:
        if target.suffix == ".gz":
            with gzip.GzipFile(fileobj=file, mode="wb", filename="", compresslevel=6) as packed:
                yield cast("BinaryIO", packed)
        else:
            yield file

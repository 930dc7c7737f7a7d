"""UMAP in a process of its own.

Its compiled loops hold the interpreter for minutes: in the worker, nobody would hear of it any
more, and other jobs would stand still. Its memory goes with the process, too.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from embeddings.projections._axes import Matrix

_CHILD = Path(__file__).parent / "_umap_child.py"
_LONGEST_REASON = 300


class Failed(Exception):
    """UMAP ended with an error."""


def has_umap() -> bool:
    """Say whether UMAP is installed on this server."""
    return find_spec("umap") is not None


def neighbourly(vectors: Matrix, on_progress: Callable[[float], object]) -> Matrix:
    """Lay vectors out so that neighbours stay together: float32 of shape (n, 2).

    on_progress: told the share that is done, from 0 to 1; what it raises ends the process.
    Raises Failed.
    """
    with tempfile.TemporaryDirectory(prefix="armarium-umap-") as folder:
        source, target, errors = (Path(folder) / name for name in ("in.npy", "out.npy", "errors"))
        np.save(source, vectors)
        with errors.open("wb") as written:
            child = subprocess.Popen(  # noqa: S603
                [sys.executable, "-W", "ignore", str(_CHILD), str(source), str(target)],
                # It ends when this process does, whose end of the pipe is closed then.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=written,
                text=True,
            )
        try:
            assert child.stdout is not None  # noqa: S101
            for line in child.stdout:
                on_progress(float(line))
        except BaseException:
            child.kill()
            raise
        finally:
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
        if child.returncode != 0:
            lines = errors.read_text(errors="replace").strip().splitlines()
            reason = lines[-1][:_LONGEST_REASON] if lines else f"exit code {child.returncode}"
            raise Failed(reason)
        points: Matrix = np.load(target, allow_pickle=False)
        return points

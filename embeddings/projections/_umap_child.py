"""Lays vectors out with UMAP.

    python _umap_child.py SOURCE TARGET

reads and writes arrays as numpy saves them. What is done is told on standard output, a number from
0 to 1 a line. It ends at once when its standard input is closed.
"""

import os
import sys
import threading
from typing import Any

_NEIGHBOURS = 15
# Finding the neighbours tells nothing while it lasts.
_AFTER_NEIGHBOURS = 0.4
_NICENESS = 10


class _Bar:
    """Takes what a progress bar draws: the share that is done, in percent."""

    def write(self, text: str) -> None:
        word = text.strip()
        if word:
            share = _AFTER_NEIGHBOURS + (1 - _AFTER_NEIGHBOURS) * float(word) / 100
            print(f"{share:.3f}", flush=True)  # noqa: T201

    def flush(self) -> None:
        """Nothing is held back."""


def _end_with_parent() -> None:
    # Not through a buffer, whose lock the interpreter would miss at its end.
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _main(source: str, target: str) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(_NICENESS)
    # Here, because it takes seconds and the memory of its compiler.
    import numpy as np
    from umap import UMAP

    vectors = np.load(source, allow_pickle=False)
    bar: dict[str, Any] = {
        "disable": False,
        "file": _Bar(),
        "bar_format": "{percentage:.2f}",
        "mininterval": 0.5,
    }
    # Seeded: the same vectors have the same map, which takes one thread.
    layout = UMAP(
        n_neighbors=min(_NEIGHBOURS, len(vectors) - 1),
        random_state=20,
        n_jobs=1,
        low_memory=True,
        tqdm_kwds=bar,
    )
    np.save(target, layout.fit_transform(vectors).astype("<f4"), allow_pickle=False)


if __name__ == "__main__":
    _main(*sys.argv[1:])

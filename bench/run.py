"""What a scenario gets: the servers, the data, the sizes and the report."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from bench import corpus
from bench.armarium import Armarium
from bench.chroma import Chroma
from bench.corpus import Corpus
from bench.load import Load
from bench.raw import Raw
from bench.report import Report
from bench.side import Side

WIDE = 1536
T = TypeVar("T")


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    rows, wide_rows: of the corpus as it is, and of the one with more dimensions.
    queries: of those that are held out.
    seconds: how long one search load takes.
    batches: uploads into an indexed project, a round.
    """

    rows: int = 100_000
    wide_rows: int = 50_000
    queries: int = 1_000
    rounds: int = 5
    seconds: float = 3.0
    batches: int = 10
    projects: int = 2_000
    large_projects: int = 10
    large_rows: int = 50_000
    trials: int = 1_000


QUICK = Sizes(
    rows=3_000,
    wide_rows=1_000,
    queries=200,
    rounds=2,
    seconds=0.2,
    batches=2,
    projects=40,
    large_projects=2,
    large_rows=2_000,
    trials=30,
)


@dataclass
class Data:
    """Loads each corpus once.

    folder: of the large corpus; None for the demo that comes with the program.
    """

    folder: Path | None
    sizes: Sizes

    @cached_property
    def narrow(self) -> Corpus:
        """Return the corpus as it is."""
        rows, count = self.sizes.rows, self.sizes.queries
        whole = corpus.wordnet(self.folder, rows) if self.folder else corpus.demo(rows)
        return replace(whole, queries=whole.queries[:count], truth=whole.truth[:count])

    @cached_property
    def wide(self) -> Corpus:
        """Return fewer rows of it, in more dimensions."""
        rows = min(self.sizes.wide_rows, len(self.narrow))
        fewer = self.narrow.slice(0, rows)
        if rows < len(self.narrow):
            fewer = corpus.with_truth(fewer)
        return fewer.lifted(WIDE)


@dataclass
class Bench:
    """One scenario's servers, fresh for it, and what it needs to know."""

    folder: Path
    sizes: Sizes
    data: Data
    report: Report
    ours: Armarium
    chroma: Chroma | None

    @property
    def raw(self) -> Raw:
        """Return raw SQL in our server's database."""
        return self.ours.raw

    @property
    def sides(self) -> list[Side]:
        """Return everything that is compared, ours first."""
        return [self.ours, self.raw, *([self.chroma] if self.chroma else [])]

    def rounds(self, measures: dict[str, Callable[[], T]]) -> dict[str, list[T]]:
        """Take each measure in turn, as often as there are rounds."""
        taken: dict[str, list[T]] = {name: [] for name in measures}
        for _ in range(self.sizes.rounds):
            for name, measure in measures.items():
                taken[name].append(measure())
        return taken

    def latencies(
        self,
        what: str,
        loads: dict[str, list[Load]],
        percents: tuple[int, ...],
        *,
        recalls: dict[str, float | None] | None = None,
    ) -> None:
        """Report percentiles of the sides' loads."""
        for percent in percents:
            self.figure(
                f"{what}, p{percent} ms ↓",
                {
                    name: [load.percentile_ms(percent) for load in each]
                    for name, each in loads.items()
                },
                recalls=recalls,
                steady=percent == 50,
            )

    def figure(
        self,
        what: str,
        values: dict[str, list[float]],
        *,
        recalls: dict[str, float | None] | None = None,
        steady: bool = True,
    ) -> None:
        """Report figures by the names of the sides."""
        names = (Armarium.name, Raw.name, Chroma.name)
        self.report.figure(
            what,
            *(values.get(name, []) for name in names),
            recalls=[recalls.get(name) for name in names] if recalls else [],
            steady=steady,
        )


@contextmanager
def servers(
    sizes: Sizes, data: Data, report: Report, chroma_program: Path | None
) -> Iterator[Bench]:
    """Run the servers of one scenario in a temporary folder."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="armarium-bench-")))
        ours = Armarium(folder)
        stack.callback(ours.close)
        chroma = None
        if chroma_program is not None:
            chroma = Chroma(chroma_program, folder)
            stack.callback(chroma.close)
            report.note(f"Chroma {chroma.version}, its own server with data on disk.")
        yield Bench(folder, sizes, data, report, ours, chroma)

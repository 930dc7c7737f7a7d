"""The table: medians of the rounds, ratios, and what a reader must know beside them."""

import os
import platform
import re
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

# Raw SQL does the same thing every round, so its rounds tell how calm the machine was.
CALM = 1.25
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
_COLUMNS = (
    "scenario",
    "figure",
    "Armarium",
    "raw SQL",
    "÷ raw",
    "Chroma",
    "÷ Chroma",
    "recall@10: Armarium / raw / Chroma",
)
_NOTHING = "–"


@dataclass
class Report:
    """Collects rows and prints each as soon as it is known."""

    rows: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    scenario: str = ""
    failed: bool = False

    def begin(self) -> None:
        """Print the head of the table."""
        for line in _head():
            print(line, flush=True)

    def figure(
        self,
        what: str,
        ours: Sequence[float],
        raw: Sequence[float] = (),
        chroma: Sequence[float] = (),
        *,
        recalls: Sequence[float | None] = (),
        steady: bool = True,
    ) -> None:
        """Add a row.

        Each side's figures are those of its rounds; none means that it was not measured.
        recalls: of ours, raw SQL and Chroma.
        steady: whether the rounds of raw SQL should be much alike; those of a tail or a ratio vary.
        """
        our = statistics.median(ours) if ours else None
        cells = [self.scenario, what, _number(our)]
        for theirs in (raw, chroma):
            their = statistics.median(theirs) if theirs else None
            cells += [_number(their), _ratio(our, their)]
        cells.append(" / ".join(_share(each) for each in recalls) if recalls else _NOTHING)
        self._add(cells)
        if steady and len(raw) > 1 and min(raw) > 0 and max(raw) / min(raw) > CALM:
            self.warn(
                f"{what}: raw SQL's rounds differ by {max(raw) / min(raw):.2f} times; run it again"
                " on a calm machine"
            )

    def text(self, what: str, words: str) -> None:
        """Add a row that holds words instead of figures."""
        self._add([self.scenario, what, words, *[_NOTHING] * (len(_COLUMNS) - 3)])

    def failure(self, error: Exception) -> None:
        """Add a row that says why a scenario ended early."""
        self.failed = True
        words = " ".join(str(error).split()) or type(error).__name__
        self.text("not measured", f"**{type(error).__name__}**: {words[-300:]}".replace("|", "/"))

    def note(self, sentence: str) -> None:
        """Say something below the table, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def warn(self, sentence: str) -> None:
        """Warn below the table."""
        self.warnings.append(f"{self.scenario}: {sentence}")

    def end(self) -> None:
        """Print what stands below the table."""
        print("\n".join(self._foot()), flush=True)

    def update(self, document: Path) -> None:
        """Put the table between the two markers of a document."""
        text = document.read_text(encoding="utf-8")
        table = "\n".join([*_head(), *self.rows, *self._foot()])
        pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{document} has no lines {BEGIN} and {END}.")
        block = f"{BEGIN}\n\n{table}\n\n{END}"
        document.write_text(pattern.sub(lambda _: block, text), encoding="utf-8")

    def _add(self, cells: Sequence[str]) -> None:
        self.rows.append(f"| {' | '.join(cells)} |")
        print(self.rows[-1], flush=True)

    def _foot(self) -> list[str]:
        lines = ["", *(f"- {note}" for note in self.notes)]
        lines += [f"- ⚠ {warning}." for warning in self.warnings]
        return lines


def machine() -> str:
    """Return a sentence on where and when the figures were taken."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit or 'unknown'}, {os.cpu_count()} cores,"
        f" {memory:.0f} GiB, {platform.system()} {platform.machine()},"
        f" Python {platform.python_version()}"
    )


def _head() -> list[str]:
    return [f"| {' | '.join(_COLUMNS)} |", "|---|---|" + "--:|" * (len(_COLUMNS) - 2)]


def _number(value: float | None) -> str:
    if value is None:
        return _NOTHING
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _ratio(our: float | None, their: float | None) -> str:
    return f"{our / their:.2f}" if our is not None and their else _NOTHING


def _share(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.3f}"

"""The benchmark runs, and its table holds what it should."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--quick", "--rows", "600", "--wide-rows", "200", "--rounds", "1", "--seconds", "0.1")


def run_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it on the demo's vectors, which are always there, beside raw SQL alone."""
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments, "--corpus", "demo", "--no-chroma"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.slow
def test_ingest_and_search_fill_the_table_of_a_document(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text("# Before\n<!-- bench: begin -->\noutdated\n<!-- bench: end -->\nAfter\n")

    run = run_bench("ingest", "search", *SMALL, "--update", str(document))

    assert run.returncode == 0, run.stdout + run.stderr
    text = document.read_text()
    assert text.startswith("# Before\n")
    assert text.endswith("After\n")
    assert "outdated" not in text
    table = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    rows = {cells[1]: cells for cells in table}
    upload = rows["600 x 512, JSON, acknowledged rows/s ↑"]
    assert all(float(cell.replace(",", "")) > 0 for cell in upload[2:5])
    search = rows["600 x 512, 8 clients, searches/s ↑"]
    assert search[-1].startswith("1.000 / "), "600 rows are searched exactly"


def test_an_unknown_scenario_is_named() -> None:
    run = run_bench("serach")

    assert run.returncode == 1
    assert "There is no scenario serach; there are ingest, search" in run.stderr

"""A pytest plugin that ties tests to the promises they show; also a command that checks the ties.

`tests/promises.toml` lists both. A test that shows D1 has a mark of that name: `pytest -k D1` and
`pytest -m D1` find it. With `--promises FILE` a run writes what each promise came to, as Markdown.

    python -m tests.promises        what is missing; exits with 1 if anything is
"""

import ast
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

_TESTS = Path(__file__).parent
_LIST = _TESTS / "promises.toml"
# Without these nothing lands, and nothing is released.
_NEEDED = ("P0", "P1")


@dataclass(frozen=True)
class Promise:
    """One promise.

    id: such as D1. priority: P0, P1 or P2. tests: modules or functions, relative to tests/.
    """

    id: str
    priority: str
    text: str
    tests: tuple[str, ...]


def promises() -> list[Promise]:
    """Return all of them, in the order of the list."""
    listed = tomllib.loads(_LIST.read_text(encoding="utf-8"))
    return [
        Promise(id, each["priority"], each["promise"], tuple(each["tests"]))
        for id, each in listed.items()
    ]


def problems() -> Iterator[str]:
    """Return what is wrong with the ties: no test for what needs one, or one that is not there."""
    for promise in promises():
        if not promise.tests and promise.priority in _NEEDED:
            yield f"{promise.id} ({promise.priority}) is shown by no test: {promise.text}"
        for name in promise.tests:
            path, _, function = name.partition("::")
            if not (_TESTS / path).is_file():
                yield f"{promise.id} names {path}, which is not there."
            elif function and function not in _functions(_TESTS / path):
                yield f"{promise.id} names {function}, which is not in {path}."


def _functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)}


# --- The plugin -----------------------------------------------------------------------------------
def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--promises`."""
    parser.addoption(
        "--promises", metavar="FILE", help="write what each promise came to into this file"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register a mark for each promise; count only where the results come together."""
    for promise in promises():
        config.addinivalue_line("markers", f"{promise.id}: {promise.text}")
    file = config.getoption("--promises")
    if file and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Writer(Path(file)), "promises-writer")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test with the promises that it shows."""
    try:
        path = item.path.relative_to(_TESTS).as_posix()
    except ValueError:
        return
    name = f"{path}::{getattr(item, 'originalname', item.name)}"
    for id in _shown_by().get(path, []) + _shown_by().get(name, []):
        item.add_marker(id)


_ties: dict[str, list[str]] = {}


def _shown_by() -> dict[str, list[str]]:
    if not _ties:
        found = defaultdict(list)
        for promise in promises():
            for name in promise.tests:
                found[name].append(promise.id)
        _ties.update(found)
    return _ties


class _Writer:
    """Counts outcomes by promise, and writes them when the run ends."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._listed = promises()
        self._ids = {promise.id for promise in self._listed}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test once: what it came to, or that it could not begin or end."""
        if report.when == "call" or report.outcome != "passed":
            for id in self._ids.intersection(report.keywords):
                self._counts[id][report.outcome] += 1

    def pytest_sessionfinish(self) -> None:
        """Write the page."""
        rows = [
            f"| {each.id} | {each.priority} | {each.text} | {_names(each)} | {self._result(each)} |"
            for each in self._listed
        ]
        day = datetime.now(UTC).date().isoformat()
        self._file.write_text("\n".join([_HEAD.format(day=day), *rows, ""]), encoding="utf-8")

    def _result(self, promise: Promise) -> str:
        counts = self._counts[promise.id]
        if not counts:
            return "not shown yet" if not promise.tests else "not run"
        said = [f"{counts[outcome]} {outcome}" for outcome in _OUTCOMES if counts[outcome]]
        return ", ".join(said)


_OUTCOMES = ("passed", "failed", "skipped")
_HEAD = """# What Armarium promises, and what shows it

Written by `make promises`, last on {day}; not to be edited. P0 holds at every landing, P1 at every
release, P2 is wanted. `pytest -k D1` runs what shows D1. The list is `tests/promises.toml`.

| Id | Priority | Promise | Shown by | Last result |
| --- | --- | --- | --- | --- |"""


def _names(promise: Promise) -> str:
    return "<br>".join(f"`{name}`" for name in promise.tests) or "–"


if __name__ == "__main__":
    found = list(problems())
    sys.stdout.write("".join(f"{each}\n" for each in found))
    sys.exit(1 if found else 0)

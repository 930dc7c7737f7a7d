"""Looks for known weaknesses in what the program requires; a part of `make check`.

    python -m tests.weaknesses      exits with 1 where there are any

Without a way to the list of weaknesses it says so, and passes.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_REQUIREMENTS = Path(__file__).parents[1] / "requirements.txt"
_COMMAND = (
    *(sys.executable, "-m", "pip_audit", "--requirement", str(_REQUIREMENTS)),
    # What is pinned is all there is: nothing has to be resolved.
    *("--disable-pip", "--no-deps", "--timeout", "10", "--progress-spinner", "off"),
    *("--format", "json"),
)


def main() -> int:
    """Run pip-audit; return the exit code."""
    done = subprocess.run(_COMMAND, capture_output=True, text=True, check=False)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"pip-audit: skipped, {_last_line(done.stderr)}")  # noqa: T201
        return 0
    weak = [each for each in found if each.get("vulns")]
    for each in weak:
        names = ", ".join(weakness["id"] for weakness in each["vulns"])
        print(f"pip-audit: {each['name']} {each['version']} has {names}")  # noqa: T201
    unknown = sum("skip_reason" in each for each in found)
    if unknown:
        print(f"pip-audit: {unknown} of {len(found)} requirements could not be looked up.")  # noqa: T201
    return 1 if weak else 0


def _last_line(words: str) -> str:
    return (words.strip().splitlines() or ["it said nothing"])[-1]


if __name__ == "__main__":
    sys.exit(main())

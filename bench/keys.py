"""Runs `createkey` and `revokekey` for the bench without starting a Python for each.

There is no address of the API that makes or revokes a key, so the scenario that revokes keys keeps
one of these running: `python -m bench.keys` reads a command's arguments a line, as a JSON list, and
answers with what the command printed, as a JSON string.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from io import StringIO
from types import TracebackType
from typing import Any, Self

from bench.processes import ROOT, clean_environment


class Keys:
    """The process, from the side of the one who asks."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.keys"],
            cwd=ROOT,
            env=clean_environment(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def create(self, handle: str) -> str:
        """Make a key for an account."""
        return str(self._run("createkey", handle)["api_key"])

    def revoke(self, key: str) -> None:
        """Revoke it."""
        self._run("revokekey", key)

    def _run(self, *arguments: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([*arguments, "--json"]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{arguments[0]} failed; what it said is above.")
        return json.loads(json.loads(line))


def main() -> None:
    """Run commands until there are no more."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django
    from django.core.management import call_command

    django.setup()
    for line in sys.stdin:
        output = StringIO()
        call_command(*json.loads(line), stdout=output)
        print(json.dumps(output.getvalue()), flush=True)


if __name__ == "__main__":
    main()

"""The import rules of `pyproject.toml` hold."""

import subprocess
import sys
from pathlib import Path

from config.settings import BASE_DIR


def test_apps_and_layers_import_downwards_only() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [program, "--no-cache"], cwd=BASE_DIR, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

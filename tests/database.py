"""A pytest plugin that gives the run its own embedded PostgreSQL; see `addopts`.

It is loaded before Django's settings are, which read the data directory. The workers of xdist share
the server that the first process started; each has a database of its own in it.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from config.embedded_postgres import EmbeddedPostgres

_MARK = "ARMARIUM_TEST_DATA_DIR"
_is_first = _MARK not in os.environ
if _is_first:
    os.environ[_MARK] = tempfile.mkdtemp(prefix="armarium-tests-")
    # Tests decide about these themselves.
    for _name in ("ARMARIUM_ADMIN_KEY", "SERVICE_ADMINKEY", "ADMIN_KEY", "ARMARIUM_ALLOW_RESET"):
        os.environ.pop(_name, None)
_data_dir = Path(os.environ[_MARK])
os.environ["ARMARIUM_DATA_DIR"] = str(_data_dir)
if _url := os.environ.get("ARMARIUM_TEST_DATABASE_URL"):
    os.environ["DATABASE_URL"] = _url
else:
    os.environ.pop("DATABASE_URL", None)


# Kept for the whole run: it holds the lock that says the server is in use.
_server = EmbeddedPostgres(_data_dir) if _is_first and not _url else None


def pytest_configure(config: pytest.Config) -> None:
    """Start the server, once for all workers."""
    if _server is not None:
        _server.start()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop it and leave nothing behind."""
    if _server is not None:
        _server.stop()
    if _is_first:
        shutil.rmtree(_data_dir, ignore_errors=True)
        # What `tests.end_to_end.harness` copies.
        shutil.rmtree(_data_dir.with_name(f"{_data_dir.name}-migrated"), ignore_errors=True)

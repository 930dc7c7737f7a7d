"""A storage of its own for each test, so that what is left in it can be told."""

from pathlib import Path

import pytest
from pytest_django import Settings


@pytest.fixture(autouse=True)
def files_folder(tmp_path: Path, settings: Settings) -> Path:
    """Return the folder in which the storage keeps the bytes of files."""
    folder = tmp_path / "files"
    stored = settings.STORAGES["default"]
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {**stored, "OPTIONS": {**stored["OPTIONS"], "location": folder}},
    }
    return folder

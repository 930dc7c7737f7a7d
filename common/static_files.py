"""Static files that come with Python packages which are no Django apps."""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.contrib.staticfiles.finders import BaseFinder
from django.core.files.storage import FileSystemStorage

_PREFIX = "bokeh"
# Of its many others, pages use none.
_FILES = ("bokeh.min.js", "bokeh-api.min.js")


def _folder() -> Path:
    # Found without being imported, which takes half a second.
    found = find_spec("bokeh")
    if found is None or not found.submodule_search_locations:
        raise LookupError("The package bokeh is not installed.")
    return Path(found.submodule_search_locations[0]) / "server" / "static" / "js"


class BokehFinder(BaseFinder):
    """Finds BokehJS, which draws the maps of projects, in the installed package."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._storage = FileSystemStorage(location=_folder())
        # What `collectstatic` puts before the names.
        self._storage.prefix = _PREFIX  # type: ignore[attr-defined]

    def find(self, path: str, find_all: bool = False, **kwargs: Any) -> Any:
        """Return where a file of that address is, or nothing; with find_all, a list."""
        names = {f"{_PREFIX}/{name}": name for name in _FILES}
        found = [self._storage.path(names[path])] if path in names else []
        return found if find_all else next(iter(found), [])

    def list(self, ignore_patterns: Iterable[str] | None) -> Iterator[Any]:
        """Return the files, each with the storage that has it."""
        for name in _FILES:
            yield name, self._storage

"""A pytest plugin that decides which process of the run gets which tests, and when; see `addopts`.

Tests of one `xdist_group` go to one process, so that a server that they share is started once. The
schedule of `--dist loadgroup` relies on names that pytest 9.2 no longer lets it change, and so
would deal such tests out one by one; this one reads the marks where they are written.
"""

import re
from functools import cache
from typing import Any

import pytest

_GROUP = re.compile(r'xdist_group\("([^"]+)"\)')


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a module together that belongs to a group, and the modules of a group."""
    # Here, because a run in one process needs none.
    from xdist.scheduler import LoadScopeScheduling

    @cache
    def group_of(module: str) -> str | None:
        found = _GROUP.search((config.rootpath / module).read_text(encoding="utf-8"))
        return None if found is None else found[1]

    class ByGroup(LoadScopeScheduling):  # type: ignore[misc]
        """Gives each group to one process, and whatever is in none wherever there is time."""

        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.partition("::")[0]) or nodeid

    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that nobody waits for the last of it alone.

    Tests that commit empty the database behind them, so that those that do not go before them:
    what migrations put there is put back for the former only. Servers have databases of their own.
    """
    items.sort(key=_place)


def _place(item: pytest.Item) -> tuple[int, bool]:
    if "end_to_end" in item.path.parts:
        return 0, False
    return (2, not _is_slow(item)) if _commits(item) else (1, False)


def _commits(item: pytest.Item) -> bool:
    mark = item.get_closest_marker("django_db")
    if mark is not None and mark.kwargs.get("transaction"):
        return True
    return not _COMMITTING.isdisjoint(getattr(item, "fixturenames", ()))


_COMMITTING = {"transactional_db", "live_server", "django_db_reset_sequences"}


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None

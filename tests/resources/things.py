"""Agents, end users and files made for tests, and what the storage keeps of them."""

from pathlib import Path
from typing import Any

from accounts.policy import BOOTSTRAP_ADMIN
from resources import services
from resources.models import File
from tests.factories import stored

CONTENT = b"Dear Bob,\n\x00\xff"


def make(kind: Any, name: str = "Scribe", *, owner: str = "alice", **values: Any) -> Any:
    """Make one of a kind in an owner's project `letters`, or in another one."""
    given = {"name": name, "project": "letters", **values}
    whose: dict[str, Any] = {"actor": BOOTSTRAP_ADMIN, "owner": stored(owner), "values": given}
    if kind is File:
        return services.create_file(content=CONTENT, **whose)
    return services.create_resource(kind, **whose)


def kept(folder: Path) -> list[Path]:
    """Return the files in the storage."""
    return [each for each in folder.rglob("*") if each.is_file()]

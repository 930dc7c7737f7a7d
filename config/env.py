"""Reads the environment: the only module that does.

Every value may also come from a file named by ``<NAME>_FILE`` (container secrets) or from a
``.env`` file beside ``manage.py``. Where a setting has several names, the first one that is set
wins: our own comes first, names that an earlier installation may bring along follow.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from environs import EnvError, FileAwareEnv, validate

BASE_DIR = Path(__file__).resolve().parent.parent

_env = FileAwareEnv()
_env.read_env(BASE_DIR / ".env", recurse=False)
# What was asked for and is set: `given` tells. Values of these kinds are nobody's business.
_set: set[str] = set()
_SECRET = ("KEY", "SECRET", "PASSWORD", "TOKEN", "DATABASE_URL")


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (EnvError, ValueError) as error:
        raise ImproperlyConfigured(str(error)) from error


def _chosen(names: tuple[str, ...]) -> str:
    """Return the first name that is set and not empty, else the first name."""
    for name in names:
        if os.environ.get(name) or os.environ.get(f"{name}_FILE"):
            _set.add(name)
            return name
        # An empty value means "not set", as compose files and systemd units write it.
        os.environ.pop(name, None)
    return names[0]


def given() -> tuple[dict[str, str], list[str]]:
    """Return the settings that are set, with their values, and the names of those that are secret.

    One that comes from a file of its own (`<NAME>_FILE`) counts as secret.
    """
    secret = {
        name for name in _set if not os.environ.get(name) or any(each in name for each in _SECRET)
    }
    return {name: os.environ[name] for name in _set - secret}, sorted(secret)


def text(*names: str, default: str = "") -> str:
    """Return a string setting."""
    with _explained():
        return str(_env.str(_chosen(names), default)).strip()


def flag(*names: str, default: bool) -> bool:
    """Return a boolean setting."""
    with _explained():
        return bool(_env.bool(_chosen(names), default))


def number(*names: str, default: int, minimum: int = 0, maximum: int | None = None) -> int:
    """Return a whole number within the bounds."""
    with _explained():
        within = validate.Range(min=minimum, max=maximum)
        return int(_env.int(_chosen(names), default, validate=within))


def words(*names: str, default: str = "") -> list[str]:
    """Return a list written with commas or white space between its members."""
    return text(*names, default=default).replace(",", " ").split()


def path(*names: str, default: Path) -> Path:
    """Return an absolute path; a relative one counts from the working directory."""
    given = text(*names)
    return Path(given).expanduser().resolve() if given else default


def database(name: str = "DATABASE_URL") -> dict[str, Any] | None:
    """Return Django's settings for the database that the URL names, or None without one."""
    with _explained():
        return dict(_env.dj_db_url(name)) if text(name) else None


def generated_secret(*names: str, file: Path, length: int = 50) -> str:
    """Return a secret setting, made on first use and kept in a file only its owner may read.

    Two processes that start at the same moment agree on one value: the file is written aside and
    linked into place, which only one of them can do.
    """
    given = text(*names)
    if given:
        return given
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
        draft = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write("".join(secrets.choice(alphabet) for _ in range(length)))
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(draft, file)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return file.read_text(encoding="ascii").strip()

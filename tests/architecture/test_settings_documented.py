"""Every environment variable that is read is explained, and none that is not."""

import ast
import re
from collections.abc import Iterator

import pytest

from config.settings import BASE_DIR

_READERS = {"text", "flag", "number", "words", "path", "database", "generated_secret"}
_NAME = re.compile(
    r"\b(?:(?:ARMARIUM|SERVICE)_[A-Z_]*[A-Z]|DATABASE_URL|ADMIN_KEY|ENCRYPTION_KEY)\b"
)
# Read from the environment by other means than `config.env`.
_ELSEWHERE = {"DATABASE_URL", "ARMARIUM_DATABASE_SYSTEM_USER"}
# How the launcher speaks with the processes it starts; nobody sets these.
_INTERNAL = {"ARMARIUM_WEB_PROCESS"}


def _read() -> Iterator[str]:
    tree = ast.parse((BASE_DIR / "config" / "settings.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in _READERS
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "env"
        ):
            for argument in node.args:
                if isinstance(argument, ast.Constant):
                    yield str(argument.value)


def _explained() -> set[str]:
    text = (BASE_DIR / "docs" / "configuration.md").read_text(encoding="utf-8")
    first_cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for cell in first_cells for name in re.findall(r"`([A-Z_]+)`", cell)}


def test_every_setting_has_an_entry_and_every_entry_a_setting() -> None:
    read = set(_read()) | _ELSEWHERE
    assert read - _explained() == set(), "explain these in docs/configuration.md"
    assert _explained() - read == set(), "docs/configuration.md explains what nothing reads"


@pytest.mark.parametrize("name", [".env.example", "README.md"])
def test_other_pages_name_only_settings_that_exist(name: str) -> None:
    text = (BASE_DIR / name).read_text(encoding="utf-8")
    assert set(_NAME.findall(text)) - _explained() == set()


def test_no_variable_of_ours_is_read_behind_the_settings_back() -> None:
    known = _explained()
    for path in BASE_DIR.rglob("*.py"):
        parts = path.relative_to(BASE_DIR).parts
        if parts[0] in {".venv", "var", "tests", "bench"}:
            continue
        named = set(re.findall(r"[\"'](ARMARIUM_[A-Z_]+)[\"']", path.read_text(encoding="utf-8")))
        unknown = named - known - _INTERNAL
        assert unknown == set(), f"{path} names variables that nothing explains"

"""Which databases are refused, and how clearly."""

import pytest

from config import database_checks
from config.database_checks import UnsuitableDatabase, check_database


@pytest.mark.django_db
def test_own_database_is_accepted_without_warnings() -> None:
    assert check_database() == []


@pytest.mark.django_db
def test_old_postgres_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_checks, "MINIMUM_POSTGRES", 99)
    with pytest.raises(
        UnsuitableDatabase, match=r"is PostgreSQL \d+.*needs PostgreSQL 99 or newer"
    ):
        check_database()


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (None, "does not offer pgvector"),
        (("0.8.3", None), "offers only pgvector 0.8.3"),
        (("0.8.3", "0.8.3"), "offers only pgvector 0.8.3"),
        (("0.8.6", "0.8.0"), "ALTER EXTENSION vector UPDATE"),
    ],
)
def test_missing_or_old_pgvector_is_refused(
    found: tuple[str | None, str | None] | None, sentence: str
) -> None:
    with pytest.raises(UnsuitableDatabase, match=sentence):
        database_checks._check_pgvector(found)


@pytest.mark.parametrize("found", [("0.8.4", None), ("0.8.6", "0.8.4"), ("0.10.0", "0.10.0")])
def test_recent_pgvector_is_accepted(found: tuple[str | None, str | None]) -> None:
    database_checks._check_pgvector(found)


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ([("unaccent", False, True)], "does not offer the extension unaccent.*contrib"),
        ([("unaccent", True, False), ("pg_trgm", True, False)], "CREATE EXTENSION pg_trgm;"),
    ],
)
def test_extensions_that_cannot_be_made_are_refused(
    missing: list[tuple[str, bool, bool]], sentence: str
) -> None:
    with pytest.raises(UnsuitableDatabase, match=sentence):
        database_checks._check_missing_extensions(missing)


def test_extensions_that_can_be_made_are_left_to_migrations() -> None:
    database_checks._check_missing_extensions([("unaccent", True, True)])

"""Migrations say what the models say."""

from io import StringIO

import pytest
from django.apps import apps
from django.core.management import call_command

from config.settings import BASE_DIR


@pytest.mark.django_db
def test_no_model_waits_for_a_migration() -> None:
    written = StringIO()
    try:
        call_command("makemigrations", check=True, dry_run=True, stdout=written)
    except SystemExit:
        pytest.fail(f"run makemigrations --name …:\n{written.getvalue()}")


def test_migrations_are_numbered_without_gaps_and_have_names() -> None:
    for app in apps.get_app_configs():
        folder = BASE_DIR / app.label / "migrations"
        if not folder.is_dir():
            continue
        names = sorted(path.stem for path in folder.glob("[0-9]*.py"))
        assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1)), app.label
        assert not [name for name in names if "_auto_" in name], app.label

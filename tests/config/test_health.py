"""What monitors are told."""

import http.client

import pytest
from django.db import connection
from django.test import Client

from config import health


@pytest.mark.django_db
def test_ready_with_a_migrated_database(client: Client) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready"}


def test_alive_without_asking_the_database(client: Client) -> None:
    # Without the django_db mark, any query fails the test.
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.head("/healthz").status_code == 200


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_not_ready_without_a_database(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    connection.close()
    monkeypatch.setitem(connection.settings_dict, "HOST", "/nonexistent")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert "database" in answer.json()["detail"]
    assert client.get("/healthz").status_code == 200


@pytest.mark.django_db
def test_not_ready_before_the_migrations(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_migrations_seen_applied", False)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'sessions'")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "migrat" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_only_reading_is_served(client: Client, path: str) -> None:
    answer = client.post(path)
    assert answer.status_code == http.client.METHOD_NOT_ALLOWED
    assert answer.headers["Allow"] == "GET, HEAD"

"""What Prometheus is told, and who may ask."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.answers import assert_refused
from tests.factories import Caller, Cast

pytestmark = pytest.mark.django_db


def figures(caller: Caller) -> dict[tuple[str, ...], float]:
    """Return all figures by their name and the values of their labels."""
    answer = caller.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
    }


def test_only_administrators_may_ask(cast: Cast) -> None:
    assert_refused(cast.nobody.get("/metrics"), 401)
    for caller in (cast.alice, cast.erin, cast.rita, cast.sam):
        assert_refused(caller.get("/metrics"), 403)
    assert figures(cast.ada)


def test_requests_are_counted_and_timed_by_route(cast: Cast) -> None:
    route = "/v1/embeddings/<owner>/<project>"
    counted = ("armarium_requests_total", "GET", route)
    timed = ("armarium_request_seconds_count", "GET", route)
    before = figures(cast.ada)
    assert cast.alice.get("/v1/embeddings/alice/letters").status == 200
    assert cast.sam.get("/v1/embeddings/alice/letters").status == 403
    assert cast.sam.get("/v1/nowhere/at/all").status == 404
    after = figures(cast.ada)
    for status in ("200", "403"):
        assert after[*counted, status] == before.get((*counted, status), 0) + 1
    assert after[timed] == before.get(timed, 0) + 2
    assert ("armarium_requests_total", "GET", "none", "404") in after
    assert not any("alice" in label for figure in after for label in figure)


def test_the_present_state_is_looked_up(cast: Cast) -> None:
    found = figures(cast.ada)
    assert found["armarium_indexes", "indexed"] == 0
    assert found[("armarium_growing_rows",)] >= 0
    assert found[("armarium_disk_free_bytes",)] > 0
    used = sum(value for name, value in found.items() if name[0] == "armarium_database_connections")
    assert 1 <= used <= found[("armarium_database_connections_limit",)]

"""A mixed load of several accounts: no error, no wrong answer, and nobody takes all there is.

This is the short form of `python -m bench.soak`, which also judges times and memory.
"""

import sys

import pytest

from bench import soak

SECONDS = 20
SEARCHES = (
    'armarium_requests_total{method="POST",route="/v1/similars/<owner>/<project>",status="200"}'
)


@pytest.mark.slow
def test_a_mixed_load_meets_no_error_and_no_wrong_answer() -> None:
    with soak.running() as server:
        report = soak.soak(server, minutes=SECONDS / 60, clients=8)
        figures = server.figures()
    sys.stdout.write(report.markdown())
    assert list(report.missed()) == []
    assert set(report.statuses) <= {200, 201, 204}
    assert len(report.seconds) == 9
    assert all(len(seconds) > 5 for seconds in report.seconds.values())
    # All web processes together have counted each of them, however it was answered.
    searches = sum(len(report.seconds[each]) for each in (soak.SEARCH, soak.ALONE, soak.BESIDE))
    assert f"{SEARCHES} {searches:.1f}" in figures.splitlines()
    # Another account's index was built meanwhile, by processes that let all others go first.
    assert report.bulk_rows >= soak.INDEXED_FROM_ROWS
    assert report.niceness > 0

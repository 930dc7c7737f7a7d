"""The parts that the figures rest on."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from bench import corpus
from bench.load import Ask, LoadFailed, ask_all, ask_beside, ask_for
from bench.report import CALM, Report


@contextmanager
def doubling() -> Iterator[Ask]:
    """Answer a number with twice the number, after a moment."""

    def ask(number: int) -> int:
        time.sleep(0.001)
        return number * 2

    yield ask


@contextmanager
def failing() -> Iterator[Ask]:
    """Answer nothing."""

    def ask(number: int) -> int:
        raise ValueError(f"no answer to {number}")

    yield ask


@pytest.mark.parametrize("clients", [1, 2, 8])
def test_every_question_is_asked_once(clients: int) -> None:
    load = ask_all(doubling, range(50), clients=clients)

    assert load.answers == {number: number * 2 for number in range(50)}
    assert len(load.latencies) == 50


def test_a_timed_load_goes_round_and_round() -> None:
    load = ask_for(0.2, doubling, range(3), clients=2)

    assert len(load.latencies) > 6
    assert 0.2 <= load.seconds < 2
    assert load.percentile_ms(50) >= 1


def test_the_background_ends_with_the_foreground() -> None:
    load, beside = ask_beside((doubling, range(20)), (doubling, range(3)), clients=2)

    assert len(load.answers) == 20
    assert len(beside.latencies) > 10


def test_what_a_client_could_not_do_is_told() -> None:
    with pytest.raises(LoadFailed, match="no answer to"):
        ask_all(failing, range(4), clients=4)


def test_more_dimensions_keep_every_cosine_and_so_the_truth() -> None:
    small = corpus.demo(300)
    lifted = small.lifted(1536)

    assert lifted.dimensions == 1536
    before = corpus.similarities(small.vectors, small.queries)
    after = corpus.similarities(lifted.vectors, lifted.queries)
    np.testing.assert_allclose(before, after, atol=2e-6)
    found = corpus.nearest(lifted.vectors, lifted.queries)
    ids = [[small.ids[row] for row in rows] for rows in found]
    assert corpus.recall(ids, small.truth) > 0.999


def test_the_truth_is_the_order_of_the_cosines() -> None:
    small = corpus.demo(50)

    cosines = corpus.similarities(small.vectors, small.queries[:1])[0]
    best = sorted(range(50), key=lambda row: -cosines[row])[:10]
    assert small.truth[0] == [small.ids[row] for row in best]


def test_a_row_holds_medians_and_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(scenario="search")

    report.figure("p50 ms ↓", [3, 1, 2], [1, 1, 1], [4], recalls=[1.0, 0.951, None])

    line = "| search | p50 ms ↓ | 2 | 1 | 2.00 | 4 | 0.50 | 1.000 / 0.951 / – |"
    assert capsys.readouterr().out.strip() == line
    assert report.warnings == []


def test_restless_rounds_of_raw_sql_are_a_warning() -> None:
    report = Report(scenario="search")

    report.figure("calm", [1], [1, CALM])
    report.figure("restless", [1], [1, CALM + 0.1])

    assert [warning.split(":")[1].strip() for warning in report.warnings] == ["restless"]

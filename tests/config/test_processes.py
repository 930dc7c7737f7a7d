"""The wish to stop, whatever it meets."""

import signal

import pytest

from config.processes import StopRequested, StopSignals


def interrupted() -> None:
    """End as a database driver does that is interrupted in the middle of a statement."""
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        raise RuntimeError("cannot go on")


def test_a_stop_that_an_error_hides_is_still_one() -> None:
    with StopSignals() as signals, pytest.raises(StopRequested), signals.interruptible():
        interrupted()
    assert signals.count == 1


def test_an_error_of_its_own_is_no_stop() -> None:
    with StopSignals() as signals, pytest.raises(RuntimeError), signals.interruptible():
        raise RuntimeError("cannot go on")
    assert signals.count == 0

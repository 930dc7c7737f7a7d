"""The wish to stop, whatever it meets."""

import signal

import pytest

from config.processes import StopRequested, StopSignals


def test_a_stop_that_an_error_hides_is_still_one() -> None:
    with StopSignals() as signals, pytest.raises(StopRequested), signals.interruptible():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            # As a database driver does when it is interrupted in the middle of a statement.
            raise RuntimeError("cannot go on")
    assert signals.count == 1


def test_an_error_of_its_own_is_no_stop() -> None:
    with StopSignals() as signals, pytest.raises(RuntimeError), signals.interruptible():
        raise RuntimeError("cannot go on")
    assert signals.count == 0

"""What interrupts a run, and where Python passes no exception on."""

import signal
import time

import pytest

from utils.running.interrupts import signals_interrupt


class Interrupted:
    """Its end is where Python passes no exception on."""

    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.01)


def test_an_interrupt_that_python_cannot_pass_on_comes_again_without_a_traceback(capsys):
    with pytest.raises(KeyboardInterrupt), signals_interrupt():
        Interrupted()  # is gone at once
        for _ in range(300):
            time.sleep(0.01)
    assert "Traceback" not in capsys.readouterr().err

"""Ctrl-C, SIGTERM and SIGHUP: each ends a run cleanly, and none cuts the last writing short."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LEAVING_S = 10.0  # after an interrupt a process has as long to leave; a later one counts, should the first have been swallowed


def _can_set_handlers() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """SIGTERM (torchrun, kill, a batch system) and SIGHUP (a closed terminal) raise KeyboardInterrupt as Ctrl-C does.

    A handler that somebody else has set stays: submitit has its own, which puts the job back into the queue, and nohup
    ignores SIGHUP. After an interrupt the process leaves: further ones are ignored for LEAVING_S, and outside for good.
    """
    if not _can_set_handlers():
        yield
        return

    last, received = float("-inf"), signal.SIGINT

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last, received
        if time.monotonic() - last >= LEAVING_S:
            last, received = time.monotonic(), signal.Signals(number)
            raise KeyboardInterrupt

    def raised_in_vain(unraisable: "sys.UnraisableHookArgs") -> None:
        """Where Python passes no exception on, such as in a callback of an import, an interrupt comes again a moment later."""
        nonlocal last
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            report(unraisable)
            return
        last = float("-inf")
        threading.Timer(0.05, signal.raise_signal, [received]).start()

    report, sys.unraisablehook = sys.unraisablehook, raised_in_vain
    ours = [number for number in SIGNALS if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)]
    before = {number: signal.signal(number, interrupt) for number in ours}
    try:
        yield
    except KeyboardInterrupt:
        before = dict.fromkeys(before, signal.SIG_IGN)
        raise
    finally:
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP are ignored inside; for a second or two of writing."""
    if not _can_set_handlers():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP wait inside. They also wait in a process that is started there, until it lets them through."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """In a process that was started while they were held back: what has waited comes now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

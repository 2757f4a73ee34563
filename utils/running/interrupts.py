"""Ctrl-C and SIGTERM: both end a run cleanly, and neither cuts the last writing short."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _can_set_handlers() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM (torchrun, kill, a batch system) raises KeyboardInterrupt as Ctrl-C does.

    A handler that somebody else has set stays: submitit has its own, which puts the job back into the queue.
    """
    if not _can_set_handlers() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM are ignored inside; for a second or two of writing."""
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
    """Ctrl-C and SIGTERM wait inside. They also wait in a process that is started there, until it lets them through."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """In a process that was started while they were held back: what has waited comes now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

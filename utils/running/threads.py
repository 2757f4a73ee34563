"""How many threads one process computes with on the CPU. Needs no torch."""

import os
from typing import NamedTuple

from utils import device as devices
from utils.config.settings import Settings
from utils.weights import weight_bytes

OF_THE_USER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # what torch reads when it is imported
SMALL = 2.5e11  # weights times pixels of a picture: about a quarter of a second a pass with one thread (docs/guide/speed.md)


class Threads(NamedTuple):
    """count: None leaves torch's own number; small: whether a pass is, None where that is not asked or not known."""

    count: int | None
    small: bool | None
    why: str


def threads_of(settings: Settings) -> Threads:
    """The threads of each process of a run: what the user says, else 1 where a pass is small.

    Threads of many tiny operations wait for each other, spinning, and for whatever else the machine computes. How many there
    are depends on the model alone, never on images, cores or load: sums in another order are other bits.
    """
    if not devices.is_cpu(settings.use_tpu, settings.gpu):
        return Threads(None if settings.threads == "auto" else settings.threads, None, "the device is no CPU")
    small, size = size_of_a_pass(settings)
    if settings.threads != "auto":
        return Threads(settings.threads, small, size)
    for name in OF_THE_USER:
        if name in os.environ:
            return Threads(None, small, f"{name}={os.environ[name]}, {size}")
    return Threads(1 if small else None, small, size)


def size_of_a_pass(settings: Settings) -> tuple[bool | None, str]:
    """(whether a pass of one picture is small, None if that is not known; the same in words)."""
    size = weight_bytes(settings.model.path)
    if size is None:
        return None, "the model has no weight files that tell its size"
    weights, side = size / 4, settings.model.resolution
    small = weights * side**2 <= SMALL
    return small, f"a pass is {'small' if small else 'large'}: {weights / 1e6:.3g} million weights, {side} x {side} pixels"


def count_of(threads: Threads, cores: int) -> int:
    """The number of threads that torch will have on so many cores."""
    if threads.count is not None:
        return threads.count
    set_by_user = (os.environ[name].partition(",")[0] for name in OF_THE_USER if name in os.environ)
    return next((int(text) for text in set_by_user if text.isdecimal() and int(text)), cores)

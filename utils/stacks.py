"""One frame of a file, or the sum of all, with what was measured of it, in the file's own layout and numbers."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from utils.errors import InputError, short
from utils.formats import CXI_MASK, MOST, NoSuchDataset, Stored, stored, taken

MOST_OF_A_MASK = 1e300
MOST_FRAMES = 2**17  # of a stack: a small file may say that it has any number


class Layout(Protocol):
    """What utils.measurements.Convention says of the places of numbers."""

    @property
    def dataset(self) -> str: ...

    @property
    def mask_dataset(self) -> str | None: ...

    @property
    def mask(self) -> object: ...

    @property
    def mask_values(self) -> list[str | float]: ...

    @property
    def mask_file(self) -> Path | None: ...

    @property
    def channels(self) -> int | None: ...

    @property
    def frame(self) -> int | str | None: ...

    @property
    def transpose(self) -> bool: ...

    @property
    def folders(self) -> tuple[Path, ...]: ...


class Taken(NamedTuple):
    """A frame of a file, or the sum of all, as the file has it."""

    raw: np.ndarray
    missing: np.ndarray
    frames: int
    at_limit: int
    idle: tuple[tuple[str | float, str], ...]


def frames_in(shape: tuple[int, ...], convention: Layout) -> int | None:
    """How many frames a stack of this shape has; None of an array that is no stack."""
    return shape[0] if len(shape) > (2 if convention.channels == 1 else 3) and shape[0] != 1 else None


def count_frames(path: Path, convention: Layout) -> int:
    """How many frames a file has, of which nothing but its shape is read. Raises InputError and ValueError."""
    with stored_at(path, convention.dataset, "data.dataset", convention) as array:
        count = frames_in(array.shape, convention)
    if count is not None and not 0 < count <= MOST_FRAMES:
        raise ValueError(f"holds {count} frames; from 1 to {MOST_FRAMES} are read")
    return count or 1


def take(path: Path, convention: Layout, most: int) -> Taken:
    """Of a file; most: numbers of a frame. Raises InputError, TooLarge and ValueError."""
    with stored_at(path, convention.dataset, "data.dataset", convention) as array:
        return take_from(array, path, convention, most)


def take_from(array: Stored, path: Path, convention: Layout, most: int) -> Taken:
    """Of an array; path: where it is from."""
    marks, total, missing = None, np.zeros(()), np.zeros((), bool)
    idle, at_limit = list[dict[str | float, str]](), 0
    numbers = _chosen(frames_in(array.shape, convention), path, convention)
    for number in numbers:
        raw = without_batch(taken(array, number, most))
        if not raw.ndim:
            raise ValueError("holds a single number, and no picture or spectrum")
        if raw.dtype.kind not in "fiu":
            raise ValueError(f"holds {raw.dtype} values, not real numbers")
        marks = _marked(array.shape if number is not None else raw.shape, path, convention) if marks is None else marks
        lost = marks[number] if marks.ndim > raw.ndim else np.broadcast_to(marks, raw.shape)
        lost = lost | _of_a_value(raw, path, convention)
        idle.append(dict(_idle(raw, convention)))
        if raw.dtype.kind in "iu":
            at_limit += int((raw[~lost] == np.iinfo(raw.dtype).max).sum())
        total, missing = (raw, lost) if len(numbers) == 1 else (total + raw.astype(np.float64), missing | lost)
    nowhere = tuple((value, nearest) for value, nearest in idle[0].items() if all(value in of_frame for of_frame in idle))
    if convention.transpose:
        total, missing = total.swapaxes(-1, -2), missing.swapaxes(-1, -2)
    return Taken(total, missing, len(numbers), at_limit, nowhere)


def _chosen(count: int | None, path: Path, convention: Layout) -> Sequence[int | None]:
    """The numbers of the frames that are added up; None of what is no stack. Raises InputError."""
    frame = convention.frame
    if count is None:
        if frame not in (None, 0, "sum", "all"):
            raise InputError(f"data.frame={frame}: {path} holds one frame; leave it out")
        return [None]
    if frame is None:
        raise InputError(
            f"data.frame=null: {path} is a stack of {count} frames; data.frame=0 to {count - 1} takes one of them, "
            "sum adds them up, and all makes an image of each"
        )
    if not isinstance(frame, int):
        return range(count_frames(path, convention))
    if frame >= count:
        raise InputError(f"data.frame={frame}: {path} holds {count} frames, from 0 to {count - 1}")
    return [frame]


def _idle(raw: np.ndarray, convention: Layout) -> Iterator[tuple[str | float, str]]:
    """The mask's values that no pixel has, and the nearest value that one has, "" for a word."""
    for value in convention.mask_values:
        if not _is_value(raw, value).any():
            numbers, nearest = raw[np.isfinite(raw)], ""
            if not isinstance(value, str):
                wanted = float(max(-MOST_OF_A_MASK, min(value, MOST_OF_A_MASK)))  # an integer of a thousand digits is no float
                nearest = str(numbers[np.abs(numbers.astype(np.float64) - wanted).argmin()])
            yield value, nearest


def _of_a_value(raw: np.ndarray, path: Path, convention: Layout) -> np.ndarray:
    """Where a frame has a value that means not measured, booleans. Raises InputError."""
    missing = np.zeros(raw.shape, bool)
    for value in convention.mask_values:
        if value == "max" and raw.dtype.kind not in "iu":
            raise InputError(f"data.mask=max: {path} holds {raw.dtype} values, whose largest marks nothing; write the number")
        missing |= _is_value(raw, value)
    return missing


def _marked(shape: tuple[int, ...], path: Path, convention: Layout) -> np.ndarray:
    """Where a mask says that nothing was measured, booleans shaped like the file, or like its last axes. Raises InputError."""
    if file := convention.mask_file:
        return _mask(file, convention.mask_dataset or CXI_MASK, f"data.mask={short(convention.mask)}", shape, path, convention)
    if convention.mask_dataset:
        return _mask(path, convention.mask_dataset, f"data.mask_dataset={convention.mask_dataset}", shape, path, convention)
    return np.zeros(shape[-1:], bool)


def _is_value(raw: np.ndarray, value: str | float) -> np.ndarray:
    """Where an array has a value of `Convention.mask_values`, booleans."""
    if value == "nan":
        return np.isnan(raw)
    return raw == (np.iinfo(raw.dtype).max if value == "max" else value)


def _mask(file: Path, dataset: str, key: str, shape: tuple[int, ...], path: Path, convention: Layout) -> np.ndarray:
    with readable(file, key), stored_at(file, dataset, "data.mask_dataset", convention) as array:
        mask = without_batch(taken(array, None, min(math.prod(shape), MOST)))
    if mask.dtype.kind not in "biuf" or not mask.ndim or mask.shape != shape[len(shape) - mask.ndim :]:
        raise InputError(
            f"{key}: is {mask.dtype} of shape {mask.shape}; {path} has {shape}, and a mask has that shape or its last axes, "
            "with 0 where measured"
        )
    return mask != 0


@contextmanager
def readable(file: Path, key: str) -> Iterator[None]:
    """Turns what is wrong with a file that a key names into an InputError."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{key}: {file} cannot be read ({error})") from None


@contextmanager
def stored_at(path: Path, dataset: str, key: str, convention: Layout) -> Iterator[Stored]:
    try:
        with stored(path, dataset, convention.folders) as array:
            yield array
    except NoSuchDataset as error:
        raise InputError(f"{key}={dataset}: {path} has no such dataset; it {error}") from None


def without_batch(y: np.ndarray) -> np.ndarray:
    """(1, C, H, W) as (C, H, W)."""
    return y[0] if y.ndim == 4 and len(y) == 1 else y

"""One frame of a file, or the sum of all, with what was measured of it, in the file's own layout and numbers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.conventions import Convention
from utils.errors import InputError, short
from utils.formats import CXI_MASK, MOST, NoSuchDataset, Stored, stored, taken

MOST_OF_A_MASK = 1e300
MOST_FRAMES = 2**17  # of a stack: a small file may say that it has any number


class Taken(NamedTuple):
    """A frame of a file, or the sum of all, as the file has it."""

    raw: np.ndarray
    missing: np.ndarray
    frames: int
    at_limit: int
    idle: dict[str | float, str]


def frames_in(shape: tuple[int, ...], convention: Convention) -> int | None:
    """How many frames a stack of this shape has; None of an array that is no stack."""
    axes_of_a_frame = 2 if convention.channels == 1 else 3
    return shape[0] if len(shape) > axes_of_a_frame and shape[0] != 1 else None


def count_frames(path: Path, convention: Convention) -> int:
    """How many frames a file has, of which nothing but its shape is read. Raises InputError and ValueError."""
    with _stored_at(path, convention) as array:
        count = frames_in(array.shape, convention)
    return 1 if count is None else len(_all_frames(count))


def _all_frames(count: int) -> range:
    """Their numbers. Raises ValueError for none and for too many."""
    if not 0 < count <= MOST_FRAMES:
        raise ValueError(f"holds {count} frames; from 1 to {MOST_FRAMES} are read")
    return range(count)


def take(path: Path, convention: Convention, most: int) -> Taken:
    """Of a file; most: numbers of a frame. Raises InputError, TooLarge and ValueError."""
    with _stored_at(path, convention) as array:
        return take_from(array, path, convention, most)


def take_from(array: Stored, path: Path, convention: Convention, most: int) -> Taken:
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
        of_values, unseen = _of_values(raw, path, convention)
        idle.append(unseen)
        lost = of_values | (marks[number] if marks.ndim > raw.ndim else marks)
        if raw.dtype.kind in "iu":
            at_limit += int((raw[~lost] == np.iinfo(raw.dtype).max).sum())
        total, missing = (raw, lost) if len(numbers) == 1 else (total + raw.astype(np.float64), missing | lost)
    if convention.transpose:
        total, missing = total.swapaxes(-1, -2), missing.swapaxes(-1, -2)
    return Taken(total, missing, len(numbers), at_limit, in_all(idle))


def in_all(mappings: Sequence[Mapping[str | float, str]]) -> dict[str | float, str]:
    """The entries of the first one whose keys all others have too."""
    return {key: value for key, value in mappings[0].items() if all(key in other for other in mappings)}


def _chosen(count: int | None, path: Path, convention: Convention) -> Sequence[int | None]:
    """The numbers of the frames that are added up; None of what is no stack. Raises InputError and ValueError."""
    frame = convention.frame
    if count is None:
        if frame not in (None, 0, "sum", "all"):
            raise InputError(f"data.frame={frame}: {path} holds one frame; leave it out")
        return [None]
    if frame is None:
        _all_frames(count)
        raise InputError(
            f"data.frame=null: {path} is a stack of {count} frames; data.frame=0 to {count - 1} takes one of them, "
            "sum adds them up, and all makes an image of each"
        )
    if not isinstance(frame, int):
        return _all_frames(count)
    if frame >= count:
        raise InputError(f"data.frame={frame}: {path} holds {count} frames, from 0 to {count - 1}")
    return [frame]


def _of_values(raw: np.ndarray, path: Path, convention: Convention) -> tuple[np.ndarray, dict[str | float, str]]:
    """Where a frame has a value that means not measured, and of the values that it has nowhere {value: the nearest it has}.

    The nearest is "" of a word. Raises InputError.
    """
    missing, idle = np.zeros(raw.shape, bool), dict[str | float, str]()
    for value in convention.mask_values:
        if value == "max" and raw.dtype.kind not in "iu":
            raise InputError(f"data.mask=max: {path} holds {raw.dtype} values, whose largest marks nothing; write the number")
        if value == "nan":
            has_value = np.isnan(raw)
        else:
            has_value = raw == (np.iinfo(raw.dtype).max if value == "max" else value)
        missing |= has_value
        if not has_value.any():
            idle[value] = "" if isinstance(value, str) else _nearest(raw[np.isfinite(raw)], value)
    return missing, idle


def _nearest(numbers: np.ndarray, value: float) -> str:
    wanted = float(max(-MOST_OF_A_MASK, min(value, MOST_OF_A_MASK)))  # an integer of a thousand digits is no float
    return str(numbers[np.abs(numbers.astype(np.float64) - wanted).argmin()])


def _marked(shape: tuple[int, ...], path: Path, convention: Convention) -> np.ndarray:
    """Where a mask says that nothing was measured, booleans shaped like the file, or like its last axes. Raises InputError."""
    file, dataset = convention.mask_file, convention.mask_dataset
    if not (file or dataset):
        return np.zeros(shape[-1:], bool)
    key = f"data.mask={short(convention.mask)}" if file else f"data.mask_dataset={dataset}"
    mask = read_beside(file or path, dataset or CXI_MASK, key, convention, min(math.prod(shape), MOST))
    if mask.dtype.kind not in "biuf" or not mask.ndim or mask.shape != shape[len(shape) - mask.ndim :]:
        raise InputError(
            f"{key}: is {mask.dtype} of shape {mask.shape}; {path} has {shape}, and a mask has that shape or its last axes, "
            "with 0 where measured"
        )
    return mask != 0


def read_beside(file: Path, dataset: str, key: str, convention: Convention, most: int) -> np.ndarray:
    """What belongs to every measurement: the mask, support or background that `key` names. Raises InputError."""
    try:
        with stored(file, dataset, convention.folders) as array:
            return without_batch(taken(array, None, most))
    except NoSuchDataset as error:
        raise InputError(f"{key}: {file} has no dataset {dataset}; it {error}") from None
    except ValueError as error:
        raise InputError(f"{key}: {file} cannot be read ({error})") from None


@contextmanager
def _stored_at(path: Path, convention: Convention) -> Iterator[Stored]:
    try:
        with stored(path, convention.dataset, convention.folders) as array:
            yield array
    except NoSuchDataset as error:
        raise InputError(f"data.dataset={convention.dataset}: {path} has no such dataset; it {error}") from None


def without_batch(y: np.ndarray) -> np.ndarray:
    """(1, C, H, W) as (C, H, W)."""
    return y[0] if y.ndim == 4 and len(y) == 1 else y

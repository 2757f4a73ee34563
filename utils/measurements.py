"""From the conventions of an instrument to what an operator measures: magnitudes, centred, orthonormal, NaN where missing.

In this order: frame, transpose, mask, background, bin, crop and padding around the centre, quantity and norm.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.conventions import AUTO, Convention
from utils.errors import InputError, short
from utils.formats import MOST, TooLarge
from utils.frames import Center, bin_frame, corner_level, crop_around, middle
from utils.stacks import Taken, read_beside, take, take_from

MOST_SAMPLES = 8  # of a frame for a pixel of the object: more are another scale, not a finer one
MOST_SQUARED = float(np.sqrt(np.finfo(np.float32).max))  # a loss is a sum of squares


class OwnFrame(NamedTuple):
    """(rows, columns) that a task measures of an image of `side` pixels, where no file says otherwise."""

    sides: tuple[int, int]
    side: int


class Reading(NamedTuple):
    """One file, converted."""

    y: np.ndarray  # (C, H, W) for the operators of images; float32, NaN where not measured
    raw: np.ndarray  # the same pixels as the file has them
    whole: bool  # its measured values are whole numbers, as counts are
    at_limit: int  # measured pixels at the highest value of the file's integer type
    idle: Mapping[str | float, str] = {}  # values of the mask that no pixel has, each with the nearest that one has
    offset: Center = (0.0, 0.0)  # of its samples from the whole frequencies, in samples
    unit: float = 1.0  # y^2 is this times the file's intensities, or counts / gain, added up in a pixel of y
    frame: tuple[int, ...] = ()  # (H, W) of the file
    background: float = 0.0  # of a pixel of y, in the file's numbers
    negative: int = 0  # pixels below the background, taken as 0

    def remarks(self, convention: Convention) -> Iterator[str]:
        """What the log says of how it was read."""
        if convention.background is not None:
            line = f"data.background={short(str(convention.background))}: {self.background:.4g} for each pixel of y"
            if convention.kept_background:
                line += "; the likelihood has it"
            if self.negative:
                line += f", and {self.negative} pixels are below it and taken as 0"
            yield line
        rows, columns = (side // convention.bin for side in self.frame) if self.frame else self.y.shape[-2:]
        if rows < self.y.shape[-2] or columns < self.y.shape[-1]:
            yield f"frames of {rows} x {columns} pixels: what {_times(self.y.shape)} have beyond them counts as not measured"


def read(
    path: Path,
    convention: Convention,
    measured_shape: tuple[int, ...] | None = None,
    own_frame: OwnFrame | None = None,
) -> Reading:
    """y of one file. Raises InputError that names the key, and ValueError for a file that cannot be read; each in one line.

    measured_shape: of what the task measures, where it is known: a larger array is refused before it is read.
    own_frame: of a task that measures a spectrum: frames that it cannot are padded with NaN to it, or refused.
    """
    most = MOST if measured_shape is None else math.prod(measured_shape)
    try:
        frame = take(path, convention, most)
    except TooLarge as error:
        if measured_shape is None:
            raise
        raise InputError(f"data.root: {path} has shape {error.shape}; this task measures {measured_shape}") from None
    return _reading(frame, path, convention, own_frame)


def reading(raw: np.ndarray, path: Path, convention: Convention) -> Reading:
    """The same of an array in memory; path: what it is called. Raises as `read`."""
    return _reading(take_from(raw, path, convention, MOST), path, convention, None)


def _reading(frame: Taken, path: Path, convention: Convention, own_frame: OwnFrame | None) -> Reading:
    raw, missing, count, at_limit, idle = frame
    measured = raw[~missing]
    if not measured.size:
        raise InputError(f"data.mask={short(convention.mask)}: {path} has no measured pixel; is the mask inverted?")
    negative = 0 if convention.quantity == "magnitude" else int((measured < 0).sum())
    if negative and convention.background is None:
        raise InputError(
            f"data.quantity={convention.quantity}: {path} holds {negative} negative values, the lowest {measured.min()!s}; "
            "data.background=0 takes them as 0, as of a frame whose dark was taken off; data.mask=[-1], or a mask file for "
            "several values, leaves them out; or say data.quantity=magnitude"
        )
    has_nan = bool(np.isnan(measured).any())
    y, center = centred(np.where(missing, np.nan, raw.astype(np.float64)), path, convention)
    raw, size, level = centred(raw, path, convention)[0], y.shape[-2:], 0.0
    if convention.background is not None:
        y, level, negative = _without_background(y, path, convention, count)
    if convention.bin > 1 and y.ndim > 1:
        raw = bin_frame(raw, convention.bin, center)[0]
        y, center = _binned(y, center, path, convention)
    binned = y.shape[-2:]
    for sides in _sides(path, y.shape, convention, own_frame):
        raw = crop_around(raw, center, sides, missing=0)[0]
        y, center = crop_around(y, center, sides)
    unit = (math.prod(y.shape[-2:]) / math.prod(binned)) / count
    single = converted(y, convention, size, unit)
    if has_nan or not (np.abs(single[~np.isnan(single)]) <= MOST_SQUARED).all():
        hint = "; data.mask=nan takes NaN as not measured" if has_nan else ""
        raise ValueError(
            f"holds {raw.dtype} values whose squares are not all finite in float32, in which the program computes{hint}"
        )
    if single.ndim == 2 and convention.channels == 1:
        single = single[None]
    if single.ndim > 2 and (lost := np.isnan(single).all(axis=tuple(range(1, single.ndim)))).any():
        channel = int(np.flatnonzero(lost)[0])
        raise InputError(f"data.mask={short(convention.mask)}: {path} has no measured pixel in channel {channel}")
    whole = bool((measured == np.round(measured)).all())
    unit /= math.prod(size) if convention.norm == "none" else 1
    zero = middle(y.shape) if y.ndim > 1 else center
    offset = float(zero[0] - center[0]), float(zero[1] - center[1])
    return Reading(single, raw.reshape(single.shape), whole, at_limit, idle, offset, unit, size, level, negative)


def _without_background(y: np.ndarray, path: Path, convention: Convention, count: int) -> tuple[np.ndarray, float, int]:
    """y less its background, at least 0; the mean background of a pixel of the result; how many pixels were below it."""
    file = convention.background_file
    if convention.background == AUTO:
        background = np.array(corner_level(y))
    elif file is None:
        background = np.array(convention.background) * count
    else:
        key = f"data.background={short(str(convention.background))}"
        background = read_beside(file, convention.dataset, key, convention, y.size).astype(np.float64) * count
        background = background.swapaxes(-1, -2) if convention.transpose and background.ndim > 1 else background
        if not background.ndim or background.shape != y.shape[y.ndim - background.ndim :]:
            raise InputError(
                f"{key}: has shape {background.shape}; {path} has {y.shape}, and a background that or its last axes"
            )
        background = centred(background, path, convention)[0] if background.ndim > 1 else background
        if not np.isfinite(np.broadcast_to(background, y.shape)[~np.isnan(y)]).all():
            raise InputError(f"{key}: is NaN or infinite where {path} was measured; mend it, or mask such pixels (data.mask)")
    squared = convention.bin**2
    level = float(np.broadcast_to(background, y.shape)[~np.isnan(y)].mean()) * squared
    y = y - background + convention.kept_background / squared
    return np.maximum(y, 0.0), level, int((y < 0).sum())


def _binned(y: np.ndarray, center: Center, path: Path, convention: Convention) -> tuple[np.ndarray, Center]:
    if min(y.shape[-2:]) < 2 * convention.bin:
        raise InputError(f"data.bin={convention.bin}: {path} has frames of {_times(y.shape)} pixels; choose a smaller one")
    if convention.quantity != "magnitude":
        return bin_frame(y, convention.bin, center)
    squares, center = bin_frame(y**2, convention.bin, center)
    return np.sqrt(squares), center


def _sides(path: Path, shape: tuple[int, ...], convention: Convention, own_frame: OwnFrame | None) -> list[tuple[int, int]]:
    """(rows, columns) to which a frame is brought, one after the other. Raises InputError for one that no task measures."""
    if len(shape) < 2:
        return []
    sides = [convention.crop] if convention.crop else []
    if not sides and not isinstance(convention.center, str):
        sides.append((shape[-2], shape[-1]))
    if own_frame is None:
        return sides
    rows, columns = sides[-1] if sides else shape[-2:]
    if min(rows, columns) < own_frame.side:
        sides.append((max(rows, own_frame.sides[0]), max(columns, own_frame.sides[1])))
    if max(rows, columns) <= MOST_SAMPLES * own_frame.side:
        return sides
    n = max(2, round(min(rows / own_frame.sides[0], columns / own_frame.sides[1])))
    raise InputError(
        f"data.root: {path} has frames of {rows} x {columns} pixels, too many for an object of {own_frame.side}; "
        f"data.crop=[{own_frame.sides[0]},{own_frame.sides[1]}] takes their middle, of a lower resolution, and data.bin={n} "
        "adds up squares, of an object that is small in its field"
    )


def _times(shape: tuple[int, ...]) -> str:
    return f"{shape[-2]} x {shape[-1]}"


def converted(y: np.ndarray, convention: Convention, size: tuple[int, ...], unit: float = 1.0) -> np.ndarray:
    """What the operator measures, float32, of y (..., H, W) float64 in the file's numbers, NaN where not measured.

    size: (H, W) of the file, to which its norm belongs; unit: by which the intensity of an orthonormal transform grows where
    its frame does, from H W to H' W' pixels: an object's spectrum is as many times as bright as its picture has pixels.
    """
    if convention.quantity == "counts":
        y = y / (convention.gain or 1.0)  # none is chosen of files that cannot be read, of which the reason is said
    if convention.quantity != "magnitude":
        y = np.sqrt(y)
    if convention.norm == "none":
        y = y / math.prod(size) ** 0.5
    if unit != 1:
        y = y * unit**0.5
    with np.errstate(over="ignore"):
        return y.astype(np.float32)


def centred(y: np.ndarray, path: Path, convention: Convention) -> tuple[np.ndarray, Center]:
    """An array (..., H, W) as the file has it, its zero frequency within it, and where. Raises InputError."""
    if isinstance(convention.center, str):
        if convention.center == "corner":
            y = np.fft.fftshift(y, axes=(-2, -1))
        return y, middle(y.shape) if y.ndim > 1 else (0.0, 0.0)
    if y.ndim < 2:
        raise ValueError(f"has shape {y.shape}, and no rows and columns")
    row, column = convention.center
    if row >= y.shape[-2] or column >= y.shape[-1]:
        raise InputError(f"data.center={convention.center}: {path} has {_times(y.shape)} pixels; count from 0")
    return y, (row, column)

"""From the conventions of an instrument to what an operator measures: magnitudes, centred, orthonormal, NaN where missing."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, Self

import numpy as np

from utils.errors import InputError, short
from utils.formats import CXI_DATA, CXI_MASK, MOST, NoSuchDataset, TooLarge, read_array
from utils.paths import find

Mask = str | float | list[str | float] | None
WORDS = ("nan", "max")
MOST_OF_A_MASK = 1e300
MOST_SQUARED = float(np.sqrt(np.finfo(np.float32).max))  # a loss is a sum of squares


class ConventionBlock(Protocol):
    """What the block `data` of the config says of the files' content."""

    dataset: str
    mask_dataset: str | None
    quantity: Literal["magnitude", "intensity", "counts"]
    gain: float | None
    center: Literal["shifted", "corner"]
    norm: Literal["ortho", "none"]
    channels: Literal[1] | None
    mask: Mask
    scale: Literal["known", "free"]
    root: str
    linked_folders: list[str]


@dataclass(frozen=True)
class Convention:
    """How the numbers of a set of files are meant; the defaults are what the operators measure.

    dataset:      where y lies in an HDF5, CXI or .npz file
    mask_dataset: where a mask lies: in the file that `mask` names, else in the file of y; None: there is none
    quantity:     magnitude | intensity = magnitude^2 | counts = gain * intensity
    gain:         counts per unit of intensity, > 0; of quantity counts alone
    center:       where the zero frequency lies: shifted (the middle, H // 2) | corner (0, as an FFT gives it)
    norm:         of the Fourier transform: ortho | none (magnitudes sqrt(H W) times as large)
    channels:     None: as the operator; 1: files may be (H, W)
    mask:         what is not measured: None, a file (anything but 0), or values of y: numbers, "nan", "max" (an integer type's)
    scale:        known | free: y is known up to a factor
    folders:      where other files may lie that an HDF5 file has its data read from
    """

    dataset: str = CXI_DATA
    mask_dataset: str | None = None
    quantity: str = "magnitude"
    gain: float | None = None
    center: str = "shifted"
    norm: str = "ortho"
    channels: int | None = None
    mask: Mask = None
    scale: str = "known"
    folders: tuple[Path, ...] = ()

    @classmethod
    def of(cls, data: ConventionBlock) -> Self:
        keys = {field.name: getattr(data, field.name) for field in fields(cls) if field.name != "folders"}
        return cls(**keys, folders=tuple(map(find, (data.root, *data.linked_folders))))

    @property
    def mask_values(self) -> list[str | float]:
        """The values of y that mean "not measured"."""
        if self.mask is None or self.mask_file:
            return []
        return self.mask if isinstance(self.mask, list) else [self.mask]

    @property
    def mask_file(self) -> Path | None:
        return find(self.mask) if isinstance(self.mask, str) and self.mask not in WORDS else None


class Reading(NamedTuple):
    """One file, converted."""

    y: np.ndarray  # (C, H, W) for the operators of images; float32, NaN where not measured
    raw: np.ndarray  # the same pixels as the file has them
    whole: bool  # its measured values are whole numbers, as counts are
    at_limit: int  # measured pixels at the highest value of the file's integer type
    idle: tuple[tuple[str | float, str], ...] = ()  # values of the mask that no pixel has, each with the nearest that one has


def read(path: Path, convention: Convention, measured_shape: tuple[int, ...] | None = None) -> Reading:
    """y of one file. Raises InputError that names the key, and ValueError for a file that cannot be read; each in one line.

    measured_shape: of what the task measures, where it is known: a larger array is refused before it is read.
    """
    most = MOST if measured_shape is None else math.prod(measured_shape)
    try:
        raw = without_batch(_array(path, convention.dataset, "data.dataset", convention.folders, most))
    except TooLarge as error:
        if measured_shape is None:
            raise
        raise InputError(f"data.root: {path} has shape {error.shape}; this task measures {measured_shape}") from None
    return reading(raw, path, convention)


def reading(raw: np.ndarray, path: Path, convention: Convention) -> Reading:
    """The same of an array (C, H, W) or (H, W); path: where it is from, or what it is called. Raises as `read`."""
    if not raw.ndim:
        raise ValueError("holds a single number, and no picture or spectrum")
    if raw.dtype.kind not in "fiu":
        raise ValueError(f"holds {raw.dtype} values, not real numbers")
    missing = not_measured(raw, path, convention)
    measured = raw[~missing]
    if not measured.size:
        raise InputError(f"data.mask={short(convention.mask)}: {path} has no measured pixel; is the mask inverted?")
    y = np.where(missing, np.nan, raw.astype(np.float64))
    if convention.quantity != "magnitude" and (negative := int((measured < 0).sum())):
        raise InputError(
            f"data.quantity={convention.quantity}: {path} holds {negative} negative values, the lowest {measured.min()!s}; "
            "leave them out (data.mask=[-1] for one value, a mask file for several), or say data.quantity=magnitude"
        )
    single = converted(y, convention)
    if not (np.abs(single[~moved(missing, convention)]) <= MOST_SQUARED).all():
        hint = "; data.mask=nan takes NaN as not measured" if np.isnan(measured).any() else ""
        raise ValueError(
            f"holds {raw.dtype} values whose squares are not all finite in float32, in which the program computes{hint}"
        )
    if single.ndim == 2 and convention.channels == 1:
        single = single[None]
    if single.ndim > 2 and (lost := np.isnan(single).all(axis=tuple(range(1, single.ndim)))).any():
        channel = int(np.flatnonzero(lost)[0])
        raise InputError(f"data.mask={short(convention.mask)}: {path} has no measured pixel in channel {channel}")
    at_limit = int((measured == np.iinfo(raw.dtype).max).sum()) if raw.dtype.kind in "iu" else 0
    whole = raw.dtype.kind in "iu" or bool((measured == np.round(measured)).all())
    own = moved(raw, convention).reshape(single.shape)
    return Reading(single, own, whole, at_limit, tuple(_idle(raw, convention)))


def _idle(raw: np.ndarray, convention: Convention) -> Iterator[tuple[str | float, str]]:
    """The mask's values that no pixel has, and the nearest value that one has, "" for a word."""
    for value in convention.mask_values:
        if not _is_value(raw, value).any():
            numbers, nearest = raw[np.isfinite(raw)], ""
            if not isinstance(value, str):
                wanted = float(max(-MOST_OF_A_MASK, min(value, MOST_OF_A_MASK)))  # an integer of a thousand digits is no float
                nearest = str(numbers[np.abs(numbers.astype(np.float64) - wanted).argmin()])
            yield value, nearest


def converted(y: np.ndarray, convention: Convention) -> np.ndarray:
    """What the operator measures, float32, of y (..., H, W) float64 as the file has it, NaN where not measured."""
    if convention.quantity == "counts":
        y = y / convention.gain
    if convention.quantity != "magnitude":
        y = np.sqrt(y)
    if convention.norm == "none":
        y = y / (y.shape[-1] * y.shape[-2]) ** 0.5
    with np.errstate(over="ignore"):
        return moved(y, convention).astype(np.float32)


def moved(y: np.ndarray, convention: Convention) -> np.ndarray:
    """An array (..., H, W) with the zero frequency in the middle."""
    return np.fft.fftshift(y, axes=(-2, -1)) if convention.center == "corner" else y


def not_measured(raw: np.ndarray, path: Path, convention: Convention) -> np.ndarray:
    """Where nothing was measured, booleans of the file's shape and layout. Raises InputError."""
    missing = np.zeros(raw.shape, bool)
    for value in convention.mask_values:
        if value == "max" and raw.dtype.kind not in "iu":
            raise InputError(f"data.mask=max: {path} holds {raw.dtype} values, whose largest marks nothing; write the number")
        missing |= _is_value(raw, value)
    if file := convention.mask_file:
        missing |= _mask(
            file, convention.mask_dataset or CXI_MASK, f"data.mask={short(convention.mask)}", raw.shape, path, convention
        )
    elif convention.mask_dataset:
        missing |= _mask(
            path, convention.mask_dataset, f"data.mask_dataset={convention.mask_dataset}", raw.shape, path, convention
        )
    return missing


def _is_value(raw: np.ndarray, value: str | float) -> np.ndarray:
    """Where an array has a value of `Convention.mask_values`, booleans."""
    if value == "nan":
        return np.isnan(raw)
    return raw == (np.iinfo(raw.dtype).max if value == "max" else value)


def _mask(file: Path, dataset: str, key: str, shape: tuple[int, ...], path: Path, convention: Convention) -> np.ndarray:
    try:
        mask = without_batch(_array(file, dataset, "data.mask_dataset", convention.folders, math.prod(shape)))
    except ValueError as error:
        raise InputError(f"{key}: {file} cannot be read ({error})") from None
    if mask.dtype.kind not in "biuf" or not mask.ndim or mask.shape != shape[len(shape) - mask.ndim :]:
        raise InputError(
            f"{key}: is {mask.dtype} of shape {mask.shape}; {path} has {shape}, and a mask has that shape or its last axes, "
            "with 0 where measured"
        )
    return np.broadcast_to(mask != 0, shape)


def _array(path: Path, dataset: str, key: str, folders: Sequence[Path], most: int) -> np.ndarray:
    try:
        return read_array(path, dataset, folders, most)
    except NoSuchDataset as error:
        raise InputError(f"{key}={dataset}: {path} has no such dataset; it {error}") from None


def without_batch(y: np.ndarray) -> np.ndarray:
    """(1, C, H, W) as (C, H, W)."""
    return y[0] if y.ndim == 4 and len(y) == 1 else y

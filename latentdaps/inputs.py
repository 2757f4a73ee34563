"""What is measured and what was measured, in memory: items that the program samples as it does files."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.config.settings import Settings
from utils.data import Given, Measurement, TestImage, TestItem, fitted
from utils.errors import InputError
from utils.measurements import Reading, reading

IN_MEMORY = "given in Python"  # data.root of what is in no folder


@dataclass(frozen=True)
class Measurements:
    """Of N images: `values`, (N, ...) as the operator measures them. Change them in place: NaN is "not measured"."""

    values: np.ndarray
    items: Sequence[Given]  # their y are rows of `values`
    seed: int
    kind: str  # of data.kind: images, of which the truth is known, or measurement
    root: str | None  # the folder of the files, None: as configured

    @property
    def truth(self) -> np.ndarray | None:
        """(N, 3, H, W) in [0, 1]; None where it is not known."""
        known = [item.truth for item in self.items if item.truth is not None]
        return np.stack(known) / 2 + 0.5 if known else None

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"<Measurements {self.values.shape}, {'with' if self.kind == 'images' else 'without'} a truth, seed {self.seed}>"


@dataclass(frozen=True, kw_only=True)
class Array(Measurement):
    """A measurement as an array; path: what it is called."""

    raw: np.ndarray

    def read(self) -> Reading:
        return reading(self.raw, self.path, self.convention)

    def digest(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.raw).tobytes()).hexdigest()


@dataclass(frozen=True)
class Picture(TestImage):
    """An image as an array (3, H, W) in [0, 1]; path: what it is called."""

    rgb: np.ndarray

    def pixels(self, resolution: int) -> np.ndarray:
        return fitted(self.rgb, resolution)

    def digest(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self.rgb).tobytes()).hexdigest()


def pictures(images: Any, start_id: int = 0) -> list[Picture]:
    """Images (N, 3, H, W) in [0, 1], an array, a tensor, or a list of such, as items. Raises InputError."""
    parts = [np.asarray(image.detach().cpu() if hasattr(image, "detach") else image) for image in images]
    for i, x in enumerate(parts):
        if x.ndim != 3 or x.shape[0] != 3 or 0 in x.shape or x.dtype.kind not in "fiu":
            raise InputError(
                f"images[{i}]: has shape {x.shape} and holds {x.dtype}; give numbers (N, 3, H, W) in [0, 1], or paths"
            )
        if not (x.min() >= 0 and x.max() <= 1):
            raise InputError(f"images[{i}]: holds numbers from {x.min():g} to {x.max():g}; give them in [0, 1]")
    if not parts:
        raise InputError("images: holds none; give an array (N, 3, H, W), or paths")
    return [Picture(i, Path(f"{i:05d}"), x.astype(np.float32)) for i, x in enumerate(parts, start_id)]


def measurements(
    given: Sequence[tuple[TestItem, np.ndarray, np.ndarray | None]], settings: Settings, root: str | None
) -> Measurements:
    """Of (item, y, truth) each; the items' y become rows of one array."""
    values = np.stack([y for _, y, _ in given])
    items = [Given(item.id, item.path, y, truth, item.sha256()) for y, (item, _, truth) in zip(values, given)]
    return Measurements(values, items, settings.seed, settings.data.kind, root)

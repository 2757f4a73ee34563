"""What a detector's frames say of the operator: how many samples there are, where the beam lay, how large the object is.

All files of the set are asked, so that shards and workers find the same.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.config.operators import SPECTRA
from utils.config.settings import Settings
from utils.conventions import AUTO, Convention
from utils.data import Measurement, measurements
from utils.diagnosis.findings import UNSURE
from utils.diagnosis.frames import SURE, estimate_center
from utils.diagnosis.plausibility import noise_on
from utils.diagnosis.support import estimate_support, refined_center
from utils.digests import LENGTH, Digests
from utils.errors import InputError, short
from utils.formats import CXI_MASK
from utils.measurements import MOST_SAMPLES, Reading
from utils.stacks import read_beside

log = logging.getLogger("latentdaps")
FOUND = "data.center and data.support as found in the files"  # where digests stand
APART = 0.75  # pixels between the centres of two files, which an estimate of half a pixel does not explain


class Geometry(NamedTuple):
    """Of a run; the defaults say nothing, and leave the operator as its task has it."""

    convention: Convention | None = None  # as the config has it, its centre found; None: not of a spectrum
    frame: tuple[int, int] | None = None  # (H', W') of y where that is not the task's
    offset: tuple[float, float] = (0.0, 0.0)  # of y's samples from the whole frequencies, in samples
    inside: np.ndarray | None = None  # (H, W) bool, where the object lies

    def arguments(self) -> dict[str, Any]:
        """Of the operator (PhaseRetrieval), those that are not at their defaults."""
        import torch

        unusual: dict[str, Any] = {"frame": self.frame} if self.frame else {}
        unusual |= {"offset": self.offset} if any(self.offset) else {}
        return unusual | ({"inside": torch.from_numpy(self.inside)} if self.inside is not None else {})

    def of(self, item: Measurement) -> Measurement:
        """The measurement, read with the centre that was found."""
        return item if self.convention is None else centred_at(item, self.convention.center)


def digests_of(geometry: Geometry, settings: Settings) -> Digests:
    """Of what was found in all files, which further ones may change: a run goes on with the operator that it began with."""
    if AUTO not in (settings.data.center, settings.data.support) or geometry.convention is None:
        return {}
    inside = b"" if geometry.inside is None else geometry.inside.tobytes()
    found = repr((geometry.convention.center, geometry.frame)).encode() + inside
    return {FOUND: hashlib.sha256(found).hexdigest()[:LENGTH]}


def centred_at(item: Measurement, center: str | list[float]) -> Measurement:
    return replace(item, convention=replace(item.convention, center=center))


def geometry_of(settings: Settings) -> Geometry:
    """Of the measurements of a run, once their files can be read. Raises InputError."""
    data, operator = settings.data, settings.group.operator
    if data.kind != "measurement" or operator.target not in SPECTRA:
        return Geometry()
    convention, side = Convention.of(data), data.resolution
    items = measurements(settings)
    if convention.center == AUTO:
        convention = replace(convention, center=found_center(items, side))
        items = [centred_at(item, convention.center) for item in items]
    first = next(readings(items), None)
    needs_a_file = convention.center not in ("shifted", "corner") or convention.support is not None
    if first is None and needs_a_file:
        raise InputError(f"data.root={short(data.root)}: no file can be read, which tells where its beam and its object lie")
    if first is None or first[1].y.ndim != 3:  # files of a finished run may lie elsewhere, and what is wrong is said later
        return Geometry(convention)
    _, reading = first
    rows, columns = reading.y.shape[1:]
    frame: tuple[int, int] | None = (rows, columns)
    if frame == settings.own_frame.sides or not all(side <= samples <= MOST_SAMPLES * side for samples in frame):
        frame = None
    else:
        log.info("frames of %d x %d samples: %.3g x %.3g for each pixel of the object", *frame, rows / side, columns / side)
    inside = found_support(items, convention, side, operator.sigma) if convention.support is not None else None
    return Geometry(convention, frame, reading.offset, inside)


def readings(items: Sequence[Measurement]) -> Iterator[tuple[str, Reading]]:
    """Of those that can be read, with their names; what is wrong with the others is said where they are sampled."""
    for item in items:
        with suppress(InputError, ValueError, OSError):
            yield item.name, item.read()


def found_center(items: Sequence[Measurement], side: int) -> list[float]:
    """[row, column] of all files: the median of those that tell it, of which none may lie apart. Raises InputError.

    One that does not stand out may lie anywhere, as near the border, where the brightest frequencies have no opposites. So it
    counts for nothing.
    """
    key, centers, unsure, surest = f"data.center={AUTO}", [], [], 0.0
    whole = [replace(item, convention=replace(item.convention, bin=1, crop=None), own_frame=None) for item in items]
    for path, reading in readings(whole):
        row, column, confidence = estimate_center(reading.raw, np.isnan(reading.y))
        surest = max(surest, confidence)
        if confidence < UNSURE:
            unsure.append(path)
        else:
            centers.append(refined_center(reading.y.astype(np.float64), (row, column), side))
    if unsure and not centers:
        raise InputError(f"{key}: {unsure[0]} has no centre of symmetry that stands out; write data.center=[row,column]")
    if unsure:
        log.info("%s: %d of %d files do not tell their centre, as %s", key, len(unsure), len(unsure) + len(centers), unsure[0])
    if not centers:
        return [0.0, 0.0]
    center = np.median(centers, axis=0)
    apart = np.abs(np.array(centers) - center).max(1)
    if apart.max() > APART:
        lie = [f"[{row:.2f},{column:.2f}]" for row, column in (centers[apart.argmin()], centers[apart.argmax()])]
        raise InputError(f"{key}: the files' centres differ, {lie[0]} and {lie[1]}; sample them apart, one centre a run")
    if surest < SURE:
        log.warning("%s: data.center=[%.2f,%.2f] is likely and not sure; tools/check_measurement.py draws it", key, *center)
    else:
        log.info("%s: data.center=[%.2f,%.2f]", key, *center)
    return [round(50 * float(place)) / 50 for place in center]  # so that a whole one stays whole


def found_support(items: Sequence[Measurement], convention: Convention, side: int, sigma: float) -> np.ndarray | None:
    """Where the object lies in its field, (side, side) bool; None: everywhere. Raises InputError."""
    support = convention.support
    if convention.support_file:
        return drawn_support(convention.support_file, convention, side)
    sides = list(support) if isinstance(support, list) else [support] * 2
    if support == AUTO:
        of_files = [estimate_support(r.y, noise_on(r, convention, sigma)) for _, r in readings(items)]
        sides = [min(side, each) for each in np.max(of_files, axis=0)]
        log.info("data.support=%s: data.support=[%d,%d] of a field of %d", AUTO, *sides, side)
    inside = np.zeros((side, side), bool)
    rows, columns = (slice((side - each) // 2, side - (side - each) // 2) for each in sides)  # in the middle: never narrower
    inside[rows, columns] = True
    return None if inside.all() else inside


def drawn_support(file: Path, convention: Convention, side: int) -> np.ndarray:
    """Of a mask file. Raises InputError."""
    key = f"data.support={short(str(convention.support))}"
    mask = np.squeeze(read_beside(file, convention.mask_dataset or CXI_MASK, key, convention, 4 * side * side))
    if mask.shape != (side, side) or mask.dtype.kind not in "biuf":
        raise InputError(f"{key}: is {mask.dtype} of shape {mask.shape}; write {side} x {side}, not 0 where the object lies")
    inside = mask != 0
    if not inside.any():
        raise InputError(f"{key}: {file} is 0 everywhere; it is not 0 where the object lies")
    box = inside[np.ix_(inside.any(1), inside.any(0))]
    if (box == box[::-1, ::-1]).all() and not (inside == inside[::-1, ::-1]).all():
        raise InputError(
            f"{key}: is its own turn by 180 degrees, but not about the middle; centre it, a pixel wider if need be"
        )
    return inside

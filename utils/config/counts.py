"""What the gain of a detector says of the likelihood: one fact, from which the other keys follow.

A magnitude y = sqrt(counts / gain) of the frame has counts of mean gain m^2, which are Poisson. So `fidelity.poisson` is 1,
`fidelity.photons` the gain, brought to the frame that the task measures, `fidelity.background` that of `data.background`, and
`operator.sigma` 1 / (2 sqrt(photons)), the size of the noise of a root of counts. A key that the user has set stays.
"""

import logging
import math
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import numpy as np

from utils.config.operators import SPECTRA
from utils.config.sections import Fidelity
from utils.config.settings import Settings
from utils.data import measurements
from utils.errors import InputError
from utils.frames import middle, usual_energy
from utils.measurements import Reading
from utils.paths import PROJECT
from utils.plain_files import read_yaml

log = logging.getLogger("latentdaps")

TASK = PROJECT / "configs" / "task" / "phase_retrieval.yaml"
ROUNDED = 1.01  # a key may be written with a few digits


def settings_of_counts(s: Settings, overridden: Collection[str]) -> dict[str, Any]:
    """{key: value} that `data.quantity=counts` implies and that nobody has set; nothing for other data.

    overridden: keys of the command line, which are set even to a value that the files have. The size of the first frame that
    can be read is looked up, since an object's spectrum is as many times as bright as its picture has pixels.
    Without a gain, where the scale is free, one is chosen by which the file has the energy of a usual image.
    Raises InputError for more photons than the counts can stand for.
    """
    if s.data.kind != "measurement" or s.data.quantity != "counts" or s.group.operator.target not in SPECTRA:
        return {}
    reading = _first(s)
    if reading is None:
        return {}
    keys: dict[str, Any] = {}
    gain, side = s.data.gain, s.data.resolution
    if gain is None:
        measured = ~np.isnan(reading.y)
        center = tuple(place - off for place, off in zip(middle(measured.shape), reading.offset))
        of_usual_image = len(measured) * side**2 * usual_energy(measured, (center[0], center[1]), side)
        of_file = float(np.nansum(reading.y**2))
        gain = keys["data.gain"] = _rounded(of_file / of_usual_image) or 1.0  # of no counts it is said later
    photons = gain / reading.unit
    configured, sigma = s.fidelity.photons, f"task.{s.task_group}.operator.sigma"
    too_many = configured is not None and configured > ROUNDED * photons
    too_few = configured is not None and ROUNDED * configured < photons
    if too_many or (too_few and s.data.background is not None):
        raise InputError(
            f"fidelity.photons={configured}: data.gain={gain:g} says {photons:.6g} counts at magnitude 1; leave it out, or "
            "give fewer where a count is less than a photon and data.background is left out"
        )
    usual = Fidelity()
    touched = s.fidelity.weights != usual.weights or bool({"fidelity", "fidelity.gaussian"} & set(overridden))
    if not touched:
        keys |= {"fidelity.gaussian": 0.0, "fidelity.poisson": 1.0}
    if configured is None and (not touched or {"poisson", "amplitude"} & set(s.fidelity.weights)):
        keys["fidelity.photons"] = photons
        background = s.fidelity.background, "fidelity.background" in overridden
        if s.data.background is not None and background == (usual.background, False):
            keys["fidelity.background"] = max(_rounded(reading.background), usual.background)
    if s.group.operator.sigma == _of_the_file(s) and sigma not in overridden:
        keys[sigma] = 1 / (2 * math.sqrt(configured or photons))
    if keys:
        implied = ", ".join(f"{key}={value:.4g}" for key, value in keys.items())
        log.info("data.quantity=counts%s: %s", "" if s.data.gain is None else f" data.gain={s.data.gain:g}", implied)
    return keys


def _first(s: Settings) -> Reading | None:
    """The set's first measurement that can be read, with all of its background and a gain of 1 where none is known."""
    data = s.data if s.data.gain is not None else s.data.model_copy(update={"gain": 1.0})
    fidelity = s.fidelity.model_copy(update={"photons": None})  # so that no background is kept
    for item in measurements(s.model_copy(update={"data": data, "fidelity": fidelity})):
        with suppress(InputError, OSError, ValueError):  # said when the files are read
            return item.read()
    return None


def _of_the_file(s: Settings) -> float | None:
    """The sigma that the shipped task has."""
    group = read_yaml(TASK).get(s.task_group)
    return group["operator"]["sigma"] if group else None


def _rounded(value: float) -> float:
    """To four digits: an estimate."""
    return float(f"{value:.4g}")

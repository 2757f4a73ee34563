"""Do measurements fit the operator, and are they plausible? Asked of all files before anything is sampled."""

import logging
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from operators.base import Operator
from utils.conventions import OF_A_SPECTRUM, Convention
from utils.data import Measurement, loaded
from utils.diagnosis.findings import Frame, findings_of
from utils.diagnosis.plausibility import Findings, lost, noise_on, of_picture, of_spectrum
from utils.errors import InputError, counted
from utils.running.build import Parts
from utils.stacks import in_all

log = logging.getLogger("latentdaps")
LOOKED_AT = 3  # frames whose centre, noise and background are looked for


def check_measurements(parts: Parts, images: Sequence[Measurement], task_group: str) -> None:
    """Raises InputError if one of them does not fit; of those that are implausible, a warning for each likely key."""
    side, operator, convention = parts.side, parts.instrument, parts.geometry.of(images[0]).convention
    levels = torch.tensor([-1.0, 0.0, 1.0], device=parts.device)
    flat = operator(levels[:, None, None, None].expand(3, 3, side, side))  # (3, ...)
    if not operator.spectrum:
        _refuse_spectral_keys(operator, convention)
    wanted, highest = tuple(flat.shape[1:]), float(flat.abs().max())
    seen = None if operator.spectrum else (flat != flat[:1]).any(0).cpu().numpy()  # of a flat image's spectrum all but one is 0
    refused, findings = list[tuple[Path, str]](), Findings()
    missing, remarks, idle = dict[str, float](), dict[str, str](), list[Mapping[str | float, str]]()
    for image in images:
        reading, sigma = loaded(image, parts.geometry.of(image).read), operator.sigma
        missing[image.name] = float(np.isnan(reading.y).mean())
        idle.append(reading.idle)
        remarks.update((text, image.name) for text in reading.remarks(image.convention) if text not in remarks)
        if reading.y.shape != wanted:
            one = operator.spectrum and wanted[0] == 3 and (reading.y.ndim == 2 or len(reading.y) == 1)
            hint = "; data.channels=1 is for one channel" if one else ""
            refused.append((image.path, f"has shape {reading.y.shape}; this task measures {wanted}{hint}"))
            continue
        noise = noise_on(reading, convention, sigma) if operator.spectrum else sigma
        if reason := lost(reading, noise, convention if operator.spectrum else None, seen):
            refused.append((image.path, reason))
        elif not operator.spectrum:
            findings.add(image.name, of_picture(reading, highest, sigma, seen))
        else:
            findings.add(image.name, of_spectrum(reading, convention, side * side, sigma))
            if len(missing) <= LOOKED_AT:
                frame = Frame.of(reading, convention, side, sigma, f"task.{task_group}.operator.sigma")
                of_frame = findings_of(frame)
                warned = [each for each in of_frame if each.severity == "warning" and each.what != "convention"]  # said above
                findings.add(image.name, [(each.override or each.what, each.value) for each in warned])
                refused += [
                    (
                        image.path,
                        f"its zero frequency lies at {each.value}; {each.override} takes it from there, and "
                        f"data.center=[{frame.in_file[0]:g},{frame.in_file[1]:g}] insists on what is told",
                    )
                    for each in of_frame
                    if (each.what, each.severity) == ("centre", "refuse")
                ]
    if refused:
        path, reason = refused[0]
        more = f" (and {len(refused) - 1} more files)" if len(refused) > 1 else ""
        raise InputError(f"data.root: {path}{more}: {reason}")
    for value, nearest in in_all(idle).items():
        hint = f"; the nearest value in {images[0].name} is {nearest}" if nearest else ""
        log.warning("data.mask=[%s]: no pixel of the %s has that value%s", value, counted(len(images), "file"), hint)
    for text, name in remarks.items():
        log.info("%s: %s", name, text)
    if any(missing.values()):
        most, mean = max(missing, key=missing.__getitem__), statistics.fmean(missing.values())
        log.info("not measured: %.3g %% of the pixels; most in %s, %.3g %%", 100 * mean, most, 100 * missing[most])
    for line in findings.lines():
        log.warning("%s", line)


def _refuse_spectral_keys(operator: Operator, convention: Convention) -> None:
    """For an operator of one's own; ours are refused before torch is imported."""
    for key in OF_A_SPECTRUM:
        value = getattr(convention, key)
        if value != getattr(Convention(), key):
            raise InputError(
                f"data.{key}={value}: {type(operator).__name__} measures no spectrum (Operator.spectrum); leave it out"
            )

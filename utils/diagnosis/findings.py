"""What the frames of a measurement say of themselves, and the overrides that follow from it. Numbers alone, no torch.

Beside what `plausibility` finds in magnitudes: the centre, the noise, the background, hot pixels, the least gain, and the
object's size. What is measured of a frame's numbers stands in `frames` and `support`; here is what follows from it.
"""

from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from utils.conventions import AUTO, Convention
from utils.diagnosis import plausibility
from utils.diagnosis.frames import (
    SURE,
    CenterEstimate,
    background_of,
    dark_squares,
    estimate_center,
    far_above_opposites,
    noise_of,
)
from utils.diagnosis.support import estimate_support
from utils.frames import Center, middle, usual_energy
from utils.measurements import Reading

OFF, SLIGHTLY = 0.75, 0.3  # pixels from the centre that was told: refused; a warning. Centres of the shipped sets: within 0.2
UNSURE = 0.04  # confidence of a centre that is believed where it is the told one, or where it is asked for
FLAT = 0.5  # of the counts in dark squares that do not vary as speckles do; without a background up to 0.35
LARGER = 1.7  # noise as a multiple of sigma; that of few counts is up to 1.5 times smaller than sigma
CLEAR = 0.5  # times the noise's energy, from which on an autocorrelation tells where it ends; right frames: also at 0.25
FLATTEST = 0.3  # flatness of an image from which on its zero frequency is believed
SMALL = 0.85  # of the field: an object below it is worth a support


@dataclass(frozen=True)
class Finding:
    """One thing that a file says."""

    what: str  # a few words
    value: str  # what was found, in plain words
    sure: float  # 0, a guess, to 1
    override: str = ""  # as it is pasted; several are separated by spaces
    severity: Literal["note", "warning", "refuse"] = "note"


@dataclass(frozen=True)
class Frame:
    """One frame as a run would take it.

    reading:  y (C, H, W), magnitudes and NaN, and the file's numbers
    told_center: the zero frequency of y by the config, (row, column) in pixels
    side:     of the object's field, pixels
    sigma:    the operator's
    key:      of the operator's sigma, "task.GROUP.operator.sigma"
    """

    reading: Reading
    convention: Convention
    told_center: Center
    side: int
    sigma: float
    key: str

    @classmethod
    def of(cls, reading: Reading, convention: Convention, side: int, sigma: float, key: str) -> Self:
        row, column = middle(reading.y.shape)
        return cls(reading, convention, (row - reading.offset[0], column - reading.offset[1]), side, sigma, key)

    @property
    def in_file(self) -> Center:
        """Where the zero frequency lies in the file by the config; a pixel of y is `data.bin` of the file's."""
        if isinstance(self.convention.center, str):
            return middle(self.reading.frame or self.reading.y.shape)
        return self.convention.center[0], self.convention.center[1]

    @property
    def y(self) -> np.ndarray:
        return self.reading.y.astype(np.float64)

    @property
    def missing(self) -> np.ndarray:
        return np.isnan(self.reading.y)

    @property
    def noise(self) -> float:
        """Standard deviation of that on y."""
        return plausibility.noise_on(self.reading, self.convention, self.sigma)

    @property
    def on_a_pixel(self) -> bool:
        """Whether the zero frequency lies in the middle of one."""
        return all(abs(place - round(place)) < SLIGHTLY for place in self.told_center)

    def without(self, pixels: np.ndarray) -> Self:
        """The frame with these pixels, booleans (C, H, W), as not measured."""
        return replace(self, reading=self.reading._replace(y=np.where(pixels, np.nan, self.reading.y)))

    def estimate(self) -> CenterEstimate:
        """Of the file's numbers, without squares of zeros: lost parts, or dark ones that say nothing."""
        raw = self.reading.raw.astype(np.float64)
        return estimate_center(raw, self.missing | (raw == 0) & plausibility.patches(raw, ~self.missing))

    def hot_pixels(self) -> np.ndarray:
        """Booleans (C, H, W), where the told centre is the true one."""
        return far_above_opposites(self.y, self.told_center, plausibility.noise_on(self.reading, self.convention, 0.0))


def findings_of(frame: Frame) -> list[Finding]:
    """What one frame says, the gravest first, up to a mistake that others would follow from: mended, it says more."""
    marks = negative_marks(frame.reading.raw, frame.missing, frame.convention)
    if marks:
        frame = frame.without(frame.reading.raw < 0)
    estimate = frame.estimate()
    centre = of_center(frame, estimate)
    if centre.severity == "refuse":
        return [centre, *marks]
    if centre.override:
        frame = replace(frame, told_center=(estimate.row, estimate.column))
    hot = frame.hot_pixels() if centre.sure else np.zeros_like(frame.missing)
    frame = frame.without(hot)
    background, flat = of_background(frame)
    if flat:
        frame = replace(frame, convention=replace(frame.convention, kept_background=flat))
    gain = [] if flat else of_gain(frame)
    dark = any(each.override for each in gain)
    conventions = of_plausibility(frame)
    lost = [each for each in conventions if each.severity == "refuse"]
    wrong = [each for each in conventions if each not in lost and "data.mask" not in each.override + each.value]
    findings = [centre, *marks]
    if wrong:  # what else there is would follow from it
        findings += [*(gain if dark else wrong), *(each for each in lost if not each.override)]
    else:
        findings += [*background, *conventions, *gain]
        if hot.any() and not lost:
            value = f"{np.count_nonzero(hot)} are far brighter than their opposites: a mask file (0 where measured) takes them"
            findings.append(Finding("hot pixels", value, 0.8, "", "warning"))
        if not dark:
            findings += [of_noise(frame)] if centre.sure else []
            findings += of_support(frame)
    return sorted(findings, key=lambda finding: ("refuse", "warning", "note").index(finding.severity))


def negative_marks(raw: np.ndarray, missing: np.ndarray, convention: Convention) -> list[Finding]:
    """Of whole numbers: the one negative value that marks what was not measured."""
    values = np.unique(raw[~missing & (raw < 0)])
    if len(values) != 1 or convention.background is not None or (raw[~missing] != np.round(raw[~missing])).any():
        return []
    reason = f"{np.count_nonzero(~missing & (raw < 0))} pixels are {values[0]!s}, and no other is negative: not measured"
    return [Finding("marked pixels", reason, 0.9, f"data.mask=[{values[0]!s}]", "warning")]


def of_center(frame: Frame, estimate: CenterEstimate) -> Finding:
    """A centre that is off: refused where nothing was told but "in the middle"."""
    off = (estimate.row - frame.told_center[0], estimate.column - frame.told_center[1])
    farthest, center = max(map(abs, off)), frame.convention.center
    place_in_file = [_rounded(place + frame.convention.bin * moved) for place, moved in zip(frame.in_file, off)]
    estimated, configured = "row {:g}, column {:g}".format(*place_in_file), "{:g} and {:g}".format(*frame.in_file)
    if estimate.confidence < (UNSURE if farthest < SLIGHTLY else SURE):
        return Finding("centre", "not known: no centre of symmetry stands out", 0.0)
    sure = min(1.0, 0.4 + 2 * estimate.confidence)
    if center == AUTO or farthest < SLIGHTLY:
        return Finding("centre", estimated if center == AUTO else f"{configured}, as told", sure)
    if center == "corner":
        return Finding("centre", "{:+.2g} and {:+.2g} pixels from the corner; roll the files".format(*off), sure, "", "warning")
    grave = farthest >= OFF and center == "shifted"
    override = "data.center=[{:g},{:g}]".format(*place_in_file)
    return Finding("centre", f"{estimated} of the file, not {configured}", sure, override, "refuse" if grave else "warning")


def _rounded(place: float) -> float:
    """To half a pixel where it is that within its error, else to a tenth."""
    return round(2 * place) / 2 if abs(2 * place - round(2 * place)) < 0.3 else round(place, 1)


def of_plausibility(frame: Frame) -> list[Finding]:
    """What `plausibility` refuses or warns of."""
    findings, lost = [], plausibility.lost(frame.reading, frame.noise, frame.convention)
    if lost:
        findings.append(Finding("lost pixels", lost, 1.0, _override(lost), "refuse"))
    for key, reason in plausibility.of_spectrum(frame.reading, frame.convention, frame.side**2, frame.sigma):
        if key.startswith("data.mask") and (lost or (key == "data.mask=[0]" and not frame.on_a_pixel)):
            continue
        if key == "data.quantity=counts with data.gain":
            counts = np.maximum(np.where(frame.missing, 0, frame.reading.raw), 0).sum() * frame.reading.unit
            usual = len(frame.missing) * frame.side**2 * usual_energy(~frame.missing, frame.told_center, frame.side)
            key = f"data.quantity=counts data.gain={_plain(float(counts) / usual)} data.scale=free"
        value = reason if key.startswith("data.") else f"{reason}: {key}?"
        findings.append(Finding("convention", value, 0.9, _override(key), "warning"))
    return findings


def _override(text: str) -> str:
    """The overrides that a text begins with or names, and nothing where it only describes."""
    words = [word for word in text.split() if word.startswith("data.") and "=" in word]
    return " ".join(words) if " or " not in text else ""


def _plain(number: float) -> str:
    """Two digits, as a config takes them."""
    return f"{float(f'{number:.2g}'):.10g}"


def of_noise(frame: Frame) -> Finding:
    """The noise on bright magnitudes, against the operator's."""
    noise, configured = noise_of(frame.y, frame.told_center), frame.sigma
    if noise is None:
        return Finding("noise", "not known: too few bright pairs of pixels", 0.0)
    larger = noise > configured * LARGER
    smaller = noise < configured / LARGER**2 and frame.convention.quantity != "counts"
    override = f"{frame.key}={noise:.3g}" if larger or smaller else ""
    value = f"{noise:.3g} on the magnitudes; {frame.key} is {configured:.3g}"
    return Finding("noise", value, 0.9, override, "warning" if larger else "note")


def of_background(frame: Frame) -> tuple[list[Finding], float]:
    """Counts that every pixel has, and their number where it stands out, else 0."""
    convention, reading = frame.convention, frame.reading
    if convention.quantity == "magnitude" or convention.background is not None:
        return [], 0.0
    dark = dark_squares(np.where(frame.missing, np.nan, reading.raw.astype(np.float64)))
    if dark is None:
        return [Finding("background", "not known: too many pixels are missing", 0.0)], 0.0
    background = background_of(dark, convention.quantity == "counts")
    if background is None:
        value = f"not known: the darkest squares have {dark.mean:.2g} counts a pixel, at most that"
        return [Finding("background", value, 0.0)], 0.0
    if background <= FLAT * dark.mean:
        return [Finding("background", f"none that stands out of {dark.mean:.3g} in the darkest squares", 0.7)], 0.0
    value = f"{background:.3g} of the {dark.mean:.3g} in the darkest squares do not vary as speckles do"
    by_pixel = reading.unit == 1 and convention.bin == 1  # else y is of several frames or pixels, and the key of one
    key = f"data.background={_plain(background) if by_pixel else AUTO}"
    return [Finding("background", value, 0.8, key, "warning")], background


def of_gain(frame: Frame) -> list[Finding]:
    """What is bright enough an image in [0, 1] bounds; what is dim enough no file says.

    Of each channel mean(x^2) <= mean(x). Where the zero frequency is measured, that bounds mean(x) by the flatness
    mean(x)^2 / mean(x^2), which has no scale; elsewhere mean(x) is at most 1.
    """
    convention, y, pixels = frame.convention, frame.y, frame.side**2
    if convention.quantity != "counts" or convention.scale == "free" or convention.gain is None or convention.background:
        return []
    energy = np.maximum(np.nansum(y**2, axis=(-2, -1)), 1e-300) / pixels  # (C,)
    flatness = np.ones_like(energy)
    if frame.on_a_pixel:
        mean = y[:, round(frame.told_center[0]), round(frame.told_center[1])] * np.sqrt(y.shape[-1] * y.shape[-2]) / pixels
        flatness = np.where(mean**2 > FLATTEST * energy, np.minimum(mean**2 / energy, 1), 1)  # NaN is not above
    least = convention.gain * float((energy / flatness).max())
    value = f"at least {least:.3g} for an image in [0, 1]; told was {convention.gain:.3g}"
    if least > 1.1 * convention.gain:
        return [Finding("gain", value, 0.9, f"data.gain={_plain(1.5 * least)} data.scale=free", "warning")]
    return [Finding("gain", f"{value}; more than a bound no single frame tells", 0.3)]


def of_support(frame: Frame) -> list[Finding]:
    """The object's size by its autocorrelation, against the field."""
    if frame.convention.support is not None:
        return []
    y, side = frame.y, frame.side
    if np.nansum(y**2) < (1 + CLEAR) * frame.noise**2 * np.count_nonzero(~frame.missing):
        return [Finding("support", "not known: the noise hides where the autocorrelation ends", 0.0)]
    rows, columns = estimate_support(y, frame.noise)
    ratio = max(rows, columns) / side
    if rows >= y.shape[-2] or columns >= y.shape[-1]:
        value = f"as large as the field of {side} pixels, or not to be told: write data.support=SIDE if you know it"
        return [Finding("support", value, 0.3)]
    if ratio <= SMALL:
        value = f"the autocorrelation ends as that of {rows} x {columns} pixels in a field of {side}"
        return [Finding("support", value, 0.7, f"data.support=[{rows},{columns}]")]
    if ratio > 1.1:
        crop = [2 * round(samples / ratio / 2) for samples in y.shape[-2:]]
        value = f"the object of {rows} x {columns} samples is larger than the model's {side} pixels: fewer frequencies"
        return [Finding("size", value, 0.7, f"data.crop=[{crop[0]},{crop[1]}]", "warning")]
    return [Finding("support", f"{rows} x {columns} pixels, the field has {side}", 0.7)]

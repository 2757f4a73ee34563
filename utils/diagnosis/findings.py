"""What the frames of a measurement say of themselves, and the overrides that follow from it. Numbers alone, no torch.

Beside what `plausibility` finds in magnitudes: the centre, the noise, the background, hot pixels, the least gain, and the
object's size. Opposite pixels of a real object have the same mean, so that their difference is noise alone: one frame tells it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import scipy

from utils.diagnosis import plausibility
from utils.diagnosis.frames import SURE, CenterEstimate, estimate_center, opposite
from utils.diagnosis.support import estimate_support
from utils.frames import usual_energy
from utils.measurements import AUTO, Convention, Reading

OFF, SLIGHTLY = 0.75, 0.3  # pixels from the centre that was told: refused; a warning. Centres of the shipped sets: within 0.2
UNSURE = 0.04  # confidence of a centre that is believed where it is the told one
WINDOW, DIM = 9, 0.1  # pixels a side, and the share of such squares that are the darkest
FLAT = 0.5  # of the counts in dark squares that do not vary as speckles do; without a background up to 0.35
HOT = 12.0  # deviations of the noise between opposite pixels
LARGER = 1.7  # noise as a multiple of sigma; that of few counts is up to 1.5 times smaller than sigma
BRIGHT = 5.0  # deviations of the noise above which a magnitude's noise is not folded at 0
CLEAR = 4.0  # times the noise's energy, from which on an autocorrelation tells where it ends
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
    told:     the zero frequency of y by the config, (row, column) in pixels
    in_file:  the same in the file; a pixel of y is `binned` of the file's
    side:     of the object's field, pixels
    sigma:    the operator's
    key:      of the operator's sigma, "task.GROUP.operator.sigma"
    """

    reading: Reading
    convention: Convention
    told: tuple[float, float]
    in_file: tuple[float, float]
    side: int
    sigma: float
    key: str
    binned: int = 1

    @classmethod
    def of(cls, reading: Reading, convention: Convention, side: int, sigma: float, key: str) -> Self:
        sides = reading.y.shape[-2:]
        told = (sides[0] // 2 - reading.offset[0], sides[1] // 2 - reading.offset[1])
        rows, columns = reading.frame or sides
        center = (rows // 2, columns // 2) if isinstance(convention.center, str) else tuple(convention.center)
        return cls(reading, convention, told, (center[0], center[1]), side, sigma, key, convention.bin)

    @property
    def missing(self) -> np.ndarray:
        return np.isnan(self.reading.y)

    @property
    def noise(self) -> float:
        """Standard deviation of that on y."""
        return plausibility.noise_on(self.reading.y, self.convention, self.sigma)

    @property
    def on_a_pixel(self) -> bool:
        """Whether the zero frequency lies in the middle of one."""
        return all(abs(place - round(place)) < SLIGHTLY for place in self.told)

    def estimate(self) -> CenterEstimate:
        """Of the file's numbers, without squares of zeros: lost parts, or dark ones that say nothing."""
        raw = self.reading.raw.astype(np.float64)
        return estimate_center(raw, self.missing | (raw == 0) & plausibility.patches(raw, ~self.missing))


def findings_of(frame: Frame) -> list[Finding]:
    """What one frame says, the gravest first, up to a mistake that others would follow from: mended, it says more."""
    marks, reading = negative_marks(frame.reading.raw, frame.missing, frame.convention), frame.reading
    if marks:
        reading = reading._replace(y=np.where(reading.raw < 0, np.nan, reading.y))
        frame = replace(frame, reading=reading)
    saturated = [
        Finding("saturated", why, 0.9, key, "warning") for key, why in plausibility.plateau(reading, reading.y, frame.noise)
    ]
    if saturated:
        y = np.where(reading.raw == np.max(reading.raw, initial=0, where=~frame.missing), np.nan, reading.y)
        frame = replace(frame, reading=reading._replace(y=y, at_limit=0))
    estimate = frame.estimate()
    centre = of_center(frame, estimate)
    if centre.severity == "refuse":
        return [centre, *marks, *saturated]
    if centre.override:
        frame = replace(frame, told=(estimate.row, estimate.column))
    hot = hot_pixels(frame) if centre.sure else np.zeros_like(frame.missing)
    frame = replace(frame, reading=frame.reading._replace(y=np.where(hot, np.nan, frame.reading.y)))
    background, flat = of_background(frame)
    if flat:
        frame = replace(frame, convention=replace(frame.convention, kept=flat))
    gain, convention = list(of_gain(frame)), list(of_plausibility(frame))
    lost = [each for each in convention if each.severity == "refuse"]
    dark = gain and gain[0].override and not flat
    if wrong := [each for each in convention if "data.mask" not in each.override + each.value and each not in lost]:
        findings = [centre, *marks, *(gain if dark else wrong), *(each for each in lost if not each.override)]
    else:
        findings = [centre, *marks, *background, *convention, *saturated, *([] if flat else gain)]
        if hot.any() and not lost:
            value = f"{np.count_nonzero(hot)} are far brighter than their opposites: a mask file (0 where measured) takes them"
            findings.append(Finding("hot pixels", value, 0.8, "", "warning"))
        if not dark:
            findings += [*(of_noise(frame) if centre.sure else ()), *of_support(frame)]
    return sorted(findings, key=lambda finding: ("refuse", "warning", "note").index(finding.severity))


def negative_marks(raw: np.ndarray, missing: np.ndarray, convention: Convention) -> list[Finding]:
    """Of whole numbers: the one negative value that marks what was not measured."""
    values = np.unique(raw[~missing & (raw < 0)])
    if len(values) != 1 or convention.background is not None or (raw[~missing] != np.round(raw[~missing])).any():
        return []
    said = f"{np.count_nonzero(~missing & (raw < 0))} pixels are {values[0]!s}, and no other is negative: not measured"
    return [Finding("marked pixels", said, 0.9, f"data.mask=[{values[0]!s}]", "warning")]


def of_center(frame: Frame, estimate: CenterEstimate) -> Finding:
    """A centre that is off: refused where nothing was told but "in the middle"."""
    off = (estimate.row - frame.told[0], estimate.column - frame.told[1])
    farthest, given = max(map(abs, off)), frame.convention.center
    told, found = (
        [_rounded(there + frame.binned * step * moved) for there, step in zip(frame.in_file, off)] for moved in (0, 1)
    )
    where, sure = "row {:g}, column {:g}".format(*found), min(1.0, 0.4 + 2 * estimate.confidence)
    if estimate.confidence < UNSURE or (estimate.confidence < SURE and farthest >= SLIGHTLY):
        guess = f"; perhaps {where}" if estimate.confidence >= UNSURE else ""
        return Finding("centre", f"not known: no centre of symmetry stands out{guess}", 0.0)
    if given == AUTO or farthest < SLIGHTLY:
        return Finding("centre", where if given == AUTO else "{:g} and {:g}, as told".format(*told), sure)
    if given == "corner":
        return Finding("centre", "{:+.2g} and {:+.2g} pixels from the corner; roll the files".format(*off), sure, "", "warning")
    value = f"{where} of the file, not " + "{:g} and {:g}".format(*told)
    grave = farthest >= OFF and given == "shifted"
    return Finding("centre", value, sure, "data.center=[{:g},{:g}]".format(*found), "refuse" if grave else "warning")


def _rounded(place: float) -> float:
    """To half a pixel where it is that within its error, else to a tenth."""
    return round(2 * place) / 2 if abs(2 * place - round(2 * place)) < 0.3 else round(place, 1)


def of_plausibility(frame: Frame) -> Iterator[Finding]:
    """What `plausibility` refuses or warns of."""
    convention = frame.convention
    if lost := plausibility.lost(frame.reading, frame.noise, convention):
        yield Finding("lost pixels", lost, 1.0, _override(lost), "refuse")
    for key, reason in plausibility.of_spectrum(frame.reading, convention, frame.side**2, frame.sigma):
        if key.startswith("data.mask") and (lost or (key == "data.mask=[0]" and not frame.on_a_pixel)):
            continue
        if key == "data.quantity=counts with data.gain":
            counts = np.maximum(np.where(frame.missing, 0, frame.reading.raw), 0).sum() * frame.reading.unit
            usual = len(frame.missing) * frame.side**2 * usual_energy(~frame.missing, frame.told, frame.side)
            key = f"data.quantity=counts data.gain={_plain(float(counts) / usual)} data.scale=free"
        yield Finding("convention", reason if key.startswith("data.") else f"{reason}: {key}?", 0.9, _override(key), "warning")


def _override(text: str) -> str:
    """The overrides that a text begins with or names, and nothing where it only describes."""
    words = [word for word in text.split() if word.startswith("data.") and "=" in word]
    return " ".join(words) if " or " not in text else ""


def _plain(number: float) -> str:
    """Two digits, as a config takes them."""
    return f"{float(f'{number:.2g}'):.10g}"


def of_noise(frame: Frame) -> Iterator[Finding]:
    """The noise on bright magnitudes, against the operator's."""
    y = frame.reading.y.astype(np.float64)
    noise = noise_of(y, frame.told)
    if noise is None:
        yield Finding("noise", "not known: too few bright pairs of pixels", 0.0)
        return
    told = frame.sigma
    value = f"{noise:.3g} on the magnitudes; {frame.key} is {told:.3g}"
    other = noise > told * LARGER or (noise < told / LARGER**2 and frame.convention.quantity != "counts")
    yield Finding("noise", value, 0.9, f"{frame.key}={noise:.3g}" * other, "warning" if noise > told * LARGER else "note")


def noise_of(y: np.ndarray, center: tuple[float, float]) -> float | None:
    """Standard deviation of the noise on magnitudes y (C, H, W), from the middle half of the differences of opposite pixels.

    Among the bright: near 0 a magnitude's noise is folded. None where there are fewer than 50 such pairs.
    """
    other = opposite(y, center)
    differences, level = (y - other) / np.sqrt(2), 0.5 * (y + other)
    noise, bright = 0.0, np.isfinite(differences)
    for _ in range(4):
        if np.count_nonzero(bright) < 50:
            return None
        noise = float(1.4826 * np.median(np.abs(differences[bright])))
        bright = np.isfinite(differences) & (level > BRIGHT * noise)
    return noise if np.count_nonzero(bright) >= 50 and noise else None


def hot_pixels(frame: Frame) -> np.ndarray:
    """Pixels of y (C, H, W) far above their opposites, which are equal for a real object."""
    y = frame.reading.y.astype(np.float64)
    noise = max(noise_of(y, frame.told) or 0.0, plausibility.noise_on(y, frame.convention, 0.0), 1e-3 * float(np.nanmax(y)))
    hot = y - opposite(y, frame.told) > HOT * noise  # NaN is not
    return hot & ~scipy.ndimage.median_filter(hot, (1, 3, 3))  # where all are, their opposites are dead


def of_background(frame: Frame) -> tuple[list[Finding], float]:
    """Counts that every pixel has, and their number where it stands out, else 0.

    Speckles of mean s vary by s, and counts by their root: in a dark square the mean is b + s and the variance b + s + s^2.
    """
    if frame.convention.quantity == "magnitude" or frame.convention.background is not None:
        return [], 0.0
    counts = np.where(frame.missing, np.nan, frame.reading.raw.astype(np.float64))
    chosen = np.indices(counts.shape).sum(0) % 2 == 0  # these pixels say which squares are dark, the others what is in them
    share, mean, _ = _squares(counts, chosen)
    if not (whole := share > 0.4).any():
        return [Finding("background", "not known: too many pixels are missing", 0.0)], 0.0
    dark = whole & (mean <= np.quantile(mean[whole], DIM))
    _, mean, variance = _squares(counts, ~chosen)
    level = max(0.0, float(mean[dark].mean()))
    poisson = frame.convention.quantity == "counts"
    background = level - float(np.sqrt(max(0.0, variance[dark].mean() - poisson * level)))
    chance = np.sqrt((level + 2 * level**2) / max(1, dark.sum()))  # of the variance
    if poisson and level**2 < 6 * chance:
        return [
            Finding("background", f"not known: the darkest squares have {level:.2g} counts a pixel, at most that", 0.0)
        ], 0.0
    if background <= FLAT * level:
        return [Finding("background", f"none that stands out of {level:.3g} in the darkest squares", 0.7)], 0.0
    value = f"{background:.3g} of the {level:.3g} in the darkest squares do not vary as speckles do"
    by_pixel = frame.reading.unit == 1 and frame.binned == 1  # else y is of several frames or pixels, and the key of one
    key = f"data.background={_plain(background) if by_pixel else AUTO}"
    return [Finding("background", value, 0.8, key, "warning")], background


def _squares(values: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the chosen values, not NaN, in the square around each pixel of (C, H, W): their share, mean and variance."""
    known, size = chosen & ~np.isnan(values), (1, WINDOW, WINDOW)
    share = scipy.ndimage.uniform_filter(known.astype(np.float64), size)
    mean, square = (
        scipy.ndimage.uniform_filter(np.where(known, values, 0.0) ** power, size) / np.maximum(share, 1e-9) for power in (1, 2)
    )
    number = np.maximum(share * WINDOW**2, 2)
    return share, mean, (square - mean**2) * number / (number - 1)


def of_gain(frame: Frame) -> Iterator[Finding]:
    """What is bright enough an image in [0, 1] bounds; what is dim enough no file says."""
    convention = frame.convention
    if convention.quantity != "counts" or convention.scale == "free" or convention.gain is None or convention.background:
        return
    least = convention.gain * brightness(frame, frame.reading.y)
    value = f"at least {least:.3g} for an image in [0, 1]; told was {convention.gain:.3g}"
    if least > 1.1 * convention.gain:
        yield Finding("gain", value, 0.9, f"data.gain={_plain(1.5 * least)} data.scale=free", "warning")
    else:
        yield Finding("gain", f"{value}; more than a bound no single frame tells", 0.3)


def brightness(frame: Frame, y: np.ndarray) -> float:
    """By how much the intensities of magnitudes y (C, H, W) exceed the largest of an image in [0, 1], at least.

    Of each channel mean(x^2) <= 1. And mean(x^2) <= mean(x), so that mean(x) is at most its flatness mean(x)^2 / mean(x^2),
    which has no scale; where the zero frequency is measured.
    """
    pixels, y = frame.side**2, y.astype(np.float64)
    energy = np.maximum(np.nansum(y**2, axis=(-2, -1)), 1e-300) / pixels  # (C,)
    if not frame.on_a_pixel:
        return float(energy.max())
    mean = y[:, round(frame.told[0]), round(frame.told[1])] * np.sqrt(y.shape[-1] * y.shape[-2]) / pixels
    flatness = np.minimum(mean**2 / energy, 1)
    usual = np.where(flatness > 0.3, (mean / np.maximum(flatness, 1e-9)) ** 2, 0)  # NaN is not above
    return float(np.maximum(energy, np.nan_to_num(usual)).max())


def of_support(frame: Frame) -> Iterator[Finding]:
    """The object's size by its autocorrelation, against the field."""
    if frame.convention.support is not None:
        return
    y, side = frame.reading.y.astype(np.float64), frame.side
    noise = frame.noise
    sides = estimate_support(y, noise)
    ratio, energy = max(sides) / side, float(np.nansum(y**2))
    if energy < (1 + CLEAR) * noise**2 * np.count_nonzero(~np.isnan(y)):
        yield Finding("support", "not known: the noise hides where the autocorrelation ends", 0.0)
    elif any(each >= samples for each, samples in zip(sides, y.shape[-2:])):
        hidden = " behind a beam stop" if frame.missing[:, round(frame.told[0]), round(frame.told[1])].any() else ""
        value = f"as large as the field of {side} pixels, or not to be told{hidden}: write data.support=SIDE if you know it"
        yield Finding("support", value, 0.3)
    elif ratio <= SMALL:
        value = f"the autocorrelation ends as that of {sides[0]} x {sides[1]} pixels in a field of {side}"
        yield Finding("support", value, 0.7, f"data.support=[{sides[0]},{sides[1]}]")
    elif ratio > 1.1:
        crop = [2 * round(samples / ratio / 2) for samples in y.shape[-2:]]
        value = f"the object of {sides[0]} x {sides[1]} samples is larger than the model's {side} pixels: fewer frequencies"
        yield Finding("size", value, 0.7, f"data.crop=[{crop[0]},{crop[1]}]", "warning")
    else:
        yield Finding("support", f"{sides[0]} x {sides[1]} pixels, the field has {side}", 0.7)


def of_the_frame(finding: Finding) -> bool:
    """Whether a run warns of it beside what `plausibility` says."""
    return finding.severity == "warning" and finding.what not in ("convention", "saturated")

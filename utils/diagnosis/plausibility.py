"""Is a measurement one that this task can have made? Numbers of y alone, no network.

What cannot have been measured at all, `lost`, is refused; whatever else is found is a warning.

For a spectrum, m = |FFT(pad(x))|, orthonormal, of an image x in [0, 1] with n pixels in a frame of N:

    sum m^2 = sum x^2 <= n                                   (Parseval)
    N m(0)^2 = (sum x)^2 <= n sum x^2 = n sum m^2            (Cauchy-Schwarz), whatever the scale of y

so `flatness` = N m(0)^2 / (n sum m^2) = mean(x)^2 / mean(x^2) lies in (0, 1]. An intensity m^2 taken for a magnitude has a
larger one, the square root of a magnitude a very small one; where m(0) is missing nothing tells. Limits: chosen on the 64 + 64
validation images of the shipped sets at oversampling 1, 2 and 4, between the ranges written beside them.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import scipy

from utils.conventions import Convention
from utils.diagnosis.frames import opposite
from utils.frames import middle
from utils.measurements import Reading

FLATNESS = (0.15, 1.15)  # square roots up to 0.095 | magnitudes 0.58 to 0.97 | intensities from 1.36
DARKEST = 1e-3  # mean square of an image that is nearly black; the validation images' begin at 0.06
MARGIN = 1.05  # over the energy of a white image: noise of the noise's energy
HALF = 0.5  # of the pixels missing, and of the moment about the wrong centre
BRIGHT = 8.0  # deviations of the noise
PLATEAU = 4  # pixels that share the highest value
WINDOW = 9  # pixels, of a local mean, and of a square whose pixels share one value


class Finding(NamedTuple):
    key: str  # as the user would write it
    reason: str


@dataclass
class Findings:
    """What was found in some files, one line for each likely key."""

    files: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # {key: [(file, reason), ...]}

    def add(self, name: str, findings: list[Finding]) -> None:
        for key, reason in findings:
            self.files.setdefault(key, []).append((name, reason))

    def lines(self) -> list[str]:
        lines = []
        for key, of_key in self.files.items():
            (name, reason), more = of_key[0], f" (and {len(of_key) - 1} more files)" if len(of_key) > 1 else ""
            lines.append(f"implausible measurement: {name}{more}: {reason}: {key}?")
        return lines


def lost(reading: Reading, noise: float, convention: Convention | None, seen: np.ndarray | None = None) -> str | None:
    """Why y cannot have been measured: values that the noise leaves nowhere, as of a dead channel or a lost part of a file.

    noise: its standard deviation, as `noise_on` has it; without noise all values are possible.
    convention: of a spectrum; None for a task without one.
    seen: where the image can change y, booleans that broadcast to it; None: everywhere.
    Clipping leaves equal values too: the lowest and the highest of a channel count only where a spectrum says otherwise.
    """
    if not noise:
        return None
    y, raw = reading.y, reading.raw
    measured = ~np.isnan(y) & (True if seen is None else seen)
    channels = list(zip(raw, measured)) if y.ndim > 2 else [(raw, measured)]
    for channel, (values, is_measured) in enumerate(channels):
        values = values[is_measured]
        if values.size > 1 and (values == values[0]).all():
            which = f"channel {channel} is" if len(channels) > 1 else "it is"
            return f"{which} {values[0]!s} in every pixel, as a dead channel or a lost source is; replace or remove the file"
    if y.ndim != 3:
        return None
    squares = patches(raw, measured)
    impossible = squares & ~_clipped(raw, measured)
    if convention is not None:
        bright = scipy.ndimage.median_filter(
            opposite(y, middle(y.shape)) > BRIGHT * noise, (1, 3, 3)
        )  # a single one is a hot pixel
        if not _centre(_filled(y.astype(np.float64)), convention):
            bright[:, y.shape[-2] // 2, y.shape[-1] // 2] = True
        impossible |= squares & (y == 0) & bright
    if not impossible.any():
        return None
    value = raw[impossible][0]
    count = int((squares & (raw == value)).sum())
    where = f"{count} of its pixels are exactly {value!s} in whole squares, which noise of {noise:.3g} leaves nowhere"
    if added_up(convention):
        return f"{where}; a mask file leaves them out"
    return f"{where}; data.mask=[{value!s}] leaves them out, and a mask file tells them from others of that value"


def added_up(convention: Convention | None) -> bool:
    """Whether a pixel is the sum of several of the file's, with whose values `data.mask` compares."""
    return convention is not None and (convention.bin > 1 or convention.frame == "sum")


def patches(raw: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """The measured pixels of (C, H, W) that lie in a square of WINDOW pixels a side with one value."""
    size, values = (1, WINDOW, WINDOW), raw.astype(np.float64)
    highest = scipy.ndimage.maximum_filter(np.where(measured, values, np.inf), size, mode="constant", cval=np.inf)
    lowest = scipy.ndimage.minimum_filter(np.where(measured, values, -np.inf), size, mode="constant", cval=-np.inf)
    return scipy.ndimage.maximum_filter(highest == lowest, size, mode="constant", cval=False)


def _clipped(raw: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Where a pixel has the lowest or the highest value of its channel."""
    values = raw.astype(np.float64)
    lowest = np.where(measured, values, np.inf).min((1, 2), keepdims=True)
    highest = np.where(measured, values, -np.inf).max((1, 2), keepdims=True)
    return (values == lowest) | (values == highest)


def of_picture(reading: Reading, highest: float, sigma: float, seen: np.ndarray | None = None) -> list[Finding]:
    """For a task without a spectrum; highest: of |A(x)| for white, grey and black images; seen: as for `lost`."""
    findings = _missing(reading.y)
    if sigma and reading.y.ndim == 3:
        measured = ~np.isnan(reading.y) & (True if seen is None else seen)
        for value in np.unique(reading.raw[patches(reading.raw, measured)]):
            count = int((reading.raw == value).sum())
            reason = f"{count} of its pixels are exactly {value!s}, in whole squares: clipped or lost"
            findings.append(Finding(f"data.mask=[{value!s}]", reason))
    largest = float(np.nanmax(np.abs(reading.y)))
    if largest > 2 * highest + 6 * sigma:
        reason = f"its values reach {largest:.4g}, this task's {highest:.3g} (images in [-1, 1])"
        findings.append(Finding("divide the files by their white, times 2, minus 1", reason))
    return findings


def of_spectrum(reading: Reading, convention: Convention, pixels: int, sigma: float) -> list[Finding]:
    """For magnitudes y (C, H', W') in the middle of which the zero frequency is said to lie.

    pixels: of the image without its frame; sigma: standard deviation of the noise on y.
    """
    y = reading.y.astype(np.float64)
    noise = noise_on(reading, convention, sigma)
    findings, saturated = _missing(y), plateau(reading, y, noise, convention)
    if saturated:
        y = np.where(y == np.nanmax(y), np.nan, y)
    centre = _centre(_filled(y), convention)
    if centre:
        y = np.fft.fftshift(y, axes=(-2, -1))
    stop = _beam_stop(y)
    if stop:
        y = np.where(y == 0, np.nan, y)
    background = convention.kept_background * reading.unit / (convention.gain or 1)  # the likelihood's, in y^2
    energy, measured = _filled(y) - background, ~np.isnan(y)
    scale = _quantity(energy, measured, pixels, reading.whole, convention) or _energy(
        energy, measured, pixels, sigma, convention
    )
    holes = [] if stop or scale else _holes(y, noise)  # the noise's size is known where that of y is
    return findings + saturated + centre + stop + scale + holes


def noise_on(reading: Reading, convention: Convention, sigma: float) -> float:
    """Standard deviation of the noise on magnitudes: of the operator, or of counts, a little enlarged.

    A root of counts has 1/2, and a magnitude of 1 stands for gain / unit of them.
    """
    return sigma if convention.gain is None else max(sigma, 0.6 * (reading.unit / convention.gain) ** 0.5)


def _missing(y: np.ndarray) -> list[Finding]:
    share = float(np.isnan(y).mean())
    reason = f"{100 * share:.3g} % of its pixels are not measured (a mask is 0 where measured)"
    return [Finding("data.mask inverted", reason)] if share > HALF else []


def _beam_stop(y: np.ndarray) -> list[Finding]:
    """The zero frequency of an image in [0, 1] is the largest of all."""
    middle = y[:, y.shape[-2] // 2, y.shape[-1] // 2]  # (C,)
    return _zeros(y, "in the middle among them") if ((middle == 0) & (np.nanmax(y, axis=(1, 2)) > 0)).any() else []


def _holes(y: np.ndarray, noise: float) -> list[Finding]:
    """Zeros whose opposite frequency, equal for a real image, is bright: 23 counts against none, or 8 times the noise."""
    return _zeros(y, "with bright opposites") if ((y == 0) & (opposite(y, middle(y.shape)) > BRIGHT * noise)).any() else []


def _zeros(y: np.ndarray, place: str) -> list[Finding]:
    count = int((y == 0).sum())
    return [Finding("data.mask=[0]", f"{count} of its pixels are exactly 0 ({100 * count / y.size:.2g} %), {place}")]


def plateau(reading: Reading, y: np.ndarray, noise: float, convention: Convention) -> list[Finding]:
    """Saturated pixels: at the highest value of the integer type, or several at the highest value of all."""
    if reading.at_limit:
        return [Finding("data.mask=[max]", f"{reading.at_limit} of its pixels are at the highest value that its type has")]
    top = np.nanmax(reading.y)
    value = reading.raw[reading.y == top].max()  # written so that the mask meets it
    count = int(((reading.raw == value) & ~np.isnan(reading.y)).sum())
    if count < PLATEAU or top < 5 * noise:
        return []
    key = "a mask file" if added_up(convention) else f"data.mask=[{value!s}]"
    return [Finding(key, f"{count} of its pixels share the highest value {value!s}: saturated")]


def _filled(y: np.ndarray) -> np.ndarray:
    """y^2, and where not measured its mean over the measured pixels of the neighbourhood, 0 without any."""
    measured, size = ~np.isnan(y), (1, WINDOW, WINDOW)
    square = scipy.ndimage.uniform_filter(np.where(measured, y, 0.0) ** 2, size, mode="wrap")
    share = scipy.ndimage.uniform_filter(measured.astype(float), size, mode="wrap")
    mean = np.where(share > 0.5 / WINDOW**2, square / np.maximum(share, 1e-12), 0.0)
    return np.where(measured, y**2, mean)


def _centre(energy: np.ndarray, convention: Convention) -> list[Finding]:
    """The mean squared distance of the energy from the middle against that from the corner, which is the other convention's."""
    rows, columns = (np.arange(side) - side // 2 for side in energy.shape[-2:])
    distance = rows[:, None] ** 2 + columns[None] ** 2
    shifted = np.fft.fftshift(energy, axes=(-2, -1))
    if (shifted * distance).sum() >= HALF * (energy * distance).sum():
        return []
    other = "shifted" if convention.center == "corner" else "corner"
    place = "in the corners" if convention.center == "shifted" else "in the middle of the file"
    return [Finding(f"data.center={other}", f"most of its energy lies {place}")]


def _quantity(energy: np.ndarray, measured: np.ndarray, pixels: int, whole: bool, convention: Convention) -> list[Finding]:
    """Squares of magnitudes, or their square roots; whole numbers as intensities, or as magnitudes beyond a white image's."""
    counts = "data.quantity=counts with data.gain"
    if whole and convention.quantity == "intensity":
        return [Finding(counts, "it holds whole numbers")]
    samples, whole_energy = energy.shape[-1] * energy.shape[-2], np.maximum(energy.sum((1, 2)), 1e-300)
    if whole and convention.quantity == "magnitude" and whole_energy.max() > samples * pixels:
        return [Finding(counts, "it holds whole numbers, far brighter than any image's magnitudes")]
    at = (..., energy.shape[-2] // 2, energy.shape[-1] // 2)
    flatness = np.median(np.where(measured[at], energy[at], np.nan) * samples / (pixels * whole_energy))  # NaN: one is missing
    if flatness > FLATNESS[1] and convention.quantity == "magnitude":
        return [
            Finding(
                counts if whole else "data.quantity=intensity", "its bright frequencies stand out as in a square of magnitudes"
            )
        ]
    if flatness < FLATNESS[0] and convention.quantity != "magnitude":
        return [Finding("data.quantity=magnitude", "its bright frequencies stand out as little as in a root of magnitudes")]
    return []


def _energy(energy: np.ndarray, measured: np.ndarray, pixels: int, sigma: float, convention: Convention) -> list[Finding]:
    """The energy of the measured pixels as a multiple of a white image's, per channel."""
    if convention.scale == "free":
        return []
    samples = energy.shape[-1] * energy.shape[-2]
    most = float(np.where(measured, energy, 0.0).sum((1, 2)).max()) / (pixels + samples * sigma**2)
    least = float(energy.sum((1, 2)).max()) / pixels
    if most > MARGIN:
        other = convention.norm == "ortho" and DARKEST < most / samples <= MARGIN
        reason, keys = f"its energy is {most:,.4g} times that of a white image", ("none", "larger")
    elif least < DARKEST:
        other = convention.norm == "none" and DARKEST < least * samples <= MARGIN
        reason, keys = f"its energy is {least:.2g} of a white image's, so that it is all but black", ("ortho", "smaller")
    else:
        return []
    return [Finding(_scale_key(other, *keys, convention), reason)]


def _scale_key(other_norm: bool, norm: str, gain: str, convention: Convention) -> str:
    """other_norm: the factor is one that the other norm of the Fourier transform makes."""
    keys = [f"data.norm={norm}"] if other_norm else []
    if convention.quantity == "counts":
        keys.append(f"a {gain} data.gain")
    return " or ".join(keys) or "is its exposure calibrated"

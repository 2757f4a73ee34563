"""What a detector's frame says of itself: its centre, noise, hot pixels and background. Numbers alone, no torch.

The intensities of a real object are point-symmetric about the zero frequency, I(c + k) = I(c - k), as Friedel's law says.
So a frame correlates with its own inversion most where the inversion is about that centre. There opposite pixels have the same
mean, and differ by noise alone: one frame tells it.
"""

from typing import NamedTuple

import numpy as np
import scipy

from utils.frames import Center

SMOOTH = 1 / 24  # of the frame's side, the width of the mean that is taken off: speckles tell the place, their envelope little
MIDDLE = 0.25  # of each side: as far from the middle is the centre looked for
FEWEST = 0.1  # of the pixels of a channel that must have a measured opposite
SURE = 0.08  # confidence; whoever was wrong by more than half a pixel, with a dead quadrant or at 1e6 counts, stayed below
NEAR = 2.0  # pixels about a peak that belong to it
HOT = 12.0  # deviations of the noise between opposite pixels
BRIGHT = 5.0  # deviations of the noise above which a magnitude's noise is not folded at 0
WINDOW, DIM = 9, 0.1  # pixels a side of a square, and the share of squares that are the darkest


class CenterEstimate(NamedTuple):
    """Where the zero frequency lies, in pixels from the first row and column; confidence from 0, a guess, to 1.

    From SURE on, no frame of a real object was more than half a pixel off; bright ones have about 0.5.
    """

    row: float
    column: float
    confidence: float


def estimate_center(frame: np.ndarray, missing: np.ndarray | None = None) -> CenterEstimate:
    """The zero frequency of counts, intensities or magnitudes (H, W) or (C, H, W), to half a pixel or better.

    missing: booleans that broadcast to the frame; what is not finite is missing anyway.

    The correlation coefficient of log(1 + frame) with its inversion, over the pairs of pixels that are both measured, by FFT
    (Padfield 2012, masked registration); the peak by a parabola. Confidence is the peak's height over the highest elsewhere,
    times the squared share of pixels with an opposite: low for noise, and where several centres would do.
    """
    stack = np.asarray(frame, np.float64).reshape(-1, *frame.shape[-2:])  # (C, H, W)
    absent = np.zeros(frame.shape, bool) if missing is None else np.broadcast_to(missing, frame.shape)
    measured = np.isfinite(stack) & ~absent.reshape(stack.shape)
    sides = stack.shape[-2:]
    unknown = CenterEstimate(sides[0] // 2, sides[1] // 2, 0.0)
    if not measured.any():
        return unknown
    coefficients, share = _with_inversion(_speckles(stack, measured), measured)  # index (i, j): inverted about (i / 2, j / 2)
    if not np.isfinite(coefficients).any():
        return unknown
    row, column = np.unravel_index(np.nanargmax(coefficients), coefficients.shape)
    height = coefficients[row, column]
    rows, columns = np.indices(coefficients.shape)
    elsewhere = np.hypot(rows - row, columns - column) > 2 * NEAR
    rival = np.nanmax(coefficients, initial=0.0, where=elsewhere & np.isfinite(coefficients))
    return CenterEstimate(
        float(row + _top(coefficients[:, column], row)) / 2,
        float(column + _top(coefficients[row], column)) / 2,
        float(np.clip(height - rival, 0, 1) * share[row, column] ** 2),
    )


def _speckles(stack: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """log(1 + values) of (C, H, W) less its mean over the measured neighbourhood, 0 where not measured.

    1 is a count, or their median where it is larger: the logarithms of dim minima would outweigh all else, and a centre between
    pixels misses them.
    """
    values = np.where(measured, np.maximum(stack, 0), 0.0)
    sizes = values[measured]
    unit = max(float(np.median(sizes)), 1.0 if (sizes == np.round(sizes)).all() else 0.0) or 1.0
    logs = np.log1p(values / unit)
    width = (0, *(max(1.5, SMOOTH * side) for side in stack.shape[-2:]))
    weight = scipy.ndimage.gaussian_filter(measured.astype(np.float64), width)
    mean = scipy.ndimage.gaussian_filter(logs * measured, width) / np.maximum(weight, 1e-12)
    return np.where(measured, logs - mean, 0.0)


def _with_inversion(values: np.ndarray, measured: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (2 H - 1, 2 W - 1) of the correlation of (C, H, W) with its inversions, and the shares of pixels in them.

    Times the root of the share, the precision of a coefficient: few pairs correlate by chance. NaN where too few are.
    """

    def convolved(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return scipy.signal.fftconvolve(a, b, axes=(-2, -1))  # sums over pairs of pixels whose indices add up to (i, j)

    weight = measured.astype(np.float64)
    pairs = np.maximum(np.round(convolved(weight, weight)), 0)
    sums = convolved(values, weight)
    squares = convolved(values**2, weight)
    shared = np.divide(sums**2, pairs, out=np.zeros_like(sums), where=pairs > 0)
    above, below = (convolved(values, values) - shared).sum(0), (squares - shared).sum(0)
    enough = (pairs.sum(0) > FEWEST * measured.sum()) & (below > 1e-9 * squares.sum(0).max())
    for axis, side in enumerate(values.shape[-2:]):
        distance = np.abs(np.arange(2 * side - 1) / 2 - side // 2)
        enough &= np.expand_dims(distance <= MIDDLE * side, 1 - axis)
    coefficients = np.divide(above, below, out=np.full_like(above, np.nan), where=enough)
    return coefficients * np.sqrt(pairs.sum(0) / pairs.sum(0).max()), pairs.sum(0) / measured.sum()


def _top(line: np.ndarray, peak: int) -> float:
    """Where a parabola through the peak and its neighbours is highest, from the peak; 0 at the end of what is known."""
    left, middle, right = line[peak - 1 : peak + 2]
    curvature = left - 2 * middle + right
    return float(np.clip(0.5 * (left - right) / curvature, -0.5, 0.5)) if curvature < 0 else 0.0


def opposite(frame: np.ndarray, center: tuple[float, float]) -> np.ndarray:
    """The value at the inversion of each pixel of (..., H, W) about a centre, rounded to half a pixel; NaN outside."""
    for axis, place in enumerate(center[:2], start=-2):
        side = frame.shape[axis]
        index = round(2 * place) - np.arange(side)
        inside = (index >= 0) & (index < side)
        frame = np.where(inside if axis == -1 else inside[:, None], np.take(frame, index.clip(0, side - 1), axis), np.nan)
    return frame


class Radial(NamedTuple):
    """Of the rings of one pixel around a centre, each (R,); NaN where a ring has no pixel, or no pair."""

    mean: np.ndarray
    noise: np.ndarray  # standard deviation of a pixel, from the differences of opposite pixels


def by_radius(frame: np.ndarray, center: tuple[float, float]) -> Radial:
    """Mean and noise of a frame (C, H, W), NaN where missing. The noise is that of a real object about its true centre."""
    rows, columns = (np.arange(side) - place for side, place in zip(frame.shape[-2:], center))
    ring = np.broadcast_to(np.round(np.hypot(rows[:, None], columns)).astype(int), frame.shape)
    halves = 0.5 * (frame - opposite(frame, center)) ** 2

    def averaged(values: np.ndarray) -> np.ndarray:
        measured = ~np.isnan(values)
        count = np.bincount(ring[measured], minlength=ring.max() + 1)
        total = np.bincount(ring[measured], values[measured], minlength=ring.max() + 1)
        return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)

    return Radial(averaged(frame), np.sqrt(averaged(halves)))


def noise_of(y: np.ndarray, center: Center) -> float | None:
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


def far_above_opposites(y: np.ndarray, center: Center, least: float) -> np.ndarray:
    """Hot pixels of magnitudes y (C, H, W), booleans: opposites are equal for a real object. least: of the noise."""
    noise = max(noise_of(y, center) or 0.0, least, 1e-3 * float(np.nanmax(y)))
    hot = y - opposite(y, center) > HOT * noise  # NaN is not
    return hot & ~scipy.ndimage.median_filter(hot, (1, 3, 3))  # where all are, their opposites are dead


class DarkSquares(NamedTuple):
    """The darkest squares of a frame."""

    mean: float  # of a pixel
    variance: float  # within a square
    number: int


def dark_squares(values: np.ndarray) -> DarkSquares | None:
    """Of the squares about each pixel of (C, H, W), NaN where missing; None where too many are.

    Every second pixel says which squares are dark, and the others what is in them: else the dark ones would be the chance ones.
    """
    chosen = np.indices(values.shape).sum(0) % 2 == 0
    share, mean, _ = _squares(values, chosen)
    whole = share > 0.4
    if not whole.any():
        return None
    dark = whole & (mean <= np.quantile(mean[whole], DIM))
    _, mean, variance = _squares(values, ~chosen)
    return DarkSquares(max(0.0, float(mean[dark].mean())), float(variance[dark].mean()), int(dark.sum()))


def _squares(values: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the chosen values, not NaN, in the square around each pixel of (C, H, W): their share, mean and variance."""
    measured, size = chosen & ~np.isnan(values), (1, WINDOW, WINDOW)
    share = scipy.ndimage.uniform_filter(measured.astype(np.float64), size)
    mean, square = (
        scipy.ndimage.uniform_filter(np.where(measured, values, 0.0) ** power, size) / np.maximum(share, 1e-9)
        for power in (1, 2)
    )
    number = np.maximum(share * WINDOW**2, 2)
    return share, mean, (square - mean**2) * number / (number - 1)


def background_of(dark: DarkSquares, poisson: bool) -> float | None:
    """The part of dark squares that does not vary as speckles do; None where that cannot be told of so few counts.

    Speckles of mean s vary by s, and counts by their root: in a dark square the mean is b + s and the variance b + s + s^2.
    """
    counted = dark.mean if poisson else 0.0
    chance = np.sqrt((dark.mean + 2 * dark.mean**2) / max(1, dark.number))  # of the variance
    if poisson and dark.mean**2 < 6 * chance:
        return None
    return dark.mean - float(np.sqrt(max(0.0, dark.variance - counted)))

"""How large is the object of a spectrum? From the autocorrelation, which its squared magnitudes give without a phase."""

import numpy as np

ABOVE = 1.5  # times the level of the noise: that of a line of 96 lags varies by 7 %
MARGIN = 2  # pixels added: a support that is too small costs the answer, a wide one a little speed


def estimate_support(y: np.ndarray, noise: float) -> tuple[int, int]:
    """Rows and columns of the upright box that holds the object; (H, W) where the autocorrelation nowhere ends.

    y: magnitudes (C, H, W), orthonormal, NaN where missing; noise: standard deviation of the noise on them.

    An object of n pixels in a line has products at lags below n. So the largest lag of a row whose root mean square stands
    above the noise is n - 1. The noise of sum_k y_k^2 exp(2 pi i k l / N) is 2 noise sqrt(sum y^2), or less where the far lags
    are quieter. Missing pixels take the value of their opposite, equal for a real object, and else the mean about them.
    """
    energy = filled(y) ** 2
    lags = np.abs(np.fft.fft2(energy, axes=(-2, -1))) ** 2  # (C, H, W), lag 0 first; its phase says where the centre lay
    level = 4 * noise**2 * energy.sum()
    sides = []
    for axis, side in ((1, y.shape[-2]), (2, y.shape[-1])):
        line = lags.sum(0).mean(2 - axis)[: side // 2 + 1]  # (side // 2 + 1,) mean square of the lags of a row or column
        floor = min(level, float(np.median(np.sort(line)[: max(1, len(line) // 4)])))
        last = int(np.flatnonzero(line > ABOVE**2 * floor).max(initial=0))
        sides.append(side if last >= len(line) - 2 else last + 1 + MARGIN)
    return sides[0], sides[1]


def filled(y: np.ndarray) -> np.ndarray:
    """Magnitudes (C, H, W), 0 frequency in the middle, without gaps."""
    flipped = np.roll(np.flip(y, (-2, -1)), [1 - side % 2 for side in y.shape[-2:]], (-2, -1))
    y = np.where(np.isnan(y), flipped, y)
    return np.where(np.isnan(y), np.nanmean(y, axis=(-2, -1), keepdims=True), y)

"""What the autocorrelation of an object says, which its squared magnitudes give without a phase: its size, and its centre."""

import numpy as np
import scipy

from utils.diagnosis.frames import opposite
from utils.frames import Center, middle

ABOVE = 1.5  # times the level of the noise, whose lines of 130 lags reached 1.3
RIM = 4.0  # pixels over which the weight of a frame falls to 0 at what is missing


def estimate_support(y: np.ndarray, noise: float) -> tuple[int, int]:
    """Rows and columns of the upright box that holds the object; (H, W) where the autocorrelation nowhere ends.

    y: magnitudes (C, H, W), orthonormal, the zero frequency next to the middle, NaN where missing; noise: their standard
    deviation.

    An object of n pixels in a line has products at lags below n. So the largest lag of a row whose root mean square stands
    above the noise is n - 1. The noise of sum_k y_k^2 exp(2 pi i k l / N) is 2 noise sqrt(sum y^2), or less where the far lags
    are quieter. Missing pixels take the value of their opposite, equal for a real object, and else the mean about them.
    """
    energy = filled(y) ** 2
    lags = np.abs(np.fft.fft2(energy, axes=(-2, -1))) ** 2  # (C, H, W), lag 0 first; its phase says where the centre lay
    level, sides = 4 * noise**2 * energy.sum(), []
    for axis, side in ((1, y.shape[-2]), (2, y.shape[-1])):
        line = lags.sum(0).mean(2 - axis)[: side // 2 + 1]  # (side // 2 + 1,) mean square of the lags of a row or column
        floor = min(level, float(np.median(np.sort(line)[: max(1, len(line) // 4)])))
        last = int(np.flatnonzero(line > ABOVE**2 * floor).max(initial=0))
        sides.append(side if last >= len(line) - 2 else last + 1)
    return sides[0], sides[1]


def filled(y: np.ndarray) -> np.ndarray:
    """Magnitudes (C, H, W), 0 frequency in the middle, without gaps."""
    y = np.where(np.isnan(y), opposite(y, middle(y.shape)), y)
    return np.where(np.isnan(y), np.nanmean(y, axis=(-2, -1), keepdims=True), y)


def refined_center(y: np.ndarray, center: Center, side: int) -> Center:
    """The zero frequency of magnitudes y (C, H, W), NaN where missing, from half a pixel about it: to a hundredth.

    side: of the object in its field, pixels. The autocorrelation of a real object is real. So the transform of y^2 has at
    lag l the phase -2 pi l center / N, and the shift that is left is fitted to its imaginary part. Lags from N - side on
    overlap with others, and from N / 4 on those of a frame that is still to be cut. y^2 is weighted by its distance from what
    is missing, and by the same turned about the centre, which keeps the symmetry.
    """
    sides, known = y.shape[-2:], np.isfinite(y)
    away = [scipy.ndimage.distance_transform_edt(np.pad(channel, 1))[1:-1, 1:-1] for channel in known]
    weights = np.clip(np.stack(away) / RIM, 0, 1)
    energy, pixels = np.where(known, y, 0.0) ** 2, np.indices(sides)
    lags = np.stack(np.meshgrid(*map(np.fft.fftfreq, sides), indexing="ij"))  # (2, H, W), in shares of the sides
    most = [max(1, min(samples - side, samples // 4)) / samples for samples in sides]
    near = (np.abs(lags) <= np.reshape(most, (2, 1, 1)) + 1e-9).all(0)
    turns = 2 * np.pi * lags[:, near]  # (2, L)
    place = np.array(center)
    for _ in range(4):
        opposite = 2 * place[:, None, None] - pixels
        both = [w * scipy.ndimage.map_coordinates(w, opposite, order=1, cval=0.0) for w in weights]
        products = np.fft.fft2(energy * both)[:, near] * np.exp(1j * (place @ turns))  # (C, L), real at the true centre
        curvature = np.einsum("il,jl,cl->ij", turns, turns, products.real**2)
        place = place - np.linalg.lstsq(curvature, (products.imag * products.real).sum(0) @ turns.T, rcond=None)[0]
    return (float(place[0]), float(place[1])) if np.abs(place - center).max() <= 0.5 else center

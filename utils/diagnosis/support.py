"""What the autocorrelation of an object says, which its squared magnitudes give without a phase: its size, and its centre."""

import numpy as np
import scipy

from utils.diagnosis.frames import opposite
from utils.frames import Center, middle

ABOVE = 1.5  # times the level of the noise, whose lines of 130 lags reached 1.3
NEAR = 1  # pixels about the zero frequency that are taken for hidden: their noise alone outweighs the ends of an object
PER_HIDDEN = 2  # lags beyond the end for each hidden pixel of a line
ROUNDED = 1e-5  # of lag 0: smaller lags of a frame without noise are its rounding
RANK = 1e-8  # of the largest singular value: below it unknown squares change no far lag
RIM = 4.0  # pixels over which the weight of a frame falls to 0 at what is missing


def estimate_support(y: np.ndarray, noise: float) -> tuple[int, int]:
    """Rows and columns of the upright box that holds the object; (H, W) where the autocorrelation nowhere ends.

    y: magnitudes (C, H, W), orthonormal, the zero frequency next to the middle, NaN where missing; noise: their standard
    deviation.

    An object of n pixels in a line has products at lags below n. So the box is the smallest beyond which the root mean square
    of no row of lags stands above the noise. That of sum_k y_k^2 exp(2 pi i k l / N) is 2 noise sqrt(sum y^2), or less where
    the far lags are quieter. A missing pixel takes the value of its opposite, equal for a real object. Of the hole about the
    zero frequency that is left, as a beam stop makes it, the squares are unknown: those are taken that come nearest to no lags
    beyond the box. Other gaps take the mean.
    """
    y, hole = filled(y), hole_in_the_middle(y)
    row, column = middle(y.shape)
    hole[:, row - NEAR : row + NEAR + 1, column - NEAR : column + NEAR + 1] = True
    energy = np.where(hole, 0.0, y) ** 2
    level = 4 * noise**2 * energy.sum()
    return _end(energy, hole, level), _end(energy.swapaxes(1, 2), hole.swapaxes(1, 2), level)


def hole_in_the_middle(y: np.ndarray) -> np.ndarray:
    """Booleans (C, H, W): the missing pixels, their opposites too, that hang together with the zero frequency."""
    missing, (row, column) = np.isnan(y) & np.isnan(opposite(y, middle(y.shape))), middle(y.shape)
    parts = [scipy.ndimage.label(channel)[0] for channel in missing]
    return np.stack([(part == part[row, column]) & (part > 0) for part in parts])


def _end(energy: np.ndarray, hole: np.ndarray, level: float) -> int:
    """The smallest n beyond whose lags squared magnitudes (C, H, W), unknown in the hole, may have nothing; H: none is.

    level: mean square of a lag of the noise. The transform is along the rows alone: by Parseval a row of lags has the energy of
    its frequencies, and the unknowns of a column change that column only.
    """
    side, nothing = energy.shape[1], (ROUNDED * energy.sum()) ** 2
    waves = np.exp(-2j * np.pi * np.outer(np.arange(side), np.arange(side)) / side)  # (lag, row)
    columns = np.moveaxis(np.fft.fft(energy, axis=1), 1, 0).reshape(side, -1)  # (lag, C W)
    patterns, of_column = np.unique(np.moveaxis(hole, 1, 0).reshape(side, -1), axis=1, return_inverse=True)

    def is_empty(n: int) -> bool:
        far = slice(n, side - n + 1)  # lags n and beyond, of either sign
        left = columns[far].copy()
        for number, pattern in enumerate(patterns.T):
            if pattern.any():  # what the unknown squares can explain is taken off
                basis, size, _ = np.linalg.svd(waves[far, pattern], full_matrices=False)
                basis, with_pattern = basis[:, size > RANK * size[0]], of_column.ravel() == number
                left[:, with_pattern] -= basis @ (basis.conj().T @ left[:, with_pattern])
        line = (np.abs(left) ** 2).sum(1)  # mean square of the lags of each row
        quiet = float(np.median(np.sort(line)[: len(line) // 4])) if len(line) >= 8 else np.inf
        return bool(line.max() <= max(ABOVE**2 * min(level, quiet), nothing))

    first, last = 1, (side + 1 - PER_HIDDEN * int(patterns.sum(0).max())) // 2
    if last < first or not is_empty(last):
        return side
    while first < last:
        n = (first + last) // 2
        first, last = (first, n) if is_empty(n) else (n + 1, last)
    return first


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
    sides, measured = y.shape[-2:], np.isfinite(y)
    away = [scipy.ndimage.distance_transform_edt(np.pad(channel, 1))[1:-1, 1:-1] for channel in measured]
    weights = np.clip(np.stack(away) / RIM, 0, 1)
    energy, pixels = np.where(measured, y, 0.0) ** 2, np.indices(sides)
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

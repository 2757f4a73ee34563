"""Frames of a detector of drawn objects, by the definition of the Fourier transform."""

import numpy as np

SIDE, SIGMA = 64, 0.05


def picture(seed=0, rows=SIDE, columns=SIDE):
    """(3, 64, 64) in [0, 1], of blocks; 0 outside of rows x columns in its middle."""
    rng = np.random.default_rng(seed)
    x = np.kron(rng.uniform(0.2, 1, (3, 16, 16)), np.ones((4, 4)))
    inside = np.zeros((SIDE, SIDE))
    top, left = (SIDE - rows) // 2, (SIDE - columns) // 2
    inside[top : top + rows, left : left + columns] = 1
    return x * inside


def frame(x, shape=(96, 96), center=None, seed=0, sigma=SIGMA):
    """Magnitudes (3, *shape) with noise of x (3, 64, 64), the zero frequency at `center`, by the sum itself."""
    center = center or (shape[0] // 2, shape[1] // 2)
    left, right = (
        np.exp(-2j * np.pi * (np.arange(m) - c)[:, None] * np.arange(SIDE) / m) / m**0.5 for m, c in zip(shape, center)
    )
    return np.abs(left @ x @ right.T) + sigma * np.random.default_rng(seed).standard_normal((3, *shape))

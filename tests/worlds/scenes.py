"""Pictures as smooth and as bright as those that a prior draws, without a file and without torch."""

import numpy as np

SIDE = 64


def image(seed):
    """(3, SIDE, SIDE) in [0, 1]: a soft scene with boxes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    picture = np.stack(
        [0.45 + 0.25 * np.sin(2 * np.pi * (rng.uniform(0.3, 2) * x + rng.uniform(0.3, 2) * y)) for _ in range(3)]
    )
    for _ in range(6):
        top, left, size = rng.integers(0, 44), rng.integers(0, 44), rng.integers(6, 20)
        picture[:, top : top + size, left : left + size] = rng.uniform(0, 1, (3, 1, 1))
    return np.clip(picture, 0, 1)

"""Tables behind the noise floors of terms that depend on what is measured.

Each value that can be measured adds a number to a floor; the numbers are chosen so that their expectation is that of the
loss at the true image, whatever its level. Ours.
"""

from collections.abc import Callable

import numpy as np
import scipy
import torch

MOST_COUNTS = 60  # from here on a count stands for its mean


def look_up(table: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """The table's value at the nearest whole place, its last one beyond its end."""
    table = table.to(place.device, place.dtype)
    return table[place.round().clamp(0, len(table) - 1).long()]


def unbiased(expected: np.ndarray, probability: np.ndarray, start: np.ndarray) -> np.ndarray:
    """g (values,) whose expectation is `expected` (levels,), as well as can be.

    probability (levels, values): of each value at each true level; start (values,): where nothing decides. Least squares with
    a small pull to `start`, so that g does not swing.
    """
    pull = 1e-2
    left = np.vstack([probability, pull * np.eye(len(start))])
    return np.linalg.lstsq(left, np.concatenate([expected, pull * start]), rcond=None)[0]


def count_tables(lowest: float, statistic: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    """{"mean", "variance"} of statistic(count, mean count), at counts 0 to MOST_COUNTS and for means from `lowest` on.

    mean: what a count adds to the floor. variance: what it adds to the variance of the value over its floor, which is smaller
    or larger than that of the value alone, since the floor follows the counts. Exact sums over the Poisson law.
    """
    levels, n = np.geomspace(lowest, MOST_COUNTS / 2, 150), np.arange(4 * MOST_COUNTS)
    levels = np.concatenate([np.full(50, lowest), levels])  # most pixels of a spectrum are dark
    places = np.arange(MOST_COUNTS + 1)
    probability = scipy.stats.poisson.pmf(places, levels[:, None])

    def expected(mu: np.ndarray, value: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return (scipy.stats.poisson.pmf(n, mu[:, None]) * value(mu[:, None])).sum(1)

    def table(value: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """value(mean counts (L, 1)): of all counts n, (L, N)."""
        return unbiased(expected(levels, value), probability, expected(np.maximum(places, lowest), value))

    mean = table(lambda mu: statistic(n, mu))
    floor = mean[np.minimum(n, MOST_COUNTS)]
    return {"mean": mean, "variance": table(lambda mu: (statistic(n, mu) - floor) ** 2)}

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
    """{"mean", "variance"} of statistic(count, mean count) for counts 0 to MOST_COUNTS and means from `lowest` on: exact sums
    over the Poisson law."""
    levels, n = np.geomspace(lowest, MOST_COUNTS / 2, 150), np.arange(4 * MOST_COUNTS)
    levels = np.concatenate([np.full(50, lowest), levels])  # most pixels of a spectrum are dark
    places = np.arange(MOST_COUNTS + 1)

    def moments(mu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p, value = scipy.stats.poisson.pmf(n, mu[:, None]), statistic(n, mu[:, None])
        first = (p * value).sum(1)
        return first, (p * value**2).sum(1) - first**2

    probability = scipy.stats.poisson.pmf(places, levels[:, None])
    expected, at_counts = moments(levels), moments(np.maximum(places, lowest))
    return {what: unbiased(expected[i], probability, at_counts[i]) for i, what in enumerate(("mean", "variance"))}

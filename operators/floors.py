"""Tables behind the noise floors of operators/fidelity.py that depend on what is measured.

Each value that can be measured adds a number to a floor; the numbers are chosen so that their expectation is that of the
loss at the true image, whatever its level. Ours.
"""

from collections.abc import Callable, Collection

import numpy as np
import scipy.special
import scipy.stats
import torch

COUNTED = ("poisson", "amplitude")
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


def count_tables(lowest: float, names: Collection[str]) -> dict[str, np.ndarray]:
    """Of counts 0 to MOST_COUNTS, in units of sigma^2, for means from `lowest` on: exact sums over the Poisson law."""
    levels, n = np.geomspace(lowest, MOST_COUNTS / 2, 150), np.arange(4 * MOST_COUNTS)
    levels = np.concatenate([np.full(50, lowest), levels])  # most pixels of a spectrum are dark
    places = np.arange(MOST_COUNTS + 1)
    statistics: dict[str, Callable] = {
        "poisson": lambda n, mu: 2 * (mu - n + scipy.special.xlogy(n, n) - n * np.log(mu)),
        "amplitude": lambda n, mu: 4 * (np.sqrt(mu + 1 / 8) - np.sqrt(n + 3 / 8)) ** 2,
    }

    def moments(name, mu):
        p, value = scipy.stats.poisson.pmf(n, mu[:, None]), statistics[name](n, mu[:, None])
        first = (p * value).sum(1)
        return first, (p * value**2).sum(1) - first**2

    probability = scipy.stats.poisson.pmf(places, levels[:, None])
    found = {}
    for name in (name for name in COUNTED if name in names):
        at_levels, at_counts = moments(name, levels), moments(name, np.maximum(places, lowest))
        for what, expected, start in zip(("mean", "variance"), at_levels, at_counts):
            found[f"{name}_{what}"] = unbiased(expected, probability, start)
    return found


EDGE, TAIL, STEP = 5.0, 25.0, 0.25  # of the table of silog: values from -EDGE to TAIL, in sigma


def silog_tables() -> dict[str, np.ndarray]:
    """Of values y / sigma from -EDGE to TAIL: first and second moment of d, and the variance of d^2."""
    places, levels = np.arange(-EDGE, TAIL + STEP, STEP), np.concatenate([np.zeros(20), np.linspace(0, TAIL - 5, 120)])
    e = np.linspace(-6, 6, 1201)
    weight = np.exp(-(e**2) / 2)
    weight /= weight.sum()

    def moments(level):
        d = np.log((level[:, None] + 1) / (np.maximum(level[:, None] + e, 0) + 1))
        first, square, fourth = ((weight * d**power).sum(1) for power in (1, 2, 4))
        return {"first": first, "square": square, "variance": fourth - square**2}

    nearest = np.clip(np.round((levels[:, None] + e + EDGE) / STEP), 0, len(places) - 1).astype(int)  # (levels, draws)
    probability = np.stack([np.bincount(row, weight, len(places)) for row in nearest])
    at_levels, at_places = moments(levels), moments(np.maximum(places, 0))
    return {f"silog_{what}": unbiased(at_levels[what], probability, at_places[what]) for what in at_levels}

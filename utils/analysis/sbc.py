"""Simulation-based calibration: truths drawn from the prior, and how samples of the posterior should lie around them.

If P samples and the truth are draws of one posterior, the truth's rank among them is uniform on 0 .. P, and a central
interval of the samples covers it at its nominal rate (Talts et al., arXiv 1804.06788). The mean of n samples is then off
from the truth by (1 + 1/n) of their variance: n + 1 draws of one law.
"""

from collections.abc import Sequence

import numpy as np
import scipy  # its statistics load when they are first used: they take as long as all else here

from utils.analysis.stats import LEVEL, Estimate

DRAWS = 4000  # of a bootstrap or a simulated test


def ranks_of(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How many of the samples (P, ...) lie below the truth (...): int (...)."""
    return (samples < truth).sum(0)


def within(ranks: np.ndarray, particles: int, outside: int = 1) -> np.ndarray:
    """Whether each rank lies inside all but the `outside` outermost samples on either side; 1: between least and greatest."""
    return (ranks >= outside) & (ranks <= particles - outside)


def ratio_of_sums(above: Sequence[float], below: Sequence[float]) -> Estimate:
    """sum(above) / sum(below) over truths, with the interval of a bootstrap over them; of one truth without interval."""
    a, b = np.asarray(above, float), np.asarray(below, float)
    value = float(a.sum() / b.sum())
    if len(a) < 2:
        return Estimate(value, None, None)
    drawn = np.random.default_rng(0).integers(len(a), size=(DRAWS, len(a)))
    low, high = np.quantile(a[drawn].sum(1) / b[drawn].sum(1), [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return Estimate(value, float(low), float(high))


def orientation_tests(turned: Sequence[int], counts: Sequence[int]) -> dict[str, float | int | None]:
    """Whether particles take the two orientations as fair coins: turned[i] of the counts[i] of truth i lie at 180 degrees.

    p: exact two-sided binomial test of all of them against 1/2. dispersion: the mean of (2 k - n)^2 / n over truths, 1 for
    independent fair coins, below where particles repel each other, up to n where they follow each other; p_dispersion: its
    two-sided p by simulation. Values are None without particles.
    """
    pairs = [(k, n) for k, n in zip(turned, counts) if n]
    total, of = sum(k for k, _ in pairs), sum(n for _, n in pairs)
    if not of:
        return {"turned": 0, "of": 0, "p": None, "dispersion": None, "p_dispersion": None}
    n = np.array([n for _, n in pairs])

    def dispersion(k: np.ndarray) -> np.ndarray:
        return ((2 * k - n) ** 2 / n).mean(-1)

    observed = float(dispersion(np.array([k for k, _ in pairs])))
    drawn = dispersion(np.random.default_rng(0).binomial(n, 0.5, size=(DRAWS, len(n))))
    tails = [(1 + np.sum(side)) / (1 + DRAWS) for side in (drawn <= observed + 1e-9, drawn >= observed - 1e-9)]
    p = min(1.0, 2 * float(min(tails)))
    return {
        "turned": total,
        "of": of,
        "p": float(scipy.stats.binomtest(total, of).pvalue),
        "dispersion": observed,
        "p_dispersion": p,
    }

"""Whether ranks of truths among samples are those of draws of one law (utils/analysis/sbc.py)."""

import numpy as np
from scipy import stats

from utils.analysis.sbc import within
from utils.analysis.stats import Estimate, wilson


def uniformity(ranks: np.ndarray, particles: int, bins: int = 20) -> float:
    """p value of the chi-square test that independent ranks 0 .. particles (of any shape) are uniform, in equal bins."""
    counts = np.bincount(ranks.ravel() * bins // (particles + 1), minlength=bins)
    return float(stats.chisquare(counts).pvalue)


def coverage(ranks: np.ndarray, particles: int, level: float) -> Estimate:
    """How many of the truths lie in the samples' central interval of a nominal level, with Wilson's interval.

    ranks: independent ones, of any shape; level: a multiple of 2 / (particles + 1), so that order statistics bound it exactly.
    """
    inside = within(ranks, particles, round((1 - level) / 2 * (particles + 1)))
    estimate = wilson(float(inside.mean()), inside.size)
    assert estimate is not None, "no ranks"
    return estimate

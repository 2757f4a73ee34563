"""Statistics of experiments: intervals of rates, image-clustered bootstrap, the expected best of k particles."""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95  # of every interval
RESAMPLES = 9999
FEW = 10  # images; below, a bootstrap interval of nominally 95 % covers 50 to 85 %
SEED = 42  # of the bootstrap: the same records give the same table


class Estimate(NamedTuple):
    """A value with its confidence interval; low and high are None where they cannot be known."""

    value: float
    low: float | None
    high: float | None


def wilson(rate: float, n: int, level: float = LEVEL) -> Estimate | None:
    """Wilson's interval of a success rate in [0, 1] over n trials, as Estimate; None for n = 0.

    The rate need not be a multiple of 1/n: where an image contributes a mean over seeds or over subsets of particles,
    n is the number of images, which is conservative. Source: Wilson, J. Am. Stat. Assoc. 22 (1927).
    """
    return Estimate(rate, *_wilson(rate, n, level)) if n else None


def _wilson(rate: float, n: int, level: float) -> tuple[float, float]:
    """The ends of Wilson's interval, n > 0."""
    z = stats.norm.ppf(0.5 + level / 2)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def clustered_mean(clusters: Sequence[Sequence[float]], level: float = LEVEL) -> Estimate | None:
    """Mean of all values with a bootstrap interval that resamples whole clusters (images), as Estimate; None if empty.

    clusters: one list of values per image (one value per seed). Values of one image are not independent, so it is the
    images that are drawn. Bias-corrected and accelerated interval (scipy.stats.bootstrap), percentiles where that one
    is not defined. Fewer than FEW images have Student's interval, a single one has none.
    """
    clusters = [values for values in clusters if len(values)]
    if not clusters:
        return None
    sums = np.array([math.fsum(values) for values in clusters])
    counts = np.array([len(values) for values in clusters], dtype=float)

    def mean(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
        return sums.sum(axis) / counts.sum(axis)

    value = float(mean(sums, counts))
    if len(clusters) == 1:
        return Estimate(value, None, None)
    if np.ptp(sums / counts) == 0:  # all images agree: every resample gives the same mean
        return Estimate(value, value, value)
    if len(clusters) < FEW:  # of a ratio of sums, by its linear part in each image
        error = np.std((sums - value * counts) / counts.mean(), ddof=1) / math.sqrt(len(clusters))
        half = float(stats.t.ppf(0.5 + level / 2, len(clusters) - 1) * error)
        return Estimate(value, value - half, value + half)
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns where BCa is not defined; that is handled here
            found = stats.bootstrap(
                (sums, counts),
                mean,
                paired=True,
                vectorized=True,
                n_resamples=RESAMPLES,
                batch=1000,
                confidence_level=level,
                method=method,
                rng=np.random.default_rng(SEED),
            )
        low, high = map(float, found.confidence_interval)
        if math.isfinite(low) and math.isfinite(high):
            break
    return Estimate(value, low, high)


def paired_rate(clusters: Sequence[Sequence[float]], level: float = LEVEL) -> Estimate | None:
    """Mean difference of two rates measured on the same images, as Estimate; None if empty.

    clusters: one list of differences in [-1, 1] per image. A bootstrap knows nothing of a change that none of the images
    shows, so the interval joins Wilson's intervals of the shares of rises and of falls, n = number of images, with
    their (multinomial) correlation. Source: Zou and Donner, Stat. Med. 27 (2008), MOVER.
    """
    means = [math.fsum(values) / len(values) for values in clusters if len(values)]
    if not means:
        return None
    n = len(means)
    p, q = (math.fsum(max(0.0, sign * d) for d in means) / n for sign in (1, -1))  # the shares of rises and of falls
    (p_low, p_high), (q_low, q_high) = _wilson(p, n, level), _wilson(q, n, level)
    correlation = -math.sqrt(p * q / ((1 - p) * (1 - q))) if p < 1 and q < 1 else 0.0

    def reach(a: float, b: float) -> float:
        return math.sqrt(a * a + b * b - 2 * correlation * a * b)

    low, high = p - q - reach(p - p_low, q_high - q), p - q + reach(p_high - p, q - q_low)
    return Estimate(p - q, max(-1.0, low), min(1.0, high))


def best_of_k(values: Sequence[float | None], k: int) -> float | None:
    """Expected maximum over all subsets of k of the values; None if a value is missing or there are fewer than k.

    For the minimum (LPIPS) negate the values. Exact, by order statistics: the i-th smallest of n is the maximum of
    C(i-1, k-1) of the C(n, k) subsets. So the pairs of a run with four independent particles say what two would give.
    """
    known = [v for v in values if v is not None]
    if len(known) < max(k, len(values)):
        return None
    ordered, subsets = sorted(known), math.comb(len(known), k)
    return sum(math.comb(i, k - 1) / subsets * v for i, v in enumerate(ordered))


def any_of_k(successes: Sequence[bool], k: int) -> float | None:
    """Probability that a random subset of k particles holds a success; `successes` is a list of booleans."""
    n, failed = len(successes), sum(not s for s in successes)
    return None if n < k else 1 - math.comb(failed, k) / math.comb(n, k)

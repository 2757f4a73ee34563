"""Statistics of experiments: intervals of rates and of means over images, paired tests, the expected best of k particles."""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # its statistics load when they are first used: they take as long as all else here

LEVEL = 0.95  # of every interval
RESAMPLES = 9999
# Images; below, a BCa interval of nominally 95 % covers 86 % (6 images) to 93 % (29) of normal values, Student's 94 to 96 %.
# Of a change of 12 dB in one image of ten both cover about 48 % (6 images), 63 % (10), 87 % (20).
FEW_IMAGES = 5  # below it tables and figures leave intervals out, which would span nearly everything
FEW = 30
SEED = 42  # of the bootstrap: the same records give the same table


class Estimate(NamedTuple):
    """A value with its confidence interval; low and high are None where they cannot be known."""

    value: float
    low: float | None
    high: float | None


def wilson(rate: float, n: int) -> Estimate | None:
    """Wilson's interval of a success rate in [0, 1] over n trials, as Estimate; None for n = 0.

    The rate need not be a multiple of 1/n: where an image contributes a mean over seeds or over subsets of particles,
    n is the number of images, which is conservative. Source: Wilson, J. Am. Stat. Assoc. 22 (1927).
    """
    return Estimate(rate, *_wilson(rate, n)) if n else None


def _wilson(rate: float, n: int) -> tuple[float, float]:
    """The ends of Wilson's interval, n > 0."""
    z = float(scipy.special.ndtri(0.5 + LEVEL / 2))  # as scipy.stats.norm.ppf, without loading the statistics
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))  # rounding puts 0 and 1 outside


def clustered_mean(clusters: Sequence[Sequence[float]], weights: Sequence[Sequence[float]] | None = None) -> Estimate | None:
    """Mean of all values with an interval whose unit is the image (the cluster), as Estimate; None if empty.

    clusters: one list of values per image (one value per sampler seed); weights: the same shape, positive, default 1.
    Fewer than FEW images have Student's interval, a single one has none. From FEW on a bootstrap draws images:
    bias-corrected and accelerated (scipy.stats.bootstrap), percentiles where that one is not defined. Where an image
    has several seeds they are nested in it, and the bootstrap is hierarchical, see nested_means.
    """
    weights = weights or [[1.0] * len(values) for values in clusters]
    filled = [(values, weight) for values, weight in zip(clusters, weights) if len(values)]
    if not filled:
        return None
    sums = np.array([math.fsum(v * w for v, w in zip(values, weight)) for values, weight in filled])
    counts = np.array([math.fsum(weight) for _, weight in filled])

    def mean(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
        return sums.sum(axis) / counts.sum(axis)

    value = float(mean(sums, counts))
    if len(filled) == 1:
        return Estimate(value, None, None)
    if len({v for values, _ in filled for v in values}) == 1:  # all agree: every resample gives the same mean
        return Estimate(value, value, value)
    if len(filled) < FEW:  # of a ratio of sums, by its linear part in each image
        error = np.std((sums - value * counts) / counts.mean(), ddof=1) / math.sqrt(len(filled))
        half = float(scipy.stats.t.ppf(0.5 + LEVEL / 2, len(filled) - 1) * error)
        return Estimate(value, value - half, value + half)
    if any(len(values) > 1 for values, _ in filled):
        low, high = np.quantile(nested_means(*zip(*filled)), [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
        return Estimate(value, float(low), float(high))
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns where BCa is not defined; that is handled here
            resampled = scipy.stats.bootstrap(
                (sums, counts),
                mean,
                paired=True,
                vectorized=True,
                n_resamples=RESAMPLES,
                batch=1000,
                confidence_level=LEVEL,
                method=method,
                rng=np.random.default_rng(SEED),
            )
        low, high = map(float, resampled.confidence_interval)
        if math.isfinite(low) and math.isfinite(high):
            break
    return Estimate(value, low, high)


def nested_means(clusters: Sequence[Sequence[float]], weights: Sequence[Sequence[float]]) -> np.ndarray:
    """RESAMPLES weighted means of a hierarchical bootstrap: images are drawn, then seeds within each drawn image.

    With n images of m seeds, a variance of their means v and a mean variance within them of w (both with divisors n and
    m) a resampled mean has the variance (v + w / m) / n. That of the cluster bootstrap alone is v / n, which is right on
    average already; the second level makes the interval conservative. Source: Davison and Hinkley, Bootstrap Methods and
    their Application (1997), section 3.8.
    """
    counts = np.array([len(values) for values in clusters])
    n, most = len(counts), int(counts.max())
    values, weight = (np.zeros((n, most)) for _ in range(2))
    for i, (v, w) in enumerate(zip(clusters, weights)):
        values[i, : len(v)], weight[i, : len(v)] = v, w
    rng, means = np.random.default_rng(SEED), []
    for start in range(0, RESAMPLES, 500):  # bounds the memory
        image = rng.integers(n, size=(min(500, RESAMPLES - start), n, 1))
        held = counts[image]  # seeds of each drawn image
        seed = np.floor(rng.random((*image.shape[:2], most)) * held).astype(int)
        drawn = np.where(np.arange(most) < held, weight[image, seed], 0.0)
        means.append((values[image, seed] * drawn).sum((1, 2)) / drawn.sum((1, 2)))
    return np.concatenate(means)


def paired_rate(clusters: Sequence[Sequence[float]]) -> Estimate | None:
    """Mean difference of two rates measured on the same images, as Estimate; None if empty.

    clusters: one list of differences in [-1, 1] per image. A bootstrap knows nothing of a change that none of the images
    shows, so the interval joins Wilson's intervals of the shares of rises and of falls, n = number of images, with
    their (multinomial) correlation. Source: Zou and Donner, Stat. Med. 27 (2008), MOVER.
    """
    means = [math.fsum(values) / len(values) for values in clusters if len(values)]
    if not means:
        return None
    n = len(means)
    p = math.fsum(max(0.0, d) for d in means) / n  # the share of rises
    q = math.fsum(max(0.0, -d) for d in means) / n  # the share of falls
    (p_low, p_high), (q_low, q_high) = _wilson(p, n), _wilson(q, n)
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
    numbers = [v for v in values if v is not None]
    if len(numbers) < max(k, len(values)):
        return None
    ordered, subsets = sorted(numbers), math.comb(len(numbers), k)
    return sum(math.comb(i, k - 1) / subsets * v for i, v in enumerate(ordered))


def pick_of_k(losses: Sequence[float | None], values: Sequence[float | None], k: int) -> float | None:
    """Expected value of the particle of the lowest loss over all subsets of k; None as in best_of_k.

    The particle of rank r (from 0) by loss is the lowest of C(n-1-r, k-1) of the C(n, k) subsets.
    """
    pairs = [(loss, value) for loss, value in zip(losses, values, strict=True) if loss is not None and value is not None]
    n = len(values)
    if n < k or len(pairs) < n:
        return None
    ranked = [value for _, value in sorted(pairs, key=lambda pair: pair[0])]
    return sum(math.comb(n - 1 - r, k - 1) / math.comb(n, k) * value for r, value in enumerate(ranked))


def any_of_k(successes: Sequence[bool], k: int) -> float | None:
    """Probability that a random subset of k particles holds a success; `successes` is a list of booleans."""
    n, failed = len(successes), sum(not s for s in successes)
    return None if n < k else 1 - math.comb(failed, k) / math.comb(n, k)


def quantiles(values: Sequence[float]) -> tuple[float, float] | None:
    """(median, 5 % quantile) with linear interpolation between order statistics; None where there is no value.

    What a mean hides of a bimodal quantity. Of fewer than 20 values the second lies between the two lowest.
    """
    if not values:
        return None
    median, low = np.quantile(values, (0.5, 0.05))
    return float(median), float(low)


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact two-sided p: so many images succeed only with the one, so many only with the other.

    Under the null hypothesis each of them falls to either side with probability 1/2; 1 where there is none.
    Source: McNemar, Psychometrika 12 (1947); the exact form is the binomial test of the discordant pairs.
    """
    return float(scipy.stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def wilcoxon(differences: Sequence[float]) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test of differences per image; None if empty, 1 where all are zero.

    Zeros are left out, as Wilcoxon did; differences are compared to nine decimals, so that rounding makes neither a change
    nor an order. Exact for small numbers without ties, else by the normal approximation (scipy).
    Source: Wilcoxon, Biometrics Bulletin 1 (1945).
    """
    if not len(differences):
        return None
    changed = [d for d in np.round(differences, 9) if d]
    return float(scipy.stats.wilcoxon(changed).pvalue) if changed else 1.0

"""The statistics of the tables, against scipy and against enumeration."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from utils.analysis import stats


@pytest.mark.parametrize("k, n", [(0, 10), (3, 10), (10, 10), (97, 100), (1, 1)])
def test_wilson_is_that_of_scipy(k, n):
    expected = scipy_stats.binomtest(k, n).proportion_ci(method="wilson")
    found = stats.wilson(k / n, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert stats.wilson(0.0, 0) is None


def test_the_bootstrap_of_independent_values_agrees_with_students_interval():
    values = np.random.default_rng(0).normal(3.0, 2.0, 200)
    found = stats.clustered_mean([[v] for v in values])
    low, high = scipy_stats.t.interval(0.95, 199, values.mean(), values.std(ddof=1) / 200**0.5)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05)  # Monte-Carlo error of 9999 resamples: 0.005


def coverage_of_zero(as_clusters):
    """How often the interval holds the true mean 0, when 20 images have 5 nearly equal values each."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        clusters = rng.normal(size=(20, 1)) + 0.1 * rng.normal(size=(20, 5))
        found = stats.clustered_mean(clusters.tolist() if as_clusters else [[v] for v in clusters.ravel()])
        held += found.low <= 0 <= found.high
    return held


def test_clustering_by_image_keeps_the_level_and_ignoring_it_does_not(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 500)
    assert coverage_of_zero(as_clusters=True) >= 86  # nominal 95, slightly less with 20 images; 4 standard deviations
    assert coverage_of_zero(as_clusters=False) <= 75  # negative control: 100 values taken for independent


def test_degenerate_bootstraps():
    assert stats.clustered_mean([]) is None and stats.clustered_mean([[], []]) is None
    assert stats.clustered_mean([[2.0, 4.0]]) == (3.0, None, None)
    assert stats.clustered_mean([[0.0]] * 5) == (0.0, 0.0, 0.0)
    one_of_many = stats.clustered_mean([[1.0]] + [[0.0]] * 9)
    assert one_of_many.value == pytest.approx(0.1) and 0 <= one_of_many.low <= 0.1 <= one_of_many.high <= 0.5


def test_few_images_have_students_interval():
    values = np.random.default_rng(3).normal(size=stats.FEW - 1)
    found = stats.clustered_mean([[v] for v in values])
    expected = scipy_stats.t.interval(0.95, len(values) - 1, values.mean(), scipy_stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)
    assert stats.clustered_mean([[v, v] for v in values]) == pytest.approx(found)  # a second seed alike adds nothing


def test_a_change_that_no_image_shows_is_not_ruled_out():
    found = stats.paired_rate([[0.0]] * 50)
    bound = scipy_stats.binomtest(0, 50).proportion_ci(method="wilson").high
    assert (found.value, found.low, found.high) == pytest.approx((0.0, -bound, bound))
    assert stats.paired_rate([]) is None and stats.paired_rate([[1.0]]).low < 1 == stats.paired_rate([[1.0]]).high


@pytest.mark.parametrize("rises, falls, n", [(0.02, 0.02, 100), (0.1, 0.02, 50), (0.3, 0.2, 20), (0.0, 0.05, 100)])
def test_intervals_of_paired_rates_hold_the_difference(rises, falls, n):
    counts = np.random.default_rng(4).multinomial(n, (rises, falls, 1 - rises - falls), 1000)
    found = [stats.paired_rate([[1.0]] * a + [[-1.0]] * b + [[0.0]] * c) for a, b, c in counts]
    held = np.mean([f.low <= rises - falls <= f.high for f in found])
    assert held >= 0.93  # nominal 0.95; 1000 draws have a standard deviation of 0.007


def test_the_same_values_give_the_same_interval():
    values = [[float(v)] for v in np.random.default_rng(2).normal(size=12)]
    assert stats.clustered_mean(values) == stats.clustered_mean(values)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_best_of_k_is_the_mean_over_all_subsets(k):
    values, successes = [3.0, -1.0, 7.5, 2.0], [False, True, False, True]
    assert stats.best_of_k(values, k) == pytest.approx(np.mean([max(s) for s in combinations(values, k)]))
    assert stats.any_of_k(successes, k) == pytest.approx(np.mean([any(s) for s in combinations(successes, k)]))


def test_best_of_k_needs_k_known_values():
    assert stats.best_of_k([1.0, None, 2.0], 2) is None and stats.best_of_k([1.0], 2) is None
    assert stats.any_of_k([True], 2) is None

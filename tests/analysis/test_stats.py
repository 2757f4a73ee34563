"""The statistics of the tables, against scipy and against enumeration."""

from itertools import combinations, product

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


def test_a_rate_lies_in_its_interval_for_every_number_of_images():
    for n in range(1, 300):
        none, every = stats.wilson(0.0, n), stats.wilson(1.0, n)
        assert none.low == 0.0 < none.high and every.low < 1.0 == every.high


def test_the_bootstrap_of_independent_values_agrees_with_students_interval():
    values = np.random.default_rng(0).normal(3.0, 2.0, 200)
    found = stats.clustered_mean([[v] for v in values])
    low, high = scipy_stats.t.interval(0.95, 199, values.mean(), values.std(ddof=1) / 200**0.5)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05)  # Monte-Carlo error of 9999 resamples: 0.005


def coverage_of_zero(as_clusters):
    """How often the interval holds the true mean 0, when 30 images have 5 nearly equal values each."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        clusters = rng.normal(size=(30, 1)) + 0.1 * rng.normal(size=(30, 5))
        found = stats.clustered_mean(clusters.tolist() if as_clusters else [[v] for v in clusters.ravel()])
        held += found.low <= 0 <= found.high
    return held


@pytest.mark.heavy
def test_clustering_by_image_keeps_the_level_and_ignoring_it_does_not(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 500)
    assert coverage_of_zero(as_clusters=True) >= 86  # nominal 95, slightly less with 30 images; 4 standard deviations
    assert coverage_of_zero(as_clusters=False) <= 75  # negative control: 100 values taken for independent


def test_degenerate_bootstraps():
    assert stats.clustered_mean([]) is None and stats.clustered_mean([[], []]) is None
    assert stats.clustered_mean([[2.0, 4.0]]) == (3.0, None, None)
    assert stats.clustered_mean([[0.0]] * 5) == (0.0, 0.0, 0.0)
    one_of_many = stats.clustered_mean([[1.0]] + [[0.0]] * 39)
    assert one_of_many.value == pytest.approx(0.025) and 0 <= one_of_many.low <= 0.025 <= one_of_many.high <= 0.2


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


@pytest.mark.heavy
@pytest.mark.parametrize("rises, falls, n", [(0.02, 0.02, 100), (0.1, 0.02, 50), (0.3, 0.2, 20), (0.0, 0.05, 100)])
def test_intervals_of_paired_rates_hold_the_difference(rises, falls, n):
    counts = np.random.default_rng(4).multinomial(n, (rises, falls, 1 - rises - falls), 1000)
    found = [stats.paired_rate([[1.0]] * a + [[-1.0]] * b + [[0.0]] * c) for a, b, c in counts]
    held = np.mean([f.low <= rises - falls <= f.high for f in found])
    assert held >= 0.93  # nominal 0.95; 1000 draws have a standard deviation of 0.007


def test_the_same_values_give_the_same_interval():
    values = np.random.default_rng(2).normal(size=(40, 2)).tolist()
    assert stats.clustered_mean(values) == stats.clustered_mean(values)
    single = [[a] for a, _ in values]
    assert stats.clustered_mean(single) == stats.clustered_mean(single)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_best_of_k_is_the_mean_over_all_subsets(k):
    values, successes = [3.0, -1.0, 7.5, 2.0], [False, True, False, True]
    assert stats.best_of_k(values, k) == pytest.approx(np.mean([max(s) for s in combinations(values, k)]))
    assert stats.any_of_k(successes, k) == pytest.approx(np.mean([any(s) for s in combinations(successes, k)]))
    losses = [0.7, 0.2, 0.9, 0.4]
    picked = [values[min(subset, key=lambda i: losses[i])] for subset in combinations(range(4), k)]
    assert stats.pick_of_k(losses, values, k) == pytest.approx(np.mean(picked))


def test_best_of_k_needs_k_known_values():
    assert stats.best_of_k([1.0, None, 2.0], 2) is None and stats.best_of_k([1.0], 2) is None
    assert stats.any_of_k([True], 2) is None
    assert stats.pick_of_k([1.0, None], [3.0, 4.0], 1) is None and stats.pick_of_k([1.0], [3.0], 2) is None


def coverage(images, few):
    """How often the interval of so many normal values holds their mean, of 400; few: below it Student's interval."""
    rng = np.random.default_rng(5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stats, "RESAMPLES", 500)
        patch.setattr(stats, "FEW", few)
        found = [stats.clustered_mean([[v] for v in rng.normal(size=images)]) for _ in range(400)]
    return np.mean([f.low <= 0 <= f.high for f in found])


@pytest.mark.parametrize("images", [6, 10, 20, 29])
def test_below_thirty_images_students_interval_keeps_its_level(images):
    assert coverage(images, stats.FEW) >= 0.925  # nominal 0.95, 400 draws have a standard deviation of 0.011


@pytest.mark.heavy
@pytest.mark.parametrize("images, most", [(6, 0.90), (10, 0.91)])
def test_a_bootstrap_of_few_images_does_not(images, most):
    assert coverage(images, 0) <= most  # negative control: why FEW is there


def test_from_thirty_images_on_it_is_a_bootstrap():
    skewed = (np.random.default_rng(6).random(30) < 0.15) * 12.0
    assert stats.FEW == 30
    found, mean = stats.clustered_mean([[v] for v in skewed]), skewed.mean()
    assert found.high - mean > 1.2 * (mean - found.low)  # Student's is symmetric
    few = stats.clustered_mean([[v] for v in skewed[:29]])
    assert few.high - few.value == pytest.approx(few.value - few.low)


def test_nested_seeds_are_resampled_within_their_image():
    values = np.random.default_rng(7).normal(0, 2, (50, 3)) + np.random.default_rng(8).normal(size=(50, 1))
    means = stats.nested_means(values, np.ones_like(values))
    between, within = values.mean(1).var(), values.var(1).mean()
    assert len(means) == stats.RESAMPLES and means.mean() == pytest.approx(values.mean(), abs=0.01)
    assert means.var() == pytest.approx((between + within / 3) / 50, rel=0.06)  # 9999 draws: 0.014 relative
    assert within / 3 > 0.15 * between  # the images alone would miss by more than the tolerance


def test_images_that_agree_in_the_mean_of_their_seeds_are_not_certain():
    found = stats.clustered_mean([[0.0, 1.0]] * 40)
    # 80 draws of a coin: standard deviation 0.5 / sqrt(80) = 0.056
    assert (found.low, found.high) == pytest.approx((0.5 - 1.96 * 0.0559, 0.5 + 1.96 * 0.0559), abs=0.015)


def test_seeds_count_by_their_weight():
    clusters, weights = [[0.0, 1.0], [1.0], [0.5, 0.5]], [[1, 3], [4], [2, 2]]
    plain = [[0.0, 1.0, 1.0, 1.0], [1.0] * 4, [0.5] * 4]
    assert stats.clustered_mean(clusters, weights=weights) == pytest.approx(stats.clustered_mean(plain))
    # drawn are seeds, not particles: an image's mean is 0, 3/4 or 1, never that of four independent draws
    means = stats.nested_means([[0.0, 1.0]], [[1, 3]])
    assert set(np.round(means, 12)) == {0.0, 0.75, 1.0}


def test_quantiles_of_two_modes():
    values = [10.0] * 3 + [25.0] * 17
    assert stats.quantiles(values) == (25.0, 10.0) and np.mean(values) == 22.75
    assert stats.quantiles([1.0, 2.0, 3.0, 5.0]) == pytest.approx((2.5, 1.15))  # 0.15 of the way from 1 to 2
    assert stats.quantiles([]) is None


@pytest.mark.parametrize("gained, lost, p", [(5, 0, 0.0625), (6, 0, 0.03125), (7, 1, 0.0703125), (2, 2, 1.0), (0, 0, 1.0)])
def test_mcnemars_p_is_counted_by_hand(gained, lost, p):
    """Both tails of C(n, k) / 2^n: (1 + 8) / 256 x 2 for seven to one."""
    assert stats.mcnemar(gained, lost) == stats.mcnemar(lost, gained) == pytest.approx(p, abs=1e-15)


def test_wilcoxons_p_is_that_of_all_signs():
    differences = [0.3, -0.1, 0.8, 1.7, -0.2, 2.0, 0.9]
    ranks = scipy_stats.rankdata(np.abs(differences))
    positive = ranks[np.array(differences) > 0].sum()
    sums = [sum(r for r, up in zip(ranks, signs) if up) for signs in product((False, True), repeat=7)]
    expected = 2 * min(np.mean([s >= positive for s in sums]), np.mean([s <= positive for s in sums]))
    assert stats.wilcoxon(differences) == pytest.approx(expected) and expected == pytest.approx(0.078125)
    assert stats.wilcoxon([*differences, 0.0, 0.0]) == pytest.approx(expected)  # images that did not change
    assert stats.wilcoxon([*differences, 1e-15, -1e-16]) == pytest.approx(expected)  # nor by more than rounding
    assert stats.wilcoxon([0.0, 0.0]) == 1.0 and stats.wilcoxon([]) is None


def test_the_robust_test_is_not_moved_by_a_few_images_and_the_mean_is():
    """Six images of 200 gain 10 dB, the others change by noise: the interval excludes zero, the test does not reject."""
    noise = np.random.default_rng(9).normal(0, 0.001, 194)
    differences = [*noise, *[10.0] * 6]
    assert stats.clustered_mean([[d] for d in differences]).low > 0.05 < stats.wilcoxon(differences)

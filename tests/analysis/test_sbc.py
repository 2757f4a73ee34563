"""Ranks, coverage, spread against error, orientations, where the answers are known; with controls that are not calibrated."""

import numpy as np
import pytest

from tests.worlds.ranks import coverage, uniformity
from utils.analysis.sbc import orientation_tests, ranks_of, ratio_of_sums, within

P, TRUTHS = 9, 4000


def draws(width, seed=0):
    """(samples (P, TRUTHS), truth (TRUTHS,)): the truth of width 1 around a centre, the samples of another width."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=TRUTHS)
    return centre + width * rng.normal(size=(P, TRUTHS)), centre + rng.normal(size=TRUTHS)


def test_the_rank_counts_what_lies_below():
    assert ranks_of(np.array([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]]), np.array([2.5, 4.0])).tolist() == [2, 0]


def test_draws_of_one_law_are_uniform_and_covered_at_the_nominal_rate():
    samples, truth = draws(1.0)
    found = ranks_of(samples, truth)
    assert uniformity(found, P, P + 1) > 0.01
    for level in (0.8, 0.4):
        low_high = coverage(found, P, level)
        assert low_high.low < level < low_high.high
    assert within(found, P).mean() == coverage(found, P, 0.8).value


@pytest.mark.parametrize("width", [0.5, 2.0])
def test_another_width_is_seen(width):
    samples, truth = draws(width)
    found = ranks_of(samples, truth)
    assert uniformity(found, P, P + 1) < 1e-6
    covered = coverage(found, P, 0.8)
    assert covered.high < 0.8 if width < 1 else covered.low > 0.8


def spread_and_error(width):
    samples, truth = draws(width)
    n = len(samples)
    return samples.var(0, ddof=1) * (1 + 1 / n), (samples.mean(0) - truth) ** 2


@pytest.mark.heavy
def test_the_mean_is_off_by_one_and_an_nth_of_the_variance():
    found = ratio_of_sums(*spread_and_error(1.0))
    assert found.low < 1 < found.high and found.high - found.low < 0.15
    assert ratio_of_sums(*spread_and_error(0.5)).high < 0.5
    assert ratio_of_sums([1.0, 3.0], [2.0, 2.0]).value == 1
    assert ratio_of_sums([1.0], [2.0]) == (0.5, None, None)


def test_fair_coins_pass_and_sticking_or_repelling_ones_do_not():
    rng = np.random.default_rng(1)
    fair = orientation_tests(rng.binomial(4, 0.5, 200).tolist(), [4] * 200)
    assert fair["p"] > 0.05 and fair["p_dispersion"] > 0.05 and fair["dispersion"] == pytest.approx(1, abs=0.25)
    sticking = orientation_tests((4 * rng.binomial(1, 0.5, 50)).tolist(), [4] * 50)
    assert sticking["dispersion"] == 4 and sticking["p_dispersion"] < 0.001 and sticking["p"] > 0.01
    repelling = orientation_tests([2] * 50, [4] * 50)
    assert repelling["dispersion"] == 0 and repelling["p_dispersion"] < 0.001 and repelling["p"] == 1
    upright = orientation_tests([0] * 10, [4] * 10)
    assert upright["p"] < 1e-6 and (upright["turned"], upright["of"]) == (0, 40)


def test_images_without_an_oriented_particle_say_nothing():
    assert orientation_tests([1, 0], [2, 0])["of"] == 2
    assert orientation_tests([0], [0]) == {"turned": 0, "of": 0, "p": None, "dispersion": None, "p_dispersion": None}

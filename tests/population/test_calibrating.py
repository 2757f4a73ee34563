"""Thresholds of a certificate, on particles whose success is known."""

import numpy as np
import pytest

from utils.population.calibrating import (
    Aim,
    FinishedParticles,
    Outcome,
    Sequences,
    Thresholds,
    applied,
    best,
    calibrate,
    candidates,
)

NAN = float("nan")


def image(number, success, deviation=None, denoising=None, agreement=None, loss=None, seed=0):
    """One image's particles; unless given, they fit, the prior likes those that succeed, and none agree."""
    n = len(success)
    agreement = np.zeros((n, n)) if agreement is None else np.array(agreement, dtype=float)
    np.fill_diagonal(agreement, NAN)
    return FinishedParticles(
        ("set", number),
        np.array(loss or range(n), dtype=float),
        np.array(deviation or [0.0] * n),
        np.array([0.4 if ok else 0.8 for ok in success] if denoising is None else denoising),
        agreement,
        np.array(success),
        np.array([30.0 if ok else 10.0 for ok in success]),
    )


def test_a_schedule_starts_particles_until_one_passes():
    """Two rounds of one: from either end of the order, the failed particle costs one more."""
    found = applied([image(0, [True, False])], (1, 1), Thresholds(3.0, 0.5, None))
    assert found[:-1] == (1.0, 0.0, 0.0, 0.0, 1.5)
    assert applied([image(0, [True, False])], (2,), Thresholds(3.0, 0.5, None))[:-1] == (1.0, 0.0, 0.0, 0.0, 2.0)


def test_an_image_is_wrong_by_the_pick_among_those_that_pass():
    """Of two that pass the one of the lower loss is taken; the one that does not pass is not, however low its loss."""
    both = image(0, [False, True], denoising=[0.4, 0.4], loss=[1.0, 2.0])
    assert applied([both], (2,), Thresholds(3.0, 0.5, None)).wrong == 1.0
    assert applied([both._replace(loss=np.array([2.0, 1.0]))], (2,), Thresholds(3.0, 0.5, None)).wrong == 0.0
    one = image(0, [False, True], loss=[1.0, 2.0])
    assert applied([one], (2,), Thresholds(3.0, 0.5, None)).wrong == 0.0
    assert Sequences([one], (2,)).picked_wrong() == 1.0


def test_the_mean_psnr_is_of_the_picks_that_are_known():
    """Both particles of the second image have diverged; of the third the one that is first in half of its orders."""
    gone = image(1, [False, False], loss=[NAN, NAN])._replace(psnr=np.array([NAN, NAN]))
    half = image(2, [True, False], loss=[0.0, NAN])._replace(psnr=np.array([20.0, NAN]))
    nothing = Thresholds(-1e9, None, None)
    assert applied([image(0, [True, True]), gone, half], (1,), nothing).psnr == pytest.approx((30 + 20) / 2)
    assert np.isnan(applied([gone], (1,), nothing).psnr)


def test_an_image_is_missed_where_a_success_does_not_pass():
    rejected, failed = image(0, [True, False], deviation=[5.0, 5.0]), image(1, [False, False])
    found = applied([rejected, failed], (1, 1), Thresholds(3.0, 0.5, None))
    assert found[:-1] == (0.0, 0.0, 0.5, 0.5, 2.0)


def test_agreement_counts_among_particles_that_are_finished():
    """The pair that agrees meets in the second round at the earliest, the third particle being the first in one order."""
    pair = image(0, [True, True, False], denoising=[9.0] * 3, agreement=[[0, 0.99, 0.1], [0.99, 0, 0.1], [0.1, 0.1, 0]])
    assert applied([pair], (1, 1, 1), Thresholds(3.0, None, 0.95)).started == pytest.approx((2 + 3 + 3) / 3)
    assert applied([pair], (1,), Thresholds(3.0, None, 0.95)).accepted == 0.0


def test_what_is_not_known_does_not_pass():
    unknown = image(0, [True], deviation=[NAN], denoising=[NAN])
    assert applied([unknown], (1,), Thresholds(3.0, 0.5, None)).accepted == 0.0
    assert applied([image(0, [True], denoising=[NAN])], (1,), Thresholds(3.0, 0.5, None)).accepted == 0.0
    assert applied([image(0, [True], denoising=[NAN])], (1,), Thresholds(3.0, None, None)).accepted == 1.0


def test_candidates_lie_between_successes_and_failures():
    groups = [image(0, [True, True, False], denoising=[0.2, 0.4, 0.8]), image(1, [True, True, True], denoising=[0.3, 0.9, NAN])]
    assert sorted({t.denoising for t in candidates(groups)} - {None}) == [0.6, 0.85, 0.945]


def separable(images=40, seed=0):
    """Successes score about 0.4, failures, a third of all, about 0.8; turned ones fit the data as well."""
    rng = np.random.default_rng(seed)
    groups = []
    for number in range(images):
        success = rng.random(3) > 1 / 3
        groups.append(image(number, success.tolist(), denoising=np.where(success, 0.4, 0.8) + 0.03 * rng.normal(size=3)))
    return groups


def test_calibration_finds_the_gap_and_its_honest_rates():
    groups = separable()
    choice = calibrate(groups, (1, 1, 1), Aim(0.02))
    assert 0.45 < choice.thresholds.denoising < 0.75 and choice.thresholds.deviation == 3.0
    assert choice.on_the_same_images.wrong == choice.without.wrong == 0.0
    first = np.mean([group.success.mean() for group in groups])
    assert choice.on_the_same_images.started == pytest.approx(applied(groups, (1, 1, 1), Thresholds(3.0, 0.6, None)).started)
    assert 1 < choice.on_the_same_images.started < 2 and applied(groups, (1,), choice.thresholds).accepted == pytest.approx(
        first
    )


@pytest.mark.heavy
def test_without_a_signal_false_accepts_are_kept_below_their_share():
    """Scores that know nothing of the success: only what accepts almost nothing is allowed, and more where more is allowed."""
    rng = np.random.default_rng(1)
    groups = [g._replace(denoising=rng.random(3)) for g in separable()]
    strict, loose = calibrate(groups, (3,), Aim(0.02)), calibrate(groups, (3,), Aim(0.5))
    assert strict.on_the_same_images.wrong <= 0.02 and strict.on_the_same_images.accepted < 0.3
    assert loose.on_the_same_images.accepted > strict.on_the_same_images.accepted


def test_each_image_is_decided_by_what_was_chosen_without_it():
    """The only failure that scores well: with it the threshold lies below, without it above, so it is wrong itself alone."""
    groups = separable(20)
    groups[7] = image(7, [False, False, False], denoising=[0.41, 0.42, 0.43])
    choice = calibrate(groups, (1, 1, 1), Aim(0.0))
    assert choice.on_the_same_images.wrong == 0.0 and choice.without.wrong == pytest.approx(1 / 20)
    assert choice.on_the_same_images.started > choice.without.started


def test_fewest_particles_first_then_fewest_missed_among_what_is_allowed():
    columns = ("accepted", "wrong", "failed", "missed", "started", "psnr")
    rows = [
        (1, 0.1, 0.1, 0, 1, 0),
        (0.9, 0.02, 0, 0.1, 1.5, 0),
        (0.9, 0.01, 0, 0.1, 1.5, 0),
        (0.9, 0.02, 0, 0, 1.5, 0),
    ]
    outcomes = np.array([*rows, (0, 0, 0.5, 0, 2, 0)])
    assert Outcome._fields == columns
    assert [best(outcomes, Aim(wrong)) for wrong in (0.02, 0.2, 0.0)] == [3, 0, 4]


def test_for_given_particles_the_fewest_failed_images_then_the_fewest_wrong_ones():
    rows = [
        (1, 0.1, 0.1, 0, 1.0, 0),
        (1, 0.06, 0.02, 0, 1.4, 0),
        (1, 0.01, 0.02, 0, 1.5, 0),
        (1, 0, 0.0, 0, 1.7, 0),
    ]
    outcomes = np.array(rows)
    assert [best(outcomes, Aim(0.0, started)) for started in (1.0, 1.45, 1.5, 9.0)] == [0, 1, 2, 3]
    assert best(outcomes, Aim(0.0, 0.5)) == 0  # nothing is that cheap


def test_seeds_of_an_image_count_as_one_image():
    groups = [image(0, [True]), image(0, [False], denoising=[0.4]), image(1, [True])]
    assert applied(groups, (1,), Thresholds(3.0, 0.5, None)).wrong == 0.25

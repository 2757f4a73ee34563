"""The certificate's signals and its rule."""

from types import SimpleNamespace

import pytest
import torch

from operators.phase_retrieval import PhaseRetrieval
from utils.evaluation.aligned import mutual_agreement
from utils.noise import KeyedNoise
from utils.population.certificate import Certificate, agreements, block, greatest_agreement, passes
from utils.population.prior_score import PriorScore
from utils.population.rounds import Verdict
from utils.sampling.outcome import SampleResult
from utils.sampling.particles import Particles

OPERATOR = PhaseRetrieval(sigma=0.05)


def rule(deviation=3.0, denoising=None, agreement=None):
    return SimpleNamespace(deviation=deviation, denoising=denoising, agreement=agreement)


@pytest.mark.parametrize(
    "thresholds, signals, expected",
    [
        (rule(), (3.0, None, None), True),
        (rule(), (3.1, None, None), False),
        (rule(), (None, 0.0, 1.0), False),
        (rule(denoising=0.5), (0.0, 0.5, None), True),
        (rule(denoising=0.5), (0.0, 0.6, None), False),
        (rule(denoising=0.5), (0.0, None, 1.0), False),
        (rule(agreement=0.9), (0.0, 0.0, 0.9), True),
        (rule(agreement=0.9), (0.0, 0.0, 0.8), False),
        (rule(agreement=0.9), (0.0, 0.0, None), False),
        (rule(denoising=0.5, agreement=0.9), (0.0, 0.6, 0.95), True),
        (rule(denoising=0.5, agreement=0.9), (0.0, 0.4, 0.1), True),
        (rule(denoising=0.5, agreement=0.9), (4.0, 0.4, 0.95), False),
    ],
)
def test_the_loss_must_fit_and_the_prior_or_another_particle_agree(thresholds, signals, expected):
    assert passes(thresholds, *signals) is expected


def pictures(count=1, seed=0):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_particles_agree_after_a_turn_of_the_whole_and_not_of_single_channels():
    """A channel that is turned against the others is what the loss does not see."""
    x = pictures()
    turned, mixed = x.flip(-2, -1), x.clone()
    mixed[:, 2] = mixed[:, 2].flip(-2, -1)
    found = agreements(torch.cat([x, turned, mixed, mixed.flip(-2, -1)]), OPERATOR)
    assert found[0, 1] == pytest.approx(1) and found[2, 3] == pytest.approx(1)
    assert found[0, 2] < 0.5 and found[1, 2] < 0.5
    assert torch.isnan(found.diagonal()).all() and greatest_agreement(found) == pytest.approx([1, 1, 1, 1])


def test_the_least_channel_counts_and_the_turn_is_the_nearer_one():
    x = pictures(2)
    other = x[:1].clone()
    other[:, 1] += 0.5 * pictures(seed=7)[:, 1]
    found = mutual_agreement(torch.cat([x[:1], other]), turns=False)[0, 1].item()
    pair = torch.stack([x[0, 1].flatten(), other[0, 1].flatten()])
    assert found == pytest.approx(torch.corrcoef(pair)[0, 1].item(), abs=1e-5) and 0.5 < found < 0.99
    apart = mutual_agreement(torch.cat([x[:1], x[:1].flip(-2, -1)]), turns=False)[0, 1]
    assert apart < 0.5 < mutual_agreement(torch.cat([x[:1], x[:1].flip(-2, -1)]), turns=True)[0, 1]


def test_a_lone_particle_and_one_that_diverged_agree_with_nobody():
    assert greatest_agreement(agreements(pictures(), OPERATOR)) == [None]
    broken = torch.cat([pictures(), pictures(), pictures()])
    broken[1, 0, 0, 0] = float("nan")
    assert greatest_agreement(agreements(broken, OPERATOR)) == [pytest.approx(1), None, pytest.approx(1)]


def result(index=(0, 1)):
    """Two particles of image 4 whose losses lie 2 and -1 standard deviations above the floor."""
    x = pictures(2)
    y = OPERATOR(x)
    floor, spread = OPERATOR.noise_floor(y), OPERATOR.floor_spread(y)
    particles = Particles(z=x.clone(), y=y, image=torch.tensor([4, 4]), index=torch.tensor(index))
    return SampleResult(particles, x, floor + torch.tensor([2.0, -1.0]) * floor * spread, [], {})


PRIOR = SimpleNamespace(encode=lambda x: x, denoise=lambda z, sigma: 0.5 * z)


def certificate(sigmas=(0.5, 2.0), seed=0, thresholds=rule(denoising=1.0)):  # noqa: B008
    return Certificate(OPERATOR, PriorScore(PRIOR, KeyedNoise(seed), sigmas), thresholds)


def test_deviations_are_standard_deviations_of_the_true_images_loss():
    found = certificate().signals(result())
    assert found["deviation"] == pytest.approx([2.0, -1.0], abs=1e-3)


def test_the_prior_scores_particles_of_an_image_under_one_noise():
    """Equal pictures score alike whatever their numbers; another image or seed has other noise."""
    one = result()
    same = one._replace(image=one.image[:1].expand(2, -1, -1, -1))
    scores = certificate().signals(same)["denoising"]
    assert scores[0] == scores[1]
    assert certificate().signals(result(index=(5, 9)))["denoising"] == certificate().signals(one)["denoising"]
    assert certificate(seed=1).signals(same)["denoising"] != scores
    elsewhere = same._replace(particles=Particles(**{**vars(same.particles), "image": torch.tensor([4, 5])}))
    assert len(set(certificate().signals(elsewhere)["denoising"])) == 2


def test_the_score_is_of_the_pictures_encoding():
    one = result()
    moved = one._replace(particles=one.particles.at(one.particles.z + 3))
    assert certificate().signals(moved)["denoising"] == certificate().signals(one)["denoising"]


def test_what_is_not_finite_has_no_signals_and_does_not_pass():
    one = result()
    one.particles.z[0, 0, 0, 0] = float("nan")
    judge = certificate(thresholds=rule(deviation=5.0))
    signals = judge.signals(one)
    assert signals["deviation"][0] is signals["denoising"][0] is None
    assert judge.verdict(one.image, signals).passing == [False, True]


def test_a_particle_of_which_nothing_is_known_speaks_for_no_other():
    judge = certificate(thresholds=rule(agreement=0.9))
    alike = pictures().expand(3, -1, -1, -1)
    found = judge.verdict(alike[:2], {"deviation": [0.0, None], "denoising": [None, None]})
    assert found.passing == [False, False] and found.signals["agreement"] == [None, None]
    assert judge.verdict(alike, {"deviation": [0.0, None, 0.0], "denoising": [None] * 3}).passing == [True, False, True]


def test_the_block_of_a_record_names_the_rounds_and_keeps_places():
    history = [
        Verdict({"deviation": [5.0], "agreement": [None]}, [False]),
        Verdict({"deviation": [5.0, 1.0, 2.0], "agreement": [0.2, 0.3, 0.3]}, [False, True, False]),
    ]
    found = block(history, [7, 8, 9], range(7, 11), rule(agreement=0.9))
    assert found["rounds"] == [{"particles": [7], "passing": []}, {"particles": [8, 9], "passing": [8]}]
    assert found["signals"] == {"deviation": [5.0, 1.0, 2.0, None], "agreement": [0.2, 0.3, 0.3, None]}
    assert found["accepted"] and found["rule"] == {"deviation": 3.0, "denoising": None, "agreement": 0.9}

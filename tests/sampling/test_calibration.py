"""Simulation-based calibration of the loop where the posterior is known, with controls that the same statistic must reject."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats

from sampler import LatentDAPS
from tests.worlds import analytic
from tests.worlds.mixture import GaussianMixturePrior
from tests.worlds.ranks import coverage, uniformity
from utils.analysis.sbc import ranks_of
from utils.config.check import check
from utils.config.compose import compose
from utils.noise import KeyedNoise
from utils.sampling.particles import Particles

PARTICLES = 39  # from the least to the greatest is a 95 % interval, from the 10th to the 30th one of 50 %
PRIOR_STD = 0.1
# of the decoder: at noise 0.05 the data are four times as precise as the prior where it is 1, and as precise where it is 0.5
SINGULAR_VALUES = np.repeat([1.0, 0.5], 64)

CHAIN = "task.demo_langevin.mcmc_sampler_config"
ANNEALING = "sampler.annealing_scheduler_config"
EULER = "sampler.diffusion_scheduler_config.num_steps"
ONE_STEP = (f"{EULER}=1", "sampler.diffusion_scheduler_config.sigma_min=1e-4")  # to almost 0: D(z, sigma) itself
# from ten times the prior's width down to well below it and the noise, and a chain that converges in each step
CONVERGED = (f"{ANNEALING}.sigma_max=1.0", f"{ANNEALING}.sigma_min=0.03", f"{CHAIN}.mc_algo=hmc", f"{CHAIN}.momentum=0.7")
RATE = (f"{CHAIN}.num_steps=30", f"{CHAIN}.lr=3e-4", f"{CHAIN}.lr_min_ratio=0.1")
COLD_RATE = (f"{CHAIN}.num_steps=50", f"{CHAIN}.lr=1e-5", f"{CHAIN}.lr_min_ratio=1.0")  # steeper by as much as colder
HONEST = ("temperature=1", *CONVERGED, *RATE, *ONE_STEP)
DEFAULTS = ()
COLD = ("temperature=0.02", *CONVERGED, *COLD_RATE, *ONE_STEP)  # the published likelihood, where the chain converges
WELL_SOLVED = (*HONEST[:-2], f"{EULER}=20")  # its ODE
TRUTHS = 8  # of 128 independent coordinates each: 1024 ranks
WRONG = {
    "defaults": DEFAULTS,
    "published likelihood in the converged chain": COLD,
    "half the variance": ("temperature=0.5", *HONEST[1:]),
    "twice the variance": ("temperature=2", *HONEST[1:]),
}


def computed_ranks(overrides, seed=0):
    """Number of samples below the truth, 0 to PARTICLES, (TRUTHS, 128) int array: a column for each singular value."""
    settings = check(compose(overrides))
    rng, d = np.random.default_rng(seed), len(SINGULAR_VALUES)
    left, right = (np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(2))  # no axis of the latent is a special one
    prior = GaussianMixturePrior([[0.0] * d], [PRIOR_STD], [1.0], left * SINGULAR_VALUES @ right.T)
    operator, noise = analytic.Identity(settings.group.operator.sigma), KeyedNoise(seed)
    z = torch.from_numpy(PRIOR_STD * rng.normal(size=(TRUTHS, d, 1, 1)))
    y = operator.measure(prior.decode(z), torch.from_numpy(rng.normal(size=(TRUTHS, d, 1, 1))))
    annealing, diffusion = settings.sampler.annealing_scheduler_config, settings.sampler.diffusion_scheduler_config
    sampler = LatentDAPS(prior, operator, noise, annealing, diffusion, settings.chain)
    particles = Particles.start(y, range(TRUTHS), PARTICLES, 0, prior.latent_shape, prior.dtype)
    samples = sampler.sample(particles).particles.z
    along = samples.reshape(TRUTHS, PARTICLES, d).numpy() @ right  # (TRUTHS, PARTICLES, d), independent coordinates
    return ranks_of(along.swapaxes(0, 1), z.flatten(1).numpy() @ right)


@pytest.fixture(scope="module")
def ranks():
    """ranks(overrides), each computed once."""
    return cache(computed_ranks)


def spreads(overrides):
    """(standard deviation of the sampler's law, of its error against the truth) for each coordinate, in closed form."""
    settings = check(compose(overrides))
    values, inverse = np.unique(SINGULAR_VALUES, return_inverse=True)
    prior = GaussianMixturePrior(np.zeros((1, len(values))), [PRIOR_STD], [1.0], np.diag(values))
    law = analytic.hmc_law if settings.chain.mc_algo == "hmc" else analytic.gaussian_law
    grids = settings.sampler.annealing_scheduler_config, settings.sampler.diffusion_scheduler_config
    (at_0, cov), (at_1, _) = (law(prior, np.full(len(values), y), settings.chain, *grids) for y in (0.0, 1.0))
    gain = at_1 - at_0  # of the mean with y
    error = PRIOR_STD**2 * (1 - gain * values) ** 2 + (gain * settings.group.operator.sigma) ** 2
    return np.sqrt(np.diag(cov))[inverse], np.sqrt(error)[inverse]


def covered(overrides, level):
    """Probability that a central interval of PARTICLES samples covers the truth, mean over the coordinates."""
    spread, error = spreads(overrides)
    truth = np.linspace(-8, 8, 4001)
    weight = stats.norm.pdf(truth) / stats.norm.pdf(truth).sum()
    below = stats.norm.cdf(truth * (error / spread)[:, None])  # (coordinates, grid) probability that a sample is
    outside = round((1 - level) / 2 * (PARTICLES + 1))
    inside = stats.binom.cdf(PARTICLES - outside, PARTICLES, below) - stats.binom.cdf(outside - 1, PARTICLES, below)
    return float((inside * weight).sum(1).mean())


def agrees(found, level, probability):
    """Whether the share of truths covered is one that has this probability, on the level of 0.1 %."""
    low, high = stats.binom.interval(0.999, found.size, probability)
    return low <= coverage(found, PARTICLES, level).value * found.size <= high


@pytest.mark.heavy
def test_the_honest_likelihood_is_calibrated(ranks):
    found = ranks(HONEST)
    assert uniformity(found, PARTICLES) > 0.01
    assert agrees(found, 0.95, 0.95) and agrees(found, 0.5, 0.5)


@pytest.mark.heavy
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_likelihood_is_noticed(ranks, name):
    assert uniformity(ranks(WRONG[name]), PARTICLES) < 1e-3


@pytest.mark.heavy
@pytest.mark.parametrize("overrides", [DEFAULTS, COLD], ids=["defaults", "converged"])
def test_the_published_likelihood_covers_as_little_as_its_law_says(ranks, overrides):
    found = ranks(overrides)
    for level in (0.5, 0.95):
        assert not agrees(found, level, level)
        assert agrees(found, level, covered(overrides, level))


@pytest.mark.heavy
def test_a_nominal_interval_of_95_percent_covers_23_percent():
    """With infinitely many samples; 2 Phi(1.96 / 50^0.5) - 1 = 22 % where the data alone decide and the chain converges."""
    strong = SINGULAR_VALUES == 1
    for overrides, coordinates, expected in ((DEFAULTS, strong, 0.233), (COLD, strong, 0.225), (COLD, ~strong, 0.221)):
        spread, error = (values[coordinates] for values in spreads(overrides))
        assert 2 * stats.norm.cdf(1.96 * spread / error) - 1 == pytest.approx(expected, abs=0.001)


def posterior():
    """Standard deviation of the posterior for each coordinate."""
    return (SINGULAR_VALUES**2 / 0.05**2 + 1 / PRIOR_STD**2) ** -0.5


@pytest.mark.heavy
def test_the_honest_setting_is_the_posterior_in_closed_form():
    spread, error = spreads(HONEST)
    assert spread == pytest.approx(posterior(), rel=0.01)
    assert error == pytest.approx(posterior(), rel=0.01)


@pytest.mark.heavy
def test_a_well_solved_ode_counts_the_prior_half():
    """Its end keeps the prior's width, where one Euler step gives the denoiser's mean: DAPS's bias, not the likelihood's."""
    spread, error = spreads(WELL_SOLVED)
    weak = SINGULAR_VALUES == 0.5  # the data as precise as the prior: 1 / (1 + 1/2) instead of 1 / (1 + 1)
    assert (spread / posterior())[weak] ** 2 == pytest.approx(4 / 3, rel=0.05)
    assert (error / posterior())[weak].min() > 1.05

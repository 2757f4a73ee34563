"""LatentDAPS samples against the exact law of its own discrete kernel; each check has controls that must fail."""

import numpy as np
import pytest
import torch

from tests.worlds import analytic
from tests.worlds.analytic import GAUSSIAN, Y_GAUSSIAN, worst_z_score
from tests.worlds.mixture import GaussianMixturePrior
from utils.noise import KeyedNoise
from utils.sampling.schedule import annealing_sigmas

COUNT = 16000
MIXTURE = GaussianMixturePrior(means=[[-2.0], [2.0]], stds=[0.5, 0.5], weights=[0.5, 0.5], decoder=[[1.0]])
Y_MIXTURE = [0.25]
SIGMAS = annealing_sigmas(analytic.ANNEALING.num_steps, analytic.ANNEALING.sigma_max, analytic.ANNEALING.sigma_min)


def kolmogorov_smirnov(sampled, law):
    """sqrt(n) sup |F_n - F|; above 1.95 with probability 0.001 when the law is right."""
    grid, density = law
    cdf = np.cumsum(density) * (grid[1] - grid[0])
    ordered = np.sort(sampled.ravel())
    expected = np.interp(ordered, grid, cdf)
    n = len(ordered)
    return np.sqrt(n) * max(np.abs(np.arange(1, n + 1) / n - expected).max(), np.abs(np.arange(n) / n - expected).max())


@pytest.fixture(scope="module")
def gaussian_steps():
    """Where the chains of the annealing steps ended, and the final latents."""
    return analytic.samples_of_steps(GAUSSIAN, Y_GAUSSIAN, COUNT)


@pytest.fixture(scope="module")
def gaussian_samples(gaussian_steps):
    return gaussian_steps[-1]


@pytest.fixture(scope="module")
def mixture_samples():
    return analytic.samples(MIXTURE, Y_MIXTURE, COUNT)


@pytest.mark.heavy
def test_mean_and_covariance_agree_with_the_propagated_kernel(gaussian_samples):
    assert worst_z_score(gaussian_samples, analytic.gaussian_law(GAUSSIAN, Y_GAUSSIAN)) < 4.5


@pytest.mark.heavy
@pytest.mark.parametrize("steps", range(1, 6))
def test_so_they_do_after_each_annealing_step(gaussian_steps, steps):
    """The later steps forget the first ones: an error there is seen only before it has faded."""
    assert worst_z_score(gaussian_steps[steps - 1], analytic.gaussian_law(GAUSSIAN, Y_GAUSSIAN, steps=steps)) < 4.5


@pytest.mark.heavy
@pytest.mark.parametrize(
    "steps, wrong",
    [
        (1, dict(first_sigma=SIGMAS[1])),
        (1, dict(first_sigma=SIGMAS[-2])),
        (1, dict(settings=analytic.chain(num_steps=2))),
        (2, dict(drop_step=0)),
        (3, dict(settings=analytic.chain(lr_min_ratio=1.0))),
    ],
    ids=["initial sigma one step down", "initial sigma_min", "inner iteration dropped", "first step dropped", "no ramp"],
)
def test_an_error_at_the_start_is_noticed(gaussian_steps, steps, wrong):
    assert worst_z_score(gaussian_steps[steps - 1], analytic.gaussian_law(GAUSSIAN, Y_GAUSSIAN, steps=steps, **wrong)) > 8


class InitialNoiseAgain(KeyedNoise):
    """After the first annealing step comes the noise that the particles started from."""

    def draw(self, particles, purpose, step=0, count=None):
        return super().draw(particles, "initial" if purpose == "annealing" else purpose, step, count)


@pytest.mark.heavy
def test_noise_that_was_used_before_is_noticed():
    """Short chains, which leave what the flow still knows of it."""
    settings = analytic.chain(lr=0.003)
    steps = analytic.samples_of_steps(GAUSSIAN, Y_GAUSSIAN, 3000, noise=InitialNoiseAgain(0), settings=settings)
    assert worst_z_score(steps[0], analytic.gaussian_law(GAUSSIAN, Y_GAUSSIAN, settings, steps=1)) < 4.5
    assert worst_z_score(steps[1], analytic.gaussian_law(GAUSSIAN, Y_GAUSSIAN, settings, steps=2)) > 8


@pytest.mark.heavy
@pytest.mark.parametrize(
    "wrong",
    [
        dict(settings=analytic.chain(likelihood_factor=0.5)),
        dict(settings=analytic.chain(num_steps=2)),
        dict(drop_step=3),
        dict(diffusion=analytic.SimpleNamespace(num_steps=1, sigma_min=0.01, final_sigma=0.0)),
    ],
    ids=["factor swapped", "inner iteration dropped", "annealing step dropped", "one Euler step"],
)
def test_a_wrong_kernel_is_noticed(gaussian_samples, wrong):
    assert worst_z_score(gaussian_samples, analytic.gaussian_law(GAUSSIAN, Y_GAUSSIAN, **wrong)) > 8


@pytest.mark.heavy
def test_hmc_without_momentum_has_the_law_of_langevin():
    settings = analytic.chain(mc_algo="hmc", momentum=0.0)
    sampled = analytic.samples(GAUSSIAN, Y_GAUSSIAN, COUNT, settings=settings)
    assert worst_z_score(sampled, analytic.gaussian_law(GAUSSIAN, Y_GAUSSIAN)) < 4.5


@pytest.mark.heavy
@pytest.mark.parametrize("keep", [False, True], ids=["fresh velocity", "velocity kept"])
def test_hmc_agrees_with_its_propagated_kernel(keep):
    settings = analytic.chain(mc_algo="hmc", momentum=0.8, keep_velocity=keep)
    sampled = analytic.samples(GAUSSIAN, Y_GAUSSIAN, COUNT, settings=settings)
    assert worst_z_score(sampled, analytic.hmc_law(GAUSSIAN, Y_GAUSSIAN, settings)) < 4.5
    other = analytic.chain(mc_algo="hmc", momentum=0.8, keep_velocity=not keep)
    assert worst_z_score(sampled, analytic.hmc_law(GAUSSIAN, Y_GAUSSIAN, other)) > 8


@pytest.mark.heavy
def test_two_modes_agree_with_the_propagated_density(mixture_samples):
    assert min((mixture_samples < 0).mean(), (mixture_samples > 0).mean()) > 0.1  # both modes are there
    assert kolmogorov_smirnov(mixture_samples, analytic.mixture_law(MIXTURE, Y_MIXTURE)) < 1.95


@pytest.mark.heavy
@pytest.mark.parametrize(
    "wrong",
    [dict(settings=analytic.chain(likelihood_factor=0.5)), dict(settings=analytic.chain(num_steps=2)), dict(drop_step=3)],
    ids=["factor swapped", "inner iteration dropped", "annealing step dropped"],
)
def test_a_wrong_density_is_noticed(mixture_samples, wrong):
    assert kolmogorov_smirnov(mixture_samples, analytic.mixture_law(MIXTURE, Y_MIXTURE, **wrong)) > 3


@pytest.mark.heavy
def test_the_documented_bias_of_daps():
    """Prior N(0, 1), y = 1, likelihood variance 1: the true posterior is .500/.500, DAPS in the limit of many inner
    iterations and two Euler steps gives .554/.529, with the exact ODE .691/.668."""
    prior = GaussianMixturePrior(means=[[0.0]], stds=[1.0], weights=[1.0], decoder=[[1.0]])
    annealing = analytic.SimpleNamespace(num_steps=50, sigma_max=10.0, sigma_min=0.1)
    settings = analytic.chain(num_steps=4000, lr=1e-3, lr_min_ratio=1.0, likelihood_factor=0.5)
    for euler_steps, mean, variance in ((2, 0.554, 0.529), (1000, 0.691, 0.668)):
        diffusion = analytic.SimpleNamespace(num_steps=euler_steps, sigma_min=0.001, final_sigma=0.0)
        law_mean, law_cov = analytic.gaussian_law(prior, [1.0], settings, annealing, diffusion)
        assert law_mean[0] == pytest.approx(mean, abs=0.01)
        assert law_cov[0, 0] == pytest.approx(variance, abs=0.01)


def test_denoiser_of_the_mixture_is_the_posterior_mean():
    grid = torch.linspace(-12, 12, 24001, dtype=torch.float64)
    prior = 0.5 * torch.exp(-2 * (grid + 2) ** 2) + 0.5 * torch.exp(-2 * (grid - 2) ** 2)
    for z, sigma in ((0.3, 1.0), (-1.0, 3.0), (4.0, 0.2)):
        weight = prior * torch.exp(-0.5 * (grid - z) ** 2 / sigma**2)
        expected = (grid * weight).sum() / weight.sum()
        got = MIXTURE.denoise(torch.full((1, 1, 1, 1), z, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64))
        assert got.item() == pytest.approx(expected.item(), abs=1e-6)

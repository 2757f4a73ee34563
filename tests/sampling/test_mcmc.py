"""One Langevin or HMC step, and the score that drives it, against their formulas."""

import torch

from utils.sampling.mcmc import ChainState, hmc_step, langevin_step, likelihood_weight, posterior_score

SHAPE = (3, 4, 2, 2)


def draw(seed):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_hmc_without_momentum_is_langevin():
    z, score, noise, lr = draw(0), draw(1), draw(2), torch.tensor(3e-3, dtype=torch.float64)
    langevin = langevin_step(ChainState(z), score, lr, noise)
    hmc = hmc_step(ChainState(z, torch.zeros_like(z)), score, lr, 0.0, noise)
    torch.testing.assert_close(hmc.z, langevin.z, rtol=0, atol=1e-15)


def test_hmc_with_momentum_carries_the_velocity():
    z, score, noise, lr = draw(0), draw(1), draw(2), torch.tensor(0.25, dtype=torch.float64)
    state = hmc_step(ChainState(z, draw(3)), score, lr, 0.4, noise)
    velocity = 0.4 * draw(3) + 0.5 * score + (2 * 0.6) ** 0.5 * noise
    torch.testing.assert_close(state.velocity, velocity)
    torch.testing.assert_close(state.z, z + 0.5 * velocity)


def test_likelihood_factor_scales_the_data_term_alone():
    gradient, z, z0hat, sigma = 0.1 * draw(0).clamp(-1, 1), draw(1), draw(2), torch.tensor(0.7, dtype=torch.float64)
    prior = (z0hat - z) / 0.49
    full = posterior_score(gradient, z, z0hat, sigma, likelihood_weight(0.1))
    half = posterior_score(gradient, z, z0hat, sigma, likelihood_weight(0.1, 0.5))
    torch.testing.assert_close(full, -gradient / 0.01 + prior)  # official: no 1/2
    torch.testing.assert_close(half - prior, (full - prior) / 2)


def test_gradient_is_clipped_entry_by_entry():
    gradient, z = torch.tensor([[-5.0, 0.5, 3.0]]), torch.zeros(1, 3)
    score = posterior_score(gradient, z, z, torch.tensor(1.0), likelihood_weight(1.0))
    assert score.tolist() == [[1.0, -0.5, -1.0]]


def test_the_gradient_is_clipped_before_it_is_scaled():
    """The clip is of the squared residual's gradient, as in DAPS: it does not depend on tau."""
    gradient, z = torch.tensor([[-5.0, 0.5, 3.0]]), torch.zeros(1, 3)
    score = posterior_score(gradient, z, z, torch.tensor(1.0), likelihood_weight(0.1, 0.5), clip=1.0)
    torch.testing.assert_close(score, torch.tensor([[50.0, -25.0, -50.0]]))

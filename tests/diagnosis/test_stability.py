"""Stability limits and drift of the chain, and the curvature estimate, in a linear world where all are known."""

import math

import numpy as np
import pytest
import torch

from tests.worlds import analytic
from tests.worlds.mixture import GaussianMixturePrior
from utils.diagnosis.stability import curvature_products, drift, largest_eigenvalue, pace, stability_limit
from utils.sampling.mcmc import ChainState, hmc_step, langevin_step

GENERATOR = torch.Generator().manual_seed(0)
DECODER = torch.randn(30, 12, generator=GENERATOR, dtype=torch.float64)
PRIOR = GaussianMixturePrior(means=[[0.0] * 12], stds=[1.0], weights=[1.0], decoder=DECODER)
CURVATURE = 2 * float(np.linalg.eigvalsh(DECODER.T.numpy() @ DECODER.numpy())[-1])  # of |x - y|^2 in z

CHAINS = [
    analytic.chain(num_steps=20),
    analytic.chain(mc_algo="hmc", momentum=0.41, num_steps=20),
    analytic.chain(mc_algo="hmc", momentum=0.95, num_steps=20),
    analytic.chain(mc_algo="hmc", momentum=0.95, num_steps=20, keep_velocity=True),
]


def iterate(chain, lr, stiffness, state, count, score=None):
    """`count` steps without noise in the potential stiffness z^2 / 2, or under a constant score."""
    lr, nothing = torch.tensor(lr, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for _ in range(count):
        force = -stiffness * state.z if score is None else torch.tensor(score, dtype=torch.float64)
        step = langevin_step(state, force, lr, nothing) if chain.mc_algo == "langevin" else None
        state = step or hmc_step(state, force, lr, chain.momentum, nothing)
    return state


def at(z, velocity=0.0):
    return ChainState(torch.tensor(z, dtype=torch.float64), torch.tensor(velocity, dtype=torch.float64))


@pytest.mark.parametrize("chain", CHAINS, ids=["langevin", "hmc 0.41", "hmc 0.95", "hmc kept"])
def test_a_chain_contracts_below_the_limit_and_runs_away_above(chain):
    limit, stiffness = stability_limit(chain), 700.0
    ends = [float(iterate(chain, share * limit / stiffness, stiffness, at(1.0), 3000).z.abs()) for share in (0.99, 1.01)]
    assert ends[0] < 1e-3 and ends[1] > 1e3


def test_the_rate_over_one_minus_momentum_has_a_limit_that_is_smaller_by_known_factors():
    for momentum, factor in ((0.41, 2.4), (0.95, 39)):
        hmc, langevin = analytic.chain(mc_algo="hmc", momentum=momentum), analytic.chain()
        assert stability_limit(hmc) * (1 / (1 - momentum)) / stability_limit(langevin) == pytest.approx(factor, rel=0.01)


@pytest.mark.parametrize("chain", CHAINS, ids=["langevin", "hmc 0.41", "hmc 0.95", "hmc kept"])
def test_drift_is_the_displacement_by_a_constant_score(chain):
    settled = 0.03**0.5 / (1 - chain.momentum) if chain.keep_velocity else 0.0  # the velocity of a long chain
    moved = float(iterate(chain, 0.03, None, at(0.0, settled), chain.num_steps, score=1.0).z)
    assert drift(chain, 0.03) == pytest.approx(moved, rel=1e-9)


@pytest.mark.parametrize("momentum, steps, share", [(0.95, 35, 0.55), (0.41, 65, 0.99)])
def test_a_fresh_velocity_makes_a_known_share_of_the_drift(momentum, steps, share):
    chain = analytic.chain(mc_algo="hmc", momentum=momentum, num_steps=steps)
    assert drift(chain, 1.0) * (1 - momentum) / steps == pytest.approx(share, abs=0.005)


def test_the_estimate_equals_the_curvature_of_the_linear_world():
    z = torch.randn(1, 12, 1, 1, generator=GENERATOR, dtype=torch.float64)
    start = torch.randn(z.shape, generator=GENERATOR, dtype=torch.float64)
    found = {n: largest_eigenvalue(curvature_products(PRIOR.decode, z), start, n) for n in (3, 7, 50)}
    assert found[50] == pytest.approx(CURVATURE, rel=1e-9)
    assert 0.97 * CURVATURE < found[7] < CURVATURE and found[3] < found[7]


def test_the_estimate_sees_the_largest_eigenvalue_beside_a_more_negative_one():
    diagonal = torch.tensor([-50.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    assert largest_eigenvalue(lambda v: diagonal * v, torch.ones(4, dtype=torch.float64), 4) == pytest.approx(3)


def test_a_map_that_is_not_finite_gives_nan():
    assert math.isnan(largest_eigenvalue(lambda v: v * float("nan"), torch.ones(4), 4))


def test_gauss_newton_products_are_those_of_the_hessian_where_the_measurement_is_met():
    def forward(z):
        return torch.stack([z.square().sum((1, 2, 3)), z.sin().sum((1, 2, 3)), z.prod(1).flatten()], 1)

    z = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64).view(1, 3, 1, 1)
    y = forward(z)
    hessian = torch.autograd.functional.hessian(lambda z: (forward(z) - y).square().sum(), z).reshape(3, 3)
    product = curvature_products(forward, z)
    columns = [product(e.view(z.shape)).flatten() for e in torch.eye(3, dtype=torch.float64)]
    assert torch.allclose(torch.stack(columns), hessian)


def test_the_pace_is_of_the_density_that_the_chain_samples():
    """The linear-Gaussian negative log density, differentiated by hand, and the step that its chain makes."""
    chain = analytic.chain(tau=0.5, likelihood_factor=0.5, num_steps=4)
    expected = 0.5 / 0.5**2 * CURVATURE + 1 / 0.2**2
    p = pace(chain, CURVATURE, 1e-3, 0.2)
    assert p.stiffness == pytest.approx(expected) and p.widths == pytest.approx(4e-3 * expected)
    loop = analytic.sampler(PRIOR, chain)
    particles = analytic.start(PRIOR, [0.0] * 30, 1)
    _, vectors = np.linalg.eigh(DECODER.T.numpy() @ DECODER.numpy())
    z = torch.from_numpy(vectors[:, -1].copy()).view(1, 12, 1, 1)
    gradient, _, _ = loop.data_gradient(particles.at(z))
    assert torch.allclose(0.5 / 0.5**2 * gradient + z / 0.2**2, expected * z)

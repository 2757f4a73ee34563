"""Markov-chain kernels of the inner loop as pure steps: state and noise in, state out.

Source: DAPS, cores/mcmc.py. One learning rate `lr` (a tensor that broadcasts over z) serves both kernels.
"""

from typing import NamedTuple

import torch


class ChainState(NamedTuple):
    """z: (P, C, h, w) position; velocity: the same shape for HMC, None for Langevin."""

    z: torch.Tensor
    velocity: torch.Tensor | None = None


def likelihood_weight(tau: float, likelihood_factor: float = 1.0) -> float:
    """w of the likelihood exp(-w ||A(D(z)) - y||^2).

    likelihood_factor 1 is what DAPS codes today (a likelihood of standard deviation tau / sqrt(2)); 0.5 is a
    likelihood of standard deviation tau, as in older DAPS code and InverseBench.
    """
    return likelihood_factor / tau**2


def posterior_score(
    data_gradient: torch.Tensor,
    z: torch.Tensor,
    z0hat: torch.Tensor,
    sigma: torch.Tensor | float,
    weight: torch.Tensor | float,
    clip: float = 1.0,
) -> torch.Tensor:
    """Score of exp(-weight ||A(D(z)) - y||^2) N(z; z0hat, sigma^2), (P, C, h, w).

    `data_gradient` is the gradient of the squared residual; each entry is clipped to [-clip, clip] as in DAPS.
    sigma, weight: a number, or anything that broadcasts over z.
    """
    return -weight * data_gradient.clamp(-clip, clip) + (z0hat - z) / sigma**2


def langevin_step(state: ChainState, score: torch.Tensor, lr: torch.Tensor, noise: torch.Tensor) -> ChainState:
    """Unadjusted Langevin: z + lr score + sqrt(2 lr) noise."""
    return ChainState(state.z + lr * score + (2 * lr).sqrt() * noise)


def hmc_step(state: ChainState, score: torch.Tensor, lr: torch.Tensor, momentum: float, noise: torch.Tensor) -> ChainState:
    """Damped Hamiltonian step: v <- m v + sqrt(lr) score + sqrt(2 (1 - m)) noise; z <- z + sqrt(lr) v.

    With m = 0 it is the Langevin step exactly.
    """
    assert state.velocity is not None, "a Hamiltonian chain starts with a velocity"
    velocity = momentum * state.velocity + lr.sqrt() * score + (2 * (1 - momentum)) ** 0.5 * noise
    return ChainState(state.z + lr.sqrt() * velocity, velocity)

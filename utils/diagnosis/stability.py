"""Whether the learning rate of the inner chain fits the posterior: below its stability limit, and large enough to move.

L is the largest eigenvalue of the Hessian of the negative log density that the chain samples,
    L = likelihood_factor / tau^2 * curvature + 1 / sigma^2,
`curvature` that of the squared residual |A(D(z)) - y|^2. Along its direction a step of utils/sampling/mcmc.py is, without
the noise and the gradient clip,
    Langevin  z' = (1 - lr L) z                                                       which contracts if lr L < 2,
    HMC       v' = m v - sqrt(lr) L z, z' = z + sqrt(lr) v', so z'' = (1 + m - lr L) z' - m z     if lr L < 2 (1 + m).
So lr / (1 - m), at which Langevin drifts as far as HMC does, has a limit (1 + m) / (1 - m) times smaller.

The clip bounds the data force of each entry by likelihood_factor * gradient_clip / tau^2: a chain above its limit does not
run away, it jumps about its target with that force instead of settling.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from utils.sampling.mcmc import likelihood_weight
from utils.sampling.vocabulary import Chain


class Pace(NamedTuple):
    """What the chain of one annealing step does in the stiffest direction."""

    lr: float
    stiffness: float  # L
    limit: float  # of lr L
    widths: float  # drift in posterior widths: of a particle one width L^(-1/2) off the mode, were the force constant

    @property
    def unstable(self) -> bool:
        return self.lr * self.stiffness > self.limit

    @property
    def stuck(self) -> bool:
        return self.widths < STUCK


STUCK = 0.1  # posterior widths; at a drift of 0.19 at the last step (0.95 at the first) the loss ended at twice its floor


def pace(chain: Chain, curvature: float, lr: float, sigma: float) -> Pace:
    """Of the chain at learning rate `lr` and noise level `sigma`; `curvature` of the squared residual."""
    stiffness = likelihood_weight(chain.tau, chain.likelihood_factor) * curvature + 1 / sigma**2
    return Pace(lr, stiffness, stability_limit(chain), drift(chain, lr) * stiffness)


def momentum_of(chain: Chain) -> float:
    return chain.momentum if chain.mc_algo == "hmc" else 0.0


def stability_limit(chain: Chain) -> float:
    """What lr L must not exceed."""
    return 2 * (1 + momentum_of(chain))


def drift(chain: Chain, lr: float) -> float:
    """Mean displacement of a chain of one annealing step by a constant score 1.

    A fresh velocity has mean 0 and first has to gather the force; one that is kept has gathered it.
    """
    m, n = momentum_of(chain), chain.num_steps
    gathering = 0.0 if chain.keep_velocity else m * (1 - m**n) / (1 - m)
    return lr * (n - gathering) / (1 - m)


def curvature_products(forward: Callable[[torch.Tensor], torch.Tensor], z: torch.Tensor) -> Callable[..., torch.Tensor]:
    """v -> 2 J^T J v with J the Jacobian of `forward` at z (1, ...): a squared residual's Hessian in its Gauss-Newton form.

    It equals the Hessian where the measurement is met, has no negative eigenvalues where it is not, and needs no y.
    A pass forward and one back prepare it; a product is the derivative of the latter and another one back.
    """
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # the fused attention has no second derivative
        z = z.detach().requires_grad_()
        measured = forward(z)
        weights = torch.zeros_like(measured, requires_grad=True)
        (back,) = torch.autograd.grad(measured, z, weights, create_graph=True)  # J^T weights, linear in the weights

    def product(v: torch.Tensor) -> torch.Tensor:
        (ahead,) = torch.autograd.grad(back, weights, v, retain_graph=True)  # J v
        return 2 * torch.autograd.grad(measured, z, ahead, retain_graph=True)[0]

    return product


def largest_eigenvalue(product: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, products: int) -> float:
    """Of a symmetric linear map, from below, by so many products with it: the power iteration in Lanczos's form.

    start: any tensor of the map's shape that is not orthogonal to the eigenvector. NaN where the map is not finite.
    """
    basis, diagonal, beside = [start / start.norm()], [], []
    for _ in range(min(products, start.numel())):
        w = product(basis[-1])
        diagonal.append(float((w * basis[-1]).sum()))
        for q in basis * 2:  # twice: rounding leaves the first difference not orthogonal
            w = w - (w * q).sum() * q
        beside.append(float(w.norm()))
        if not beside[-1] > 1e-6 * max(map(abs, diagonal)):  # an invariant space
            break
        basis.append(w / beside[-1])
    off = torch.tensor(beside[: len(diagonal) - 1], dtype=torch.float64)
    tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + torch.diag(off, 1) + torch.diag(off, -1)
    return float(torch.linalg.eigvalsh(tridiagonal)[-1]) if torch.isfinite(tridiagonal).all() else float("nan")

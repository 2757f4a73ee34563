"""PSLD: latent DPS with a pull to latents that the encoder gives back, for linear operators. `sampler=psld`.

    z <- DDIM(z) - grad_z ( omega |y - A(D(z0))| + gamma |E(D(z0) - A^T (A D(z0) - y)) - z0| ),   z0 = z0hat(z)

Norms of each particle alone. A^T is the transpose, by automatic differentiation of the linear A, also where the published
code has another one in its place (it enlarges for super resolution). Where y is NaN, A D(z0) - y is 0.
Source: Rout et al., arXiv 2307.00619; LituRout/PSLD, stable-diffusion/ldm/models/diffusion/psld.py.
"""

from typing import Any

import torch

from operators.base import Operator
from utils.algorithms.ddim import norm
from utils.algorithms.ldps import LatentDPS
from utils.errors import InputError


class PSLD(LatentDPS):
    """gamma: weight of the second term, >= 0. Others: LatentDPS. Raises InputError for an operator that is not linear."""

    def __init__(self, *parts: Any, gamma: float, **others: Any) -> None:
        super().__init__(*parts, **others)
        if not self.operator.linear:
            kind = type(getattr(self.operator, "operator", self.operator)).__name__  # the one within another data term
            raise InputError(f"sampler=psld: {kind} is not linear (Operator.linear); choose a linear task, or sampler=ldps")
        self.gamma = gamma

    def error(self, z0: torch.Tensor, image: torch.Tensor, loss: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        residual = torch.where(torch.isnan(y), 0.0, self.operator(image) - y)
        glued = self.prior.encode(image - transposed(self.operator, residual, image))
        return super().error(z0, image, loss, y) + self.gamma * norm((glued - z0).square().flatten(1).sum(1))


def transposed(operator: Operator, v: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A^T v, shaped like an image, and differentiable in v; operator: linear."""
    x = torch.zeros_like(like).requires_grad_()
    (product,) = torch.autograd.grad(operator(x), x, v, create_graph=True)
    return product

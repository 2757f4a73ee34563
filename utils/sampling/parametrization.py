"""What the latent optimisation moves: the latent itself, or a bounded residual on a base.

    free      z = x
    residual  z = base + l tanh(rho / l),  l = bound * rms(z at the start of the call), one number per particle

rho / l is the residual r; rho is written as a length in the latent so that the learning rate means the same in both: from
rho = 0 the first step is the free one, and a wide bound is free. The particle's own rms makes the bound a share of its size,
whatever latents a prior has, and lets no particle's bound depend on another's. Once the base stands, no entry is ever
farther from it than l, however many steps are taken.

For the first `warmup` iterations both move, on |A(D(z)) - y|^2 + sigma^2 |r|^2: up to the factor 2 sigma^2 the negative log
posterior of a residual whose entries are N(0, 1) a priori. The base takes only the coarse part of its gradient, the mean
over blocks of a grid of COARSE x COARSE, an orthogonal projection; so it explains what is coarse in the measurement's
residual and leaves the detail to r. Then it is detached: only rho moves, on the data alone.

Ours, in the manner of bounded residual networks; no public source has it for this step.
"""

from typing import Protocol

import torch
import torch.nn.functional as F

from operators.base import column
from utils.sampling.vocabulary import OptimizationSettings

COARSE = 4  # blocks a side
TINY = 1e-6  # stands for a bound of 0 where it divides; its square is no infinity in float32


class Parametrization(Protocol):
    """Variables x (P, ...) of particles whose call began at `start` (P, C, h, w); `warm`: 0-d bool on the device."""

    def variables(self, start: torch.Tensor) -> torch.Tensor:
        """x at which the latent is `start`."""
        ...

    def latent(self, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """z (P, C, h, w)."""
        ...

    def gradient(
        self, gradient: torch.Tensor, x: torch.Tensor, start: torch.Tensor, sigma: float, warm: torch.Tensor
    ) -> torch.Tensor:
        """Of the objective in x, from that of the squared residual in z, (P, C, h, w)."""
        ...

    def stepped(self, x: torch.Tensor, step: torch.Tensor, warm: torch.Tensor) -> torch.Tensor:
        """x after the optimiser's step."""
        ...


class Free:
    """x = z."""

    def variables(self, start: torch.Tensor) -> torch.Tensor:
        return start

    def latent(self, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        return x

    def gradient(
        self, gradient: torch.Tensor, x: torch.Tensor, start: torch.Tensor, sigma: float, warm: torch.Tensor
    ) -> torch.Tensor:
        return gradient

    def stepped(self, x: torch.Tensor, step: torch.Tensor, warm: torch.Tensor) -> torch.Tensor:
        return x - step


class Residual:
    """x = (base, rho), (P, 2, C, h, w)."""

    def __init__(self, bound: float) -> None:
        self.bound = bound

    def variables(self, start: torch.Tensor) -> torch.Tensor:
        return torch.stack([start, torch.zeros_like(start)], dim=1)

    def limit(self, start: torch.Tensor) -> torch.Tensor:
        """l, (P, 1, 1, 1)."""
        return column(self.bound * start.square().flatten(1).mean(1).sqrt(), start)

    def latent(self, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        base, rho = x.unbind(1)
        limit = self.limit(start)
        return base + limit * torch.tanh(rho / limit.clamp(min=TINY))

    def gradient(
        self, gradient: torch.Tensor, x: torch.Tensor, start: torch.Tensor, sigma: float, warm: torch.Tensor
    ) -> torch.Tensor:
        limit = self.limit(start).clamp(min=TINY)
        r = x[:, 1] / limit
        data = gradient * (1 - torch.tanh(r).square())  # dz / drho = 1 - tanh(r)^2
        penalty = 2 * sigma**2 * r / limit
        return torch.stack([coarse(gradient), data + warm.to(data.dtype) * penalty], dim=1)

    def stepped(self, x: torch.Tensor, step: torch.Tensor, warm: torch.Tensor) -> torch.Tensor:
        moved = x - step
        # here and not by a gradient of 0, after which Adam's momentum would still carry the base on
        return torch.stack([torch.where(warm, moved[:, 0], x[:, 0]), moved[:, 1]], dim=1)


def coarse(z: torch.Tensor) -> torch.Tensor:
    """z (P, C, h, w) replaced by its means over square blocks, about COARSE a side."""
    side = max(1, z.shape[-1] // COARSE)
    means = F.avg_pool2d(z, side, ceil_mode=True, count_include_pad=False)
    return F.interpolate(means, scale_factor=side, mode="nearest")[..., : z.shape[-2], : z.shape[-1]]


def parametrization(s: OptimizationSettings) -> Parametrization:
    return Residual(s.bound) if s.parametrization == "residual" else Free()

"""Hard data consistency by a bounded residual: no entry of a latent can move far, however many steps are taken.

    z = base + l tanh(rho / l),  l = bound * rms(z at the start of the call), one number per particle

rho / l is the residual r; rho is written as a length in the latent so that the learning rate means what it means in the
core's optimisation: from rho = 0 the first step is that one's, and a wide bound is free. The particle's own rms makes the
bound a share of its size, whatever latents a prior has, and lets no particle's bound depend on another's. Once the base
stands, no entry is ever farther from it than l.

For the first `warmup` iterations both move, on |A(D(z)) - y|^2 + sigma^2 |r|^2: up to the factor 2 sigma^2 the negative log
posterior of a residual whose entries are N(0, 1) a priori. The base takes only the coarse part of its gradient, the mean
over blocks of a grid of COARSE x COARSE, an orthogonal projection; so it explains what is coarse in the measurement's
residual and leaves the detail to r. Then it is detached: only rho moves, on the data alone.

Ours, in the manner of bounded residual networks; no public source has it for this step. Measured: docs/research/log.md.

    python posterior_sample.py --config-dir docs/examples/plugins experiment=bounded_residual
"""

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field

from operators.base import column
from utils.config.section import Section
from utils.errors import InputError
from utils.mechanisms.optimization.act import HardDataConsistency, Optimised
from utils.sampling.mechanism import Report, Sampler
from utils.sampling.particles import Particles
from utils.sampling.scalars import StepScalars
from utils.sampling.schedule import StepClock

COARSE = 4  # blocks a side
TINY = 1e-6  # stands for a bound of 0 where it divides; its square is no infinity in float32


class Keys(Section):
    """Those of its YAML block: of the optimisation, and what is its own."""

    step: int = Field(ge=0, lt=1000)  # timestep from which it acts
    every: int = Field(ge=1)
    max_iterations: int = Field(ge=1)
    lr: float = Field(gt=0)
    stop_factor: float = Field(ge=0)
    max_move: float = Field(gt=0)
    bound: float = Field(ge=0)
    warmup: int = Field(ge=0)


class BoundedResidual(HardDataConsistency):
    """The variables are x = (base, rho), (P, 2, C, h, w); `keys`: those of Keys."""

    name = "bounded_residual"
    sigma: float  # of the operator's noise, set where a call begins

    def __init__(self, clock: StepClock, **keys: Any) -> None:
        section = Keys(**keys)
        first = clock.first_step(section.step)
        super().__init__(section, clock.num_steps if first is None else first, clock)
        self.opening = None  # its passes count in the phase in which it acts
        self.bound, self.warmup = section.bound, section.warmup
        if section.warmup > section.max_iterations:
            raise InputError(
                f"mechanisms.{self.name}.warmup={section.warmup}: must not exceed max_iterations={section.max_iterations}, "
                "after which nothing moves"
            )
        if first is None:
            raise InputError(
                f"mechanisms.{self.name}.step={section.step}: the last of {clock.num_steps} annealing steps is at "
                f"t = {clock.timestep(clock.num_steps - 1):g}, so this never happens; choose a larger timestep"
            )

    def after_chain(self, particles: Particles, s: StepScalars, sampler: Sampler) -> tuple[Particles, Report]:
        self.sigma = sampler.operator.sigma
        return super().after_chain(particles, s, sampler)

    def variables(self, start: torch.Tensor) -> torch.Tensor:
        return torch.stack([start, torch.zeros_like(start)], dim=1)

    def limit(self, start: torch.Tensor) -> torch.Tensor:
        """l, (P, 1, 1, 1)."""
        return column(self.bound * start.square().flatten(1).mean(1).sqrt(), start)

    def latent(self, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        base, rho = x.unbind(1)
        limit = self.limit(start)
        return base + limit * torch.tanh(rho / limit.clamp(min=TINY))

    def pulled_back(self, gradient: torch.Tensor, x: torch.Tensor, start: torch.Tensor, warm: torch.Tensor) -> torch.Tensor:
        """The objective's gradient in x from the data's in the latent, (P, C, h, w); warm: 0-d bool on the device."""
        limit = self.limit(start).clamp(min=TINY)
        r = x[:, 1] / limit
        data = gradient * (1 - torch.tanh(r).square())  # dz / drho = 1 - tanh(r)^2
        penalty = 2 * self.sigma**2 * r / limit
        return torch.stack([coarse(gradient), data + warm.to(data.dtype) * penalty], dim=1)

    def descended(self, active: Optimised, gradient: torch.Tensor, iteration: int) -> torch.Tensor:
        warm = torch.tensor(iteration < self.warmup).to(gradient.device)  # data, so that it is no constant of a new graph
        of_variables = self.pulled_back(gradient, active.x, active.start, warm)
        moved = super().descended(active, of_variables, iteration)
        # here and not by a gradient of 0, after which Adam's momentum would still carry the base on
        return torch.stack([torch.where(warm, moved[:, 0], active.x[:, 0]), moved[:, 1]], dim=1)


def coarse(z: torch.Tensor) -> torch.Tensor:
    """z (P, C, h, w) replaced by its means over square blocks, about COARSE a side."""
    side = max(1, z.shape[-1] // COARSE)
    means = F.avg_pool2d(z, side, ceil_mode=True, count_include_pad=False)
    return F.interpolate(means, scale_factor=side, mode="nearest")[..., : z.shape[-2], : z.shape[-1]]

"""Timesteps of a denoising network."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from utils.errors import InputError


def linear_beta_timesteps(sigma: torch.Tensor) -> torch.Tensor:
    """t = 999 (sqrt(0.1^2 + 2 * 19.9 * ln(1 + sigma^2)) - 0.1) / 19.9: betas linear from 0.1 to 20 in continuous time.

    What DAPS gives its latent diffusion models (model/precond.py, VPPrecond), although the public checkpoints were
    trained with sqrt-linear betas. sigma: tensor of any shape, > 0; returns fractional timesteps of that shape.
    """
    return 999 * ((0.1**2 + 2 * 19.9 * torch.log1p(sigma.square())).sqrt() - 0.1) / 19.9


class ContinuousBetas:
    """sigma -> T (((n + 1) a ln(1 + sigma^2) + b^(n+1))^(1/(n+1)) - b) / a, for beta(t) = (a t + b)^n of t in [0, 1].

    n is 1 for beta_schedule "linear", 2 for "scaled_linear"; a and b follow from beta_start and beta_end, each times
    the number T of timesteps. What DAPS gives Stable Diffusion. Source: DAPS, model/__init__.py, StableDiffusionModel,
    and cores/scheduler.py, VPScheduler.get_sigma_inv.

    config: of a diffusers scheduler. Raises InputError for another schedule.
    """

    POWERS = {"linear": 1, "scaled_linear": 2}

    def __init__(self, config: Any) -> None:
        if config.beta_schedule not in self.POWERS:
            raise InputError(
                f"model.timestep_map=official: its scheduler has beta_schedule={config.beta_schedule}, and DAPS knows "
                f"{' and '.join(self.POWERS)}; use model.timestep_map=trained"
            )
        self.n, self.timesteps = self.POWERS[config.beta_schedule], config.num_train_timesteps
        low, high = ((self.timesteps * beta) ** (1 / self.n) for beta in (config.beta_start, config.beta_end))
        self.a, self.b = high - low, low

    def __call__(self, sigma: torch.Tensor) -> torch.Tensor:
        power = self.n + 1
        inner = power * self.a * torch.log1p(sigma.square()) + self.b**power
        return self.timesteps * (inner ** (1 / power) - self.b) / self.a


class TimestepMap:
    """sigma -> fractional timestep of the denoising network.

    "trained":  interpolates log sigma on the scheduler's own alphas_cumprod: where the network was trained.
    "official": what DAPS computes for this family of models.

    official: the function behind that name, tensor to tensor
    """

    NAMES = ("trained", "official")

    def __init__(
        self,
        name: str,
        alphas_cumprod: torch.Tensor | Sequence[float],
        official: Callable[[torch.Tensor], torch.Tensor] | None = linear_beta_timesteps,
    ) -> None:
        if name not in self.NAMES:
            raise ValueError(f"timestep_map={name}: choose from {', '.join(self.NAMES)}")
        self.name, self.official = name, official
        alphas = torch.as_tensor(alphas_cumprod, dtype=torch.float64)
        self.log_sigmas = 0.5 * ((1 - alphas) / alphas).log()  # (1000,), increasing
        self._grids: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}  # the same on each device and in each precision

    def __call__(self, sigma: torch.Tensor) -> torch.Tensor:
        """sigma: tensor of any shape, > 0; returns timesteps of the same shape, on its device."""
        if self.name == "official":
            return self.official(sigma)
        place = sigma.device, sigma.dtype
        if place not in self._grids:
            self._grids[place] = self.log_sigmas.to(sigma.dtype).to(sigma.device)
        grid = self._grids[place]
        value = sigma.log().clamp(grid[0], grid[-1])
        # torch.searchsorted as a count: XLA has no kernel for it
        upper = (grid < value[..., None]).sum(-1).clamp(1, len(grid) - 1)
        low, high = grid[upper - 1], grid[upper]
        return upper - 1 + (value - low) / (high - low)

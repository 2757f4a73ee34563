"""Timesteps of a denoising network."""

import torch


class TimestepMap:
    """sigma -> fractional timestep of the denoising network.

    "trained":  interpolates log sigma on the scheduler's own alphas_cumprod: where the network was trained.
    "official": t = 999 (sqrt(0.1^2 + 2 * 19.9 * ln(1 + sigma^2)) - 0.1) / 19.9, the linear-beta map that DAPS uses
                although the public LDM checkpoints were trained with sqrt-linear betas.
    """

    NAMES = ("trained", "official")

    def __init__(self, name, alphas_cumprod):
        if name not in self.NAMES:
            raise ValueError(f"timestep_map={name}: choose from {', '.join(self.NAMES)}")
        self.name = name
        alphas = torch.as_tensor(alphas_cumprod, dtype=torch.float64)
        self.log_sigmas = 0.5 * ((1 - alphas) / alphas).log()  # (1000,), increasing
        self._grids = {}  # the same on each device and in each precision

    def __call__(self, sigma):
        """sigma: tensor of any shape, > 0; returns timesteps of the same shape, on its device."""
        if self.name == "official":
            return 999 * ((0.1**2 + 2 * 19.9 * torch.log1p(sigma.square())).sqrt() - 0.1) / 19.9
        place = sigma.device, sigma.dtype
        if place not in self._grids:
            self._grids[place] = self.log_sigmas.to(sigma.dtype).to(sigma.device)
        grid = self._grids[place]
        value = sigma.log().clamp(grid[0], grid[-1])
        # torch.searchsorted as a count: XLA has no kernel for it
        upper = (grid < value[..., None]).sum(-1).clamp(1, len(grid) - 1)
        low, high = grid[upper - 1], grid[upper]
        return upper - 1 + (value - low) / (high - low)

    def of(self, sigma: float) -> float:
        """The timestep of one noise level, computed on the CPU."""
        return float(self(torch.tensor(sigma, dtype=torch.float64)))

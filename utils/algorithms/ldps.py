"""Latent DPS: diffusion posterior sampling in the latents. `sampler=ldps`.

    z <- DDIM(z) - omega grad_z |y - A(D(z0hat(z)))|

The norm and not its square, of each particle alone; the gradient runs through decoder and denoiser. DDIM, z0hat and the
levels: utils/algorithms/ddim.py. With another data term (`fidelity`) the norm is the root of its loss.
Sources: Chung et al., arXiv 2209.14687 (DPS); Rout et al., arXiv 2307.00619, where its latent form is the baseline.
"""

from typing import Any

import torch

from utils.algorithms.ddim import GuidedDDIM, norm


class LatentDPS(GuidedDDIM):
    """omega: step size, >= 0. Others: utils.algorithms.ddim.GuidedDDIM."""

    def __init__(self, *parts: Any, omega: float, **others: Any) -> None:
        super().__init__(*parts, **others)
        self.omega = omega

    def error(self, z0: torch.Tensor, image: torch.Tensor, loss: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.omega * norm(loss)

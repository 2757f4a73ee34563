"""How likely the prior finds a picture."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from utils.noise import KeyedNoise
from utils.priors.base import LatentPrior
from utils.sampling.denoising import denoising_loss
from utils.sampling.particles import Particles


class PriorScore:
    """The denoising loss of pictures' encodings, under one keyed noise for all particles of an image.

    sigmas: its noise levels; one that is named twice has two draws. Costs a picture one encoding and a denoiser call for each.
    """

    def __init__(self, prior: LatentPrior, noise: KeyedNoise, sigmas: Sequence[float]) -> None:
        self.prior, self.noise, self.sigmas = prior, noise, sigmas

    def __call__(self, image: torch.Tensor, particles: Particles) -> torch.Tensor:
        """(P,), the smaller, the likelier; image (P, 3, H, W) of the particles."""
        with torch.no_grad():
            z = self.prior.encode(image)
            shared = replace(particles, z=z, index=torch.zeros_like(particles.index))
            noise = self.noise.draw(shared, "certificate", count=len(self.sigmas))  # (S, P, C, h, w)
            return denoising_loss(self.prior, z, noise, torch.tensor(self.sigmas, dtype=z.dtype, device=z.device))

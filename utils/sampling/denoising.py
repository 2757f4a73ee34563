"""How likely a prior finds latents, by how well it denoises them."""

import torch

from utils.priors.base import LatentPrior


def denoising_loss(prior: LatentPrior, z: torch.Tensor, noise: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """sum over sigmas of mean |D(z + sigma e, sigma) - z|^2 / sigma^2, (B,): the smaller, the likelier under the prior.

    z (B, C, h, w); noise e (S, B, C, h, w); sigmas (S,). S denoiser calls.
    """
    total = torch.zeros(len(z), dtype=z.dtype, device=z.device)
    for e, sigma in zip(noise.unbind(), sigmas.unbind()):
        total = total + (prior.denoise(z + sigma * e, sigma) - z).square().flatten(1).mean(1) / sigma.square()
    return total

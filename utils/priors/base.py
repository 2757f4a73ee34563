"""The contract of a latent prior: all that the sampler knows of the networks."""

from abc import ABC, abstractmethod

import torch


class LatentPrior(ABC):
    """Encoder, decoder and denoiser of a latent diffusion model.

    Images are (P, 3, H, W) in [-1, 1]; latents are (P, *latent_shape) in the scale that the denoiser was trained on.

    latent_shape: (C, h, w)
    resolution:   H = W of the images
    device, dtype: where and in which precision the latents and images live
    """

    latent_shape: tuple[int, int, int]
    resolution: int
    device: torch.device
    dtype: torch.dtype

    @abstractmethod
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """(P, 3, H, W) -> (P, C, h, w)."""

    @abstractmethod
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """(P, C, h, w) -> (P, 3, H, W), differentiable in z."""

    @abstractmethod
    def denoise(self, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """E[z0 | z0 + sigma noise = z]; sigma is a 0-d tensor on the device, > 0."""

    def compute_in(self, dtype: torch.dtype) -> None:
        """Weights and activations of decoder and denoiser in `dtype`; images and latents stay in `self.dtype`.

        A prior without networks ignores it.
        """

    def checkpoint_decoder(self) -> None:
        """Keep no decoder activations for the backward pass, compute them again; a decoder without any ignores it."""

    def resident_bytes(self) -> int:
        """Bytes that the networks occupy: part of the peak memory that is reported on the CPU."""
        return 0

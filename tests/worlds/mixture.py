"""A Gaussian-mixture prior with a linear decoder: everything about it is known in closed form.

For tests of the sampler's statistics; it runs in float64.
"""

import torch
from numpy.typing import ArrayLike

from utils.priors.base import LatentPrior


class GaussianMixturePrior(LatentPrior):
    """Latents z ~ sum_k w_k N(m_k, s_k^2 I); decoder x = z W^T.

    means: (K, d); stds: (K,) > 0; weights: (K,), sum 1; decoder: (D, d), images are (P, D, 1, 1).
    A Gaussian is the case K = 1.
    """

    def __init__(
        self,
        means: torch.Tensor | ArrayLike,
        stds: torch.Tensor | ArrayLike,
        weights: torch.Tensor | ArrayLike,
        decoder: torch.Tensor | ArrayLike,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.means, self.stds, self.weights, self.decoder = (
            torch.as_tensor(v, dtype=dtype, device=device) for v in (means, stds, weights, decoder)
        )
        self.device, self.dtype = torch.device(device), dtype
        self.latent_shape = (self.means.shape[1], 1, 1)
        self.resolution = 1

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.lstsq(self.decoder, x.flatten(1).T).solution.T.reshape(len(x), *self.latent_shape)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return (z.flatten(1) @ self.decoder.T)[..., None, None]

    def denoise(self, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Exact posterior mean: the components' linear denoisers, weighted by their responsibilities."""
        flat, variance = z.flatten(1)[:, None], sigma.expand(len(z)).square()[:, None]  # (P, 1, d), (P, 1)
        total = self.stds.square() + variance  # (P, K)
        distance = (flat - self.means).square().sum(-1)  # (P, K)
        dimension = self.means.shape[1]
        weight = torch.softmax(self.weights.log() - 0.5 * distance / total - 0.5 * dimension * total.log(), dim=1)
        shrink = (self.stds.square() / total)[..., None]
        return (weight[..., None] * (self.means + shrink * (flat - self.means))).sum(1).reshape(z.shape)

    def resident_bytes(self) -> int:
        return sum(v.numel() * v.element_size() for v in (self.means, self.stds, self.weights, self.decoder))

"""The contract of a forward model A: y = A(x) + noise."""

from abc import ABC, abstractmethod

import torch


class Operator(torch.nn.Module, ABC):
    """Acts on images (P, 3, H, W) in [-1, 1], on the first axis independently, with tensor operations only.

    sigma: standard deviation of the measurement noise, >= 0
    rotation_ambiguity: True if an image and its 180-degree rotation have the same measurement
    turns: True if the rotation of each channel alone leaves the measurement unchanged
    separable: True if channel c of the measurement, (P, C, ...), depends on channel c of the image alone
    linear: True if A(a x + b z) = a A(x) + b A(z)
    """

    rotation_ambiguity = False
    turns = False
    separable = False
    linear = False

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = float(sigma)

    @abstractmethod
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The noiseless measurement A(x), (P, ...)."""

    def measure(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """A(x) + sigma noise; `noise` is standard normal, shaped like A(x)."""
        return self(x) + self.sigma * noise

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Sum of squared residuals of each particle, (P,)."""
        return (self(x) - y).square().flatten(1).sum(1)

    def channel_loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Sum of squared residuals of each channel, (P, C); it adds up to the loss. For separable operators only."""
        return (self(x) - y).square().flatten(2).sum(2)

    def noise_floor(self, y: torch.Tensor) -> float:
        """Expected loss of the true image, a float: number of measurements times sigma^2."""
        return y[0].numel() * self.sigma**2

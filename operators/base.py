"""The contract of a forward model A: y = A(x) + noise."""

from abc import ABC, abstractmethod

import torch


class Operator(torch.nn.Module, ABC):
    """Acts on images (P, 3, H, W) in [-1, 1], on the first axis independently, with tensor operations only.

    A measurement y (P, ...) is NaN where nothing was measured; each particle's own may be missing elsewhere.

    sigma: standard deviation of the measurement noise, >= 0
    rotation_ambiguity: True if an image and its 180-degree rotation have the same measurement
    turns: True if the rotation of each channel alone leaves the measurement unchanged
    separable: True if channel c of the measurement, (P, C, ...), depends on channel c of the image alone
    linear: True if A(a x + b z) = a A(x) + b A(z)
    spectrum: True if A is D times the magnitude of the centred, orthonormal Fourier transform F of the image in [0, 1],
        (P, C, H', W'); D > 0 is known and 1 in most tasks, and `magnitudes` takes it off
    offset: of rows and columns: a spectrum's samples lie this much above the whole frequencies, in samples
    """

    rotation_ambiguity = False
    turns = False
    separable = False
    linear = False
    spectrum = False
    offset = (0.0, 0.0)

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = float(sigma)

    @abstractmethod
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The noiseless measurement A(x), (P, ...)."""

    def measure(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """A(x) + sigma noise; `noise` is standard normal, shaped like A(x)."""
        return self(x) + self.sigma * noise

    def repeated(self, x: torch.Tensor, y: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What x gives without noise, and a measurement of it as y is one, both (P, ...), at the exposure of y."""
        return self(x), self.measure(x, noise)

    def visible(self, x: torch.Tensor) -> torch.Tensor:
        """What the measurement can say of images x (P, 3, H, W): all of them, or their grey in all three channels."""
        return x

    def magnitudes(self, y: torch.Tensor) -> torch.Tensor:
        """The magnitudes |F(x)| that y measures, shaped like it and NaN where it is, for operators with a spectrum."""
        return y

    @property
    def support(self) -> torch.Tensor | None:
        """Where the object may differ from 0, bool (H, W), for operators with a spectrum; None: in all of the image."""
        return None

    @property
    def magnitude_variance(self) -> float:
        """Variance of the noise on one magnitude, for operators with a spectrum."""
        return self.sigma**2

    def residual(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """A(x) - y, and 0, with a gradient of 0, where y is NaN: not measured."""
        return torch.where(torch.isnan(y), 0.0, self(x) - y)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Sum of squared residuals of each particle, (P,)."""
        return self.residual(x, y).square().flatten(1).sum(1)

    def channel_loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Sum of squared residuals of each channel, (P, C); it adds up to the loss. For separable operators only."""
        return self.residual(x, y).square().flatten(2).sum(2)

    def handicap(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor | None:
        """What the loss lacks, (P,), where particles of one measurement are compared; None: it compares as it is."""
        return None

    def exposure(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor | None:
        """The fitted exposure, (P,): the intensity of y over that of A(x); None where it is known."""
        return None

    def components(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """{term: (P,)} of a loss that is a weighted sum of terms, unweighted; none of one that is not."""
        return {}

    def floor_components(self, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """{term: (P,)}: the terms' own floors."""
        return {}

    def noise_floor(self, y: torch.Tensor, axis: int = 1) -> torch.Tensor:
        """Expected loss of the true image, (P,): number of measurements times sigma^2. axis 2: that of each channel, (P, C)."""
        return measurements(y, axis) * self.sigma**2

    def floor_spread(self, y: torch.Tensor, axis: int = 1) -> torch.Tensor:
        """Standard deviation of the true image's loss as a share of its floor, and shaped like it: here of a chi-square."""
        return (2 / measurements(y, axis)) ** 0.5


def measurements(y: torch.Tensor, axis: int = 1) -> torch.Tensor:
    """How many numbers of y (P, ...) are not NaN, over the axes from `axis` on, in y's precision: (P,), or (P, C) from 2 on."""
    return (~torch.isnan(y)).flatten(axis).sum(axis).to(y.dtype)


def column(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """One value per particle, (P,), shaped to broadcast over `like`, (P, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))

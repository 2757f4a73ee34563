"""Any physics of deepinv as the forward model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from operators.base import Operator
from utils import device as devices
from utils.errors import InputError, one_line

if TYPE_CHECKING:
    from deepinv.physics import Physics


class DeepinvPhysics(Operator):
    """A(x) = physics.A(x / 2 + 1/2): deepinv works on images in [0, 1]. A complex result becomes its real and
    imaginary parts on a last axis. The noise is ours, keyed and Gaussian, so a noise model of the physics is refused
    unless it says the same.

    physics: a deepinv.physics.Physics that takes real images (P, 3, H, W) and gives one measurement (P, ...)
    sigma:   standard deviation of the noise, >= 0
    Raises InputError. Source: https://deepinv.github.io, deepinv.physics
    """

    def __init__(self, physics: Physics, sigma: float = 0.05) -> None:
        super().__init__(sigma)
        self.physics = physics
        noise = getattr(physics, "noise_model", None)
        kind = type(noise).__name__
        same = kind == "GaussianNoise" and abs(float(noise.sigma) - self.sigma) < 1e-6
        if noise is not None and kind != "ZeroNoise" and not same:
            raise InputError(
                f"task operator physics: {type(physics).__name__} brings {kind}, and here the noise is "
                f"Gaussian of standard deviation operator.sigma={self.sigma}; set its noise_model to deepinv.physics.ZeroNoise"
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        try:
            y = self.physics.A(0.5 * x + 0.5)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            if devices.is_out_of_memory(error):
                raise
            raise InputError(self._unfit(f"does not take real images of shape {tuple(x.shape)} ({one_line(error)})")) from None
        if not torch.is_tensor(y) or len(y) != len(x):
            raise InputError(self._unfit(f"gives a {type(y).__name__}, not one tensor with a measurement per image"))
        return torch.view_as_real(y) if torch.is_complex(y) else y

    def _unfit(self, reason: str) -> str:
        return f"task operator physics: {type(self.physics).__name__} {reason}; choose a physics on real colour images"

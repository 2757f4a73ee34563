"""Any physics of deepinv as the forward model."""

import torch

from operators.base import Operator


class DeepinvPhysics(Operator):
    """A(x) = physics.A(x / 2 + 1/2): deepinv works on images in [0, 1]. A complex result becomes its real and
    imaginary parts on a last axis. The noise is ours: the physics' own noise model is not used.

    physics: a deepinv.physics.Physics that takes (P, 3, H, W); sigma: standard deviation of the noise, >= 0
    Source: https://deepinv.github.io, deepinv.physics
    """

    def __init__(self, physics, sigma=0.05):
        super().__init__(sigma)
        self.physics = physics

    def forward(self, x):
        y = self.physics.A(0.5 * x + 0.5)
        return torch.view_as_real(y) if torch.is_complex(y) else y

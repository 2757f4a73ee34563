"""High dynamic range: bright and dark parts are clipped by the sensor."""

import torch

from operators.base import Operator


class HighDynamicRange(Operator):
    """A(x) = clip(scale x, -1, 1). Source: DAPS, forward_operator/__init__.py, HighDynamicRange.

    scale: > 0, how far the image exceeds the sensor's range; sigma: standard deviation of the noise, >= 0
    """

    separable = True

    def __init__(self, scale: float = 2.0, sigma: float = 0.05) -> None:
        super().__init__(sigma)
        self.scale = float(scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.scale * x).clip(-1, 1)

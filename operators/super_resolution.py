"""Super resolution: only a bicubically reduced image is measured."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from operators.base import Operator


class SuperResolution(Operator):
    """A(x) = R x R^T per colour channel, R (h, H) the antialiased bicubic reduction by `scale_factor`, h = ceil(H / s).

    R_ij is proportional to k((j - c_i) / s), rows summing to 1, with c_i the centre of output pixel i in input
    pixels, k the cubic convolution kernel with a = -1/2 (Keys 1981), the image mirrored at its borders.
    Source: DAPS, forward_operator/resizer.py (Shocher's Resizer), its default kernel.

    resolution:   H = W of the images
    scale_factor: s, an integer >= 2
    sigma:        standard deviation of the noise, >= 0
    """

    linear = True
    separable = True
    reduction: torch.Tensor  # (h, H)

    def __init__(self, resolution: int, scale_factor: int = 4, sigma: float = 0.05) -> None:
        super().__init__(sigma)
        reduction = torch.from_numpy(bicubic_reduction(resolution, scale_factor)).float()
        self.register_buffer("reduction", reduction)  # (h, H)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.reduction @ x @ self.reduction.T


def cubic(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -1/2, number by number: the shape of t stays."""
    t = np.abs(t)
    return np.where(t <= 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t < 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0.0))


def bicubic_reduction(length: int, scale: int) -> NDArray[np.float64]:
    """R (ceil(length / scale), length) in float64."""
    reduced = math.ceil(length / scale)
    # the output grid is centred on the input grid, also where `scale` does not divide `length`
    centre = (np.arange(reduced) + 0.5 - reduced / 2) * scale + length / 2 - 0.5  # (h,)
    reach = 2 * scale + 1
    taps = np.floor(centre)[:, None] + np.arange(-reach, reach + 1)  # (h, T) input positions
    weight = cubic((taps - centre[:, None]) / scale)
    weight /= weight.sum(1, keepdims=True)
    mirrored = np.mod(taps, 2 * length).astype(int)
    mirrored = np.where(mirrored < length, mirrored, 2 * length - 1 - mirrored)
    matrix = np.zeros((reduced, length))
    np.add.at(matrix, (np.arange(reduced)[:, None], mirrored), weight)
    return matrix

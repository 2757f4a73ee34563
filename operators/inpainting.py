"""Inpainting: a part of the pixels is lost, the same part in every image of a run."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from operators.base import Operator
from utils.noise import keyed_generator


class Inpainting(Operator):
    """A(x) = m x, with a mask m in {0, 1}^(H x W) shared by the colour channels; 0 marks lost pixels.

    "box":    one box is lost; height and width are uniform in mask_len_range [low, high), its corner is uniform at
              least `margin` pixels from the border.
    "random": a share of single pixels is lost, uniform in mask_prob_range [low, high).
    The lost entries of y hold noise alone, as in DAPS, forward_operator/__init__.py, mask_generator; they add a
    constant to the loss. There NumPy's global state draws the mask in the first call; here `seed` alone decides it.

    resolution:      H = W of the images
    mask_len_range:  pixels, low >= 1; box only
    mask_prob_range: 0 <= low < high <= 1; random only
    margin:          pixels; box only
    sigma:           standard deviation of the noise, >= 0
    """

    linear = True
    separable = True
    mask: torch.Tensor  # (H, W)

    def __init__(
        self,
        resolution: int,
        mask_type: Literal["box", "random"],
        mask_len_range: Sequence[int] | None = None,
        mask_prob_range: Sequence[float] | None = None,
        margin: int = 32,
        seed: int = 42,
        sigma: float = 0.05,
    ) -> None:
        super().__init__(sigma)
        generator = keyed_generator(seed, "mask")
        if mask_type == "box":
            mask = box_mask(generator, resolution, mask_len_range, margin)
        elif mask_type == "random":
            mask = random_mask(generator, resolution, mask_prob_range)
        else:
            raise ValueError(f"mask_type={mask_type}: choose from box, random")
        self.register_buffer("mask", torch.from_numpy(mask))  # (H, W) float32

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask


def box_mask(generator: np.random.Generator, resolution: int, length_range: Sequence[int], margin: int) -> NDArray[np.float32]:
    """(H, W) float32 array, 0 inside one box."""
    height, width = generator.integers(*length_range, size=2)
    # a box that fills all between the margins has one place
    top, left = (generator.integers(margin, max(margin + 1, resolution - margin - side)) for side in (height, width))
    mask = np.ones((resolution, resolution), dtype=np.float32)
    mask[top : top + height, left : left + width] = 0
    return mask


def random_mask(generator: np.random.Generator, resolution: int, probability_range: Sequence[float]) -> NDArray[np.float32]:
    """(H, W) float32 array, 0 at a share of the pixels."""
    lost = int(resolution**2 * generator.uniform(*probability_range))
    mask = np.ones(resolution**2, dtype=np.float32)
    mask[generator.choice(resolution**2, lost, replace=False)] = 0
    return mask.reshape(resolution, resolution)

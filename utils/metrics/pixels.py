"""Images as tensors in [-1, 1], as what scores are computed on, and as the pictures of a record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def to_unit(x: torch.Tensor) -> torch.Tensor:
    """[-1, 1] -> [0, 1], clipped; what every score is computed on. Not-a-number becomes 0."""
    return (0.5 * x + 0.5).nan_to_num().clip(0, 1)


def to_pixels(x: torch.Tensor) -> np.ndarray:
    """Images (P, 3, H, W) in [-1, 1] -> (P, H, W, 3) uint8 array."""
    array = np.nan_to_num(x.detach().float().cpu().numpy(), nan=-1.0, posinf=1.0, neginf=-1.0)
    return np.round((np.clip(array, -1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)


def from_pixels(pixels: np.ndarray) -> torch.Tensor:
    """What `to_pixels` keeps of images, float32."""
    import torch

    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1)

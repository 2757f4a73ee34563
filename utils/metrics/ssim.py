"""Structural similarity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from utils.metrics.base import Metric
from utils.metrics.pixels import to_unit

if TYPE_CHECKING:
    import torch


class Ssim(Metric):
    """Of the picture in the orientation as found; 1 is perfect."""

    name, title = "ssim", "SSIM"
    tables = {"perception": (("best", "SSIM best"), ("mean", "SSIM mean"), ("pick", "SSIM pick"))}

    def __call__(self, x: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Of images in [-1, 1], at least 11 pixels wide."""
        import piq

        return piq.ssim(to_unit(x), to_unit(truth).expand(x.shape), data_range=1.0, reduction="none")

"""Peak signal-to-noise ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from utils.metrics.base import Metric
from utils.metrics.pixels import to_unit

if TYPE_CHECKING:
    import torch


def psnr(x: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """(P,) PSNR in dB of images x (P, C, H, W) against `truth`, broadcast to x, both in [-1, 1].

    piq.psnr without its checks of the range, which wait for the device: the trace asks at each annealing step.
    """
    return -10 * ((to_unit(x) - to_unit(truth)).square().mean((1, 2, 3)) + 1e-8).log10()


class Psnr(Metric):
    """Of the picture in the orientation as found."""

    name, title, unit, digits = "psnr", "PSNR", "dB", 2
    row = "PSNR"
    tables = {"quality": (("best", "as is: best"), ("mean", "as is: mean"), ("pick", "as is: pick"))}

    def __call__(self, x: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return psnr(x, truth)

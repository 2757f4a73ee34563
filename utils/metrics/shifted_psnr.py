"""PSNR where the object may lie elsewhere: magnitudes of a spectrum do not tell the place of an object with dark margins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from utils.metrics.base import Metric
from utils.metrics.pixels import to_unit

if TYPE_CHECKING:
    import torch


class ShiftedPsnr(Metric):
    """PSNR in dB of the better orientation and of the best shift, by whole pixels and round the border.

    Nothing but what is measured without a place should be judged by it; where no margin is dark the best shift is mostly none.

    share: of a side, how far a picture may be shifted each way, from 0 to 1/2
    """

    title, unit, digits = "PSNR, better orientation and place", "dB", 2

    def __init__(self, share: float = 0.25) -> None:
        self.share = share

    def __call__(self, x: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        import torch

        x, truth = to_unit(x).double(), to_unit(truth).double()
        energy = x.square().sum((1, 2, 3)) + truth.square().sum()  # (P,)
        spectrum, reference = torch.fft.rfft2(x), torch.fft.rfft2(truth)
        best = torch.full_like(energy, torch.inf)
        for turned in (spectrum, torch.fft.rfft2(x.flip(-2, -1))):
            # (P, H, W): sum of products for every shift of x
            overlap = torch.fft.irfft2((turned.conj() * reference).sum(1), s=x.shape[-2:])
            allowed = self.window(x.shape[-2])[:, None] & self.window(x.shape[-1])
            best = torch.minimum(best, energy - 2 * overlap.masked_fill(~allowed, -torch.inf).amax((1, 2)))
        return -10 * (best.clamp(min=0) / truth.numel() + 1e-8).log10()

    def window(self, side: int) -> torch.Tensor:
        """Which shifts are allowed along a side, (side,) bool; shift s stands at s and at s - side."""
        import torch

        shift = torch.arange(side)
        return torch.minimum(shift, side - shift) <= self.share * side

"""Noise of one size: |m - y|^2, or |m - t y|^2 with a free exposure t.

t is the maximum of the likelihood of y = (m + noise) / t, whose normalisation keeps m from shrinking:
t^2 |y|^2 - t <m, y> = n sigma^2 with n measurements. There the derivative in t vanishes (envelope theorem), so t counts as
a constant.
"""

import torch

from operators.base import column
from operators.term import Term, number_of


class Gaussian(Term):
    knows_scale = True

    def value(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return (m - self.exposure(m, y, known) * y if self.free_scale else m - y).square()

    def residual(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return m - y

    def exposure(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """t of each particle, shaped to broadcast over y."""
        m, dtype = torch.where(known, m, 0.0).detach(), m.dtype
        energy = y.square().flatten(1).sum(1).clamp(min=1e-20)  # none where nothing was measured
        both = (m * y).flatten(1).sum(1)
        noise = number_of(known, dtype) * self.sigma**2
        return column((both / energy + (both.square() / energy + 4 * noise).sqrt() / energy.sqrt()) / 2, y)

    def log_exposure(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor | None:
        return self.exposure(m, y, known).flatten().log() if self.free_scale else None

    def floor(self, y: torch.Tensor, known: torch.Tensor, axis: int) -> torch.Tensor:
        """Of a chi-square less the exposure, where that is fitted."""
        count = number_of(known, y.dtype, axis)
        return self.sigma**2 * count * column(1 - int(self.free_scale) / number_of(known, y.dtype), count)

    def spread(self, y: torch.Tensor, known: torch.Tensor, axis: int) -> torch.Tensor:
        return self.sigma**2 * (2 * number_of(known, y.dtype, axis)) ** 0.5

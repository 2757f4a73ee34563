"""A term for uncalibrated scales: invariant under a factor and an offset of y, both fitted for each particle.

    sum (m - mean m - (y - mean y) sd(m) / sd(y))^2

Scale- and shift-invariant: Ranftl et al., arXiv 1907.01341, eq. 3 and 5, with mean and standard deviation; sd(m) outside the
ratio counts as a constant. No gain measured: docs/log.md.

    python posterior_sample.py --config-dir docs/examples/plugins experiment=ssi
"""

import torch

from operators.base import column
from operators.term import Term, mean, number_of

FITTED = 2  # the factor and the offset


class ScaleShiftInvariant(Term):
    def value(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        a, b = centred(m, known), centred(y, known)
        scale = mean(a.square(), known).sqrt() + 1e-12
        b = b / (mean(b.square(), known).sqrt() + 1e-12)
        return scale.detach() ** 2 * (a / scale - b).square()

    def residual(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return m - y

    def floor(self, y: torch.Tensor, known: torch.Tensor, axis: int) -> torch.Tensor:
        """Of a chi-square less what was fitted, to first order in sigma^2 over the variance of m."""
        count = number_of(known, y.dtype, axis)
        return self.sigma**2 * count * column(1 - FITTED / number_of(known, y.dtype), count)

    def spread(self, y: torch.Tensor, known: torch.Tensor, axis: int) -> torch.Tensor:
        return self.sigma**2 * (2 * number_of(known, y.dtype, axis)) ** 0.5


def centred(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    values = torch.where(known, values, 0.0)
    return torch.where(known, values - mean(values, known), 0.0)

"""A term for uncalibrated scales: invariant under a factor and an offset of y, both fitted for each particle.

    sum (m - mean m - (y - mean y) sd(m) / sd(y))^2

Scale- and shift-invariant: Ranftl et al., arXiv 1907.01341, eq. 3 and 5, with mean and standard deviation; sd(m) outside the
ratio counts as a constant. No gain measured: docs/research/log.md.

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
        """2 n s^2 (1 - r): s^2 is the variance of the true m, r = s / sqrt(s^2 + sigma^2) its correlation with y.

        Where the noise is small this is n sigma^2. Of the n, what was fitted is taken off.
        """
        count, variance = number_of(known, y.dtype, axis), self.variance(y, known)
        each = 2 * variance * (1 - self.correlation(variance))
        return count * column(each * (1 - FITTED / number_of(known, y.dtype)), count)

    def spread(self, y: torch.Tensor, known: torch.Tensor, axis: int) -> torch.Tensor:
        """Of the value over its floor, which follows y too: both to first order in the noise along m and in its own size."""
        count, variance = number_of(known, y.dtype, axis), self.variance(y, known)
        r = self.correlation(variance)
        floor_slope = 2 - 3 * r + r**3  # of the floor in the variance of y, over n
        along_m, of_size = 2 * r * (1 - r**2) + 2 * floor_slope, r**3 - floor_slope
        each = self.sigma * (along_m**2 * variance + 2 * of_size**2 * self.sigma**2).sqrt()
        return count.sqrt() * column(each, count)

    def variance(self, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """s^2 of each particle, (P,): that of y less the noise; above 0 also where y is nothing but noise."""
        of_y = mean(centred(y, known).square(), known).flatten()
        return (of_y - self.sigma**2).clamp(min=1e-3 * self.sigma**2)

    def correlation(self, variance: torch.Tensor) -> torch.Tensor:
        return (1 + self.sigma**2 / variance) ** -0.5


def centred(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    values = torch.where(known, values, 0.0)
    return torch.where(known, values - mean(values, known), 0.0)

"""The contract of a term: how far a prediction m = A(x) is from what was measured, y.

A term is in the unit of a squared residual: at the true image it is near sigma^2 times the number of measurements. The
data term is a weighted sum of terms (operators/fidelity.py). One of one's own is a class in any module, named in
`fidelity.terms`; docs/extending.md shows one.
"""

from abc import ABC, abstractmethod
from typing import Literal

import torch

from operators.base import column


class Term(torch.nn.Module, ABC):
    """Acts on the first axis independently, with tensor operations only.

    m and y are (P, C, ...); `known`, a bool like y, is False where nothing was measured. There y is 0, m may be anything, and
    what `value` and `residual` give is left out; where a term sums over measurements itself, it leaves them out too.

    sigma: standard deviation of the operator's noise, > 0
    needs: "spectrum" of the operator, whose m is then a magnitude; "image": none of a spectrum; None: it fits every task
    knows_scale: True if it fits the exposure of y, one number per particle, where the data term sets `free_scale`
    separable: True if `value` says what each channel adds
    """

    needs: Literal["spectrum", "image"] | None = None
    knows_scale: bool = False
    separable: bool = True
    free_scale: bool = False

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = float(sigma)

    @abstractmethod
    def value(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """What each measurement adds, shaped like y, or each channel, (P, C); the whole, (P,), of one that is not separable."""

    @abstractmethod
    def floor(self, y: torch.Tensor, known: torch.Tensor, axis: int) -> torch.Tensor:
        """Expected value at the true image, (P,); with axis 2 that of each channel, (P, C)."""

    @abstractmethod
    def spread(self, y: torch.Tensor, known: torch.Tensor, axis: int) -> torch.Tensor:
        """Standard deviation of the value at the true image, shaped like the floor."""

    def residual(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor | None:
        """Numbers shaped like y whose squares have the value's curvature at the truth; None: it is no sum of squares."""
        return None

    def log_exposure(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor | None:
        """log t, (P,), where it fits the t of y = (m + noise) / t with Gaussian noise; None: it fits none."""
        return None

    def exposure_of(self, m: torch.Tensor, y: torch.Tensor, known: torch.Tensor) -> torch.Tensor | None:
        """The intensity of y over that of m, (P,), where it fits an exposure; None: it fits none."""
        log_t = self.log_exposure(m, y, known)
        return None if log_t is None else (-2 * log_t).exp()

    def measured(self, m: torch.Tensor, noise: torch.Tensor) -> torch.Tensor | None:
        """A measurement of m under a law of its own, drawn by standard normal `noise`; None: the operator's."""
        return None


def number_of(known: torch.Tensor, dtype: torch.dtype, axis: int = 1) -> torch.Tensor:
    """How many measurements there are, (P,); with axis 2 of each channel, (P, C)."""
    return known.flatten(axis).sum(axis).to(dtype)


def total(values: torch.Tensor, known: torch.Tensor, axis: int) -> torch.Tensor:
    """Sum of the measured values, (P,); with axis 2 of each channel, (P, C)."""
    return torch.where(known, values, 0.0).flatten(axis).sum(axis)


def mean(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Mean of each particle's measured values, which are 0 elsewhere, shaped to broadcast."""
    return column(values.flatten(1).sum(1) / number_of(known, values.dtype).clamp(min=1), values)

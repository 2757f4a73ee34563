"""How much of the measurement is not explained, crystallography's R1, and the exposure that was fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from utils.metrics.base import Metric

if TYPE_CHECKING:
    import torch

    from operators.base import Operator


def r_factor(seen: torch.Tensor, y: torch.Tensor, free_scale: bool = False) -> torch.Tensor:
    """sum |A(x) - y| / sum |y| of the measured values, (P,); 0 at best.

    seen: A(x), (P, ...); y (P, ...), NaN where nothing was measured; free_scale: A(x) times the number that fits best, for
    measurements of an unknown exposure.
    """
    import torch

    measured = ~torch.isnan(y)
    if free_scale:
        seen = seen * best_factor(seen, y).view(-1, *[1] * (seen.dim() - 1))
    off, size = (torch.where(measured, v.abs(), 0.0).flatten(1).sum(1) for v in (seen - y, y))
    return off / size


def best_factor(seen: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The factor by which seen (P, ...) fits y (P, ...), NaN where nothing was measured, in least squares: (P,)."""
    import torch

    measured = ~torch.isnan(y)
    product, square = (torch.where(measured, seen * v, 0.0).flatten(1).sum(1) for v in (y, seen))
    return product / square


class RFactor(Metric):
    """sum |A(x) - y| / sum |y|: the share of the measurement y that the picture x does not explain."""

    name, of, title, direction, digits = "r_factor", "measurement", "R-factor", "min", 4
    optional, beside_loss = True, "r_factor"
    tables = {"loss": (("mean", "R-factor: mean"), ("pick", "R-factor: pick"))}

    def __call__(self, x: torch.Tensor, y: torch.Tensor, operator: Operator) -> torch.Tensor:
        return r_factor(operator(x), y, getattr(operator, "free_scale", False))


class Exposure(Metric):
    """The intensity of y over that of A(x), as the data term fitted it; the gain is off by it."""

    name, of, title, direction, digits = "exposure", "measurement", "fitted exposure", "max", 4
    optional, beside_loss = True, "exposure"
    tables = {"loss": (("pick", "fitted exposure: pick"),)}

    def __call__(self, x: torch.Tensor, y: torch.Tensor, operator: Operator) -> torch.Tensor | None:
        return operator.exposure(x, y)

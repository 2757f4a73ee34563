"""The exposure that was fitted, where the data are known up to a factor (data.scale=free)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from utils.metrics.base import Metric

if TYPE_CHECKING:
    import torch

    from operators.base import Operator


class Exposure(Metric):
    """sum A(x) y / sum A(x)^2 over the measured values: y over calculated magnitudes. A gain is off by its square."""

    name, of, title, direction, digits = "exposure", "measurement", "fitted exposure", "max", 4
    optional, beside_loss = True, "exposure"
    tables = {"loss": (("pick", "fitted exposure: pick"),)}

    def __call__(self, x: torch.Tensor, y: torch.Tensor, operator: Operator) -> torch.Tensor | None:
        if not getattr(operator, "free_scale", False):
            return None
        return best_factor(operator(x), y)


def best_factor(seen: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The factor by which seen (P, ...) fits y (P, ...), NaN where nothing was measured, in least squares: (P,)."""
    import torch

    known = ~torch.isnan(y)
    product, square = (torch.where(known, seen * v, 0.0).flatten(1).sum(1) for v in (y, seen))
    return product / square

"""The measurement loss, as a multiple of what the true image's would be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from utils.metrics.base import Metric

if TYPE_CHECKING:
    import torch

    from operators.base import Operator


class Loss(Metric):
    """The data term. A run's records hold what the sampler last computed; its floor, verdict and pick stand beside it."""

    name, of, title, direction = "loss", "measurement", "loss / noise floor", "min"
    beside_loss = "ratio"

    def __call__(self, x: torch.Tensor, y: torch.Tensor, operator: Operator) -> torch.Tensor:
        return operator.loss(x, y)

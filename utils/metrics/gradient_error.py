"""Are edges where the truth has them?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from utils.metrics.base import Metric
from utils.metrics.pixels import to_unit

if TYPE_CHECKING:
    import torch


class GradientError(Metric):
    """Multi-scale gradient error of the difference to the truth, in [0, 1]; of images at least 3 pixels wide."""

    name, title, direction = "gradient_error", "gradient error", "min"
    row = ""
    optional, compared = True, False

    def __call__(self, x: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        import torch

        from operators.gradients import multi_scale_gradient

        difference = to_unit(x) - to_unit(truth)
        return multi_scale_gradient(difference, torch.ones_like(difference, dtype=torch.bool)).sum(1)

"""LPIPS with AlexNet, as its authors' package `lpips` computes it (Zhang et al., arXiv 1801.03924)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from utils.metrics.base import Metric
from utils.metrics.lpips import weights_folder
from utils.metrics.pixels import to_unit

if TYPE_CHECKING:
    import torch

FILE = "alexnet-owt-7be5be79.pth"


class LpipsAlex(Metric):
    """Only the backbone has to be there: the package brings the linear weights."""

    name, title, direction = "lpips_alex", "LPIPS (AlexNet)", "min"
    optional, compared = True, False

    MIN_SIDE = 31  # pixels; the second pooling has nothing left of a smaller image

    def __init__(self) -> None:
        self.network: Any = None
        if (weights_folder() / FILE).is_file():
            import lpips

            with warnings.catch_warnings():  # the package asks torchvision in an older way
                warnings.simplefilter("ignore")
                self.network = lpips.LPIPS(net="alex", verbose=False)

    def __call__(self, x: torch.Tensor, truth: torch.Tensor) -> torch.Tensor | None:
        """None where the backbone is absent or the images are too small."""
        import torch

        if self.network is None or min(x.shape[-2:]) < self.MIN_SIDE:
            return None
        with torch.no_grad():
            return self.network(to_unit(x), to_unit(truth).expand(x.shape), normalize=True).flatten()

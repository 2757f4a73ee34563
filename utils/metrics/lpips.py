"""LPIPS with VGG16, as DAPS reports it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.metrics.base import Metric
from utils.metrics.pixels import to_unit

if TYPE_CHECKING:
    import torch

log = logging.getLogger("latentdaps")

FILES = ("vgg16-397923af.pth", "lpips_weights.pt")


def weights_folder() -> Path:
    """Where torchvision and piq look for downloaded weights."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


class Lpips(Metric):
    """With average pooling; None with one line of run.log where the weights are absent."""

    name, title, direction = "lpips", "LPIPS", "min"
    tables = {"perception": (("best", "LPIPS best"), ("mean", "LPIPS mean"), ("pick", "LPIPS pick"))}

    def __init__(self) -> None:
        folder = weights_folder()
        missing = [name for name in FILES if not (folder / name).is_file()]
        self.network: Any = None
        if missing:
            names = " and ".join(missing)
            log.info(
                "LPIPS is left out: put %s into %s (docs/guide/data.md, section LPIPS)", names, folder, extra={"brief": ""}
            )
        else:
            import piq

            self.network = piq.LPIPS(replace_pooling=True, reduction="none")

    def __call__(self, x: torch.Tensor, truth: torch.Tensor) -> torch.Tensor | None:
        import torch

        if self.network is None:
            return None
        with torch.no_grad():
            return self.network(to_unit(x), to_unit(truth).expand(x.shape)).flatten()

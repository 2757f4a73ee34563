"""How much of a measurement a prior's decoder cannot represent, on held-out images. Takes the overrides of posterior_sample.py.

    python tools/make_demo_data.py --split val --count 32 --out dataset/val
    python tools/measure_decoder.py data.root=dataset/val/demo-faces data.end_id=32 "data.source=the validation split"
    python tools/measure_decoder.py data.root=... +task.demo_langevin.operator.channels=1      # of grey data

Each image is encoded and decoded: what the two leave of the noiseless measurement, any reconstruction by this prior has above
the noise. The figures go into decoder_floor.json beside the checkpoint, one entry an operator, where runs find them:
docs/guide/results.md, The three answers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import hydra
import numpy as np

from utils.command_line import run, say, write_file, wrong_input_in_one_line
from utils.config.check import check
from utils.config.compose import call
from utils.data import loaded, select_images
from utils.digests import of_prior, other_content
from utils.errors import InputError
from utils.paths import PROJECT
from utils.records.decoder_floor import FILE, DecoderFloor, Measured, operator_of, read
from utils.records.files import to_json
from utils.running.console import setup_logging
from utils.weights import beside_checkpoint

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from operators.base import Operator
    from utils.config.settings import Settings
    from utils.priors.base import LatentPrior

BATCH = 8


def measured_of(settings: Settings) -> Measured:
    """The figures of the configured operator, prior and images. Raises InputError."""
    if settings.data.kind != "images":
        raise InputError(f"data.kind={settings.data.kind}: the images themselves are needed; choose data=folder")
    images = select_images(settings)
    import torch

    from utils.running.build import build

    parts = build(settings)
    operator = getattr(parts.operator, "operator", parts.operator)  # without the block fidelity: squared residuals
    pictures = [torch.from_numpy(loaded(image, partial(image.pixels, parts.side))) for image in images]
    left = torch.cat([residuals(parts.prior, operator, x.to(parts.device)) for x in torch.stack(pictures).split(BATCH)])
    names = f"{settings.data.source}: {images[0].path.name} to {images[-1].path.name}"
    high = float(np.quantile(left.numpy(), 0.9))
    return Measured(operator=operator_of(settings), images=names, count=len(left), mean=left.mean().item(), high=high)


def residuals(prior: LatentPrior, operator: Operator, x: torch.Tensor) -> torch.Tensor:
    """|A(D(E(x))) - A(x)|^2 of images x (P, 3, H, W) in [-1, 1], (P,)."""
    import torch

    with torch.no_grad():
        return operator.loss(prior.decode(prior.encode(x)), operator(x)).cpu()


def keep(settings: Settings, measured: Measured) -> None:
    """Write the figures beside the checkpoint, in place of those of the same operator. Raises InputError."""
    path = beside_checkpoint(settings.model.path, FILE)
    if path is None:
        raise InputError(f"model.path={settings.model.path}: has no folder here; fetch the prior, and name its folder")
    prior, others = of_prior(settings.model_node), []
    if path.is_file() and not other_content((before := read(path)).prior, prior):
        others = [each for each in before.measured if each.operator != measured.operator]
    content = to_json(DecoderFloor(prior=prior, measured=[*others, measured]).model_dump()) + b"\n"
    if (moved := write_file(content, path, keep_other=True)) is not None:
        say(f"{moved}: the figures that were there before")
    say(f"{path}: {measured.mean:.3g} on average, up to {measured.high:.3g} for nine tenths of {measured.count} images")


@hydra.main(version_base="1.3", config_path=str(PROJECT / "configs"), config_name="default")
def main(cfg: DictConfig) -> None:
    setup_logging()
    with wrong_input_in_one_line():
        settings = check(cfg)
        keep(settings, measured_of(settings))


if __name__ == "__main__":
    run(lambda: call(main))

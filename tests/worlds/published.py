"""Names and shapes of the published state dicts, as literal data in the folder beside this file; each cites its source."""

from pathlib import Path

import torch

FOLDER = Path(__file__).parent / "published"


def shapes(network):
    """{name: shape} of one of ffhq256_unet (also CelebA's), cin256_v2_unet, vq_f4, kernel_wizard."""
    lines = (FOLDER / f"{network}.txt").read_text().splitlines()
    rows = (line.split() for line in lines if not line.startswith("#"))
    return {name: tuple(int(side) for side in shape.split("x")) for name, shape in rows}


def constants(network):
    """{name: tensor}, each a constant of its own that occupies one number in memory and in a file."""
    return {name: torch.tensor([float(i)]).expand(shape) for i, (name, shape) in enumerate(shapes(network).items())}

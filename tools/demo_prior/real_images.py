"""The images that a prior's samples are measured against: a shipped family's, or those of a folder. Torch comes late."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from tools.demo_prior.training_images import read_pixels
from utils.data import files_in
from utils.errors import InputError
from utils.paths import PROJECT, find

if TYPE_CHECKING:
    import torch


SEED = 42
FEWEST_SAMPLES = 20  # that are compared with twice as many images


class Family:
    """Images of the generator; rotated as often as those that the shipped prior was trained on."""

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def of(cls, folder: str | Path) -> Self:
        """The family that the name of a prior's folder ends with. Raises InputError."""
        from tools.demo_prior.make_demo_data import FAMILIES

        name = next((family for family in FAMILIES if Path(folder).name.endswith(family)), None)
        if name is None:
            raise InputError(
                f"{folder}: the name of a shipped prior's folder ends with its family: {', '.join(FAMILIES)}; "
                "for a prior of other images give --images FOLDER"
            )
        return cls(name)

    def check(self, count: int) -> None:
        """There are always enough."""

    def draw(self, count: int, resolution: int) -> torch.Tensor:
        """(count, 3, H, W) images of the test split in [-1, 1]."""
        import torch
        from omegaconf import OmegaConf

        from tools.demo_prior.make_demo_data import SEEDS, demo_images
        from utils.evaluation.scores import rotated

        fraction = OmegaConf.load(PROJECT / "configs" / "train_prior.yaml").unet.rotated_fraction[self.name]
        drawn = torch.from_numpy(demo_images(self.name, SEEDS["test"], count)).permute(0, 3, 1, 2) / 127.5 - 1
        turned = torch.from_numpy(np.random.default_rng(SEED).random(count) < fraction)
        return torch.where(turned[:, None, None, None], rotated(drawn), drawn)

    def for_autoencoder(self, resolution: int) -> torch.Tensor:
        """The shipped test images, (n, 3, H, W) in [-1, 1]."""
        return stacked(files_in(PROJECT / "dataset" / f"demo-{self.name}", "images"), resolution)


class Folder:
    """Images of a folder and its folders, such as the held-out ones of a training.

    root: the folder; mirrored and rotated views that a training may have added are not drawn. Raises InputError.
    """

    CHECKED = 500  # images that go through the autoencoder

    def __init__(self, root: str | Path) -> None:
        self.name, self.root = str(root), find(root)
        if not self.root.is_dir():
            raise InputError(f"images={root}: folder {self.root} not found")
        self.files = files_in(self.root, "images")

    def check(self, count: int) -> None:
        """Raises InputError where there are fewer images than `count`."""
        if count > len(self.files):
            most = len(self.files) // 2
            remedy = f"more images, or --count {most}" if most >= FEWEST_SAMPLES else f"{2 * FEWEST_SAMPLES} images at least"
            raise InputError(
                f"count={count // 2}: samples are compared with twice as many images, and {self.name} has {len(self.files)}; "
                f"give {remedy}"
            )

    def chosen(self, count: int) -> list[Path]:
        """`count` files, the same ones every time."""
        order = np.random.default_rng(SEED).permutation(len(self.files))
        return [self.files[i] for i in order[:count]]

    def draw(self, count: int, resolution: int) -> torch.Tensor:
        """(count, 3, H, W) images in [-1, 1]."""
        return stacked(self.chosen(count), resolution)

    def for_autoencoder(self, resolution: int) -> torch.Tensor:
        """(n, 3, H, W) images in [-1, 1]."""
        return stacked(self.chosen(self.CHECKED), resolution)


def stacked(files: Sequence[Path], resolution: int) -> torch.Tensor:
    """The images of the files, (n, 3, resolution, resolution) in [-1, 1]."""
    import torch

    return torch.stack([torch.from_numpy(read_pixels(file, resolution)) for file in files])

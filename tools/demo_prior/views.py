"""The images that a prior is trained on as tensors, in the views in which it is to find them plausible."""

from collections.abc import Iterator

import numpy as np
import torch

from tools.demo_prior.make_demo_data import FAMILIES, SEEDS, demo_images
from tools.demo_prior.settings import Training
from tools.demo_prior.training_images import ImageFolder, drawn_images
from utils.evaluation.scores import rotated


def to_model(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, 3, H, W) -> float in [-1, 1], of the same shape."""
    return images.float() / 127.5 - 1


class DrawnFamilies:
    """What the shipped autoencoder is trained on: every family, half of each batch rotated."""

    def __init__(self, cfg: Training) -> None:
        self.cfg = cfg
        self.images = torch.cat([torch.from_numpy(drawn_images(f, cfg.train_images, cfg.work)) for f in FAMILIES])
        drawn = np.concatenate([demo_images(f, SEEDS["val"], 32) for f in FAMILIES])
        self.held_out = torch.from_numpy(drawn).permute(0, 3, 1, 2)
        self.groups = {"faces": slice(0, 32), "scenes": slice(32, None)}  # of held_out

    def augmented(self, batch: torch.Tensor) -> torch.Tensor:
        """The second half of the batch (N, 3, H, W) rotated."""
        half = len(batch) // 2
        return torch.cat([batch[:half], rotated(batch[half:])])

    def typical(self) -> torch.Tensor:
        """Images (N, 3, H, W) in [-1, 1] over which the latents are standardised."""
        images = to_model(torch.cat([self.images[:1500], self.images[-1500:]]))
        return torch.cat([images[::2], rotated(images[1::2])])


class FolderImages:
    """What the prior of a folder is trained on: its images, also mirrored with data.flip, also rotated with data.rotate."""

    def __init__(self, cfg: Training) -> None:
        folder = image_folder(cfg)
        self.flip, self.rotate = cfg.data.flip, cfg.data.rotate
        self.images = torch.from_numpy(folder.training_images())
        self.held_out = torch.from_numpy(folder.watched_images())
        self.groups = {"held-out": slice(None)}

    def augmented(self, batch: torch.Tensor) -> torch.Tensor:
        """Half of the batch (N, 3, H, W) rotated, every second image mirrored: each image meets every view over the epochs."""
        half = len(batch) // 2
        batch = torch.cat([batch[:half], rotated(batch[half:])]) if self.rotate else batch
        return torch.cat([batch[::2], batch[1::2].flip(-1)]) if self.flip else batch

    def typical(self) -> torch.Tensor:
        """Images (N, 3, H, W) in [-1, 1] over which the latents are standardised."""
        evenly = torch.linspace(0, len(self.images) - 1, min(3000, len(self.images))).long()
        return self.augmented(to_model(self.images[evenly]))

    def views(self) -> Iterator[torch.Tensor]:
        """The training images in each view that the prior is to find plausible, (N, 3, H, W) uint8 each."""
        for turn in (False, True)[: 1 + self.rotate]:
            for mirror in (False, True)[: 1 + self.flip]:
                images = rotated(self.images) if turn else self.images
                yield images.flip(-1) if mirror else images


def image_folder(cfg: Training) -> ImageFolder:
    assert cfg.data.root is not None
    return ImageFolder(cfg.data.root, cfg.data.resolution, cfg.data.held_out, cfg.work)

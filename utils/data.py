"""Test images from a folder. Choosing and checking them needs no torch."""
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from utils.config import InputError, find

SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class TestImage:
    """One image of the set: its position in the whole set, and its file."""
    id: int
    path: Path

    def pixels(self, resolution):
        """(3, resolution, resolution) float32 in [-1, 1]: shorter side resized, centre cropped."""
        with Image.open(self.path) as opened:
            image = opened.convert("RGB")
        scale = resolution / min(image.size)
        if scale != 1:
            image = image.resize((max(resolution, round(image.width * scale)), max(resolution, round(image.height * scale))),
                                 Image.BICUBIC)
        left, top = (image.width - resolution) // 2, (image.height - resolution) // 2
        image = image.crop((left, top, left + resolution, top + resolution))
        return np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1

    def sha256(self):
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def select_images(settings):
    """The images of this run, sorted by file name: data.start_id to data.end_id, every n-th for a shard.

    Every selected image is decoded once here, so that a damaged one is found before hours of sampling.
    """
    root = find(settings.data.root)
    if not root.is_dir():
        raise InputError(f"data.root={settings.data.root}: folder {root} not found; get it from: {settings.data.source}")
    files = sorted(f for f in root.iterdir() if f.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"data.root={settings.data.root}: no PNG or JPEG image in {root}")
    end = settings.data.end_id if settings.data.end_id is not None else len(files)
    if end > len(files):
        raise InputError(f"data.end_id={end}: {root} has {len(files)} images")
    if settings.data.start_id >= end:
        raise InputError(f"data.start_id={settings.data.start_id}: {root} has {len(files)} images")
    k, n = settings.shard_of
    images = [TestImage(i, files[i]) for i in range(settings.data.start_id, end)][k::n]
    for image in images:
        _check_readable(image)
    return images


def _check_readable(image):
    try:
        with Image.open(image.path) as opened:
            opened.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"data.root: image {image.path} cannot be read ({error}); replace or remove it") from None

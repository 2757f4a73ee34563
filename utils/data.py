"""What is reconstructed: images from a folder, or measurements without a truth. Choosing and checking need no torch."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from PIL import Image, ImageOps

from utils.errors import InputError
from utils.paths import find

SUFFIXES = {"images": (".png", ".jpg", ".jpeg"), "measurement": (".npy",)}


@dataclass(frozen=True)
class TestItem:
    """One item of the set: its position in the whole set, and its file."""

    __test__ = False  # pytest would take the name for a test

    id: int
    path: Path

    def sha256(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


class TestImage(TestItem):
    """An image, from which a measurement is simulated."""

    def pixels(self, resolution: int) -> np.ndarray:
        """(3, resolution, resolution) float32 in [-1, 1]: shorter side resized, then centre cropped.

        As DAPS, data.py: torchvision's Resize (bilinear, antialiased) and CenterCrop on the tensor in [0, 1].
        """
        import torch
        from torchvision.transforms.functional import center_crop, resize

        image = torch.from_numpy(np.ascontiguousarray(read_rgb(self.path).transpose(2, 0, 1)))  # (3, H, W) in [0, 1]
        return (center_crop(resize(image, resolution, antialias=True), resolution) * 2 - 1).numpy()

    def check(self) -> None:
        with Image.open(self.path) as opened:
            opened.load()


class Measurement(TestItem):
    """A measurement from an instrument, y as a .npy file of real numbers; there is no truth."""

    def values(self) -> np.ndarray:
        """y as float32, without a leading axis of length 1."""
        y = np.load(self.path, allow_pickle=False)
        if not isinstance(y, np.ndarray):
            raise ValueError("is an archive of several arrays")
        if y.dtype.kind not in "fiu" or not np.isfinite(y).all():
            raise ValueError(f"holds {y.dtype} values that are not all finite real numbers")
        return y[0].astype(np.float32) if y.ndim == 4 and len(y) == 1 else y.astype(np.float32)

    def check(self) -> None:
        self.values()


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1] of a PNG or JPEG of any mode.

    Turned as its EXIF says; grey is repeated; 16-bit grey keeps its 16 bits; transparent parts are laid on white.
    """
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        image.load()
    if image.mode.startswith("I"):  # 16-bit grey, in Pillow "I;16" or, from some files, "I"
        grey = np.asarray(image, dtype=np.float32) / 65535
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(image.convert("RGB"), dtype=np.float32) / 255


def files_in(root: Path, kind: str) -> list[Path]:
    """The files of the whole set, sorted by path: those of data.kind `kind` in `root` and its folders, less hidden ones."""
    return sorted(
        f
        for f in root.rglob("*")
        if f.suffix.lower() in SUFFIXES[kind]
        and f.is_file()
        and not any(part.startswith(".") for part in f.relative_to(root).parts)
    )


class DataBlock(Protocol):
    """The block `data` of the config: where the set lies, and which of its items are meant."""

    root: str
    kind: Literal["images", "measurement"]
    start_id: int
    end_id: int | None
    source: str


class Selection(Protocol):
    """What utils.config.settings.Settings says about the items of a run."""

    @property
    def data(self) -> DataBlock: ...

    @property
    def shard_of(self) -> tuple[int, int]: ...


def select_images(settings: Selection) -> list[TestImage | Measurement]:
    """The items of this run, sorted by path: data.start_id to data.end_id, every n-th for a shard.

    Every selected item is read once here, so that a damaged one is found before hours of sampling.
    """
    data, root = settings.data, find(settings.data.root)
    if not root.is_dir():
        raise InputError(f"data.root={data.root}: folder {root} not found; get it from: {data.source}")
    kind = Measurement if data.kind == "measurement" else TestImage
    files = files_in(root, data.kind)
    if not files:
        raise InputError(f"data.root={data.root}: no {'.npy file' if kind is Measurement else 'PNG or JPEG image'} in {root}")
    end = data.end_id if data.end_id is not None else len(files)
    if end > len(files):
        raise InputError(f"data.end_id={end}: {root} has {len(files)} images")
    if data.start_id >= end:
        raise InputError(f"data.start_id={data.start_id}: {root} has {len(files)} images")
    k, n = settings.shard_of
    items = [kind(i, files[i]) for i in range(data.start_id, end)][k::n]
    for item in items:
        try:
            item.check()
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"data.root: {item.path} cannot be read ({reason}); replace or remove it") from None
    return items

"""What a prior is trained on: the families that the generator draws, or the images of a folder. No torch here.

A folder's held-out images are chosen by a hash of their relative path, so that the choice needs no list, stays when
other images are added, and is the same on every machine.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image
from rich.progress import track

from tools.demo_prior.make_demo_data import SEEDS, SIDE, demo_images
from utils.data import KINDS, TestImage, files_in
from utils.errors import InputError, Unfit
from utils.files import write_atomically
from utils.paths import find
from utils.plain_files import Unreadable, read_json

HELD_OUT_LIST = "held_out.txt"
HELD_OUT_FOLDER = "held_out"
WATCHED = 64  # held-out images on which the autoencoder is watched


def drawn_images(family: str, count: int, work: str | Path) -> NDArray[np.uint8]:
    """The training split of one family, (count, 3, SIDE, SIDE) uint8, drawn once and kept in `work`."""
    path, shape = Path(work) / f"{family}_{count}.npy", (count, 3, SIDE, SIDE)
    return cached_array(path, lambda: demo_images(family, SEEDS["train"], count).transpose(0, 3, 1, 2), shape, np.uint8)


def cached_array(path: Path, make: Callable[[], np.ndarray], shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
    """The array in `path`; made and written first where there is none. Raises InputError where it is damaged."""
    if not path.exists():
        made = make()
        write_atomically(path, lambda file: np.save(file, made))
    try:
        mapped = np.load(path, mmap_mode="r")  # the header alone; a file too short for what it says is refused
        wrong = None if (mapped.shape, mapped.dtype) == (tuple(shape), dtype) else f"is {mapped.dtype} {mapped.shape}"
    except MemoryError:
        raise
    except Exception as error:  # an empty or cut file can fail in many ways
        wrong = type(error).__name__
    if wrong:
        raise damaged(path, wrong)
    return np.array(mapped)


def damaged(path: Path, reason: str) -> InputError:
    """The line for a file of `work` that a power loss left empty or cut."""
    return InputError(f"{path} is damaged ({reason}); remove it, and the same command makes it anew")


def is_held_out(relative: str | Path, share: float) -> bool:
    """Whether the image of this path below the folder belongs to the held-out share, 0 to 1."""
    digest = hashlib.sha256(Path(relative).as_posix().encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


class ImageFolder:
    """The images of data.root, split into training and held-out ones.

    root: folder of images of any kind that utils.data reads, any size and mode, subfolders too; resolution: side in pixels,
    each image is resized and centre-cropped as posterior_sample.py does; held_out: share that training never sees; work:
    folder that keeps the training images as one array, the list of the held-out paths, and links to them for data=folder.
    Raises InputError: no such folder, too few images, one that cannot be read, or a `work` of other images.
    """

    def __init__(self, root: str | Path, resolution: int, held_out: float, work: str | Path) -> None:
        self.root, self.resolution, self.work = find(root), resolution, Path(work)
        if not self.root.is_dir():
            raise InputError(f"data.root={root}: folder {self.root} not found")
        paths = [file.relative_to(self.root).as_posix() for file in files_in(self.root, "images")]
        if not paths:
            raise InputError(f"data.root={root}: no {KINDS['images']} in {self.root}")
        self.held_out = [path for path in paths if is_held_out(path, held_out)]
        self.trained = [path for path in paths if not is_held_out(path, held_out)]
        if not self.held_out or not self.trained:
            raise InputError(
                f"data.root={root}: data.held_out={held_out} leaves {len(self.trained)} images for training and "
                f"{len(self.held_out)} held out; use another share or more images"
            )
        self.belongs = {
            "resolution": resolution,
            "held_out": held_out,
            "images": len(paths),
            "paths_sha256": hashlib.sha256("\n".join(paths).encode()).hexdigest(),
        }

    def prepare(self) -> None:
        """Write into `work` what is kept there; once, then only compared."""
        record = self.work / "data.json"
        try:
            before = read_json(record) if record.exists() else self.belongs
        except Unreadable as error:
            raise damaged(record, str(error)) from None
        if before != self.belongs:
            raise InputError(
                f"work={self.work}: was started with other images or another data.resolution or data.held_out; "
                "use another name or work, or remove it"
            )
        write_atomically(self.work / HELD_OUT_LIST, "".join(f"{path}\n" for path in self.held_out))
        for path in self.held_out:
            link = self.work / HELD_OUT_FOLDER / path
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():  # also one whose folder has moved
                link.unlink(missing_ok=True)
                link.symlink_to((self.root / path).resolve())
        self.training_images()
        write_atomically(record, json.dumps(self.belongs, indent=1) + "\n")

    def training_images(self) -> NDArray[np.uint8]:
        """(N, 3, resolution, resolution) uint8, in the order of the paths."""
        shape = (len(self.trained), 3, self.resolution, self.resolution)
        return cached_array(self.work / f"images_{self.resolution}.npy", lambda: self.read(self.trained), shape, np.uint8)

    def watched_images(self) -> NDArray[np.uint8]:
        """(n, 3, resolution, resolution) uint8, held out, evenly spaced over the paths."""
        count = min(WATCHED, len(self.held_out))
        return self.read([self.held_out[i * len(self.held_out) // count] for i in range(count)])

    def read(self, paths: Sequence[str]) -> NDArray[np.uint8]:
        """The images of paths below the root, (n, 3, resolution, resolution)."""
        array = np.empty((len(paths), 3, self.resolution, self.resolution), np.uint8)
        for i, path in track(enumerate(paths), "images", len(paths), transient=True):
            pixels = read_pixels(self.root / path, self.resolution)
            array[i] = np.clip(np.rint((pixels + 1) * 127.5), 0, 255)
        return array


def read_pixels(path: Path, resolution: int) -> NDArray[np.float32]:
    """(3, resolution, resolution) float32 in [-1, 1], as posterior_sample.py takes an image. Raises InputError."""
    image = TestImage(0, path)
    try:
        image.check()  # of several pictures in a file none is silently left out
        return image.pixels(resolution)
    except Unfit as error:  # which says itself what to do
        raise InputError(f"{path} cannot be read ({error})") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be read ({reason}); replace or remove it") from None
